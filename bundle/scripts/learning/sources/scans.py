"""Data sets of DICOM and NIfTI files: a folder a class, or any list of them, and who the patients are."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from scripts.imaging.decoding.kinds import kind_of
from scripts.imaging.decoding.presentation import split_reference
from scripts.imaging.decoding.scans import make_selection
from scripts.learning.sources.folders import files_below, left_over, read_classes, unused
from scripts.learning.sources.source import NOT_CHOSEN, Group, Item, Source
from scripts.utils.errors import UserError
from scripts.utils.files import plain_name

LAYOUT = "<dataset_dir>/<train and test>/<class>/... or <dataset_dir>/<class>/..., DICOM or NIfTI files at any depth"
SERIES = ("all", "middle")


class ScanFolders:
    """Finds DICOM and NIfTI files, by their content, in ``<root>/<train|test>/<class>`` or ``<root>/<class>``.

    Files may lie at any depth below the class, as an archive exports them; other files are left out. Without
    ``train`` and ``test`` there is no split (see :class:`scripts.learning.tasks.HoldOut`).

    Args:
        root: the folder that holds ``train`` and ``test``, or the class folders.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def groups(self) -> list[Group]:
        """Return the one group."""
        parts = read_classes(self.root, LAYOUT, _scans)
        group = Group(os.path.basename(self.root), tuple(parts[0]), *parts)
        return [replace(group, left_out=left_over(self.root, group.images(), partial(unused, known=_is_scan)))]


class Scans:
    """Names the pictures of the DICOM and NIfTI files that another source finds, and tells patients apart.

    Each item gets the presentation, so that every reader of it sees the same picture, and as ``group`` the HMAC of its
    PatientID (of the study where there is none; of a NIfTI file its path), unless the source has given it one.

    Args:
        files: finds the files: :class:`ScanFolders`, or any source whose items are files.
        presentation: the config's key ``presentation``; see :func:`scripts.imaging.decoding.scans.make_selection`.
        series: ``all``: an item a file (or picture of a file); ``middle``: an item a DICOM series, its middle file.
        patient_key: secret of the HMAC; ``None``: a random one, which ends with the process.

    Raises:
        UserError: for a setting that means nothing.
    """

    def __init__(
        self,
        files: Source,
        presentation: Mapping[str, Any] | None = None,
        series: str = "all",
        patient_key: str | None = None,
    ) -> None:
        if series not in SERIES:
            raise UserError(f"series is {series!r}: give one of {', '.join(SERIES)}")
        self.files = files
        self.selection = make_selection(presentation)
        self.series = series
        self.key = secrets.token_bytes(32) if patient_key is None else patient_key.encode()

    def groups(self) -> list[Group]:
        """Return the source's groups.

        Raises:
            UserError: where training and test share a patient; it says how many they share.
        """
        groups = [self._group(group) for group in self.files.groups()]
        refuse_shared_patients(groups)
        return groups

    def _group(self, files: Group) -> Group:
        group = replace(
            files,
            train={name: self._items(items) for name, items in files.train.items()},
            test={name: self._items(items) for name, items in files.test.items()},
            validation={name: self._items(items) for name, items in files.validation.items()},
        )
        shown = {split_reference(image)[0] for image in group.images()}
        others = [file for file in files.images() if file not in shown]
        return replace(group, left_out={**files.left_out, NOT_CHOSEN: others}) if others else group

    def _items(self, files: Iterable[Item]) -> list[Item]:
        found = []
        for file in files:
            references, description = self.selection.references(file["image"], self.key)
            patient = file.get("group") or description.get("patient") or file["image"]
            pictures = [{**file, "image": reference, "group": patient} for reference in references]
            found.append((description, pictures))
        if self.series == "middle":
            found = _middle_of_series(found)
        return [item for _, pictures in found for item in pictures]


def refuse_shared_patients(groups: Iterable[Group]) -> None:
    """Refuse a division in which a patient is on both sides.

    Raises:
        UserError: it says how many patients are, and of how many.
    """
    train, test = set(), set()
    for group in groups:
        train |= {item["group"] for items in group.train.values() for item in items}
        test |= {item["group"] for items in group.test.values() for item in items}
    shared = train & test
    if shared:
        raise UserError(
            f"{len(shared)} of {len(train | test)} patients are in both training and test: "
            "put all images of a patient on one side, or leave the division to the bundle (no train and test folders)"
        )


Described = tuple[dict[str, Any], list[Item]]


def _middle_of_series(found: list[Described]) -> list[Described]:
    """Keep of each series the file in the middle, by position; what belongs to no series stays."""
    series: dict[str, list[Described]] = {}
    for number, entry in enumerate(found):
        series.setdefault(entry[0].get("series") or str(number), []).append(entry)
    ordered = [sorted(entries, key=lambda entry: entry[0].get("position", 0.0)) for entries in series.values()]
    return [entries[len(entries) // 2] for entries in ordered]


def _scans(folder: str) -> list[Item]:
    items = [{"image": path} for path in files_below(folder) if plain_name(path) == path and _is_scan(path)]
    if not items:
        raise UserError(f"class folder {folder} has no DICOM or NIfTI files: add some, or remove it")
    return items


def _is_scan(path: str) -> bool:
    return kind_of(path) is not None
