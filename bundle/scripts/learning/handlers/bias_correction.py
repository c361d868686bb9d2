"""Correct the head's preference for the newest classes on images that it was not trained on."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.stage import held_out_items
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.model.networks.continual import ContinualNet
from scripts.utils.errors import UserError


class BiasCorrectionHandler:
    """Fit alpha and beta of the newest logits, alpha * logit + beta, and fold them into the head's rows.

    Source: Wu et al., Large scale incremental learning (BiC, CVPR 2019), section 4.2.

    Args:
        network: the growing network, with one head over all classes.
        features: computes the features of the held-out images.
        deviation: standard deviation that alpha around 1 and beta around 0 are expected to have. It weighs with one
            image or so: a few held-out images, all classified right, would otherwise ask for an infinite alpha.
    """

    def __init__(self, network: ContinualNet, features: FeatureExtractor, deviation: float) -> None:
        self.network = network
        self.features = features
        self.deviation = deviation

    def attach(self, engine: ContinualTrainer) -> None:
        """Act once a task is trained.

        Raises:
            UserError: when a class has a single image, which cannot be held out and learnt from.
        """
        for task in engine.tasks:
            for label, images in Counter(item["label"] for item in task.train).items():
                if images < 2:
                    raise UserError(
                        f"class {task.classes[label - task.first]} of task {task.name} has a single training image: "
                        "BiC learns from one and holds one out, add an image or choose another method"
                    )
        engine.add_event_handler(ContinualEvents.TRAINING_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: ContinualTrainer) -> None:
        """Correct; the first task has no old classes."""
        first = engine.current_task.first
        if not first:
            return
        items = held_out_items(engine.tasks, engine.state.task, engine.memory)
        linear = self.network.linear_layer()
        logits = self.features(items).to(linear.weight) @ linear.weight.T + linear.bias
        labels = torch.tensor([item["label"] for item in items])
        alpha, beta = fit_bias(logits.cpu(), labels, first, self.deviation)
        linear.weight[first:] *= alpha
        linear.bias[first:] = alpha * linear.bias[first:] + beta


@torch.enable_grad()
def fit_bias(logits: Tensor, labels: Tensor, first: int, deviation: float) -> tuple[float, float]:
    """Return the most probable alpha and beta, whose prior is normal around 1 and 0.

    The problem is convex: it is solved, where the paper takes steps of gradient descent from there. With many images
    the prior does not count.

    Args:
        logits: [N, C].
        labels: class numbers, [N].
        first: the first of the newest classes, whose logits are corrected.
        deviation: of the prior, above 0.
    """
    old, new = logits.detach().double().split([first, logits.shape[1] - first], 1)
    start = torch.tensor([1.0, 0.0], dtype=torch.double)
    bias = start.clone().requires_grad_()
    solver = torch.optim.LBFGS([bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        corrected = torch.cat([old, bias[0] * new + bias[1]], 1)
        prior = ((bias - start) / deviation).square().sum() / 2
        value = cross_entropy(corrected, labels) + prior / len(labels)
        value.backward()
        return value

    solver.step(loss)
    alpha, beta = bias.tolist()
    return alpha, beta
