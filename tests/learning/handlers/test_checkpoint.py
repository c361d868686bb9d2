"""A run stopped anywhere and built anew ends, bit by bit, as one that was never stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from PIL import Image
from torch import Tensor

from scripts.learning.engines import ContinualEvents, ContinualTrainer
from scripts.learning.handlers import CheckpointHandler
from scripts.learning.handlers.checkpoint import load_states
from scripts.learning.tasks import Task, read_tasks
from scripts.model.networks import ByFisher, Dare, RunningMean
from scripts.utils.errors import UserError

SETTINGS = {"method": "dynammo", "memory_size": 8, "mean": [0.0, 0.0, 0.0], "adapter_epochs": 2, "seed": 0}
Build = Callable[..., SimpleNamespace]


@pytest.fixture
def build(tiny: SimpleNamespace, tmp_path: Path) -> Build:
    """Build everything anew, as a new process would, with torch's generator anywhere."""

    def make(tasks: list[Task], folder: Path | None = None, **arguments: Any) -> SimpleNamespace:
        own = {key: arguments.pop(key) for key in ("config", "restart") if key in arguments}
        own["previous"] = arguments.get("previous")
        folder = folder or tmp_path / "run"
        torch.seed()

        def handler(save: dict[str, Any]) -> CheckpointHandler:
            return CheckpointHandler(str(folder), save, **{"config": SETTINGS, **own})

        return tiny.run(tasks, folder, first=[handler], **arguments)

    return make


def stop(run: SimpleNamespace, event: Any, when: Callable[[ContinualTrainer], bool] = lambda engine: True) -> None:
    """Run until ``event`` happens under a condition, and be stopped there."""

    def interrupt(engine: ContinualTrainer) -> None:
        if when(engine):
            raise KeyboardInterrupt

    run.trainer.add_event_handler(event, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.trainer.run()


def weights_of(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)


def assert_equal_runs(run: SimpleNamespace, expected: SimpleNamespace, tiny: SimpleNamespace) -> None:
    assert not tiny.changed_keys(run.network.state_dict(), expected.network.state_dict())
    assert not tiny.changed_keys(weights_of(run.folder), weights_of(expected.folder))
    assert run.record.matrix.state_dict() == expected.record.matrix.state_dict()
    assert run.record.figures == expected.record.figures
    assert run.record.open_set == expected.record.open_set
    assert run.rules.state_dict() == expected.rules.state_dict()
    assert run.memory.state_dict() == expected.memory.state_dict()


def test_stopped_after_every_epoch_a_run_ends_as_uninterrupted(
    finished: SimpleNamespace, build: Build, tiny: SimpleNamespace
) -> None:
    stops: list[tuple[int, str, int]] = []
    for _ in range(8):
        run = build(finished.tasks)
        steps: list[int] = []
        run.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e, s=steps: s.append(e.state.iteration))
        stop(run, Events.EPOCH_COMPLETED)
        engine = run.trainer
        stops.append((engine.state.task, engine.current_stage.name, engine.state.epoch))
        assert len(steps) == engine.state.epoch_length, "one epoch, none repeated"
        assert steps[-1] == engine.state.epoch * engine.state.epoch_length
    assert stops == [
        (1, "backbone_training", 1),
        *[(task, "adapter_tuning", epoch) for task in (1, 2) for epoch in (1, 2)],
        *[(2, "balanced_finetuning", epoch) for epoch in (1, 2, 3)],
    ]
    run = build(finished.tasks)
    run.trainer.run()
    assert_equal_runs(run, finished, tiny)


def test_acl_stopped_within_each_stage_ends_as_uninterrupted(
    finished_acl: SimpleNamespace, build: Build, tiny: SimpleNamespace
) -> None:
    arguments = {"head": "others", "separate": True}
    for name in ("adapter_tuning", "balanced_finetuning"):
        last = build(finished_acl.tasks, **arguments)
        stop(last, Events.EPOCH_COMPLETED, lambda e, n=name: e.state.task == 2 and e.current_stage.name == n)
    run = build(finished_acl.tasks, **arguments)
    run.trainer.run()
    assert_equal_runs(run, finished_acl, tiny)


