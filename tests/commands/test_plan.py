"""Which configs the plan is made of, and what is refused before MONAI starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.commands.plan import CONFIGS, config_files, main

DATASETS = sorted(path.stem for path in (CONFIGS / "datasets").glob("*.json"))


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_stands_between_training_and_plan(name: str) -> None:
    assert config_files(name) == [CONFIGS / "train.json", CONFIGS / "datasets" / f"{name}.json", CONFIGS / "plan.json"]


def test_generated_images_need_no_further_config() -> None:
    assert config_files("generated") == [CONFIGS / "train.json", CONFIGS / "plan.json"]


def test_a_json_file_of_ones_own_is_taken_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my skin.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert config_files("my skin.json")[1] == tmp_path / "my skin.json"


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, which must end with one line and the status 1, and return that line."""
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_an_unknown_name_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(["skin9"], capsys)
    assert "unknown data set 'skin9'" in line
    assert [name for name in (*DATASETS, "generated") if name not in line] == []


@pytest.mark.parametrize(("content", "part"), [(None, "No such file"), ("{", "cannot read"), ("[]", "holds no keys")])
def test_a_json_file_that_is_no_config_is_refused(
    content: str | None, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.json"
    if content is not None:
        path.write_text(content)
    line = refusal([str(path)], capsys)
    assert str(path) in line
    assert part in line


def test_a_folder_in_the_place_of_a_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give a folder of images as --dataset_dir data/skin" in refusal(["image_folder", "data/skin"], capsys)


def test_the_config_of_the_plan_replaces_the_training_alone() -> None:
    train, own = (json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("train", "plan"))
    assert set(own) & set(train) == {"run"}
    assert own["run"][1] == {"_target_": "scripts.commands.keys.check_keys"}, "it refuses what training refuses"
    assert train["run"][0] == {"_target_": "scripts.commands.start.start"}
    assert "network" not in json.dumps(own)
