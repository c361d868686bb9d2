"""Find training images that look mislabelled: what ridge regression on all others says of each."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from scripts.commands.joint_ridge import joint_ridge
from scripts.learning.features import JointRidge
from scripts.learning.planning.contact_sheet import contact_sheet
from scripts.utils.files import cannot_write, write_atomically, write_csv
from scripts.utils.words import counted

FOLDER, TABLE, SHEET = "suspects", "suspects.csv", "suspects.png"
HEADER = ("rank", "image", "label", "looks_like", "margin")
_PRIVATE = 0o700
_COLUMNS, _TILE = 8, 96


@dataclass(frozen=True)
class Suspect:
    """A training image that all others together take for another class.

    Attributes:
        image: its file or reference.
        label: name of the class as which it was learnt.
        looks_like: name of the class that scores highest without it.
        margin: score of its label minus that of this class, below 0; the lower, the surer.
    """

    image: str
    label: str
    looks_like: str
    margin: float


def find_suspects(joint: JointRidge, classes: list[str]) -> list[Suspect]:
    """Return the images that another class scores higher, the lowest margin first.

    Each is judged by ridge regression without it, in closed form. Source: Allen (1974) for the residuals
    e_i / (1 - h_i); Northcutt et al., Confident learning (JAIR 2021), for the ranking by margin.

    Args:
        joint: ridge regression on the training images.
        classes: names, by label.
    """
    scores = joint.left_out()
    own = scores.gather(1, joint.labels[:, None])[:, 0]
    others = scores.scatter(1, joint.labels[:, None], -torch.inf)
    best, which = others.max(1)
    margins = own - best
    return [
        Suspect(joint.items[row]["image"], classes[joint.labels[row]], classes[which[row]], float(margins[row]))
        for row in margins.argsort(stable=True).tolist()
        if margins[row] < 0
    ]


def suspects(run: Path, output: Path | None = None, shown: int = 64) -> str:
    """Write a table and a contact sheet of the images of a run that look mislabelled.

    Args:
        run: the folder of a finished run, whose images are where they were.
        output: gets both; ``None``: ``suspects`` in the run's folder. Only its owner may open it.
        shown: the most images on the sheet, 0: no sheet.

    Returns:
        What was found, in two lines.

    Raises:
        UserError: as :func:`scripts.commands.joint_ridge.joint_ridge`, or where nothing can be written.
    """
    joint, tasks = joint_ridge(run)
    found = find_suspects(joint, [name for task in tasks for name in task.classes])
    folder = output or run / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(_PRIVATE)
    except OSError as error:
        raise cannot_write(folder, error) from error
    rows = [(rank, one.image, one.label, one.looks_like, f"{one.margin:.3f}") for rank, one in enumerate(found, 1)]
    write_csv(folder / TABLE, [HEADER, *rows])
    (folder / SHEET).unlink(missing_ok=True)
    if found and shown:
        draw(found[:shown], folder / SHEET)
    return (
        f"{len(found)} of {counted(len(joint.items), 'training image')} look like another class once they are left "
        f"out, the surest first in {folder / TABLE}"
        + (f"; the first {min(shown, len(found))} are shown in {folder / SHEET}." if found and shown else ".")
        + "\nAn image on the list is not wrong for sure: a person has to look at it."
    )


def draw(found: list[Suspect], file: Path) -> None:
    """Draw suspects under what they were learnt as and look like, the surest pair first."""
    groups: dict[str, list[str]] = {}
    for one in found:
        groups.setdefault(f"learnt as {one.label}, looks like {one.looks_like}", []).append(one.image)
    sheet = contact_sheet("Images that look mislabelled", groups, len(found), _COLUMNS, _TILE)
    write_atomically(file, lambda target: sheet.save(target, format="PNG"))


if __name__ == "__main__":
    from scripts.commands.app import main

    sys.exit(main(["suspects", *sys.argv[1:]]))
