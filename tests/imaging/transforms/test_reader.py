"""Which kinds of image are taken, which are refused by name, and that rows stay rows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import set_track_meta
from monai.data.meta_obj import get_track_meta
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized
from PIL import Image

from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.transforms import RGBReader, VolumeReader, read_rgb, read_volume, stored_mode
from scripts.utils.errors import UserError, find_user_error

ROWS, COLUMNS = 40, 60
PIXELS = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)
COLOUR = Image.fromarray(PIXELS)
GREY = Image.fromarray(PIXELS[..., 0])
VOLUME = np.random.default_rng(1).integers(0, 256, (5, 6, 7), dtype=np.uint8)


@pytest.fixture(params=[True, False], ids=["meta", "plain"])
def tracked(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = get_track_meta()
    set_track_meta(request.param)
    yield request.param
    set_track_meta(before)


def _load(*more: Any) -> Compose:
    return Compose(
        [
            LoadImaged(keys="image", reader=RGBReader, image_only=True),
            EnsureChannelFirstd(keys="image", channel_dim=-1),
            *more,
        ]
    )


def _save(image: Image.Image, path: Path, **settings: Any) -> str:
    image.save(path, **settings)
    return str(path)


@pytest.mark.parametrize("name", ["colour.png", "colour.bmp", "colour.tif"])
def test_colour_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    assert np.array_equal(read_rgb(_save(COLOUR, tmp_path / name)), PIXELS)


@pytest.mark.parametrize(
    "image", [GREY, GREY.convert("1"), COLOUR.convert("P"), GREY.convert("LA"), COLOUR.convert("RGBA")]
)
def test_grey_palette_and_opaque_alpha_become_rgb(tmp_path: Path, image: Image.Image) -> None:
    pixels = read_rgb(_save(image, tmp_path / "image.png"))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))


def test_grey_is_repeated_to_three_channels(tmp_path: Path) -> None:
    assert np.array_equal(read_rgb(_save(GREY, tmp_path / "grey.png")), np.repeat(PIXELS[..., :1], 3, axis=2))


@pytest.mark.parametrize("image", [GREY, COLOUR.convert("P"), COLOUR], ids=lambda image: image.mode)
def test_the_stored_mode_is_that_before_rgb(tmp_path: Path, image: Image.Image) -> None:
    assert stored_mode(_save(image, tmp_path / "image.png")) == image.mode


def test_the_stored_mode_of_an_npz_entry_is_that_of_its_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train_images=PIXELS[None], test_images=PIXELS[None, ..., 0])
    assert [stored_mode(f"{tmp_path}/set.npz#{split}/0") for split in ("train", "test")] == ["RGB", "L"]


def _transparent(mode: str) -> Image.Image:
    image = COLOUR.convert("RGBA")
    image.putpixel((3, 4), (0, 0, 0, 254))
    return image.convert(mode)


def _sixteen_bit_colour(path: Path) -> str:
    """Pillow cannot write this kind: a 1 x 1 PNG with three 16-bit samples."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + b"\x12\x34" * 3)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return str(path)


def test_what_another_program_would_have_to_run_is_not_taken(tmp_path: Path) -> None:
    GREY.save(tmp_path / "image.eps")
    path = (tmp_path / "image.eps").rename(tmp_path / "image.png")
    with pytest.raises(
        UserError, match="none of the kinds that are read|header is broken"
    ):  # else Ghostscript would be looked for
        read_rgb(str(path))


@pytest.mark.parametrize(
    ("image", "suffix", "settings", "message"),
    [
        (_transparent("RGBA"), "png", {}, "is transparent in parts"),
        (_transparent("LA"), "png", {}, "is transparent in parts"),
        (GREY.convert("P"), "png", {"transparency": int(PIXELS[0, 0, 0])}, "is transparent in parts"),
        (GREY, "png", {"transparency": int(PIXELS[0, 0, 0])}, "is transparent in parts"),
        (COLOUR.convert("CMYK"), "jpg", {}, "is of the kind CMYK"),
        (GREY.convert("I").convert("I;16"), "png", {}, "is of the kind I;16"),
        (GREY.convert("I"), "tif", {}, "is of the kind I:"),
        (GREY.convert("F"), "tif", {}, "is of the kind F:"),
        (COLOUR.copy(), "tif", {"save_all": True, "append_images": [COLOUR.copy()]}, "has 2 frames"),
    ],
)
def test_other_kinds_are_refused_by_name(
    tmp_path: Path, image: Image.Image, suffix: str, settings: dict[str, Any], message: str
) -> None:
    path = _save(image, tmp_path / f"odd.{suffix}", **settings)
    with pytest.raises(UserError, match=f"image {path} {message}"):
        read_rgb(path)


