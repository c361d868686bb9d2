"""A training that diverges ends with a clear line, not with a model of NaN."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events

from scripts.model.networks import Outputs
from scripts.utils.errors import UserError


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_before_its_epoch_is_saved(
    bad: float, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    def diverging(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        return outputs.logits.sum() * bad

    trainer: Any = tiny.trainer(tiny.network(), tiny.tasks(tmp_path), [tiny.stage(loss=diverging)])
    saved: list[int] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: saved.append(engine.state.epoch))
    with pytest.raises(UserError, match="the loss is (nan|inf|-inf) in training of task .*, epoch 1"):
        trainer.run()
    assert not saved


def test_a_finite_loss_is_left_alone(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tiny.trainer(tiny.network(), tiny.tasks(tmp_path), [tiny.stage()]).run()


def test_in_a_long_epoch_the_first_bad_loss_is_named_without_waiting_for_the_end(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []

    def diverging(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        taken.append({3: float("inf"), 4: float("nan")}.get(len(taken) + 1, 1.0))
        return outputs.logits.sum() * 0 + taken[-1]

    monkeypatch.setattr("scripts.learning.engines.finite_loss.EVERY", 5)
    trainer: Any = tiny.trainer(tiny.network(), tiny.tasks(tmp_path), [tiny.stage(loss=diverging)], batch_size=1)
    with pytest.raises(UserError, match="the loss is inf in training of task set0, epoch 1"):
        trainer.run()
    assert len(taken) == 5 < trainer.state.epoch_length
