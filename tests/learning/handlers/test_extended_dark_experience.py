"""X-DER, step by step: what kept logits learn of later classes, and what a run that was stopped ends as."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from torch import Tensor

from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.transforms import RandomViews
from scripts.learning.engines import ContinualTrainer
from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import CheckpointHandler, ExtendedDarkExperienceHandler, MemoryHandler
from scripts.learning.handlers.extended_dark_experience import held_behind, implanted
from scripts.learning.losses import xder_loss
from scripts.learning.memory import LogitMemory
from scripts.learning.tasks import ImageDataset, Task
from scripts.model.networks import NetworkState
from scripts.model.networks.heads.prepared import PREPARED
from scripts.utils.errors import UserError

LOSS = partial(xder_loss, alpha=0.1, beta=0.5, eta=0.1, margin=0.3, consistency=0.1, temperature=5.0)


def build(tasks: list[Task], folder: Path, tiny: SimpleNamespace, head: str = "prepared") -> ContinualTrainer:
    network = tiny.network(head, adapter=None)
    memory = LogitMemory(6, selection="random", folder=str(folder / "exemplars"))
    stages = [tiny.stage(epochs=2, trains=["backbone", "head"], loss=LOSS)]
    trainer: ContinualTrainer = tiny.trainer(network, tasks, stages, memory=memory)
    features = FeatureExtractor(network, tiny.transform(), 5)
    shown = ImageDataset([], trainer.dataset.transform)  # type: ignore[arg-type]
    views = RandomViews(ImageSpec(33, [0.0] * 3, [1.0] * 3))
    save = {"network": NetworkState(network), "memory": memory}
    CheckpointHandler(str(folder), save, config={}).attach(trainer)
    MemoryHandler(memory, network, features).attach(trainer)
    own = ExtendedDarkExperienceHandler(network, features, views, 0.85, 3, memory, shown, batch_size=3)
    own.attach(trainer)
    return trainer


@pytest.fixture
def tasks(tmp_path: Path, tiny: SimpleNamespace) -> list[Task]:
    """Tasks of two and of one class."""
    found: list[Task] = tiny.tasks(tmp_path / "data", (2, 1))
    return found


def test_kept_logits_have_all_classes_and_those_of_old_images_hold_later_ones_behind(
    tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    first = build(tasks[:1], tmp_path / "run", tiny)
    first.run()
    before = {item["image"]: item["logits"] for item in first.memory.items()}
    assert {len(logits) for logits in before.values()} == {2 + PREPARED}
    trainer = build(tasks, tmp_path / "run", tiny)
    trainer.run()
    items = trainer.memory.items()
    assert {len(item["logits"]) for item in items} == {3 + PREPARED}
    old = [item for item in items if item["label"] < 2]
    assert len(old) == 4
    for item in old:
        kept, own = item["logits"], before[item["image"]][item["label"]]
        assert torch.equal(kept[:2], before[item["image"]][:2]), "what was said of old classes stays"
        assert kept[2:].max() <= max(own, 0)


def test_stopped_on_the_way_it_ends_as_uninterrupted(tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace) -> None:
    build(tasks, tmp_path / "whole", tiny).run()
    stopped = build(tasks, tmp_path / "stopped", tiny)

    def interrupt(engine: ContinualTrainer) -> None:
        if (engine.state.task, engine.state.epoch, engine.state.iteration) == (2, 2, 3):
            raise KeyboardInterrupt

    stopped.add_event_handler(Events.ITERATION_COMPLETED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    build(tasks, tmp_path / "stopped", tiny).run()
    found = [states(tmp_path / name) for name in ("whole", "stopped")]
    assert not tiny.changed_keys(found[0]["network"]["weights"], found[1]["network"]["weights"])
    said = [[entry["logits"] for of_class in state["memory"]["said"].values() for entry in of_class] for state in found]
    assert all(torch.equal(one, other) for one, other in zip(*said, strict=True))


def states(folder: Path) -> dict[str, dict[str, dict[str, Tensor]]]:
    found: dict[str, dict[str, dict[str, Tensor]]] = torch.load(folder / "checkpoint.pt", weights_only=True)["states"]
    return found


def test_views_leave_running_statistics_alone(tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace) -> None:
    trainer = build(tasks[:1], tmp_path, tiny)
    (own,) = (
        handler.__self__
        for handlers in trainer._event_handlers.values()
        for handler, *_ in handlers
        if getattr(handler, "__name__", "") == "contrast"
    )
    network = trainer.continual_network
    network.grow(2)
    network.train_only(["backbone", "head"])
    network.train()
    before = tiny.copy_of(network.state_dict())
    trainer.state.batch = tiny_batch = {"index": torch.arange(2), "image": torch.rand(2, 3, 33, 33)}
    tiny_batch["label"] = torch.tensor([0, 1])
    trainer.state.output = {"pred": network(tiny_batch["image"])}
    counters = {key for key in before if key.endswith(("running_mean", "running_var"))}
    middle = tiny.copy_of(network.state_dict())
    own.contrast(trainer)
    assert not counters & tiny.changed_keys(middle, network.state_dict())
    assert counters & tiny.changed_keys(before, middle), "the batch's own pass does change them"


def test_the_largest_implanted_logit_is_a_share_of_the_own_one() -> None:
    torch.testing.assert_close(
        held_behind(torch.tensor([4.0, 2.0]), torch.tensor(2.0), 0.85), torch.tensor([1.7, 0.85])
    )
    assert torch.equal(held_behind(torch.tensor([1.0, -2.0]), torch.tensor(2.0), 0.85), torch.tensor([1.0, -2.0]))
    assert held_behind(torch.tensor([1.0, 3.0]), torch.tensor(-2.0), 0.85).tolist() == [0, 0]
    kept = implanted(torch.tensor([5.0, 1.0, 7.0]), torch.tensor([0.0, 0.0, 10.0, 1.0]), 0, 2, 0.5)
    assert kept.tolist() == [5.0, 1.0, 2.5, 0.25]


def test_another_head_is_refused(tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="prepared"):
        build(tasks, tmp_path, tiny, head="unified")