def test_sixteen_bit_colour_is_refused_though_pillow_would_cut_it_down(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="odd.png has 16-bit samples"):
        read_rgb(_sixteen_bit_colour(tmp_path / "odd.png"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str) -> None:
    path = Path(_save(COLOUR, tmp_path / f"cut.{suffix}"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match=f"image {path} cannot be read"):
        read_rgb(str(path))


def test_what_is_no_image_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UserError, match="text.png cannot be read"):
        read_rgb(str(tmp_path / "text.png"))
    with pytest.raises(UserError, match="gone.png is missing"):
        read_rgb(str(tmp_path / "gone.png"))


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", ROWS * COLUMNS // 3)
    with pytest.raises(ImageRefused, match="big.png has more pixels than any that is read") as refusal:
        read_rgb(_save(COLOUR, tmp_path / "big.png"))
    assert refusal.value.reason is Reason.TOO_LARGE


def test_an_image_of_an_npz_file_is_the_same_as_its_png(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train_images=PIXELS[None], test_images=PIXELS[None, ..., 0])
    path = f"{tmp_path}/set.npz"
    assert np.array_equal(read_rgb(f"{path}#train/0"), read_rgb(_save(COLOUR, tmp_path / "colour.png")))
    assert np.array_equal(read_rgb(f"{path}#test/0"), read_rgb(_save(GREY, tmp_path / "grey.png")))


def test_changing_what_was_read_leaves_the_npz_file_as_it_was(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train_images=PIXELS[None])
    read_rgb(f"{tmp_path}/set.npz#train/0")[:] = 0
    assert np.array_equal(read_rgb(f"{tmp_path}/set.npz#train/0"), PIXELS)


@pytest.mark.parametrize("member", ["train/1", "train/-1", "train/x", "train/²", "train"])
def test_an_image_that_an_npz_file_has_not_is_refused(tmp_path: Path, member: str) -> None:
    np.savez(tmp_path / "set.npz", train_images=PIXELS[None])
    with pytest.raises(UserError, match=f"set.npz#{member} is missing: .* has 1 images in train_images"):
        read_rgb(f"{tmp_path}/set.npz#{member}")


def test_rows_are_the_height(tmp_path: Path, tracked: bool) -> None:
    image = _load()({"image": _save(COLOUR, tmp_path / "wide.png")})["image"]
    assert image.shape == (3, ROWS, COLUMNS)
    assert image.dtype == torch.float32
    assert np.array_equal(np.asarray(image), PIXELS.transpose(2, 0, 1))


def test_resizing_keeps_rows_and_columns_apart(tmp_path: Path, tracked: bool) -> None:
    pixels = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    pixels[: ROWS // 2] = 200  # the upper half is light
    path = _save(Image.fromarray(pixels), tmp_path / "half.png")
    resize = Resized(keys="image", spatial_size=(20, 30), mode="bilinear", anti_aliasing=True)
    image = torch.as_tensor(_load(resize)({"image": path})["image"])
    assert image.shape == (3, 20, 30)
    assert torch.all(image[:, :8] > 150)
    assert torch.all(image[:, 12:] < 50)


def test_what_is_refused_is_not_read_by_another_reader(tmp_path: Path) -> None:
    """MONAI tries its own readers where one fails, and they would take a transparent image, transposed."""
    with pytest.raises(RuntimeError) as error:
        _load()({"image": _save(_transparent("RGBA"), tmp_path / "odd.png")})
    assert "odd.png is transparent in parts" in str(find_user_error(error.value))


@pytest.fixture
def volumes(tmp_path: Path) -> list[str]:
    """One volume, in an npz file and in an npy file."""
    np.savez(tmp_path / "set.npz", train_images=VOLUME[None], test_images=PIXELS[None])
    np.save(tmp_path / "volume.npy", VOLUME)
    return [f"{tmp_path}/set.npz#train/0", f"{tmp_path}/volume.npy"]


def test_a_volume_keeps_depth_height_and_width(volumes: list[str], tracked: bool) -> None:
    load = Compose(
        [
            LoadImaged(keys="image", reader=VolumeReader(), image_only=True),
            EnsureChannelFirstd(keys="image", channel_dim=-1),
        ]
    )
    for reference in volumes:
        assert np.array_equal(read_volume(reference), VOLUME)
        assert stored_mode(reference) == "L"
        assert np.array_equal(np.asarray(load({"image": reference})["image"]), VOLUME[None])


def test_a_volume_is_no_picture_and_a_picture_no_volume(volumes: list[str], tmp_path: Path) -> None:
    for reference in volumes:
        with pytest.raises(UserError, match=f"image {reference} is a volume: use a backbone for volumes"):
            read_rgb(reference)
    for reference in (f"{tmp_path}/set.npz#test/0", _save(COLOUR, tmp_path / "colour.png")):
        with pytest.raises(UserError, match=f"image {reference} is no volume: use a backbone for images"):
            read_volume(reference)


@pytest.mark.parametrize("array", [VOLUME.astype(np.float32), VOLUME[0], VOLUME[None], VOLUME[:0]])
def test_an_array_that_is_no_8_bit_volume_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", array)
    with pytest.raises(UserError, match=r"odd.npy is (\w+ \[.*\]: it must be uint8 \[D, H, W\]|no volume)"):
        read_volume(f"{tmp_path}/odd.npy")


def test_an_array_of_a_picture_is_told_from_a_volume_by_its_shape(tmp_path: Path) -> None:
    colour = np.array(COLOUR)
    for name, pixels in {"colour": colour, "grey": colour[..., 0]}.items():
        np.save(tmp_path / f"{name}.npy", pixels)
        reference = f"{tmp_path}/{name}.npy"
        assert np.array_equal(read_rgb(reference), pixels if pixels.ndim == 3 else np.stack([pixels] * 3, 2))
        assert stored_mode(reference) == ("RGB" if pixels.ndim == 3 else "L")
        with pytest.raises(UserError, match=f"image {reference} is no volume"):
            read_volume(reference)
    for number, odd in enumerate((colour[..., :2], colour.astype(np.float32), VOLUME[None], colour[:0])):
        np.save(tmp_path / f"{number}.npy", odd)
        with pytest.raises(UserError, match=rf"{number}.npy is \w+ \[.*\]: it must be uint8 \[H, W\]"):
            read_rgb(f"{tmp_path}/{number}.npy")


def test_a_broken_pickled_or_missing_volume_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "cut.npy", VOLUME)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:200])
    for name in ("objects", "cut"):
        with pytest.raises(UserError, match=f"{name}.npy cannot be read"):
            read_volume(f"{tmp_path}/{name}.npy")
    with pytest.raises(UserError, match="gone.npy is missing"):
        read_volume(f"{tmp_path}/gone.npy")
