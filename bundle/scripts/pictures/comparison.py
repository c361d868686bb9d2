"""The pictures of a comparison: accuracy over tasks, accuracy against cost, forgetting. Nothing is drawn unmeasured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.metrics.comparison import Results, mean_and_deviation, values_of
from scripts.pictures.canvas import (
    GREY,
    INK,
    PAPER,
    canvas,
    margin,
    name_at_the_right,
    numbers,
    panels,
    per_cent_axis,
    ruled,
    style,
    wrapped,
    write_ticks,
)

_TOGETHER = 6
"""So many methods are told apart in one picture of lines; more have a panel each."""


def accuracies_figure(results: Results) -> Figure:
    """Draw accuracy over all classes learnt, after each task: the mean over seeds, with one deviation.

    Few methods stand in one picture, a little beside each other, so that none hides another; of many each has a panel
    with the others behind it.

    Args:
        results: see :data:`scripts.metrics.comparison.Results`.

    Returns:
        The picture; a method without results has no line, one that was measured once (joint) has a point.
    """
    names, curves = _tasks(results), _curves(results)
    if len(curves) <= _TOGETHER:
        figure, axes = canvas(4.8 + 0.9 * len(names), 4.2 + (margin(names) / 2 if names else 0))
        _draw_curves(axes, results, curves, beside=True)
        axes.set(title="All classes learnt so far", xlabel="after learning")
        _name_ends(axes, curves, results)
        listed = [axes]
    else:
        height = 2.1 + margin(names) / 3
        figure, listed = panels(len(curves), 2.7, height, columns=4, sharex=True, sharey=True)
        for axes, method in zip(listed, curves, strict=True):
            for mean, _ in curves.values():
                axes.plot(np.arange(len(names)), mean, color=GREY, linewidth=1)
            _draw_curves(axes, results, {method: curves[method]})
            axes.set_title(wrapped(method), fontsize=9, color=INK)
        figure.supxlabel("after learning", fontsize=10, color=INK)
        figure.suptitle("Accuracy over all classes learnt so far; grey: the other methods", fontsize=11, color=INK)
    for axes in listed:
        axes.set_xlim(-0.4, max(len(names), 1) - 0.6)
        if names:
            write_ticks(axes, "x", names)
        per_cent_axis(axes)
    listed[0].set_ylabel("accuracy")
    return figure


Curves = Mapping[str, tuple[Any, Any]]


def _curves(results: Results) -> dict[str, tuple[Any, Any]]:
    """Return mean and deviation over the seeds, in per cent, [T] each, of each method with results."""
    tasks = len(_tasks(results))
    found = {}
    for method, runs in results.items():
        if runs:
            rows = numbers([[*run["accuracies"], *[None] * (tasks - len(run["accuracies"]))] for run in runs.values()])
            deviation = rows.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(tasks)
            found[method] = rows.mean(axis=0) * 100, deviation * 100  # nan, and not drawn, where a seed lacks it
    return found


def _draw_curves(axes: Axes, results: Results, curves: Curves, beside: bool = False) -> None:
    """Draw curves with bars of one deviation; ``beside``: each a little further to the right than the one before."""
    step = 0.36 / max(len(curves), 1) if beside else 0.0
    for number, (method, (mean, deviation)) in enumerate(curves.items()):
        places = np.arange(len(mean)) + step * (number - (len(curves) - 1) / 2)
        error = deviation if deviation.any() else None
        look = {**_style(results, method), "markeredgecolor": PAPER, "linewidth": 1.6, "markersize": 6}
        axes.errorbar(places, mean, error, capsize=2, elinewidth=1, label=method, **look)


def _name_ends(axes: Axes, curves: Curves, results: Results) -> None:
    """Write the name of each curve where it ends."""
    ends = {method: mean[np.flatnonzero(~np.isnan(mean))[-1:]] for method, (mean, _) in curves.items()}
    known = {method: float(values[0]) for method, values in ends.items() if len(values)}
    name_at_the_right(axes, list(known), list(known.values()), [_style(results, method)["color"] for method in known])


def cost_figure(results: Results) -> Figure:
    """Draw the last accuracy against the FLOPs of an image, both after the last task, with one deviation over seeds.

    Args:
        results: see :data:`scripts.metrics.comparison.Results`.

    Returns:
        The picture; every point has its method's name beside it. A method that lacks either figure is not in it.
    """
    figure, axes = canvas(7.4, 4.8)
    points: dict[str, tuple[float, float]] = {}
    for method in results:
        accuracy, deviation = mean_and_deviation(values_of(results, method, "final_accuracy"))
        flops, _ = mean_and_deviation(values_of(results, method, "flops_per_image"))
        if accuracy is not None and flops is not None:
            points[method] = flops / 1e9, accuracy * 100
            look = {**_style(results, method), "markeredgecolor": PAPER, "markersize": 8, "linestyle": ""}
            error = None if deviation is None else deviation * 100
            axes.errorbar(*points[method], error, capsize=3, label=method, **look)
    axes.set(title="Accuracy and cost after the last task", xlabel="GFLOPs an image (2 x multiply-adds)")
    axes.set_ylabel("accuracy")
    per_cent_axis(axes)
    ruled(axes, "both")
    most = max((flops for flops, _ in points.values()), default=1.0)
    axes.set_xlim(0, 1.05 * most)
    colours = [_style(results, method)["color"] for method in points]
    written = name_at_the_right(axes, list(points), [accuracy for _, accuracy in points.values()], colours)
    for text, (flops, accuracy) in zip(written, points.values(), strict=True):
        axes.annotate(
            "",
            (flops, accuracy),
            (1.015, text.get_position()[1]),
            textcoords=axes.transAxes,
            arrowprops={"arrowstyle": "-", "color": text.get_color(), "linewidth": 0.6, "alpha": 0.6, "shrinkB": 5},
        )
    return figure


def forgetting_figure(results: Results) -> Figure:
    """Draw a bar of forgetting a method, with one deviation over seeds.

    Args:
        results: see :data:`scripts.metrics.comparison.Results`.

    Returns:
        The picture; a method without the figure has no bar but a note.
    """
    names = list(results)
    figure, axes = canvas(5.0 + 0.07 * max(map(len, names), default=0), 1.4 + 0.32 * len(names))
    lowest = 0.0
    for place, method in enumerate(names):
        mean, deviation = mean_and_deviation(values_of(results, method, "forgetting"))
        if mean is None:
            axes.text(0, place, " not measured", va="center", color="#767676", fontsize=9)
            continue
        error = None if deviation is None else deviation * 100
        lowest = min(lowest, mean * 100 - (error or 0))
        axes.barh(place, mean * 100, xerr=error, color=_style(results, method)["color"], height=0.7, capsize=3)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(title="Forgetting after the last task", ylim=(len(names) - 0.4, -0.6))
    per_cent_axis(axes, "x")
    axes.set_xlim(left=lowest and lowest - 3)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _tasks(results: Results) -> list[str]:
    """Return the names of the tasks of the run that learnt most of them."""
    listed = [[task["name"] for task in run["tasks"]] for runs in results.values() for run in runs.values()]
    return max(listed, key=len, default=[])


def _style(results: Results, method: str) -> Mapping[str, Any]:
    """Return a colour, a marker and a line that are the method's in every picture."""
    return style(list(results).index(method))
