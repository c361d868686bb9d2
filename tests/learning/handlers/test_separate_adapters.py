"""ACL's adapters are not merged: one pass a task, whose features feed that task's head."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ignite.engine import Engine

from scripts.learning.engines import ContinualEvents
from scripts.learning.handlers import SeparateAdaptersHandler
from scripts.model.networks import LowRank
from scripts.utils.errors import UserError


def test_the_adapters_of_all_tasks_stay_apart(tiny: SimpleNamespace) -> None:
    network = tiny.network("others", sizes=[2, 2])
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*ContinualEvents)
    SeparateAdaptersHandler(network).attach(engine)
    assert network.backbone.branches == ["task1"]
    engine.fire_event(ContinualEvents.ADAPTER_TUNING_SETTLED)
    assert network.backbone.branches == ["task0", "task1"]


def test_separate_adapters_need_a_head_a_task(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="separate adapters need a head a task: use head 'others', not 'unified'"):
        SeparateAdaptersHandler(tiny.network())


def test_adapters_that_fold_into_one_backbone_cannot_stay_apart(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="adapter 'lora' folds into the one backbone, so that adapters cannot stay"):
        SeparateAdaptersHandler(tiny.network("others", adapter=LowRank()))


def test_a_finished_acl_run_has_a_branch_a_task(finished_acl: SimpleNamespace) -> None:
    assert finished_acl.network.backbone.branches == ["task0", "task1"]
    assert finished_acl.network.structure()["adapters"] == ["task0", "task1"]
