"""Which configs the plan is made of, and what is refused before MONAI starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.commands.app import main
from scripts.commands.configs import CONFIGS
from scripts.commands.found import find_data
from scripts.commands.plan import of_training
from scripts.commands.train import training_files

TRAINING = CONFIGS / "train.json"
DATASETS = sorted(path.stem for path in (CONFIGS / "datasets").glob("*.yaml"))


def test_a_data_set_stands_after_training() -> None:
    assert "skin8" in DATASETS
    for name in DATASETS:
        train, data = training_files(find_data(name), None, None)
        assert (train, data.stem) == (TRAINING, name)


def test_generated_images_need_no_further_config() -> None:
    assert training_files(find_data("generated"), None, None) == [TRAINING]


def test_what_a_plan_alone_takes_is_not_said_to_training() -> None:
    words = ["--image_size", "64", "--sheet_images", "5", "--rehearsed_batches=0", "--limits#num_workers", "2"]
    assert of_training(words) == ["--image_size", "64", "--limits#num_workers", "2"]


def test_a_config_of_ones_own_is_taken_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my skin.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert training_files(find_data("my skin.json"), None, None)[1] == tmp_path / "my skin.json"


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, which must end with a mistake, and return the last line."""
    assert main(["plan", *arguments]) in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.splitlines()[-1]
    assert last.startswith("Error: ")
    return last


def test_an_unknown_name_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(["skin9"], capsys)
    assert "there is no skin9: give a folder" in line
    assert [name for name in (*DATASETS, "generated") if name not in line] == []


@pytest.mark.parametrize(("content", "part"), [(None, "there is no"), ("{", "cannot read"), ("[]", "holds no keys")])
def test_a_json_file_that_is_no_config_is_refused(
    content: str | None, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.json"
    if content is not None:
        path.write_text(content)
    line = refusal([str(path)], capsys)
    assert str(path) in line
    assert part in line


def test_the_config_of_the_plan_replaces_the_training_alone() -> None:
    train, own = (json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("train", "plan"))
    assert set(own) & set(train) == {"run"}
    assert own["run"][1] == {"_target_": "scripts.commands.keys.check_keys"}, "it refuses what training refuses"
    assert train["run"][0].endswith("commands.start.start()")
    assert "@network" not in json.dumps(own), "nothing is trained, so none is made"
