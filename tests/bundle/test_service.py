"""The labelling service as the real command on a loopback port, asked by MONAI Label's own client and by others."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import given, settings
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from scripts.deploy.inference import ImageClassifier
from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.service.users import Role, Users
from scripts.deploy.versions import VersionStore

SERVICE = ("configs/service.json",)
MODEL = "skin-dynammo-mobilenet_v2"
LIMIT = 300_000
SECONDS = 120.0
EXAMPLES = 8
CLOSE = 1e-5  # the last digits depend on where in memory an image lies
NAME, IDENTIFIER, ACCESSION = "Secretname^Jane", "PATIENT-4711", "ACCESSION-0815"
WHO = {"PatientName": NAME, "PatientID": IDENTIFIER, "AccessionNumber": ACCESSION}
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (40, 48, 3)).astype(np.uint8)


class Running:
    """The command with its own settings."""

    def __init__(self, start: Callable[..., Any], port: int, **overrides: Any) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.folder = Path(overrides["service_dir"])
        self._process = start({"port": port, "device": "cpu", **overrides}, SERVICE)
        for _ in range(int(20 * SECONDS)):
            assert self._process.is_alive(), "what it printed is captured"
            try:
                requests.get(f"{self.url}/healthz")
                return
            except requests.ConnectionError:
                time.sleep(0.05)
        pytest.fail("the service does not answer")

    def ask(self, method: str, path: str, **request: Any) -> requests.Response:
        """Ask, and see that the service has no fault."""
        answer = requests.request(method, self.url + path, timeout=SECONDS, **request)
        assert answer.status_code < 500, answer.text
        return answer

    def infer(self, content: bytes, name: str = "image", query: str = "", **params: Any) -> requests.Response:
        """Ask for the class of a file."""
        data = {"params": json.dumps(params)}
        return self.ask("POST", f"/infer/{MODEL}{query}", files={"file": (name, content)}, data=data)

    def add(self, content: bytes, name: str = "image") -> str:
        """Add an image to be labelled."""
        return self.ask("PUT", "/datastore/image", files={"file": (name, content)}).json()["image"]

    def end(self, number: int = signal.SIGTERM) -> int | None:
        """Send a signal, and return how the command ended."""
        if self._process.is_alive():
            os.kill(self._process.pid, number)
        self._process.join(SECONDS)
        return self._process.exitcode


@pytest.fixture(scope="module")
def service(
    start_run: Any, free_port: Any, trained_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    running = Running(start_run, free_port(), model=trained_model, service_dir=folder, max_bytes=LIMIT)
    yield running
    assert running.end() == 0


@pytest.fixture(scope="module")
def classifier(trained_model: Path) -> ImageClassifier:
    return load_image_classifier(trained_model)


@pytest.fixture(scope="module")
def client_class(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The client of the stock MONAI Label, in a folder of its own: its other requirements are not compatible."""
    folder = tmp_path_factory.mktemp("client")
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "monailabel==0.8.5"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"monailabel cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    pytest.importorskip("cgi", reason="the client needs a module that Python 3.13 has no more")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        from monailabel.client import MONAILabelClient

        yield MONAILabelClient


