"""A training is a process of its own: what is known of it is on disk, and no other process is taken for it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.deploy.service.background import ERROR, RUNNING, STOPPED
from scripts.deploy.service.images import ImageStore, Tag
from scripts.deploy.service.problems import Problem
from scripts.deploy.service.trainings import KILLED, LOCK, RUN, Trainings
from scripts.deploy.versions.store import VersionStore

TESTED = {"images": {"a": 1}, "recalls": {"a": 1.0}, "mean_class_recall": 1.0, "calibration_error": 0.1, "refused": 0}
DETAILS: dict[str, Any] = {
    "name": "data-method-backbone",
    "tasks": [{"name": "first", "classes": ["a"]}],
    "tested": TESTED,
    "accuracy_matrix": [[1.0]],
    "config": {"method": "dynammo"},
    "licence": "bsd-3-clause",
}
WEIGHTS = b"weights"


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def versions(tmp_path: Path) -> VersionStore:
    store = VersionStore(tmp_path / "store")
    store.add({"model.pt": WEIGHTS, "network.json": b"{}"}, DETAILS, None)
    store.promote(1)
    return store


@pytest.fixture
def make(tmp_path: Path, images: ImageStore, versions: VersionStore) -> Iterator[Callable[[], Trainings]]:
    """Make what starts trainings, as each start of the service does; in the end none is left running."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.pt").write_bytes(WEIGHTS)
    made: list[Trainings] = []

    def make() -> Trainings:
        given = None if made else str(run)  # it is remembered
        made.append(Trainings(tmp_path / "trainings", images, versions, given, {}, {"device": "cpu"}))
        return made[-1]

    yield make
    for trainings in made:
        trainings.stop()


def label(images: ImageStore, name: str, count: int, groups: int = 99) -> list[str]:
    """Label new images, of so many patients."""
    rng = np.random.default_rng(list(name.encode()))
    added = []
    for number in range(count):
        image = images.add(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8), f"patient {number % groups}")
        images.set_label(image, Tag.FINAL, name, "Zoe")
        added.append(image)
    return added


def status_of(refused: Callable[[], Any]) -> int:
    with pytest.raises(Problem) as problem:
        refused()
    return problem.value.status


def wait_for(happened: Callable[[], bool]) -> None:
    for _ in range(2400):
        if happened():
            return
        time.sleep(0.05)
    pytest.fail("it does not happen")


def folder_of(trainings: Trainings) -> Path:
    (lock,) = trainings.folder.glob(f"*/{LOCK}")
    return lock.parent


def test_a_training_outlives_the_service_which_stops_it_after_a_restart(
    make: Callable[[], Trainings], images: ImageStore
) -> None:
    added = label(images, "b", 3) + label(images, "c", 2)
    started = make().start({}, "Zoe")
    assert (started["status"], started["request"]["classes"]) == (RUNNING, ["b", "c"])
    restarted = make()
    assert restarted.status(check_if_running=True)["id"] == started["id"]
    assert restarted.learnt_from(added[0]) and not restarted.learnt_from("0" * 32)
    assert status_of(lambda: restarted.start({}, "Zoe")) == 429
    process = int((folder_of(restarted) / LOCK).read_text())
    stopped = restarted.stop()
    assert stopped is not None and (stopped["id"], stopped["status"]) == (started["id"], STOPPED)
    assert not Path(f"/proc/{process}/cmdline").is_file() or not Path(f"/proc/{process}/cmdline").read_bytes()
    assert (restarted.stop(), restarted.running()) == (None, False)
    assert not restarted.learnt_from(added[0]), "nothing was learnt"


def test_a_killed_training_is_noted_whatever_has_its_process_id_now(
    make: Callable[[], Trainings], images: ImageStore
) -> None:
    label(images, "b", 2)
    trainings = make()
    trainings.start({}, "Zoe")
    lock = folder_of(trainings) / LOCK
    os.killpg(int(lock.read_text()), signal.SIGKILL)
    wait_for(lambda: not trainings.running())
    lock.write_text(str(os.getpid()))  # an id that is in use again
    found = make().status()
    assert (found["status"], found["result"]["reason"]) == (ERROR, KILLED)
    assert make().stop() is None


