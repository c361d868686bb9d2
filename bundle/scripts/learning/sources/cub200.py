"""Caltech-UCSD Birds 200-2011, as its archive unpacks: four tables of ``<image number> <value>`` and the images."""

from __future__ import annotations

import os
from dataclasses import replace

from scripts.learning.sources.folders import left_over
from scripts.learning.sources.source import Group, Item
from scripts.utils.errors import UserError

ORIGIN = "https://www.vision.caltech.edu/datasets/cub_200_2011 (CUB_200_2011.tgz)"


class Cub200:
    """Reads ``images/``, ``images.txt``, ``image_class_labels.txt``, ``classes.txt`` and ``train_test_split.txt``.

    Args:
        root: the folder ``CUB_200_2011``.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def groups(self) -> list[Group]:
        """Return the one group; classes in the order of ``classes.txt``."""
        names, images = self._table("classes.txt"), self._table("images.txt")
        labels, training = self._table("image_class_labels.txt"), self._table("train_test_split.txt")
        splits: tuple[dict[str, list[Item]], ...] = tuple({name: [] for name in names.values()} for _ in range(2))
        for number, path in images.items():
            for table, file in ((labels, "image_class_labels.txt"), (training, "train_test_split.txt")):
                if number not in table:
                    raise UserError(f"image {number} ({path}) is not in {os.path.join(self.root, file)}: get it again")
            if labels[number] not in names:
                raise UserError(f"image {number} ({path}) has the class {labels[number]}, which classes.txt has not")
            image = os.path.join(self.root, "images", path)
            if not os.path.isfile(image):
                raise UserError(f"images.txt names the missing image {image}: unpack the archive again, from {ORIGIN}")
            splits[training[number] != "1"][names[labels[number]]].append({"image": image})
        group = Group("cub200", tuple(names.values()), *splits)
        folder = os.path.join(self.root, "images")
        left_out = left_over(folder, group.images(), lambda path: "files that images.txt does not name")
        return [replace(group, left_out=left_out)]

    def _table(self, file: str) -> dict[str, str]:
        path = os.path.join(self.root, file)
        try:
            with open(path, encoding="utf-8") as lines:
                rows = [line.split(maxsplit=1) for line in lines if line.strip()]
        except FileNotFoundError:
            raise UserError(f"{path} is missing: get the data set from {ORIGIN}") from None
        wrong = [row for row in rows if len(row) != 2]
        if wrong:
            raise UserError(f"{path} has the line {wrong[0][0]!r}: each line needs a number and a value")
        return {number: value.strip() for number, value in rows}
