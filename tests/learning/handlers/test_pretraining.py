"""Pretraining without labels: what is shown and followed, resumption to the bit, and the file that is left."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor

from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.transforms import RandomViews
from scripts.learning.engines import ContinualTrainer, Pretraining
from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import CheckpointHandler, MomentumContrastHandler, PretrainingHandler
from scripts.learning.losses import moco_loss, simsiam_loss
from scripts.learning.tasks import Task
from scripts.metrics import RunRecord
from scripts.model.networks import NetworkState, PredictedProjection, Projection
from scripts.utils.errors import UserError

METHODS = ("simsiam", "moco")


def build(method: str, tasks: list[Task], folder: Path, tiny: SimpleNamespace, epochs: int = 2) -> ContinualTrainer:
    network, record = tiny.network(adapter=None), RunRecord()
    loss = partial(moco_loss, temperature=0.07) if method == "moco" else simsiam_loss
    stage = Pretraining(epochs=epochs, loss=loss, optimizer=partial(torch.optim.SGD, lr=0.02, momentum=0.9))
    trainer: ContinualTrainer = tiny.trainer(network, tasks, [stage])
    own: dict[str, Any] = {
        "network": network,
        "features": FeatureExtractor(network, tiny.transform(), 5),
        "record": record,
        "views": RandomViews(ImageSpec(33, [0.5] * 3, [0.2] * 3)),
        "images": 6,
        "output_dir": str(folder),
    }
    if method == "moco":
        handler: PretrainingHandler = MomentumContrastHandler(10, 0.9, projection=partial(Projection, outputs=8), **own)
    else:
        handler = PretrainingHandler(projection=partial(PredictedProjection, outputs=8, hidden=4), **own)
    trainer.train_handlers += [handler]
    CheckpointHandler(str(folder), {"network": NetworkState(network), "record": record}, config={}).attach(trainer)
    handler.attach(trainer)
    return trainer


@pytest.fixture
def tasks(tmp_path: Path, tiny: SimpleNamespace) -> list[Task]:
    """One task of two classes."""
    found: list[Task] = tiny.tasks(tmp_path / "data", (2,))
    return found


def weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "checkpoint.pt", weights_only=True)["states"]["network"]["weights"]
    return state


@pytest.mark.parametrize("method", METHODS)
def test_stopped_between_epochs_it_ends_as_uninterrupted(
    method: str, tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    build(method, tasks, tmp_path / "whole", tiny).run()
    stopped = build(method, tasks, tmp_path / "stopped", tiny)

    def interrupt(engine: ContinualTrainer) -> None:
        if (engine.state.epoch, engine.state.iteration) == (2, 4):
            raise KeyboardInterrupt

    stopped.add_event_handler(Events.ITERATION_COMPLETED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    build(method, tasks, tmp_path / "stopped", tiny).run()
    assert not tiny.changed_keys(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    for name in ("backbone.safetensors", "pretraining.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "whole" / "pretraining.csv").read_text().count("\n") == 3, "a row an epoch, below the names"


@pytest.mark.parametrize("method", METHODS)
def test_the_file_holds_what_was_learnt(method: str, tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace) -> None:
    before = tiny.network(adapter=None).backbone.state_dict()
    trainer = build(method, tasks, tmp_path, tiny, epochs=1)
    trainer.run()
    assert trainer.continual_network.auxiliary is None
    learnt = tiny.network(adapter=None, weights=str(tmp_path / "backbone.safetensors")).backbone.state_dict()
    assert not tiny.changed_keys(learnt, trainer.continual_network.backbone.state_dict())
    moved = tiny.changed_keys(learnt, before)
    assert {key for key in learnt if key.endswith(".weight")} <= moved


def test_the_copy_follows_and_the_queue_holds_the_newest_keys(
    tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    trainer = build("moco", tasks, tmp_path, tiny, epochs=1)
    (handler,) = (one for one in trainer.train_handlers if isinstance(one, MomentumContrastHandler))
    steps: list[SimpleNamespace] = []

    def look(engine: ContinualTrainer) -> None:
        assert handler.copy is not None
        copied, followed = handler.copy[0].state_dict(), engine.continual_network.backbone.state_dict()
        name = next(key for key in copied if key.endswith("running_mean"))
        extras = engine.state.output["pred"].extras  # type: ignore[index, union-attr]
        values = [state[name].clone() for state in (copied, followed)]
        steps.append(
            SimpleNamespace(copied=values[0], followed=values[1], keys=extras["keys"], queue=handler.queue + 0)
        )

    trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    trainer.run()
    for before, step in zip(steps, steps[1:], strict=False):
        torch.testing.assert_close(step.copied, 0.9 * before.copied + 0.1 * step.followed)
    newest = torch.cat([step.keys for step in steps])[-10:]
    assert {tuple(row.tolist()) for row in newest} == {tuple(row.tolist()) for row in steps[-1].queue}


def test_a_method_without_such_a_stage_is_refused(tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace) -> None:
    handler = build("simsiam", tasks, tmp_path, tiny).train_handlers[-1]
    with pytest.raises(UserError, match="dynammo pretrain"):
        handler.attach(tiny.trainer(tiny.network(adapter=None), tasks, [tiny.stage()]))
