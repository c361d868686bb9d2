"""Bad input ends with one line that says what is wrong, where, and what to do; what is saved stays as it is."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

IMAGES = ("configs/train.json", "configs/datasets/image_folder.yaml")
NPZ = ("configs/train.json", "configs/datasets/medmnist.yaml")


@pytest.fixture
def last_line(uninterrupted: Any, refusal: Any, tmp_path: Path) -> Callable[..., str]:
    """Start a run, which must learn nothing, and return the last line."""

    def run(overrides: dict[str, Any], configs: tuple[str, ...] = ("configs/train.json",)) -> str:
        output = tmp_path / "run"
        own_source = configs[-1] == "configs/train.json"
        base = {key: value for key, value in uninterrupted.overrides.items() if own_source or "source#" not in key}
        line: str = refusal({**base, "output_dir": output, **overrides}, configs)
        assert not (output / "checkpoint.pt").exists()
        assert line.startswith("Error: ")
        assert "\n" not in line
        return line

    return run


@pytest.fixture
def dataset(uninterrupted: Any, tmp_path: Path) -> Path:
    """A copy of the images, to be damaged."""
    return Path(shutil.copytree(uninterrupted.dataset, tmp_path / "images"))


def labelled(labels: list[int], count: int | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file: ``count`` images, and labels, of both splits."""
    images = np.random.default_rng(0).integers(0, 256, (count or len(labels), 8, 8, 3), dtype=np.uint8)
    column = np.array(labels)[:, None]
    return {"train_images": images, "train_labels": column, "test_images": images, "test_labels": column}


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (
            {"backbone": "resnet19", "network_def#sites": None},
            ("unknown backbone 'resnet19'", "resnet18, resnet34", "'backbone'"),
        ),
        (
            {"network_def#sites": ["features.99"]},
            ("mobilenet_v2 has no site 'features.99'", "features.3", "'network_def#sites'"),
        ),
        ({"adapter#width": 0}, ("a width of 0", "use more than 0", "'adapter#width'")),
        ({"network_def#head": "cosinus"}, ("unknown head 'cosinus'", "unified, levels, ", "'network_def#head'")),
        (
            {"merging#row": {"_target_": "scripts.model.networks.Ties", "density": 0}},
            ("a density of 0", "more than 0 and at most 1", "'merging#row#density'"),
        ),
        ({"memory#selection": "best"}, ("unknown selection 'best'", "herding, random", "'selection'")),
        ({"memory#space": "old"}, ("unknown herding space 'old'", "inference, newest", "'memory#space'")),
        (
            {"memory#exemplars": "links"},
            ("unknown way to keep exemplars 'links'", "paths or copies", "'memory#exemplars'"),
        ),
        (
            {"image#colour": {"name": "nonsense"}},
            ("'nonsense'", "stain_normalisation, shades_of_grey, clahe", "'image#colour'"),
        ),
        ({"memory_size": 7}, ("memory_size 7", "8 classes", "0 (no memory) or at least 8")),
        ({"memory_size": -1}, ("a memory of -1 images", "0 or more", "'memory_size'")),
        ({"image_size": 8}, ("image_size 8 is too small for mobilenet_v2", "at least 17", "'image_size'")),
        ({"adapter_epochs": 0}, ("stage adapter_tuning has 0 epochs", "at least 1", "adapter_epochs")),
        ({"finetune_epochs": 0}, ("stage balanced_finetuning has 0 epochs", "at least 1", "finetune_epochs")),
        ({"backbone_epochs": 0}, ("stage backbone_training has 0 epochs", "at least 1", "backbone_epochs")),
        ({"source#sets": ["cels"]}, ("no set 'cels' in", "Pathology16", "cells, clusters")),
        ({"split": 3}, ("split is 3", "8 classes cannot be divided", "give a number that divides them")),
        (
            {"split": [["cells/small", "cells/large"], ["cells/large", "spaces/bands"]]},
            ("class 'cells/large' is in two tasks, 'cells/small+cells/large' and", "rename it or leave it out"),
        ),
        ({"previous": "nowhere"}, ("nowhere is not the output folder of a run", "'previous'")),
    ],
    ids=lambda value: " ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else "",
)
def test_setting(overrides: dict[str, Any], parts: tuple[str, ...], last_line: Any) -> None:
    line = last_line(overrides)
    assert [part for part in parts if part not in line] == [], line


def test_missing_data_folder(last_line: Any, tmp_path: Path) -> None:
    line = last_line({"dataset_dir": tmp_path / "nowhere"}, IMAGES)
    assert f"data folder {tmp_path}/nowhere is missing: the layout is <dataset_dir>/" in line


def test_empty_class_folder(last_line: Any, dataset: Path) -> None:
    folder = dataset / "Pathology16/cells/train/small"
    for image in folder.iterdir():
        image.unlink()
    line = last_line({"dataset_dir": dataset})
    assert f"class folder {folder} has no images: add some (PNG, " in line


def cut(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:-100])


@pytest.mark.parametrize("split", ["train", "test"])
def test_truncated_image_stops_the_run_before_training(split: str, last_line: Any, dataset: Path) -> None:
    image = dataset / f"Pathology16/spaces/{split}/holes/0001.png"
    cut(image)
    line = last_line({"dataset_dir": dataset})
    assert f"the first: image {image} cannot be read (" in line
    assert line.endswith("): replace it, or remove it")


