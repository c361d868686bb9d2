"""What all pictures share: colours that colour-blind readers tell apart, axes, names at ticks, how they are kept."""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from scripts.utils.files import write_atomically

DPI = 150
INK, GREY, PAPER = "#333333", "#d9d9d9", "white"
"""Of text and lines, of rules and of what was not measured, and below all."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c510a", "#5e3c99", "#b2abd2")
"""Okabe and Ito's (Color universal design, 2008), and a few more that differ from them in lightness, too."""
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", "-.", ":")
Side = Literal["x", "y"]
_NAME_LENGTH = 24
_TASKS_WITH_TEXT, _MOST_TICKS = 20, 48
TASKS_WITH_TEXT = _TASKS_WITH_TEXT


def save_figure(path: str | os.PathLike[str], figure: Figure) -> None:
    """Write a picture as PNG, atomically; the same picture gives the same bytes.

    Args:
        path: the file.
        figure: the picture.

    Raises:
        UserError: as :func:`scripts.utils.files.write_atomically`.
    """
    write_atomically(path, png_of(figure))


def png_of(figure: Figure) -> bytes:
    """Return a picture as a PNG file holds it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def svg_of(figure: Figure, name: str) -> str:
    """Return a picture as an element of a page, whose colours and letters it takes.

    Args:
        figure: the picture; without a background of its own.
        name: another one for each picture of a page, so that no two share an identifier.
    """
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = content.getvalue()
    drawn = re.sub(r"\s*<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.S)
    drawn = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="width: \2pt" role="img"', drawn)
    drawn = re.sub(r'(<image [^>]*?) id="[^"]*"', r"\1", drawn)  # two alike would share one
    named = {INK: "ink", GREY: "rule", "#ffffff": "paper", **{one: f"c{n}" for n, one in enumerate(COLOURS)}}
    for own, name_of_page in named.items():
        drawn = re.sub(rf"(: ?){own}\b", rf"\1var(--{name_of_page}, {own})", drawn)
    return re.sub(r"(id=\"|url\(#|href=\"#)(?=[\w])", rf"\g<1>{name}-", drawn)


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Return a file as an address that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty picture of at least 4 x 3.2 inches, and its axes."""
    figure = Figure(figsize=(max(width, 4.0), max(height, 3.2)), dpi=DPI, layout="constrained")
    return figure, in_ink(figure.add_subplot())


def panels(count: int, width: float, height: float, columns: int = 3, **settings: Any) -> tuple[Figure, list[Axes]]:
    """Return a picture of ``count`` axes of one size, in inches, and these."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * width, rows * height), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **settings).ravel()
    for left in grid[count:]:
        left.set_visible(False)
    return figure, [in_ink(axes) for axes in grid[:count]]


def in_ink(axes: Axes) -> Axes:
    """Let axes and their names have the one colour of text."""
    axes.tick_params(which="both", colors=INK)
    axes.spines[:].set_color(INK)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
    return axes


def style(number: int) -> Mapping[str, Any]:
    """Return a colour, a marker and a line for the n-th of what is set side by side; no two of 40 are alike."""
    turn = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[(number + turn) % len(MARKERS)],
        "linestyle": LINES[turn % len(LINES)],
    }


def numbers(rows: Sequence[Sequence[float | None]]) -> NDArray[np.float64]:
    """Return rows of one length as an array; None becomes nan."""
    return np.array([[math.nan if cell is None else cell for cell in row] for row in rows], dtype=np.float64)


def heat_map(
    axes: Axes,
    values: NDArray[np.float64],
    text: Sequence[Sequence[object]] | None,
    legend: str,
    limits: tuple[float, float] = (0, 100),
) -> None:
    """Draw ``values`` (nan: grey) from pale to dark blue between ``limits``, with ``text`` in the cells."""
    axes.set_facecolor(GREY)
    low, high = limits
    picture = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=low, vmax=high, aspect="auto")
    bar = axes.figure.colorbar(picture, ax=axes, label=legend)
    in_ink(bar.ax)
    bar.outline.set_visible(False)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=1.5 if text is not None else 0.3)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, cells in enumerate(text or []):
        for column, cell in enumerate(cells):
            dark = values[row, column] > (low + high) / 2
            axes.text(
                column, row, str(cell), ha="center", va="center", color="#fefefe" if dark else "#303030", fontsize=9
            )


def write_name_ticks(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Write names at the ticks of both sides."""
    write_ticks(axes, "x", columns)
    write_ticks(axes, "y", rows)


