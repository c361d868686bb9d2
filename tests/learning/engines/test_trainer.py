"""The engine: exact numbers of steps, the order of events, seeds that depend on nothing that ran before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from torch import Tensor

from scripts.learning.engines import ContinualEvents, ContinualTrainer
from scripts.learning.memory import ExemplarMemory
from scripts.learning.tasks import Task
from scripts.utils.errors import UserError


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> list[Task]:
    """Two tasks of two classes, six images each."""
    return tiny.tasks(tmp_path_factory.mktemp("trainer"))


def small_task(tasks: list[Task], images: int) -> Task:
    """The first task with ``images`` training images."""
    return Task("small", tasks[0].classes, 0, tasks[0].train[:images], tasks[0].test)


def test_each_stage_takes_epochs_times_batches_steps(tasks: list[Task], tiny: SimpleNamespace) -> None:
    """Stages of other lengths follow each other, the shorter after the longer and the other way round."""
    stages = [
        tiny.stage("training", epochs=3),
        tiny.stage("balanced_finetuning", epochs=2, data="all"),
        tiny.stage("adapter_tuning", epochs=5),
    ]
    trainer = tiny.trainer(tiny.network(), tasks, stages)
    steps: Counter[tuple[int, str]] = Counter()
    ends: list[tuple[int, int]] = []

    def count(engine: ContinualTrainer) -> None:
        steps[engine.state.task, engine.current_stage.name] += 1

    def prepared(engine: ContinualTrainer) -> None:
        engine.optimizer.register_step_post_hook(lambda *_: count(engine))

    trainer.add_event_handler(ContinualEvents.STAGE_PREPARED, prepared)
    trainer.add_event_handler(
        ContinualEvents.STAGE_COMPLETED, lambda e: ends.append((e.state.epoch, e.state.iteration))
    )
    trainer.run()
    assert steps == {
        (1, "training"): 3 * 3,
        (1, "balanced_finetuning"): 2 * 3,
        (1, "adapter_tuning"): 5 * 3,
        (2, "training"): 3 * 3,
        (2, "balanced_finetuning"): 2 * 6,
        (2, "adapter_tuning"): 5 * 3,
    }
    assert ends == [(3, 9), (2, 6), (5, 15), (3, 9), (2, 12), (5, 15)]


def test_a_finished_run_called_again_learns_the_last_task_further(tasks: list[Task], tiny: SimpleNamespace) -> None:
    trainer = tiny.trainer(tiny.network(), tasks[:1], [tiny.stage()])
    trainer.run()
    before, events = tiny.copy_of(trainer.continual_network.state_dict()), tiny.record_events(trainer)
    trainer.run()
    assert events[:3] == ["run_started", "round_started", "training_started"], "no task is begun anew"
    assert events[-1] == "run_completed"
    assert trainer.tasks_completed == 1
    assert {key.split(".")[0] for key in tiny.changed_keys(before, trainer.continual_network.state_dict())} == {"head"}


def stage_events(name: str, *extra: str) -> list[str]:
    before = [f"{name}_started", f"{name}_prepared", "stage_prepared"]
    return [*before, *extra, f"{name}_completed", f"{name}_settled", "stage_completed", "progressed"]


def test_events_come_in_order(finished: SimpleNamespace) -> None:
    tuning = stage_events("adapter_tuning")
    # fired by a handler of this event, which came before the listener
    tuning.insert(tuning.index("adapter_tuning_settled"), "adapters_averaged")
    first, later = ["backbone_training"], ["balanced_finetuning"]
    end = ["memory_updated", "task_completed", "task_settled", "task_evaluated", "progressed"]
    assert Counter(finished.events)["epoch_learnt"] == 1 + 2 + 2 + 3
    assert [event for event in finished.events if event != "epoch_learnt"] == [
        "run_started",
        *["task_started", *stage_events(*first), *tuning, "progressed", *end],
        *["task_started", "progressed", *tuning, *stage_events(*later), *end],
        "run_completed",
    ]


def test_task_events_are_counted(tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace) -> None:
    more = [*tasks, *(Task(name, (name,), 4 + n, tasks[n].train[:4], ()) for n, name in enumerate("xy"))]
    more[2:] = [
        Task(t.name, t.classes, t.first, tuple({**item, "label": t.first} for item in t.train), ()) for t in more[2:]
    ]
    trainer = tiny.trainer(tiny.network(), more, [tiny.stage(), tiny.stage("adapter_tuning")])
    seen: dict[str, list[Any]] = {"task": [], "once": [], "stage": []}
    trainer.add_event_handler(
        ContinualEvents.TASK_COMPLETED(every=2), lambda e: seen["task"].append(e.current_task.name)
    )
    trainer.add_event_handler(ContinualEvents.TASK_STARTED(once=3), lambda e: seen["once"].append(e.current_task.name))
    trainer.add_event_handler(
        ContinualEvents.STAGE_COMPLETED(every=2), lambda e: seen["stage"].append(e.current_stage.name)
    )
    trainer.run()
    assert seen == {"task": ["set1", "y"], "once": ["x"], "stage": ["adapter_tuning"] * 4}


@pytest.mark.parametrize(("images", "expected"), [(4, [4]), (5, [4]), (6, [2, 4]), (9, [4, 4]), (12, [4, 4, 4])])
def test_a_last_batch_of_one_is_dropped(
    images: int, expected: list[int], tasks: list[Task], tiny: SimpleNamespace
) -> None:
    trainer = tiny.trainer(tiny.network(), [small_task(tasks, images)], [tiny.stage()])
    sizes: list[int] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: sizes.append(len(e.state.batch["label"])))
    trainer.run()
    assert sorted(sizes) == expected


def test_a_single_image_is_refused(tasks: list[Task], tiny: SimpleNamespace) -> None:
    trainer = tiny.trainer(tiny.network(), [small_task(tasks, 1)], [tiny.stage()])
    with pytest.raises(UserError, match="stage training of task small has a single image: add images"):
        trainer.run()


def test_balanced_fine_tuning_needs_a_memory(tasks: list[Task], tiny: SimpleNamespace) -> None:
    stages = [tiny.stage(), tiny.stage("balanced_finetuning", data="balanced", tasks="later")]
    with pytest.raises(UserError, match="stage balanced_finetuning needs a memory, but memory_size is 0: .* least 4"):
        tiny.trainer(tiny.network(), tasks, stages)
    tiny.trainer(tiny.network(), tasks[:1], stages)  # a single task has no such stage
    tiny.trainer(tiny.network(), tasks, stages[:1])


def test_a_stage_is_given_the_exemplars_it_needs_or_refused(tasks: list[Task], tiny: SimpleNamespace) -> None:
    stages = [tiny.stage(data="task_and_memory", exemplars=2)]
    with pytest.raises(UserError, match="stage training needs a memory, but memory_size is 0: use at least 8"):
        tiny.trainer(tiny.network(), tasks, stages)
    for memory in (ExemplarMemory(7), ExemplarMemory(0, per_class=1)):
        with pytest.raises(UserError, match="training needs 2 exemplars of each of 4 classes, but .* keeps 1: .* 8"):
            tiny.trainer(tiny.network(), tasks, stages, memory=memory)
    tiny.trainer(tiny.network(), tasks, stages, memory=ExemplarMemory(8))
    tiny.trainer(tiny.network(), tasks[:1], stages)  # the first task needs none


def test_a_memory_smaller_than_the_number_of_classes_is_refused(tasks: list[Task], tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="memory_size 3 is less than one image for each of 4 classes"):
        tiny.trainer(tiny.network(), tasks, [tiny.stage()], memory=ExemplarMemory(3))


Batches = dict[tuple[int, int, int], list[tuple[list[int], Tensor]]]


def batches_of(trainer: ContinualTrainer) -> Batches:
    """What a trainer's stages will see, by task, stage and epoch: positions and augmented images."""
    seen: Batches = {}

    def keep(engine: ContinualTrainer) -> None:
        key = (engine.state.task, engine.state.stage, engine.state.epoch)
        batch: Any = engine.state.batch
        seen.setdefault(key, []).append((batch["index"].tolist(), batch["image"].clone()))

    trainer.add_event_handler(Events.ITERATION_STARTED, keep)
    return seen


