"""Calibrating after each task: from validation images alone, without touching what is learnt."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scripts.deploy.inference.loading import load_image_classifier
from scripts.learning.handlers import CalibrationHandler
from scripts.metrics.calibration import calibration_error, fit_temperature, probabilities_at
from scripts.model.decisions import DecisionRules
from scripts.model.decisions.outliers import distances, image_statistics
from scripts.model.folder import TrainedModel
from scripts.utils.errors import UserError


def test_every_task_has_its_temperature_and_its_errors(finished: SimpleNamespace) -> None:
    entries = finished.record.figures["calibration"]
    assert [(entry["task"], entry["images"]) for entry in entries] == [("set0", 4), ("set1", 8)]
    written = [json.loads((finished.folder / f"task_{n}" / "network.json").read_text()) for n in (0, 1)]
    assert [entry["temperature"] for entry in entries] == [description["temperature"] for description in written]
    assert finished.record.figures["calibration_error_after"] == entries[-1]["error_after"]


def test_the_figures_are_those_of_the_exported_model_on_the_validation_images(finished: SimpleNamespace) -> None:
    items = [item for task in finished.tasks for item in task.validation]
    classifier = load_image_classifier(finished.folder)
    images = torch.stack([torch.as_tensor(classifier.prepare({"image": item["image"]})["image"]) for item in items])
    with torch.no_grad():
        logits = classifier.network(images).numpy()
    labels = [item["label"] for item in items]
    entry = finished.record.figures["calibration"][-1]
    assert entry["temperature"] == pytest.approx(fit_temperature(labels, logits), rel=1e-3)
    assert entry["error_before"] == pytest.approx(calibration_error(labels, probabilities_at(logits, 1)), abs=1e-4)
    rule = TrainedModel.open(finished.folder).identity.outliers
    assert rule is not None
    far = distances(np.stack([image_statistics(image) for image in images.numpy()]), rule.means, rule.precision)
    assert np.sort(far) == pytest.approx(np.array(rule.reference), abs=1e-3)
    assert (far <= rule.threshold + 1e-4).mean() == 7 / 8  # the least share from the acceptance asked for, 3 / 4, on


def test_training_is_the_same_bit_by_bit_without_it(
    finished: SimpleNamespace, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CalibrationHandler, "__call__", lambda self, engine: None)
    run = tiny.run(finished.tasks, tmp_path)
    run.trainer.run()
    assert not tiny.changed_keys(run.network.state_dict(), finished.network.state_dict())
    assert run.record.matrix.state_dict() == finished.record.matrix.state_dict()


def test_without_validation_images_there_is_no_temperature_and_training_images_say_what_is_common(
    finished: SimpleNamespace, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    run = tiny.run([replace(task, validation=()) for task in finished.tasks[:1]], tmp_path)
    run.trainer.run()
    description = json.loads((tmp_path / "network.json").read_text())
    assert "temperature" not in description
    assert len(description["outliers"]["reference"]) == len(finished.tasks[0].train)


def test_validation_images_that_are_gone_are_said_to_be(
    finished: SimpleNamespace, tiny: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = replace(finished.tasks[0], validation=({"image": str(tmp_path / "gone.png"), "label": 0},))
    run = tiny.run([gone, finished.tasks[1]], tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        run.trainer.run()
    assert "Calibrated without set0: some of its validation images are gone." in caplog.text
    assert run.record.figures["calibration"][-1]["images"] == len(finished.tasks[1].validation)


@pytest.mark.parametrize("acceptance", [0.0, 1.5])
def test_an_acceptance_that_is_no_share_is_refused(acceptance: float) -> None:
    with pytest.raises(UserError, match="acceptance is .*key 'save#rules#acceptance'"):
        DecisionRules(acceptance)
