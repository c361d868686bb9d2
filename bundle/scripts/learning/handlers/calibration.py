"""Fit what a finished network needs to be believed: a temperature, and the distance from which on it is not asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.shares import everyones, share
from scripts.learning.sources.source import Item
from scripts.learning.tasks.record import validation_items
from scripts.learning.tasks.task import Task
from scripts.metrics.calibration import (
    calibration_error,
    error_interval,
    errors_by_chance,
    fit_temperature,
    probabilities_at,
)
from scripts.metrics.record import RunRecord
from scripts.model.decisions import DecisionRules
from scripts.model.decisions.outliers import image_statistics, make_rule
from scripts.model.networks.continual import ContinualNet


class CalibrationHandler:
    """Calibrate the network on validation images once a task is learnt, and say which images it is not made for.

    Neither changes the network, or draws a random number of the training's. Validation images of earlier tasks are
    used as long as they are all there. Without any there is no temperature, and images learnt from say which distance
    is common. Scores of several findings an image have no temperature.

    Args:
        network: the growing network.
        features: computes features, and gives the images.
        record: takes the figures.
        rules: are fitted, and keep the sums over the images of each class.
    """

    def __init__(
        self,
        network: ContinualNet,
        features: FeatureExtractor,
        record: RunRecord,
        rules: DecisionRules,
    ) -> None:
        self.network = network
        self.features = features
        self.record = record
        self.rules = rules
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act at the end of a task, once the network is as it will be exported."""
        engine.add_event_handler(ContinualEvents.TASK_SETTLED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        if not engine.learns_current_task:
            return
        learnt = engine.tasks[: engine.state.task]
        items = self._validation_images(learnt)
        self.rules.reset()
        figures: dict[str, Any] = {"task": engine.current_task.name, "images": len(items)}
        if items and sum(self.network.classes) > 1 and not engine.current_task.has_findings:
            figures |= self._fit_temperature(items)
        if self.rules.acceptance is not None:
            figures |= self._fit_outliers(learnt, items, self.rules.acceptance)
        self.record.figures["calibration"] = [*self.record.figures.get("calibration", []), figures]

    def _validation_images(self, learnt: Sequence[Task]) -> list[Item]:
        for task in learnt:
            if task.validation and not validation_items([task]):
                self.logger.warning("Calibrated without %s: some of its validation images are gone.", task.name)
        return validation_items(learnt)

    @torch.no_grad()
    def _fit_temperature(self, items: Sequence[Item]) -> dict[str, Any]:
        features = self.features.features(items)[:, 0].to(self.features.device)
        logits = self.network.outputs(features).logits.double().cpu().numpy()
        if not np.isfinite(logits).all():
            self.logger.warning("No temperature is fitted: scores of the network are not finite (key 'optimizer#lr').")
            return {}
        labels = [item["label"] for item in items]
        temperature = fit_temperature(labels, logits)
        before, after = (probabilities_at(logits, value) for value in (1.0, temperature))
        self.rules.temperature = temperature
        low, high = error_interval(labels, after)
        figures = {
            "error_before": calibration_error(labels, before),
            "error_after": calibration_error(labels, after),
            "error_low": low,
            "error_high": high,
            "error_by_chance": float(errors_by_chance(after).mean()),
        }
        self.record.figures |= {f"calibration_{name}": value for name, value in figures.items()}
        return {"temperature": temperature, **figures}

    def _fit_outliers(self, learnt: Sequence[Task], items: Sequence[Item], acceptance: float) -> dict[str, Any]:
        sums, seen = self.rules.statistics, list[NDArray[np.float64]]()
        for task in learnt:
            if task.train and (task is learnt[-1] or task.first not in sums.sums):
                seen.append(self._statistics(task.train))
                # images with several findings are all of one kind, under the task's first
                labels = np.array([task.first if task.has_findings else item["label"] for item in task.train])
                for label in np.unique(labels):
                    sums.count(int(label), seen[-1][labels == label])
        typical = self._statistics(items) if items else np.concatenate(seen)
        self.rules.outliers = make_rule(sums, typical, acceptance)
        return {"outlier_threshold": self.rules.outliers.threshold}

    def _statistics(self, items: Sequence[Item]) -> NDArray[np.float64]:
        batches = self.features.images(share(items))
        own = np.stack([image_statistics(image) for batch in batches for image in batch.cpu().numpy()])
        return everyones(torch.from_numpy(own), len(items)).numpy()
