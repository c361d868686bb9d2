"""Let the network as it was before a task look at each batch too."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from monai.engines.utils import IterationEvents

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.heads import Ability
from scripts.model.networks.outputs import Outputs
from scripts.utils.errors import UserError


class TeacherHandler:
    """Fill ``Outputs.teacher`` before the loss is computed, in the stage ``training`` of all tasks but the first.

    The teacher is copied when that stage starts, which must be a task's first: until then nothing but the head's new
    rows has changed since the task before, and resuming within the stage starts it from there again. Nothing of the
    teacher is stored.

    Args:
        network: the growing network, with one head over all classes.

    Raises:
        UserError: when the network has a head a task.
    """

    def __init__(self, network: ContinualNet) -> None:
        network.require(Ability.JOINT)  # refused now, not once the first task is learnt
        self.network = network
        self.teacher: ContinualNet | None = None

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around the stage and between forward pass and loss."""
        engine.add_event_handler(ContinualEvents.TRAINING_STARTED, self.start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)
        engine.add_event_handler(ContinualEvents.TRAINING_COMPLETED, self.complete)
        engine.add_event_handler(ContinualEvents.ROUND_STARTED, self.refuse_round)

    def refuse_round(self, engine: ContinualTrainer) -> None:
        """Refuse a further round of a later task: the network of the task before is gone by then.

        Raises:
            UserError: says so.
        """
        if len(engine.tasks) > 1:
            raise UserError("a method with a teacher learns a later task in one round: use dynammo, acl or finetune")

    def start(self, engine: ContinualTrainer) -> None:
        """Copy the network as the task before left it."""
        if engine.state.task > 1:
            self.teacher = deepcopy(self.network).requires_grad_(False).eval()

    def __call__(self, engine: ContinualTrainer) -> None:
        """Show the teacher the batch, augmented as it is."""
        if self.teacher is None:
            return
        output: Any = engine.state.output
        with torch.no_grad():
            said: Outputs = self.teacher(output["image"])
        logits = said.extras.get("softmax", said.logits)
        old = sum(said.classes[:-1])  # it has grown for the task already
        output["pred"].teacher = replace(said, logits=logits[:, :old], classes=said.classes[:-1], extras={})

    def complete(self) -> None:
        """Drop the teacher."""
        self.teacher = None
