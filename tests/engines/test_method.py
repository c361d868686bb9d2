"""A method's name is worth nothing without the method's config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.engines import check_method
from scripts.errors import UserError

METHODS = Path(__file__).resolve().parents[2] / "bundle" / "configs" / "methods"


@pytest.mark.parametrize("file", sorted(METHODS.glob("*.json")), ids=lambda file: file.stem)
def test_every_method_config_sets_its_own_name(file: Path) -> None:
    content = json.loads(file.read_text())
    assert content["method"] == content["configured_method"] == file.stem
    check_method(content["method"], content["configured_method"], str(METHODS))


def test_a_known_name_without_its_config_says_which_file_to_add() -> None:
    with pytest.raises(UserError, match=r"method 'acl' is a config file: add 'configs/methods/acl.json'"):
        check_method("acl", "dynammo", str(METHODS))


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(
        UserError, match=r"unknown method 'icarus': add one of acl, bic, .*dynammo, .*dynammo_others, .*finetune"
    ):
        check_method("icarus", "dynammo", str(METHODS))
