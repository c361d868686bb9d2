"""A vision transformer at every door: packaged, exported, served and as a node it says what its network says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from scripts.commands.configs import method_files
from scripts.deploy.edge.classifier import EdgeClassifier
from scripts.deploy.export.exporter import ONNX
from scripts.deploy.inference.loading import load_image_classifier

PATHS = [path for path in os.get_exec_path() if Path(path) != Path(sys.executable).parent]
STORESCU = shutil.which("storescu", path=os.pathsep.join(PATHS))
SR = "1.2.840.10008.5.1.4.1.1.88.34"
SECONDS = 60.0
SMALL = {
    "source#train_per_class": 8,
    "source#test_per_class": 2,
    "source#val_per_class": 4,
    "backbone": "timm:test_vit",
    "image_size": 32,
    "adapter_epochs": 2,
    "finetune_epochs": 3,
    "memory_size": 16,
    "device": "cpu",
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["dynammo+bottleneck", "dynammo+lora+levels+ridge+without_memory", "dualprompt"])
def run(
    request: pytest.FixtureRequest, finish_run: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("doors")
    configs = ["configs/train.json", *method_files(request.param)]
    finish_run({**SMALL, "dataset_dir": folder / "images", "output_dir": folder / "run"}, configs)
    return folder / "run"


@pytest.fixture
def image(scans: Any, tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 250, (40, 48)).astype(np.uint8)
    return Path(scans.dicom(tmp_path / "image.dcm", pixels))


@pytest.fixture
def expected(run: Path, image: Path) -> dict[str, float]:
    """The probabilities that the network gives."""
    classifier = load_image_classifier(run)
    return dict(classifier.classify(classifier.pictures(str(image))[0]).probabilities)


@pytest.fixture
def started(start_run: Callable[..., Any]) -> Iterator[Callable[..., None]]:
    """Start a door, which ends with the test."""
    processes: list[Any] = []
    yield lambda *given: processes.append(start_run(*given))
    for process in processes:
        process.terminate()
        process.join(SECONDS)
        assert process.exitcode == 0


def until(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def test_packaged(
    run: Path, image: Path, expected: dict[str, float], python: Callable[..., Any], tmp_path: Path
) -> None:
    done = python(["-m", "scripts.commands", "package", run, tmp_path / "vit.zip"])
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "vit.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    (models,) = (tmp_path / "unpacked").glob("**/models")
    classifier = load_image_classifier(models)
    assert classifier.classify(classifier.pictures(str(image))[0]).probabilities == pytest.approx(expected, abs=1e-6)


def test_at_the_edge(run: Path, image: Path, expected: dict[str, float], finish_run: Callable[..., None]) -> None:
    settings = {"model": run, "device": "cpu", "largest_drop": 1.0}
    finish_run(settings, ("configs/train.json", "configs/export.json"))
    edge = EdgeClassifier(run / "export" / ONNX)
    (reference,) = edge.pictures(str(image))
    assert edge.classify(reference)["probabilities"] == pytest.approx(expected, abs=1e-3)


def test_served(
    run: Path,
    image: Path,
    expected: dict[str, float],
    started: Callable[..., None],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    port = free_port()
    started({"model": run, "service_dir": tmp_path, "port": port, "device": "cpu"}, ("configs/service.json",))
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{url}/healthz", timeout=SECONDS).ok
        except requests.ConnectionError:
            return False

    until(answers)
    model = next(iter(requests.get(f"{url}/info/", timeout=SECONDS).json()["models"]))
    asked = {"files": {"file": ("image.dcm", image.read_bytes())}, "data": {"params": json.dumps({})}}
    answer = requests.post(f"{url}/infer/{model}", timeout=SECONDS, **asked)
    assert answer.json()["probabilities"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.skipif(STORESCU is None, reason="no storescu: install the Debian package dcmtk")
def test_as_a_node(
    run: Path,
    image: Path,
    expected: dict[str, float],
    started: Callable[..., None],
    make_orthanc: Callable[..., Any],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    orthanc, port = make_orthanc(), free_port()
    settings = {"queue_dir": tmp_path / "queue", "port": port, "health_port": 0, "destination_port": orthanc.port}
    started({"model": run, "device": "cpu", **settings}, ("configs/node.json",))
    sent = [str(STORESCU), "-aec", "DYNAMMO", "127.0.0.1", str(port), str(image)]
    until(lambda: subprocess.run(sent, capture_output=True).returncode == 0)
    until(lambda: orthanc.count() == 1)
    (report,) = orthanc.find(SOPClassUID=SR)
    assert max(expected, key=expected.__getitem__) in str(report)
