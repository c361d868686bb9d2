"""A misspelt key on the command line is named; a right one is not."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from scripts.commands.keys import check_keys, given_keys, unknown_keys, valueless_keys
from scripts.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"


def test_keys_are_read_in_all_of_monais_forms() -> None:
    arguments = ["run", "--config_file", "a.json", "--seed", "2", "--a#b#c", "5", "--d::e", "6", "--f=7"]
    assert given_keys(arguments) == ["seed", "a", "d", "f"]


def test_a_key_that_only_an_expression_refers_to_is_known() -> None:
    config = {"memory_size": 1, "weights": "$@test_data + '/weights.pth'"}
    assert unknown_keys(["memory_size", "test_data", "memory_sise", "zzz"], config) == {
        "memory_sise": ["memory_size"],
        "zzz": [],
    }


def test_a_key_without_a_value_is_found_unless_it_is_a_switch() -> None:
    config = {"weights": None, "seed": 1, "restart": False, "dataset_dir": "$@bundle_root + '/data'"}
    arguments = ["run", "--weights", "--restart", "--seed", "-1", "--dataset_dir=data", "--other", "--dataset_dir"]
    assert valueless_keys(arguments, config) == ["weights", "dataset_dir"]
    assert valueless_keys(["--seed", ""], config) == []


@pytest.mark.parametrize(
    "files",
    ["{0}/train.json", "['{0}/train.json','{0}/methods/acl.json']", "['{0}/train.json', '{1}/my own, new.json']"],
)
def test_a_misspelt_key_is_named_with_the_one_meant(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "my own, new.json").write_text("{}")
    given = ["run", "--config_file", files.format(CONFIGS, tmp_path), "--memory_sise", "40", "--optimizer#lr", "0.1"]
    monkeypatch.setattr(sys, "argv", ["monai.bundle", *given])
    with caplog.at_level(logging.WARNING):
        check_keys()
    assert [record.getMessage() for record in caplog.records] == [
        "--memory_sise is no key of the config and changes nothing; did you mean --memory_size?"
    ]


def test_a_key_without_a_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["run", "--config_file", str(CONFIGS / "train.json"), "--restart", "--weights", "--seed", "2"]
    monkeypatch.setattr(sys, "argv", ["monai.bundle", *given])
    with pytest.raises(UserError, match="--weights has no value: write --weights VALUE, or leave it out"):
        check_keys()
