"""The pictures: whole files of a sane size, the right colours in the right places, names that do not touch."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from scripts.metrics.calibration import reliability
from scripts.metrics.clinical import class_rows
from scripts.pictures.canvas import save_figure, spread, svg_of
from scripts.pictures.runs import (
    accuracy_figure,
    accuracy_matrix_figure,
    candidates_figure,
    choices_figure,
    confusion_figure,
    curves_figure,
    recall_figure,
    reliability_figure,
    retention_figure,
)

LONG = ["MHIST", "breast", "oral", "Patch_Camelyon", "TCGA_STD_with_a_name_nobody_would_choose", "lung", "colon"]
NAMES = [["only"], ["stripes", "rings", "checks", "blobs"], LONG, [f"task {number}" for number in range(25)]]


def draw_curves() -> Figure:
    row = {"stage": "training", "loss": 1.0, "learning_rate": 0.1, "validation_accuracy": 0.5}
    return curves_figure([{**row, "task": task, "epoch": epoch} for task in "ab" for epoch in (1, 2)])


def draw_recall() -> Figure:
    return recall_figure(class_rows([0, 0, 1], [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]], ["a", "b", "c"]), [2, 1])


def draw_reliability() -> Figure:
    return reliability_figure({"a": reliability([0, 1], [[0.9, 0.1], [0.6, 0.4]]), "b": reliability([0], [[1, 0]])})


def draw_retention() -> Figure:
    return retention_figure(rows_of(3), ["a", "b", "c"])


def rows_of(tasks: int) -> list[list[float | None]]:
    return [[0.9 - 0.02 * (i - j) if j <= i else None for j in range(tasks)] for i in range(tasks)]


def figures_of(names: list[str]) -> list[Figure]:
    stages = [0.9 - 0.02 * number for number in range(len(names))]
    return [
        accuracy_matrix_figure(rows_of(len(names)), names),
        accuracy_figure(stages, [0.8 * stage for stage in stages], names),
        confusion_figure(np.full((len(names), len(names)), 3), names),
        choices_figure([[0.1] * 10 for _ in names], names),
        candidates_figure([[verdict(0.02)] for _ in names], names),
    ]


def verdict(gain: float | None, error: float | None = 0.01, taken: bool = True) -> dict[str, object]:
    names = {"candidate": "tuned, 2 views", "against": "frozen, 2 views"}
    return {**names, "gain": gain, "standard_error": error, "taken": taken}


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Neighbouring tick labels whose boxes meet, on either axis; slanted ones are compared along the normal."""
    figure.draw_without_rendering()  # lays the labels out
    axes, found = figure.axes[0], []
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for first, second in zip(labels, labels[1:], strict=False):
            boxes = first.get_window_extent(), second.get_window_extent()
            if first.get_rotation():
                step = abs(boxes[1].x1 - boxes[0].x1) * np.sin(np.radians(first.get_rotation()))
                meets = step < 1.15 * float(first.get_fontsize()) * figure.dpi / 72
            else:
                meets = boxes[0].overlaps(boxes[1])
            if meets:
                found.append((first.get_text(), second.get_text()))
    return found


@pytest.mark.parametrize("names", NAMES, ids=lambda names: str(len(names)))
def test_pictures_open_and_names_do_not_touch(names: list[str], tmp_path: Path) -> None:
    for number, figure in enumerate(figures_of(names)):
        path = tmp_path / f"{number}.png"
        save_figure(path, figure)
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert all(400 <= side <= 3500 for side in picture.size)
        assert overlaps(figure) == []