def test_truncated_image_is_left_out_when_told_so(
    uninterrupted: Any, run_here: Any, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = dataset / "Pathology16/spaces/train/holes/0001.png"
    cut(image)
    overrides = {**uninterrupted.overrides, "dataset_dir": dataset}
    run_here({**overrides, "output_dir": tmp_path / "run", "source#sets": ["spaces"], "tasks#skip_unreadable": True})
    printed = "".join(capfd.readouterr())
    assert f"Left out: image {image} cannot be read" in printed
    assert "adapter tuning: 2 epochs of 11 images" in printed


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_image_unchecked_stops_the_run_which_goes_on_once_it_is_mended(
    workers: int, uninterrupted: Any, run_here: Any, refusal: Any, dataset: Path, tmp_path: Path
) -> None:
    image = dataset / "Pathology16/spaces/train/holes/0001.png"
    cut(image)
    overrides = {**uninterrupted.overrides, "dataset_dir": dataset}
    overrides |= {"output_dir": tmp_path / "run", "source#sets": ["cells", "spaces"], "tasks#check": False}
    overrides |= {"limits#num_workers": workers}
    line = refusal(overrides)
    assert line.startswith(f"Error: image {image} cannot be read (")
    assert line.endswith("): replace it, or remove it")
    learnt = tmp_path / "run/task_0/model.pt"
    before = learnt.stat().st_mtime_ns
    shutil.copy(uninterrupted.dataset / image.relative_to(dataset), image)
    run_here(overrides)
    assert learnt.stat().st_mtime_ns == before
    assert (tmp_path / "run/task_1/model.pt").is_file()


def test_npz_without_an_array(last_line: Any, tmp_path: Path) -> None:
    arrays = labelled([0, 1])
    del arrays["test_labels"]
    np.savez(tmp_path / "own.npz", **arrays)
    line = last_line({"dataset_dir": tmp_path, "source#sets": "own.npz"}, NPZ)
    assert f"data file {tmp_path}/own.npz has no array test_labels, only train_images" in line
    assert line.endswith("the MedMNIST layout is needed")


def test_npz_with_pickles_is_not_unpickled(last_line: Any, tmp_path: Path) -> None:
    arrays = labelled([0, 1])
    trap = np.array([Trap(tmp_path / "sprung")] * 2, dtype=object)
    np.savez(tmp_path / "own.npz", **{**arrays, "train_labels": trap})
    line = last_line({"dataset_dir": tmp_path, "source#sets": "own.npz"}, NPZ)
    assert f"array train_labels of {tmp_path}/own.npz cannot be read" in line
    assert line.endswith("it must be a plain array")
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_npz_with_a_label_out_of_range(last_line: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "bloodmnist_8.npz", **labelled([0, 1, 8]))
    line = last_line({"dataset_dir": tmp_path, "source#sets": "bloodmnist_8.npz"}, NPZ)
    assert f"train_labels of {tmp_path}/bloodmnist_8.npz has the label 8: out of range, there are 8 classes" in line


def test_npz_with_fewer_labels_than_images(last_line: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **labelled([0, 1], count=3))
    line = last_line({"dataset_dir": tmp_path, "source#sets": "own.npz"}, NPZ)
    assert f"train_labels of {tmp_path}/own.npz is int64 [2, 1]: it must hold whole numbers for each of the 3" in line


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "resnet18.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    return path


def test_weights_with_another_digest(weights: Path, last_line: Any) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    line = last_line(
        {
            "backbone": "resnet18",
            "network_def#sites": None,
            "weights": weights,
            "network_def#weights_sha256": "0123abcd",
        }
    )
    assert f"weights {weights} have sha256 {digest}, expected 0123abcd: " in line


def test_weights_of_another_backbone(weights: Path, last_line: Any) -> None:
    line = last_line({"backbone": "resnet50", "network_def#sites": None, "weights": weights})
    assert "the weights do not fit backbone resnet50: 'layer1.0.bn3.bias' is missing" in line


def test_weights_of_another_shape(weights: Path, last_line: Any) -> None:
    state = torch.load(weights, weights_only=True)
    state["conv1.weight"] = state["conv1.weight"][:, :1]  # trained on grey images
    torch.save(state, weights)
    line = last_line({"backbone": "resnet18", "network_def#sites": None, "weights": weights})
    assert "the weights do not fit backbone resnet18: 'conv1.weight' has shape (64, 1, 7, 7), expected (64, 3" in line


def test_weights_that_are_no_weights(last_line: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.pth"
    file.write_text("<html>not found</html>")
    line = last_line({"weights": file})
    assert f"weights {file} cannot be read as a plain state dict" in line


def test_missing_weights(last_line: Any, tmp_path: Path) -> None:
    line = last_line({"weights": tmp_path / "nowhere.pth"})
    assert f"no weights file at {tmp_path}/nowhere.pth: give an existing file" in line


def test_broken_checkpoint(uninterrupted: Any, linked_copy: Any, refusal: Any, tmp_path: Path) -> None:
    output = linked_copy(uninterrupted.output, tmp_path / "run")
    (output / "checkpoint.pt").unlink()
    (output / "checkpoint.pt").write_bytes((uninterrupted.output / "checkpoint.pt").read_bytes()[:-1000])
    line = refusal({**uninterrupted.overrides, "output_dir": output})
    assert line.startswith(f"Error: cannot read {output}/checkpoint.pt (")
    assert line.endswith("restore it, or begin anew with --restart true")


def test_command_ends_with_that_line(uninterrupted: Any, bundle_run: Any, tmp_path: Path) -> None:
    """What a constructor refuses; MONAI wraps it in a hint of its own."""
    overrides = {**uninterrupted.overrides, "output_dir": tmp_path / "run", "memory_size": 7}
    done = bundle_run("configs/train.json", overrides, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: memory_size 7 is less than one image for each of 8 classes:")
    assert "Traceback" not in done.stderr
    assert "_mode_=debug" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_output_folder_that_is_a_file(last_line: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert f"cannot write {tmp_path}/run/" in last_line({})
