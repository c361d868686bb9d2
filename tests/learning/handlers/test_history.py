"""An epoch is noted once, with what it reached, and training is what it would be without."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events

from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import AdapterTuningHandler, BackboneTrainingHandler, CheckpointHandler, HistoryHandler
from scripts.metrics import RunRecord
from scripts.model.networks import NetworkState


def learnt(folder: Path, tiny: SimpleNamespace, images: int | None, handlers: list[Any] | None = None) -> Any:
    """Train DynaMMo's stages on two tasks; return the network and the record."""
    record, network = RunRecord(), tiny.network()
    noted = [] if images is None else [HistoryHandler(record, FeatureExtractor(network, tiny.transform(), 4), images)]
    own = [BackboneTrainingHandler(network), AdapterTuningHandler(network), *(handlers or []), *noted]
    trainer = tiny.trainer(network, tiny.tasks(folder / "images"), tiny.stages()[:2], own)
    return SimpleNamespace(network=network, record=record, trainer=trainer)


def test_every_epoch_of_every_stage_has_a_row(tmp_path: Path, tiny: SimpleNamespace) -> None:
    run = learnt(tmp_path, tiny, images=4)
    losses: list[float] = []
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    run.trainer.run()
    rows = run.record.history
    assert [(row["task"], row["stage"], row["epoch"]) for row in rows] == [
        ("set0", "backbone_training", 1),
        *(("set0", "adapter_tuning", epoch) for epoch in (1, 2)),
        *(("set1", "adapter_tuning", epoch) for epoch in (1, 2)),
    ]
    assert rows[0]["loss"] == pytest.approx(sum(losses[:3]) / 3)  # 12 images in batches of 4
    assert [row["learning_rate"] for row in rows[1:]] == pytest.approx([0.02, 0.002] * 2)
    assert all(row["validation_accuracy"] in (0, 0.25, 0.5, 0.75, 1) for row in rows)


def test_training_is_the_same_with_and_without_validation(tmp_path: Path, tiny: SimpleNamespace) -> None:
    states = []
    for images in (None, 0, 3):
        run = learnt(tmp_path, tiny, images)
        run.trainer.run()
        states.append(run.network.state_dict())
        assert all(row["validation_accuracy"] is None for row in run.record.history) or images
    for state in states[1:]:
        assert all(torch.equal(value, state[key]) for key, value in states[0].items())


def test_a_head_is_measured_on_features_that_are_computed_once(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, network = RunRecord(), tiny.network()
    features = FeatureExtractor(network, tiny.transform(), 4)
    asked: list[int] = []
    load = features.images
    monkeypatch.setattr(features, "images", lambda items, *size: asked.append(len(items)) or load(items, *size))
    tasks = tiny.tasks(tmp_path)
    trainer = tiny.trainer(network, tasks, [tiny.stage(epochs=3)], [HistoryHandler(record, features, 100)])
    trainer.run()
    assert asked == [4, 4]  # all validation images of the classes learnt, those of the first task once
    images = torch.cat(list(features.images([item for task in tasks for item in task.validation])))
    network.eval()
    right = network(images).logits.argmax(1) == torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    assert record.history[-1]["validation_accuracy"] == pytest.approx(right.double().mean().item())


def test_images_that_are_gone_are_not_asked_for(tmp_path: Path, tiny: SimpleNamespace) -> None:
    record, network = RunRecord(), tiny.network()
    tasks = tiny.tasks(tmp_path)
    Path(tasks[0].validation[0]["image"]).unlink()
    trainer = tiny.trainer(
        network, tasks, [tiny.stage()], [HistoryHandler(record, FeatureExtractor(network, tiny.transform(), 4), 9)]
    )
    trainer.run()
    assert [row["validation_accuracy"] is None for row in record.history] == [True, False]


def test_what_goes_on_after_an_epoch_has_each_row_once(tmp_path: Path, tiny: SimpleNamespace) -> None:
    def trainer(record: RunRecord) -> Any:
        network = tiny.network()
        saved = {"network": NetworkState(network), "record": record}
        handlers = [
            CheckpointHandler(str(tmp_path / "run"), saved, config={}),
            HistoryHandler(record, FeatureExtractor(network, tiny.transform(), 4), 4),
        ]
        return tiny.trainer(network, tiny.tasks(tmp_path), [tiny.stage(epochs=3)], handlers)

    whole, halves = RunRecord(), RunRecord()
    killed = trainer(RunRecord())

    def die(engine: Any) -> None:
        if (engine.state.task, engine.state.epoch) == (2, 2):
            raise KeyboardInterrupt

    killed.add_event_handler(Events.ITERATION_COMPLETED(every=3), die)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    trainer(halves).run()
    (tmp_path / "run").rename(tmp_path / "gone")
    trainer(whole).run()
    assert halves.history == whole.history
    assert len(halves.history) == 6
