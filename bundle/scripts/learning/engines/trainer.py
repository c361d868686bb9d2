"""The engine that learns one task after another: MONAI's trainer, run once a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.data import Dataset
from monai.engines import SupervisedTrainer
from monai.inferers import Inferer
from monai.transforms import Randomizable
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from scripts.learning.engines.events import EVENT_TO_ATTR, ContinualEvents
from scripts.learning.engines.finite_loss import FiniteLossHandler
from scripts.learning.engines.stage import (
    DATA,
    BaseStage,
    ClosedForm,
    Stage,
    check_learns_findings,
    with_penalties,
)
from scripts.learning.features.dataset import FeatureDataset
from scripts.learning.features.shares import same_buffers
from scripts.learning.features.stem_maps import StemMapDataset
from scripts.learning.memory.exemplars import ExemplarMemory
from scripts.learning.tasks.dataset import ImageDataset
from scripts.learning.tasks.task import Task
from scripts.model.networks.continual import ContinualNet, FeatureReader, StemMapReader
from scripts.utils.errors import UserError

# what is trained where a stage sees not images, but what was computed of them before
READERS: dict[type[Dataset], Callable[[ContinualNet], nn.Module]] = {
    FeatureDataset: FeatureReader,
    StemMapDataset: StemMapReader,
}


class ContinualTrainer(SupervisedTrainer):
    """Goes through tasks and stages; MONAI's training loop does the epochs of each stage.

    ``run`` fires an event, lets handlers prepare the network, builds the stage's data, optimizer and schedule, and
    calls MONAI's ``run``. Every epoch is seeded from (seed, task, stage, epoch, round), so that a resumed run, or a
    task learnt in a new process, equals an uninterrupted one without storing random states.

    Args:
        device: where to train.
        max_epochs: epochs of the main stage a task; the stages read it from the config, federated clients set it.
        network: the growing network.
        tasks: all tasks, those learnt by an earlier run included.
        stages: stages of each task, in order; ``None`` is left out.
        memory: exemplars of old tasks.
        dataset: whose items are replaced for each stage (``set_data``); its transform augments.
        loader: from ``dataset=, shuffle=, sampler=, pin_memory=, drop_last=`` to a data loader.
        seed: of everything random.
        inferer: how the network is called.
        train_handlers: MONAI and ignite handlers.

    Raises:
        UserError: when a stage needs a memory and there is none, or the memory is too small, or images carry several
            findings and the method cannot learn them.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        network: ContinualNet,
        tasks: Sequence[Task],
        stages: Sequence[BaseStage | None],
        memory: ExemplarMemory,
        dataset: ImageDataset,
        loader: Callable[..., DataLoader],
        seed: int = 0,
        inferer: Inferer | None = None,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        self.tasks = list(tasks)
        self.stages = [stage for stage in stages if stage is not None]
        self.memory = memory
        self.dataset = dataset
        self.loader = loader
        self.seed = seed
        self.continual_network = network
        self.train_handlers = list(train_handlers or [])
        self.tasks_completed = 0
        self.stages_completed = 0
        self.round = 0
        self.scheduler: LRScheduler | None = None
        self._check()
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=[],
            network=network,
            optimizer=None,  # type: ignore[arg-type]  # each stage has its own
            loss_function=None,  # type: ignore[arg-type]
            non_blocking=True,
            inferer=inferer,
            event_names=[ContinualEvents],
            event_to_attr=EVENT_TO_ATTR,
            decollate=False,
        )
        self.add_event_handler(Events.EPOCH_STARTED, lambda: self.reseed(self.state.epoch))
        self.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        self._register_handlers([FiniteLossHandler(), *self.train_handlers])

    def _check(self) -> None:
        classes = sum(len(task.classes) for task in self.tasks)
        self.memory.check(classes)
        if any(task.has_findings for task in self.tasks):
            check_learns_findings(self.continual_network, self.stages, self.memory)
        if len(self.tasks) > 1:
            for stage in self.stages:
                self.memory.check_stage(stage.name, stage.least_exemplars, classes)

    def get_stats(self, *vars: str) -> dict[str, Any]:
        """Return what MONAI's trainer does, and what a federated server needs: class names, and images of the task."""
        learnt = self.tasks[: self.tasks_completed]
        own = {"classes": [name for task in learnt for name in task.classes], "images": len(self.tasks[-1].train)}
        return {**super().get_stats(*vars), **own}

    @property
    def current_task(self) -> Task:
        """The task being learnt."""
        return self.tasks[self.tasks_completed]

    @property
    def learns_current_task(self) -> bool:
        """Whether the task being learnt has a stage at all (of Joint's, only the last has)."""
        return any(stage.belongs_to(self.state.task, len(self.tasks)) for stage in self.stages)

    @property
    def current_stage(self) -> BaseStage:
        """The stage being run."""
        return self.stages[self.stages_completed]

    def run(self) -> None:  # type: ignore[override]
        """Learn every task that is not learnt yet; called again, learn the last one further, from what the network is.

        Raises:
            UserError: where the last task cannot be learnt further.
        """
        again = self.tasks_completed == len(self.tasks)
        self.fire_event(ContinualEvents.RUN_STARTED)
        if again:
            self._start_round()
        while self.tasks_completed < len(self.tasks):
            self._learn_task()
        self.fire_event(ContinualEvents.RUN_COMPLETED)

    def _start_round(self) -> None:
        """Take the last task up again, as a federated client does once its weights are those of all."""
        if any(isinstance(stage, ClosedForm) for stage in self.stages):
            raise UserError(
                "a head in closed form needs no rounds: what sites have learnt is added exactly (dynammo contribute)"
            )
        self.round += 1
        self.tasks_completed -= 1
        self.fire_event(ContinualEvents.ROUND_STARTED)

    def _learn_task(self) -> None:
        self.state.task = self.tasks_completed + 1
        self.state.stage = 0
        if self.stages_completed == 0 and self.round == 0:
            self.reseed(0)
            self.continual_network.grow(len(self.current_task.classes))
            self.fire_event(ContinualEvents.TASK_STARTED)
        while self.stages_completed < len(self.stages):
            if self.current_stage.belongs_to(self.state.task, len(self.tasks)):
                self._run_stage(self.current_stage)
            self._advance(self.tasks_completed, self.stages_completed + 1)
        self.reseed(0)  # a run resumed here has drawn nothing yet
        self.fire_event(ContinualEvents.TASK_COMPLETED)
        self.fire_event(ContinualEvents.TASK_SETTLED)
        if self.learns_current_task:
            self.fire_event(ContinualEvents.TASK_EVALUATED)
        self._advance(self.tasks_completed + 1, 0)

    def _advance(self, tasks: int, stages: int) -> None:
        self.tasks_completed, self.stages_completed = tasks, stages
        self.fire_event(ContinualEvents.PROGRESSED)

    def _run_stage(self, stage: BaseStage) -> None:
        self.state.stage = self.stages_completed + 1
        self.reseed(0)
        self.fire_event(stage.started)
        self.state.epoch = self.state.iteration = 0
        self.state.output = None
        if isinstance(stage, Stage):
            self._train(stage)
        else:
            self._say_prepared(stage)
        for event in (stage.completed, stage.settled, ContinualEvents.STAGE_COMPLETED):
            self.fire_event(event)

    def _say_prepared(self, stage: BaseStage) -> None:
        self.fire_event(stage.prepared)
        self.fire_event(ContinualEvents.STAGE_PREPARED)

    def _train(self, stage: Stage) -> None:
        self._prepare(stage)
        self._say_prepared(stage)
        if self.state.epoch < stage.epochs:  # a stage can have been resumed after its last epoch
            super().run()
        self.network = self.continual_network
        same_buffers(self.network)

    def _prepare(self, stage: Stage) -> None:
        """Build what the stage needs; what the stage before left behind is replaced, not continued."""
        self.continual_network.train_only(stage.trains)
        self.dataset.set_data(DATA[stage.data](self.tasks, self.state.task, self.memory))
        seen = stage.seen(self.dataset)
        self.data_loader = self._make_loader(stage, seen)
        reader = READERS.get(type(seen))
        self.network = self._distributed(reader(self.continual_network) if reader else self.continual_network)
        self.loss_function = with_penalties(stage.loss)
        self.optimizer = stage.optimizer([p for p in self.continual_network.parameters() if p.requires_grad])
        self.scheduler = None if stage.scheduler is None else stage.scheduler(self.optimizer, epochs=stage.epochs)
        self.state.max_epochs = stage.epochs
        self.state.epoch_length = len(self.data_loader)
        self.state.best_metric, self.state.best_metric_epoch = -1, -1

    def _make_loader(self, stage: Stage, seen: Dataset) -> DataLoader:
        sampler: Any = DistributedSampler(seen, seed=self.seed) if dist.is_initialized() else None
        settings: dict[str, Any] = {"dataset": seen, "shuffle": sampler is None, "sampler": sampler}
        settings["pin_memory"] = self.state.device.type == "cuda"  # a copy from elsewhere waits for the step before
        if isinstance(seen, FeatureDataset):  # there is nothing to load
            settings["num_workers"] = 0
        loader = self.loader(**settings)
        images = len(seen) if sampler is None else sampler.num_samples
        if loader.batch_size and images % loader.batch_size == 1:  # BatchNorm cannot learn from a batch of one
            if images == 1:
                raise UserError(f"stage {stage.name} of task {self.current_task.name} has a single image: add images")
            loader = self.loader(**settings, drop_last=True)
        return loader

    def _end_epoch(self) -> None:
        self.fire_event(ContinualEvents.EPOCH_LEARNT)
        if self.scheduler is not None:
            self.scheduler.step()

    def reseed(self, epoch: int) -> None:
        """Seed everything random for an ``epoch`` (from 1; 0: what comes before the first) of the current stage."""
        key = (self.seed, self.tasks_completed, self.stages_completed, epoch, *filter(None, [self.round]))
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        torch.manual_seed(seed)
        np.random.seed(seed)
        transform: Any = self.dataset.transform
        if isinstance(transform, Randomizable):
            transform.set_random_state(seed + self.state.rank if epoch else seed)
        sampler = getattr(self.data_loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(seed)

    def _distributed(self, network: nn.Module) -> nn.Module:
        """Wrap the network anew for each stage: DDP knows only the parameters that exist when it is made."""
        if not dist.is_initialized():
            return network
        devices = [self.state.device] if self.state.device.type == "cuda" else None
        if devices:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network, devices)
