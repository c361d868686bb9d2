"""The head's means are the exemplars' means, renewed when the memory has changed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import EvaluationHandler, MemoryHandler, NearestMeanHandler
from scripts.learning.memory import ExemplarMemory
from scripts.metrics import RunRecord
from scripts.model.decisions import DecisionRules
from scripts.utils.errors import UserError


def extractor(network: object, tiny: SimpleNamespace) -> FeatureExtractor:
    return FeatureExtractor(network, tiny.transform(), 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1)])
def test_the_run_decides_by_plain_nearest_means(sizes: tuple[int, ...], tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks, memory, record = tiny.tasks(tmp_path, sizes), ExemplarMemory(8), RunRecord()
    network = tiny.network("nearest_mean", adapter=None)
    features = extractor(network, tiny)
    handlers = [
        MemoryHandler(memory, network, features),
        EvaluationHandler(tiny.evaluator(network), network, record, {}, DecisionRules()),
        NearestMeanHandler(network, memory, features),  # attached last, as an overlay's handlers are
    ]
    stages = [tiny.stage(data="task_and_memory", trains=["backbone", "head"])]
    tiny.trainer(network, tasks, stages, handlers, memory).run()

    def lengths_of_one(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    means = [lengths_of_one(features(memory.classes[label]).numpy()).mean(0) for label in range(4)]
    test = [item for task in tasks for item in task.test]
    vectors, labels = features(test), np.array([item["label"] for item in test])
    distances = np.linalg.norm(lengths_of_one(vectors.numpy())[:, None] - lengths_of_one(np.stack(means)), axis=2)
    with torch.no_grad():
        scores = network.head.eval()(vectors[:, None])
        softmax = network.linear_layer()(vectors).argmax(1).numpy()
    assert np.array_equal(scores.argmax(1).numpy(), distances.argmin(1))
    assert np.allclose(scores.numpy(), -10 * distances**2, atol=1e-4)
    assert record.matrix.accuracies[-1] == np.mean(distances.argmin(1) == labels)
    assert record.figures["softmax_accuracy"] == np.mean(softmax == labels)
    plain = network.merge_and_unload([{"name": task.name, "classes": task.classes} for task in tasks])
    with torch.no_grad():
        assert torch.equal(plain.head(vectors[:, None]), scores)


def test_a_class_without_exemplars_keeps_its_mean(tmp_path: Path, tiny: SimpleNamespace) -> None:
    network, memory = tiny.network("nearest_mean", adapter=None, sizes=[2]), ExemplarMemory(4)
    items = tiny.tasks(tmp_path)[0].train
    memory.classes = {0: list(items[:2]), 1: []}
    before = network.head.means.clone()
    NearestMeanHandler(network, memory, extractor(network, tiny))()
    assert torch.equal(network.head.means[1], before[1])
    assert network.head.means[0].norm().item() == pytest.approx(1)


def test_another_head_is_refused_before_training(tiny: SimpleNamespace) -> None:
    network = tiny.network()
    with pytest.raises(UserError, match="needs a head of class means, not 'unified': choose one of nearest_mean .key"):
        NearestMeanHandler(network, ExemplarMemory(4), extractor(network, tiny))