def png(picture: np.ndarray = PICTURE, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def dicom(scans: Any, folder: Path, **attributes: Any) -> bytes:
    return Path(scans.dicom(folder / "image.dcm", PICTURE[..., 0], **{**WHO, **attributes})).read_bytes()


def test_the_stock_client_works_through_a_day(service: Running, client_class: Any, tmp_path: Path) -> None:
    client = client_class(service.url, tmpdir=str(tmp_path))
    info = client.info()
    assert list(info["models"]) == list(info["trainers"]) == [MODEL]
    assert info["labels"] == ["benign", "skin/naevus", "odd, very"]
    files = []
    for number in range(3):
        files.append(tmp_path / f"{NAME}{number}.png")
        files[-1].write_bytes(png(np.roll(PICTURE, number, 0)))
    images = [client.upload_image(str(file), f"{NAME}{number}")["image"] for number, file in enumerate(files)]
    said = json.loads(client.infer(MODEL, images[0], {})[1])  # of an answer in JSON the client leaves the text
    assert [entry["label"] for entry in said["prediction"]] == info["labels"]
    assert sum(entry["score"] for entry in said["prediction"]) == pytest.approx(1, abs=1e-5)
    assert json.loads(client.infer(MODEL, "", {}, file=str(files[0]))[1])["prediction"] == said["prediction"]
    assert client.upload_image(str(files[0]), "")["image"] == images[0]  # the client itself cannot leave the name out
    session = client.create_session(str(files[0]))["session_id"]
    assert json.loads(client.infer(MODEL, "", {}, session_id=session)[1])["prediction"] == said["prediction"]
    assert client.get_session(session)["name"] == client.remove_session(session)["name"] == session
    (tmp_path / "label.json").write_text('{"label": "benign"}')
    assert client.save_label(images[0], str(tmp_path / "label.json"))["label"] == images[0]
    assert json.loads(Path(client.download_label(images[0], "final")).read_text())["label"] == "benign"
    assert client.datastore()["objects"][images[0]]["labels"]["final"]["info"]["label"] == "benign"
    for strategy in info["strategies"]:
        assert client.next_sample(strategy, {})["id"] in images[1:], strategy
    assert not client.train_status(check_if_running=True)
    assert client.train_stop() is None
    assert not client.auth_enabled() and client.auth_valid_token()
    for refused in (
        lambda: client.train_start(MODEL, {}),
        lambda: client.infer("other", images[0], {}),
        client.train_status,
    ):
        with pytest.raises(Exception, match="Status: 4"):
            refused()


def test_every_kind_of_file_is_answered_as_the_classifier_answers(
    service: Running, classifier: ImageClassifier, scans: Any, tmp_path: Path
) -> None:
    grey = tmp_path / "grey.nii.gz"
    scans.nifti(grey, PICTURE[..., :1].astype(np.int16))
    contents = {
        "a.png": png(),
        "a.jpg": png(kind="JPEG"),
        "a.dcm": dicom(scans, tmp_path),
        "DICOM without a suffix": dicom(scans, tmp_path),
        "a.nii.gz": grey.read_bytes(),
        "a.npz": npz(test_images=PICTURE[None]),
    }
    answers = []
    for name, content in contents.items():
        file = tmp_path / "direct" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        (reference,) = [f"{file}#test/0"] if name.endswith("npz") else classifier.pictures(str(file))
        expected = classifier.classify(reference).record()
        said = service.infer(content, name).json()
        assert said["predicted_class"] == expected["predicted_class"], name
        assert said["probabilities"] == pytest.approx(expected["probabilities"], abs=CLOSE), name
        assert said["model"] == classifier.model.record()
        stored = service.ask("POST", f"/infer/{MODEL}?image={service.add(content, name)}").json()
        assert stored["probabilities"] == pytest.approx(said["probabilities"], abs=CLOSE), name
        answers.append(said["probabilities"])
    assert answers[2] != answers[0]


def test_one_picture_of_several_is_named(service: Running, classifier: ImageClassifier, tmp_path: Path) -> None:
    content = npz(test_images=np.stack([PICTURE, 255 - PICTURE]))
    assert service.infer(content, "a.npz").json()["reason"] == "many_pictures"
    assert service.infer(content, "a.npz", picture=2).json()["reason"] == "no_such_picture"
    (tmp_path / "second.png").write_bytes(png(255 - PICTURE))
    expected = classifier.classify(str(tmp_path / "second.png")).record()["probabilities"]
    assert service.infer(content, "a.npz", picture=1).json()["probabilities"] == pytest.approx(expected, abs=CLOSE)


def test_where_the_network_looks_is_drawn(service: Running) -> None:
    drawn = service.infer(png(), query="?output=image")
    assert drawn.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(drawn.content)) as picture:
        assert picture.mode == "RGB" and picture.width > 2 * 48 and picture.height > 40
    form = service.infer(png(), query="?output=all")
    assert form.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert drawn.content in form.content and b'"predicted_class"' in form.content


