"""Arrays of npz files: mapped, held or unpacked they are the same; what is broken is refused; bounds hold."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monai.data import DataLoader

from scripts.imaging.transforms import npz, npz_array, read_rgb
from scripts.utils.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
LABELS = np.arange(5)[:, None]
Save = Callable[..., str]


@pytest.fixture(params=["stored", "held", "unpacked"])
def save(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Write arrays to an npz file, to be opened in each of the three ways."""
    monkeypatch.setattr(npz, "_opened", npz._OpenArrays())
    if request.param == "unpacked":
        monkeypatch.setattr(npz, "HELD_BYTES", 0)
    return saver(np.savez if request.param == "stored" else np.savez_compressed)


@pytest.fixture
def save_large(monkeypatch: pytest.MonkeyPatch) -> Save:
    """Write arrays to a compressed npz file, of which none is held."""
    monkeypatch.setattr(npz, "HELD_BYTES", 0)
    monkeypatch.setattr(npz, "_opened", npz._OpenArrays())
    return saver(np.savez_compressed)


def saver(write: Callable[..., None]) -> Save:
    def save(path: Path, **arrays: np.ndarray) -> str:
        write(path, **(arrays or {"train_images": IMAGES, "train_labels": LABELS}))
        return str(path)

    return save


def unpacked(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def test_an_array_is_the_same_however_it_is_opened(save: Save, tmp_path: Path) -> None:
    path = save(tmp_path / "set.npz")
    assert np.array_equal(npz_array(path, "train_images"), IMAGES)
    assert np.array_equal(npz_array(path, "train_labels"), LABELS)
    assert np.array_equal(read_rgb(f"{path}#train/3"), IMAGES[3])
    assert not npz_array(path, "train_images").flags.writeable


@pytest.mark.parametrize("array", [np.asfortranarray(IMAGES), IMAGES.astype(">u2"), IMAGES[:0], np.array(3)])
def test_order_type_and_shape_are_kept(save: Save, tmp_path: Path, array: np.ndarray) -> None:
    found = npz_array(save(tmp_path / "set.npz", odd=array), "odd")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


def test_a_file_is_opened_once_until_it_changes(save: Save, tmp_path: Path) -> None:
    path = save(tmp_path / "set.npz")
    first = npz_array(path, "train_images")
    assert npz_array(path, "train_images") is first
    replacement = save(tmp_path / "other.npz", train_images=255 - IMAGES)
    os.utime(replacement, ns=(1, 1))
    os.replace(replacement, path)
    assert np.array_equal(npz_array(path, "train_images"), 255 - IMAGES)


def test_forked_loaders_read_the_same(save: Save, tmp_path: Path) -> None:
    path = save(tmp_path / "set.npz")

    class Pictures(list):
        def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
            return read_rgb(f"{path}#train/{index}")

    loader = DataLoader(Pictures(range(5)), batch_size=2, num_workers=2)
    assert np.array_equal(np.concatenate([batch.numpy() for batch in loader]), IMAGES)


def test_what_is_held_stays_within_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "_opened", npz._OpenArrays())
    monkeypatch.setattr(npz, "HELD_BYTES", 2 * IMAGES.nbytes)
    path = saver(np.savez_compressed)(tmp_path / "set.npz", a=IMAGES, b=IMAGES, c=IMAGES, d=LABELS[:0])
    for name in "abcd":
        npz_array(path, name)
        assert npz._opened._held() <= 2 * IMAGES.nbytes
    assert [file.name.split(".")[2] for file in unpacked(tmp_path)] == ["c"]


