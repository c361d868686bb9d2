"""What was given on a command line of MONAI's, as MONAI reads it."""

from __future__ import annotations

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
