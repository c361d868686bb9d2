"""Saliency: every pixel of the image is there, at its own size, beside the map over it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from scripts.pictures.saliency import overlay, saliency_sheet


def picture_of(high: int, wide: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (high, wide, 3), dtype=np.uint8)


def places_of(part: np.ndarray, whole: np.ndarray) -> list[list[int]]:
    """Where a picture stands in another, pixel for pixel: lists of top and left."""
    corner = part[:4, :4]
    windows = sliding_window_view(whole, corner.shape)[:, :, 0]
    found = np.argwhere((windows == corner).all((2, 3, 4)))
    high, wide = part.shape[:2]
    return [
        [top, left] for top, left in found.tolist() if np.array_equal(whole[top : top + high, left : left + wide], part)
    ]


@pytest.mark.parametrize(("high", "wide"), [(28, 28), (50, 30), (300, 512)])
def test_image_and_map_stand_side_by_side_at_the_images_own_size(high: int, wide: int) -> None:
    picture, heat = picture_of(high, wide), np.random.default_rng(2).random((high, wide))
    sheet = saliency_sheet(picture, heat, "a_$class$ with a long name", 0.8251)
    ((top, left),) = places_of(picture, sheet)
    ((same, right),) = places_of(overlay(picture, heat), sheet)
    assert same == top and right >= left + wide


def test_class_and_probability_are_written() -> None:
    picture, heat = picture_of(64, 64), np.ones((64, 64))
    sheets = [saliency_sheet(picture, heat, name, share) for name, share in (("a", 0.5), ("a", 0.6), ("b", 0.5))]
    tops = [sheet[:24] for sheet in sheets]
    assert not np.array_equal(tops[0], tops[1]) and not np.array_equal(tops[0], tops[2])


def test_each_note_is_written_below_and_covers_nothing() -> None:
    picture, heat = picture_of(64, 64), np.ones((64, 64))
    bare, one, other = (saliency_sheet(picture, heat, "a", 0.5, notes) for notes in ((), ("not verified",), ("no",)))
    assert one.shape[0] > bare.shape[0]
    assert not np.array_equal(one[bare.shape[0] :], other[bare.shape[0] :])
    assert np.array_equal(one[: bare.shape[0] - 12], other[: bare.shape[0] - 12])
    assert len(places_of(picture, one)) == len(places_of(overlay(picture, heat), one)) == 1
    long = saliency_sheet(picture, heat, "a", 0.5, ["W" * 200])
    assert (long[:, -6:] == 255).all(), "a long one ends within the picture"


def test_where_nothing_speaks_for_the_class_the_image_is_grey() -> None:
    flat = overlay(picture_of(9, 9), np.zeros((9, 9)))
    assert (flat[..., 0] == flat[..., 1]).all() and (flat[..., 1] == flat[..., 2]).all()
    high = overlay(np.zeros((9, 9, 3), np.uint8), np.ones((9, 9)))
    assert high[0, 0].tolist() == pytest.approx([0.65 * 253, 0.65 * 231, 0.65 * 37], abs=2)
