"""The edge sees an image as training does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.edge.pixels import prepare
from scripts.transforms import NormalizePixelsd, ResizePixelsd

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (200, 333), (1000, 70), (30, 45), (1, 1), (64, 500)])
def test_a_picture_becomes_the_tensor_of_training(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = {"image": torch.from_numpy(picture).movedim(-1, 0).float()}
    expected = NormalizePixelsd("image", MEAN, STD)(ResizePixelsd("image", (64, 64))(image))["image"]
    found = prepare(picture, 64, np.array(MEAN, np.float32), np.array(STD, np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)
