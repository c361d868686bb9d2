"""Damaged images through the doors that a hospital and the edge have: the folder command, the node, the edge runner."""

from __future__ import annotations

import io
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
import torch
from PIL import Image
from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt

from scripts.commands.app import main
from scripts.deploy.edge.classifier import METADATA, EdgeClassifier
from scripts.deploy.export.exporter import ONNX, Exporter
from scripts.deploy.node.classes import not_images
from scripts.deploy.queue import QueueRecord, State
from scripts.imaging.decoding.reasons import Reason
from scripts.model.folder import TrainedModel

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
BATCH = 25
CONTEXT_KINDS = ("dicom", "nifti", "picture")
WAIT = 60.0
SECONDS = 10.0


def images(*sources: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return those files that a door for images takes."""
    return {kind: [good for source in sources for good in source.get(kind, [])] for kind in CONTEXT_KINDS}


def check_folder(figures: Any, files: Iterator[Any], model: Path, folder: Path, peak_memory: Any) -> None:
    """Classify folders of damaged files; each must be in the lists, and nothing may be written elsewhere."""
    source, output = folder / "in", folder / "out"
    source.mkdir()
    left = True
    while left:
        batch = [path for _, (path, _) in zip(range(BATCH), files, strict=False)]
        left = len(batch) == BATCH
        if not batch:
            break
        started = time.time()
        one_by_one = ["--workers", "1", "--batch_size", "1"]
        status = main(["classify", str(model), str(source), "--output", str(output), *one_by_one])
        written = [started, *sorted(path.stat().st_mtime for path in output.rglob("*.result.json"))]
        seconds = max(after - before for before, after in pairwise(written))
        assert status in (0, 3) and {path.name for path in folder.iterdir()} == {"in", "out"}
        said = json.loads((output / "predictions.json").read_text())
        names = {entry["image"].rpartition("#")[0] or entry["image"] for entry in said["images"] + said["refused"]}
        visible = {path.name for path in batch if not path.name.startswith(".")}
        assert visible - {name.rstrip("#") for name in names} - names == set() or _with_marks(visible, names)
        figures.outcomes.update(entry["code"] for entry in said["refused"])
        figures.outcomes["image"] += len(said["images"])
        figures.slowest = max(figures.slowest, seconds)
        figures.memory = max(figures.memory, peak_memory())
        for path in (*batch, output):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _with_marks(visible: set[str], names: set[str]) -> bool:
    """Say whether all files are named, some of whose own names hold a #."""
    return all(any(name.startswith(file) for name in names) for file in visible)


def test_a_folder_of_damaged_files_is_listed_whole(
    drawn: Any, mutants: Any, tally: Any, trained_model: Path, tmp_path: Path, peak_memory: Any
) -> None:
    files = mutants(images(drawn), 2 * BATCH, tmp_path / "in", odd_names=True)
    check_folder(tally("folder command"), files, trained_model, tmp_path, peak_memory)


@pytest.mark.slow
def test_folders_of_thousands_of_damaged_files(
    drawn: Any, real: Any, mutants: Any, tally: Any, trained_model: Path, tmp_path: Path, peak_memory: Any
) -> None:
    files = mutants(images(drawn, real), 2000, tmp_path / "in", odd_names=True)
    check_folder(tally("folder command"), files, trained_model, tmp_path, peak_memory)


@pytest.fixture(scope="module")
def exported(trained_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file for the edge."""
    folder = tmp_path_factory.mktemp("export")
    shown = torch.randn(8, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    trained = TrainedModel.open(trained_model)
    with torch.no_grad():
        labels = trained.network(shown).argmax(1)
    Exporter(
        trained=trained,
        folder=str(folder),
        calibration=lambda: [shown],
        test=[{"image": shown, "label": labels}],
        tolerance=1e-3,
        largest_drop=1.0,
    ).run()
    return folder / ONNX


def check_edge(figures: Any, files: Iterator[Any], exported: Path) -> None:
    runner = EdgeClassifier(exported, threads=1)
    for path, _ in files:
        figures.ask(path.name, lambda: [runner.classify(each) for each in runner.pictures(str(path))], "image")  # noqa: B023
        path.unlink()


def check_edge_models(figures: Any, exported: Path, count: int, damage: Any, damage_json: Any, folder: Path) -> None:
    """Damage the model itself: its bytes, and what it says of itself."""
    import onnx

    rng, content, target = np.random.default_rng(3), exported.read_bytes(), folder / "damaged.onnx"
    whole = onnx.load(exported)
    (entry,) = [entry for entry in whole.metadata_props if entry.key == METADATA]
    metadata = entry.value.encode()
    for number in range(count):
        if number % 2:
            entry.value = damage_json(metadata, rng).decode(errors="replace")
            onnx.save(whole, target)
        else:
            target.write_bytes(damage(content, rng))
        figures.ask(f"model {number}", lambda: EdgeClassifier(target, threads=1))


@pytest.mark.slow
def test_the_edge_names_what_is_damaged(
    drawn: Any, real: Any, mutants: Any, tally: Any, exported: Path, damage: Any, damage_json: Any, tmp_path: Path
) -> None:
    check_edge(tally("edge runner, images"), mutants(images(drawn, real), 1000, tmp_path), exported)
    check_edge_models(tally("edge runner, models"), exported, 100, damage, damage_json, tmp_path)


class HostileCaller:
    """Sends a node what no archive would.

    Args:
        port: of the node.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._entity = AE("HOSTILE")
        self._entity.acse_timeout = self._entity.dimse_timeout = self._entity.network_timeout = WAIT

    def send(self, good: Any, damaged: Callable[[bytes], bytes], number: int, folder: Path) -> int:
        """Store an image whose own part is damaged, while what is said of it beside is well-formed.

        Returns:
            The status; -1 where the association was ended instead.
        """
        dataset = pydicom.dcmread(io.BytesIO(good.content), force=True, stop_before_pixels=True)
        meta = dataset.file_meta
        before = str(dataset.get("SOPInstanceUID") or "1.2.826.0.1")
        own = f"1.{10 ** (len(before) - 3) + number}"  # as long; an image is known by the UID that it is sent under
        meta.MediaStorageSOPInstanceUID = own
        meta.MediaStorageSOPClassUID = meta.get("MediaStorageSOPClassUID") or "1.2.840.10008.5.1.4.1.1.4"
        start = 144 + int.from_bytes(good.content[140:144], "little") if good.content[132:136] == b"\x02\0\0\0" else 0
        path = folder / "sent.dcm"
        with open(path, "wb") as file:
            file.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(file, meta, enforce_standard=True)
            file.write(damaged(good.content[start:].replace(before.encode(), own.encode())))
        self._entity.requested_contexts = []
        self._entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        association = self._entity.associate("127.0.0.1", self.port, ae_title="DYNAMMO")
        if not association.is_established:
            return -1
        try:
            return int(association.send_c_store(path).get("Status", -1))
        except ValueError:  # the context was not accepted: a transfer syntax that is not read
            return -1
        finally:
            association.release()

    def record(self, good: Any, folder: Path) -> bytes:
        """Return the bytes of an association in which a good image is sent."""
        said: list[bytes] = []
        path = folder / "good.dcm"
        path.write_bytes(good.content)
        meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
        self._entity.requested_contexts = []
        self._entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        handlers: list[Any] = [(evt.EVT_DATA_SENT, lambda event: said.append(event.data))]
        association = self._entity.associate("127.0.0.1", self.port, ae_title="DYNAMMO", evt_handlers=handlers)
        assert association.send_c_store(path).Status == 0
        association.release()
        return b"".join(said)

    def stream(self, content: bytes) -> None:
        """Send bytes, take what comes, and hang up."""
        with socket.create_connection(("127.0.0.1", self.port), WAIT) as connection, suppress(OSError):
            connection.sendall(content)
            connection.settimeout(0.05)
            while connection.recv(2**16):
                pass

    def answers(self) -> bool:
        """Say whether the node answers a C-ECHO."""
        self._entity.requested_contexts = []
        self._entity.add_requested_context("1.2.840.10008.1.1")
        association = self._entity.associate("127.0.0.1", self.port, ae_title="DYNAMMO")
        if not association.is_established:
            return False
        status = association.send_c_echo()
        association.release()
        return bool(status) and status.Status == 0


@pytest.fixture
def start(start_python: Callable[..., BaseProcess], tmp_path: Path) -> Callable[..., BaseProcess]:
    """Start a config's run with settings; what it prints goes to a file."""

    def start(config: str, settings: Mapping[str, Any]) -> BaseProcess:
        pairs = [word for key, value in settings.items() for word in (f"--{key}", value)]
        log = [tmp_path / "log"] * 2
        return start_python(["-m", "monai.bundle", "run", "--config_file", config, *pairs], output=log)

    return start


@pytest.fixture
def node(
    trained_model: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[..., BaseProcess],
) -> Iterator[Any]:
    """A node as a process of its own, whose reports an archive here takes."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # files are sent as they are
    port, reports = free_port(), AE("ARCHIVE")
    reports.supported_contexts = AllStoragePresentationContexts
    archive = reports.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0)])
    assert archive is not None
    settings = {"model": trained_model, "queue_dir": tmp_path / "queue", "device": "cpu", "port": port}
    settings |= {"destination_port": archive.server_address[1], "destination_ae_title": "ARCHIVE", "health_port": 0}
    process = start("configs/node.json", settings)
    caller = HostileCaller(port)
    try:
        until(caller.answers)
        yield process, caller, tmp_path / "queue"
    finally:
        process.kill()
        process.join()
        archive.shutdown()


def until(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def check_node(figures: Any, node: Any, goods: list[Any], count: int, damage: Any, peak: Any, folder: Path) -> None:
    """Send damaged images, then damaged streams; the node must answer after each and judge all that it took."""
    process, caller, queue = node
    rng, taken = np.random.default_rng(5), 0
    for number in range(count):
        good = goods[rng.integers(0, len(goods))]
        started = time.monotonic()
        status = caller.send(good, lambda content: damage(content, rng), number, folder)
        figures.slowest = max(figures.slowest, time.monotonic() - started)
        taken += status == 0
        figures.outcomes["not taken"] += status != 0
    record = QueueRecord(str(queue))
    waiting = (State.RECEIVED, State.CLASSIFIED)
    until(lambda: not sum(record.counts()[state] for state in waiting))
    counts = record.counts()
    assert taken == sum(counts.values())
    codes = [code for _, _, code in record.refusals()]
    assert set(codes) <= set(Reason)
    figures.outcomes.update(codes)
    figures.outcomes["image"] += counts[State.SENT]
    record.close()
    figures.outcomes["own result"] += counts[State.IGNORED]
    whole = caller.record(goods[0], folder)
    for _ in range(count // 3):
        started = time.monotonic()
        caller.stream(damage(whole, rng))
        figures.slowest = max(figures.slowest, time.monotonic() - started)
        figures.outcomes["stream"] += 1
    until(caller.answers)
    assert process.is_alive()
    figures.memory = peak(process.pid)
    process.terminate()
    process.join(WAIT)
    assert process.exitcode == 0


def test_a_node_judges_damaged_images_and_goes_on(
    node: Any, drawn: Any, damage: Any, tally: Any, peak_memory: Any, tmp_path: Path
) -> None:
    check_node(tally("DICOM node"), node, drawn["dicom"], 30, damage, peak_memory, tmp_path)


@pytest.mark.slow
def test_a_node_judges_a_thousand_damaged_images(
    node: Any, drawn: Any, real: Any, damage: Any, tally: Any, peak_memory: Any, tmp_path: Path
) -> None:
    dropped = [uid.encode() for uid in not_images()]  # they are taken, and go nowhere
    goods = [
        good
        for good in drawn["dicom"] + real["dicom"]
        if b"\x02\x00\x10\x00UI" in (head := good.content[:1000]) and not any(uid in head for uid in dropped)
    ]
    check_node(tally("DICOM node"), node, goods, 1200, damage, peak_memory, tmp_path)


@pytest.fixture
def service(
    trained_model: Path, tmp_path: Path, free_port: Callable[[], int], start: Callable[..., BaseProcess]
) -> Iterator[tuple[Any, str]]:
    """The labelling service as a process of its own, and its address."""
    port = free_port()
    settings = {"model": trained_model, "service_dir": tmp_path / "service", "device": "cpu", "port": port}
    process = start("configs/service.json", settings)

    def answers() -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/healthz").ok
        return False

    try:
        until(answers)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.join()


def check_service(figures: Any, service: Any, files: Iterator[Any], damage_json: Any, peak: Any) -> None:
    """Send damaged images to be classified and to be kept, and damaged JSON as labels and parameters."""
    process, url = service
    rng, model = np.random.default_rng(11), next(iter(requests.get(f"{url}/info/").json()["models"]))
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "PNG")
    kept = requests.put(f"{url}/datastore/image", files={"file": ("a.png", whole.getvalue())}).json()["image"]
    asked = [("POST", f"/infer/{model}"), ("PUT", "/datastore/image"), ("PUT", "/session/")]
    for number, (path, _) in enumerate(files):
        method, route = asked[number % 3]
        field = "files" if route == "/session/" else "file"
        request = {"files": {field: (path.name, path.read_bytes())}, "data": {}}
        if number % 4 == 3:
            said = damage_json(json.dumps({"label": "a", "picture": 0, "group": "b"}).encode(), rng)
            method, route = "PUT", f"/datastore/label?image={kept}"
            request = {"files": {"label": ("a.json", said)}, "data": {"params": said}}
        started = time.monotonic()
        answer = requests.request(method, url + route, timeout=3 * SECONDS, **request)
        figures.slowest = max(figures.slowest, time.monotonic() - started)
        refused = {} if answer.ok else answer.json()
        if answer.status_code >= 500 or (refused and not refused["detail"]):
            figures.faults.append(f"{path.name}: {answer.status_code} {answer.text[:200]}")
        figures.outcomes["answered" if answer.ok else refused.get("reason") or "named error"] += 1
        path.unlink()
    assert process.is_alive()
    figures.memory = peak(process.pid)
    process.terminate()
    process.join(WAIT)
    assert process.exitcode == 0


def test_the_service_answers_damaged_requests(
    service: Any, drawn: Any, mutants: Any, damage_json: Any, tally: Any, peak_memory: Any, tmp_path: Path
) -> None:
    check_service(tally("labelling service"), service, mutants(drawn, 40, tmp_path), damage_json, peak_memory)


@pytest.mark.slow
def test_the_service_answers_a_thousand_damaged_requests(
    service: Any, drawn: Any, real: Any, mutants: Any, damage_json: Any, tally: Any, peak_memory: Any, tmp_path: Path
) -> None:
    parts = {**drawn, **{kind: drawn[kind] + real[kind] for kind in real}}
    check_service(tally("labelling service"), service, mutants(parts, 1000, tmp_path), damage_json, peak_memory)
