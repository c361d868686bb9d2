"""Pictures without labels, in any folders."""

from __future__ import annotations

import os

from scripts.imaging.decoding.kinds import is_picture
from scripts.learning.sources.folders import files_below, left_over
from scripts.learning.sources.source import OTHER_SETS, Group, part_meant
from scripts.utils.errors import UserError
from scripts.utils.files import plain_name

CLASS = "image"


class Pictures:
    """Reads all pictures of a folder and the folders within, as one class; what lies in a folder ``test`` is left out.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def groups(self) -> list[Group]:
        """Return the one group.

        Raises:
            UserError: where there is no such folder, or no picture in it.
        """
        if not os.path.isdir(self.root):
            raise UserError(f"data folder {self.root} is missing: give a folder of pictures (key 'dataset_dir')")
        paths = [path for path in files_below(self.root) if plain_name(path) == path and is_picture(path)]
        learnt = [path for path in paths if not self._tests(path)]
        if not learnt:
            raise UserError(f"{self.root} has no picture to learn from: give another folder (key 'dataset_dir')")
        left_out = left_over(self.root, learnt, lambda path: OTHER_SETS if path in paths else "no pictures")
        items = {CLASS: [{"image": path} for path in learnt]}
        return [Group(os.path.basename(self.root), (CLASS,), items, {}, left_out=left_out)]

    def _tests(self, path: str) -> bool:
        folders = os.path.relpath(path, self.root).split(os.sep)[:-1]
        return any(part_meant(name) == "test" for name in folders)
