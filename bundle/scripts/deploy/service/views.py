"""What a person looks at: pictures as bytes with what they mean, and small ones for a list."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.imaging.decoding.values import Values
from scripts.imaging.transforms.reader import read_picture

SMALLEST, LARGEST = 16, 256
"""Sides of a thumbnail, pixels."""
KEPT_BYTES = 2**26
"""Of the thumbnails that are kept."""
QUALITY = 85
"""Of their JPEG."""


@dataclass(frozen=True)
class View:
    """Pictures of one file.

    Attributes:
        content: little-endian values, ``[D, H, W]``, or ``[D, H, W, 3]`` for colours.
        about: ``shape``, ``bits`` (8 or 16) and the numbers of :class:`scripts.imaging.decoding.values.Values`.
    """

    content: bytes
    about: dict[str, Any]


def view_of_values(values: Values) -> View:
    """Return what was measured, 16 bits a value."""
    about = {"shape": list(values.steps.shape), "bits": 16, **values.numbers()}
    return View(values.steps.astype("<u2", copy=False).tobytes(), about)


def view_of_pixels(pictures: np.ndarray) -> View:
    """Return pixels as they are.

    Args:
        pictures: uint8 ``[D, H, W]`` or ``[D, H, W, 3]``; colours that are all grey become grey.
    """
    if pictures.ndim == 4 and bool((pictures == pictures[..., :1]).all()):
        pictures = pictures[..., 0]
    grey = Values(pictures, 0.0, 1.0, 0.0, 255.0)
    return View(pictures.tobytes(), {"shape": list(pictures.shape), "bits": 8, **grey.numbers()})


def view_of_file(path: Path) -> View:
    """Return the pixels of one of our files, a volume slice by slice."""
    if path.suffix == ".npy":
        return view_of_pixels(np.load(path, allow_pickle=False))
    return view_of_pixels(read_picture(str(path))[None])


class Thumbnails:
    """Draws images small, in few threads, and keeps what it drew: an image never changes.

    Args:
        kept_bytes: of those that are kept, the last that were asked for.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._size = 0
        self._access = threading.Lock()
        self._pool = ThreadPoolExecutor(2, "thumbnail")  # a large picture takes a hundred MB for a moment

    def get(self, path: Path, side: int, aspect: float = 1.0) -> bytes:
        """Return one of our files as a JPEG whose longer side has so many pixels.

        Args:
            path: the file.
            side: from `SMALLEST` to `LARGEST`.
            aspect: height of a pixel over its width.
        """
        key = (path.name, side)
        with self._access:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        content = self._pool.submit(_drawn, path, side, aspect).result()
        with self._access:
            if key not in self._kept:
                self._kept[key] = content
                self._size += len(content)
            while self._size > self.kept_bytes:
                self._size -= len(self._kept.popitem(last=False)[1])
        return content

    def close(self) -> None:
        """Finish what is at work."""
        self._pool.shutdown(cancel_futures=True)


def _drawn(path: Path, side: int, aspect: float) -> bytes:
    image = Image.fromarray(read_picture(str(path)))
    width, height = image.width, image.height * aspect
    scale = min(1.0, side / max(width, height))
    size = [max(1, round(scale * length)) for length in (width, height)]
    image = image.resize((size[0], size[1]), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
