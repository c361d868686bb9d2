"""Images are kept as pixels under names of their own, labels beside them, and nothing is lost or half there."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.deploy.service.images import ImageStore, Tag, require_class_name
from scripts.deploy.service.problems import Problem
from scripts.imaging.decoding.values import Values
from scripts.imaging.transforms.reader import read_rgb, read_volume
from scripts.utils.errors import UserError

MakePixels = Callable[..., np.ndarray]


@pytest.fixture
def pixels() -> MakePixels:
    """Make pictures, each another one."""
    rng = np.random.default_rng(0)
    return lambda *shape: rng.integers(0, 256, shape or (9, 7, 3)).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def reopened(store: ImageStore) -> ImageStore:
    """Return the store as the next process finds it."""
    store.close()
    return ImageStore(store.folder)


@pytest.mark.parametrize("grey", [False, True])
def test_training_reads_the_pixels_that_were_kept(store: ImageStore, pixels: MakePixels, grey: bool) -> None:
    picture = np.repeat(pixels(9, 7, 1), 3, axis=2) if grey else pixels()
    path = store.path(store.add(picture, None))
    assert (read_rgb(str(path)) == picture).all()
    with Image.open(path) as file:
        assert (file.mode, file.info) == ("L" if grey else "RGB", {})


def test_training_reads_the_volume_that_was_kept(store: ImageStore, pixels: MakePixels) -> None:
    volume = pixels(5, 6, 7)
    assert (read_volume(str(store.path(store.add(volume, None)))) == volume).all()


def test_the_same_image_is_kept_once_and_another_shape_is_another_image(store: ImageStore, pixels: MakePixels) -> None:
    picture = pixels(6, 4, 3)
    first, again, turned = (store.add(one, None) for one in (picture, picture.copy(), picture.reshape(4, 6, 3)))
    assert first == again != turned
    assert set(store.records()) == {first, turned}


def test_names_of_another_store_are_others(store: ImageStore, pixels: MakePixels, tmp_path: Path) -> None:
    picture = pixels()
    assert store.add(picture, None) != ImageStore(tmp_path / "other").add(picture, None)


def test_labels_survive_a_restart(store: ImageStore, pixels: MakePixels) -> None:
    image, other = store.add(pixels(), "patient"), store.add(pixels(), None)
    store.set_label(image, Tag.FINAL, "naevus", "Zoe")
    store.set_label(other, Tag.ORIGINAL, "melanoma", "the model", score=0.5)
    records = store.records()
    store = reopened(store)
    assert store.records() == records
    assert store.classes() == {image: "naevus"}
    assert store.label(other, Tag.ORIGINAL)["score"] == 0.5
    assert records[image]["image"]["info"]["group"] == "patient"
    store.remove_label(image, Tag.FINAL, "Zoe")
    store.remove(other)
    store = reopened(store)
    assert (list(store.records()), store.classes()) == ([image], {})
    assert {path.suffix for path in store.folder.glob(f"{other}*")} == set()


def test_every_change_of_a_label_is_remembered_and_can_be_undone_in_turn(store: ImageStore, pixels: MakePixels) -> None:
    one, other = store.add(pixels(), None), store.add(pixels(), None)
    first = store.relabel([one, other], "naevus", "Zoe")
    second = store.relabel([one], "melanoma", "Max")
    assert (store.author(second), store.classes()) == ("Max", {one: "melanoma", other: "naevus"})
    store = reopened(store)
    assert store.undo(second, "Zoe") == [one]
    assert store.label(one, Tag.FINAL)["by"] == "Zoe", "it is hers again"
    assert set(store.undo(first, "Zoe")) == {one, other}
    assert store.classes() == {}
    history = [(entry["label"], entry["by"], entry["undoes"]) for entry in store.history(one)]
    assert history == [
        ("naevus", "Zoe", None),
        ("melanoma", "Max", None),
        ("naevus", "Zoe", second),
        (None, "Zoe", first),
    ]
    for change in (first, second, "unknown"):
        with pytest.raises(Problem, match="no such change"):
            store.undo(change, "Zoe")


def test_of_a_change_only_what_was_not_changed_since_is_undone(store: ImageStore, pixels: MakePixels) -> None:
    one, other = store.add(pixels(), None), store.add(pixels(), None)
    change = store.relabel([one, other], "naevus", "Zoe")
    store.set_label(other, Tag.FINAL, "melanoma", "Zoe")
    store.set_label(one, Tag.ORIGINAL, "melanoma", "the model")  # is nobody's change
    assert store.undo(change, "Zoe") == [one]
    assert store.classes() == {other: "melanoma"}


def test_a_change_of_many_is_done_whole_or_not_at_all(store: ImageStore, pixels: MakePixels) -> None:
    image = store.add(pixels(), None)
    for images, label in (([image, "0" * 32], "naevus"), ([image], "$import os")):
        with pytest.raises(Problem):
            store.relabel(images, label, "Zoe")
    assert store.classes() == {} and store.history(image) == []


def test_the_list_says_what_the_records_say_after_every_change(store: ImageStore, pixels: MakePixels) -> None:
    images = [store.add(pixels(), f"patient {number % 2}") for number in range(4)]
    change = store.relabel(images[:3], "naevus", "Zoe")
    store.relabel(images[:1], "melanoma", "Max")
    store.set_label(images[3], Tag.ORIGINAL, "melanoma", "the model")
    store.undo(change, "Zoe")
    store.remove(images[1])
    listed, tags, count = store.listed(), store.tags(), len(store)
    assert {one.image: (one.label, one.by) for one in listed} == {
        images[0]: ("melanoma", "Max"),
        images[2]: (None, None),
        images[3]: (None, None),
    }
    assert (tags, count) == ({Tag.FINAL: 1, Tag.ORIGINAL: 1}, 3)
    assert store.paths() == {image: store.path(image) for image in store.records()}
    store = reopened(store)
    assert sorted(store.listed(), key=lambda one: one.image) == sorted(listed, key=lambda one: one.image)
    assert (store.tags(), len(store)) == (tags, count)


def test_what_was_measured_is_kept_beside_the_pixels(store: ImageStore, pixels: MakePixels) -> None:
    values = Values(np.arange(24, dtype=np.uint16).reshape(1, 4, 6), -1024.0, 1.0, -160.0, 240.0, True, True)
    image, plain = store.add(pixels(), None, values), store.add(pixels(), None)
    store = reopened(store)
    found = store.values(image)
    assert found is not None and (found.steps == values.steps).all() and found.numbers() == values.numbers()
    assert store.values(plain) is None
    store.remove(image)
    assert list(store.folder.glob(f"{image}*")) == []


def test_an_image_that_was_not_answered_any_more_is_gone(store: ImageStore, pixels: MakePixels) -> None:
    image = store.add(pixels(), None)
    store.path(image).with_name("0" * 32 + ".png").write_bytes(b"killed before its record was written")
    assert [path.stem for path in reopened(store).folder.glob("*.png")] == [image]


def test_the_folder_is_private_and_of_one_process(store: ImageStore) -> None:
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.folder / "key").stat().st_mode) == 0o600
    with pytest.raises(UserError, match="another service uses"):
        ImageStore(store.folder)


@pytest.mark.parametrize("name", ["", "0" * 32, "../key", "/etc/passwd", "*", "key", "a" * 5000, "\0", "é"])
def test_an_unknown_name_reaches_no_file(store: ImageStore, pixels: MakePixels, name: str) -> None:
    store.add(pixels(), None)
    before = sorted(store.folder.iterdir())
    for ask in (store.path, store.remove, store.record, lambda image: store.set_label(image, Tag.FINAL, "a", "Zoe")):
        with pytest.raises(Problem, match="no such image"):
            ask(name)
    assert sorted(store.folder.iterdir()) == before


@pytest.mark.parametrize("name", ["naevus", "odd, very", "skin/naevus", "Grade 2 (low)", "ä", "a/b/c", "HER2+", "a_b"])
def test_class_names_as_people_write_them_are_taken(name: str) -> None:
    require_class_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", " a", "$import os", "@device", "%key", "a\nb", "a#b", "a" * 65, '"', "a@b", "_target_", "4th", "-rf"),
        *("..", "../a", "a/../b", "/a", "a/", "a//b", "a/./b", "a/_target_", "C:\\\\a", "a\0"),
    ],
)
def test_class_names_that_a_config_or_a_disk_would_take_for_more_are_refused(name: str) -> None:
    with pytest.raises(Problem) as refused:
        require_class_name(name)
    assert refused.value.status == 422
