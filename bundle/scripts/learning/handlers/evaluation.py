"""Test the network on all tasks learnt so far, after each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from torch import Tensor

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.shares import everyones, share
from scripts.learning.sources.source import Item
from scripts.learning.tasks.labels import widened
from scripts.learning.tasks.record import testable
from scripts.learning.tasks.task import Task
from scripts.metrics.accuracy_matrix import accuracy, forgetting, mean_class_recall
from scripts.metrics.clinical import confusion_matrix
from scripts.metrics.findings import decisions, finding_rows, mean_of_rows
from scripts.metrics.open_set import mean_open_set, open_set_figures, task_identification_accuracy
from scripts.metrics.record import RunRecord
from scripts.model.decisions import DecisionRules
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.cost import flops_per_image, parameter_count
from scripts.model.networks.outputs import Outputs
from scripts.utils.errors import UserError


@dataclass
class Predictions:
    """What the network said of N test images.

    Class numbers, those that the network gives when told the task, and, for a head a task, P(others) [N, T]; beside
    nearest means, the class numbers of the softmax. Of several findings an image the scores, [N, C], and no more.
    """

    labels: list[Tensor] = field(default_factory=list)
    classes: list[Tensor] = field(default_factory=list)
    within_tasks: list[Tensor] = field(default_factory=list)
    others: list[Tensor] = field(default_factory=list)
    softmax: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)

    def add(self, engine: Engine) -> None:
        """Take a batch from an evaluator."""
        output: Any = engine.state.output
        outputs: Outputs = output["pred"]
        self.labels.append(output["label"].cpu())
        if output["label"].dim() == 2:
            self.scores.append(outputs.logits.cpu())
            return
        self.classes.append(outputs.logits.argmax(1).cpu())
        known = output["label"].clamp(max=sum(outputs.classes) - 1)  # of classes not learnt yet no task can be given
        self.within_tasks.append(outputs.classes_within_tasks(known).cpu())
        if "others" in outputs.extras:
            self.others.append(outputs.extras["others"].cpu())
        if "softmax" in outputs.extras:
            self.softmax.append(outputs.extras["softmax"].argmax(1).cpu())

    def gather(self, count: int) -> None:
        """Take what all processes have seen of so many images, each of its share."""
        for part in vars(self).values():
            if part:
                part[:] = [everyones(torch.cat(part), count)]


class EvaluationHandler:
    """Fill the accuracy matrix's next row, and the cost of the network, once a task is learnt.

    A task some of whose test images are gone is not tested. A task in which no stage ran (all but the last of Joint)
    is not evaluated.

    Args:
        evaluator: runs the network over the items its data set is given.
        network: the growing network.
        record: takes the results.
        kept: what is kept between tasks beside the network, by name; of it, and of the trainer's handlers, what has
            ``kept_bytes()`` counts as memory, and what has ``measured()`` adds to the record's figures.
        rules: say from which score on a finding is present, where images carry several.
    """

    def __init__(
        self,
        evaluator: SupervisedEvaluator,
        network: ContinualNet,
        record: RunRecord,
        kept: Mapping[str, Any],
        rules: DecisionRules,
    ) -> None:
        self.evaluator = evaluator
        self.network = network
        self.record = record
        self.kept = kept
        self.rules = rules
        self.before: dict[str, Any] | None = None

    def attach(self, engine: ContinualTrainer) -> None:
        """Act once all of a task is settled; of a task that is learnt further, the last round counts."""
        engine.add_event_handler(ContinualEvents.TASK_STARTED, self.remember)
        engine.add_event_handler(ContinualEvents.ROUND_STARTED, self.take_back)
        engine.add_event_handler(ContinualEvents.TASK_SETTLED, self)

    def remember(self) -> None:
        """Keep what was measured before the task."""
        self.before = deepcopy(self.record.state_dict())

    def take_back(self) -> None:
        """Drop what was measured of the task that is learnt further.

        Raises:
            UserError: when another process has learnt it.
        """
        if self.before is None:
            raise UserError("another process has learnt this task: begin the rounds anew with --restart true")
        self.record.load_state_dict(deepcopy(self.before))

    def __call__(self, engine: ContinualTrainer) -> None:
        if not engine.learns_current_task:
            return
        learnt = engine.tasks[: engine.state.task]
        if engine.current_task.has_findings:
            self._record_findings(learnt)
        else:
            self._record_classes(engine, learnt)
        for thing in self.kept.values():
            if hasattr(thing, "measured"):
                self.record.figures |= thing.measured()
        self._record_cost(engine, learnt)

    def _record_findings(self, learnt: Sequence[Task]) -> None:
        names, sizes = [name for task in learnt for name in task.classes], [len(task.classes) for task in learnt]
        thresholds = self.rules.thresholds
        assert thresholds is not None
        found = self.predict(widened(_test_items(learnt), len(names)))
        nothing = torch.empty(0, len(names))  # where no test image is left
        labels, scores = (torch.cat([nothing, *batches]).numpy() for batches in (found.labels, found.scores))
        self.record.matrix.update(*decisions(labels, scores, thresholds), [2 * size for size in sizes])
        self.record.confusions.append(None)
        rows = finding_rows(labels, scores, names, thresholds)
        of_tasks = [rows[task.first : task.first + size] for task, size in zip(learnt, sizes, strict=True)]
        areas = [mean_of_rows(part, "auroc") for part in of_tasks]
        self.record.figures |= {
            "findings": rows,
            "mean_auroc": mean_of_rows(rows, "auroc"),
            "mean_average_precision": mean_of_rows(rows, "average_precision"),
            "auroc_matrix": [*self.record.figures.get("auroc_matrix", []), areas],
        }
        self.record.figures["auroc_forgetting"] = forgetting(self.record.figures["auroc_matrix"])

    def _record_classes(self, engine: ContinualTrainer, learnt: Sequence[Task]) -> None:
        sizes = [len(task.classes) for task in learnt]
        found = self.predict(_test_items(learnt))
        labels = _joined(found.labels).numpy()
        classes, within_tasks = _joined(found.classes).numpy(), _joined(found.within_tasks).numpy()
        self.record.update(labels, classes, within_tasks, sizes)
        skipped = len(learnt) - 1 - len(self.record.confusions)
        counts = confusion_matrix(labels, self.record.leading(classes, within_tasks), sum(sizes)).tolist()
        self.record.confusions = [*self.record.confusions, *[None] * skipped, counts]
        if found.others:
            self._record_tasks(found, sizes, _test_items(engine.tasks[engine.state.task :]))
        if found.softmax:
            classes = torch.cat(found.softmax).numpy()
            self.record.figures["softmax_accuracy"] = accuracy(labels, classes)
            self.record.figures["softmax_mean_class_recall"] = mean_class_recall(labels, classes)

    def predict(self, items: Sequence[Item]) -> Predictions:
        """Return what the network says of ``items``, of which each process looks at its share."""
        predictions = Predictions()
        loader = self.evaluator.data_loader
        loader.dataset.set_data(share(items))  # type: ignore[union-attr]
        self.evaluator.state.items = items
        self.evaluator.state.epoch_length = len(loader)  # type: ignore[arg-type]
        with self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, predictions.add):
            self.evaluator.run()
        predictions.gather(len(items))
        return predictions

    def _record_tasks(self, found: Predictions, sizes: Sequence[int], unknown: Sequence[Item]) -> None:
        labels, others = torch.cat(found.labels), torch.cat(found.others)
        identified = task_identification_accuracy(labels.numpy(), others.argmin(1).numpy(), sizes)
        known = 1 - others.amin(1)
        if unknown:
            foreign = self.predict(unknown)
            labels = torch.cat([labels, *foreign.labels])
            known = torch.cat([known, 1 - torch.cat(foreign.others).amin(1)])
        self.record.open_set.append(open_set_figures(labels.numpy(), known.numpy(), sum(sizes)))
        self.record.figures["task_identification_accuracy"] = identified
        self.record.figures["open_set"] = mean_open_set(self.record.open_set)

    def _record_cost(self, engine: ContinualTrainer, learnt: Sequence[Task]) -> None:
        plain = self.network.merge_and_unload([{"name": task.name, "classes": task.classes} for task in learnt])
        self.record.figures["flops_per_image"] = flops_per_image(plain, self.network.image_size)
        self.record.figures["parameters"] = parameter_count(plain)
        kept = [self.network, *self.kept.values(), *engine.train_handlers]
        sizes = [thing.kept_bytes() for thing in kept if hasattr(thing, "kept_bytes")]
        self.record.figures["memory_bytes"] = sum(sizes)


def _joined(batches: Sequence[Tensor]) -> Tensor:
    """Join class numbers; there are none where no test image is left."""
    return torch.cat([torch.empty(0, dtype=torch.long), *batches])


def _test_items(tasks: Sequence[Task]) -> list[Item]:
    return [item for task in tasks if testable(task) for item in task.test]
