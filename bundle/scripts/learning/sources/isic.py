"""The ISIC challenges as they are downloaded: one folder of images, and a table with a column of 0 and 1 a class."""

from __future__ import annotations

import os
from dataclasses import replace

from scripts.learning.sources.folders import left_over
from scripts.learning.sources.source import Group, Item
from scripts.utils.errors import UserError
from scripts.utils.tables import read_table

ORIGIN = "https://challenge.isic-archive.com/data"


class IsicChallenge:
    """Reads the training part of an ISIC challenge; there is no split (see :class:`scripts.learning.tasks.HoldOut`).

    Args:
        root: the folder that everything else lies in.
        images: folder of the images ``<name>.jpg``.
        truth: CSV file with the column ``image`` and one a class, of which each image has one that is 1.
        lesions: CSV file with the columns ``image`` and ``lesion_id``; ``None``: each image is of a lesion of its own.
    """

    def __init__(self, root: str, images: str, truth: str, lesions: str | None = None) -> None:
        self.root = os.path.abspath(root)
        self.images = os.path.join(self.root, images)
        self.truth = os.path.join(self.root, truth)
        self.lesions = None if lesions is None else os.path.join(self.root, lesions)

    def groups(self) -> list[Group]:
        """Return the one group; classes without an image (ISIC 2019's UNK) are left out."""
        if not os.path.isdir(self.images):
            raise UserError(f"data folder {self.images} is missing: get the images and {self.truth} from {ORIGIN}")
        rows = read_table(self.truth, ["image"])
        names = [name for name in next(iter(rows.values()), {}) if name != "image"]
        items: dict[str, list[Item]] = {name: [] for name in names}
        lesions = self._lesions()
        for number, row in rows.items():
            item = {"image": os.path.join(self.images, f"{row['image']}.jpg")}
            if not os.path.isfile(item["image"]):
                raise UserError(f"line {number} of {self.truth} names a missing image, {item['image']}: get {ORIGIN}")
            subject = lesions.get(row["image"])
            items[self._class(row, names, number)].append({**item, "group": subject} if subject else item)
        found = {name: listed for name, listed in items.items() if listed}
        if not found:
            raise UserError(f"{self.truth} names no images: get it again from {ORIGIN}")
        group = Group(os.path.basename(self.root), tuple(found), found, {})
        left_out = left_over(self.images, group.images(), lambda path: "files that the table does not name")
        return [replace(group, left_out=left_out)]

    def _class(self, row: dict[str, str], names: list[str], number: int) -> str:
        chosen = [name for name in names if row[name] in ("1", "1.0")]
        if len(chosen) != 1:
            raise UserError(f"line {number} of {self.truth} has {len(chosen)} classes that are 1: it needs one")
        return chosen[0]

    def _lesions(self) -> dict[str, str]:
        if self.lesions is None:
            return {}
        rows = read_table(self.lesions, ["image"])
        if any("lesion_id" not in row for row in rows.values()):
            raise UserError(f"{self.lesions} has no column 'lesion_id': it needs image and lesion_id")
        return {row["image"]: row["lesion_id"] for row in rows.values()}
