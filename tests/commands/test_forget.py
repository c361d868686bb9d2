"""Forgetting an image: its exemplars leave the checkpoint and the disk, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.commands.app import main
from scripts.learning.memory import ExemplarMemory, ReservoirMemory


def save_images(folder: Path, count: int = 4) -> list[dict[str, Any]]:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / f"{number}.png")
    return [{"image": str(folder / f"{number}.png"), "label": number // 2} for number in range(count)]


def write_run(folder: Path, items: list[dict[str, Any]], exemplars: str) -> Path:
    """Write the checkpoint of a run that keeps ``items``, two of each of two classes."""
    memory = ExemplarMemory(4, exemplars=exemplars, folder=str(folder / "exemplars"))
    memory.add(items, torch.rand(len(items), 3), 2)
    folder.mkdir(exist_ok=True)
    content = {
        "tasks": [["set", "even", "odd"]],
        "states": {"network": {"w": torch.arange(3.0)}, "memory": memory.state_dict()},
    }
    torch.save(content, folder / "checkpoint.pt")
    write_config(folder, "ExemplarMemory", exemplars)
    (folder / "epoch.pt").write_bytes(b"of an interrupted stage")
    return folder


def write_config(folder: Path, kind: str, exemplars: str) -> None:
    """Write of a run's config what says how it keeps images."""
    copies = {"exemplars": exemplars, "folder": "$@output_dir + '/exemplars'"}
    memory = {"_target_": f"scripts.learning.memory.{kind}", "size": 4, **copies}
    image = {"_target_": "scripts.imaging.image_spec.ImageSpec", "size": 8, "mean": [0.5], "std": [0.5]}
    config = {"image": image, "output_dir": "elsewhere", "memory": memory, "recorded": {}}
    (folder / "config.json").write_text(json.dumps(config))


def kept(run: Path) -> list[str]:
    memory = torch.load(run / "checkpoint.pt", weights_only=True)["states"]["memory"]
    return [image for images in memory["classes"].values() for image in images]


@pytest.mark.parametrize("exemplars", ["paths", "copies"])
def test_an_image_is_forgotten_by_content(tmp_path: Path, exemplars: str, capsys: pytest.CaptureFixture[str]) -> None:
    items = save_images(tmp_path / "images")
    run = write_run(tmp_path / "run", items, exemplars)
    before = torch.load(run / "checkpoint.pt", weights_only=True)
    renamed = shutil.copy(items[1]["image"], tmp_path / "renamed.png")
    assert main(["forget", str(run), str(renamed)]) == 0
    said = capsys.readouterr().out
    assert "Removed 1 of 4 exemplars" in said
    assert "The trained weights are not changed" in said
    contents = [Path(image).read_bytes() for image in kept(run)]
    assert sorted(contents) == sorted(Path(items[number]["image"]).read_bytes() for number in (0, 2, 3))
    after = torch.load(run / "checkpoint.pt", weights_only=True)
    assert torch.equal(after["states"]["network"]["w"], before["states"]["network"]["w"])
    assert after["tasks"] == before["tasks"]
    assert not (run / "epoch.pt").exists()


def test_a_copy_is_deleted_and_the_data_set_is_not_touched(tmp_path: Path) -> None:
    items = save_images(tmp_path / "images")
    run = write_run(tmp_path / "run", items, "copies")
    assert main(["forget", str(run), items[0]["image"]]) == 0
    assert len(list((run / "exemplars").iterdir())) == 3
    assert len(list((tmp_path / "images").iterdir())) == 4


def test_a_run_given_by_a_relative_path_can_be_used_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = save_images(tmp_path / "images")
    write_run(tmp_path / "run", items, "copies")
    monkeypatch.chdir(tmp_path)
    assert main(["forget", "run", items[0]["image"]]) == 0
    assert all(Path(image).is_absolute() for image in kept(tmp_path / "run"))


def test_a_class_that_is_left_without_exemplars_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = save_images(tmp_path / "images")
    run = write_run(tmp_path / "run", items, "paths")
    assert main(["forget", str(run), items[2]["image"], items[3]["image"]]) == 0
    assert "Removed 2 of 4 exemplars" in (said := capsys.readouterr().out)
    assert "None are left of odd." in said


def test_a_reservoir_keeps_the_logits_of_what_is_not_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = save_images(tmp_path / "images")
    run = write_run(tmp_path / "run", items, "copies")
    memory = ReservoirMemory(4, exemplars="copies", folder=str(run / "exemplars"))
    memory.offer(items, torch.arange(8.0).reshape(4, 2))
    memory.settle()
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    write_config(run, "ReservoirMemory", "copies")
    content["states"]["memory"] = memory.state_dict()
    torch.save(content, run / "checkpoint.pt")
    assert main(["forget", str(run), items[1]["image"]]) == 0
    assert "Removed 1 of 4 exemplars" in capsys.readouterr().out
    memory.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["states"]["memory"])
    assert [item["logits"].tolist() for item in memory.items()] == [[0.0, 1.0], [4.0, 5.0], [6.0, 7.0]]
    assert {str(path) for path in (run / "exemplars").iterdir()} == {item["image"] for item in memory.items()}


def test_an_image_that_is_no_exemplar_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = save_images(tmp_path / "images", count=5)
    run = write_run(tmp_path / "run", items[:4], "paths")
    before = (run / "checkpoint.pt").read_bytes()
    assert main(["forget", str(run), items[4]["image"]]) == 1
    assert "no exemplar of the run" in capsys.readouterr().err
    assert (run / "checkpoint.pt").read_bytes() == before
    assert (run / "epoch.pt").exists()


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = save_images(tmp_path / "images")
    assert main(["forget", str(tmp_path), items[0]["image"]]) == 1
    assert capsys.readouterr().err == f"Error: no checkpoint.pt in {tmp_path}: give the output folder of a run\n"
    assert main(["forget", str(tmp_path), str(tmp_path / "gone.png")]) == 1
    assert "gone.png is missing" in capsys.readouterr().err