def test_an_unpacked_array_is_used_again(save_large: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_large(tmp_path / "set.npz")
    npz_array(path, "train_images")
    (file,) = unpacked(tmp_path)
    before = file.stat()
    assert np.array_equal(np.load(file), IMAGES)
    monkeypatch.setattr(npz, "_opened", npz._OpenArrays())  # as a later run begins
    assert np.array_equal(npz_array(path, "train_images"), IMAGES)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_file_is_unpacked_anew_and_its_old_array_removed(save_large: Save, tmp_path: Path) -> None:
    own = tmp_path / "set.npz.train_images.mine.npy"
    own.write_bytes(b"somebody's")
    npz_array(save_large(tmp_path / "set.npz"), "train_images")
    old = set(unpacked(tmp_path))
    path = save_large(tmp_path / "set.npz", train_images=255 - IMAGES)
    assert np.array_equal(npz_array(path, "train_images"), 255 - IMAGES)
    assert len(unpacked(tmp_path)) == 2
    assert old & set(unpacked(tmp_path)) == {own}


def test_a_partly_unpacked_array_is_not_taken_for_whole(save_large: Save, tmp_path: Path) -> None:
    path = save_large(tmp_path / "set.npz")
    npz_array(path, "train_images")
    (file,) = unpacked(tmp_path)
    for content in (b"", file.read_bytes()[:-1]):
        file.unlink()
        file.write_bytes(content)
        assert np.array_equal(npz._OpenArrays().get(path, "train_images"), IMAGES)


def test_a_killed_unpacking_leaves_nothing_that_is_later_taken(save_large: Save, tmp_path: Path) -> None:
    zeros = np.zeros((60, 1000, 1000), np.uint8)
    path = save_large(tmp_path / "set.npz", train_images=zeros)
    process = multiprocessing.get_context("fork").Process(target=npz_array, args=(path, "train_images"))
    process.start()
    while process.is_alive() and not any(file.stat().st_size for file in tmp_path.glob(".*.tmp")):
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert unpacked(tmp_path) == []
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    path = save_large(tmp_path / "set.npz", train_images=zeros[:1])
    assert npz_array(path, "train_images").shape == (1, 1000, 1000)


def test_a_folder_that_cannot_be_written_is_named(save_large: Save, tmp_path: Path) -> None:
    path = save_large(tmp_path / "set.npz")
    (tmp_path / ".set.npz.lock").mkdir()  # a read-only folder would not stop root
    with pytest.raises(UserError, match=f"to be unpacked in {tmp_path}, .*: make it writable, or copy the npz file"):
        npz_array(path, "train_images")


def test_more_than_the_disk_holds_is_not_unpacked(save_large: Save, tmp_path: Path) -> None:
    """A header that agrees with the archive's directory, both of which lie."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**60,)})
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", header.getvalue() + bytes(100))
        archive.getinfo("train_images.npy").file_size = 2**60 + len(header.getvalue())
    with pytest.raises(UserError, match="set.npz takes 1152921504.6 GB unpacked, and .* GB left: free some space"):
        npz_array(str(path), "train_images")


def test_a_cut_file_is_refused_wherever_it_is_cut(save: Save, tmp_path: Path) -> None:
    whole = Path(save(tmp_path / "whole.npz")).read_bytes()
    path = tmp_path / "cut.npz"
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="cut.npz"):
            npz_array(str(path), "train_images")


def test_a_changed_byte_is_refused_or_changes_nothing(save: Save, tmp_path: Path) -> None:
    whole = Path(save(tmp_path / "whole.npz")).read_bytes()
    path = tmp_path / "changed.npz"
    refused = 0
    for position in range(0, len(whole), 11):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            assert np.array_equal(npz_array(str(path), "train_images"), IMAGES)
        except UserError as error:
            assert "changed.npz" in str(error)
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("shape", [(2**40, 2**40), (-1, -630), (5, 6, 7, 4), (2**63,)])
def test_a_header_that_lies_is_refused(save: Save, tmp_path: Path, shape: tuple[int, ...]) -> None:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    content.write(IMAGES.tobytes())
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "set.npz", "w", method) as archive:
            archive.writestr("train_images.npy", content.getvalue())
        with pytest.raises(UserError, match="train_images of .*set.npz cannot be read .*which does not fit"):
            npz_array(str(tmp_path / "set.npz"), "train_images")


def test_objects_are_not_unpickled(save: Save, tmp_path: Path) -> None:
    path = save(tmp_path / "set.npz", train_images=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="cannot be read .*only pickle"):
        npz_array(path, "train_images")


@pytest.mark.parametrize(
    "images", [np.zeros(3, np.uint8), np.zeros((3, 2, 2)), np.zeros((3, 0, 2), np.uint8), np.array(1)]
)
def test_an_image_of_what_holds_none_is_refused(save: Save, tmp_path: Path, images: np.ndarray) -> None:
    path = save(tmp_path / "set.npz", train_images=images)
    with pytest.raises(UserError, match="train_images of .* must be uint8"):
        read_rgb(f"{path}#train/0")


@pytest.mark.parametrize("sides", [(20, 30), (6, 20, 30)], ids=["grey", "volume"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_an_axis_for_the_one_channel_is_dropped(
    tmp_path: Path, save: Save, sides: tuple[int, ...], first: bool
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *sides), dtype=np.uint8)
    path = save(tmp_path / "set.npz", train_images=np.expand_dims(images, 1 if first else -1))
    assert np.array_equal(npz.npz_images(path, "train"), images)
    assert npz.holds_volumes(npz.npz_images(path, "train")) is (len(sides) == 3)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_colours_before_the_sides_are_not_taken_for_slices(tmp_path: Path, save: Save, count: int) -> None:
    path = save(tmp_path / "set.npz", train_images=np.zeros((2, count, 20, 30), np.uint8))
    message = (
        rf"train_images of .* is uint8 \[2, {count}, 20, 30\], {count} colours or {count} slices: put colours last"
    )
    with pytest.raises(UserError, match=message):
        npz.npz_images(path, "train")


def test_colours_behind_the_sides_are_taken_however_few_rows_there_are(tmp_path: Path, save: Save) -> None:
    images = np.zeros((2, 3, 30, 3), np.uint8)
    assert npz.npz_images(save(tmp_path / "set.npz", train_images=images), "train").shape == images.shape