def same(first: list[tuple[list[int], Tensor]], second: list[tuple[list[int], Tensor]]) -> bool:
    """Whether two epochs have the same images in the same order, flipped alike."""
    return len(first) == len(second) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True)
    )


def two_stages(tiny: SimpleNamespace) -> list[Any]:
    return [tiny.stage("training", epochs=2), tiny.stage("adapter_tuning", epochs=2)]


@pytest.fixture(scope="module")
def reference(tasks: list[Task], tiny: SimpleNamespace) -> Batches:
    trainer = tiny.trainer(tiny.network(), tasks, two_stages(tiny), seed=5)
    seen = batches_of(trainer)
    trainer.run()
    return seen


def test_every_epoch_is_shuffled_and_flipped_anew(reference: Batches) -> None:
    epochs = list(reference.values())
    assert len(epochs) == 8
    orders = {tuple(index for batch in epoch for index in batch[0]) for epoch in epochs}
    assert len(orders) == 8
    assert all(sorted(order) == list(range(12)) for order in orders)
    first, again = (
        {index: image for indices, images in epoch for index, image in zip(indices, images, strict=True)}
        for epoch in epochs[:2]
    )
    flipped = [torch.equal(first[index], again[index].flip(2)) for index in range(12)]
    assert all(flipped[index] or torch.equal(first[index], again[index]) for index in range(12))
    assert 0 < sum(flipped) < 12


