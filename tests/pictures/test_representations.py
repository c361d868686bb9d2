"""What a network has learnt, drawn: every class in the legend, every block in a column, every picture whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from scripts.pictures.canvas import save_figure
from scripts.pictures.representations import (
    alignment_figure,
    blocks_figure,
    features_figure,
    filters_figure,
    maps_figure,
)

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], 4)
TASKS = {"first": ["a", "b"], "second": ["c"]}


def of_features() -> Figure:
    return features_figure({"PCA": RNG.normal(size=(12, 2)), "t-SNE": RNG.normal(size=(12, 2))}, LABELS, TASKS)


def of_alignment() -> Figure:
    return alignment_figure({"now": [[1, None], [0.5, 0.25]], "later": [[1, 1], [0, 1]]}, ["x", "y"], ["one", "two"])


def of_blocks() -> Figure:
    return blocks_figure(np.array([[3, 1], [0, 0]]), ["x", "y"])


def of_maps() -> Figure:
    maps = RNG.random((9, 5, 7)).astype(np.float32)
    maps[4] *= 100
    return maps_figure(np.zeros((20, 30, 3), np.uint8), {"layer1": maps, "layer2": maps[:2]})


def of_filters() -> Figure:
    return filters_figure(RNG.random((70, 3, 7, 7)).astype(np.float32))


@pytest.mark.parametrize("draw", [of_features, of_alignment, of_blocks, of_maps, of_filters])
def test_pictures_open(draw: object, tmp_path: Path) -> None:
    assert callable(draw)
    save_figure(tmp_path / "a.png", draw())
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert min(picture.size) >= 200


def test_a_task_is_a_colour_and_a_class_a_marker() -> None:
    figure = of_features()
    looks = [(line.get_color(), line.get_marker()) for line in figure.axes[0].lines]
    assert looks[0][0] == looks[1][0] != looks[2][0] and looks[0][1] != looks[1][1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]


def test_blocks_and_shares_are_written() -> None:
    assert [text.get_text() for text in of_alignment().axes[0].texts] == ["1.00", "", "0.50", "0.25"]
    assert [text.get_text() for text in of_blocks().axes[0].texts] == ["75", "25", "", ""]


def test_the_maps_that_vary_most_are_shown_first() -> None:
    axes = of_maps().axes
    assert axes[1].get_title() == "channel 4"
    assert [one.get_visible() for one in axes[7:]] == [True] * 3 + [False] * 4


def test_filters_are_chosen_at_even_distances() -> None:
    shown = [axes for axes in of_filters().axes if axes.get_visible()]
    assert len(shown) == 64
    assert all(np.ptp(np.asarray(axes.images[0].get_array())) == pytest.approx(1, abs=0.01) for axes in shown)
