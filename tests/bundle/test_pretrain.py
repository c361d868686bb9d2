"""``dynammo pretrain``: weights from images without labels, and a run that starts from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.model.networks import ContinualNet

Run = Callable[..., SimpleNamespace]
SMALL = ("--backbone_epochs", 2, "--image_size", 33, "--batch_size", 8, "--device", "cpu")
TIMM = ("--backbone", "timm:test_vit", "--image_size", 32)


def images(folder: Path, tiny: SimpleNamespace) -> Path:
    for label in range(2):
        tiny.items(folder / str(label), label, 12)
    return folder


def test_pictures_give_weights_that_a_run_takes(tmp_path: Path, python: Run, tiny: SimpleNamespace) -> None:
    pretrained = python(
        [
            *("-m", "scripts.commands", "pretrain", images(tmp_path / "pictures", tiny), "--method", "moco", *SMALL),
            *("--output_dir", tmp_path / "run"),
        ]
    )
    assert pretrained.returncode == 0, pretrained.stderr
    assert f"--weights {tmp_path}/run/backbone.safetensors" in pretrained.stdout + pretrained.stderr
    ContinualNet("resnet18", adapter=None, weights=str(tmp_path / "run" / "backbone.safetensors"), image_size=33)


def test_a_folder_without_images_is_said(tmp_path: Path, python: Run) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    refused = python(["-m", "scripts.commands", "pretrain", tmp_path])
    assert refused.returncode == 1
    assert "has nothing to learn from" in refused.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["simsiam", "moco"])
@pytest.mark.parametrize(
    ("data", "method", "keys"),
    [
        ("generated_small", "dynammo", ()),
        ("generated_volumes", "dynammo", ("--network", "resnet18_3d")),
        ("generated_small", "dynammo+bottleneck", TIMM),
    ],
)
def test_a_run_pretrains_before_its_first_task(
    data: str, method: str, keys: tuple[object, ...], part: str, tmp_path: Path, python: Run
) -> None:
    words = ["--adapter_epochs", 1, "--finetune_epochs", 1, "--dataset_dir", tmp_path / "data", *SMALL[:2], *keys]
    trained = python(
        [
            *("-m", "scripts.commands", "train", data, "--method", f"{method}+{part}"),
            *(*words, "--output_dir", tmp_path / "run"),
        ],
        seconds=900,
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "backbone.safetensors").is_file()
    assert '"pretraining"' in (tmp_path / "run" / "metrics.json").read_text()
