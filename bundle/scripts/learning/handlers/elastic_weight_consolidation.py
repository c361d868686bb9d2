"""Hold each weight the nearer to where it was, the more the tasks before depend on it."""

from __future__ import annotations

from collections.abc import Mapping

from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.fisher import fisher_diagonal
from scripts.utils.errors import UserError


class ElasticWeightConsolidationHandler:
    """Add the gradient of strength / 2 * sum F (w - w*)^2 to each step of the stage ``training``.

    F is the diagonal of the Fisher information, of each task the mean over its images, summed over the tasks; w* are
    the weights after the task before. The rows of classes that are new in a task are free. Source: Kirkpatrick et al.,
    Overcoming catastrophic forgetting in neural networks (EWC, PNAS 2017), equation 3, with one penalty for all tasks
    as in Schwarz et al., Progress and compress (online EWC, ICML 2018), whose decay is 1 here.

    Args:
        network: the growing network.
        features: gives the images, without augmentation.
        strength: lambda of the penalty, above 0.

    Raises:
        UserError: for a strength that is not above 0.
    """

    def __init__(self, network: ContinualNet, features: FeatureExtractor, strength: float) -> None:
        if strength <= 0:
            raise UserError(f"EWC with a strength of {strength}: use a number above 0 (argument 'strength')")
        self.network = network
        self.features = features
        self.strength = strength
        self.importance: dict[str, Tensor] = {}
        self.anchors: dict[str, Tensor] = {}

    def attach(self, engine: ContinualTrainer) -> None:
        """Act between backward pass and step, and once a task is trained."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)
        engine.add_event_handler(ContinualEvents.TRAINING_COMPLETED, self.consolidate)

    def __call__(self) -> None:
        """Add the penalty's gradient; the first task has none."""
        for name, parameter in self._trained().items():
            if name in self.importance and parameter.grad is not None:
                importance = self.importance[name] = self.importance[name].to(parameter)
                anchor = self.anchors[name] = self.anchors[name].to(parameter)
                old = len(importance)  # a head has grown since
                parameter.grad[:old] += self.strength * importance * (parameter.detach()[:old] - anchor)

    def consolidate(self, engine: ContinualTrainer) -> None:
        """Measure how much the task depends on each weight, and remember where the weights are."""
        self.network.eval()
        items, trained = engine.current_task.train, self._trained()
        images = self.features.images(items, batch_size=1)
        for name, summed in fisher_diagonal(trained, lambda image: self.network(image).logits, images).items():
            fisher = summed / len(items)
            if name in self.importance:
                fisher[: len(self.importance[name])] += self.importance[name].cpu()
            self.importance[name] = fisher
            self.anchors[name] = trained[name].detach().cpu().clone()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return importance and place of each weight."""
        return {"importance": dict(self.importance), "anchors": dict(self.anchors)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.importance, self.anchors = dict(state["importance"]), dict(state["anchors"])

    def kept_bytes(self) -> int:
        """Return the bytes that are kept between tasks."""
        return sum(tensor.nbytes for tensor in (*self.importance.values(), *self.anchors.values()))

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}
