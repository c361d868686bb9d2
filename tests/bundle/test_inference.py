"""Inference: a folder of images in, class probabilities out, with the preprocessing of training."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.pixels import network_input
from scripts.imaging.transforms import monai_preprocessing, read_rgb
from scripts.model.folder import TrainedModel

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
SPEC = ImageSpec(40, [0.5, 0.4, 0.3], [0.3, 0.2, 0.1])


def picture(mode: str) -> Image.Image:
    """Return a picture of 50 x 30 pixels without symmetry, as it is stored in ``mode``."""
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (30, 50, 3), dtype=np.uint8))
    if mode == "transparent palette":  # a palette with an alpha entry that no pixel uses
        palette = image.quantize(16)
        palette.info["transparency"] = 17
        return palette
    return image.quantize(16) if mode == "P" else image.convert(mode)


def seen(path: Path) -> list[torch.Tensor]:
    """Return what training, inference, an exported network's readers, and the edge make of an image."""
    configs = {
        "validate#preprocessing": {**read("train.json"), "image": SPEC},
        "preprocessing": {**read("inference.json"), "trained": SimpleNamespace(image=SPEC)},
        "exported": {"exported": monai_preprocessing(SPEC)},
    }
    prepared = [ConfigParser(config).get_parsed_content(key) for key, config in configs.items()]
    images = [torch.as_tensor(prepare({"image": str(path)})["image"]) for prepare in prepared]
    return [*images, torch.from_numpy(network_input(read_rgb(str(path)), SPEC))]


def read(name: str) -> dict[str, Any]:
    return dict(ConfigParser.load_config_file(BUNDLE / "configs" / name))


def check_seen(path: Path) -> None:
    trained, inferred, exported, edge = seen(path)
    assert inferred.shape == SPEC.shape
    assert torch.equal(inferred, trained)
    assert torch.equal(edge, trained)
    assert torch.allclose(exported, trained, atol=2e-5)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "transparent palette"])
def test_an_image_is_preprocessed_as_in_training(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.png"
    picture(mode).save(path)
    check_seen(path)


def test_a_jpeg_is_preprocessed_as_in_training(tmp_path: Path) -> None:
    path = tmp_path / "photograph.jpg"
    exif = Image.Exif()
    exif[274] = 6  # an orientation, which is not applied
    picture("RGB").save(path, exif=exif)
    check_seen(path)


def test_a_folder_is_classified_from_any_working_directory(tmp_path: Path, small_run: Any, bundle_run: Any) -> None:
    folder, output = tmp_path / "images", tmp_path / "results"
    source = small_run.dataset / "Pathology16" / "cells" / "test"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(["c.png", "a.png", "deep/b.png"]):
        (folder / name).write_bytes((source / "large" / f"{number:04d}.png").read_bytes())
    Image.new("CMYK", (8, 8)).save(folder / "print.jpg")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])

    paths = {"dataset_dir": folder, "model": small_run.output, "output_dir": output}
    done = bundle_run("configs/inference.json", {**paths, "batch_size": 2, "device": "cpu"}, cwd=tmp_path)

    with open(output / "refused.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["image", "broken.png", "print.jpg"]
    printed = done.stdout + done.stderr
    assert printed.count("Refused: ") == 2
    assert "Classified 3 images" in printed
    with open(output / "predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    description = json.loads((small_run.output / "network.json").read_text())
    names = [name for task in description["tasks"] for name in task["classes"]]
    assert header == ["image", "predicted class", "indeterminate", *names, "doubt"]
    assert [row[0] for row in rows] == ["a.png", "c.png", "deep/b.png"]

    # the plain way: the training's preprocessing, the network, a softmax
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "train.json")
    parser.update({"image": ImageSpec(**description["image"])})
    prepare = parser.get_parsed_content("validate#preprocessing")
    network = TrainedModel.open(small_run.output).network
    images = torch.stack([torch.as_tensor(prepare({"image": str(folder / row[0])})["image"]) for row in rows])
    with torch.no_grad():
        expected = (network(images) / description["temperature"]).softmax(1)
    assert torch.tensor([[float(cell) for cell in row[3:-1]] for row in rows]).allclose(expected, atol=2e-6)
    assert [row[1] for row in rows] == [header[3 + number] for number in expected.argmax(1).tolist()]
    records = json.loads((output / "predictions.json").read_text())["images"]
    assert [record["predicted_class"] for record in records] == [row[1] for row in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("missing folder", "image folder {folder} is missing: give one that exists (key 'dataset_dir')"),
        ("no image", "image folder {folder} has no images: put some there"),
        ("refused image", "all 1 images are refused: {output}/refused.csv says why"),
        ("no model", "no trained model in {models}: give a run or a model's folder (--model RUN)"),
    ],
)
def test_what_cannot_be_classified_says_why(
    tmp_path: Path, small_run: Any, refusal: Callable[..., str], content: str, message: str
) -> None:
    folder, output, models = tmp_path / "images", tmp_path / "results", small_run.output
    if content != "missing folder":
        folder.mkdir()
    if content == "refused image":
        Image.new("CMYK", (8, 8)).save(folder / "print.jpg")
    if content == "no model":
        Image.new("RGB", (8, 8)).save(folder / "picture.png")
        models = tmp_path / "models"
    overrides = {"dataset_dir": folder, "model": models, "output_dir": output, "device": "cpu"}
    said = refusal(overrides, ["configs/inference.json"])
    assert said.startswith("Error: " + message.format(folder=folder, output=output, models=models))


def test_a_description_without_weights_is_refused(tmp_path: Path, small_run: Any, refusal: Callable[..., str]) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "network.json").write_bytes((small_run.output / "network.json").read_bytes())
    folder = small_run.dataset / "Pathology16" / "cells" / "test" / "large"
    overrides = {"dataset_dir": folder, "model": tmp_path / "models", "output_dir": tmp_path / "out", "device": "cpu"}
    said = refusal(overrides, ["configs/inference.json"])
    assert said.startswith(f"Error: {tmp_path}/models has no SHA256SUMS that can be read")
