"""The pictures of a comparison: accuracy over tasks, accuracy against cost, forgetting. Nothing is drawn unmeasured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scripts.metrics.comparison import Results, mean_and_deviation, values_of
from scripts.metrics.plots import GREY, canvas, margin, numbers, per_cent_axis, write_ticks

_MARKERS = "osD^vPX*<>"


def accuracies_figure(results: Results) -> Figure:
    """Draw accuracy over all classes learnt, after each task: the mean over seeds in a band of one deviation.

    Args:
        results: see :data:`scripts.metrics.comparison.Results`.

    Returns:
        The picture; a method without results has no line, one that was measured once (joint) has a point.
    """
    names = _tasks(results)
    figure, axes = canvas(4.4 + 0.8 * len(names), 5.0 + (margin(names) / 2 if names else 0))
    places = np.arange(len(names))
    for method, runs in results.items():
        if not runs:
            continue
        rows = numbers([[*run["accuracies"], *[None] * (len(names) - len(run["accuracies"]))] for run in runs.values()])
        style = _style(results, method)
        mean = rows.mean(axis=0) * 100  # nan, and not drawn, where a seed lacks it
        axes.plot(places, mean, **style, linewidth=1.5, markersize=5, label=method)
        if len(rows) > 1:
            deviation = rows.std(axis=0, ddof=1) * 100
            axes.fill_between(places, mean - deviation, mean + deviation, color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xlim=(-0.5, max(len(names), 1) - 0.5), title="All classes learnt so far", xlabel="after learning")
    axes.set_ylabel("accuracy")
    if names:
        write_ticks(axes, "x", names)
    per_cent_axis(axes)
    _legend(axes)
    return figure


def cost_figure(results: Results) -> Figure:
    """Draw the last accuracy against the FLOPs of an image, both after the last task, with one deviation over seeds.

    Args:
        results: see :data:`scripts.metrics.comparison.Results`.

    Returns:
        The picture; a method that lacks either figure is not in it.
    """
    figure, axes = canvas(6.4, 4.8)
    for method in results:
        accuracy, deviation = mean_and_deviation(values_of(results, method, "final_accuracy"))
        flops, _ = mean_and_deviation(values_of(results, method, "flops_per_image"))
        if accuracy is not None and flops is not None:
            error = None if deviation is None else deviation * 100
            axes.errorbar(flops / 1e9, accuracy * 100, error, **_style(results, method), ls="", capsize=3, label=method)
    axes.set(title="Accuracy and cost after the last task", xlabel="GFLOPs an image (2 x multiply-adds)")
    axes.set_ylabel("accuracy")
    axes.set_xlim(left=0)
    per_cent_axis(axes)
    _legend(axes)
    return figure


def forgetting_figure(results: Results) -> Figure:
    """Draw a bar of forgetting a method, with one deviation over seeds.

    Args:
        results: see :data:`scripts.metrics.comparison.Results`.

    Returns:
        The picture; a method without the figure has no bar but a note.
    """
    names = list(results)
    figure, axes = canvas(5.0 + margin(names), 1.4 + 0.32 * len(names))
    for place, method in enumerate(names):
        mean, deviation = mean_and_deviation(values_of(results, method, "forgetting"))
        if mean is None:
            axes.text(0, place, " not measured", va="center", color="#777777", fontsize=9)
            continue
        error = None if deviation is None else deviation * 100
        axes.barh(place, mean * 100, xerr=error, color=_style(results, method)["color"], height=0.7, capsize=3)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set(title="Forgetting after the last task", ylim=(len(names) - 0.4, -0.6))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # 2.5 would be written as 2 %
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    write_ticks(axes, "y", names)
    axes.grid(axis="x", color=GREY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _tasks(results: Results) -> list[str]:
    """Return the names of the tasks of the run that learnt most of them."""
    listed = [[task["name"] for task in run["tasks"]] for runs in results.values() for run in runs.values()]
    return max(listed, key=len, default=[])


def _style(results: Results, method: str) -> Mapping[str, Any]:
    """Return a colour and a marker that are the method's in every picture; the eleventh has a paler first colour."""
    number = list(results).index(method)
    return {
        "color": colormaps["tab20"]((2 * number + number // 10) % 20),
        "marker": _MARKERS[(number + number // 10) % len(_MARKERS)],
    }


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(handles, labels, loc="outside right upper", frameon=False)
