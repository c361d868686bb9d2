"""Damaged files of every kind that is read from the field, each through its own reader: tables to JPEG 2000."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import Reason
from scripts.imaging.transforms import read_rgb
from scripts.learning.sources import LabelsCsv, MedMnist

EVERYTHING = "accept=missing_identifiers,localizer,derived,burned_in,unknown_orientation"
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4096, (40, 50)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (40, 50, 3)).astype(np.uint8)
SYNTAXES = ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1.99")
Reader = Callable[[Path], object]


def table(mark: str, ends: str) -> bytes:
    rows = [f"image{number}.png{mark}{'ab'[number % 2]}{mark}{['train', 'test'][number % 2]}" for number in range(9)]
    text = f'"a ""quoted""{ends} cell"{mark}a{mark}later'
    return ("\ufeff" + ends.join([f"path{mark}label{mark}split", *rows, text])).encode()


def read_csv(path: Path) -> object:
    for number in range(9):
        (path.parent / f"image{number}.png").touch()
    return LabelsCsv(str(path.parent), path.name).groups()


def read_npz(path: Path) -> object:
    (group,) = MedMnist(str(path.parent), path.name).groups()
    return [read_rgb(image) for image in group.images()]


def read_picture(path: Path) -> object:
    return read_rgb(str(path))


def read_dicom(path: Path) -> object:
    return read_rgb(f"{path}#middle?{EVERYTHING}")


def read_nifti(path: Path) -> object:
    return read_rgb(f"{path}#2/middle?{EVERYTHING}")


def tables() -> list[bytes]:
    return [table(mark, ends) for mark in (",", ";", "\t") for ends in ("\n", "\r\n")]


def arrays() -> list[bytes]:
    found = []
    for shape, save in (((6, 8, 9, 1), np.savez), ((6, 8, 9, 3), np.savez_compressed), ((6, 8, 9), np.savez)):
        images = RNG.integers(0, 256, shape).astype(np.uint8)
        part = {"images": images, "labels": np.arange(6) % 3}
        parts = {f"{split}_{what}": data for split in ("train", "test") for what, data in part.items()}
        with io.BytesIO() as file:
            save(file, classes=np.array(["a", "b", "c"]), **parts)  # type: ignore[arg-type]
            found.append(file.getvalue())
    return found


def pictures() -> list[bytes]:
    found = []
    settings: list[tuple[str, dict[str, Any]]] = [
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("JPEG2000", {"tile_size": (16, 16), "irreversible": True}),
        *((kind, {}) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP")),
        ("JPEG", {"progressive": True}),
        *(("TIFF", {"compression": kind}) for kind in (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    ]
    for kind, more in settings:
        with io.BytesIO() as file:
            Image.fromarray(COLOUR).save(file, kind, **more)
            found.append(file.getvalue())
    return found


def dicom_files(folder: Path, scans: Any) -> list[bytes]:
    made = [scans.dicom(folder / f"{number}", GREY, syntax, BitsStored=12) for number, syntax in enumerate(SYNTAXES)]
    made += [scans.dicom(folder / "frames", np.stack([COLOUR, COLOUR]), PhotometricInterpretation="RGB")]
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], np.arange(4096, dtype=np.uint16).tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    for name in ("ModalityLUTSequence", "VOILUTSequence"):
        made.append(scans.dicom(folder / name, GREY, BitsStored=12, **{name: [item]}))
    found = [Path(path).read_bytes() for path in made]
    return [*found, found[-1][132:]]  # without its preamble


def nifti_files(folder: Path, scans: Any) -> list[bytes]:
    voxels = RNG.integers(0, 255, (20, 16, 8)).astype(np.int16)
    shapes = ((20, 16, 8), (20, 16), (20, 16, 8, 1), (20, 16, 1, 1, 1))
    made = [
        scans.nifti(folder / f"{number}{suffix}", voxels.reshape(-1)[: int(np.prod(shape))].reshape(shape))
        for suffix in (".nii", ".nii.gz")
        for number, shape in enumerate(shapes)
    ]
    return [Path(path).read_bytes() for path in made]


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_of_every_kind_are_read_or_refused(
    count: int, scans: Any, damage: Any, tally: Any, tmp_path: Path
) -> None:
    kinds: dict[str, tuple[list[bytes], Reader]] = {
        "tables": (tables(), read_csv),
        "NIfTI": (nifti_files(tmp_path / "nifti", scans), read_nifti),
        "npz": (arrays(), read_npz),
        "pictures": (pictures(), read_picture),
        "DICOM": (dicom_files(tmp_path / "dicom", scans), read_dicom),
    }
    suffixes = {"tables": ".csv", "npz": ".npz"}
    rng = np.random.default_rng(21)
    for kind, (good, read) in kinds.items():
        figures = tally(f"readers: {kind}")
        for number in range(count // len(kinds)):
            folder = tmp_path / kind / str(number)
            folder.mkdir(parents=True)
            path = folder / f"file{suffixes.get(kind, '')}"
            path.write_bytes(damage(good[number % len(good)], rng))
            figures.ask(f"{kind} {number}", lambda: read(path), "image")  # noqa: B023
            path.unlink()
        assert figures.outcomes.total() - figures.outcomes["image"] > 0
        assert not {Reason.DECODER_DIED, Reason.MISSING} & figures.outcomes.keys()
        assert figures.outcomes["image"] or count < 1000
    decoder().close()


def test_the_undamaged_files_are_read(scans: Any, tmp_path: Path) -> None:
    parts = (
        ("npz", arrays(), read_npz),
        ("", pictures(), read_picture),
        ("", nifti_files(tmp_path / "nifti", scans), read_nifti),
        ("", dicom_files(tmp_path / "dicom", scans), read_dicom),
    )
    for suffix, files, read in parts:
        for number, content in enumerate(files):
            path = tmp_path / f"{read.__name__}{number}.{suffix}"
            path.write_bytes(content)
            read(path)
    for number, content in enumerate(tables()):
        path = tmp_path / "tables" / f"{number}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        assert read_csv(path)