BROKEN: dict[str, tuple[bytes, str, int, str]] = {
    "nothing": (b"", "a.png", 415, "unsupported_kind"),
    "text": (b"Secretname^Jane", "a.png", 415, "unsupported_kind"),
    "a PNG cut short": (png()[:900], "a.png", 400, "unreadable"),
    "a PNG with a wrong byte": (png()[:500] + b"\0" + png()[501:], "a.png", 400, "unreadable"),
    "transparent": (png(np.dstack([PICTURE, PICTURE[..., 0]])), "a.png", 422, "transparent"),
    "PostScript": (png(kind="EPS"), "a.png", 415, "unsupported_kind"),
    "16 bits": (png(PICTURE[..., 0].astype(np.uint16) * 257), "a.png", 415, "unsupported_kind"),
    "a DICOM that is none": (b"\0" * 128 + b"DICM" + b"\1" * 99, "a", 422, "no_pixels"),
    "a NIfTI that is none": (b"Secretname^Jane", "a.nii.gz", 400, "corrupt_header"),
    "an npz that is none": (b"PK", "a.npz", 400, "unreadable"),
    "pickles": (npz(test_images=np.array([{}], object)), "a.npz", 400, "unreadable"),
    "a picture too large": (png(np.zeros((9000, 9000), np.uint8)), "a.png", 413, "too_large"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_image_is_refused_with_a_reason(service: Running, kind: str) -> None:
    content, name, status, reason = BROKEN[kind]
    before = service.ask("GET", "/datastore/").json()
    for answer in (
        service.infer(content, name),
        service.ask("PUT", "/datastore/image", files={"file": (name, content)}),
        service.ask("PUT", "/session/", files={"files": (name, content)}),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
        assert "Secretname" not in answer.text and "/proc" not in answer.text
    assert service.ask("GET", "/datastore/").json() == before


@pytest.mark.parametrize(
    ("method", "path", "request_", "status"),
    [
        ("POST", "/infer/other", {"files": {"file": png()}}, 404),
        ("POST", f"/infer/{MODEL}", {}, 422),
        ("POST", f"/infer/{MODEL}?image={'0' * 32}", {}, 404),
        ("POST", f"/infer/{MODEL}?image=../../../etc/passwd", {}, 404),
        ("POST", f"/infer/{MODEL}?image=/etc/passwd", {}, 404),
        ("POST", f"/infer/{MODEL}?session_id=../../lock", {}, 404),
        ("POST", f"/infer/{MODEL}?output=dicom_seg", {"files": {"file": png()}}, 422),
        ("POST", f"/infer/{MODEL}", {"files": {"file": png()}, "data": {"params": "no JSON"}}, 422),
        ("POST", f"/infer/{MODEL}", {"files": {"file": png()}, "data": {"params": '{"picture": "first"}'}}, 422),
        ("POST", f"/infer/{MODEL}", {"data": b"no form", "headers": {"content-type": "multipart/form-data"}}, 400),
        ("GET", "/datastore/image?image=../key", {}, 404),
        ("GET", "/datastore/image?image=%2e%2e%2fkey", {}, 404),
        ("HEAD", "/datastore/image?image=../key", {}, 404),
        ("DELETE", "/datastore/image?id=../key", {}, 404),
        ("GET", "/datastore/label?label=../key&tag=final", {}, 404),
        ("GET", "/datastore/label?label=../key&tag=../..", {}, 422),
        ("GET", "/session/..%2f..%2fkey", {}, 404),
        ("GET", "/model/..%2f..%2fkey", {}, 404),
        ("GET", "/../../etc/passwd", {}, 404),
        ("POST", "/activelearning/other", {}, 404),
        ("POST", "/scoring/other", {}, 404),
        ("POST", "/train/other", {}, 404),
        ("POST", f"/train/{MODEL}", {"json": {"max_epochs": "$1"}}, 422),
        ("POST", f"/train/{MODEL}", {"json": [1]}, 422),
        ("GET", "/logs/?lines=many", {}, 422),
        ("PUT", "/datastore/image", {}, 422),
        ("PUT", "/session/", {"files": [("files", png()), ("files", png())]}, 422),
    ],
)
def test_a_request_that_cannot_be_done_gets_a_reason(
    service: Running, method: str, path: str, request_: dict[str, Any], status: int
) -> None:
    answer = service.ask(method, path, **request_)
    assert answer.status_code == status
    assert method == "HEAD" or answer.json()["detail"]


@pytest.mark.parametrize(
    "label", [b"", b"[]", b"{}", b"\xff", b'{"label": 3}', b'{"label": "$import os"}', b"[" * 10**5]
)
def test_a_label_that_names_no_class_is_refused(service: Running, label: bytes) -> None:
    image = service.add(png())
    answer = service.ask("PUT", f"/datastore/label?image={image}", files={"label": ("label.json", label)})
    assert answer.status_code == 422 and answer.json()["detail"]


def test_more_than_allowed_is_refused_while_it_comes(service: Running) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        yield b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n"
        while len(sent) < 1000:
            sent.append(1)
            yield (
                b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n" * (len(sent) == 1)
                + b"a" * 10_000
            )

    with suppress(requests.ConnectionError):  # the answer was there before all was sent
        form = {"content-type": "multipart/form-data; boundary=x"}
        assert service.ask("POST", f"/infer/{MODEL}", data=endless(), headers=form).status_code == 413
    assert service.infer(b"a" * LIMIT).status_code == 413
    assert service.ask("GET", "/healthz").status_code == 200
    assert 'status="413"' in service.ask("GET", "/metrics").text


def test_a_page_of_another_site_cannot_ask(service: Running) -> None:
    headers = {"origin": "https://evil.example"}
    assert service.ask("POST", f"/train/{MODEL}", headers=headers).status_code == 403
    assert service.ask("GET", "/info/", headers={"host": "evil.example"}).status_code == 421


def test_nothing_that_was_sent_of_a_patient_is_written(
    service: Running, scans: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = dicom(scans, tmp_path)
    assert NAME.encode() in content
    image = service.add(content, f"{NAME}.dcm")
    service.infer(content, f"{NAME}.dcm", query=f"?image={NAME}", patient=NAME)
    service.infer(content[:700], f"{NAME}.dcm")
    service.ask("GET", f"/datastore/image?image={NAME}")
    service.ask("GET", f"/{NAME}")
    service.ask("PUT", "/session/", files={"files": (f"{NAME}.dcm", content)})
    form = {"params": json.dumps({"group": NAME, "client_id": NAME, "other": IDENTIFIER})}
    service.ask("PUT", f"/datastore/?image={NAME}", files={"file": (f"{NAME}.png", png(255 - PICTURE))}, data=form)
    label = json.dumps({"label": "benign", "annotator": NAME})
    service.ask("PUT", f"/datastore/label?image={image}", files={"label": (f"{NAME}.json", label)}, data=form)
    for strategy in ("random", "entropy"):
        service.ask("POST", f"/activelearning/{strategy}", json={"client_id": NAME})
    service.ask("POST", f"/batch/infer/{MODEL}?run_sync=true", json={"client_id": NAME})
    written = [path for path in service.folder.rglob("*") if path.is_file()]
    assert len(written) >= 10 and service.folder / "service.log" in written
    for path in written:
        for secret in (NAME, IDENTIFIER, ACCESSION):
            assert secret.encode() not in path.read_bytes() and secret not in str(path)


def test_pictures_stay_with_who_asked_for_them(service: Running) -> None:
    image, session = service.add(png()), service.ask("PUT", "/session/", files={"files": png()}).json()["session_id"]
    answers = [
        service.infer(png(), query="?output=image"),
        service.ask("GET", f"/datastore/image?image={image}"),
        service.ask("GET", f"/session/{session}?image=true"),
        service.ask("GET", "/"),
        service.ask("GET", "/nowhere"),
    ]
    for answer in answers:
        headers = {name: answer.headers.get(name) for name in PRIVATE}
        assert headers == PRIVATE, answer.url


PRIVATE = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


def test_what_is_kept_is_for_its_owners_eyes(service: Running) -> None:
    service.ask("PUT", "/session/", files={"files": png()})
    written = [service.folder, *(path for path in service.folder.rglob("*") if not path.is_symlink())]
    assert any(path.parent.name == "sessions" for path in written)
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_callers_who_keep_it_waiting_keep_nobody_out(service: Running) -> None:
    where = ("127.0.0.1", int(service.url.rpartition(":")[2]))
    head = b"POST /infer/a HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as stack:
        for first in (
            b"",
            head,
            head + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000\r\n\r\n-",
        ):
            for _ in range(90):  # more than give way to nobody
                stack.enter_context(socket.create_connection(where, 10)).sendall(first)
        started = time.monotonic()
        assert service.ask("GET", "/healthz").status_code == 200
        assert service.infer(png()).status_code == 200
        assert time.monotonic() - started < 10


def test_all_images_can_be_asked_about_and_scored(service: Running) -> None:
    image = service.add(png())
    said = service.ask("POST", f"/infer/{MODEL}?image={image}").json()
    service.ask("PUT", f"/datastore/label?image={image}", files={"label": json.dumps(said)})
    assert service.ask("POST", f"/batch/infer/{MODEL}?images=labeled", json={}).json()["status"] == "RUNNING"
    while service.ask("GET", "/batch/infer?check_if_running=true").status_code == 200:
        time.sleep(0.05)
    assert service.ask("GET", "/batch/infer").json()["status"] == "DONE"
    original = service.ask("GET", f"/datastore/label/info?label={image}&tag=original").json()
    assert (original["label"], original["score"]) == (said["predicted_class"], max(said["probabilities"].values()))
    scored = service.ask("POST", "/scoring/accuracy?run_sync=true").json()
    stats = service.ask("GET", "/datastore/").json()
    assert scored["images"] + scored["unknown_classes"] == stats["completed"] <= stats["total"]
    assert 0 <= scored["accuracy"] <= 1


def test_the_weights_that_are_served_can_be_had(service: Running, trained_model: Path) -> None:
    answer = service.ask("GET", f"/model/{MODEL}")
    assert answer.content == (trained_model / "model.pt").read_bytes()
    assert answer.headers["content-disposition"] == f'attachment; filename="{MODEL}.pt"'
    assert service.ask("GET", f"/model/info/{MODEL}").json()["checksum"].startswith("SHA256:")


PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def guarded(
    start_run: Any, free_port: Any, trained_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("guarded")
    users = Users(folder / "users.json")
    for role in Role:
        users.add(f"a {role}", role, PASSWORD)
    place = {"host": "0.0.0.0", "users": users.path}
    running = Running(start_run, free_port(), model=trained_model, service_dir=folder / "service", **place)
    yield running
    running.end(signal.SIGKILL)


def signed_in(running: Running, role: str) -> dict[str, str]:
    """Sign in, and return the header that names the user from then on."""
    answer = running.ask("POST", "/auth/token", data={"username": f"a {role}", "password": PASSWORD})
    return {"authorization": f"Bearer {answer.json()['access_token']}"}


def test_where_others_can_reach_it_every_route_asks_for_a_user_and_some_for_a_role(guarded: Running) -> None:
    known = signed_in(guarded, "reader")
    paths = guarded.ask("GET", "/openapi.json", headers=known).json()["paths"]
    routes = [(method.upper(), path.replace("{model}", MODEL)) for path, kinds in paths.items() for method in kinds]
    headers = [{"authorization": "Bearer wrong"}, *(signed_in(guarded, role) for role in Role)]
    answers = {route: [guarded.ask(*route, headers=own).status_code for own in headers] for route in routes}
    free = {path for (_, path), statuses in answers.items() if statuses[0] != 401}
    assert free == {"/healthz", "/auth/", "/auth/token"}
    refused = {
        role: {f"{method} {path}" for (method, path), statuses in answers.items() if statuses[place] == 403}
        for place, role in enumerate(Role, start=1)
    }
    admins = {
        *("DELETE /datastore/image", "DELETE /datastore/label", "DELETE /train/", "DELETE /batch/infer"),
        *("POST /datastore/labels/rename", "POST /tasks/rollback", "POST /tasks/{number}/serve"),
        *(f"POST /train/{MODEL}", f"POST /batch/infer/{MODEL}", f"GET /model/{MODEL}", f"GET /model/info/{MODEL}"),
        "GET /logs/",
    }
    labellers = {
        "PUT /datastore/image",
        "PUT /datastore/label",
        "POST /datastore/labels",
        "POST /datastore/labels/undo",
    }
    assert refused == {Role.READER: admins | labellers, Role.LABELLER: admins, Role.ADMIN: set()}


def test_who_labels_and_who_deletes_is_named(guarded: Running) -> None:
    labeller, admin = (signed_in(guarded, role) for role in ("labeller", "admin"))
    sent = {"file": ("a.png", png(PICTURE))}
    image = guarded.ask("PUT", "/datastore/image", files=sent, headers=labeller).json()["image"]
    label = {"label": json.dumps({"label": "benign"})}
    assert guarded.ask("PUT", f"/datastore/label?image={image}", files=label, headers=labeller).status_code == 200
    info = guarded.ask("GET", f"/datastore/label/info?label={image}&tag=final", headers=labeller).json()
    assert (info["label"], info["by"]) == ("benign", "a labeller")
    for path in (f"/datastore/label?id={image}&tag=final", f"/datastore/image?id={image}"):
        assert guarded.ask("DELETE", path, headers=admin).status_code == 200
    events = VersionStore(guarded.folder / "store").audit.events()
    assert [(event["event"], event["by"], event["image"]) for event in events] == [
        ("label deleted", "a admin", image),
        ("image deleted", "a admin", image),
    ]
    assert guarded.ask("GET", "/auth/user", headers=admin).json() == {"name": "a admin", "role": "admin"}


def test_labels_of_several_are_changed_undone_and_written_down_by_role(guarded: Running) -> None:
    reader, labeller, admin = (signed_in(guarded, role) for role in Role)

    def post(path: str, headers: dict[str, str], **request: Any) -> requests.Response:
        return guarded.ask("POST", path, headers=headers, **request)

    images = [
        guarded.ask("PUT", "/datastore/image", files={"file": png(np.roll(PICTURE, by, 1))}, headers=labeller).json()[
            "image"
        ]
        for by in (1, 2)
    ]
    given = post("/datastore/labels", labeller, json={"images": images, "label": "rings"}).json()
    assert given["images"] == 2
    taken = {"images": images, "label": None}
    assert [post("/datastore/labels", who, json=taken).status_code for who in (reader, labeller)] == [403, 403]
    changed = post("/datastore/labels", labeller, json={"images": images[:1], "label": "benign"}).json()
    (row,) = [one for one in guarded.ask("GET", "/datastore/labels", headers=reader).json() if one["label"] == "rings"]
    assert (row["images"], row["missing"], row["known"], row["by"]) == (1, 1, False, {"a labeller": 1})
    near = guarded.ask("GET", "/datastore/labels/near?name=Ring", headers=reader).json()
    assert near == {"known": False, "given": False, "near": ["rings"]}
    assert post(f"/datastore/labels/undo?change={changed['change']}", labeller).json()["images"] == 1
    assert post(f"/datastore/labels/undo?change={changed['change']}", labeller).status_code == 404
    by_admin = post("/datastore/labels", admin, json={"images": images, "label": "rings"}).json()
    assert post(f"/datastore/labels/undo?change={by_admin['change']}", labeller).status_code == 403
    post(f"/datastore/labels/undo?change={by_admin['change']}", admin)
    assert post("/datastore/labels/rename", admin, json={"label": "rings", "name": "benign"}).json()["images"] == 2
    assert post("/datastore/labels/rename", admin, json={"label": "rings", "name": "benign"}).status_code == 404
    listed = guarded.ask("GET", "/datastore/worklist?show=labelled&label=benign&search=ADMIN", headers=reader).json()
    assert {item["image"] for item in listed["items"]} == set(images) and listed["found"] == 2
    history = guarded.ask("GET", f"/datastore/label/history?image={images[0]}", headers=reader).json()
    assert [(entry["label"], entry["by"]) for entry in history] == [
        *(("rings", "a labeller"), ("benign", "a labeller"), ("rings", "a labeller"), ("rings", "a admin")),
        *(("rings", "a admin"), ("benign", "a admin")),
    ]
    post("/datastore/labels", admin, json=taken)
    events = [
        event for event in VersionStore(guarded.folder / "store").audit.events() if event["event"][:7] == "labels "
    ]
    assert [(event["event"], event["by"], event.get("before"), event.get("label")) for event in events] == [
        ("labels changed", "a labeller", {"rings": 1}, "benign"),
        ("labels undone", "a labeller", None, None),
        ("labels undone", "a admin", None, None),
        ("labels changed", "a admin", {"rings": 2}, "benign"),
        ("labels changed", "a admin", {"benign": 2}, None),
    ]


def test_values_and_thumbnails_are_handed_out_within_bounds(service: Running, scans: Any, tmp_path: Path) -> None:
    stored = (np.arange(40 * 48).reshape(40, 48) * 7 % 3000).astype(np.uint16)
    about = {"Modality": "CT", "RescaleIntercept": -1024, "RescaleSlope": 1, "WindowCenter": 40, "WindowWidth": 400}
    content = Path(scans.dicom(tmp_path / "ct.dcm", stored, **{**WHO, **about})).read_bytes()
    sent = service.ask("POST", "/pixels/", files={"file": ("a.dcm", content)})
    kept = service.ask("GET", f"/pixels/?image={service.add(content, 'a.dcm')}")
    assert sent.content == kept.content and sent.headers["x-pixels"] == kept.headers["x-pixels"]
    said = json.loads(sent.headers["x-pixels"])
    values = said["lowest"] + said["step"] * np.frombuffer(sent.content, "<u2").reshape(said["shape"])
    assert (values == stored.astype(int)[None] - 1024).all()
    assert (said["bits"], said["black"], said["white"], said["hounsfield"]) == (16, -160, 240, True)
    image = service.add(png())
    colours = service.ask("GET", f"/pixels/?image={image}")
    assert json.loads(colours.headers["x-pixels"])["shape"] == [1, 40, 48, 3] and colours.content == PICTURE.tobytes()
    small = service.ask("GET", f"/pixels/thumbnail?image={image}&side=16")
    with Image.open(io.BytesIO(small.content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (16, 13))
    for path in (f"thumbnail?image={image}&side=9999", f"thumbnail?image={image}&side=1"):
        assert service.ask("GET", f"/pixels/{path}").status_code == 422
    for path in ("?image=../key", "thumbnail?image=../key"):
        assert service.ask("GET", f"/pixels/{path}").status_code == 404
    assert service.ask("POST", "/pixels/", files={"file": b"Secretname"}).json()["reason"] == "unsupported_kind"
    pictures = {"test_images": np.stack([PICTURE, 255 - PICTURE]), "train_images": np.zeros((1, 9, 9, 3), np.uint8)}
    several = service.ask("POST", "/pixels/", files={"file": ("a.npz", npz(**pictures))})
    assert several.content == pictures["test_images"].tobytes()
    heat = service.infer(png(), query="?output=heat")
    slices, rows, columns = json.loads(heat.headers["x-pixels"])["shape"]
    assert slices == 1 and len(heat.content) == rows * columns and max(heat.content) == 255


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_what_can_be_asked_for_is_told_to_those_who_may_ask(guarded: Running, path: str) -> None:
    headers = [{"authorization": "Bearer wrong"}, *(signed_in(guarded, role) for role in ("reader", "admin"))]
    answers = [guarded.ask("GET", path, headers=own) for own in headers]
    assert [answer.status_code for answer in answers] == [401, 200, 200]
    assert "/activelearning/{strategy}" in answers[1].text and "activelearning" not in answers[0].text


def test_the_page_of_routes_runs_nothing_and_asks_nobody(service: Running) -> None:
    answer = service.ask("GET", "/docs")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'none'; style-src 'sha256-" in policy
    assert "<script" not in answer.text and "http:" not in answer.text and "https:" not in answer.text


def test_the_stock_client_signs_in_by_name_and_password(guarded: Running, client_class: Any) -> None:
    client = client_class(guarded.url)
    assert client.auth_enabled() and not client.auth_valid_token()
    with pytest.raises(Exception, match="Status: 401"):
        client.info()
    with pytest.raises(Exception, match="Status: 401"):
        client.auth_token("a reader", "wrong")
    client.update_auth(client.auth_token("a reader", PASSWORD))
    assert client.auth_valid_token() and client.info()["labels"]


def test_who_has_signed_in_calls_it_by_any_name(guarded: Running) -> None:
    headers = {"host": "hospital.example", "origin": "https://labels.hospital.example"}
    headers |= signed_in(guarded, "reader")
    assert guarded.ask("GET", "/info/", headers=headers).status_code == 200


def test_a_token_and_a_password_are_in_no_file(guarded: Running) -> None:
    token = signed_in(guarded, "reader")["authorization"].split()[1]
    written = [path.read_bytes() for path in guarded.folder.parent.rglob("*") if path.is_file()]
    assert len(written) > 3 and not any(token.encode() in text or PASSWORD.encode() in text for text in written)


def test_whatever_is_asked_is_answered_as_the_page_of_the_interface_says(service: Running) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    options = settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    api = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 30
    for operation in operations:

        @options
        @given(operation.as_strategy())
        def ask(case: Any) -> None:
            case.call_and_validate(checks=checks)

        ask()
