"""The pictures of what a network has learnt: features in the plane, blocks compared, feature maps, first filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from scripts.pictures.canvas import (
    COLOURS,
    DPI,
    INK,
    MARKERS,
    PAPER,
    canvas,
    heat_map,
    in_ink,
    margin,
    numbers,
    panels,
    shortened,
    write_name_ticks,
)
from scripts.utils.evenly import even_places


def features_figure(
    planes: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64], tasks: Mapping[str, Sequence[str]]
) -> Figure:
    """Draw features in the plane: a colour a task, a marker a class of it.

    Args:
        planes: [N, 2] each, by what they are; two side by side.
        labels: class numbers [N].
        tasks: the classes of each task, in the order of learning.
    """
    figure, listed = panels(len(planes), 3.7, 3.3, columns=2)
    looks = {
        label: (COLOURS[number % len(COLOURS)], MARKERS[place % len(MARKERS)], name)
        for number, (task, classes) in enumerate(tasks.items())
        for place, name in enumerate(classes)
        for label in [sum(map(len, list(tasks.values())[:number])) + place]
    }
    for axes, (title, plane) in zip(listed, planes.items(), strict=True):
        for label, (colour, marker, _) in looks.items():
            own = plane[labels == label]
            axes.plot(own[:, 0], own[:, 1], marker, color=colour, markersize=4.5, mec=PAPER, mew=0.4, alpha=0.9)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#b0b0b0")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=shortened(name))
        for colour, marker, name in looks.values()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8, labelcolor=INK)
    return figure


def alignment_figure(
    rows: Mapping[str, Sequence[Sequence[float | None]]], names: Sequence[str], blocks: Sequence[str]
) -> Figure:
    """Draw how alike merged and own features are after each block: linear CKA, 0..1.

    Args:
        rows: tables [T, B] by what they are, side by side.
        names: the T tasks' names.
        blocks: the B blocks' names.
    """
    width, height = 1.8 + 0.55 * len(blocks) + margin(names), 1.2 + 0.4 * len(names) + margin(blocks) / 2
    figure = Figure(figsize=(len(rows) * max(width, 3.6), max(height, 2.4)), dpi=DPI, layout="constrained")
    for axes, (title, table) in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True):
        values = numbers(table)
        text = [["" if np.isnan(cell) else f"{cell:.2f}" for cell in row] for row in values]
        heat_map(in_ink(axes), values, text, "CKA", (0, 1))
        write_name_ticks(axes, blocks, names)
        axes.set_title(title, fontsize=10, color=INK)
    return figure


def blocks_figure(counts: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Draw the confusion between tasks: the share of a task's images that are given a class of each task.

    Args:
        counts: [T, T], row = task of the true class, column = of the predicted one.
        names: the T tasks' names.
    """
    images = counts.sum(1, keepdims=True)
    shares = np.divide(counts * 100.0, images, out=np.full(counts.shape, np.nan), where=images > 0)
    figure, axes = canvas(1.8 + 0.75 * len(names) + margin(names), 1.3 + 0.6 * len(names) + margin(names) / 2)
    text = [["" if np.isnan(cell) else f"{cell:.0f}" for cell in row] for row in shares]
    heat_map(axes, shares, text, "share of the task's images (%)")
    write_name_ticks(axes, names, names)
    axes.set(title="Confusion between tasks", xlabel="given a class of", ylabel="of task")
    return figure


def maps_figure(picture: NDArray[np.uint8], levels: Mapping[str, NDArray[np.float32]], channels: int = 6) -> Figure:
    """Draw an image and, at each level of the network, the feature maps that vary most over it.

    Args:
        picture: uint8 ``[H, W, 3]``.
        levels: maps [c, h, w] by the name of their level.
        channels: maps a level.
    """
    rows = len(levels)
    figure = Figure(figsize=(1.3 * (channels + 1) + 0.6, 1.45 * rows + 0.3), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, channels + 1, squeeze=False)
    for row, (name, maps) in zip(grid, levels.items(), strict=True):
        order = np.argsort(-maps.reshape(len(maps), -1).var(1), kind="stable")[:channels]
        row[0].imshow(picture)
        row[0].set_ylabel(f"{shortened(name)}\n{len(maps)} x {maps.shape[1]} x {maps.shape[2]}", fontsize=8, color=INK)
        for axes, number in zip(row[1:], order, strict=False):
            axes.imshow(maps[number], cmap="viridis")
            axes.set_title(f"channel {number}", fontsize=7, color=INK, pad=2)
        for number, axes in enumerate(row):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_visible(number <= len(order))
    return figure


def filters_figure(weights: NDArray[np.float32], most: int = 64) -> Figure:
    """Draw the first filters of a network, each from its lowest to its highest value.

    Args:
        weights: [n, 3, h, w] in colours, or [n, 1, h, w] in greys.
        most: filters that are drawn, at even distances.
    """
    chosen = weights[even_places(len(weights), most)]
    low = chosen.min((1, 2, 3), keepdims=True)
    span = np.maximum(chosen.max((1, 2, 3), keepdims=True) - low, np.finfo(np.float32).tiny)
    shown = np.moveaxis((chosen - low) / span, 1, -1)
    figure, listed = panels(len(chosen), 0.55, 0.55, columns=16)
    for axes, one in zip(listed, shown, strict=True):
        axes.imshow(one if one.shape[-1] == 3 else one[..., 0], cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
    figure.suptitle(f"First filters, {len(chosen)} of {len(weights)}", fontsize=10, color=INK)
    return figure
