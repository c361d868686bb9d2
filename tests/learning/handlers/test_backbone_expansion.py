"""A later task has a backbone of its own, old ones never change, and balanced fine-tuning starts from a fresh head."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.learning.engines import ContinualEvents, ContinualTrainer
from scripts.learning.handlers import BackboneExpansionHandler
from scripts.learning.losses import expandable_der_loss
from scripts.learning.memory import ExemplarMemory
from scripts.model.networks import WholeBackbones

SIZES = (2, 1, 2)
TRAINS = ["backbone", "auxiliary", "head"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> list[dict[str, Any]]:
    """What there was once each stage of three tasks was prepared, and after it."""
    torch.manual_seed(0)  # of thousands of weights drawn anew, some seeds draw one that is as before
    network, memory = tiny.network("concatenated", adapter=WholeBackbones()), ExemplarMemory(10)
    stages = [
        tiny.stage(data="task_and_memory", trains=TRAINS, loss=expandable_der_loss),
        tiny.stage("balanced_finetuning", data="task_and_memory", tasks="later"),
    ]
    tasks = tiny.tasks(tmp_path_factory.mktemp("expansion"), SIZES)
    trainer = tiny.trainer(network, tasks, stages, [BackboneExpansionHandler(network)], memory)
    found: list[dict[str, Any]] = []

    def prepared(engine: ContinualTrainer) -> None:
        auxiliary = None if network.auxiliary is None else network.auxiliary.out_features
        found.append({"auxiliary": auxiliary, "before": tiny.copy_of(network.state_dict())})

    def completed(engine: ContinualTrainer) -> None:
        found[-1] |= {"task": engine.state.task, "stage": engine.current_stage.name, "left": network.auxiliary}
        found[-1]["after"] = tiny.copy_of(network.state_dict())

    trainer.add_event_handler(ContinualEvents.STAGE_PREPARED, prepared)
    trainer.add_event_handler(ContinualEvents.STAGE_COMPLETED, completed)
    trainer.run()
    return found


def test_each_later_task_has_a_backbone_and_an_auxiliary_head_while_it_trains(seen: list[dict[str, Any]]) -> None:
    assert [(entry["task"], entry["stage"], entry["auxiliary"]) for entry in seen] == [
        (1, "training", None),
        (2, "training", 2),
        (2, "balanced_finetuning", None),
        (3, "training", 3),
        (3, "balanced_finetuning", None),
    ]
    assert all(entry["left"] is None for entry in seen)
    backbones = [len({key.split(".")[2] for key in entry["after"] if ".backbones." in key}) for entry in seen]
    assert backbones == [1, 2, 2, 3, 3]


def test_an_old_backbone_is_bit_equal_from_its_own_task_to_the_end(
    seen: list[dict[str, Any]], tiny: SimpleNamespace
) -> None:
    def own(state: dict[str, Tensor], branch: str) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if f".{branch}." in key}

    last = seen[-1]["after"]
    for entry, branch in ((seen[0], "backbones.backbone"), (seen[1], "task1"), (seen[3], "task2")):
        changed = tiny.changed_keys(own(entry["before"], branch), own(entry["after"], branch))
        assert {key for key in own(last, branch) if key.endswith("running_mean")} <= changed
        assert not tiny.changed_keys(own(entry["after"], branch), own(last, branch))


def test_balanced_fine_tuning_starts_from_a_fresh_head_and_trains_nothing_else(
    seen: list[dict[str, Any]], tiny: SimpleNamespace
) -> None:
    head = {"head.linear.weight", "head.linear.bias"}
    for trained, tuned in ((seen[1], seen[2]), (seen[3], seen[4])):
        assert tiny.changed_keys(trained["after"], tuned["before"]) == head
        assert not torch.isclose(trained["after"]["head.linear.weight"], tuned["before"]["head.linear.weight"]).any()
        assert tiny.changed_keys(tuned["before"], tuned["after"]) == head
