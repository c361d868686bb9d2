"""What each release since 0.2.0 has left on disk opens in this one, and goes on (``tools/released.py`` wrote it).

A change of format that is meant raises its number in ``scripts/utils/formats.py``, and the one below; what is there of
earlier releases stays.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.commands.backup import restore
from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.queue import ImageQueue, State
from scripts.deploy.versions import VersionStore
from scripts.model.folder import TrainedModel
from scripts.utils import formats

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.zip"))
OPENED = {"RUN": 1, "VERSION": 1, "QUEUE": 1, "BACKUP": 1}
"""The formats that this release writes, as it was last decided."""


@pytest.fixture(scope="module", params=RELEASES, ids=lambda path: path.stem)
def restored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a release has written, restored by this one."""
    folder = tmp_path_factory.mktemp("release")
    with zipfile.ZipFile(request.param) as file:
        file.extractall(folder / "backup")
    assert json.loads((folder / "backup/backup.json").read_text())["software"] == request.param.stem
    restore(folder / "backup", folder / "restored")
    return folder / "restored"


def test_a_format_changes_only_by_a_decision() -> None:
    assert {name: getattr(formats, name) for name in OPENED} == OPENED


def test_a_run_opens_and_answers(restored: Path) -> None:
    image = next((restored / "run/exemplars").iterdir())
    for folder in (restored / "run", restored / "run/task_0"):
        assert TrainedModel.open(folder).identity.name.startswith("generated-dynammo")
        said = load_image_classifier(folder).classify(str(image)).record()
        assert sum(said["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_run_learns_one_more_task(restored: Path, finish_run: Callable[..., None], tmp_path: Path) -> None:
    before = json.loads((restored / "run/config.json").read_text())
    epochs = ("adapter_epochs", "finetune_epochs", "backbone_epochs")
    kept = ("backbone", "image_size", "batch_size", "memory_size", *epochs)
    overrides = {key: before[key] for key in kept}
    overrides |= {"network_def#sites": ["features.3"], "memory#exemplars": "copies", "source#sets": ["cells"]}
    overrides |= {"source#train_per_class": 6, "source#test_per_class": 3, "source#val_per_class": 2, "device": "cpu"}
    overrides |= {"previous": restored / "run", "dataset_dir": tmp_path / "images", "output_dir": tmp_path / "run"}
    finish_run(overrides)
    assert len(json.loads((tmp_path / "run/tasks.json").read_text())) == 3


def test_a_store_verifies_and_serves(restored: Path) -> None:
    store = VersionStore(restored / "store")
    store.check()
    served = store.promoted()
    assert served is not None and (served.number, store.history()) == (2, [1, 2])
    assert TrainedModel.open(served.folder).identity.weights_sha256 == served.record["files"]["model.pt"]


def test_a_queue_goes_on(restored: Path) -> None:
    queue = ImageQueue(str(restored / "node"), lambda: "model")
    states = (State.RECEIVED, State.CLASSIFIED, State.SENT, State.REFUSED)
    assert queue.counts() == {state: int(state in states) for state in State}
    waiting, classified = (queue.next([state]) for state in (State.RECEIVED, State.CLASSIFIED))
    assert waiting is not None and waiting.image.read_bytes() == b"an image that waits"
    assert classified is not None and classified.results == (b"a report",)
    queue.sent(queue.classified(waiting, [b"another report"]))
    assert queue.counts()[State.SENT] == 2
    queue.close()
