"""How a stage calls the network: in single precision, or in bfloat16 where that is precise enough."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from scripts.model.networks.outputs import Outputs


class AutocastInferer(Inferer):
    """Call the network under torch's autocast to bfloat16, on any device, and return its outputs in float32.

    MONAI's ``amp`` is for CUDA alone. bfloat16 has float32's range: gradients need no scaling.

    Args:
        enabled: whether to cast; the network is called as it is where not.
    """

    def __init__(self, enabled: bool = False) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Outputs:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.enabled):
            outputs: Outputs = network(inputs, *args, **kwargs)
        return outputs.in_single_precision() if self.enabled else outputs
