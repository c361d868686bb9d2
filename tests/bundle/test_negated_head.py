"""A model whose head was negated is refused at every door in one line: it is never served under the old one's name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.commands import versions
from scripts.commands.app import main
from scripts.deploy.inference import Served, load_image_classifier
from scripts.utils.errors import UserError

DOORS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "inference": (("configs/inference.json",), {"model": "run"}),
    "evaluation": (("configs/train.json", "configs/evaluate.json"), {"model": "run"}),
    "export": (("configs/train.json", "configs/export.json"), {"model": "run"}),
    "node": (("configs/node.json",), {"model": "run", "queue_dir": "queue"}),
    "service": (("configs/service.json",), {"run_dir": "run", "service_dir": "service"}),
}


@pytest.fixture(scope="module")
def folder(small_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``run``, a finished run, the weights of whose head are negated in each ``model.pt``."""
    folder = tmp_path_factory.mktemp("negated")
    shutil.copytree(small_run.output, folder / "run")
    for file in (folder / "run").rglob("model.pt"):
        state = torch.load(file, weights_only=True)
        torch.save({key: -value if key.startswith("head") else value for key, value in state.items()}, file)
    return folder


@pytest.mark.parametrize("door", DOORS)
def test_a_config_refuses_it(door: str, folder: Path, small_run: Any, refusal: Callable[..., str]) -> None:
    configs, places = DOORS[door]
    images = small_run.dataset / "Pathology16" / "cells" / "test"
    given = {key: str(folder / name) for key, name in places.items()}
    data = {"dataset_dir": images, "output_dir": folder / "out"} if door == "inference" else {}
    said = refusal({**given, **data, "device": "cpu"}, configs)
    assert "model.pt is not as it was written, its checksum differs: restore it or train again" in said
    assert "\n" not in said
    assert not list(folder.rglob("predictions.*"))


def test_commands_refuse_it(folder: Path, small_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    images, run = str(small_run.dataset / "Pathology16" / "cells" / "test"), str(folder / "run")
    statuses = [
        main(["classify", run, images, "--output", str(folder / "said")]),
        main(["package", run, str(folder / "a.zip")]),
        main(["versions", str(folder / "store"), "add", run]),
    ]
    assert statuses == [1, 1, 1]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("model.pt is not as it was written" in line for line in lines)


def test_a_version_that_was_changed_is_neither_served_nor_promoted(small_run: Any, tmp_path: Path) -> None:
    store = versions.VersionStore(tmp_path / "store")
    versions.take_in(store, small_run.output)
    first, last = store.versions()[0], store.versions()[-1]
    store.promote(first.number)
    served = Served(store.folder / "promoted", load_image_classifier)
    before = served.current()
    file = last.folder / "model.pt"
    file.chmod(0o644)
    state = torch.load(file, weights_only=True)
    torch.save({key: -value if key.startswith("head") else value for key, value in state.items()}, file)
    with pytest.raises(UserError, match="model.pt is not as it was added"):
        store.promote(last.number)
    (store.folder / "promoted").unlink()
    (store.folder / "promoted").symlink_to(last.folder)
    with pytest.raises(UserError, match="model.pt is not as it was written"):
        served.current()
    (store.folder / "promoted").unlink()
    (store.folder / "promoted").symlink_to(first.folder)
    assert served.current() is before
