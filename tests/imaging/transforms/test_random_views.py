"""Views of images and volumes: their shape, their range, and their chance."""

from __future__ import annotations

import pytest
import torch

from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.transforms import RandomViews

IMAGES = ImageSpec(40, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
VOLUMES = ImageSpec(16, [0.5], [0.5], dimensions=3)


@pytest.mark.parametrize("spec", [IMAGES, VOLUMES])
def test_views_have_the_images_shape_and_differ(spec: ImageSpec) -> None:
    torch.manual_seed(0)
    images = torch.rand(3, *spec.shape)
    views = RandomViews(spec)
    first, second = views(images), views(images)
    assert first.shape == second.shape == images.shape
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    again = views(images)
    torch.manual_seed(1)
    assert torch.equal(views(images), again)


def test_colours_change_before_they_are_normalised() -> None:
    torch.manual_seed(0)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGES.mean, IMAGES.std))
    pixels = torch.rand(8, *IMAGES.shape)
    seen = RandomViews(IMAGES)((pixels - mean) / std) * std + mean
    assert seen.min() > -1e-5
    assert seen.max() < 1 + 1e-5


def test_grey_views_have_one_colour() -> None:
    torch.manual_seed(0)
    spec = ImageSpec(40, [0.0] * 3, [1.0] * 3)
    seen = RandomViews(spec, jittered=0, grey=1)(torch.rand(2, *spec.shape))
    torch.testing.assert_close(seen[:, 0], seen[:, 1])
