"""Damaged files, seeded: an image or a named error, never a crash, a hang, or memory without end."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.decoding.process import decoder
from scripts.decoding.reasons import ImageRefused, Reason
from scripts.decoding.worker import MEMORY
from scripts.errors import UserError
from scripts.transforms import read_rgb

SECONDS = 10
RLE = "1.2.840.10008.1.2.5"
SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", RLE]
SYNTAXES += ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"]
IDENTIFIERS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
EVERYTHING = "accept=missing_identifiers,localizer,derived,burned_in,unknown_orientation"
Parts = dict[str, list[tuple[bytes, str]]]
"""By format: contents of files, and what a reference says behind the path."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, scans: Any) -> Parts:
    """Files in four formats, drawn here."""
    folder = tmp_path_factory.mktemp("originals")
    grey = (5 * np.arange(40)[:, None] + np.arange(50)).astype(np.uint16)
    colour = np.stack([grey, 2 * grey, 3 * grey], axis=2).astype(np.uint8)
    files: dict[str, list[tuple[str, str]]] = {"dicom": [], "nifti": []}
    for number, syntax in enumerate(SYNTAXES):
        window = {"WindowCenter": 100, "WindowWidth": 300, "RescaleSlope": 2, "RescaleIntercept": -4, **IDENTIFIERS}
        files["dicom"].append((scans.dicom(folder / f"{number}.dcm", grey, syntax, **window), f"#middle?{EVERYTHING}"))
    frames = np.stack([grey, grey // 2])
    several = scans.dicom(folder / "frames.dcm", frames, RLE, **IDENTIFIERS)
    rgb = scans.dicom(folder / "rgb.dcm", colour, RLE, PhotometricInterpretation="RGB", **IDENTIFIERS)
    files["dicom"] += [(several, f"#mean?{EVERYTHING}"), (rgb, f"#?{EVERYTHING}")]
    for suffix in (".nii", ".nii.gz"):
        volume = scans.nifti(folder / f"a{suffix}", np.stack([grey, grey]).astype(np.float32))
        files["nifti"].append((volume, f"#0/1?{EVERYTHING}"))
    for kind, image in (("png", Image.fromarray(colour)), ("jpg", Image.fromarray(colour))):
        image.save(folder / f"a.{kind}")
    files["png"] = [(str(folder / "a.png"), ""), (str(folder / "a.jpg"), "")]
    np.savez(folder / "a.npz", train_images=colour[None])
    np.savez_compressed(folder / "b.npz", train_images=colour[None])
    files["npz"] = [(str(folder / "a.npz"), "#train/0"), (str(folder / "b.npz"), "#train/0")]
    return {kind: [(Path(path).read_bytes(), rest) for path, rest in found] for kind, found in files.items()}


@pytest.fixture(scope="module")
def real(test_data: Path) -> Parts:
    """The real DICOM and NIfTI files of up to 300 kB."""
    dicom = [path for path in sorted((test_data / "dicom").glob("*")) if path.suffix != ".csv"]
    nifti = sorted((test_data / "nifti").glob("*"))
    return {
        "dicom": [(path.read_bytes(), f"#middle?{EVERYTHING}") for path in dicom if path.stat().st_size < 300_000],
        "nifti": [(path.read_bytes(), f"#2/middle/0?{EVERYTHING}") for path in nifti if path.stat().st_size < 300_000],
    }


def flip(content: bytearray, rng: np.random.Generator) -> None:
    """Change a few bytes anywhere."""
    for place in rng.integers(0, len(content), rng.integers(1, 20)):
        content[place] = rng.integers(0, 256)


def edit_header(content: bytearray, rng: np.random.Generator) -> None:
    """Set a word near the head to an extreme value: sizes, counts, types."""
    place = int(rng.integers(0, min(len(content), 1500)))
    extreme = [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x00\x00\xc0\x7f", b"\x01\x00"]
    word = extreme[rng.integers(0, len(extreme))]
    content[place : place + len(word)] = word


def cut(content: bytearray, rng: np.random.Generator) -> None:
    """Cut the end off."""
    del content[int(rng.integers(0, len(content))) :]


def swap(content: bytearray, rng: np.random.Generator) -> None:
    """Write a stretch of the file over another."""
    length = int(rng.integers(1, 200))
    source, target = (int(place) for place in rng.integers(0, len(content), 2))
    content[target : target + length] = content[source : source + length]


MUTATIONS: list[Callable[[bytearray, np.random.Generator], None]] = [flip, edit_header, cut, swap]


def mutants(parts: Parts, count: int, folder: Path) -> Any:
    """Write one damaged file after the other, of each format in turn; always the same ones."""
    rng = np.random.default_rng(20)
    for number in range(count):
        kind = list(parts)[number % len(parts)]
        original, rest = parts[kind][rng.integers(0, len(parts[kind]))]
        content = bytearray(original)
        MUTATIONS[rng.integers(0, len(MUTATIONS))](content, rng)
        suffix = ".nii.gz" if original[:2] == b"\x1f\x8b" else {"dicom": ".dcm", "nifti": ".nii"}.get(kind, f".{kind}")
        path = folder / f"{number}{suffix}"
        path.write_bytes(content)
        yield f"{path}{rest}", path


def peak_memory() -> int:
    """Return the most bytes that the child process has held at once; 0 where none runs."""
    child = decoder()._child
    if child is None or child.poll() is not None:
        return 0
    (line,) = [line for line in Path(f"/proc/{child.pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def check(parts: Parts, count: int, folder: Path) -> dict[str, int]:
    """Read damaged files, and count what came of it."""
    outcomes: dict[str, int] = {}
    slowest, memory = 0.0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # PNG and npz are decoded in this process
    for reference, path in mutants(parts, count, folder):
        started = time.monotonic()
        try:
            pixels = read_rgb(reference)
        except ImageRefused as error:
            outcome = error.reason.value
        except UserError:  # of an npz file as a whole
            outcome = Reason.UNREADABLE.value
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, reference
            outcome = "image"
        slowest = max(slowest, time.monotonic() - started)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        memory = max(memory, peak_memory())
        path.unlink()
    print(f"{count} files: {outcomes}; slowest {slowest:.2f} s; at most {memory / 2**20:.0f} MiB in the child process")
    assert slowest < SECONDS + 2  # the limit of one decoding, and the time to end a process
    assert memory < MEMORY
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY
    return outcomes


def test_damaged_files_give_an_image_or_a_reason(originals: Parts, tmp_path: Path) -> None:
    outcomes = check(originals, 100, tmp_path)
    assert outcomes["image"] > 10
    assert len(outcomes) > 4
    assert Reason.DECODER_DIED not in outcomes


@pytest.mark.slow
def test_two_thousand_damaged_files(originals: Parts, tmp_path: Path) -> None:
    outcomes = check(originals, 1000, tmp_path)
    assert Reason.DECODER_DIED not in outcomes


@pytest.mark.slow
def test_a_thousand_of_them_are_real(real: Parts, tmp_path: Path) -> None:
    outcomes = check(real, 1000, tmp_path)
    decoder().close()
    assert Reason.DECODER_DIED not in outcomes
