"""Dark experience replay, step by step: what is shown, what it is compared with, and what is kept of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from scripts.learning.engines import ContinualTrainer
from scripts.learning.handlers import CheckpointHandler, DarkExperienceHandler
from scripts.learning.losses import derpp_loss
from scripts.learning.memory import ReservoirMemory
from scripts.learning.tasks import ImageDataset, Task
from scripts.model.networks import NetworkState


def build(tasks: list[Task], folder: Path, tiny: SimpleNamespace, exemplars: str = "paths") -> ContinualTrainer:
    network = tiny.network(adapter=None)
    memory = ReservoirMemory(5, exemplars=exemplars, folder=str(folder / "exemplars"))
    loss = partial(derpp_loss, alpha=0.1, beta=0.5)
    stages = [tiny.stage(epochs=2, trains=["backbone", "head"], loss=loss)]
    trainer: ContinualTrainer = tiny.trainer(network, tasks, stages, memory=memory)
    shown = ImageDataset([], trainer.dataset.transform)  # type: ignore[arg-type]
    save = {"network": NetworkState(network), "memory": memory}
    CheckpointHandler(str(folder), save, config={}).attach(trainer)
    DarkExperienceHandler(memory, shown, batch_size=3, draws=2).attach(trainer)
    return trainer


def watch(trainer: ContinualTrainer) -> list[SimpleNamespace]:
    """Return a list that fills, each step, with the batch, the outputs, and the memory before it was offered any."""
    steps: list[SimpleNamespace] = []

    def look(engine: ContinualTrainer) -> None:
        output: Any = engine.state.output
        items, seen = engine.memory.items(), engine.memory.seen  # type: ignore[attr-defined]
        index = engine.state.batch["index"]  # type: ignore[index, call-overload]
        current = [engine.dataset.data[position] for position in index.tolist()]
        steps.append(SimpleNamespace(**output, items=items, seen=seen, current=current, classes=output["pred"].classes))

    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, look)
    return steps


@pytest.fixture
def tasks(tmp_path: Path, tiny: SimpleNamespace) -> list[Task]:
    """Tasks of one and of two classes."""
    found: list[Task] = tiny.tasks(tmp_path / "data", (1, 2))
    return found


def weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "checkpoint.pt", weights_only=True)["states"]["network"]["weights"]
    return state


def test_each_step_shows_two_draws_and_compares_what_was_said_when_they_were_kept(
    tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    trainer = build(tasks, tmp_path / "run", tiny)
    steps = watch(trainer)
    trainer.run()
    said: dict[tuple[float, ...], int] = {}  # what was ever said of a current image, and its label
    for number, step in enumerate(steps):
        current = len(step.current)
        drawn = min(3, number and 5 if number < 2 else 5)  # nothing is kept before the first step
        assert len(step.image) == len(step.label) == len(step.pred.logits) == current + 2 * drawn
        assert step.label[:current].tolist() == [item["label"] for item in step.current]
        assert [len(draw) for draw in step.pred.stored] == ([drawn, drawn] if drawn else [])
        for row, label in zip(torch.cat([*step.pred.stored]) if drawn else [], step.label[current:], strict=True):
            assert said[tuple(row[~row.isnan()].tolist())] == label
        for row, item in zip(step.pred.logits[:current].tolist(), step.current, strict=True):
            said[tuple(row)] = item["label"]
    assert {len(item["logits"]) for step in steps for item in step.items} == {1, 3}, "kept in both tasks"
    assert trainer.memory.seen == 2 * (6 + 12), "every image in every epoch"  # type: ignore[attr-defined]


def test_drawn_images_are_augmented_anew(tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace) -> None:
    trainer = build(tasks[:1], tmp_path / "run", tiny)
    steps = watch(trainer)
    trainer.run()
    plain = tiny.transform()
    looks: dict[str, set[bool]] = {}
    for step in steps[1:]:
        images = {item["image"]: plain({"image": item["image"]})["image"] for item in step.items}
        for shown in step.image[len(step.current) :]:
            (found,) = [
                (path, torch.equal(shown, image))
                for path, image in images.items()
                if torch.equal(shown, image) or torch.equal(shown, image.flip(-1))
            ]
            looks.setdefault(found[0], set()).add(found[1])
    assert {True, False} in looks.values(), "the same image as it is and flipped"


def stop(trainer: ContinualTrainer, task: int, epoch: int, iteration: int, event: Any) -> None:
    """Run until ``event`` happens there, and be stopped."""

    def interrupt(engine: ContinualTrainer) -> None:
        if (engine.state.task, engine.state.epoch, engine.state.iteration) == (task, epoch, iteration):
            raise KeyboardInterrupt

    trainer.add_event_handler(event, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


@pytest.mark.parametrize("exemplars", ["paths", "copies"])
def test_stopped_on_the_way_it_ends_as_uninterrupted(
    exemplars: str, tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    whole = build(tasks, tmp_path / "whole", tiny, exemplars)
    whole.run()
    stop(build(tasks, tmp_path / "stopped", tiny, exemplars), 1, 1, 2, Events.EPOCH_COMPLETED)
    stop(build(tasks, tmp_path / "stopped", tiny, exemplars), 2, 2, 4, Events.ITERATION_COMPLETED)
    resumed = build(tasks, tmp_path / "stopped", tiny, exemplars)
    resumed.run()
    assert resumed.tasks_completed == 2
    assert not tiny.changed_keys(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    first, second = resumed.memory.items(), whole.memory.items()
    assert [Path(item["image"]).name for item in first] == [Path(item["image"]).name for item in second]
    assert all(torch.equal(a["logits"], b["logits"]) for a, b in zip(first, second, strict=True))
    if exemplars == "copies":
        folder = tmp_path / "stopped" / "exemplars"
        assert {Path(item["image"]) for item in first} == set(folder.iterdir())
