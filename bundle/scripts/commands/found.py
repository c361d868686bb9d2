"""What somebody's data are: a folder a class, a table, npz files, DICOM or NIfTI, found out and said."""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from scripts.commands.configs import (
    CONFIGS,
    GENERATED,
    SUFFIXES,
    TRAIN,
    VOLUMES,
    data_files,
    known_configs,
    read_config,
)
from scripts.imaging.decoding.kinds import is_picture, kind_of
from scripts.utils.errors import UserError
from scripts.utils.tables import read_cells

LOOKED_AT = 100
"""Files of a folder that are opened to tell what it holds."""
TABLES = (".csv", ".tsv")
TABLE_OF_SCANS = "@list_source"
"""Where the pages of DICOM and NIfTI files have the source of a table."""
TABLE, DATALIST, LISTS = "labels.csv", "datalist.json", ("train.txt", "test.txt")
"""What a folder may hold that says what its images are."""
COLUMNS = {
    "path": ("path", "image", "image_path", "file", "filename", "file_name", "filepath"),
    "label": ("label", "class", "diagnosis", "dx", "target", "category"),
    "split": ("split", "set", "partition"),
    "group": ("group", "patient", "patient_id", "patientid", "subject", "subject_id", "lesion_id"),
}
"""What people call the columns of a table, by the argument of :class:`scripts.learning.sources.LabelsCsv`."""
KINDS = {
    "image_folder": "pictures, a folder a class",
    "dicom": "DICOM files, a folder a class",
    "nifti": "NIfTI files, a folder a class, learnt slice by slice",
}


@dataclass(frozen=True)
class Found:
    """A data set.

    Attributes:
        name: under which values are published for it.
        files: its configs, between ``train.json`` and those of a method.
        keys: ``--key value`` words that make the configs read it.
        words: what it is, for people.
    """

    name: str
    files: tuple[Path, ...]
    keys: tuple[str, ...]
    words: str


def find_data(given: str) -> Found:
    """Find out what data are meant.

    Args:
        given: the name of a page in ``configs/datasets``, ``generated``, a config of one's own, a folder, a table, a
            datalist or an npz file.

    Raises:
        UserError: where there is no such thing, or nothing in it is read.
    """
    path = Path(given)
    if given == GENERATED or given in known_configs("datasets") or _is_config(path):
        words = "images that the bundle draws itself" if given == GENERATED else f"the data set {given}"
        return Found(given, tuple(data_files(given)), (), words)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        names = ", ".join([GENERATED, *known_configs("datasets")])
        raise UserError(f"there is no {given}: give a folder, a CSV, JSON or npz file, or one of {names}")
    if path.suffix.lower() in TABLES:
        return _table(path)
    if path.suffix == ".npz":
        return _arrays([path])
    if path.suffix == ".json":
        return _page("datalist", path.parent, f"a datalist, {path.name}", ("--source#file", path.name))
    raise UserError(f"{given} is a file, but no CSV, JSON or npz file: give the folder that the images are in")


def source_of(found: Found) -> dict[str, Any]:
    """Return the block that reads the data, whatever else its page sets: a run that goes on has its own settings."""
    page = read_config((TRAIN, *found.files)[-1])
    pairs = dict(zip(found.keys[::2], found.keys[1::2], strict=True))

    def block(place: str) -> dict[str, Any]:
        own = {key.removeprefix(f"--{place}#"): text for key, text in pairs.items() if key.startswith(f"--{place}#")}
        return {**page[place], **{key: _value(text) for key, text in own.items()}}

    source = block("source")
    if source.get("files") == TABLE_OF_SCANS:
        source["files"] = block("list_source")
    return source


def _value(text: str) -> Any:
    """Return what a word of the command line stands for."""
    if text == "$None":
        return None
    return json.loads(text) if text.startswith("[") else text


def _is_config(path: Path) -> bool:
    return path.suffix in SUFFIXES and path.is_file() and not _is_datalist(path)


def _is_datalist(path: Path) -> bool:
    """Say whether a file is in MONAI's datalist form, and no config."""
    lists = [value for value in read_config(path).values() if isinstance(value, list)]
    return path.suffix == ".json" and any(isinstance(one, dict) and "image" in one for own in lists for one in own[:1])


def _page(name: str, folder: Path, words: str, keys: Sequence[str] = (), networks: Sequence[Path] = ()) -> Found:
    page = CONFIGS / "datasets" / f"{name}.yaml"
    return Found(name, (*networks, page), ("--dataset_dir", str(folder.absolute()), *keys), words)


def _folder(folder: Path) -> Found:
    if (folder / TABLE).is_file():
        return _table(folder / TABLE)
    if (folder / DATALIST).is_file():
        return _page("datalist", folder, f"a datalist, {DATALIST}")
    if all((folder / name).is_file() for name in LISTS):
        return _page("list", folder, f"the lists {' and '.join(LISTS)}")
    files = list(islice(_files(folder), LOOKED_AT))
    if arrays := [path for path in files if path.suffix == ".npz" and path.parent == folder]:
        return _arrays(arrays)
    kinds = Counter(filter(None, map(_kind, files)))
    if not kinds:
        what = f"none of the {len(files)} files" if files else "no file"
        raise UserError(f"{folder} has nothing to learn from, {what} is a picture, DICOM or NIfTI: give another folder")
    name = kinds.most_common(1)[0][0]
    return _page(name, folder, KINDS[name])


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _kind(path: Path) -> str | None:
    """Return the page that reads a file."""
    return "image_folder" if is_picture(str(path)) else kind_of(str(path))


def _table(file: Path) -> Found:
    """Read the header of a table and choose its columns; what is not found is left to the page, whose refusal says it.

    A table of DICOM or NIfTI files is known by its first row.
    """
    names = [name for alike in COLUMNS.values() for name in alike]
    header, *rows = [cells for _, cells in read_cells(str(file), names)] or [[]]
    found = {
        argument: next((name for name in header if name.strip().lower() in names), None)
        for argument, names in COLUMNS.items()
    }
    first = dict(zip(header, rows[0], strict=False)).get(found["path"] or "") if rows else None
    kind = kind_of(str(file.parent / first)) if first else None
    place = "list_source" if kind else "source"
    keys = [f"--{place}#file", file.name]
    for argument, name in found.items():
        if name is not None or argument == "split":
            keys += [f"--{place}#{argument}", name or "$None"]
    said = ", ".join(f"{argument} in '{name}'" for argument, name in found.items() if name)
    asked = ("--source#files", TABLE_OF_SCANS) if kind else ()
    return _page(kind or "csv", file.parent, f"a table, {file.name}: {said or 'no column known'}", (*asked, *keys))


def _arrays(files: Sequence[Path]) -> Found:
    """Learn a task a file; a single file is one task."""
    names = json.dumps([file.name for file in files])
    is_volumes = _axes(files[0]) == 4
    page, networks = ("medmnist3d", (VOLUMES,)) if is_volumes else ("medmnist", ())
    words = f"npz files of {'volumes' if is_volumes else 'pictures'}, a task a file: {', '.join(f.name for f in files)}"
    return _page(page, files[0].parent, words, ("--source#sets", names), networks)


def _axes(file: Path) -> int:
    """Return the axes of the training images of an npz file, colours not counted; 0 where they cannot be told."""
    from numpy.lib import format as npy

    try:
        with zipfile.ZipFile(file) as archive, archive.open("train_images.npy") as array:
            version = npy.read_magic(array)
            shape = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(array)[0]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return 0  # the page's source says what is wrong
    return len(shape) - (len(shape) > 3 and shape[-1] in (1, 3))