def test_long_names_keep_their_beginning_and_end() -> None:
    names = [f"a_name_that_is_much_too_long_for_a_picture_{number}" for number in range(2)]
    labels = [
        label.get_text() for label in confusion_figure(np.eye(2, dtype=np.int64), names).axes[0].get_xticklabels()
    ]
    assert all(len(label) <= 24 and label.startswith("a_name_that") for label in labels)
    assert [label[-1] for label in labels] == ["0", "1"]


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    for number in range(len(figures_of(LONG))):
        for copy in "ab":
            save_figure(tmp_path / copy, figures_of(LONG)[number])
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def cell_colour(figure: Figure, row: int, column: int) -> tuple[int, ...]:
    """The colour near the corner of a cell, where no number stands."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    picture = Image.open(content).convert("RGB")
    x, y = figure.axes[0].transData.transform((column - 0.4, row - 0.4))
    pixel = picture.getpixel((int(x), picture.height - int(y)))
    assert isinstance(pixel, tuple)
    return pixel


def test_cells_not_measured_are_grey_and_say_so() -> None:
    rows = rows_of(3)
    rows[2][0] = None
    figure = accuracy_matrix_figure(rows, ["a", "b", "c"])
    assert cell_colour(figure, 0, 2) == cell_colour(figure, 2, 0) == (0xD9, 0xD9, 0xD9)
    red, green, blue = cell_colour(figure, 2, 2)
    assert blue > green > red
    assert [text.get_text() for text in figure.axes[0].texts] == ["90", "", "", "88", "90", "", "n/a", "88", "90"]


def test_a_candidate_has_a_point_a_task_once_classes_have_judged_and_a_full_one_where_it_was_taken() -> None:
    figure = candidates_figure([[verdict(None, None)], [verdict(0.02, 0.03, False)], [verdict(0.04)]], ["a", "b", "c"])
    points = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in points] == [(1, 2), (2, 4)]
    inside = [line.get_markerfacecolor() for line in points]
    assert inside[0] != inside[1] == points[1].get_color()


def test_lines_have_gaps_where_nothing_was_measured() -> None:
    figure = accuracy_figure([0.9, None, 0.5], [0.9, None, 0.4], ["a", "b", "c"])
    first, second = figure.axes[0].get_lines()
    assert np.asarray(first.get_ydata())[[0, 2]] == pytest.approx([90, 50])
    assert np.asarray(second.get_ydata())[[0, 2]] == pytest.approx([90, 40])
    assert np.isnan(np.asarray(first.get_ydata())[1])
    assert [text.get_text() for text in figure.axes[0].texts] == [
        *("90", "50", "40"),
        *("accuracy", "mean class recall"),
    ]


def test_alike_curves_are_one_line_and_others_are_named_where_they_end() -> None:
    (line,) = accuracy_figure([0.9, 0.5], [0.9, 0.5], ["a", "b"]).axes[0].get_lines()
    assert line.get_label() == "accuracy, and mean class recall"
    axes = accuracy_figure([0.9, 0.5], [0.9, 0.3], ["a", "b"], {"finetune": [0.9, 0.301]}).axes[0]
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts[-3:]}
    assert set(heights) == {"accuracy", "mean class recall", "finetune"}
    assert abs(heights["finetune"] - heights["mean class recall"]) >= 0.0599


@pytest.mark.parametrize("draw", [draw_curves, draw_recall, draw_reliability, draw_retention])
def test_what_is_drawn_of_a_run_is_on_axes_of_100(draw: Callable[[], Figure]) -> None:
    for axes in draw().axes:
        assert axes.get_ylim()[1] == 100 or axes.get_xlim()[1] == 100 or axes.get_ylabel() in ("loss", "learning rate")


def test_curves_of_tasks_stand_one_after_another() -> None:
    axes = draw_curves().axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2], [3, 4]]


def test_a_picture_in_a_page_takes_its_colours_and_shares_no_identifier() -> None:
    first, second = (svg_of(draw_retention(), name) for name in "ab")
    assert "var(--ink, #333333)" in first and not re.search(r": ?#333333", first)
    identifiers = [set(re.findall(r'id="([^"]+)"', text)) for text in (first, second)]
    assert not identifiers[0] & identifiers[1]
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', first)) <= identifiers[0]


@given(st.lists(st.floats(0, 100), max_size=12))
def test_names_are_moved_apart_and_no_further(wanted: list[float]) -> None:
    places = spread(wanted, 6, 0, 100)
    ordered = sorted(places)
    assert all(later - earlier >= 6 - 1e-6 for earlier, later in zip(ordered, ordered[1:], strict=False))
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in places)
    if all(abs(one - other) >= 6 for number, one in enumerate(wanted) for other in wanted[:number]):
        assert places == pytest.approx(wanted)


def test_confusion_is_coloured_by_share_and_a_class_without_images_is_grey() -> None:
    figure = confusion_figure(np.array([[1, 3, 0], [2, 6, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert cell_colour(figure, 0, 0) == cell_colour(figure, 1, 0)
    assert cell_colour(figure, 0, 1) == cell_colour(figure, 1, 1) != cell_colour(figure, 0, 0)
    assert cell_colour(figure, 2, 1) == (0xD9, 0xD9, 0xD9)


def test_a_hundred_classes_are_drawn_without_numbers(tmp_path: Path) -> None:
    figure = confusion_figure(np.eye(100, dtype=np.int64), [f"class {number}" for number in range(100)])
    save_figure(tmp_path / "large.png", figure)
    assert not figure.axes[0].texts
    assert overlaps(figure) == []
    assert (tmp_path / "large.png").stat().st_size < 1_000_000


def test_choices_are_coloured_by_their_part_and_a_task_without_images_is_grey() -> None:
    figure = choices_figure([[0.25, 0.75, 0.0], None], ["a", "b"])
    colours = [cell_colour(figure, 0, column) for column in range(3)]
    assert colours[1] < colours[0] < colours[2], "the more often, the darker"
    assert cell_colour(figure, 1, 0) == (217, 217, 217)
    assert [text.get_text() for text in figure.axes[0].texts] == ["25", "75", "0", "", "", ""]
    assert len(choices_figure([[1 / 80] * 80], ["a"]).axes[0].texts) == 0
