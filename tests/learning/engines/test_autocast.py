"""Under autocast a network is nearly the same, and losses and handlers still see float32."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from scripts.learning.engines import AutocastInferer
from scripts.learning.losses import others_cross_entropy


def test_bfloat16_is_near_and_its_outputs_are_float32(images: Tensor, tiny: SimpleNamespace) -> None:
    network = tiny.network("others", sizes=[2, 2])
    network.merge()
    network.train_only(["head"])
    network.train()
    plain, cast = (AutocastInferer(enabled)(images, network) for enabled in (False, True))
    assert torch.equal(plain.logits, network(images).logits)
    assert not torch.equal(plain.features, cast.features)
    tensors = [cast.logits, cast.features, *cast.extras.values(), *cast.task_logits, *cast.maps]
    assert len(tensors) == 2 + 2 + 2 + 2
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    torch.testing.assert_close(cast.features, plain.features, rtol=0.1, atol=0.05)
    assert cast.classes == plain.classes
    others_cross_entropy(cast, torch.tensor([0, 1, 2, 3, 0])).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in network.head.parameters())
