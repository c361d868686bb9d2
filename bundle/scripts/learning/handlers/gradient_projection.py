"""Keep each step from raising the loss on the exemplars of a past task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from monai.engines.utils import IterationEvents
from scipy.linalg import solve_triangular
from scipy.optimize import nnls
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import Dataset

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.finite_loss import check_finite
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.sources.source import Item
from scripts.model.networks.continual import ContinualNet
from scripts.utils.errors import UserError


class GradientProjectionHandler:
    """Project the gradient where it disagrees with that of a past task's exemplars, in the stage ``training``.

    Source: Lopez-Paz and Ranzato, Gradient episodic memory for continual learning (GEM, NeurIPS 2017), algorithm 1.
    There the task of an image is known and the logits of other tasks are masked; here the stage's loss is taken as it
    is, over all classes seen.

    A past task's exemplars pass without augmentation, and are normalised as a batch of their own like the images that
    are trained on. With BatchNorm's running statistics, which lag behind, the weights diverged. The running statistics
    themselves stay those of the images trained on.

    Args:
        network: the growing network.
        dataset: makes a data set of items, without augmentation.
        batch_size: exemplars of a past task that a step looks at, all or as many drawn anew.
        margin: the least weight of each past task's gradient in a projection, 0 or more.
        ridge: added to the diagonal of the gradients' inner products, above 0.

    Raises:
        UserError: for a negative margin or a ridge that is not above 0.
    """

    def __init__(
        self,
        network: ContinualNet,
        dataset: Callable[[Sequence[Item]], Dataset],
        batch_size: int,
        margin: float = 0.5,
        ridge: float = 1e-3,
    ) -> None:
        if margin < 0 or ridge <= 0:
            raise UserError(
                f"GEM with a margin of {margin} and a ridge of {ridge}: use a margin of 0 or more and a ridge above 0 "
                "(keys 'projection_margin', 'projection_ridge')"
            )
        self.network = network
        self.dataset = dataset
        self.batch_size = batch_size
        self.margin = margin
        self.ridge = ridge
        self.exemplars: list[tuple[Tensor, Tensor]] = []

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around the stage, and between backward pass and step."""
        engine.add_event_handler(ContinualEvents.TRAINING_STARTED, self.start)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)
        engine.add_event_handler(ContinualEvents.TRAINING_COMPLETED, self.exemplars.clear)

    def start(self, engine: ContinualTrainer) -> None:
        """Load the exemplars of each past task: images [n, ...] and labels [n]."""
        self.exemplars.clear()
        for task in engine.tasks[: engine.tasks_completed]:
            labels = range(task.first, task.first + len(task.classes))
            items = [item for item in engine.memory.items() if item["label"] in labels]
            if items:  # they can have been forgotten
                items = items * 2 if len(items) == 1 else items  # BatchNorm cannot normalise a map of one pixel
                dataset = self.dataset(items)
                images = torch.stack([dataset[position]["image"] for position in range(len(items))])
                self.exemplars.append((images, torch.tensor([item["label"] for item in items])))

    def __call__(self, engine: ContinualTrainer) -> None:
        """Project the gradients that the step is about to take."""
        if not self.exemplars:
            return
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        memory = torch.stack([_flat(torch.autograd.grad(loss, parameters)) for loss in self._losses(engine)])
        projected = project(_flat(gradients), memory, self.margin, self.ridge)
        if dist.is_initialized():  # rounding may differ between devices, but every process must take the same step
            dist.broadcast(projected, 0)
        for gradient, part in zip(gradients, projected.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _losses(self, engine: ContinualTrainer) -> Iterable[Tensor]:
        for images, labels in self.exemplars:
            chosen = torch.randperm(len(labels))[: self.batch_size].sort().values
            # running statistics move in copies that are thrown away
            buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
            outputs = functional_call(self.network, buffers, images[chosen].to(engine.state.device))
            loss = engine.loss_function(outputs, labels[chosen].to(engine.state.device))
            check_finite(engine, loss)
            yield loss


def project(gradient: Tensor, memory: Tensor, margin: float, ridge: float) -> Tensor:
    """Return the gradient itself where its inner product with each of the memory's is 0 or more, else g + G'v.

    v minimises 1/2 v'(GG' + ridge I)v + (Gg)'v with v >= margin; without margin and ridge g + G'v is the closest vector
    that has no negative inner product. Source: GEM, equation 11. The problem has a variable a past task; with
    LL' = GG' + ridge I and v = margin + u it is one of non-negative least squares, |L'u + L^-1 (LL' margin + Gg)|.

    Args:
        gradient: g, [P].
        memory: G, a gradient a past task, [T, P].
        margin: 0 or more.
        ridge: above 0, so that gradients that are equal leave a solution.
    """
    doubles = memory.double()  # a ridge of a thousandth is lost in the rounding of large products otherwise
    products = (doubles @ gradient.double()).cpu().numpy()
    if not (products < 0).any():
        return gradient
    gram = (doubles @ doubles.T).cpu().numpy() + ridge * np.eye(len(memory))
    root = np.linalg.cholesky(gram)
    least = np.full(len(memory), margin)
    above, _ = nnls(root.T, -solve_triangular(root, gram @ least + products, lower=True))
    weights = torch.from_numpy(least + above).to(doubles)
    return gradient + (weights @ doubles).to(gradient)


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
