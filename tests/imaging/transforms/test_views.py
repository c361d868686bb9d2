"""The finite views of an image are what its flips can make of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.transforms import Compose, RandFlipd, RandSpatialCropd

from scripts.imaging.transforms import flip_views, orientation_views, seen_as
from scripts.imaging.transforms.views import FlipDraw


@pytest.mark.parametrize("axes", [[1], [0, 1], [-1], [[0, 1]]])
def test_the_views_are_all_that_the_flips_make(axes: list[Any]) -> None:
    flips = [RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in axes]
    image = torch.arange(12.0).reshape(1, 3, 4)
    made = {str(image.tolist())}
    for seed in range(40):
        data = {"image": image}
        for number, flip in enumerate(flips):
            data = flip.set_random_state(seed * 7 + number)(data)
        made.add(str(data["image"].tolist()))
    views = flip_views(flips)
    assert views[0] == ()
    assert {str(image[None].flip(view)[0].tolist()) for view in views} == made
    assert len(views) == len(made) == 2 ** len(axes)


def test_what_has_no_end_is_left_out() -> None:
    assert flip_views([RandSpatialCropd("image", [2, 2])]) == [()]


@pytest.mark.parametrize("axes", [[], [1], [-1], [0, 1], [[0, 1], 1], [0, 1, 2]])
def test_a_view_is_drawn_from_the_flips_own_random_numbers(axes: list[Any]) -> None:
    flips = Compose([RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in axes])
    image, draw = torch.rand(1, 3, 4, 5), FlipDraw(flips.transforms)
    for seed in range(20):
        drawn = draw.views[(flips.set_random_state(seed), draw())[1]]
        flips.set_random_state(seed)
        assert torch.equal(torch.as_tensor(flips({"image": image})["image"]), image[None].flip(list(drawn))[0])


@pytest.mark.parametrize("axes", [[], [1], [-1], [0, 1], [-2, -1]])
def test_the_orientations_are_the_rotations_by_quarters_mirrored_or_not(axes: list[int]) -> None:
    flips = [RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in axes]
    views = [*flip_views(flips), *orientation_views(flips, 2)]
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    rotated = [side.rot90(turns, (2, 3)) for side in (image, image.flip(3)) for turns in range(4)]
    seen = [seen_as(image, view) for view in views]
    assert len(seen) == 8, "those of the flips are not among the others"
    assert {str(one.tolist()) for one in seen} == {str(one.tolist()) for one in rotated}


@pytest.mark.parametrize(("axes", "count"), [([], 8), ([2], 8), ([0], 16)])
def test_a_volume_is_turned_in_its_plane_alone(axes: list[int], count: int) -> None:
    flips = [RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in axes]
    views = [*flip_views(flips), *orientation_views(flips, 3)]
    volume = torch.arange(27.0).reshape(1, 1, 3, 3, 3)
    seen = [seen_as(volume, view) for view in views]
    slices = {str(sorted(one.flatten().tolist())) for one in volume[0, 0]}
    assert len({str(one.tolist()) for one in seen}) == len(seen) == count
    assert all({str(sorted(part.flatten().tolist())) for part in one[0, 0]} == slices for one in seen)
