"""Convolutions keep the shape, hardly change the features at first, and have the published number of parameters."""

from __future__ import annotations

import pytest
import torch

from scripts.model.networks import AdaptedBackbone, Convolutions
from scripts.model.networks.adapters import ConvAdapter
from scripts.utils.errors import UserError


@pytest.mark.parametrize("channels", [1, 24, 64, 160])
def test_an_adapter_has_18cc_plus_6c_plus_1_parameters(channels: int) -> None:
    count = sum(parameter.numel() for parameter in ConvAdapter(channels, channels).parameters())
    assert count == 18 * channels**2 + 6 * channels + 1


@pytest.mark.parametrize("channels", [1, 24])
def test_an_adapter_of_volumes_has_54cc_plus_6c_plus_1_parameters(channels: int) -> None:
    count = sum(parameter.numel() for parameter in ConvAdapter(channels, channels, 3).parameters())
    assert count == 54 * channels**2 + 6 * channels + 1


@pytest.mark.parametrize(("width", "inside"), [(0.25, 16), (2.0, 128), (0.001, 1)])
def test_the_width_counts_in_channels_of_the_map(width: float, inside: int) -> None:
    backbone = AdaptedBackbone("resnet18", Convolutions(width), ["layer1"], ["task0"])
    count = sum(parameter.numel() for (adapter,) in backbone.added().values() for parameter in adapter.parameters())
    assert count == 2 * 9 * 64 * inside + 3 * (64 + inside) + 1


@pytest.mark.parametrize("width", [2, 8])
@pytest.mark.parametrize("shape", [(2, 8, 3, 3), (1, 8, 7, 4), (3, 8, 14, 14), (2, 8, 3, 3, 3), (1, 8, 7, 4, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_every_side_is_kept(width: int, shape: tuple[int, ...], training: bool) -> None:
    assert ConvAdapter(8, width, len(shape) - 2).train(training)(torch.randn(shape)).shape == shape


@pytest.mark.parametrize("shape", [(1, 8, 2, 3), (1, 8, 3, 2, 3)])
def test_a_map_below_three_pixels_does_not_go_through(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError):
        ConvAdapter(8, 8, len(shape) - 2)(torch.randn(shape))


def test_a_new_adapter_is_nearly_the_identity_yet_learns() -> None:
    torch.manual_seed(0)
    adapter, x = ConvAdapter(16, 16), torch.randn(4, 16, 9, 9)
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
    adapter, x = ConvAdapter(4, 4, dims).eval(), torch.randn(2, 4, *[5] * dims)
    convolution = {2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[dims]
    transposed = {2: torch.nn.functional.conv_transpose2d, 3: torch.nn.functional.conv_transpose3d}[dims]
    down, norm, _, up, last, _ = adapter.layers
    inner = norm(convolution(x, down.weight, down.bias)).relu()
    outer = last(transposed(inner, up.weight, up.bias)).relu()
    assert torch.equal(adapter(x), x + 0.02 * outer)


@pytest.mark.parametrize("width", [0, -1.0])
def test_a_width_of_nothing_is_refused(width: float) -> None:
    with pytest.raises(UserError, match=f"cannot have a width of {width}: use more than 0 .key 'adapter#width'"):
        Convolutions(width)


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t", "timm:test_vit", "timm:test_resnet", "vit_3d"])
def test_where_maps_are_not_a_convolutional_networks_they_are_refused(name: str) -> None:
    message = f"adapters 'conv' stand before a convolutional network's blocks, and {name} is none: list part 'lora'"
    with pytest.raises(UserError, match=message), torch.device("meta"):
        AdaptedBackbone(name, Convolutions(), image_size=32)


@pytest.mark.parametrize(
    ("name", "minimum", "site"),
    [("resnet18", 33, "layer4"), ("mobilenet_v2", 65, "features.15"), ("efficientnet_b0", 65, "features.8")],
)
def test_the_smallest_image_passes_and_one_pixel_less_is_refused(name: str, minimum: int, site: str) -> None:
    backbone = AdaptedBackbone(name, Convolutions(), branches=["task0"], image_size=minimum).eval()
    assert backbone(torch.zeros(1, 3, minimum, minimum)).isfinite().all()
    with pytest.raises(RuntimeError):
        backbone(torch.zeros(1, 3, minimum - 1, minimum - 1))
    # the minimum is that of the network, not of the first site that is too small
    for size, where in ((minimum - 1, f" .* before {site}"), (8, ""), (minimum // 2, "")):
        message = f"image_size {size} is too small for {name}.*{where} .* least {minimum} .key 'image_size'"
        with pytest.raises(UserError, match=message), torch.device("meta"):
            AdaptedBackbone(name, Convolutions(), image_size=size)


def test_without_adapters_small_images_are_welcome() -> None:
    assert AdaptedBackbone("mobilenet_v2", image_size=28)(torch.zeros(1, 3, 28, 28)).isfinite().all()
