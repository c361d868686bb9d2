"""What was given on a command line of MONAI's, as MONAI reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.commands.given import given, is_train


def test_files_and_keys_are_read_in_their_order() -> None:
    said = given(
        ["run", "--config_file", "['a.json','b.json']", "--seed", "2", "--optimizer::lr=0.5", "--split", "[1,2]"]
    )
    assert said is not None
    assert said.files == ("a.json", "b.json")
    assert said.values() == [("seed", 2), ("optimizer#lr", 0.5), ("split", [1, 2])]


def test_a_key_alone_is_true_and_the_next_is_no_value() -> None:
    said = given(["run", "--restart", "--config_file", "a.json", "--weights"])
    assert said is not None
    assert (said.files, said.values()) == (("a.json",), [("restart", True), ("weights", True)])


@pytest.mark.parametrize("arguments", [[], ["ckpt_export", "network_def"], ["-q", "tests"]])
def test_another_command_gives_nothing(arguments: list[str]) -> None:
    assert given(arguments) is None


def test_the_bundles_training_is_known_wherever_it_is_named_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts.commands.configs import CONFIGS

    monkeypatch.chdir(CONFIGS.parent)
    assert is_train("configs/train.json")
    assert not is_train("configs/methods/acl.json")


@pytest.mark.parametrize("typed", ["a.json,b.json", "['a.json','b.json']", '["a.json", "b.json"]', "a,b"])
def test_files_are_listed_with_brackets_or_without(typed: str) -> None:
    said = given(["run", "--config_file", typed])
    assert said is not None
    assert said.files == (("a", "b") if typed == "a,b" else ("a.json", "b.json"))


def test_a_file_with_a_comma_in_its_name_is_one_file(tmp_path: Path) -> None:
    file = tmp_path / "my own, new.json"
    file.write_text("{}")
    for typed in (str(file), f"['{file}']"):
        said = given(["run", "--config_file", typed])
        assert said is not None
        assert said.files == (str(file),)


def test_texts_stay_as_typed_and_numbers_are_read() -> None:
    said = given(["run", "--data", "2019", "--dataset_dir", "a,b", "--previous=null", "--seed=2", "--restart=false"])
    assert said is not None
    assert said.values() == [
        ("data", "2019"),
        ("dataset_dir", "a,b"),
        ("previous", None),
        ("seed", 2),
        ("restart", False),
    ]


def test_keys_are_read_as_fire_reads_them() -> None:
    said = given(["run", "stray", "-seed", "3", "--batch-size=-4", "--split", "-1", "--norestart", "--", "--trace"])
    assert said is not None
    assert said.words == ("stray",)
    assert said.pairs == (("seed", "3"), ("batch_size", "-4"), ("split", "-1"), ("restart", "False"))


def test_of_a_key_given_twice_the_last_counts() -> None:
    said = given(["run", "--seed", "2", "--config_file", "a.json", "--seed", "3"])
    assert said is not None
    assert said.typed() == {"seed": "3"}
