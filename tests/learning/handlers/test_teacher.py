"""The teacher is the network as the task before left it, bit by bit, also after a resume within the task."""

from __future__ import annotations

from collections.abc import Mapping
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
from scripts.learning.handlers import CheckpointHandler, TeacherHandler
from scripts.learning.losses import icarl_loss
from scripts.learning.tasks import Task
from scripts.model.networks import NetworkState, Outputs
from scripts.utils.errors import UserError


def build(
    tasks: list[Task], folder: Path, tiny: SimpleNamespace, head: str = "unified", previous: str | None = None
) -> ContinualTrainer:
    network = tiny.network(head, adapter=None)
    loss = partial(icarl_loss, temperature=2.0)
    stages = [tiny.stage(epochs=2, trains=["backbone", "head"], loss=loss), tiny.stage("balanced_finetuning")]
    save = {"network": NetworkState(network)}
    handlers = [CheckpointHandler(str(folder), save, previous, config={}), TeacherHandler(network)]
    trainer: ContinualTrainer = tiny.trainer(network, tasks, stages, handlers)
    return trainer


def watch(trainer: ContinualTrainer) -> list[tuple[int, int, str, Tensor, Outputs | None]]:
    """Return a list that fills, each step, with task, epoch, stage, images and what the teacher said."""
    seen: list[tuple[int, int, str, Tensor, Outputs | None]] = []

    def look(engine: ContinualTrainer) -> None:
        output: Any = engine.state.output
        where = engine.state.task, engine.state.epoch, engine.current_stage.name
        seen.append((*where, output["image"], output["pred"].teacher))

    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, look)
    return seen


def stop(trainer: ContinualTrainer, task: int) -> None:
    def interrupt(engine: ContinualTrainer) -> None:
        if engine.state.task == task:
            raise KeyboardInterrupt

    trainer.add_event_handler(Events.EPOCH_COMPLETED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def weights(folder: Path) -> Mapping[str, Tensor]:
    state: Mapping[str, Tensor] = torch.load(folder / "checkpoint.pt", weights_only=True)["states"]["network"][
        "weights"
    ]
    return state


@pytest.mark.parametrize("head", ["unified", "nearest_mean"])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 1)])
def test_the_teacher_is_the_network_before_the_task(
    head: str, sizes: tuple[int, int], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks = tiny.tasks(tmp_path / "data", sizes)
    first = build(tasks[:1], tmp_path / "first", tiny, head)
    first.run()
    before = tiny.network(head, adapter=None, sizes=sizes[:1])
    before.load_state_dict(weights(tmp_path / "first"))
    before.eval()
    whole, halfway, resumed, later = (
        build(tasks, tmp_path / "whole", tiny, head),
        build(tasks, tmp_path / "stopped", tiny, head),
        build(tasks, tmp_path / "stopped", tiny, head),
        build(tasks, tmp_path / "later", tiny, head, previous=str(tmp_path / "first")),
    )
    seen = watch(whole), watch(resumed), watch(later)
    whole.run()
    stop(halfway, task=2)
    resumed.run()
    later.run()
    assert [step[:3] for step in seen[1]] == [
        step[:3] for step in seen[0] if step[:3] == (2, 2, "training") or step[0] == 2 and step[2] != "training"
    ]
    for steps in seen:
        for task, _, stage, images, teacher in steps:
            assert (teacher is not None) == (task == 2 and stage == "training")
            if teacher is not None:
                with torch.no_grad():
                    expected = before(images)
                    logits = before.linear_layer()(expected.features.flatten(1))
                assert torch.equal(teacher.features, expected.features)
                # a product with more rows may round otherwise
                assert torch.allclose(teacher.logits, logits, rtol=1e-6, atol=1e-6)
                assert teacher.classes == sizes[:1]
    for run in ("stopped", "later"):
        assert not tiny.changed_keys(weights(tmp_path / run), weights(tmp_path / "whole"))


def test_the_teacher_does_not_learn(tmp_path: Path, tiny: SimpleNamespace) -> None:
    trainer = build(tiny.tasks(tmp_path / "data"), tmp_path / "run", tiny)
    handler = TeacherHandler(trainer.continual_network)
    states: list[dict[str, Tensor]] = []

    def keep(engine: ContinualTrainer) -> None:
        if engine.state.task == 2 and engine.current_stage.name == "training":
            assert handler.teacher is not None
            assert not any(parameter.requires_grad for parameter in handler.teacher.parameters())
            states.append(tiny.copy_of(handler.teacher.state_dict()))

    trainer.add_event_handler(Events.STARTED, keep)
    trainer.add_event_handler(Events.COMPLETED, keep)
    handler.attach(trainer)
    trainer.run()
    assert len(states) == 2
    assert not tiny.changed_keys(*states)
    assert handler.teacher is None


def test_a_head_a_task_is_refused_before_training(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="this method needs one head over all classes, not 'others'"):
        TeacherHandler(tiny.network("others"))
