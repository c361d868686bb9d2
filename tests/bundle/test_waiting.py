"""A step of the main job asks the device for no value: on a GPU the host would wait for it, and the GPU for the host.

What the host asks for is seen on the CPU too, by the calls and operators that hand a value over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import set_track_meta
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.learning.engines import ContinualTrainer

TRAIN = Path(__file__).resolve().parents[2] / "bundle" / "configs" / "train.json"
OPERATORS = {"_local_scalar_dense", "equal", "masked_select", "nonzero"}  # the first: item, bool, float, int
CALLS = {"cpu", "numpy", "tolist"}


class CallsForValues(TorchFunctionMode):
    """Counts the calls that hand values over without an operator that does."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.update({getattr(func, "__name__", "")} & CALLS)
        return func(*args, **(kwargs or {}))


class OperatorsForValues(TorchDispatchMode):
    """Counts the operators that hand a value over, or whose result has as many entries as a value says."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        chosen = name == "index" and any(place is not None and place.dtype == torch.bool for place in args[1])
        self.found.update({name} & OPERATORS | ({"index by bool"} if chosen else set()))
        return func(*args, **(kwargs or {}))


def values_asked_for(trainer: ContinualTrainer) -> dict[str, list[Counter[str]]]:
    """Train, and return by stage what each step asked for, from its batch on to what follows the step."""
    found: dict[str, list[Counter[str]]] = {}
    watch = ExitStack()

    def enter(engine: ContinualTrainer) -> None:
        asked = Counter[str]()
        found.setdefault(engine.current_stage.name, []).append(asked)
        watch.enter_context(CallsForValues(asked))
        watch.enter_context(OperatorsForValues(asked))

    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, enter)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: watch.close())
    trainer.run()
    return found


@pytest.fixture
def plain_tensors() -> Iterator[None]:
    """No metadata, as train.json says."""
    set_track_meta(False)
    yield
    set_track_meta(True)


@pytest.mark.usefixtures("plain_tensors")
@pytest.mark.parametrize("loss", ["seen_cross_entropy", "others_cross_entropy"])
def test_once_an_epoch_is_asked_whether_the_losses_are_finite_and_nothing_else(loss: str, tmp_path: Path) -> None:
    parser = ConfigParser(ConfigParser.load_config_files([str(TRAIN)]))
    own = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "run")}
    images = {"source#train_per_class": 8, "source#test_per_class": 2, "source#val_per_class": 0}
    epochs = {"backbone_epochs": 1, "adapter_epochs": 2, "finetune_epochs": 3}
    small = {"source#sets": ["clusters", "cells"], "image_size": 33, "memory_size": 12, "batch_size": 4}
    network = {"backbone": "mobilenet_v2", "network_def#sites": ["features.3"], "optimizer#lr": 0.001}
    head = {
        "network_def#head": loss.split("_")[0].replace("seen", "unified"),
        "balanced_finetuning#loss": {"_target_": f"scripts.learning.losses.{loss}", "_mode_": "callable"},
    }
    # Adam counts its steps in tensors on the host, which it reads: that waits for no device
    parser.update(
        {"device": "cpu", "balanced_finetuning#optimizer#_target_": "torch.optim.SGD", **own, **images, **epochs}
    )
    parser.update({**small, **network, **head})
    asked = values_asked_for(parser.get_parsed_content("train#trainer"))
    assert [len(steps) for steps in asked.values()] == [1 * 4, 2 * (4 + 7), 3 * 6]
    assert {stage: dict(sum(steps, Counter[str]())) for stage, steps in asked.items()} == {
        "backbone_training": {"_local_scalar_dense": 1},
        "adapter_tuning": {"_local_scalar_dense": 2 + 2},
        "balanced_finetuning": {"_local_scalar_dense": 3},
    }