MOMENTS: list[tuple[Any, Callable[[ContinualTrainer], bool]]] = [
    (ContinualEvents.RUN_STARTED, lambda e: True),
    (Events.ITERATION_COMPLETED, lambda e: e.current_stage.name == "adapter_tuning" and e.state.iteration == 4),
    (ContinualEvents.ADAPTERS_AVERAGED, lambda e: e.state.task == 1),
    (ContinualEvents.TASK_EVALUATED, lambda e: e.state.task == 1),
    (ContinualEvents.TASK_COMPLETED, lambda e: e.state.task == 1),
    (ContinualEvents.TASK_STARTED, lambda e: e.state.task == 2),
    (ContinualEvents.ADAPTERS_AVERAGED, lambda e: e.state.task == 2),
    (ContinualEvents.BALANCED_FINETUNING_STARTED, lambda e: True),
    (Events.ITERATION_COMPLETED, lambda e: e.current_stage.name == "balanced_finetuning" and e.state.iteration == 5),
    (ContinualEvents.STAGE_COMPLETED, lambda e: e.current_stage.name == "balanced_finetuning"),
    (ContinualEvents.TASK_COMPLETED, lambda e: e.state.task == 2),
    (ContinualEvents.RUN_COMPLETED, lambda e: True),
]


def test_stopped_at_any_other_moment_a_run_ends_as_uninterrupted(
    finished: SimpleNamespace, build: Build, tiny: SimpleNamespace
) -> None:
    for event, when in MOMENTS:
        stop(build(finished.tasks), event, when)
    run = build(finished.tasks)
    run.trainer.run()
    assert_equal_runs(run, finished, tiny)


MERGINGS: list[dict[str, Any]] = [
    {"adapter_start": "running_mean", "merging": {"row": RunningMean(), "batchnorm": "recalibrated"}},
    {"adapter_start": "first", "merging": {"row": ByFisher(), "batchnorm": "pooled"}},
    {"adapter_start": "first", "merging": {"row": Dare(), "base": "start"}},
]


