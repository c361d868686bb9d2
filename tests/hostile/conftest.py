"""Shared by the tests with hostile input: good files of every kind, what is done to them, and what is counted.

Every damaged file must give an answer or a named error within ten seconds and two gigabytes, whichever door it comes
through. `benchmarks/hostile.py` runs these tests and writes what they count as a table.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import re
import signal
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.imaging.decoding.reasons import ImageRefused
from scripts.utils.errors import find_user_error

SECONDS = 10
LIMIT = 2**31  # bytes of memory
RLE = "1.2.840.10008.1.2.5"
SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", RLE]
SYNTAXES += ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"]
IDENTIFIERS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
LARGEST = 300_000  # bytes of a real file that is damaged
Mutation = Callable[[bytearray, np.random.Generator], None]


@dataclass(frozen=True)
class Good:
    """A file as it should be; ``rest`` is what a reference says behind its path."""

    content: bytes
    suffix: str
    rest: str


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory, scans: Any) -> dict[str, list[Good]]:
    """Small files in five formats, drawn here, by kind."""
    folder = tmp_path_factory.mktemp("drawn")
    everything = "accept=missing_identifiers,localizer,derived,burned_in,unknown_orientation"
    grey = (5 * np.arange(40)[:, None] + np.arange(50)).astype(np.uint16)
    colour = np.stack([grey, 2 * grey, 3 * grey], axis=2).astype(np.uint8)
    made: dict[str, list[tuple[str, str]]] = {kind: [] for kind in ("dicom", "nifti", "picture", "npz", "npy")}
    window = {"WindowCenter": 100, "WindowWidth": 300, "RescaleSlope": 2, "RescaleIntercept": -4, **IDENTIFIERS}
    for number, syntax in enumerate(SYNTAXES):
        made["dicom"].append((scans.dicom(folder / f"{number}.dcm", grey, syntax, **window), f"#middle?{everything}"))
    frames = scans.dicom(folder / "frames.dcm", np.stack([grey, grey // 2]), RLE, **IDENTIFIERS)
    rgb = scans.dicom(folder / "rgb.dcm", colour, RLE, PhotometricInterpretation="RGB", **IDENTIFIERS)
    made["dicom"] += [(frames, f"#mean?{everything}"), (rgb, f"#?{everything}")]
    for suffix in (".nii", ".nii.gz"):
        volume = scans.nifti(folder / f"a{suffix}", np.stack([grey, grey]).astype(np.float32))
        made["nifti"].append((volume, f"#0/1?{everything}"))
    for suffix in (".png", ".jpg", ".gif", ".tif", ".bmp", ".webp"):
        Image.fromarray(colour).save(folder / f"a{suffix}")
        made["picture"].append((str(folder / f"a{suffix}"), ""))
    np.savez(folder / "a.npz", train_images=colour[None])
    np.savez_compressed(folder / "b.npz", train_images=colour[None])
    np.save(folder / "a.npy", np.stack([grey, grey]).astype(np.uint8))
    made["npz"] = [(str(folder / "a.npz"), "#train/0"), (str(folder / "b.npz"), "#train/0")]
    made["npy"] = [(str(folder / "a.npy"), "")]
    return {
        kind: [Good(Path(path).read_bytes(), _suffix(path), rest) for path, rest in files]
        for kind, files in made.items()
    }


@pytest.fixture(scope="session")
def real(test_data: Path) -> dict[str, list[Good]]:
    """The real DICOM and NIfTI files of up to 300 kB."""
    everything = "accept=missing_identifiers,localizer,derived,burned_in,unknown_orientation"
    rests = {"dicom": f"#middle?{everything}", "nifti": f"#2/middle/0?{everything}"}
    paths = {kind: sorted((test_data / kind).glob("*")) for kind in rests}
    return {
        kind: [
            Good(path.read_bytes(), _suffix(path.name), rests[kind])
            for path in found
            if path.suffix != ".csv" and path.stat().st_size < LARGEST
        ]
        for kind, found in paths.items()
    }


def _suffix(path: str) -> str:
    return ".nii.gz" if path.endswith(".nii.gz") else Path(path).suffix


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


def edit_length(content: bytearray, rng: np.random.Generator) -> None:
    """Change a number near the head by a little or to its double, as the length of what follows it would be."""
    kind = ["<H", "<I", ">H", ">I"][rng.integers(0, 4)]
    place = int(rng.integers(0, min(len(content) - 4, 1500)))
    (value,) = struct.unpack_from(kind, content, place)
    largest = 256 ** struct.calcsize(kind) - 1
    changed = [value + 1, value - 1, 2 * value, value + 1000, largest - value][rng.integers(0, 5)]
    struct.pack_into(kind, content, place, changed % (largest + 1))


def cut(content: bytearray, rng: np.random.Generator) -> None:
    """Cut the end off."""
    del content[int(rng.integers(0, len(content))) :]


def swap(content: bytearray, rng: np.random.Generator) -> None:
    """Write a stretch of the file over another."""
    length = int(rng.integers(1, 200))
    source, target = (int(place) for place in rng.integers(0, len(content), 2))
    content[target : target + length] = content[source : source + length]


def enlarge(content: bytearray, rng: np.random.Generator) -> None:
    """Let the file say that it is huge, with checksums that are right: sides, frames, values."""
    sizes = [0, 1, 32767, 65535, 10**9]
    size = sizes[rng.integers(0, len(sizes))]
    if content[:2] == b"\x1f\x8b":
        inner = bytearray(gzip.decompress(content))
        enlarge(inner, rng)
        content[:] = gzip.compress(inner, 1)
    elif content[:4] == b"\x89PNG":
        struct.pack_into(">I", content, 16 + 4 * int(rng.integers(0, 2)), size)
        struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    elif content[:2] == b"PK":
        _enlarge_member(content, size)
    elif content[:6] == b"\x93NUMPY":
        content[:] = _array_header((size, size, 3)) + content[-100:]
    elif content[128:132] == b"DICM":
        tags = [b"\x28\x00\x10\x00", b"\x28\x00\x11\x00", b"\x28\x00\x02\x00", b"\x28\x00\x08\x00", b"\x28\x00\x00\x01"]
        place = content.find(tags[rng.integers(0, len(tags))])
        if place >= 0:
            struct.pack_into("<H", content, min(place + 8, len(content) - 2), size % 65536)
    else:  # NIfTI-1: dim[1..4]
        struct.pack_into("<h", content, min(42 + 2 * int(rng.integers(0, 4)), len(content) - 2), min(size, 32767))


def _enlarge_member(content: bytearray, size: int) -> None:
    """Let the array of an npz file have a huge shape."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train_images.npy", _array_header((size, size, 3)) + b"\0" * 100)
        content[:] = file.getvalue()


