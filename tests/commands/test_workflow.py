"""Configs of one's own beside those that a command lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.commands.configs import TRAIN
from scripts.commands.workflow import with_own_files


@pytest.mark.parametrize("form", [["--config_file", "own.yaml"], ["--config_file=own.yaml"]])
def test_a_config_of_ones_own_stands_behind_the_others(form: list[str]) -> None:
    assert with_own_files([TRAIN], ["--seed", "2", *form, "--restart"]) == (
        [TRAIN, Path("own.yaml")],
        ["--seed", "2", "--restart"],
    )
