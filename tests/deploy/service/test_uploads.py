"""What was sent gets a path without a file, and is one picture."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.deploy.inference import ImageClassifier
from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.service.uploads import as_file, chosen, pictures_of
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.transforms.npz import _opened
from scripts.imaging.transforms.reader import read_rgb

LIMIT = 100_000


@pytest.fixture(scope="module")
def classifier(trained_model: Path) -> ImageClassifier:
    return load_image_classifier(trained_model)


def npz(compressed: bool = False, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def test_the_bytes_are_read_by_path_and_lie_on_no_disk() -> None:
    with as_file(io.BytesIO(b"content"), "Doe^Jane.dcm") as path:
        assert Path(path).read_bytes() == b"content"
        assert os.path.islink(path) and os.readlink(path).startswith("/proc/")
        assert (Path(path).name, [entry.name for entry in Path(path).parent.iterdir()]) == (
            "upload.dcm",
            ["upload.dcm"],
        )
    assert not Path(path).parent.exists()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.nii.gz", ".nii.gz"), ("A.NPZ", ".npz"), ("a.png", ""), ("../../etc/passwd", ""), ("", ""), ("a.dcm/b", "")],
)
def test_of_the_name_only_a_known_suffix_is_kept(name: str, suffix: str) -> None:
    with as_file(io.BytesIO(), name) as path:
        assert Path(path).name == f"upload{suffix}"


def test_an_npz_file_offers_its_images_and_is_let_go(classifier: ImageClassifier) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    content = npz(test_images=images[:2], val_images=images[2:], labels=np.zeros(3))
    with as_file(io.BytesIO(content), "a.npz") as path:
        pictures = pictures_of(path, classifier, LIMIT)
        assert [picture.partition("#")[2] for picture in pictures] == ["test/0", "test/1", "val/0"]
        assert all((read_rgb(picture) == image).all() for picture, image in zip(pictures, images, strict=True))
    assert not any(key[0] == path for key in _opened._arrays)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no zip at all", Reason.UNREADABLE),
        (b"", Reason.UNREADABLE),
        (npz(test_images=np.zeros((2, 8, 8)))[:-40], Reason.UNREADABLE),
        (npz(test_images=np.zeros((2, 8, 8))), Reason.UNREADABLE),
        (npz(test_images=np.array([{}], object)), Reason.UNREADABLE),
        (npz(True, test_images=np.zeros((1, 400, 400, 3), np.uint8)), Reason.TOO_LARGE),
    ],
)
def test_a_broken_or_swollen_npz_file_is_refused(classifier: ImageClassifier, content: bytes, reason: Reason) -> None:
    with as_file(io.BytesIO(content), "a.npz") as path, pytest.raises(ImageRefused) as refused:
        pictures_of(path, classifier, LIMIT)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("pictures", "number", "expected"),
    [
        (["a"], None, "a"),
        (["a"], 0, "a"),
        (["a", "b"], 1, "b"),
        (["a", "b"], None, Reason.MANY_PICTURES),
        (["a"], 1, Reason.NO_SUCH_PICTURE),
        (["a"], -1, Reason.NO_SUCH_PICTURE),
        ([], None, Reason.NO_PIXELS),
    ],
)
def test_one_picture_counts_or_is_named(pictures: list[str], number: int | None, expected: Any) -> None:
    try:
        assert chosen(pictures, number) == expected
    except ImageRefused as refused:
        assert refused.reason is expected