def _array_header(shape: tuple[int, ...]) -> bytes:
    with io.BytesIO() as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file.getvalue()


MUTATIONS: list[Mutation] = [flip, edit_header, edit_length, cut, swap, enlarge]


@pytest.fixture(scope="session")
def damage() -> Callable[[bytes, np.random.Generator], bytes]:
    """Do one of `MUTATIONS` to a file's content."""

    def damaged(content: bytes, rng: np.random.Generator) -> bytes:
        changed = bytearray(content)
        MUTATIONS[rng.integers(0, len(MUTATIONS))](changed, rng)
        return bytes(changed)

    return damaged


NAMES = [
    "..",
    "...",
    "-rf",
    "a b",
    "a\nb",
    "%2e%2e%2f",
    "a;b",
    "$(touch x)",
    "\u202egnp",
    "é",
    "CON",
    "#1",
    "?a",
    "a" * 200,
]


@pytest.fixture(scope="session")
def mutants(damage: Any) -> Callable[..., Iterator[tuple[Path, str]]]:
    """Write one damaged file after the other into a folder, of each kind in turn; always the same ones.

    Yields each file's path and what a reference says behind it.
    """

    def write(
        parts: dict[str, list[Good]], count: int, folder: Path, odd_names: bool = False
    ) -> Iterator[tuple[Path, str]]:
        rng = np.random.default_rng(20)
        for number in range(count):
            kind = list(parts)[number % len(parts)]
            good = parts[kind][rng.integers(0, len(parts[kind]))]
            odd = NAMES[rng.integers(0, len(NAMES))] if odd_names else ""
            path = folder / f"{odd}{number}{good.suffix}"
            path.write_bytes(damage(good.content, rng))
            yield path, good.rest

    return write


