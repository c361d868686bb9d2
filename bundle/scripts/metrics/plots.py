"""The pictures of a run, drawn without pyplot so that no global state or display is touched."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from scripts.files import write_atomically

DPI = 150
GREY = "#d9d9d9"
COLOURS = ("#1f5fa8", "#d9661f")
_NAME_LENGTH = 24
_TASKS_WITH_TEXT, _CLASSES_WITH_TEXT, _MOST_TICKS = 20, 24, 48


def accuracy_matrix_figure(rows: Sequence[Sequence[float | None]], names: Sequence[str]) -> Figure:
    """Draw the accuracy matrix as a heat map in per cent; grey where nothing was measured.

    Args:
        rows: [T, T], row = after learning task i, column = on task j, 0..1 or None.
        names: the T tasks' names.

    Returns:
        The picture.
    """
    values = numbers(rows) * 100
    written = len(names) <= _TASKS_WITH_TEXT
    width, height = (0.75, 0.6) if written else (0.45, 0.25)  # a large picture takes seconds, after every task
    figure, axes = canvas(1.4 + width * len(names) + margin(names), 0.9 + height * len(names) + margin(names) / 2)
    text = [["" if np.isnan(cell) else f"{cell:.0f}" for cell in row] for row in values]
    for row in range(len(names)):
        for column in range(row + 1):
            text[row][column] = text[row][column] or "n/a"
    _heat_map(axes, values, text if written else None, "accuracy (%)")
    _name_ticks(axes, names, names)
    axes.set(title="Accuracy matrix", xlabel="on the test images of", ylabel="after learning")
    return figure


def accuracy_figure(
    accuracies: Sequence[float | None], recalls: Sequence[float | None], names: Sequence[str]
) -> Figure:
    """Draw accuracy and mean class recall over all classes learnt, after each task.

    Args:
        accuracies: T values, 0..1 or None (a gap).
        recalls: T values, 0..1 or None (a gap).
        names: the T tasks' names.

    Returns:
        The picture.
    """
    figure, axes = canvas(2.4 + 0.8 * len(names), 3.2 + margin(names) / 2)
    first, second = numbers([accuracies, recalls]) * 100
    places = np.arange(len(names))
    axes.plot(places, first, color=COLOURS[0], marker="o", linewidth=2, label="accuracy")
    axes.plot(places, second, color=COLOURS[1], marker="s", mfc="white", ls="--", lw=2, label="mean class recall")
    if len(names) <= _TASKS_WITH_TEXT:
        for place, (one, other) in enumerate(zip(first, second, strict=True)):
            _label_points(axes, place, one, other)
    axes.set(xlim=(-0.5, len(names) - 0.5), title="All classes learnt so far", xlabel="after learning")
    write_ticks(axes, "x", names)
    per_cent_axis(axes)
    axes.legend(loc="lower left", frameon=False)
    return figure


def confusion_figure(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts in the cells, coloured by the share of the true class.

    Args:
        counts: [C, C], row = true class, column = predicted class.
        classes: the C names.

    Returns:
        The picture; a row without images is grey.
    """
    images = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts * 100.0, images, out=np.full(counts.shape, np.nan), where=images > 0)
    side = min(0.55 * len(classes), 14.0)
    figure, axes = canvas(1.8 + side + margin(classes), 1.3 + side + margin(classes) / 2)
    _heat_map(axes, shares, counts.tolist() if len(classes) <= _CLASSES_WITH_TEXT else None, "share of the class (%)")
    _name_ticks(axes, classes, classes)
    axes.set(title="Confusion matrix", xlabel="predicted", ylabel="true class")
    return figure


def save_figure(path: str | os.PathLike[str], figure: Figure) -> None:
    """Write a picture as PNG, atomically; the same picture gives the same bytes.

    Args:
        path: the file.
        figure: the picture.

    Raises:
        UserError: as :func:`scripts.files.write_atomically`.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomically(path, content.getvalue())


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty picture of at least 4 x 3.2 inches, and its axes."""
    figure = Figure(figsize=(max(width, 4.0), max(height, 3.2)), dpi=DPI, layout="constrained")
    return figure, figure.add_subplot()


def numbers(rows: Sequence[Sequence[float | None]]) -> NDArray[np.float64]:
    """Return rows of one length as an array; None becomes nan."""
    return np.array([[math.nan if cell is None else cell for cell in row] for row in rows], dtype=np.float64)


def _heat_map(axes: Axes, values: NDArray[np.float64], text: Sequence[Sequence[object]] | None, legend: str) -> None:
    """Draw ``values`` (0..100, nan = grey) with ``text`` in the cells."""
    axes.set_facecolor(GREY)
    picture = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.figure.colorbar(picture, ax=axes, label=legend)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5 if text is not None else 0.3)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, cells in enumerate(text or []):
        for column, cell in enumerate(cells):
            colour = "white" if values[row, column] > 50 else "#333333"
            axes.text(column, row, str(cell), ha="center", va="center", color=colour, fontsize=9)


def _name_ticks(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    write_ticks(axes, "x", columns)
    write_ticks(axes, "y", rows)


def per_cent_axis(axes: Axes) -> None:
    """Let the y axis go from 0 to 100 %, with lines across."""
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(axis="y", color=GREY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write_ticks(axes: Axes, side: str, names: Sequence[str]) -> None:
    """Write names at the ticks: slanted where they would touch, every n-th where there are too many."""
    step = math.ceil(len(names) / _MOST_TICKS)
    places, shown = np.arange(0, len(names), step), [_shortened(name) for name in names[::step]]
    size = 9 if len(shown) <= _TASKS_WITH_TEXT else 7
    if side == "y":
        axes.set_yticks(places, shown, fontsize=size)
    elif max(map(len, shown)) <= 7:
        axes.set_xticks(places, shown, fontsize=size)
    else:
        axes.set_xticks(places, shown, fontsize=size, rotation=40, ha="right", rotation_mode="anchor")


def _shortened(name: str) -> str:
    # names often differ at the end only, so the middle goes
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH // 2]}…{name[1 - _NAME_LENGTH // 2 :]}"


def margin(names: Sequence[str]) -> float:
    """Inches that the longest name takes."""
    return 0.07 * max(len(_shortened(name)) for name in names)


def _label_points(axes: Axes, place: int, first: float, second: float) -> None:
    """Write the values beside their points: the higher above, the lower below, one only where they read the same."""
    points = [(value, colour) for value, colour in zip((first, second), COLOURS, strict=True) if not np.isnan(value)]
    points.sort(key=lambda point: -point[0])
    if len({f"{value:.0f}" for value, _ in points}) == 1:
        points = points[:1]
    for number, (value, colour) in enumerate(points):
        shift = (0, 7) if number == 0 else (0, -15)
        axes.annotate(
            f"{value:.0f}", (place, value), shift, textcoords="offset points", ha="center", color=colour, fontsize=9
        )
