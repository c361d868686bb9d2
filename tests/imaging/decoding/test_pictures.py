"""Which kinds of picture are taken, whatever their files are called."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image

from scripts.imaging.decoding.kinds import PICTURES
from scripts.imaging.decoding.pictures import FORMATS, is_ordinary, picture_rgb
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.decoding.rgb import file_rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG2000": {"irreversible": False},
    "BMP": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
}


def saved(path: Path, kind: str, **settings: Any) -> str:
    with open(path, "wb") as file:
        Image.fromarray(PIXELS).save(file, kind, **settings)
    return str(path)


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("name", ["image", "image.png", "image.JPE", "image.dat"])
def test_pictures_are_known_by_their_content(tmp_path: Path, kind: str, name: str) -> None:
    path = saved(tmp_path / name, kind, **LOSSLESS[kind])
    assert np.array_equal(picture_rgb(path), PIXELS)
    assert np.array_equal(file_rgb(path), PIXELS)  # of some kinds by another process
    assert is_ordinary(path) == (kind in ("PNG", "BMP"))


def test_a_picture_of_very_many_parts_is_not_decoded_here(tmp_path: Path) -> None:
    picture = {kind: Path(saved(tmp_path / kind, kind)).read_bytes() for kind in ("PNG", "JPEG", "BMP")}
    scans = Path(saved(tmp_path / "scans", "JPEG", progressive=True)).read_bytes()
    scan = scans[scans.rindex(b"\xff\xda") : -2]
    chunk = bytes(4) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    odd = {
        "chunks": picture["PNG"][:33] + 5000 * chunk + picture["PNG"][33:],
        "segments": picture["JPEG"][:2] + 5000 * b"\xff\xfe\0\2" + picture["JPEG"][2:],
        "fill": picture["JPEG"][:2] + 5000 * b"\xff" + picture["JPEG"][2:],
        "scans": scans[:-2] + 20 * scan + scans[-2:],
        "runs": picture["BMP"][:30] + b"\1" + picture["BMP"][31:],
    }
    for name, content in {**picture, "progressive": scans, "text": b"text", "nothing": b"", **odd}.items():
        (tmp_path / name).write_bytes(content)
        assert is_ordinary(str(tmp_path / name)) == (name not in odd), name
    os.mkfifo(tmp_path / "pipe")
    assert is_ordinary(str(tmp_path / "pipe"))  # where it is refused
    for name in ("chunks", "fill"):
        assert file_rgb(str(tmp_path / name)).shape == PIXELS.shape


def test_another_process_refuses_in_the_same_words(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    Image.new("I;16", (4, 4)).save(tmp_path / "b.tif")
    Image.new("RGBA", (4, 4)).save(tmp_path / "c.webp")
    (tmp_path / "d.tif").write_bytes((tmp_path / "b.tif").read_bytes()[:40])
    for path in sorted(tmp_path.iterdir()):
        said = []
        for read in (picture_rgb, file_rgb):
            with pytest.raises(ImageRefused) as refusal:
                read(str(path))
            said.append((str(refusal.value), refusal.value.reason))
        assert said[0] == said[1]


def test_what_is_said_to_be_read_is_what_is_read() -> None:
    assert tuple(name.upper().replace(" ", "") for name in PICTURES) == FORMATS


@pytest.mark.parametrize("content", [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 400, b"text", b""])
def test_other_kinds_of_file_are_refused_as_such(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.heic"
    path.write_bytes(content)
    with pytest.raises(ImageRefused, match=r"none of the kinds that are read \(PNG, .*\): convert it") as error:
        picture_rgb(str(path))
    assert error.value.reason == Reason.UNSUPPORTED_KIND


def test_a_picture_that_is_broken_at_its_head_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(b"no JPEG")
    with pytest.raises(ImageRefused, match="its header is broken") as error:
        picture_rgb(str(tmp_path / "image.jpg"))
    assert error.value.reason == Reason.UNREADABLE


@pytest.mark.parametrize("container", [0, 1], ids=["codestream", "jp2"])
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_jpeg_2000_of_more_than_8_bits_is_refused(tmp_path: Path, container: int, bits: int) -> None:
    deep = np.tile(PIXELS, (4, 4, 1)).astype(np.uint16) << bits - 8
    content = encode_array(deep, bits_stored=bits, photometric_interpretation=1, codec_format=container)
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(ImageRefused, match="has 16-bit samples") as error:
        picture_rgb(str(tmp_path / "image"))
    assert error.value.reason == Reason.UNSUPPORTED_KIND


@pytest.mark.parametrize("size", range(0, 200, 7))
def test_a_jpeg_2000_file_that_is_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    path = Path(saved(tmp_path / "image.jp2", "JPEG2000"))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ImageRefused):
        picture_rgb(str(path))
