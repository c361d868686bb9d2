"""Pictures with heat over them, and as files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from scripts.imaging.drawing import png_bytes

PICTURE = np.random.default_rng(1).integers(0, 256, (50, 30, 3), dtype=np.uint8)


def test_a_png_holds_the_picture() -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(PICTURE)))), PICTURE)
