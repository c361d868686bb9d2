"""A stage of learning a task: a few values from the config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from monai.data import Dataset
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.features.dataset import StageFeatures
from scripts.learning.features.drawn import DrawnFeatures
from scripts.learning.features.stem_maps import StemMaps
from scripts.learning.losses.cross_entropy import OF_FINDINGS, auxiliary_cross_entropy, seen_cross_entropy
from scripts.learning.memory.exemplars import ExemplarMemory
from scripts.learning.memory.held_out import divide
from scripts.learning.sources.source import Item
from scripts.learning.tasks.dataset import ImageDataset
from scripts.learning.tasks.task import Task
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.heads import Ability
from scripts.model.networks.outputs import Outputs
from scripts.utils.errors import UserError


def task_items(tasks: Sequence[Task], number: int, memory: ExemplarMemory) -> list[Item]:
    """Return the training images of task ``number`` (from 1)."""
    return list(tasks[number - 1].train)


def task_and_memory_items(tasks: Sequence[Task], number: int, memory: ExemplarMemory) -> list[Item]:
    """Return the training images of task ``number`` and the exemplars of the tasks before."""
    return task_items(tasks, number, memory) + memory.items()


def held_out_items(tasks: Sequence[Task], number: int, memory: ExemplarMemory) -> list[Item]:
    """Return a few images of every class that ``without_held_out`` leaves out; the first task has none."""
    items, first = task_and_memory_items(tasks, number, memory), tasks[number - 1].first
    return divide(items, memory.quota(first))[1] if first else []


def without_held_out_items(tasks: Sequence[Task], number: int, memory: ExemplarMemory) -> list[Item]:
    """Return the images of task ``number`` and the exemplars of the tasks before, but for those held out."""
    items, first = task_and_memory_items(tasks, number, memory), tasks[number - 1].first
    return divide(items, memory.quota(first))[0] if first else items


def balanced_items(tasks: Sequence[Task], number: int, memory: ExemplarMemory) -> list[Item]:
    """Return the same number of images of every class seen: the memory, which holds the new classes by now."""
    return memory.items()


def all_items(tasks: Sequence[Task], number: int, memory: ExemplarMemory) -> list[Item]:
    """Return all training images of the tasks up to ``number``."""
    return [item for task in tasks[:number] for item in task.train]


DATA: dict[str, Callable[[Sequence[Task], int, ExemplarMemory], list[Item]]] = {
    "task": task_items,
    "task_and_memory": task_and_memory_items,
    "without_held_out": without_held_out_items,
    "balanced": balanced_items,
    "all": all_items,
}
# which of T tasks, counted from 1, a stage is part of
TASKS: dict[str, Callable[[int, int], bool]] = {
    "every": lambda number, total: True,
    "first": lambda number, total: number == 1,
    "later": lambda number, total: number > 1,
    "last": lambda number, total: number == total,
}


Loss = Callable[[Outputs, Tensor], Tensor]


def with_penalties(loss: Loss) -> Loss:
    """Return a loss to which what the network itself asks to be small is added."""
    return lambda outputs, labels: sum(outputs.penalties.values(), start=loss(outputs, labels))


@dataclass(frozen=True)
class BaseStage:
    """What all stages have.

    Args:
        name: what the stage is called; see :class:`ContinualEvents` for its events.
        tasks: which tasks have this stage, a key of :data:`TASKS`.

    Raises:
        UserError: for an unknown name or choice of tasks.
    """

    name: str
    tasks: str = field(default="every", kw_only=True)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.tasks not in TASKS:
            raise UserError(f"stage {self.name} has unknown tasks '{self.tasks}': choose one of {', '.join(TASKS)}")
        if not hasattr(ContinualEvents, f"{self.name.upper()}_STARTED"):
            raise UserError(f"unknown stage '{self.name}': no event {self.name.upper()}_STARTED in ContinualEvents")

    @property
    def started(self) -> ContinualEvents:
        """The event before the stage."""
        return ContinualEvents[f"{self.name.upper()}_STARTED"]

    @property
    def prepared(self) -> ContinualEvents:
        """The event when nothing is learnt yet, but all is there."""
        return ContinualEvents[f"{self.name.upper()}_PREPARED"]

    @property
    def completed(self) -> ContinualEvents:
        """The event when all is learnt."""
        return ContinualEvents[f"{self.name.upper()}_COMPLETED"]

    @property
    def settled(self) -> ContinualEvents:
        """The event after the stage."""
        return ContinualEvents[f"{self.name.upper()}_SETTLED"]

    @property
    def least_exemplars(self) -> int:
        """The exemplars of each old class that the stage needs."""
        return 0

    def belongs_to(self, number: int, total: int) -> bool:
        """Say whether task ``number`` (from 1) of ``total`` has this stage."""
        return TASKS[self.tasks](number, total)


@dataclass(frozen=True)
class ClosedForm(BaseStage):
    """A stage without epochs: when it is completed, a handler computes what it is for."""

    name: str = "closed_form"


@dataclass(frozen=True)
class Stage(BaseStage):
    """A stage that trains.

    Args:
        name: what the stage is called; see :class:`ContinualEvents` for its events.
        epochs: passes over its data.
        data: which images it sees, a key of :data:`DATA`.
        trains: parts of the network that learn; see :meth:`scripts.model.networks.ContinualNet.parts`.
        loss: from :class:`scripts.model.networks.Outputs` and labels to a scalar.
        optimizer: from the parameters to an optimizer.
        scheduler: from the optimizer and ``epochs=`` to a schedule that steps once an epoch; ``None``: a constant rate.
        exemplars: how many of each old class it cannot do without; balanced data need one.
        tasks: which tasks have this stage, a key of :data:`TASKS`.
        features: computes the images' features once, where the head alone is trained, or draws features in their place;
            ``None``: images pass the network in each epoch.
        stem_maps: computes the images' maps before the first adapter once, where the backbone is not trained; ``None``:
            images pass it in each epoch.

    Raises:
        UserError: for fewer than one epoch, an unknown name, data or choice of tasks.
    """

    epochs: int
    data: str
    trains: Sequence[str]
    loss: Loss
    optimizer: Callable[..., Optimizer]
    scheduler: Callable[..., LRScheduler] | None = None
    exemplars: int = 0
    features: StageFeatures | DrawnFeatures | None = None
    stem_maps: StemMaps | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.epochs < 1:
            raise UserError(
                f"stage {self.name} has {self.epochs} epochs: use at least 1 "
                "(keys 'backbone_epochs', 'adapter_epochs', 'finetune_epochs')"
            )
        if self.data not in DATA:
            raise UserError(f"stage {self.name} has unknown data '{self.data}': choose one of {', '.join(DATA)}")
        super().__post_init__()

    @property
    def least_exemplars(self) -> int:
        """The exemplars of each old class that the stage needs."""
        return max(self.exemplars, int(self.data == "balanced"))

    def seen(self, images: ImageDataset) -> Dataset:
        """Return what the stage trains on: the images, or what was computed of them before."""
        if self.features is not None and list(self.trains) == ["head"]:
            return self.features.of(images, self.epochs)
        if self.stem_maps is not None and "backbone" not in self.trains:
            return self.stem_maps.of(images, self.epochs)
        return images


@dataclass(frozen=True, kw_only=True)
class Pretraining(Stage):
    """Train a backbone on images whose labels are not read, before it is frozen."""

    name: str = "pretraining"
    tasks: str = "first"
    data: str = "task"
    trains: Sequence[str] = ("backbone", "auxiliary")


@dataclass(frozen=True, kw_only=True)
class BackboneTraining(Stage):
    """Train an untrained backbone on the first task, with a plain head that is dropped, before it is frozen."""

    name: str = "backbone_training"
    tasks: str = "first"
    data: str = "task"
    trains: Sequence[str] = ("backbone", "auxiliary")
    loss: Loss = auxiliary_cross_entropy


@dataclass(frozen=True, kw_only=True)
class AdapterTuning(Stage):
    """Tune the adapters of a task and its auxiliary head, on the task's images and the memory.

    Source: Zhang et al., ACL (MICCAI 2023), stage 1; Qazi et al., DynaMMo (MIUA 2024).
    """

    name: str = "adapter_tuning"
    data: str = "task_and_memory"
    trains: Sequence[str] = ("adapter", "auxiliary")
    loss: Loss = auxiliary_cross_entropy


@dataclass(frozen=True, kw_only=True)
class BalancedFinetuning(Stage):
    """Train the head on as many images of old classes as of new ones, from the second task on.

    Source: Castro et al., End-to-end incremental learning (ECCV 2018); ACL and DynaMMo, stage 2.
    """

    name: str = "balanced_finetuning"
    tasks: str = "later"
    data: str = "balanced"
    trains: Sequence[str] = ("head",)
    loss: Loss = seen_cross_entropy


@dataclass(frozen=True, kw_only=True)
class Training(Stage):
    """Train the whole network, on the task's images and the memory: the one stage of methods without adapters."""

    name: str = "training"
    data: str = "task_and_memory"
    trains: Sequence[str] = ("backbone", "head")
    loss: Loss = seen_cross_entropy


def check_learns_findings(network: ContinualNet, stages: Sequence[BaseStage], memory: ExemplarMemory) -> None:
    """Refuse a method that gives an image one class, where images carry several findings.

    Raises:
        UserError: names the part of the method that cannot learn them.
    """
    losses = {stage.name: stage.loss for stage in stages if isinstance(stage, Stage)}
    unable = [
        f"{getattr(getattr(loss, 'func', loss), '__name__', loss)} of the stage {name}"
        for name, loss in losses.items()
        if loss not in OF_FINDINGS
    ]
    if Ability.FINDINGS not in network.head.abilities:
        unable.append(f"the head {network.head_name}")
    if not any(isinstance(stage, ClosedForm) for stage in stages):
        unable.append("a head that is not solved in closed form")
    if not memory.empty:
        unable.append("a memory of images by their class (memory_size)")
    if unable:
        raise UserError(
            f"this method gives an image one class ({', '.join(unable)}), and these images carry several findings: use "
            "a head in closed form without memory, such as --method frozen+levels+ridge or dynammo+ridge+without_memory"
        )
