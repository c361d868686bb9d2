"""A chain is cut before the named blocks, and maps of all layouts become maps of places."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.model.networks.backbones import Block, Chain, Layout, cut
from scripts.model.networks.backbones.backbone import TokenPlaces, check_patches
from scripts.utils.errors import UserError


class Add(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(number))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.number


def chain() -> Chain:
    blocks = [Block(f"part.{number}", Add(10.0**number), f"{number}.") for number in range(4)]
    return Chain(blocks, Block("pool", nn.Identity(), ""), ["part.1"], [])


@pytest.mark.parametrize("at", [["part.1"], ["part.2", "part.1"], ["part.3", "part.2"]])
def test_all_blocks_stand_in_the_order_of_the_chain(at: list[str]) -> None:
    stem, parts = cut(chain(), at)
    assert list(parts) == sorted(at)
    x = stem(torch.tensor(0.0))
    assert x == sum(10**number for number in range(int(min(at)[-1])))
    for part in parts.values():
        (x,) = part(x)
    assert x == 1111
    assert [name for part in (stem, *parts.values()) for name, _ in part.named_children()] == [
        f"part_{number}" for number in range(4)
    ]


def test_a_file_may_hold_a_part_of_a_module() -> None:
    block = Block("whole", nn.Sequential(nn.Sequential(nn.Linear(1, 1))), "net.", "0.0")
    assert block.keys() == {"0.0.weight": "net.weight", "0.0.bias": "net.bias"}


@pytest.mark.parametrize("grid", [(2, 3), (2, 3, 4)])
def test_tokens_go_to_their_places_in_reading_order(grid: tuple[int, ...]) -> None:
    expected = torch.randn(2, 5, *grid)
    tokens = torch.cat([torch.full((2, 2, 5), 99.0), expected.flatten(2).transpose(1, 2)], 1)
    assert torch.equal(TokenPlaces(grid, special_tokens=2)(tokens), expected)


def test_channels_at_the_end_come_second() -> None:
    places = Chain([], Block("pool", nn.Identity(), ""), [], [], Layout.CHANNELS_LAST).places()
    assert torch.equal(places(torch.arange(24.0).view(1, 2, 3, 4))[0, :, 1, 2], torch.arange(20.0, 24.0))


@pytest.mark.parametrize(("size", "nearest"), [(225, 224), (8, 16), (41, 48), (39, 32)])
def test_a_size_that_does_not_divide_into_patches_is_refused_with_the_nearest(size: int, nearest: int) -> None:
    check_patches("vit_b_16", nearest, 16)
    with pytest.raises(UserError, match=f"image_size {size} is no multiple of 16, .*vit_b_16: use {nearest} "):
        check_patches("vit_b_16", size, 16)
