"""Keep steps short."""

from __future__ import annotations

from monai.engines.utils import IterationEvents
from torch.nn.utils import clip_grad_norm_

from scripts.learning.engines.trainer import ContinualTrainer
from scripts.utils.errors import UserError


class GradientClippingHandler:
    """Shorten each step's gradient, of all that learns together, to a norm.

    Args:
        norm: the most it may have, above 0.

    Raises:
        UserError: for a norm that is not above 0.
    """

    def __init__(self, norm: float) -> None:
        if norm <= 0:
            raise UserError(f"gradients cannot be clipped to a norm of {norm}: use more than 0 (key 'train#handlers')")
        self.norm = norm

    def attach(self, engine: ContinualTrainer) -> None:
        """Act between backward pass and step."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        clip_grad_norm_([value for value in engine.continual_network.parameters() if value.requires_grad], self.norm)
