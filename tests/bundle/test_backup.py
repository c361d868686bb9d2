"""A backup of a node and a service while images come in and go out; restored, they lose nothing that was received."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from pydicom.dataset import Dataset
from pynetdicom import AE

from scripts.commands.backup import backup, restore
from scripts.deploy.queue import QueueRecord, State
from scripts.deploy.versions import VersionStore

SECONDS = 120.0
IMAGES = 40


def until(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def send(port: int, images: Sequence[Dataset]) -> int:
    """Send images, and return how many the node has taken on; none while it does not listen."""
    entity = AE("TEST")
    entity.add_requested_context(images[0].SOPClassUID, images[0].file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="DYNAMMO")
    if not association.is_established:
        return 0
    with closing(ExitStack()) as stack:
        stack.callback(association.release)
        return sum(association.send_c_store(image).Status == 0 for image in images)


def counts(folder: Path) -> dict[State, int]:
    with closing(QueueRecord(str(folder))) as record:
        return record.counts()


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 200, (40, 48)).astype(np.uint8)


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(number)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def start_door(start_run: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Start a node or a service."""
    started: list[Any] = []

    def start(config: str, **overrides: Any) -> Any:
        started.append(start_run({"device": "cpu", **overrides}, (f"configs/{config}.json",)))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


def test_doors_go_on_while_they_are_backed_up_and_go_on_elsewhere_from_the_backup(
    start_door: Callable[..., Any],
    trained_model: Path,
    free_port: Callable[[], int],
    make_orthanc: Callable[..., Any],
    scans: Any,
    tmp_path: Path,
) -> None:
    orthanc = make_orthanc()
    node = {"model": trained_model, "health_port": 0, "destination_port": orthanc.port, "first_pause": 0.2}
    port, web = free_port(), free_port()
    start_door("node", **node, port=port, queue_dir=tmp_path / "node")
    images = [scans.make_dicom(pixels(number)) for number in range(IMAGES)]
    until(lambda: send(port, images[:1]))
    store = VersionStore(tmp_path / "service/store")
    details = {"name": "skin", "tasks": [{"name": "first", "classes": ["benign"]}], "accuracy_matrix": [[1.0]]}
    tested = {"images": {}, "recalls": {}, "mean_class_recall": 1.0, "calibration_error": 0.1, "refused": 0}
    files = {path.name: path.read_bytes() for path in trained_model.iterdir() if path.suffix in (".pt", ".json")}
    store.add(files, {**details, "tested": tested, "config": {}, "licence": "a"}, None)
    store.promote(1)
    start_door("service", service_dir=tmp_path / "service", port=web, **{"log#as_json": True})

    def add(number: int) -> bool:
        with suppress(requests.ConnectionError):
            sent = {"file": ("image.png", picture(number))}
            return requests.put(f"http://127.0.0.1:{web}/datastore/image", files=sent, timeout=SECONDS).ok
        return False

    until(lambda: add(0))
    orthanc.stop()  # so that results wait
    assert send(port, images[1:20]) == 19
    said = backup([tmp_path / "node", tmp_path / "service"], tmp_path / "backup", with_keys=True)
    assert "node (queue)" in said and "service/store (store)" in said
    assert send(port, images[20:]) == IMAGES - 20, "the node goes on"
    assert add(1), "the service goes on"
    lines = [json.loads(line) for line in (tmp_path / "service/service.log").read_text().splitlines()]
    assert all("request" in line for line in lines if line["message"].startswith("PUT"))
    orthanc.start()
    until(lambda: orthanc.count() == IMAGES)

    restore(tmp_path / "backup", tmp_path / "restored")
    before = counts(tmp_path / "restored/node")
    assert sum(before.values()) == 20 and before[State.SENT] <= 1
    elsewhere = make_orthanc()
    node["destination_port"] = elsewhere.port
    again = start_door("node", **node, port=free_port(), queue_dir=tmp_path / "restored/node")
    until(lambda: counts(tmp_path / "restored/node")[State.SENT] == 20 or not again.is_alive())
    assert elsewhere.count() == 20 - before[State.SENT], "each image that was received, once"
    os.kill(again.pid, signal.SIGTERM)
    again.join(SECONDS)
    assert again.exitcode == 0
    other = free_port()
    start_door("service", service_dir=tmp_path / "restored/service", port=other)

    def listed() -> Any:
        with suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{other}/datastore/?output=all", timeout=SECONDS).json()["objects"]
        return None

    until(lambda: listed() is not None)
    assert len(listed()) == 1
    assert json.loads(requests.get(f"http://127.0.0.1:{other}/info/", timeout=SECONDS).text)["labels"]
