"""The embedded data set: the same by seed, written once, read back by the reader of real folders."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.imaging.transforms import read_rgb
from scripts.learning.sources import GeneratedFindings, PathologyFolders, generated
from scripts.learning.sources.generated import ensure_generated
from scripts.learning.tasks import check_images, make_tasks
from scripts.utils.errors import UserError

EACH = [(name, member) for name, members in generated.SETS.items() for member in members]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ensure_generated(str(tmp_path_factory.mktemp("data")), seed=3, train_per_class=4, test_per_class=2)


def _times(root: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(root).rglob("*")}


@pytest.mark.parametrize(("name", "member"), EACH)
def test_an_image_depends_on_seed_split_and_number_alone(name: str, member: str) -> None:
    first = generated.draw(name, member, seed=0, split=0, number=0)
    assert first.shape == (generated.SIZE, generated.SIZE, 3)
    assert np.array_equal(first, generated.draw(name, member, seed=0, split=0, number=0))
    for seed, split, number in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.array_equal(first, generated.draw(name, member, seed, split, number))


def test_every_image_shows_light_and_dark(root: str) -> None:
    for task in make_tasks(PathologyFolders(root).groups()):
        for item in task.train:
            assert np.ptp(read_rgb(item["image"]).astype(int)) > 60


def test_colour_alone_does_not_decide_the_class() -> None:
    """The mean colour of two images of one class differs more than the means of the two classes of a set."""
    for name, members in generated.SETS.items():
        colours = np.array(
            [[generated.draw(name, member, 0, 0, n).mean(axis=(0, 1)) for n in range(16)] for member in members]
        )
        within = colours.std(axis=1).mean()
        assert np.abs(colours[0].mean(axis=0) - colours[1].mean(axis=0)).mean() < 2 * within


def test_reading_back_gives_what_was_drawn(root: str) -> None:
    tasks = make_tasks(PathologyFolders(root, list(generated.SETS)).groups())
    assert [task.classes for task in tasks] == [
        tuple(f"{name}/{member}" for member in sorted(members)) for name, members in generated.SETS.items()
    ]
    for task in tasks:
        for part, split in ((task.train, 0), (task.test, 1)):
            assert len(part) == (8, 4)[split]
            for item in part:
                name, _, member, file = item["image"].split(os.sep)[-4:]
                drawn = generated.draw(name, member, 3, split, int(Path(file).stem))
                assert np.array_equal(read_rgb(item["image"]), drawn)
        assert check_images(task.train) == list(task.train)


def test_it_is_written_once(root: str) -> None:
    before = _times(root)
    assert ensure_generated(root, seed=3, train_per_class=4, test_per_class=2) == root
    assert _times(root) == before


@pytest.mark.parametrize("change", [{"seed": 4}, {"train_per_class": 5}, {"test_per_class": 3}])
def test_other_images_than_those_on_disk_are_refused(root: str, change: dict[str, int]) -> None:
    before = _times(root)
    with pytest.raises(UserError, match=f"{root}.* holds .*give another dataset_dir"):
        ensure_generated(root, **{"seed": 3, "train_per_class": 4, "test_per_class": 2, **change})
    assert _times(root) == before


def test_a_tree_from_elsewhere_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "Pathology16" / "oral").mkdir(parents=True)
    with pytest.raises(UserError, match="holds images from elsewhere"):
        ensure_generated(str(tmp_path))
    assert os.listdir(tmp_path / "Pathology16") == ["oral"]


def test_a_deleted_set_is_not_drawn_again(tmp_path: Path) -> None:
    """A data set that a hospital no longer has stays away."""
    root = ensure_generated(str(tmp_path), train_per_class=1, test_per_class=1)
    for path in sorted((tmp_path / "Pathology16/cells").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "Pathology16/cells").rmdir()
    ensure_generated(root, train_per_class=1, test_per_class=1)
    assert [group.name for group in PathologyFolders(root).groups()] == ["clusters", "fibres", "spaces"]


def test_an_interrupted_writing_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Image.Image.save

    def save(image: Image.Image, path: str, **settings: Any) -> None:
        if "0001" in path:
            raise OSError(28, "No space left on device")
        saved(image, path, **settings)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(UserError, match=f"cannot be written to {tmp_path}.*No space left"):
        ensure_generated(str(tmp_path), train_per_class=2, test_per_class=1)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    monkeypatch.undo()
    (tmp_path / "Pathology16.partial" / "junk").mkdir(parents=True)  # what a killed process leaves
    ensure_generated(str(tmp_path), train_per_class=1, test_per_class=1)
    assert sorted(os.listdir(tmp_path / "Pathology16")) == sorted([*generated.SETS, generated.MARKER])
    assert not (tmp_path / "Pathology16.partial").exists()


def test_the_marker_says_what_was_drawn(root: str) -> None:
    with open(os.path.join(root, "Pathology16", generated.MARKER), encoding="utf-8") as file:
        assert json.load(file)["seed"] == 3


def test_no_images_a_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        ensure_generated(str(tmp_path), test_per_class=0)


def test_two_writers_at_once_write_one_tree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(ensure_generated, str(tmp_path), 0, 2, 1) for _ in range(2)]
        assert [job.result() for job in jobs] == [str(tmp_path)] * 2
    assert len(list(tmp_path.rglob("*.png"))) == 8 * 3
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["Pathology16"]


def test_images_with_several_findings_show_what_their_table_says_and_are_drawn_once(tmp_path: Path) -> None:
    source = GeneratedFindings(str(tmp_path), train=40, test=20, val=0, share=0.4)
    (group,) = source.groups()
    before = _times(str(tmp_path))
    assert group.several and set(group.classes) == set(generated.FINDINGS)
    (task,) = make_tasks([group])
    counts = {sum(item["label"]) for item in task.train}
    assert {0, 1, 2} <= counts and len(task.train) == 40 and len(task.test) == 20
    assert GeneratedFindings(str(tmp_path), train=40, test=20, val=0, share=0.4).groups() == [group]
    assert _times(str(tmp_path)) == before
    with pytest.raises(UserError, match="give another dataset_dir"):
        GeneratedFindings(str(tmp_path), train=41, test=20, val=0, share=0.4).groups()
