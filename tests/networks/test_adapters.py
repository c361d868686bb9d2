"""An adapter keeps the shape, hardly changes the features at first, and has the published number of parameters."""

from __future__ import annotations

import pytest
import torch

from scripts.errors import UserError
from scripts.networks import AdaptedBlock, make_adapter


@pytest.mark.parametrize("channels", [1, 24, 64, 160])
def test_an_adapter_has_18cc_plus_6c_plus_1_parameters(channels: int) -> None:
    count = sum(parameter.numel() for parameter in make_adapter("conv", channels).parameters())
    assert count == 18 * channels**2 + 6 * channels + 1


@pytest.mark.parametrize("channels", [1, 24])
def test_an_adapter_of_volumes_has_54cc_plus_6c_plus_1_parameters(channels: int) -> None:
    count = sum(parameter.numel() for parameter in make_adapter("conv", channels, spatial_dims=3).parameters())
    assert count == 54 * channels**2 + 6 * channels + 1


def test_the_bottleneck_has_a_quarter_of_the_width() -> None:
    count = sum(parameter.numel() for parameter in make_adapter("conv_bottleneck", 64).parameters())
    assert count == 2 * 9 * 64 * 16 + 3 * (64 + 16) + 1


@pytest.mark.parametrize("name", ["conv", "conv_bottleneck"])
@pytest.mark.parametrize("shape", [(2, 8, 3, 3), (1, 8, 7, 4), (3, 8, 14, 14), (2, 8, 3, 3, 3), (1, 8, 7, 4, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_every_side_is_kept(name: str, shape: tuple[int, ...], training: bool) -> None:
    assert make_adapter(name, 8, len(shape) - 2).train(training)(torch.randn(shape)).shape == shape


@pytest.mark.parametrize("shape", [(1, 8, 2, 3), (1, 8, 3, 2, 3)])
def test_a_map_below_three_pixels_does_not_go_through(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError):
        make_adapter("conv", 8, len(shape) - 2)(torch.randn(shape))


def test_a_new_adapter_is_nearly_the_identity_yet_learns() -> None:
    torch.manual_seed(0)
    adapter, x = make_adapter("conv", 16), torch.randn(4, 16, 9, 9)
    change = adapter(x) - x
    assert 0 < change.norm() < 0.03 * x.norm()
    adapter(x).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in weights(adapter))


def weights(adapter: torch.nn.Module) -> list[torch.Tensor]:
    """Biases before BatchNorm have no gradient but rounding."""
    return [parameter for parameter in adapter.parameters() if parameter.dim() != 1]


@pytest.mark.parametrize("dims", [2, 3])
def test_the_adapter_follows_its_equation(dims: int) -> None:
    torch.manual_seed(0)
    adapter, x = make_adapter("conv", 4, dims).eval(), torch.randn(2, 4, *[5] * dims)
    convolution = {2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[dims]
    transposed = {2: torch.nn.functional.conv_transpose2d, 3: torch.nn.functional.conv_transpose3d}[dims]
    down, norm, _, up, last, _ = adapter.layers
    inner = norm(convolution(x, down.weight, down.bias)).relu()
    outer = last(transposed(inner, up.weight, up.bias)).relu()
    assert torch.equal(adapter(x), x + 0.02 * outer)


def test_an_unknown_adapter_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match="unknown adapter 'linear': choose one of conv, conv_bottleneck"):
        make_adapter("linear", 8)


def test_a_block_goes_through_the_named_adapter_only() -> None:
    torch.manual_seed(0)
    block, x = AdaptedBlock(torch.nn.ReLU()), torch.randn(2, 4, 5, 5)
    for name in ("a", "b"):
        block.adapters[name] = make_adapter("conv", 4)
    block.eval()
    assert torch.equal(block(x, "a"), block.adapters["a"](x).relu())
    assert torch.equal(block(x, "b"), block.adapters["b"](x).relu())
    assert torch.equal(block(x, "none of them"), x.relu())
    assert not torch.equal(block(x, "a"), block(x, "b"))