def _odd_values(rng: np.random.Generator) -> Any:
    deep: Any = []
    for _ in range(int(rng.integers(1, 900))):
        deep = [deep]
    values = [
        None,
        True,
        -1,
        0,
        10**9,
        10**400,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "../../../etc/passwd",
        "\0",
        "a" * 10**5,
    ]
    values += [
        [],
        {},
        [None],
        {"": None},
        deep,
        "$__import__('os').system('false')",
        "@network",
        {"_target_": "os.system"},
    ]
    return values[rng.integers(0, len(values))]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from _places(part, (*path, key))


@pytest.fixture(scope="session")
def damage_json(damage: Any) -> Callable[[bytes, np.random.Generator], bytes]:
    """Damage JSON: its bytes, or a value of it, which becomes an odd one or is left out."""

    def damaged(content: bytes, rng: np.random.Generator) -> bytes:
        if rng.random() < 0.3:
            return bytes(damage(content, rng))
        value = json.loads(content)
        places = list(_places(value))
        place = places[rng.integers(0, len(places))]
        if not place:
            return json.dumps(_odd_values(rng)).encode()
        within = value
        for key in place[:-1]:
            within = within[key]
        if rng.random() < 0.3:
            del within[place[-1]]
        else:
            within[place[-1]] = _odd_values(rng)
        return json.dumps(value, indent=4).encode()

    return damaged


@dataclass
class Tally:
    """What came of the files that went through a door."""

    door: str
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0

    def ask(self, what: str, question: Callable[[], object], answered: str = "answered") -> Any:
        """Ask, and count what came of it; whatever is no named error is a fault."""
        started = time.monotonic()
        answer = None
        try:
            with _at_most(3 * SECONDS):
                answer = question()
            self.outcomes[answered] += 1
        except Exception as error:
            named = find_user_error(error)  # MONAI wraps what is raised while a config is read
            if named is None:
                self.faults.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
            code = named.reason.value if isinstance(named, ImageRefused) else "named error"
            self.outcomes["fault" if named is None else code] += 1
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.memory = max(self.memory, peak_memory())
        return answer

    @property
    def count(self) -> int:
        """How many files there were."""
        return sum(self.outcomes.values())


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still at work after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak_memory(process: int | str = "self") -> int:
    """Return the most bytes that a process, or one that it has started and that still runs, has held at once."""
    found = [0]
    with suppress(FileNotFoundError, ProcessLookupError):
        found += [int(kib) for kib in re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())]
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            found += [peak_memory(int(child)) // 1024 for child in children.read_text().split()]
    return 1024 * max(found)


def forget_peak() -> None:
    """Begin anew to look for this process's most memory."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Log nothing: pytest would keep each record, with the error in it and all that this refers to, to the end."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def tally() -> Iterator[Callable[[str], Tally]]:
    """Make what counts the files of a door; at the end they must have kept to the limits.

    The figures go to the file that HOSTILE_FIGURES names, a line of JSON a door.
    """
    made: list[Tally] = []

    def make(door: str) -> Tally:
        made.append(Tally(door))
        return made[-1]

    forget_peak()
    before = (
        peak_memory()
    )  # of pytest after other tests; of a process of its own (benchmarks/hostile.py) next to nothing
    yield make
    own = peak_memory()
    for each in made:
        each.memory = max(each.memory, own)
        said = dict(each.outcomes.most_common())
        print(f"{each.door}: {each.count} files: {said}; slowest {each.slowest:.2f} s; {each.memory / 2**20:.0f} MiB")
        if "HOSTILE_FIGURES" in os.environ:
            record = {"door": each.door, "outcomes": said, "slowest": each.slowest, "memory": each.memory}
            with open(os.environ["HOSTILE_FIGURES"], "a") as file:
                file.write(json.dumps(record) + "\n")
    for each in made:
        assert each.faults == []
        assert each.slowest < SECONDS + 2  # the limit of one decoding, and the time to end a process
        assert each.memory - before < LIMIT


@pytest.fixture(scope="session", name="peak_memory")
def peak_memory_fixture() -> Callable[..., int]:
    """The function `peak_memory`."""
    return peak_memory
