"""Where a network looks, beside what it looked at: both as large as the image, pixel for pixel, under their names."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from scripts.pictures.canvas import INK

MAP = "viridis"
OPACITY = 0.65
"""Of the colour where the map is highest."""
_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BAR = 14
_POINTS_A_PIXEL = 0.72  # at 100 dots an inch


def overlay(picture: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colour a picture, without its own colours, where a map is high.

    Args:
        picture: uint8 ``[H, W, 3]``.
        heat: ``[H, W]``, 0..1; where it is 0 the picture is only grey.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    grey = (picture @ np.array(_GREY_WEIGHTS))[..., None]
    colour = 255 * matplotlib.colormaps[MAP](np.asarray(heat, np.float64))[..., :3]
    share = OPACITY * np.asarray(heat, np.float64)[..., None]
    return np.rint(grey + share * (colour - grey)).astype(np.uint8)


def saliency_sheet(
    picture: NDArray[np.uint8],
    heat: NDArray[np.floating],
    predicted: str,
    probability: float,
    notes: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """Draw an image, the same under its map, the map's scale, and lines below.

    Args:
        picture: uint8 ``[H, W, 3]``.
        heat: ``[H, W]``, 0..1, of what speaks for the predicted class.
        predicted: the class.
        probability: of the class, 0..1.
        notes: what is to be known of the picture wherever it goes, a line each.

    Returns:
        uint8 ``[h, w, 3]``, larger than two images side by side; each pixel of the image is one pixel.
    """
    high, wide = picture.shape[:2]
    letter = int(np.clip(min(high, wide) // 24, 12, 40))
    gap, line = letter, 2 * letter
    title = f"{predicted}: {100 * probability:.1f} %"
    captions = ("image", "what speaks for the class") if heat.max() > 0 else ("image", "nothing speaks for it")
    ends = ("highest", "none")
    columns = [max(wide, _width(caption, letter)) for caption in captions]
    scale = _BAR + gap // 2 + _width("highest", letter)
    width = max(sum(columns) + 4 * gap + scale, *(_width(text, letter) + 2 * gap for text in (title, *notes)))
    foot = len(notes) * line
    height = 2 * line + max(high, 3 * line) + gap + foot
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    drawn = FigureCanvasAgg(figure)
    places = (gap, gap + columns[0] + gap)
    bottom = height - 2 * line - high
    for left, content in zip(places, (picture, overlay(picture, heat)), strict=True):
        figure.figimage(content, left, bottom, origin="upper")

    def write(text: str, left: float, top: float, weight: str = "normal") -> None:
        size = letter * _POINTS_A_PIXEL
        figure.text(
            left / width, 1 - top / height, text, fontsize=size, color=INK, va="center", weight=weight, parse_math=False
        )

    write(title, gap, line / 2, "bold")
    for left, caption in zip(places, captions, strict=True):
        write(caption, left, 1.5 * line)
    for number, note in enumerate(notes):
        write(note, gap, height - foot + (number + 0.5) * line - gap / 2)
    left = places[1] + columns[1] + gap
    tall = max(high, 3 * line)
    ramp = np.repeat(np.linspace(1, 0, tall)[:, None], _BAR, 1)
    grey = np.full((tall, _BAR, 3), 160, np.uint8)
    figure.figimage(overlay(grey, ramp), left, height - 2 * line - tall, origin="upper")
    for text, top in zip(ends, (2 * line + letter / 2, 2 * line + tall - letter / 2), strict=True):
        write(text, left + _BAR + gap / 2, top)
    drawn.draw()
    return np.asarray(drawn.buffer_rgba())[..., :3].copy()


def _width(text: str, letter: int) -> int:
    """Return how wide a text is at most, in pixels: as in bold."""
    font = FontProperties(size=letter, weight="bold")
    return math.ceil(text_to_path.get_text_width_height_descent(text, font, False)[0])
