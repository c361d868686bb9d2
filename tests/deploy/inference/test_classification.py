"""The object behind every door: it says what the network says, by reference, alone or among others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from scripts import bundle_root
from scripts.deploy.inference import ImageClassifier
from scripts.deploy.inference.classification import refusal_in
from scripts.deploy.inference.loading import load_image_classifier
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.model.decisions.results import Result
from scripts.model.folder import TrainedModel
from scripts.utils.errors import UserError


@pytest.fixture(scope="module")
def classifier(trained_model: Path) -> ImageClassifier:
    return load_image_classifier(trained_model, workers=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (50, 30, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(5)]


def values(result: Result | ImageRefused) -> list[float]:
    assert isinstance(result, Result)
    return list(result.probabilities.values())


def test_it_says_what_the_network_says_of_the_image_as_in_training(
    classifier: ImageClassifier, trained_model: Path, images: list[str]
) -> None:
    trained = TrainedModel.open(trained_model)
    config = ConfigParser.load_config_file(f"{bundle_root()}/configs/train.json")
    parser = ConfigParser({"validate": config["validate"], "image": trained.image})
    prepare, network = parser.get_parsed_content("validate#preprocessing"), trained.network
    with torch.no_grad():
        expected = [network(prepare({"image": image})["image"][None]).softmax(1)[0].tolist() for image in images]
    found = [values(classifier.classify(image)) for image in images]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len({tuple(row) for row in found}) == len(images)


def test_images_in_batches_are_those_one_by_one(classifier: ImageClassifier, images: list[str]) -> None:
    for size in (1, 2, 5, 9):
        said = list(classifier.classify_all(images, size))
        expected = [values(classifier.classify(image)) for image in images]
        np.testing.assert_allclose([values(result) for result in said], expected, atol=1e-4)


def test_a_refused_image_leaves_the_others_in_their_place(
    classifier: ImageClassifier, images: list[str], tmp_path: Path
) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    given = [images[0], str(tmp_path / "none.png"), images[1], str(tmp_path / "print.jpg")]
    for size in (1, 4):
        first, missing, second, printed = classifier.classify_all(given, size)
        assert isinstance(missing, ImageRefused) and missing.reason is Reason.MISSING
        assert isinstance(printed, ImageRefused) and printed.reason is Reason.UNSUPPORTED_KIND
        np.testing.assert_allclose(values(first), values(classifier.classify(images[0])), atol=1e-4)
        np.testing.assert_allclose(values(second), values(classifier.classify(images[1])), atol=1e-4)


def test_one_refused_image_is_an_error_with_its_reason(classifier: ImageClassifier) -> None:
    with pytest.raises(ImageRefused) as refusal:
        classifier.classify("/nowhere.png")
    assert refusal.value.reason is Reason.MISSING


def test_several_threads_may_ask_at_once(
    classifier: ImageClassifier, images: list[str], scans: Any, tmp_path: Path
) -> None:
    scan = scans.dicom(tmp_path / "a", np.arange(1200, dtype=np.uint16).reshape(30, 40))
    given = [*images, scan] * 4
    expected = [values(classifier.classify(image)) for image in given]
    with ThreadPoolExecutor(4) as pool:
        found = [values(result) for result in pool.map(classifier.classify, given)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_pictures_of_a_file_are_shown_as_in_training(
    make_model: Callable[..., Path], scans: Any, tmp_path: Path, images: list[str]
) -> None:
    trained = {"window": [40, 400], "pictures": "all"}
    classifier = load_image_classifier(make_model(tmp_path / "model", image={"presentation": trained}))
    frames = scans.dicom(tmp_path / "a#b", np.zeros((2, 8, 8), np.int16))
    assert classifier.pictures(frames) == [f"{frames}#{number}?window=40,400" for number in range(2)]
    assert classifier.pictures(images[0]) == [images[0]]
    other = load_image_classifier(tmp_path / "model", presentation={"pictures": "middle"})
    assert other.pictures(frames) == [f"{frames}#middle?window=40,400"]


def test_a_device_that_is_not_there_is_named(trained_model: Path) -> None:
    with pytest.raises(UserError, match="device nothing cannot be used .*: give cpu"):
        load_image_classifier(trained_model, device="nothing")


def test_a_bug_is_no_refusal(trained_model: Path, images: list[str]) -> None:
    broken = load_image_classifier(trained_model)
    broken.prepare = lambda item: {"image": 1 / 0}  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        broken.classify(images[0])
    assert refusal_in(ZeroDivisionError()) is None
    found = refusal_in(UserError("no"))
    assert found is not None and found.reason is Reason.UNREADABLE
