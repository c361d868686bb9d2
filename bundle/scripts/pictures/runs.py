"""The pictures of a run: accuracy over tasks, confusion, recall, reliability, and the curves of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scripts.metrics.calibration import Bin
from scripts.metrics.clinical import ClassRow
from scripts.pictures.canvas import (
    COLOURS,
    GREY,
    INK,
    PAPER,
    TASKS_WITH_TEXT,
    canvas,
    heat_map,
    in_ink,
    margin,
    name_at_the_right,
    numbers,
    panels,
    per_cent_axis,
    ruled,
    shortened,
    write_name_ticks,
    write_ticks,
)

_CLASSES_WITH_TEXT = 24
_ALIKE = 0.5
"""Points of per cent that two curves must be apart somewhere to be drawn as two."""


def accuracy_matrix_figure(rows: Sequence[Sequence[float | None]], names: Sequence[str]) -> Figure:
    """Draw the accuracy matrix as a heat map in per cent; grey where nothing was measured.

    Args:
        rows: [T, T], row = after learning task i, column = on task j, 0..1 or None.
        names: the T tasks' names.

    Returns:
        The picture.
    """
    values = numbers(rows) * 100
    written = len(names) <= TASKS_WITH_TEXT
    width, height = (0.75, 0.6) if written else (0.45, 0.25)  # a large picture takes seconds, after every task
    figure, axes = canvas(1.4 + width * len(names) + margin(names), 0.9 + height * len(names) + margin(names) / 2)
    text = [["" if np.isnan(cell) else f"{cell:.0f}" for cell in row] for row in values]
    for row in range(len(names)):
        for column in range(row + 1):
            text[row][column] = text[row][column] or "n/a"
    heat_map(axes, values, text if written else None, "accuracy (%)")
    write_name_ticks(axes, names, names)
    axes.set(title="Accuracy matrix", xlabel="on the test images of", ylabel="after learning")
    return figure


def accuracy_figure(
    accuracies: Sequence[float | None],
    recalls: Sequence[float | None],
    names: Sequence[str],
    beside: Mapping[str, Sequence[float | None]] | None = None,
) -> Figure:
    """Draw accuracy and mean class recall over all classes learnt, after each task.

    Where the two are the same, as with as many test images of every class, they are one line.

    Args:
        accuracies: T values, 0..1 or None (a gap).
        recalls: T values, 0..1 or None (a gap).
        names: the T tasks' names.
        beside: accuracies of other runs of the same tasks, by what they are called.

    Returns:
        The picture.
    """
    lines = {"accuracy": accuracies, "mean class recall": recalls}
    first, second = numbers([accuracies, recalls]) * 100
    if np.array_equal(np.isnan(first), np.isnan(second)) and np.nanmax(np.abs(first - second), initial=0) < _ALIKE:
        lines = {"accuracy, and mean class recall": accuracies}
    lines = {**lines, **{name: list(values)[: len(names)] for name, values in (beside or {}).items()}}
    written = len(names) <= TASKS_WITH_TEXT
    figure, axes = canvas(4.2 + (0.8 if written else 0.4) * len(names), 3.2 + margin(names) / 2)
    places = np.arange(len(names))
    for number, (name, values) in enumerate(lines.items()):
        drawn = numbers([[*values, *[None] * (len(names) - len(values))]])[0] * 100
        look: dict[str, Any] = {"marker": "osD^v"[number % 5], "linestyle": ("-", "--", ":")[number % 3]}
        axes.plot(places, drawn, color=COLOURS[number], markeredgecolor=PAPER, linewidth=2, label=name, **look)
    axes.set(xlim=(-0.3, len(names) - 0.5), title="All classes learnt so far", xlabel="after learning")
    write_ticks(axes, "x", names)
    per_cent_axis(axes)
    if written:
        _label_points(axes, len(lines) - len(beside or {}))
    _name_lines(axes)
    return figure


def _label_points(axes: Axes, lines: int) -> None:
    """Write the values of the first lines at their points: the highest above, the others below, alike ones once."""
    values = np.array([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines[:lines]])
    for place, column in enumerate(values.T):
        texts: dict[str, tuple[float, Any]] = {}
        for number in np.argsort(-column)[: int((~np.isnan(column)).sum())]:
            texts.setdefault(f"{column[number]:.0f}", (float(column[number]), axes.lines[number].get_color()))
        for number, (text, (value, colour)) in enumerate(texts.items()):
            shift = (0, 7) if number == 0 and value < 94 else (0, -16)
            axes.annotate(
                text, (place, value), shift, textcoords="offset points", ha="center", color=colour, fontsize=9
            )


def _name_lines(axes: Axes) -> None:
    """Write the name of each line where it ends."""
    ends = []
    for line in axes.lines:
        values = np.asarray(line.get_ydata(), dtype=float)
        known = values[~np.isnan(values)]
        if len(known):
            ends.append((str(line.get_label()), float(known[-1]), line.get_color()))
    name_at_the_right(axes, [end[0] for end in ends], [end[1] for end in ends], [end[2] for end in ends])


def confusion_figure(
    counts: NDArray[np.int64], classes: Sequence[str], sizes: Sequence[int] = (), title: str = "Confusion matrix"
) -> Figure:
    """Draw a confusion matrix: counts in the cells, coloured by the share of the true class.

    Args:
        counts: [C, C], row = true class, column = predicted class.
        classes: the C names.
        sizes: number of classes of each task, between which lines are drawn.
        title: of the picture.

    Returns:
        The picture; a row without images is grey.
    """
    images = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts * 100.0, images, out=np.full(counts.shape, np.nan), where=images > 0)
    side = min(0.55 * len(classes), 14.0)
    figure, axes = canvas(1.8 + side + margin(classes), 1.3 + side + margin(classes) / 2)
    heat_map(axes, shares, counts.tolist() if len(classes) <= _CLASSES_WITH_TEXT else None, "share of the class (%)")
    for end in np.cumsum(sizes)[:-1]:
        for line in (axes.axhline, axes.axvline):
            line(end - 0.5, color=INK, linewidth=1.2)
    write_name_ticks(axes, classes, classes)
    axes.set(title=title, xlabel="predicted", ylabel="true class")
    return figure


def choices_figure(rows: Sequence[Sequence[float] | None], names: Sequence[str]) -> Figure:
    """Draw how often the images of each task choose each prompt; grey where there are no images.

    Args:
        rows: [T, P], the part of each prompt, 0..1, or None.
        names: the T tasks' names.

    Returns:
        The picture.
    """
    prompts = max((len(row) for row in rows if row is not None), default=1)
    values = numbers([[None] * prompts if row is None else row for row in rows]) * 100
    written = prompts <= TASKS_WITH_TEXT
    figure, axes = canvas(1.8 + (0.55 if written else 0.2) * prompts + margin(names), 1.4 + 0.6 * len(names))
    text = [["" if np.isnan(cell) else f"{cell:.0f}" for cell in row] for row in values]
    heat_map(axes, values, text if written else None, "part (%)")
    write_name_ticks(axes, [str(number) for number in range(prompts)], names)
    axes.set(title="How often each prompt is chosen", xlabel="prompt", ylabel="by the test images of")
    return figure


def candidates_figure(verdicts: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str]) -> Figure:
    """Draw what each candidate gains over the one that stood before it, with the standard error, a panel a candidate.

    A full point is one that was taken, an empty one was not; before two classes have judged there is none.

    Args:
        verdicts: after each task, see :class:`scripts.learning.features.CandidateSums`; at least one of each.
        names: the T tasks' names.
    """
    columns = 3 if len(names) <= TASKS_WITH_TEXT else 1
    size = 2.4 + 0.4 * len(names), 2.8 + margin(names) / 3
    figure, listed = panels(len(verdicts[0]), *size, columns, sharex=True, sharey=True)
    for axes, own in zip(listed, zip(*verdicts, strict=True), strict=True):
        ruled(axes)
        axes.axhline(0, color=INK, linewidth=1)
        for place, verdict in enumerate(own):
            if verdict["standard_error"] is not None:
                gain, error = 100 * verdict["gain"], 100 * verdict["standard_error"]
                inside = COLOURS[0] if verdict["taken"] else PAPER
                axes.errorbar(place, gain, error, fmt="o", color=COLOURS[0], markerfacecolor=inside, markersize=7)
        axes.set_title(f"{own[-1]['candidate']}, against {own[-1]['against']}", fontsize=9, color=INK)
        axes.set_xlim(-0.5, len(names) - 0.5)
        write_ticks(axes, "x", names)
    figure.supxlabel("after learning", fontsize=10, color=INK)
    figure.supylabel("error on left-out images falls by (%)", fontsize=10, color=INK)
    return figure


def recall_figure(rows: Sequence[ClassRow], sizes: Sequence[int]) -> Figure:
    """Draw what share of each class is found, with its 95 % interval, classes from the first learnt to the last.

    Args:
        rows: see :func:`scripts.metrics.clinical.class_rows`.
        sizes: number of classes of each task, whose colours differ.
    """
    names = [str(row["class"]) for row in rows]
    figure, axes = canvas(4.6 + margin(names), 1.2 + 0.3 * len(names))
    task = np.searchsorted(np.cumsum(sizes), np.arange(len(names)), side="right")
    for place, row in enumerate(rows):
        value, low, high = (row[name] for name in ("sensitivity", "sensitivity_low", "sensitivity_high"))
        if value is None or low is None or high is None:
            axes.text(1, place, "no test image", va="center", color="#767676", fontsize=9)
            continue
        middle, start, end = (100 * float(part) for part in (value, low, high))
        colour = COLOURS[int(task[place]) % len(COLOURS)]
        axes.plot([start, end], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot([middle], [place], "o", color=colour, markeredgecolor=PAPER, markersize=7)
    axes.set(title="Recall of each class, 95 % intervals", ylim=(len(names) - 0.4, -0.6))
    write_ticks(axes, "y", [f"{row['class']}" for row in rows])
    per_cent_axis(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def reliability_figure(bins: Mapping[str, Sequence[Bin]]) -> Figure:
    """Draw how often a model is right beside how sure it says it is, a panel a task.

    Args:
        bins: of the model after each task, see :func:`scripts.metrics.calibration.reliability`; empty bins are not
            drawn, and the more images a bin has the larger is its point.
    """
    figure, listed = panels(len(bins), 2.6, 2.7, columns=4, sharex=True, sharey=True)
    for axes, (name, own) in zip(listed, bins.items(), strict=True):
        most = max((one.images for one in own), default=1)
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, zorder=1)
        sure = [100 * one.confidence for one in own]
        right = [100 * one.accuracy for one in own]
        axes.vlines(sure, sure, right, color=COLOURS[1], linewidth=1, zorder=2)
        sizes = [12 + 90 * one.images / most for one in own]
        axes.scatter(sure, right, sizes, color=COLOURS[0], edgecolor=PAPER, linewidth=0.6, zorder=3)
        axes.set_title(f"after {shortened(name)}", fontsize=9, color=INK)
        per_cent_axis(axes, "x", every=50)
        per_cent_axis(axes, "y", every=50)
        axes.set_aspect("equal")
    figure.supxlabel("probability of the predicted class", fontsize=10, color=INK)
    figure.supylabel("share that is right", fontsize=10, color=INK)
    return figure


def retention_figure(rows: Sequence[Sequence[float | None]], names: Sequence[str]) -> Figure:
    """Draw how the accuracy on each task goes on once later ones are learnt, a panel a task but the last.

    Args:
        rows: the accuracy matrix, see :func:`accuracy_matrix_figure`.
        names: the T tasks' names, at least two.
    """
    values = numbers(rows) * 100
    figure, listed = panels(len(names) - 1, 2.6, 2.2 + margin(names) / 3, columns=4, sharey=True, sharex=True)
    for task, axes in enumerate(listed):
        places = np.arange(task, len(names))
        axes.plot(places, values[task:, task], "o-", color=COLOURS[0], markeredgecolor=PAPER, linewidth=2)
        axes.set_title(f"on {shortened(names[task])}", fontsize=9, color=INK)
        axes.set_xlim(-0.3, len(names) - 0.7)
        write_ticks(axes, "x", names)
        per_cent_axis(axes)
    figure.supxlabel("after learning", fontsize=10, color=INK)
    return figure


_CURVES = (("loss", "loss"), ("validation_accuracy", "validation accuracy"), ("learning_rate", "learning rate"))


def curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw loss, validation accuracy and learning rate of every epoch: a column a stage, its tasks one after another.

    Args:
        history: rows of ``history.csv``, see :class:`scripts.metrics.record.RunRecord`; at least one.
    """
    stages = list(dict.fromkeys(row["stage"] for row in history))
    shown = [(key, title) for key, title in _CURVES if any(row[key] is not None for row in history)]
    figure = Figure(figsize=(0.8 + 3.0 * len(stages), 0.8 + 1.7 * len(shown)), dpi=150, layout="constrained")
    grid = figure.subplots(len(shown), len(stages), squeeze=False, sharex="col")
    for column, stage in enumerate(stages):
        own = [row for row in history if row["stage"] == stage]
        tasks = [row["task"] for row in own]
        starts = [number for number, task in enumerate(tasks) if number == 0 or task != tasks[number - 1]]
        for line, (key, title) in enumerate(shown):
            axes = in_ink(grid[line, column])
            ruled(axes)
            values = numbers([[row[key] for row in own]])[0] * (100 if key == "validation_accuracy" else 1)
            for turn, (start, end) in enumerate(zip(starts, [*starts[1:], len(own)], strict=True)):
                mark = "o-" if end - start < 12 else "-"
                colour = COLOURS[turn % 2]
                axes.plot(np.arange(start, end) + 1, values[start:end], mark, color=colour, markersize=3, linewidth=1.5)
            if key == "validation_accuracy":
                per_cent_axis(axes)
            else:
                axes.set_ylim(bottom=min(0, np.nanmin(values)))
            if line == 0:
                axes.set_title(stage.replace("_", " "), fontsize=10, color=INK)
            if column == 0:
                axes.set_ylabel(title)
        bottom = grid[-1, column]
        bottom.set_xlabel("epoch, tasks one after another")
        bottom.set_xlim(0.5, len(own) + 0.5)
    return figure
