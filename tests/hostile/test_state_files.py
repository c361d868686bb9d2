"""Damaged and hostile files that say what a model is and what was done with it: a named error, and no code is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.commands.classify import Order, task_settings
from scripts.commands.queue import describe, failed
from scripts.commands.versions import promote, table
from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.queue import DATABASE, ImageQueue, QueueRecord
from scripts.deploy.versions.gate import ANSWERS
from scripts.deploy.versions.store import AUDIT, VersionStore
from scripts.utils.files import VERSION
from scripts.utils.sums import SUMS


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def store(trained_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of two versions, the first of which is served, and the key of its log beside it."""
    store = VersionStore(tmp_path_factory.mktemp("versions") / "store")
    files = {name: (trained_model / name).read_bytes() for name in ("model.pt", "network.json")}
    tasks = json.loads(files["network.json"])["tasks"]
    tested = {"images": {"benign": 2}, "recalls": {"benign": 1.0}, "refused": 0}
    tested |= {"mean_class_recall": 1.0, "calibration_error": 0.1}
    details = {"name": "a", "tasks": tasks, "tested": tested, "accuracy_matrix": [[1.0]], "config": {}, "licence": "a"}
    answers = json.dumps({f"{number:064x}": ["benign", "benign"] for number in range(4)}).encode()
    for parent in (None, 1):
        store.add({**files, ANSWERS: answers}, details, parent)
    store.promote(1)
    return store.folder.parent


def damaged_copies(source: Path, name: str, count: int, damage: Any, folder: Path) -> Iterator[Path]:
    """Copy a folder, damage one file in it, again and again."""
    rng, content = np.random.default_rng(7), (source / name).read_bytes()
    copy = folder / source.name
    shutil.copytree(source, copy, symlinks=True)
    for path in (copy / name, (copy / name).parent):
        path.chmod(0o755)
    for _ in range(count):
        (copy / name).write_bytes(damage(content, rng))
        yield copy
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(copy)


def use_store(folder: Path) -> None:
    """Do with a store what the command does."""
    store = VersionStore(folder / "store")
    store.recover()
    table(store)
    for version in store.versions():
        version.parent  # noqa: B018
    promote(store, 2, {"class_margin": 1.0, "mean_floor": 0.0})
    store.rollback()
    store.check()


def use_task_file(folder: Path) -> None:
    """Do with mercure's settings what the command does."""
    Order(None, str(folder), "out").with_task(task_settings({"MERCURE_IN_DIR": str(folder)})).settings()


def use_queue(folder: Path) -> None:
    """Do with a node's folder what the command that looks into it and the node do."""
    with closing(QueueRecord(str(folder))) as record:
        for said in (describe(record, ["1.2.3"]), describe(record, []), failed(record)):
            assert said
    with closing(ImageQueue(str(folder), lambda: "model")) as queue:
        queue.next()
        queue.add("1.2.99", queue.new_file())


def check_all(tally: Any, count: int, sources: Any, tmp_path: Path) -> None:
    for door, (source, name, damage, use) in sources.items():
        figures = tally(door)
        folder = tmp_path / door.replace(" ", "_").replace("/", "_")
        folder.mkdir()
        for number, copy in enumerate(damaged_copies(source, name, count, damage, folder)):
            figures.ask(f"{name} {number}", lambda: use(copy))  # noqa: B023


@pytest.fixture
def sources(
    trained_model: Path, store: Path, picture: str, damage: Any, damage_json: Any, vouch: Any, put: Any, tmp_path: Path
) -> dict[str, tuple[Path, str, Callable[..., bytes], Callable[[Path], object]]]:
    """By door: a folder, the file in it that is damaged, how, and what is done with the folder."""
    mercure, queue = tmp_path / "mercure", tmp_path / "queue"
    mercure.mkdir()
    settings = {"threshold": 0.7, "presentation": {"accept": ["derived"], "window": "40,400"}, "allow_refused": True}
    (mercure / "task.json").write_text(json.dumps({"process": {"module_name": "a", "settings": settings}}))
    with closing(ImageQueue(str(queue), lambda: "model")) as made:
        for number in range(20):
            put(made, f"1.2.{number}", b"image" * 1000)

    def classify(folder: Path) -> None:
        load_image_classifier(folder).classify(picture)

    def classify_vouched(folder: Path) -> None:
        """Classify with files that somebody has vouched for again."""
        vouch(folder)
        classify(folder)

    return {
        "SHA256SUMS": (trained_model, SUMS, damage, classify),
        "network.json": (trained_model, "network.json", damage_json, classify_vouched),
        "model.pt": (trained_model, "model.pt", damage, classify_vouched),
        "task.json": (mercure, "task.json", damage_json, use_task_file),
        "version.json": (store, f"store/versions/0002/{VERSION}", damage_json, use_store),
        "answers.json": (store, f"store/versions/0002/{ANSWERS}", damage_json, use_store),
        "audit.jsonl": (store, f"store/{AUDIT}", damage, use_store),
        "queue.db": (queue, DATABASE, damage, use_queue),
    }


def test_damaged_state_files_give_an_answer_or_a_named_error(tally: Any, sources: Any, tmp_path: Path) -> None:
    check_all(tally, 8, sources, tmp_path)


@pytest.mark.slow
def test_thousands_of_damaged_state_files(tally: Any, sources: Any, tmp_path: Path) -> None:
    check_all(tally, 250, sources, tmp_path)
