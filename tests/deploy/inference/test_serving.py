"""What is served follows the promoted version, and every answer comes whole from one."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.inference.serving import Served
from scripts.deploy.versions.store import VersionStore
from scripts.utils.errors import UserError

DETAILS = {
    "name": "model",
    "tasks": [],
    "tested": {"images": {}, "recalls": {}, "mean_class_recall": 0.0, "calibration_error": 0.0, "refused": 0},
    "accuracy_matrix": [],
    "config": {},
    "licence": "bsd-3-clause",
}


@pytest.fixture
def store(make_model: Callable[..., Path], tmp_path: Path) -> VersionStore:
    """Two versions whose weights differ."""
    store = VersionStore(tmp_path / "store")
    folder = make_model(tmp_path / "model")
    description = (folder / "network.json").read_bytes()
    for _ in range(2):
        store.add({"model.pt": (folder / "model.pt").read_bytes(), "network.json": description}, DETAILS, None)
        weights = torch.load(folder / "model.pt", weights_only=True)
        weights["head.linear.bias"] += 3.0 * torch.arange(len(weights["head.linear.bias"]))
        torch.save(weights, folder / "model.pt")
    return store


@pytest.fixture
def image(tmp_path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def test_requests_over_switches_get_answers_each_of_exactly_one_version(store: VersionStore, image: str) -> None:
    store.promote(1)
    served = Served(store.folder / "promoted", load_image_classifier)
    expected = {
        number: load_image_classifier(store.version(number).folder).classify(image).probabilities for number in (1, 2)
    }
    assert expected[1] != expected[2]

    def ask(request: int) -> str:
        if request % 100 == 40:
            store.promote(2)
        if request % 100 == 80:
            assert store.rollback() == 1
        result = served.current().classify(image)
        assert result.probabilities == expected[int(result.model.version)]
        return result.model.version

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(ask, range(400)))
    assert len(versions) == 400
    assert set(versions) == {"1", "2"}


def test_a_version_rolled_back_to_says_bit_for_bit_what_it_said(store: VersionStore, image: str) -> None:
    store.promote(1)
    served = Served(store.folder / "promoted", load_image_classifier)
    first = served.current()
    before = first.classify(image).probabilities
    store.promote(2)
    assert served.current().classify(image).probabilities != before
    assert first.classify(image).probabilities == before, "what was taken goes on working"
    store.rollback()
    assert served.current() is first, "it was kept, so that nobody waits"
    assert served.current().classify(image).probabilities == before
    assert served.current().model.record()["version"] == "1"


def test_outside_a_store_the_version_is_the_last_task(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    tasks = json.loads((folder / "network.json").read_text())["tasks"]
    served = Served(folder, load_image_classifier)
    assert served.current() is served.current()
    assert served.current().model.version == f"task_{len(tasks) - 1}"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model"):
        Served(tmp_path, load_image_classifier)