def test_the_same_order_goes_on_in_its_folder_and_another_begins_anew(
    make: Callable[[], Trainings], images: ImageStore
) -> None:
    label(images, "b", 2)
    trainings = make()
    first = trainings.start({}, "Zoe")
    (folder_of(trainings) / RUN).mkdir()
    trainings.stop()
    again = trainings.start({}, "Zoe")
    assert again["id"] != first["id"] and (folder_of(trainings) / RUN).is_dir()
    trainings.stop()
    label(images, "b", 3)
    trainings.start({}, "Zoe")
    assert len(list(trainings.folder.glob(f"*/{LOCK}"))) == 2
    assert [task["status"] for task in trainings.tasks()] == [STOPPED, RUNNING]


def test_the_order_says_what_is_new_and_names_nobody(make: Callable[[], Trainings], images: ImageStore) -> None:
    label(images, "a", 2)  # known
    new = label(images, "b", 2) + label(images, "c", 2)
    trainings = make()
    trainings.start({"max_epochs": 3, "client_id": "Doe^Jane", "name": "Doe^Jane"}, "Zoe")
    content = (folder_of(trainings) / "order.json").read_text()
    order = json.loads(content)
    assert order["classes"] == ["b", "c"]
    assert {Path(item["image"]).stem for item in order["training"]} == set(new)
    assert order["settings"] == {"device": "cpu", "adapter_epochs": 3}
    assert "Doe" not in content + (folder_of(trainings) / "task.json").read_text()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({}, 409),
        ({"classes": ["a"]}, 409),
        ({"classes": ["nobody said so"]}, 409),
        ({"classes": []}, 422),
        ({"classes": "b"}, 422),
        ({"classes": [1]}, 422),
        ({"max_epochs": 0}, 422),
        ({"max_epochs": True}, 422),
        ({"max_epochs": "9; $import os"}, 422),
        ({"max_epochs": 10**9}, 422),
    ],
)
def test_an_order_that_cannot_be_is_refused(
    make: Callable[[], Trainings], images: ImageStore, request_: dict[str, Any], status: int
) -> None:
    label(images, "a", 2)
    trainings = make()
    assert status_of(lambda: trainings.start(request_, "Zoe")) == status
    assert status_of(trainings.status) == 404


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (5, 1)])
def test_a_class_of_one_patient_cannot_be_tested(
    make: Callable[[], Trainings], images: ImageStore, count: int, groups: int
) -> None:
    label(images, "b", count, groups)
    with pytest.raises(Problem, match="too few images to learn b"):
        make().start({}, "Zoe")


def test_a_class_that_still_waits_for_images_is_left_out_and_named(
    make: Callable[[], Trainings], images: ImageStore
) -> None:
    ready = label(images, "b", 3)
    label(images, "mistyped", 1)
    trainings = make()
    with pytest.raises(Problem, match="too few images to learn mistyped"):
        trainings.start({"classes": ["b", "mistyped"]}, "Zoe")
    started = trainings.start({}, "Zoe")
    assert (started["request"]["classes"], started["request"]["left_out"]) == (["b"], ["mistyped"])
    order = json.loads((folder_of(trainings) / "order.json").read_text())
    assert {Path(item["image"]).stem for item in order["training"]} == set(ready)


def test_a_version_whose_run_is_not_at_hand_is_not_gone_on_from(
    make: Callable[[], Trainings], images: ImageStore, versions: VersionStore
) -> None:
    label(images, "b", 2)
    versions.add({"model.pt": b"other weights", "network.json": b"{}"}, DETAILS, 1)
    versions.promote(2)
    with pytest.raises(Problem, match="the run of version 2 is not at hand"):
        make().start({}, "Zoe")


def test_a_training_that_fails_says_why(
    make: Callable[[], Trainings], images: ImageStore, versions: VersionStore
) -> None:
    label(images, "b", 2)
    trainings = make()
    trainings.start({}, "Zoe")
    wait_for(lambda: not trainings.running())
    found = trainings.status()
    assert found["status"] == ERROR
    assert "has no config.json" in found["result"]["reason"]
    assert found["start_ts"] <= found["end_ts"]
