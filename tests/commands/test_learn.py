"""What a service orders is learnt as the version before was learnt, from the images of the order and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.learn import config_of, main
from scripts.commands.versions import served_folder
from scripts.deploy.service.background import ERROR
from scripts.deploy.service.trainings import ORDER, OUTCOME
from scripts.deploy.versions.store import VersionStore
from scripts.utils.errors import UserError

ORDERED: dict[str, Any] = {
    "version": 1,
    "previous": "run",
    "classes": ["b", "c"],
    "settings": {"device": "cpu", "adapter_epochs": 3},
    "training": [],
}


def test_the_order_decides_what_is_learnt_and_the_operator_how(tmp_path: Path) -> None:
    config = config_of({**ORDERED, "images": str(tmp_path)}, tmp_path)
    assert (config["adapter_epochs"], config["device"]) == (3, "cpu")
    assert (config["split"], config["previous"], config["planned_tasks#order"]) == ([["b", "c"]], "run", None)
    assert config["source"]["file"] == str(tmp_path / ORDER)
    assert not {"data", "method", "backbone", "memory_size"} & config.keys(), "these are the run's"


def test_what_went_wrong_is_in_the_folder_in_one_line(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store").place
    order = {**ORDERED, "images": str(tmp_path), "store": store, "by": "Zoe", "gate": {}}
    (tmp_path / ORDER).write_text(json.dumps(order))
    assert main([str(tmp_path)]) == 0
    outcome = json.loads((tmp_path / OUTCOME).read_text())
    assert outcome["status"] == ERROR
    assert outcome["result"]["reason"] == f"{tmp_path}/store has no version 1: choose among those there are (none yet)"


def test_a_store_that_serves_nothing_asks_for_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"serves no version yet: give a finished run's folder \(key 'run_dir'\)"):
        served_folder(VersionStore(tmp_path))
