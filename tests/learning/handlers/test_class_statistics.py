"""The statistics of each class are those of its images' features when it was learnt, and they align the head."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from scripts.learning.engines import ContinualEvents
from scripts.learning.features import DrawnFeatures, FeatureExtractor, FeatureSums
from scripts.learning.features.drawn import class_normal
from scripts.learning.handlers import ClassStatisticsHandler
from scripts.learning.losses import newest_cross_entropy


def test_a_class_keeps_what_its_images_were_and_the_head_learns_from_draws(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks, network = tiny.tasks(tmp_path), tiny.network(adapter=None)
    tiny.awaken(network, tasks)
    sums, extractor = FeatureSums(apart=True), FeatureExtractor(network, tiny.transform(), 8)
    training = tiny.stage(trains=["backbone", "head"], loss=newest_cross_entropy)
    alignment = tiny.stage("balanced_finetuning", tasks="later", features=DrawnFeatures(sums, 16, seed=1))
    trainer = tiny.trainer(network, tasks, [training, alignment], [ClassStatisticsHandler(network, sums, extractor)])
    features: list[Tensor] = []
    seen: list[Tensor] = []
    trainer.add_event_handler(
        ContinualEvents.TRAINING_SETTLED, lambda: features.append(extractor(trainer.current_task.train))
    )
    trainer.add_event_handler(
        ContinualEvents.BALANCED_FINETUNING_PREPARED, lambda: seen.append(trainer.data_loader.dataset.features)
    )
    trainer.run()
    for label in range(4):
        own = features[label // 2].double().numpy()[6 * (label % 2) : 6 * (label % 2) + 6]
        mean, covariance = class_normal(sums, label)
        assert np.allclose(mean, own.mean(0), atol=1e-6)
        assert np.allclose(covariance, np.cov(own.T, bias=True), atol=1e-6)
    (drawn,) = seen  # in the second task alone
    assert drawn.shape == (4 * 16, 1, 1, sums.first.shape[1] - 1)
    assert torch.isfinite(network.linear_layer().weight).all()