def test_an_epoch_is_the_same_whatever_ran_before(reference: Batches, tasks: list[Task], tiny: SimpleNamespace) -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    trainer = tiny.trainer(tiny.network(seed=3), tasks, two_stages(tiny), seed=5)
    trainer.add_event_handler(ContinualEvents.STAGE_PREPARED, lambda: (torch.rand(7), np.random.rand(3)))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: torch.rand(5))
    seen = batches_of(trainer)
    trainer.run()
    assert seen.keys() == reference.keys()
    assert all(same(seen[key], reference[key]) for key in reference)


def test_an_epoch_is_the_same_when_the_run_starts_there(
    reference: Batches, tasks: list[Task], tiny: SimpleNamespace
) -> None:
    network = tiny.network()
    network.grow(2)
    network.grow(2)
    trainer = tiny.trainer(network, tasks, two_stages(tiny), seed=5)
    trainer.tasks_completed, trainer.stages_completed = 1, 1

    def skip_an_epoch(engine: ContinualTrainer) -> None:
        engine.state.epoch, engine.state.iteration = 1, 3

    trainer.add_event_handler(ContinualEvents.STAGE_PREPARED, skip_an_epoch)
    seen = batches_of(trainer)
    trainer.run()
    assert list(seen) == [(2, 2, 2)]
    assert same(seen[2, 2, 2], reference[2, 2, 2])


def test_another_seed_is_another_order(reference: Batches, tasks: list[Task], tiny: SimpleNamespace) -> None:
    trainer = tiny.trainer(tiny.network(), tasks[:1], two_stages(tiny)[:1], seed=6)
    seen = batches_of(trainer)
    trainer.run()
    assert not any(same(seen[key], reference[key]) for key in seen)


def test_what_a_new_task_starts_from_depends_on_its_seed_alone(tasks: list[Task], tiny: SimpleNamespace) -> None:
    def started_head(noise: int) -> Tensor:
        network = tiny.network()
        trainer = tiny.trainer(network, tasks[:1], [tiny.stage()], seed=5)
        trainer.add_event_handler(ContinualEvents.RUN_STARTED, lambda: torch.manual_seed(noise))
        rows: list[Tensor] = []
        trainer.add_event_handler(
            ContinualEvents.TASK_STARTED, lambda: rows.append(network.head.linear.weight.detach().clone())
        )
        trainer.run()
        return rows[0]

    assert torch.equal(started_head(1), started_head(2))


def test_optimizer_and_schedule_are_made_anew_for_each_stage(tasks: list[Task], tiny: SimpleNamespace) -> None:
    schedules: list[int] = []

    def schedule(optimizer: torch.optim.Optimizer, epochs: int) -> torch.optim.lr_scheduler.LRScheduler:
        schedules.append(epochs)
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    stages = [tiny.stage(epochs=3, scheduler=schedule), tiny.stage("adapter_tuning", epochs=2)]
    trainer = tiny.trainer(tiny.network(), tasks, stages)
    rates: list[float] = []
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: rates.append(e.optimizer.param_groups[0]["lr"] / 0.05))
    trainer.run()
    assert rates == pytest.approx([1, 0.5, 0.25, 1, 1] * 2)
    assert schedules == [3, 3]


def test_a_stage_of_the_last_task_alone_trains_nothing_before(tasks: list[Task], tiny: SimpleNamespace) -> None:
    trainer = tiny.trainer(tiny.network(), tasks, [tiny.stage(data="all", tasks="last")])
    learns: list[bool] = []
    images: list[int] = []
    trainer.add_event_handler(ContinualEvents.TASK_COMPLETED, lambda e: learns.append(e.learns_current_task))
    trainer.add_event_handler(ContinualEvents.STAGE_PREPARED, lambda e: images.append(len(e.dataset)))
    trainer.run()
    assert learns == [False, True]
    assert images == [24]
