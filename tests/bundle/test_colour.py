"""A colour transform that training used is used ever after: in evaluation, in inference and in a run that goes on."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.model.folder import TrainedModel

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
EVALUATE = ("configs/train.json", "configs/evaluate.json")
PARTS = ("configs/parts/shades_of_grey.yaml", "configs/parts/stain_jitter.yaml")
TRAIN = ("configs/train.json", *PARTS)
POWER = {"image#colour#power": 4}
NO_COLOUR = {"image#colour": None}


@pytest.fixture(scope="module")
def coloured(
    uninterrupted: Any, finish_run: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A small finished run with a colour transform, not to be changed: what it was started with."""
    folder = tmp_path_factory.mktemp("coloured")
    overrides = {
        **uninterrupted.overrides,
        **POWER,
        "source#sets": ["clusters", "fibres"],
        "adapter_epochs": 1,
        "output_dir": folder / "run",
    }
    finish_run(overrides, TRAIN)
    return overrides


def prepare(configs: tuple[str, ...], key: str, overrides: dict[str, Any], image: Path) -> torch.Tensor:
    """Return what the network is given of an image."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / config) for config in configs])
    parser.update({name: str(value) if isinstance(value, Path) else value for name, value in overrides.items()})
    return torch.as_tensor(parser.get_parsed_content(key)({"image": str(image)})["image"])


def test_evaluation_and_inference_see_what_the_network_was_trained_on(coloured: dict[str, Any]) -> None:
    image = coloured["dataset_dir"] / "Pathology16" / "clusters" / "test" / "nests" / "0000.png"
    trained = prepare(TRAIN, "validate#preprocessing", coloured, image)
    run = {"model": coloured["output_dir"]}
    assert torch.equal(prepare(EVALUATE, "validate#preprocessing", run, image), trained)
    assert torch.equal(prepare(("configs/inference.json",), "preprocessing", run, image), trained)
    plain_run = {key: value for key, value in coloured.items() if key not in POWER}
    plain = prepare(("configs/train.json",), "validate#preprocessing", plain_run, image)
    assert (trained - plain).abs().mean() > 0.05
    description = json.loads((coloured["output_dir"] / "network.json").read_text())
    assert description["image"]["colour"] == {"name": "shades_of_grey", "power": 4}


def test_inference_classifies_the_recoloured_images(
    coloured: dict[str, Any], run_here: Callable[..., None], tmp_path: Path
) -> None:
    folder = coloured["dataset_dir"] / "Pathology16" / "clusters" / "test" / "nests"
    paths = {"dataset_dir": folder, "model": coloured["output_dir"], "output_dir": tmp_path}
    run_here({**paths, "device": "cpu"}, ["configs/inference.json"])
    with (tmp_path / "predictions.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    images = [prepare(TRAIN, "validate#preprocessing", coloured, folder / row[0]) for row in rows]
    with torch.no_grad():
        logits = TrainedModel.open(coloured["output_dir"]).network(torch.stack(images))
    expected = (logits / TrainedModel.open(coloured["output_dir"]).identity.temperature).softmax(1)
    assert len(rows) == 3
    assert torch.tensor([[float(cell) for cell in row[3:-1]] for row in rows]).allclose(expected, atol=2e-6)


def test_evaluation_finds_what_training_measured(coloured: dict[str, Any], run_here: Callable[..., None]) -> None:
    plain = {key: value for key, value in coloured.items() if key not in POWER}
    run_here({**plain, "model": coloured["output_dir"]}, EVALUATE)
    with (coloured["output_dir"] / "evaluation" / "task_1" / "confusion_matrix.csv").open(newline="") as file:
        counts = [[int(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]]
    measured = json.loads((coloured["output_dir"] / "metrics.json").read_text())["accuracy_matrix"][-1]
    by_task = [
        sum(counts[row][row] for row in rows) / sum(sum(counts[row]) for row in rows) for rows in ((0, 1), (2, 3))
    ]
    assert by_task == pytest.approx(measured)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (NO_COLOUR, 'image#colour was {"name": "shades_of_grey", "power": 4}, is null'),
        ({"image#colour#power": 6}, "image#colour#power was 4, is 6"),
        ({"random_transforms#1#sigma": 0}, "random_transforms#1#sigma was 0.05, is 0"),
    ],
)
def test_a_run_does_not_go_on_with_other_colours(
    coloured: dict[str, Any], refusal: Callable[..., str], change: dict[str, Any], part: str
) -> None:
    kept = {key: value for key, value in coloured.items() if key not in POWER or change != NO_COLOUR}
    last = refusal({**kept, **change}, TRAIN)
    assert "has learnt with other settings" in last
    assert part in last
