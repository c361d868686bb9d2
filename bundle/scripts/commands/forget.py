"""Remove images from a run's exemplar memory: ``python -m scripts.commands.forget RUN_DIR IMAGE [IMAGE ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.commands.terminal import end
from scripts.errors import UserError
from scripts.files import write_atomically
from scripts.handlers.checkpoint import CHECKPOINT, EPOCH, EXEMPLARS, read_checkpoint
from scripts.memory.exemplars import ExemplarMemory, image_file
from scripts.memory.reservoir import RESERVOIR, ReservoirMemory
from scripts.transforms import is_scan, make_selection

EPILOG = (
    "An exemplar is an image of an old task that later training sees again. Each is compared by content, so a renamed "
    "file is found; one that was saved anew is not. An image of an npz file is given as FILE.npz#train/INDEX. "
    "Do not use this while the run is training. A run that learnt from this one (--previous) and a run moved aside "
    "(--restart) keep exemplars of their own: use this on each of them."
)


def forget(run: Path, images: Sequence[str]) -> str:
    """Remove the exemplars with the content of one of ``images``.

    Copies are deleted once the checkpoint no longer names them. An interrupted stage begins anew, since its images
    have changed.

    Args:
        run: a run's folder.
        images: image files, or ``<path>.npz#<split>/<index>``.

    Returns:
        What was done, in one line.

    Raises:
        UserError: when the folder holds no run, or an image or an exemplar is not there.
    """
    for image in images:
        if not image_file(image).is_file():
            raise UserError(f"image {image} is missing: give the file whose content is to be forgotten")
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"no {CHECKPOINT} in {run}: give the output folder of a run")
    content = read_checkpoint(run / CHECKPOINT)
    make = ReservoirMemory if content["settings"]["selection"] == RESERVOIR else ExemplarMemory
    memory = make(0, exemplars=content["settings"]["exemplars"], folder=str(run / EXEMPLARS))
    memory.load_state_dict(content["memory"], run / EXEMPLARS)
    shown = content["settings"].get("presentation")
    count = memory.forget([name for image in images for name in _as_trained(image, shown)])
    if not count:
        return f"No exemplar of the run in {run} has the content of what was given: nothing is changed."
    content["memory"] = memory.state_dict()
    write_atomically(run / CHECKPOINT, lambda file: torch.save(content, file))
    (run / EPOCH).unlink(missing_ok=True)
    memory.sweep()
    names = [name for task in content["tasks"] for name in task[1:]]
    bare = [names[label] for label, items in memory.classes.items() if not items]
    return (
        f"Removed {count} of {len(memory.items()) + count} exemplars from the memory of {run}. "
        + (f"None are left of {', '.join(bare)}. " if bare else "")
        + "The trained weights are not changed by it: what the network has learnt from them it still knows."
    )


def _as_trained(image: str, presentation: Mapping[str, Any] | None) -> list[str]:
    """Name the pictures of a DICOM or NIfTI file as the run did; any other image stays."""
    if presentation is None or not Path(image).is_file() or not is_scan(image):
        return [image]
    return make_selection(presentation).references(image)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.commands.forget", description=__doc__, epilog=EPILOG)
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="output folder of a run")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image file whose content is to be forgotten")
    given = parser.parse_args(arguments)
    return end(lambda: forget(given.run.resolve(), given.images))


if __name__ == "__main__":
    sys.exit(main())
