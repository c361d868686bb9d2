"""Files are known by what is in them."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from scripts.imaging.decoding.kinds import is_picture, kind_of

PIXELS = np.zeros((4, 6), np.uint8)


def test_dicom_is_known_without_a_suffix_and_without_a_preamble(tmp_path: Path, scans: Any) -> None:
    path = Path(scans.dicom(tmp_path / "IM000001", PIXELS))
    assert kind_of(str(path)) == "dicom"
    bare = path.with_name("bare.png")
    bare.write_bytes(path.read_bytes()[132:])
    assert kind_of(str(bare)) == "dicom"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti_is_known_by_its_content(tmp_path: Path, suffix: str, kind: Any) -> None:
    nibabel.save(kind(PIXELS[..., None], np.eye(4)), tmp_path / f"a{suffix}")
    shutil.copy(tmp_path / f"a{suffix}", tmp_path / "volume")
    assert kind_of(str(tmp_path / "volume")) == "nifti"


def test_other_files_are_neither(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    np.savez(tmp_path / "b.npz", PIXELS)
    (tmp_path / "c.txt").write_text("text")
    (tmp_path / "d.gz").write_bytes(gzip.compress(b"text"))
    (tmp_path / "e.gz").write_bytes(gzip.compress(b"text" * 1000)[:20])
    (tmp_path / "f").touch()
    assert {kind_of(str(path)) for path in tmp_path.iterdir()} == {None}
    assert kind_of(str(tmp_path / "missing")) is None


def test_pictures_are_known_by_content_or_by_name(tmp_path: Path) -> None:
    for number, kind in enumerate(("PNG", "JPEG", "JPEG2000", "BMP", "GIF", "TIFF", "WEBP")):
        with open(tmp_path / str(number), "wb") as file:
            Image.fromarray(PIXELS).save(file, kind)
        assert is_picture(str(tmp_path / str(number)))
    for name in ("a.JPE", "b.jfif", "c.jp2", "d.TIFF"):
        (tmp_path / name).touch()
        assert is_picture(str(tmp_path / name))
    for name, content in (("e.heic", b"\0\0\0\x18ftypheic"), ("f.txt", b"BMW and others"), ("g", b"")):
        (tmp_path / name).write_bytes(content)
        assert not is_picture(str(tmp_path / name))
    assert not is_picture(str(tmp_path / "missing"))
