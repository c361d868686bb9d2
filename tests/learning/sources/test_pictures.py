"""Pictures in any folders, for pretraining."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.learning.sources import ImageFolder, Pictures
from scripts.learning.tasks import plan_pretraining
from scripts.utils.errors import UserError


def test_all_pictures_are_found_but_those_that_test(tmp_path: Path, tiny: SimpleNamespace) -> None:
    for place in ("", "a", "a/b", "Testing/a"):
        tiny.items(tmp_path / place, 0, 2)
    (tmp_path / "notes.txt").write_text("no picture")
    planned = plan_pretraining(Pictures(str(tmp_path)))
    (task,) = planned.tasks
    folders = {str(Path(item["image"]).parent.relative_to(tmp_path)) for item in task.train}
    assert folders == {".", "a", "a/b"}
    assert len(task.train) == 6
    assert sorted(map(len, planned.left_out.values())) == [1, 2]


def test_of_a_data_set_with_a_split_the_test_images_are_left_out(tmp_path: Path, tiny: SimpleNamespace) -> None:
    for place, count in (("train", 4), ("test", 3)):
        for label in range(2):
            tiny.items(tmp_path / place / str(label), label, count)
    (task,) = plan_pretraining(ImageFolder(str(tmp_path))).tasks
    assert [item["label"] for item in task.train] == [0] * 4 + [1] * 4
    assert all("/train/" in item["image"] for item in task.train)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture"):
        Pictures(str(tmp_path)).groups()
    with pytest.raises(UserError, match="is missing"):
        Pictures(str(tmp_path / "no")).groups()
