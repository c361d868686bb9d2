"""MedMNIST: the sets of images and of volumes by name, and other npz files of the same layout."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from scripts.learning.sources.arrays import read_group
from scripts.learning.sources.download import fetch, intact
from scripts.learning.sources.source import Group, carries_several
from scripts.utils.errors import UserError

SIZES = (28, 64, 128, 224)


class MedMnist:
    """Reads one npz file (to be split into tasks), or a chain of them (each a group).

    A set is given by its MedMNIST name (``bloodmnist`` at 64 px is the file ``bloodmnist_64.npz``, its checksum is
    compared), or as an npz file. The classes of a file whose name starts with that of a set get that set's names, those
    of other files are "0", "1", ... In a chain class names become ``<set>/<class>``.

    Source of names, checksums and class names: the ``medmnist`` package, version 3 (MedMNIST+).

    Args:
        root: the folder of the npz files.
        sets: the set, or several in task order.
        size: of each side, in pixels, of the sets given by name: 28, 64, 128 or 224, of volumes 28 or 64.
        download: fetch a set given by name that is missing.
        labels: ``one`` class an image, or ``many`` findings, as ``chestmnist`` has them; see
            :func:`scripts.learning.sources.arrays.read_group`.
    """

    def __init__(
        self, root: str, sets: str | Sequence[str], size: int = 28, download: bool = False, labels: str = "one"
    ) -> None:
        self.root = os.path.abspath(root)
        self.sets = [sets] if isinstance(sets, str) else list(sets)
        self.size = size
        self.download = download
        self.several = carries_several(labels)

    def groups(self) -> list[Group]:
        """Return a group a set."""
        return [self._group(name) for name in self.sets]

    def _group(self, name: str) -> Group:
        file = os.path.join(self.root, name) if name.endswith(".npz") else self._official(name)
        known = _known(file)
        title = known or _stem(file)
        prefix = f"{title}/" if len(self.sets) > 1 else ""
        return read_group(file, title, _classes(known) if known else None, prefix, self.several)

    def _official(self, name: str) -> str:
        """Return the file of a set given by name, once it is there and whole."""
        if name not in _info():
            raise UserError(
                f"no MedMNIST set {name!r}: choose {', '.join(_info())}, or give an npz file (key 'source#sets')"
            )
        published = {size: "" if size == 28 else f"_{size}" for size in SIZES}
        sizes = [size for size, suffix in published.items() if f"MD5{suffix}" in _info()[name]]
        if self.size not in sizes:
            raise UserError(f"size is {self.size}: MedMNIST has {name} with {', '.join(map(str, sizes))} px a side")
        suffix = published[self.size]
        url, md5 = (_info()[name][f"{key}{suffix}"] for key in ("url", "MD5"))
        file = os.path.join(self.root, f"{name}{suffix}.npz")
        if not os.path.isfile(file) and self.download:
            fetch(url, file, md5)
        if not os.path.isfile(file):
            raise UserError(
                f"data file {file} is missing: get {url} (MD5 {md5}) and put it there, or --source#download true"
            )
        intact(file, md5, url)
        return file


@cache
def _info() -> dict[str, dict[str, Any]]:
    """Return MedMNIST's own table of its sets."""
    from medmnist.info import INFO  # imports pandas and scikit-learn: a second that other data sets need not wait

    return dict(INFO)


def _classes(name: str) -> tuple[str, ...]:
    labels = _info()[name]["label"]
    return tuple(labels[str(number)] for number in range(len(labels)))


def _stem(file: str) -> str:
    return os.path.splitext(os.path.basename(file))[0]


def _known(file: str) -> str | None:
    found = re.match(r"[a-z]+mnist(3d)?", _stem(file))
    return found.group() if found and found.group() in _info() else None
