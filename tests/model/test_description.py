"""What ``network.json`` says is complete, and a folder without a model is refused with the newest runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from scripts.imaging.image_spec import ImageSpec
from scripts.learning.run_config import write_run_config
from scripts.model.description import class_names, image_of, name_of, parse_description, recent_runs
from scripts.utils.errors import UserError
from scripts.utils.running import RECORDED

TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c", "d", "e"]}]
DESCRIPTION: dict[str, Any] = {
    "backbone": "mobilenet_v2",
    "sites": None,
    "tasks": TASKS,
    "image": {"size": 32, "mean": [0.0], "std": [1.0]},
    "method": "acl",
    "head": "others",
    "adapter": {"kind": "conv", "width": 1.0},
    "levels": "published",
    "branches": ["task0", "task1"],
}


def test_the_classes_of_all_tasks_are_named_in_order() -> None:
    assert class_names(DESCRIPTION) == ["a", "b", "c", "d", "e"]


def parsed(description: object) -> dict[str, Any]:
    return parse_description(json.dumps(description).encode(), Path("a/network.json"))


def test_a_description_is_what_its_file_says() -> None:
    assert parsed(DESCRIPTION) == DESCRIPTION
    assert image_of(DESCRIPTION) == ImageSpec(32, [0.0], [1.0])
    assert name_of({**DESCRIPTION, "data": "skin"}) == "skin-acl-mobilenet_v2"


@pytest.mark.parametrize("key", ["backbone", "branches", "tasks", "levels", "image"])
def test_a_description_without_a_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(UserError, match=f"a/network.json lacks '{key}': restore it"):
        parsed({name: value for name, value in DESCRIPTION.items() if name != key})


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"size": 0}, "image#size"),
        ({"size": "2 ** 40"}, "image#size"),
        ({"std": [0.0]}, "image#std#0"),
        ({"mean": [0.0, 0.0]}, "'mean' has 2 numbers, not 3"),
        ({"colour": {"name": "$1"}}, "image#colour#name"),
        ({"colour": {"_target_": 1}}, "image#colour"),
        ({"dimensions": 3}, "images of other dimensions than mobilenet_v2 takes"),
        ({"other": 1}, "image"),
    ],
    ids=str,
)
def test_an_image_that_cannot_be_is_refused(image: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parsed({**DESCRIPTION, "image": {**DESCRIPTION["image"], **image}})


@pytest.mark.parametrize("backbone", ["timm:hf-hub:somebody/network", "timm:local-dir:/tmp"])
def test_a_backbone_that_would_be_fetched_is_refused(backbone: str) -> None:
    with pytest.raises(UserError):
        parsed({**DESCRIPTION, "backbone": backbone})


def test_a_broken_description_is_named() -> None:
    for content in (b'{"backbone": ', b"\xff"):
        with pytest.raises(UserError, match=r"a/network\.json is not valid JSON"):
            parse_description(content, Path("a/network.json"))


def test_the_newest_runs_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recent_runs() == []
    for number, name in enumerate(("a", "b/c", "d", "unfinished")):
        folder = tmp_path / "runs" / name
        write_run_config(folder, {RECORDED: {}})
        if name != "unfinished":
            (folder / "network.json").touch()
        os.utime(folder, (number, number))
    assert recent_runs(2) == ["runs/d", "runs/b/c"]
