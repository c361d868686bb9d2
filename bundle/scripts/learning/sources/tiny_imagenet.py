"""Tiny ImageNet, as its archive unpacks: a folder a class to learn from, one flat folder with a table to test with."""

from __future__ import annotations

import csv
import os
from dataclasses import replace

from scripts.learning.sources.folders import class_folders, left_over, list_images
from scripts.learning.sources.source import Group, Item
from scripts.utils.errors import UserError

ORIGIN = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
LAYOUT = f"train/<class>/images/, val/images/ and val/val_annotations.txt, as in {ORIGIN}"


class TinyImageNet:
    """Reads ``train/<class>/images/*.JPEG``, and ``val/images/*.JPEG`` as ``val/val_annotations.txt`` names them.

    Args:
        root: the folder ``tiny-imagenet-200``.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def groups(self) -> list[Group]:
        """Return the one group; its classes are sorted by name, which are WordNet's numbers."""
        folder = os.path.join(self.root, "train")
        train = {name: list_images(os.path.join(folder, name, "images")) for name in class_folders(folder, LAYOUT)}
        test: dict[str, list[Item]] = {name: [] for name in train}
        for image, name in self._annotations():
            if name not in test:
                raise UserError(f"val_annotations.txt names the class {name!r}, which {folder} has no folder of")
            test[name].append({"image": image})
        group = Group("tinyimagenet", tuple(train), train, test)
        return [replace(group, left_out=left_over(self.root, group.images()))]

    def _annotations(self) -> list[tuple[str, str]]:
        path = os.path.join(self.root, "val", "val_annotations.txt")
        try:
            with open(path, encoding="utf-8", newline="") as file:
                rows = [row for row in csv.reader(file, delimiter="\t") if row]
        except FileNotFoundError:
            raise UserError(f"{path} is missing: the layout is {LAYOUT}") from None
        named = [(os.path.join(self.root, "val", "images", row[0]), "".join(row[1:2])) for row in rows]
        missing = [image for image, _ in named if not os.path.isfile(image)]
        if missing:
            raise UserError(f"{path} names {len(missing)} missing images, the first {missing[0]}: {LAYOUT}")
        return named
