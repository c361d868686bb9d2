"""The pictures of a comparison: what was measured and nothing else, every method named, none over another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from scripts.pictures.canvas import save_figure
from scripts.pictures.comparison import accuracies_figure, cost_figure, forgetting_figure

LONG = "dynammo+lora+levels+ridge+without_memory"


def run(accuracy: float, **others: Any) -> dict[str, Any]:
    """What a run of three tasks wrote."""
    figures = {
        "tasks": [{"name": name, "classes": []} for name in ("a", "b", "c")],
        "accuracies": [1.0, (1 + accuracy) / 2, accuracy],
        "final_accuracy": accuracy,
        "forgetting": 1 - accuracy,
        "flops_per_image": 250_000_000,
    }
    return {**figures, **others}


RESULTS = {
    "dynammo": {1: run(0.5), 2: run(0.53), 3: run(0.56)},
    "acl": {1: run(0.55), 2: run(0.57), 3: run(0.625)},
    LONG: {1: run(0.2), 3: run(0.26)},
    "joint": {1: run(0.9, forgetting=None, accuracies=[None, None, 0.9])},
    "icarl": {},
}
MANY = {f"method {number}": {1: run(0.5)} for number in range(25)}


@pytest.mark.parametrize("results", [RESULTS, MANY, {"icarl": {}}], ids=["some", "many", "none"])
def test_pictures_open(results: Any, tmp_path: Path) -> None:
    for number, draw in enumerate((accuracies_figure, cost_figure, forgetting_figure)):
        save_figure(tmp_path / f"{number}.png", draw(results))
        with Image.open(tmp_path / f"{number}.png") as picture:
            picture.load()


def drawn(axes: Axes) -> dict[str, Any]:
    """The line of each method, by its name."""
    return {str(container.get_label()): container.lines[0] for container in axes.containers}


def test_pictures_show_what_was_measured_and_nothing_else() -> None:
    lines = drawn(accuracies_figure(RESULTS).axes[0])
    assert list(lines) == list(drawn(cost_figure(RESULTS).axes[0])) == ["dynammo", "acl", LONG, "joint"]
    assert lines["dynammo"].get_ydata() == pytest.approx([100, 76.5, 53])
    assert [math.isnan(value) for value in lines["joint"].get_ydata()] == [True, True, False]
    bars = forgetting_figure(RESULTS).axes[0]
    assert sorted(bar.get_width() for bar in bars.patches) == pytest.approx([41.833333, 47, 77])
    assert [text.get_text() for text in bars.texts] == [" not measured"] * 2


def test_no_curve_lies_on_another() -> None:
    alike = {name: {1: run(0.5)} for name in ("dynammo", "acl")}
    first, second = drawn(accuracies_figure(alike).axes[0]).values()
    assert np.all(np.abs(first.get_xdata() - second.get_xdata()) > 0.1)
    panels = [axes for axes in accuracies_figure(MANY).axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == list(MANY)


@pytest.mark.parametrize("draw", [accuracies_figure, cost_figure])
def test_every_method_is_named_whole_within_the_picture_and_no_name_touches_another(draw: Any) -> None:
    figure: Figure = draw({**RESULTS, "same": {1: run(0.53)}})
    figure.draw_without_rendering()
    names = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts if text.get_text()}
    assert set(names) == {"dynammo", "acl", LONG, "joint", "same"}
    boxes = list(names.values())
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    width, height = figure.get_size_inches() * figure.dpi
    assert all(0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height for box in boxes)


def test_a_method_looks_alike_in_every_picture_and_like_no_other() -> None:
    panels = [axes for axes in accuracies_figure(MANY).axes if axes.get_visible()]
    styles = [(line.get_color(), line.get_marker()) for axes in panels for line in drawn(axes).values()]
    assert len(set(styles)) == 25
    bars = [bar.get_facecolor() for bar in forgetting_figure(MANY).axes[0].patches]
    cost = [line.get_color() for line in drawn(cost_figure(MANY).axes[0]).values()]
    assert cost == [colour for colour, _ in styles]
    assert [matplotlib.colors.to_hex(bar) for bar in bars] == cost


def test_forgetting_below_zero_is_drawn_whole() -> None:
    axes = forgetting_figure({"dynammo": {1: run(0.5, forgetting=-0.1)}}).axes[0]
    assert axes.get_xlim()[0] < -10