@pytest.mark.parametrize("own", MERGINGS)
def test_however_adapters_are_merged_a_stopped_run_and_a_later_task_end_as_one_run(
    own: dict[str, Any], finished: SimpleNamespace, build: Build, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    whole = build(finished.tasks, tmp_path / "whole", **own)
    whole.trainer.run()
    assert tiny.changed_keys(whole.network.state_dict(), finished.network.state_dict()), "it is not the average"
    stop(build(finished.tasks, **own), ContinualEvents.ADAPTERS_AVERAGED)
    stop(build(finished.tasks, **own), Events.EPOCH_COMPLETED, lambda e: e.state.task == 2)
    stop(build(finished.tasks, **own), ContinualEvents.ADAPTERS_AVERAGED, lambda e: e.state.task == 2)
    run = build(finished.tasks, **own)
    run.trainer.run()
    assert_equal_runs(run, whole, tiny)
    build(finished.tasks[:1], tmp_path / "earlier", **own).trainer.run()
    later = build(finished.tasks, tmp_path / "later", previous=str(tmp_path / "earlier"), **own)
    later.trainer.run()
    assert_equal_runs(later, whole, tiny)


def test_a_finished_trainer_run_again_learns_the_last_task_further(
    finished: SimpleNamespace, build: Build, tiny: SimpleNamespace
) -> None:
    run = build(finished.tasks)
    run.trainer.run()
    before = tiny.copy_of(run.network.state_dict())
    steps = "backbone.blocks.features_3.adapters.{}.layers.1.num_batches_tracked"
    run.trainer.run()  # as a second federated round does
    changed = tiny.changed_keys(run.network.state_dict(), before)
    assert {key.split(".")[0] for key in changed} == {"backbone", "head"}
    assert all(".adapters.task1." in key or ".adapters.merged." in key or key.startswith("head.") for key in changed)
    after = run.network.state_dict()
    own = before[steps.format("task1")] - before[steps.format("task0")]  # it started as the first task's
    assert after[steps.format("task1")] == before[steps.format("task1")] + own, "it goes on from what it was"
    assert len(run.record.matrix) == 2, "of a task the last round counts"
    later = build(finished.tasks)
    later.trainer.run()  # finds the run finished
    assert not tiny.changed_keys(later.network.state_dict(), after)


def test_an_interrupted_trainer_asks_for_a_new_one(finished: SimpleNamespace, build: Build) -> None:
    run = build(finished.tasks)
    stop(run, Events.EPOCH_COMPLETED, lambda e: e.current_stage.name == "adapter_tuning")
    with pytest.raises(UserError, match="build a new one"):
        run.trainer.run()


def test_an_added_task_is_no_change(finished: SimpleNamespace, build: Build, tiny: SimpleNamespace) -> None:
    build(finished.tasks[:1]).trainer.run()
    later = build(finished.tasks)
    later.trainer.run()
    assert_equal_runs(later, finished, tiny)


def test_a_task_learnt_months_later_from_copies_ends_as_one_run(
    finished: SimpleNamespace, build: Build, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    tasks = tiny.tasks(tmp_path / "data")
    old = tmp_path / "old"
    build(tasks[:1], old, exemplars="copies").trainer.run()
    shutil.rmtree(tmp_path / "data" / "set0")
    known = read_tasks(old)
    assert [(task.name, task.classes, task.train) for task in known] == [("set0", tasks[0].classes, ())]
    run = build([*known, tasks[1]], tmp_path / "new", exemplars="copies", previous=str(old))
    run.trainer.run()
    assert not tiny.changed_keys(run.network.state_dict(), finished.network.state_dict())
    first, second = run.record.matrix.accuracy_matrix
    assert first == finished.record.matrix.accuracy_matrix[0]
    assert second == [None, finished.record.matrix.accuracy_matrix[1][1]]
    kept = {Path(item["image"]) for item in run.memory.items()}
    assert {path.parent for path in kept} == {tmp_path / "new" / "exemplars"}
    assert set((tmp_path / "new" / "exemplars").iterdir()) == kept


def test_a_run_that_is_not_finished_is_no_previous_one(finished: SimpleNamespace, build: Build, tmp_path: Path) -> None:
    stop(build(finished.tasks, tmp_path / "old"), ContinualEvents.TASK_STARTED, lambda e: e.state.task == 2)
    run = build(finished.tasks, tmp_path / "new", previous=str(tmp_path / "old"))
    with pytest.raises(UserError, match=f"the run in {tmp_path}/old is not finished: finish it first"):
        run.trainer.run()


@pytest.fixture(scope="module")
def stopped(finished: SimpleNamespace, tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run stopped in its second task, not to be changed."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run = tiny.run(finished.tasks, folder, first=[lambda save: CheckpointHandler(str(folder), save, config=SETTINGS)])
    stop(run, Events.EPOCH_COMPLETED, lambda e: e.state.task == 2)
    return folder


@pytest.fixture
def halfway(stopped: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it where `build` goes on, which must be left as it was."""
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    before = {path: path.read_bytes() for path in folder.rglob("*.pt")}
    assert {folder / "checkpoint.pt", folder / "epoch.pt", folder / "model.pt"} <= before.keys()
    yield folder
    assert {path: path.read_bytes() for path in folder.rglob("*.pt")} == before


def test_changed_settings_are_refused_by_name(halfway: Path, finished: SimpleNamespace, build: Build) -> None:
    run = build(finished.tasks, config={**SETTINGS, "memory_size": 16, "mean": [0.5, 0.0, 0.0]})
    message = (
        r"other settings \(memory_size was 8, is 16; mean was \[0.0, 0.0, 0.0\], is \[0.5, 0.0, 0.0\]\): give the old"
    )
    with pytest.raises(UserError, match=message):
        run.trainer.run()


def renamed(task: Task) -> Task:
    return Task(task.name, ("other", *task.classes[1:]), task.first, task.train, task.test)


@pytest.mark.parametrize("number", [1, 2], ids=["learnt", "begun"])
def test_a_changed_task_is_refused_by_name(number: int, halfway: Path, finished: SimpleNamespace, build: Build) -> None:
    tasks = [renamed(task) if task.name == f"set{number - 1}" else task for task in finished.tasks]
    with pytest.raises(
        UserError, match=rf"other settings \(task {number} was set{number - 1} \(class.*is .*\(other, cl"
    ):
        build(tasks).trainer.run()


def test_changed_images_of_a_task_already_learnt_are_refused_with_all_else_that_changed(
    halfway: Path, finished: SimpleNamespace, build: Build, tmp_path: Path
) -> None:
    first, second = finished.tasks
    image = Path(shutil.copy(first.train[0]["image"], tmp_path / "other.png"))
    same = replace(first, train=({**first.train[0], "image": str(image)}, *first.train[1:]))
    build([same, second], config={**SETTINGS})  # a copy elsewhere is the same image
    Image.new("RGB", (33, 33)).save(image)
    run = build([same, second], config={**SETTINGS, "memory_size": 16})
    with pytest.raises(UserError, match=r"\(memory_size was 8, is 16; the images of task 1, set0, have changed\)"):
        run.trainer.run()


def test_a_run_of_before_runs_wrote_their_config_is_refused_in_one_line(
    halfway: Path, finished: SimpleNamespace, build: Build
) -> None:
    (halfway / "config.json").unlink()
    with pytest.raises(UserError, match="has no config.json: it is no run, or one of before") as caught:
        build(finished.tasks).trainer.run()
    assert "\n" not in str(caught.value)


def test_a_state_of_another_version_is_named() -> None:
    class Thing:
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            state["other"]

    with pytest.raises(UserError, match="in run was saved by another version: its 'thing' has no 'other'; begin"):
        load_states({"thing": Thing()}, {"states": {"thing": {}}}, Path("run"))


def test_a_task_that_is_gone_is_refused(halfway: Path, finished: SimpleNamespace, build: Build) -> None:
    with pytest.raises(UserError, match=r"task 2 was set1 .*, is \(gone\)"):
        build(finished.tasks[:1]).trainer.run()


def test_epochs_may_change_for_a_later_task_but_not_what_it_builds_on(
    finished: SimpleNamespace, build: Build, tmp_path: Path
) -> None:
    build(finished.tasks[:1], tmp_path / "old").trainer.run()
    arguments = {"previous": str(tmp_path / "old")}
    bad = build(finished.tasks, tmp_path / "bad", config={**SETTINGS, "seed": 1}, **arguments)
    with pytest.raises(UserError, match="seed was 0, is 1"):
        bad.trainer.run()
    good = build(finished.tasks, tmp_path / "good", config={**SETTINGS, "adapter_epochs": 5}, **arguments)
    stop(good, ContinualEvents.TASK_STARTED)
    assert good.trainer.state.task == 2


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "code"])
def test_a_broken_checkpoint_is_named(damage: str, finished: SimpleNamespace, build: Build, tmp_path: Path) -> None:
    stop(build(finished.tasks[:1]), Events.EPOCH_COMPLETED)
    path = tmp_path / "run" / "checkpoint.pt"
    content = path.read_bytes()
    if damage == "code":
        torch.save({"states": Malicious(tmp_path / "ran")}, path)
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "garbage": b"\x80\x02none"}[damage])
    with pytest.raises(
        UserError, match=f"cannot read {path} .*restore it, or begin anew with --restart true"
    ) as caught:
        build(finished.tasks[:1]).trainer.run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_broken_epoch_file_is_named(finished: SimpleNamespace, build: Build, tmp_path: Path) -> None:
    stop(build(finished.tasks[:1]), Events.EPOCH_COMPLETED)
    (tmp_path / "run" / "epoch.pt").write_bytes(b"broken")
    with pytest.raises(UserError, match=f"cannot read {tmp_path}/run/epoch.pt"):
        build(finished.tasks[:1]).trainer.run()


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from leaves(value, path)
    else:
        yield path, content


def test_checkpoints_hold_the_networks_tensors_numbers_and_text_alone(halfway: Path) -> None:
    checkpoint, epoch = (torch.load(halfway / name, weights_only=True) for name in ("checkpoint.pt", "epoch.pt"))
    networks = [
        list(state.values()) for state in (checkpoint["states"]["network"]["weights"], epoch["states"]["network"])
    ]
    shapes = {tuple(value.shape) for tensors in networks for value in tensors}
    own = "/states/network/"
    for content, allowed in ((checkpoint, own), (epoch, (own, "/optimizer/state/"))):
        for path, leaf in leaves(content):
            if isinstance(leaf, Tensor):
                assert path.startswith(allowed)
                assert leaf.dim() <= 1 or tuple(leaf.shape) in shapes
            else:
                assert leaf is None or isinstance(leaf, (int, float, str)), path
                assert not isinstance(leaf, str) or len(leaf) < 300
    tensors = sum(leaf.numel() * leaf.element_size() for _, leaf in leaves(checkpoint) if isinstance(leaf, Tensor))
    assert tensors == sum(value.numel() * value.element_size() for value in networks[0])
    assert (halfway / "epoch.pt").stat().st_size < (halfway / "checkpoint.pt").stat().st_size / 4, (
        "what has changed alone"
    )


def test_a_finished_run_takes_no_step_and_restart_moves_it_aside(
    finished: SimpleNamespace, build: Build, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    build(finished.tasks[:1]).trainer.run()
    before = weights_of(tmp_path / "run")
    again = build(finished.tasks[:1])
    events = tiny.record_events(again.trainer)
    again.trainer.run()
    assert events == ["run_started", "run_completed"]
    anew = build(finished.tasks[:1], restart=True)
    stop(anew, Events.EPOCH_COMPLETED)
    assert anew.trainer.state.epoch == 1
    assert not tiny.changed_keys(before, weights_of(tmp_path / "run.1"))
    assert not (tmp_path / "run" / "model.pt").exists()
