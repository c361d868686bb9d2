"""Data sets kept as npz files in the MedMNIST layout: ``{train,val,test}_images`` and ``{train,val,test}_labels``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scripts.imaging.transforms.npz import npz_array, npz_images, npz_names
from scripts.learning.sources.source import NO_FINDING, Group, Item
from scripts.utils.errors import UserError

Labels = dict[str, np.ndarray]


def read_group(
    file: str, name: str, classes: tuple[str, ...] | None = None, prefix: str = "", several: bool = False
) -> Group:
    """Read one npz file.

    Where ``labels`` have several columns of 0 and 1 (findings), and images are of one class, an image with just one
    finding is of that class; the others have no place among classes that exclude each other, and are left out.

    Args:
        file: the npz file.
        name: the data set's name.
        classes: names of the labels; ``None``: those in the array ``classes``, or else "0", "1", ...
        prefix: put before each class's name.
        several: whether an image may carry several findings.

    Raises:
        UserError: where the file is missing or broken, or images, labels and classes do not fit each other.
    """
    splits = ("train", "test", "val") if "val_images" in npz_names(file) else ("train", "test")
    if several:
        return _with_findings(file, name, splits, classes, prefix)
    labels = {split: _labels(file, split) for split in splits}
    if classes is None:
        classes = _named(file) or tuple(str(number) for number in range(1 + int(labels["train"].max())))
    for split, part in labels.items():
        wrong = part[part >= len(classes)]
        if wrong.size:
            raise UserError(
                f"{split}_labels of {file} has the label {wrong[0]}: out of range, there are {len(classes)} classes, "
                f"0 to {len(classes) - 1}"
            )
    named = tuple(f"{prefix}{member}" for member in classes)
    others = [f"{file}#{split}/{index}" for split, part in labels.items() for index in np.flatnonzero(part < 0)]
    left_out = {"images with several findings, or none": others} if others else {}
    parts = (_by_class(file, split, part, named) for split, part in labels.items())
    return Group(name, named, *parts, left_out=left_out)


def _with_findings(file: str, name: str, splits: Sequence[str], classes: tuple[str, ...] | None, prefix: str) -> Group:
    """Read a file whose labels have a column a finding."""
    labels = {split: _columns(file, split) for split in splits}
    width = labels["train"].shape[1]
    classes = classes or _named(file) or tuple(str(number) for number in range(width))
    for split, part in labels.items():
        if part.shape[1] != len(classes):
            raise UserError(f"{split}_labels of {file} has {part.shape[1]} columns for {len(classes)} findings")
    named = tuple(f"{prefix}{member}" for member in classes)
    parts = []
    for split, part in labels.items():
        listed = {member: np.flatnonzero(part[:, number]) for number, member in enumerate(named)}
        listed[NO_FINDING] = np.flatnonzero(~part.any(axis=1))
        parts.append({member: _items(file, split, indices) for member, indices in listed.items()})
    return Group(name, named, *parts, several=True)


def _columns(file: str, split: str) -> np.ndarray:
    """Return the labels of one split, [N, C] of 0 and 1."""
    labels = _whole_numbers(file, split)
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise UserError(
            f"{split}_labels of {file} is {labels.dtype} {list(labels.shape)}: findings need a column of 0 and 1 each; "
            "of one class an image leave '--source#labels many' out"
        )
    return labels


def _named(file: str) -> tuple[str, ...]:
    if "classes" not in npz_names(file):
        return ()
    names = npz_array(file, "classes")
    try:
        names = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names
    except UnicodeDecodeError:
        raise UserError(f"classes of {file} holds bytes that are no UTF-8: write text, np.array(['a', 'b'])") from None
    if names.ndim != 1:
        raise UserError(
            f"classes of {file} is {names.dtype} {list(names.shape)}: it must be a list of names, np.array(['a', 'b'])"
        )
    return tuple(str(name) for name in names)


def _whole_numbers(file: str, split: str) -> np.ndarray:
    """Return the labels of one split, ``[N]`` or ``[N, C]``."""
    images, labels = npz_images(file, split), npz_array(file, f"{split}_labels")
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim not in (1, 2) or len(labels) != len(images):
        raise UserError(
            f"{split}_labels of {file} is {labels.dtype} {list(labels.shape)}: "
            f"it must hold whole numbers for each of the {len(images)} images"
        )
    if not len(images):
        raise UserError(f"{split}_images of {file} is empty: training and test images are needed")
    return labels


def _labels(file: str, split: str) -> np.ndarray:
    """Return the labels of one split, ``[N]``, -1 where an image is of no one class."""
    labels = _whole_numbers(file, split)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _single_findings(labels, f"{split}_labels of {file}")
    flat = labels.reshape(-1).astype(np.int64)
    if flat.min() < 0:
        raise UserError(f"{split}_labels of {file} has the label {flat.min()}: out of range, labels count from 0")
    return flat


def _single_findings(labels: np.ndarray, where: str) -> np.ndarray:
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"{where} has {labels.shape[1]} columns: they must be 0 or 1, one column a finding")
    return np.where(labels.sum(axis=1) == 1, labels.argmax(axis=1), -1)


def _by_class(file: str, split: str, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, list[Item]]:
    return {name: _items(file, split, np.flatnonzero(labels == number)) for number, name in enumerate(classes)}


def _items(file: str, split: str, indices: np.ndarray) -> list[Item]:
    return [{"image": f"{file}#{split}/{index}"} for index in indices]
