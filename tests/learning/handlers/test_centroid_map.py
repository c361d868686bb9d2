"""Class means follow a merge by how far the mean of the images at hand has moved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from scripts.learning.engines import ClosedForm, ContinualEvents
from scripts.learning.features import FeatureExtractor, FeatureSums
from scripts.learning.handlers import AdapterAveragingHandler, AdapterTuningHandler, CentroidMapHandler
from scripts.learning.handlers.closed_form import feature_vectors
from scripts.learning.losses import auxiliary_cross_entropy
from scripts.model.networks import Merging


def test_old_means_are_shifted_as_the_mean_of_the_new_images(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks, network = tiny.tasks(tmp_path), tiny.network("ncm")
    tiny.awaken(network, tasks)
    handler = CentroidMapHandler(network, FeatureSums(), FeatureExtractor(network, tiny.transform(), 8), 1)
    tuning = tiny.stage("adapter_tuning", trains=["adapter", "auxiliary"], loss=auxiliary_cross_entropy)
    handlers = [AdapterTuningHandler(network), AdapterAveragingHandler(network, Merging()), handler]
    trainer = tiny.trainer(network, tasks, [tuning, ClosedForm()], handlers)
    means, centroids = [], []

    def look() -> None:
        means.append(handler.sums.first[:2, :-1] / handler.sums.first[:2, -1:])
        centroids.append(feature_vectors(network.head, handler.features, tasks[1].train, [()])[:, :-1].mean(0))

    trainer.add_event_handler(ContinualEvents.TASK_COMPLETED, look)
    trainer.run()
    assert not torch.allclose(centroids[0], centroids[1], atol=1e-6), "the merge moves the features"
    assert torch.allclose(means[1], means[0] + centroids[1] - centroids[0], atol=1e-6)
    assert torch.allclose(network.head.means[:2].double(), means[1], atol=1e-5)
