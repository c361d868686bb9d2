"""The Fisher information of a linear softmax layer is known in closed form."""

from __future__ import annotations

import torch
from torch import nn

from scripts.model.networks.fisher import fisher_diagonal


def test_it_is_the_squared_gradients_of_drawn_labels() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    image = torch.tensor([[1.0, -2.0, 0.5]])
    found = fisher_diagonal(dict(layer.named_parameters()), layer, [image] * 4000)
    p = layer(image).softmax(1)[0].detach()
    expected = 4000 * p[0] * p[1] * image.square().expand(2, 3)  # the variance of the label, times x squared
    torch.testing.assert_close(found["weight"], expected, rtol=0.1, atol=0)
    torch.testing.assert_close(found["bias"], (4000 * p[0] * p[1]).expand(2), rtol=0.1, atol=0)


def test_it_draws_with_a_generator_of_its_own() -> None:
    layer = nn.Linear(3, 2)
    state = torch.get_rng_state()
    first, second = (fisher_diagonal(dict(layer.named_parameters()), layer, [torch.ones(1, 3)]) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
