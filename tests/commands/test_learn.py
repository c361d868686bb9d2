"""What a service orders is learnt as the version before was learnt, from the images of the order and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.configs import CONFIGS, TRAIN, VOLUMES, data_files, find_config, parse_config
from scripts.commands.learn import CONFIG, config_of, configs_of, main
from scripts.commands.versions import served_folder
from scripts.errors import UserError
from scripts.service.background import ERROR
from scripts.service.trainings import ORDER, OUTCOME
from scripts.versions.store import VersionStore

ORDERED: dict[str, Any] = {
    "version": 1,
    "previous": "run",
    "classes": ["b", "c"],
    "settings": {"device": "cpu", "adapter_epochs": 3},
    "training": [],
}


def settings_of(configs: list[Path], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return what a run of configs writes down as its settings, the parts that need a network apart."""
    parser = parse_config(configs, [])
    parser.update(overrides)
    left_out = {"mean", "std", "adapter_statistics"}
    return {key: parser.get_parsed_content(f"settings#{key}") for key in parser["settings"] if key not in left_out}


CASES = [("skin8", path.stem, []) for path in sorted((CONFIGS / "methods").glob("*.json"))]
CASES += [("generated_volumes", "finetune", [VOLUMES]), ("generated", "dynammo", [])]


@pytest.mark.parametrize(("data", "method", "networks"), CASES)
def test_settings_are_those_of_the_version_before(data: str, method: str, networks: list[Path], tmp_path: Path) -> None:
    configs = [TRAIN, *networks, *data_files(data), find_config("methods", method)]
    chosen = {"weights": None, "colour": "clahe", "memory_size": 24, "adapter_epochs": 7, "seed": 3}
    before = settings_of(configs, chosen)
    order = {**ORDERED, "images": str(tmp_path), "settings": {}}
    config = config_of(order, {**before, "mean": [0.5], "std": [0.2]}, {"data": data}, tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    found = configs_of(before, {"data": data})
    assert found == configs
    assert settings_of([*found, tmp_path / CONFIG], {}) == {**before, "limit": None}


def test_the_order_decides_what_is_learnt_and_the_operator_how(tmp_path: Path) -> None:
    order = {**ORDERED, "images": str(tmp_path)}
    config = config_of(order, {"adapter_epochs": 9, "memory_size": 5, "method": "dynammo"}, {}, tmp_path)
    assert (config["adapter_epochs"], config["device"], config["memory_size"]) == (3, "cpu", 5)
    assert (config["split"], config["previous"], config["class_order"]) == ([["b", "c"]], "run", None)
    assert config["source"]["file"] == str(tmp_path / ORDER)
    assert "data" not in config


def test_what_went_wrong_is_in_the_folder_in_one_line(tmp_path: Path) -> None:
    order = {**ORDERED, "images": str(tmp_path), "store": str(tmp_path / "store")}
    (tmp_path / ORDER).write_text(json.dumps(order))
    assert main([str(tmp_path)]) == 0
    outcome = json.loads((tmp_path / OUTCOME).read_text())
    assert outcome["status"] == ERROR
    assert outcome["result"]["reason"] == f"{tmp_path}/store has no version 1: choose among those there are (none yet)"


def test_a_store_that_serves_nothing_asks_for_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"serves no version yet: give a finished run's folder \(key 'run_dir'\)"):
        served_folder(VersionStore(tmp_path))
