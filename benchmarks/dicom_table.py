"""Read every real DICOM and NIfTI file, and write which are read and why the others are refused.

python benchmarks/dicom_table.py              # writes benchmarks/results/dicom.md
python benchmarks/dicom_table.py --data DIR   # the folder with dicom/INVENTORY.csv and nifti/
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

import pydicom
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.imaging.decoding.presentation import Presentation
from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import WAIVABLE, Refusal
from scripts.imaging.decoding.scans import read_scan
from scripts.learning.sources import ScanFolders, Scans

ROUNDS = 5
ROOT = Path(__file__).resolve().parent.parent
ACCEPTING = Presentation(accept=tuple(WAIVABLE))
DEFECTS = ("INVALID", "CORRUPT", "ODD", "INCONSISTENT", "NON-CONFORMANT")


def outcome(path: Path, picture: str, presentation: Presentation) -> str:
    """Say ``read`` with the size of the picture, or the code of the reason."""
    try:
        pixels = decoder().read(str(path), picture, presentation)
    except Refusal as refusal:
        return refusal.reason.value
    return "read " + "x".join(map(str, pixels.shape))


def dicom_rows(folder: Path) -> list[list[str]]:
    """Return a row a file: what pydicom says of it, what the bundle says, and says when all is accepted."""
    with open(folder / "INVENTORY.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    rows = []
    for entry in listed:
        path = folder / entry["file"]
        pydicom = entry["pixels"] if entry["pixels"].startswith("ok") else "error"
        defect = next((word for word in DEFECTS if word in entry["note"]), "")
        found = [outcome(path, "middle", presentation) for presentation in (Presentation(), ACCEPTING)]
        rows.append([entry["file"], entry["modality"], entry["ts"].partition(",")[0], defect, pydicom, *found])
    return rows


def seconds(read: Callable[[], object]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    read()
    return time.perf_counter() - started


def by_pydicom(path: Path) -> None:
    """Decode the middle frame as pydicom alone does, to stored values."""
    dataset = pydicom.dcmread(path, force=True)
    pydicom.pixels.pixel_array(dataset, index=int(dataset.get("NumberOfFrames") or 1) // 2)


def timed(paths: Sequence[Path]) -> dict[Path, tuple[float, float]]:
    """Return the median seconds of the bundle and of pydicom alone, by file; both read all files in turn."""
    sides: tuple[Callable[[Path], object], ...] = (
        lambda path: decoder().read(str(path), "middle", ACCEPTING),
        by_pydicom,
    )
    found: dict[Path, list[list[float]]] = {path: [[], []] for path in paths}
    for _ in range(ROUNDS):
        for path in paths:  # never one twice in turn: the decoder keeps the last
            for side, read in enumerate(sides):
                found[path][side].append(seconds(partial(read, path)))
    return {path: (median(ours), median(theirs)) for path, (ours, theirs) in found.items()}


def time_lines(folder: Path, rows: list[list[str]]) -> str:
    """Say how long a file takes beside pydicom alone, of those that both read."""
    paths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            with suppress(Exception):  # whatever pydicom raises
                by_pydicom(folder / row[0])
                if row[6].startswith("read"):
                    paths.append(folder / row[0])
        found = timed(paths)
    ratios = {path: ours / theirs for path, (ours, theirs) in found.items()}
    added = [ours - theirs for ours, theirs in found.values()]
    most = max(ratios, key=lambda path: ratios[path])
    return (
        f"{len(found)} files that both read, {ROUNDS} times in turn: of the bundle (its process, window and checks "
        f"included) {1e3 * median(ours for ours, _ in found.values()):.1f} ms a file, of pydicom alone "
        f"{1e3 * median(theirs for _, theirs in found.values()):.1f} ms (medians); the median of the ratios is "
        f"{median(ratios.values()):.2f}, the median of the differences {1e3 * median(added):.1f} ms, the largest ratio "
        f"{ratios[most]:.1f} ({most.name}, {1e3 * found[most][0]:.1f} ms)."
    )


def summary(rows: list[list[str]]) -> str:
    """Say in a few lines what the table holds."""
    by_pydicom = [row for row in rows if row[4].startswith("ok")]
    unread = [row for row in by_pydicom if not row[6].startswith("read")]
    more = [row for row in rows if row[4] == "error" and row[6].startswith("read")]
    default = Counter("read" if row[5].startswith("read") else row[5] for row in rows)
    accepted = Counter("read" if row[6].startswith("read") else row[6] for row in rows)

    def counts(found: Counter[str]) -> str:
        return ", ".join(f"{name} {count}" for name, count in found.most_common())

    return (
        f"{len(rows)} files. By default: {counts(default)}.\n\n"
        f"With everything accepted that may be: {counts(accepted)}.\n\n"
        f"pydicom with every decoder reads {len(by_pydicom)}; of these the bundle reads all but {len(unread)}: "
        f"{', '.join(f'{row[0]} ({row[6]})' for row in unread) or 'none'}. It reads {len(more)} that pydicom does not: "
        f"{', '.join(row[0] for row in more) or 'none'}."
    )


def nifti_rows(folder: Path) -> list[list[str]]:
    """Return a row a file: its shape once reoriented, its middle axial slice, and the whole volume."""
    rows = []
    for path in sorted(folder.iterdir()):
        shape = decoder().describe(str(path), b"", Presentation())["shape"]
        picture = "2/middle/0" if len(shape) == 4 else "2/middle"
        found = [outcome(path, name, Presentation()) for name in (picture, "")]
        rows.append([path.name, "x".join(map(str, shape)), picture, *found])
    return rows


def series_lines(folder: Path, scratch: Path) -> str:
    """Say what becomes of the series of 16 slices as a data set."""
    target = scratch / "mr"
    target.mkdir(parents=True)
    for path in folder.glob("dcm4che__MR*.dcm"):
        os.symlink(path, target / path.name)
    (group,) = Scans(ScanFolders(str(scratch))).groups()
    (middle,) = Scans(ScanFolders(str(scratch)), series="middle").groups()
    items = group.train["mr"]
    sizes = Counter("x".join(map(str, read_scan(item["image"]).shape)) for item in items)
    return (
        f"{len(items)} slices, {len({item['group'] for item in items})} patient, pictures of {dict(sizes)}; with "
        f"`series: middle` one item, {Path(middle.train['mr'][0]['image']).name}."
    )


def main() -> None:
    """Read all and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("CONTINUAL_TEST_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "dicom.md")
    data = parser.parse_args()
    rows = dicom_rows(data.data / "dicom")
    scratch = data.output.parent / ".series"
    try:
        series = series_lines((data.data / "dicom").resolve(), scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    times = time_lines(data.data / "dicom", rows)
    headers = ["file", "modality", "transfer syntax", "defect", "pydicom 3.0.2", "default", "all accepted"]
    tool = "with" if shutil.which("dcmdjpeg") else "without"
    text = [
        "# Real DICOM and NIfTI files\n",
        "Written by `python benchmarks/dicom_table.py`. Of files with several frames the middle one is read "
        f'(`pictures: middle`); {tool} `dcmdjpeg`. "pydicom" is what it decodes with every decoder there is, gdcm '
        "and GPL ones included.\n",
        "## DICOM\n",
        summary(rows) + "\n",
        times + "\n",
        tabulate(rows, headers, tablefmt="github") + "\n",
        "## The series of 16 slices\n",
        series + "\n",
        "## NIfTI\n",
        tabulate(
            nifti_rows(data.data / "nifti"),
            ["file", "shape as LPI", "picture", "slice", "whole volume"],
            tablefmt="github",
        )
        + "\n",
    ]
    data.output.write_text("\n".join(text), encoding="utf-8")
    print(data.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
