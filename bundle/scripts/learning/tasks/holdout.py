"""Division of a data set that comes without a test or validation split."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from scripts.learning.sources.source import NO_FINDING, Group, Item, Source
from scripts.utils.errors import UserError
from scripts.utils.files import write_csv

SPLIT = "split.csv"
HEADER = ("path", "label", "split")


class HoldOut:
    """Keeps a part of the images for testing where a source has no test images; other sources pass unchanged.

    The division is stratified (by class), and all images of one ``group`` (patient, lesion) fall on one side. It is
    written to a list, and what the list names stays where it is; images that were added since are divided among
    themselves and added to the list. The choice depends on the seed, the class names and the order of the images alone.

    Args:
        source: reads the data set.
        file: the list, a CSV file with the columns path, label, split, as :class:`scripts.learning.sources.LabelsCsv`
            reads it.
        test_fraction: share of the images of each class, in (0, 1); at least one image, and never all.
        seed: of the choice.
    """

    def __init__(self, source: Source, file: str, test_fraction: float = 0.2, seed: int = 0) -> None:
        if not 0 < test_fraction < 1:
            raise UserError(
                f"planned_tasks#test_fraction is {test_fraction}: give a number between 0 and 1, such as 0.2"
            )
        self.source = source
        self.file = Path(file)
        self.test_fraction = test_fraction
        self.seed = seed

    def groups(self) -> list[Group]:
        """Return the source's groups, all with test images."""
        groups = self.source.groups()
        whole = [group for group in groups if not any(group.test.values())]
        if not whole:
            return groups
        listed = self._read()
        divided = {id(group): self._divide(group, listed) for group in whole}
        self._write(divided.values(), listed)
        return [divided.get(id(group), group) for group in groups]

    def _divide(self, group: Group, listed: dict[str, str]) -> Group:
        added = {name: [item for item in items if item["image"] not in listed] for name, items in group.train.items()}
        tested = {image for image, split in listed.items() if split == "test"}
        tested |= held_out(added, self.test_fraction, self.seed, self._sides(group, listed))
        test = {name: [item for item in items if item["image"] in tested] for name, items in group.train.items()}
        train = {name: [item for item in items if item["image"] not in tested] for name, items in group.train.items()}
        for name, items in group.train.items():
            if name != NO_FINDING and items and not (train[name] and test[name]):
                raise UserError(
                    f"class {name!r} of {group.name} has {len(items)} image{'s' * (len(items) != 1)} of "
                    f"{len({_subject(item) for item in items})} patient or lesion: training and test need one each"
                )
        return replace(group, train=train, test=test)

    def _sides(self, group: Group, listed: dict[str, str]) -> dict[str, bool]:
        """Return for the patients who are in the list already whether they test."""
        items = [item for items in group.train.values() for item in items if item["image"] in listed]
        return {_subject(item): listed[item["image"]] == "test" for item in items}

    def _read(self) -> dict[str, str]:
        """Return the split by image that was written down before."""
        try:
            with open(self.file, encoding="utf-8", newline="") as file:
                return {row["path"]: row["split"] for row in csv.DictReader(file)}
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise UserError(
                f"folder {self.file.parent} of the run is a file: give another (key 'output_dir')"
            ) from error
        except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
            raise UserError(f"list {self.file} cannot be read ({error!r}): restore it, or remove it") from error

    def _write(self, groups: Iterable[Group], listed: dict[str, str]) -> None:
        rows = [
            (item["image"], name, split)
            for group in groups
            for split, part in (("train", group.train), ("test", group.test))
            for name, items in part.items()
            for item in items
        ]
        others = os.environ.get("RANK", "0") != "0"  # every process of a distributed run makes the same choice
        if {(image, split) for image, _, split in rows} != set(listed.items()) and not others:
            write_csv(self.file, [HEADER, *rows])


class KeepForValidation:
    """Takes a part of the training images for validation, where the data set has no validation images of its own.

    All images of one ``group`` (patient, lesion) fall on one side; of a class with too few images none is taken.

    Args:
        source: reads the data set.
        fraction: share of the training images of each class, in [0, 1).
        least: images of a class that are taken where the fraction is less, but no more than a fifth of it.
        seed: of the choice.
    """

    def __init__(self, source: Source, fraction: float, least: int = 0, seed: int = 0) -> None:
        if not 0 <= fraction < 1:
            raise UserError(f"planned_tasks#validation_fraction is {fraction}: give a number from 0 to 1, such as 0.1")
        self.source = source
        self.fraction = fraction
        self.least = least
        self.seed = seed

    def groups(self) -> list[Group]:
        """Return the source's groups, with validation images."""
        return [self._divide(group) for group in self.source.groups()]

    def _divide(self, group: Group) -> Group:
        large = {name: items for name, items in group.train.items() if self.fraction * len(items) >= 1}
        if not large or any(group.validation.values()):
            return group
        small = {_subject(item): False for name in group.train.keys() - large.keys() for item in group.train[name]}
        kept = held_out(large, self.fraction, self.seed, small, self.least)
        parts = [
            {name: [item for item in items if (item["image"] in kept) is side] for name, items in group.train.items()}
            for side in (False, True)
        ]
        return replace(group, train=parts[0], validation=parts[1])


def held_out(
    classes: dict[str, list[Item]],
    fraction: float,
    seed: int = 0,
    sides: dict[str, bool] | None = None,
    least: int = 0,
) -> set[str]:
    """Choose the images to test (or validate) with.

    The class with the fewest images chooses first; a patient chosen for it is chosen, or not, for all others.

    Args:
        classes: items by class name; those with the same ``group`` stay together.
        fraction: share of each class, in (0, 1).
        seed: of the choice.
        sides: groups that are already known to test, or not to.
        least: images of a class where the fraction is less, but no more than a fifth of it.

    Returns:
        The references of the chosen images.
    """
    tests = dict(sides or {})
    for name, items in sorted(classes.items(), key=lambda entry: (len(entry[1]), entry[0])):
        wanted = min(max(1, round(fraction * len(items)), min(least, len(items) // 5)), len(items) - 1)
        subjects: dict[str, int] = {}
        for item in items:
            subjects[_subject(item)] = subjects.get(_subject(item), 0) + 1
        chosen = sum(count for subject, count in subjects.items() if tests.get(subject))
        free = [subject for subject in subjects if subject not in tests]
        for index in np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(free)):
            count = subjects[free[index]]
            tests[free[index]] = chosen < wanted and (chosen + count <= wanted or not chosen)
            chosen += count * tests[free[index]]
    return {item["image"] for items in classes.values() for item in items if tests[_subject(item)]}


def _subject(item: Item) -> str:
    """Return what an image is of; an image of nobody known stands for itself."""
    return str(item.get("group", item["image"]))
