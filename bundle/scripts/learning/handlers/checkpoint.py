"""Save after every epoch and every stage, and go on from there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from ignite.engine import Events

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.run_config import (
    DATA,
    LATER,
    differences,
    read_run_config,
    refuse,
    running_config,
    write_run_config,
)
from scripts.learning.tasks.holdout import SPLIT
from scripts.learning.tasks.record import images_digest, write_tasks
from scripts.learning.tasks.task import Task
from scripts.model.networks.continual import NetworkState
from scripts.utils.errors import UserError
from scripts.utils.files import CHECKPOINT, write_atomically
from scripts.utils.running import RECORDED
from scripts.utils.words import counted

EPOCH = "epoch.pt"


@runtime_checkable
class Learns(Protocol):
    """What holds something learnt: plain values and tensors, that ``weights_only`` loads."""

    def state_dict(self) -> Mapping[Any, Any]: ...

    def load_state_dict(self, state: Any) -> object:
        """Take it over."""
        ...


class CheckpointHandler:
    """Make a run resumable: killed at any moment, the next one goes on, and ends as an uninterrupted one would.

    Saved is what ``save`` names and, beside it, every handler of the trainer that has ``state_dict`` and
    ``load_state_dict``, under the name of its class. ``checkpoint.pt`` is written when the run starts, after each stage
    and after each task. ``epoch.pt`` is written after each epoch; of the network it holds what the running stage
    trains, and beside it the stage's optimizer and schedule. Resuming replays the start of the stage (its randomness is
    seeded) and then takes over the epoch. No random state, no image and no object is stored: both files load with
    ``weights_only``.

    Args:
        output_dir: the run's folder.
        save: what is learnt, by name.
        previous: folder of a finished run, whose tasks come first; ``None``: start from nothing.
        restart: move the run's folder aside and begin anew.
        config: what matters in it must be the same when a run goes on; ``None``: the config that is being resolved.
    """

    def __init__(
        self,
        output_dir: str,
        save: Mapping[str, Learns],
        previous: str | None = None,
        restart: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(output_dir)
        self.save = dict(save)
        self.config = dict(running_config() if config is None else config)
        self.previous = None if previous is None else Path(previous)
        self.restart = restart
        self.images: list[str] = []
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Load when the run and a stage start, save after an epoch, a stage and a task."""
        engine.add_event_handler(ContinualEvents.RUN_STARTED, self.resume)
        engine.add_event_handler(ContinualEvents.STAGE_PREPARED, self.resume_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_epoch)
        engine.add_event_handler(ContinualEvents.PROGRESSED, self.write)

    def resume(self, engine: ContinualTrainer) -> None:
        """Go on from the run's own checkpoint, else from the previous run's, else start.

        Raises:
            UserError: when the run cannot go on, or the trainer has already learnt something but is not finished.
        """
        if engine.tasks_completed == len(engine.tasks):  # a further round, from the weights that the network has now
            return
        if engine.continual_network.classes:
            raise UserError("this trainer was interrupted: build a new one to go on from its checkpoint")
        if self.restart:
            self._move_aside(engine)
        found = (self.folder / CHECKPOINT).is_file()
        _wait_for_all()  # all have looked before the first one writes
        if found:
            self._load(engine, read_checkpoint(self.folder / CHECKPOINT), self.folder)
            if engine.state.rank == 0 and read_run_config(self.folder)[RECORDED].get("tasks") != len(engine.tasks):
                self._write_config(engine)  # tasks were added
            self._say_where(engine)
            return
        if self.previous is not None:
            self._load_previous(engine, self.previous)
        if engine.state.rank == 0:
            self._write_config(engine)
        self.write(engine)

    def learnt(self, engine: ContinualTrainer) -> dict[str, Learns]:
        """Return all that is saved, by name.

        Raises:
            UserError: when two have one name.
        """
        found = dict(self.save)
        for handler in engine.train_handlers:
            if isinstance(handler, Learns):
                name = type(handler).__name__
                if name in found:
                    raise UserError(f"two things to be saved are called {name}: attach one such handler (key 'save')")
                found[name] = handler
        return found

    def _write_config(self, engine: ContinualTrainer) -> None:
        recorded = {**self.config.get(RECORDED, {}), "tasks": len(engine.tasks)}
        write_run_config(self.folder, {**self.config, RECORDED: recorded})

    def write(self, engine: ContinualTrainer) -> None:
        """Write ``checkpoint.pt``."""
        _wait_for_all()  # no other process copies an exemplar while those not kept are swept away
        if engine.state.rank == 0:
            self._write(engine)
        _wait_for_all()

    def _write(self, engine: ContinualTrainer) -> None:
        begun = engine.tasks[: engine.tasks_completed + 1]
        self.images += [images_digest(task) for task in begun[len(self.images) :]]
        content = {
            "tasks": [[task.name, *task.classes] for task in begun],
            "images": self.images,
            "tasks_planned": len(engine.tasks),
            "tasks_completed": engine.tasks_completed,
            "stages_completed": engine.stages_completed,
            "states": {name: thing.state_dict() for name, thing in self.learnt(engine).items()},
        }
        write_tasks(self.folder, engine.tasks[: engine.tasks_completed])
        write_atomically(self.folder / CHECKPOINT, lambda file: torch.save(content, file))
        (self.folder / EPOCH).unlink(missing_ok=True)
        engine.memory.sweep()

    def write_epoch(self, engine: ContinualTrainer) -> None:
        """Write ``epoch.pt``."""
        if engine.state.rank > 0:
            return
        content = {
            "tasks_completed": engine.tasks_completed,
            "stages_completed": engine.stages_completed,
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "states": {
                name: thing.running_state() if isinstance(thing, NetworkState) else thing.state_dict()
                for name, thing in self.learnt(engine).items()
            },
            "optimizer": engine.optimizer.state_dict(),
            "scheduler": None if engine.scheduler is None else engine.scheduler.state_dict(),
        }
        write_atomically(self.folder / EPOCH, lambda file: torch.save(content, file))

    def resume_epoch(self, engine: ContinualTrainer) -> None:
        """Take over the last finished epoch of the stage, if there is one."""
        if not (self.folder / EPOCH).is_file():
            return
        content = read_checkpoint(self.folder / EPOCH)
        here = (engine.tasks_completed, engine.stages_completed)
        if (content["tasks_completed"], content["stages_completed"]) != here:
            return
        for name, thing in self.learnt(engine).items():
            load = thing.load_running_state if isinstance(thing, NetworkState) else thing.load_state_dict
            load(content["states"][name])
        engine.optimizer.load_state_dict(content["optimizer"])
        if engine.scheduler is not None:
            engine.scheduler.load_state_dict(content["scheduler"])
        engine.state.epoch = content["epoch"]
        engine.state.iteration = content["iteration"]
        self.logger.info("Going on after epoch %d of %s.", engine.state.epoch, engine.current_stage.name)

    def _load(self, engine: ContinualTrainer, content: Mapping[str, Any], folder: Path, later: bool = False) -> None:
        begun = content["tasks_completed"] + (content["stages_completed"] > 0 or (folder / EPOCH).is_file())
        before, tasks = (
            read_run_config(folder),
            task_differences(content["tasks"][:begun], content["images"], engine.tasks),
        )
        apart = (*DATA, *LATER) if later else () if tasks else DATA
        refuse([*differences(before, self.config, apart), *tasks], folder)
        load_states(self.learnt(engine), content, folder)
        engine.tasks_completed = content["tasks_completed"]
        engine.stages_completed = content["stages_completed"]
        self.images = content["images"][:begun]

    def _load_previous(self, engine: ContinualTrainer, folder: Path) -> None:
        content = read_checkpoint(folder / CHECKPOINT)
        if content["tasks_completed"] < content["tasks_planned"]:
            raise UserError(f"the run in {folder} is not finished: finish it first, then learn a later task")
        self._load(engine, content, folder, later=True)
        self.logger.info("Learnt before, in %s: %s.", folder, counted(engine.tasks_completed, "task"))

    def _say_where(self, engine: ContinualTrainer) -> None:
        if engine.tasks_completed == len(engine.tasks):
            self.logger.info("The run in %s is finished (begin anew: --restart true).", self.folder)
        elif engine.tasks_completed or engine.stages_completed:
            self.logger.info(
                "Going on in %s: %d of %d tasks are learnt.", self.folder, engine.tasks_completed, len(engine.tasks)
            )

    def _move_aside(self, engine: ContinualTrainer) -> None:
        if engine.state.rank == 0 and self.folder.exists():
            number = 1
            while (aside := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
                number += 1
            self.folder.rename(aside)
            if (aside / SPLIT).is_file():  # which images test belongs to the data, not to the run
                write_atomically(self.folder / SPLIT, (aside / SPLIT).read_bytes())
            self.logger.info("Moved the old run to %s.", aside)
        _wait_for_all()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint without running code from it.

    Raises:
        UserError: when the file is missing or broken.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises a dozen kinds for a broken file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read {path} ({reason}): restore it, or begin anew with --restart true") from error


def load_states(things: Mapping[str, Learns], content: Mapping[str, Any], folder: Path) -> None:
    """Give each thing the state that a checkpoint has of it.

    Raises:
        UserError: when the checkpoint of the run in ``folder`` has none of one, or one that another version saved.
    """
    states = content.get("states", {})
    for name, thing in things.items():
        if name not in states:
            raise UserError(f"the run in {folder} has not saved '{name}' (key 'save'): begin anew with --restart true")
        try:
            thing.load_state_dict(states[name])
        except KeyError as error:
            raise UserError(
                f"the run in {folder} was saved by another version: its '{name}' has no {error}; begin anew with "
                "--restart true, or go on with that version"
            ) from error


def _wait_for_all() -> None:
    """Let the processes of a distributed run wait for each other."""
    if dist.is_initialized():
        dist.barrier()


def task_differences(before: Sequence[Sequence[str]], images: Sequence[str], now: Sequence[Task]) -> list[str]:
    """Return what has changed of the tasks already learnt; added tasks are no change.

    Args:
        before: name and classes of each task that was learnt.
        images: hashes of their images, see :func:`scripts.learning.tasks.images_digest`.
        now: the tasks as they are; of those of a previous run the images are not at hand, and not compared.
    """
    changed = []
    for number, (learnt, digest) in enumerate(zip(before, images, strict=False)):
        task = now[number] if number < len(now) else None
        present = ["(gone)"] if task is None else [task.name, *task.classes]
        if list(learnt) != present:
            old, new = (f"{name} ({', '.join(classes)})" for name, *classes in (learnt, present))
            changed.append(f"task {number + 1} was {old}, is {new}")
        elif task is not None and task.train and images_digest(task) != digest:
            changed.append(f"the images of task {number + 1}, {task.name}, have changed")
    return changed
