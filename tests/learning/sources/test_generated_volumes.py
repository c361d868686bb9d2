"""The embedded volumes: the same by seed, in MedMNIST's layout, written once, and no two classes alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.imaging.transforms import read_volume
from scripts.learning.sources import GeneratedVolumes, MedMnist
from scripts.learning.sources.generated_volumes import SHAPES, SIDE, draw_volume
from scripts.learning.tasks import make_tasks
from scripts.utils.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> GeneratedVolumes:
    return GeneratedVolumes(str(tmp_path / "new"), seed=3, train_per_class=3, test_per_class=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_volume_depends_on_seed_split_and_number_alone(shape: str) -> None:
    first = draw_volume(shape, seed=0, split=0, number=0)
    assert first.shape == (SIDE, SIDE, SIDE)
    assert first.dtype == np.uint8
    assert np.array_equal(first, draw_volume(shape, seed=0, split=0, number=0))
    for seed, split, number in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.array_equal(first, draw_volume(shape, seed, split, number))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_solid_is_brighter_than_what_surrounds_it(shape: str) -> None:
    for number in range(4):
        volume = draw_volume(shape, 0, 0, number)
        corners = volume[:: SIDE - 1, :: SIDE - 1, :: SIDE - 1]
        assert np.sort(volume, axis=None)[-100:].mean() > corners.mean() + 60


def test_the_file_has_medmnists_layout_and_the_same_items(source: GeneratedVolumes) -> None:
    own, read = make_tasks(source.groups(), 2), make_tasks(MedMnist(source.root, source.file()).groups(), 2)
    assert [task.train for task in own] == [task.train for task in read]
    assert [task.test for task in own] == [task.test for task in read]
    assert [task.classes for task in own] == [("ball", "rod"), ("cube", "ring"), ("shell", "plate")]
    assert np.array_equal(read_volume(own[1].test[-1]["image"]), draw_volume("ring", 3, 1, 1))


def test_the_file_is_written_once_and_named_after_its_content(source: GeneratedVolumes) -> None:
    written = Path(source.file()).stat().st_mtime_ns
    assert Path(source.file()).stat().st_mtime_ns == written
    more = GeneratedVolumes(source.root, seed=3, train_per_class=4, test_per_class=2)
    assert more.file() != source.file()
    assert len(list(Path(source.root).iterdir())) == 2


def test_no_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        GeneratedVolumes(str(tmp_path), test_per_class=0)
