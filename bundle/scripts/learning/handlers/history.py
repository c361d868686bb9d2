"""Note after each epoch what it reached: the curves of a run."""

from __future__ import annotations

from collections.abc import Sequence

import ignite.distributed as idist
import torch
from ignite.engine import Events
from torch import Tensor

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.stage import Pretraining, Stage
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.losses.cross_entropy import others_targets
from scripts.learning.sources.source import Item
from scripts.learning.tasks.labels import findings_of
from scripts.learning.tasks.record import validation_items
from scripts.metrics.record import RunRecord
from scripts.model.networks.outputs import Outputs
from scripts.utils.evenly import even_places

HEADS = {"head", "new_rows"}
"""Parts that a stage trains where it learns to tell all classes apart."""


class HistoryHandler:
    """Note loss, learning rate and validation accuracy of each epoch, before it is saved: what goes on has it once.

    Validation images are those of the classes learnt so far. The accuracy is that of the classifier which the stage
    trains: the head, over all classes, or the auxiliary head, over the task's own and others; of several
    findings an image, the share of the task's own that it tells right. The network is left as it is, and no random
    number of the training's is drawn.

    Args:
        record: its ``history`` takes a row an epoch.
        features: gives images and features.
        images: the most validation images that an epoch is measured on, chosen at even distances; 0: none.
    """

    def __init__(self, record: RunRecord, features: FeatureExtractor, images: int) -> None:
        self.record = record
        self.features = features
        self.images = images
        self.items: list[Item] = []
        self.losses: list[Tensor] = []
        self.images_seen = 0

    def attach(self, engine: ContinualTrainer) -> None:
        """Choose images when a stage starts, add up losses, and note an epoch before its schedule steps."""
        engine.add_event_handler(ContinualEvents.STAGE_PREPARED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.take)
        engine.add_event_handler(ContinualEvents.EPOCH_LEARNT, self)

    def start(self, engine: ContinualTrainer) -> None:
        """Choose the validation images of a stage."""
        # of findings learnt before, no classifier that trains says anything
        tasks = [engine.current_task] if engine.current_task.has_findings else engine.tasks[: engine.state.task]
        labelled = not isinstance(engine.current_stage, Pretraining)  # which has no classifier
        items = validation_items(tasks) if self.images and labelled else []
        self.items = [items[place] for place in even_places(len(items), self.images)]
        self.losses, self.images_seen = [], 0

    def take(self, engine: ContinualTrainer) -> None:
        """Keep the loss of a step, times its images; it stays on its device, which need not be waited for."""
        self.losses.append(engine.state.output["loss"].detach() * len(engine.state.output["label"]))
        self.images_seen += len(engine.state.output["label"])

    def __call__(self, engine: ContinualTrainer) -> None:
        total, images = idist.all_reduce(torch.stack(self.losses).sum()), idist.all_reduce(self.images_seen)
        self.losses, self.images_seen = [], 0
        row = {
            "task": engine.current_task.name,
            "stage": engine.current_stage.name,
            "epoch": engine.state.epoch,
            "loss": float(total / images),
            "learning_rate": engine.optimizer.param_groups[0]["lr"],
            "validation_accuracy": self._accuracy(engine) if self.items else None,
        }
        self.record.history.append(row)

    @torch.no_grad()
    def _accuracy(self, engine: ContinualTrainer) -> float:
        stage = engine.current_stage
        assert isinstance(stage, Stage)
        network = self.features.network
        was = network.training
        network.eval()
        # what the stages after this one read of the same images under the same weights is known then
        outputs = network.outputs(self.features.features(self.items)[:, 0].to(self.features.device))
        network.train(was)
        if engine.current_task.has_findings:
            assert outputs.auxiliary is not None
            count = len(engine.current_task.classes)
            said = findings_of(self.items, sum(outputs.classes))[:, -count:]
            right = (outputs.auxiliary[:, :count].cpu() > 0) == (said == 1)
            return float(right[said >= 0].float().mean())
        labels = torch.tensor([item["label"] for item in self.items], device=outputs.logits.device)
        scores, targets = _asked(outputs, labels, stage.trains)
        return int((scores.argmax(1) == targets).sum()) / len(self.items)


def _asked(outputs: Outputs, labels: Tensor, trains: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the scores [B, C] of the classifier that is trained, and what they should say, [B]."""
    if outputs.auxiliary is None or HEADS & set(trains):
        return outputs.logits, labels
    count = outputs.classes[-1]
    return outputs.auxiliary, others_targets(labels, sum(outputs.classes) - count, count)