def per_cent_axis(axes: Axes, side: Side = "y", every: int = 20) -> None:
    """Let an axis go from 0 to 100 %, with lines across; what stands at its ends is drawn whole."""
    axis = axes.yaxis if side == "y" else axes.xaxis
    (axes.set_ylim if side == "y" else axes.set_xlim)(0, 100)
    axis.set_ticks(range(0, 101, every))
    axis.set_major_formatter(PercentFormatter(decimals=0))
    ruled(axes, side)
    for drawn in (*axes.lines, *axes.collections):
        drawn.set_clip_on(False)


def ruled(axes: Axes, side: Literal["x", "y", "both"] = "y") -> None:
    """Draw lines across at the ticks of a side, and no frame."""
    axes.grid(axis=side, color=GREY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write_ticks(axes: Axes, side: str, names: Sequence[str]) -> None:
    """Write names at the ticks: slanted where they would touch, every n-th where there are too many."""
    step = math.ceil(len(names) / _MOST_TICKS)
    places, shown = np.arange(0, len(names), step), [shortened(name) for name in names[::step]]
    size = 9 if len(shown) <= _TASKS_WITH_TEXT else 7
    if side == "y":
        axes.set_yticks(places, shown, fontsize=size)
    elif max(map(len, shown)) <= 7:
        axes.set_xticks(places, shown, fontsize=size)
    else:
        axes.set_xticks(places, shown, fontsize=size, rotation=40, ha="right", rotation_mode="anchor")


def shortened(name: str) -> str:
    """Return a name that a picture has room for."""
    # names often differ at the end only, so the middle goes
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH // 2]}…{name[1 - _NAME_LENGTH // 2 :]}"


def wrapped(name: str) -> str:
    """Return the name of a method on lines of a few of its parts."""
    return re.sub(r"(.{1,22})(?:\+|$)", lambda part: f"{part[1]}\n+", name)[:-2]


def margin(names: Sequence[str]) -> float:
    """Inches that the longest name takes."""
    return 0.07 * max(len(shortened(name)) for name in names)


def name_at_the_right(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[Any]) -> list[Text]:
    """Write names right of axes of per cent at the height of their values, none over another; return what was written.

    Args:
        axes: 0 to 100 high.
        names: one for each value.
        values: 0..100.
        colours: of the names.
    """
    heights = spread(values, 6, 2, 98)
    return [
        axes.text(1.02, height / 100, name, transform=axes.transAxes, color=colour, fontsize=9, va="center")
        for name, height, colour in zip(names, heights, colours, strict=True)
    ]


def spread(wanted: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Move values apart until any two have ``least`` between them, each as little as can be, all within bounds.

    Args:
        wanted: where each would be.
        least: the distance that two need.
        low: none is below this, unless there is no room.
        high: none is above this.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    groups: list[list[int]] = []
    centre = {}
    for index in order:
        groups.append([index])
        centre[index] = wanted[index]
        while len(groups) > 1 and _top(groups[-2], centre, least) + least > _bottom(groups[-1], centre, least):
            last = groups.pop()
            groups[-1] += last
            centre[groups[-1][0]] = float(np.mean([wanted[member] for member in groups[-1]]))
    places = [0.0] * len(wanted)
    for group in groups:
        start = _bottom(group, centre, least)
        for number, index in enumerate(group):
            places[index] = start + number * least
    over = max([places[index] for index in order[-1:]], default=high) - high
    for turn, index in enumerate(reversed(order)):  # from the top down, then from the bottom up
        places[index] = min(places[index], high - turn * least) if over > 0 else places[index]
    for turn, index in enumerate(order):
        places[index] = max(places[index], low + turn * least)
    return places


def _bottom(group: Sequence[int], centre: Mapping[int, float], least: float) -> float:
    return centre[group[0]] - least * (len(group) - 1) / 2


def _top(group: Sequence[int], centre: Mapping[int, float], least: float) -> float:
    return centre[group[0]] + least * (len(group) - 1) / 2
