"""Remove images from what a run keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from scripts.commands.take_over import parser_of
from scripts.imaging.decoding.scans import is_scan, make_selection
from scripts.learning.features import CandidateSums, FeatureExtractor, FeatureSums
from scripts.learning.handlers.checkpoint import EPOCH, read_checkpoint
from scripts.learning.handlers.closed_form import candidate_vectors
from scripts.learning.memory import ExemplarMemory
from scripts.learning.memory.exemplars import image_file
from scripts.model.folder import TrainedModel, write_model
from scripts.model.networks import ContinualNet, NetworkState
from scripts.utils.errors import UserError
from scripts.utils.files import CHECKPOINT, WEIGHTS, write_atomically
from scripts.utils.words import counted

TRAINED = "The trained weights are not changed by it: what the network has learnt from them it still knows."
SUBTRACTED = (
    "Took {images} out of the sums and solved the head anew: {file} is written again. {exactness}Adapters, and "
    "copies of the model elsewhere (models, task_<t>), are not changed by it."
)
MOVED = (
    "A later merge has moved the features of this class: the images are taken out as nearly as the maps fitted at the "
    "merges tell, not exactly. "
)


def forget(run: Path, images: Sequence[str], label: str | None = None) -> str:
    """Remove the exemplars with the content of one of ``images``, and with a ``label`` their part of the sums.

    Copies are deleted once the checkpoint no longer names them. An interrupted stage begins anew, since its images
    have changed.

    Args:
        run: a run's folder.
        images: image files, or ``<path>.npz#<split>/<index>``.
        label: the class as which the images were learnt, for a run that keeps sums over features.

    Returns:
        What was done, in one line.

    Raises:
        UserError: when the folder holds no run, an image or an exemplar is not there, none is to be forgotten, the run
            is not finished or keeps no sums, or they do not hold the images.
    """
    for image in images:
        if not image_file(image).is_file():
            raise UserError(f"image {image} is missing: give the file whose content is to be forgotten")
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"no {CHECKPOINT} in {run}: give the output folder of a run")
    content = read_checkpoint(run / CHECKPOINT)
    states = content["states"]
    parser = parser_of(run)
    sums: FeatureSums | CandidateSums | None = None
    if "sums" in states:
        sums = parser.get_parsed_content("sums")
        sums.load_state_dict(states["sums"])
    memory: ExemplarMemory = parser.get_parsed_content("memory")
    memory.load_state_dict(states["memory"])
    shown = parser.get_parsed_content("image").presentation
    listed = [name for image in images for name in _as_trained(image, shown)]
    said = TRAINED if label is None else _subtract(content, parser, sums, listed, label, run)
    count = memory.forget(listed)
    if not count and label is None:
        ask = "give what it keeps" if sums is None else "name their class (--class) to take them out of its sums"
        raise UserError(f"no exemplar of the run in {run} has the content of what was given, nothing is changed: {ask}")
    states["memory"] = memory.state_dict()
    write_atomically(run / CHECKPOINT, lambda file: torch.save(content, file))
    (run / EPOCH).unlink(missing_ok=True)
    memory.sweep()
    names = [name for task in content["tasks"] for name in task[1:]]
    bare = [names[label] for label, items in memory.classes.items() if not items]
    return (
        f"Removed {count} of {len(memory.items()) + count} exemplars from the memory of {run}. "
        + (f"None are left of {', '.join(bare)}. " if bare else "")
        + said
    )


def _subtract(
    content: dict[str, Any],
    parser: ConfigParser,
    sums: FeatureSums | CandidateSums | None,
    images: Sequence[str],
    label: str,
    folder: Path,
) -> str:
    """Take images out of the sums, solve the head anew in ``content`` and in the run's ``folder``, and say so."""
    classes = [name for task in content["tasks"] for name in task[1:]]
    if sums is None:
        raise UserError("the run keeps no sums over features: leave --class out")
    if content["tasks_completed"] < content["tasks_planned"]:
        raise UserError("the run is not finished: finish it first, then let it forget")
    if "thresholds" in content["states"]["rules"]:
        raise UserError("an image with several findings is in the sums of all of them: forget takes one class an image")
    if label not in classes:
        raise UserError(f"unknown class '{label}': give one of {', '.join(classes)}")
    network: ContinualNet = parser.get_parsed_content("network_def")
    NetworkState(network).load_state_dict(content["states"]["network"])
    features: FeatureExtractor = parser.get_parsed_content("features")
    number = classes.index(label)
    items = [{"image": image, "label": number} for image in images]
    moved = _moved(network, number)
    for own in sums.candidates:
        own.subtract(candidate_vectors(network, features, items, own), number, moved)
    network.head.solve(sums.chosen.second, sums.chosen.first, sums.chosen.shrinkage)
    content["states"] |= {"network": NetworkState(network).state_dict(), "sums": sums.state_dict()}
    plain = network.merge_and_unload([{"name": task[0], "classes": task[1:]} for task in content["tasks"]])
    write_model(folder, plain.state_dict(), TrainedModel.open(folder).description)
    taken, exactness = counted(len(images), "image"), MOVED if moved else ""
    return SUBTRACTED.format(images=taken, file=folder / WEIGHTS, exactness=exactness)


def _moved(network: ContinualNet, number: int) -> bool:
    """Say whether adapters were tuned, and merged, in a task after that of class ``number``."""
    task = next(index for index, end in enumerate(accumulate(network.classes)) if number < end)
    tuned = [int(name.removeprefix("task")) for name in network.backbone.added() if name.startswith("task")]
    return max(tuned, default=0) > task


def _as_trained(image: str, presentation: Mapping[str, Any] | None) -> list[str]:
    """Name the pictures of a DICOM or NIfTI file as the run did; any other image stays."""
    if presentation is None or not Path(image).is_file() or not is_scan(image):
        return [image]
    return make_selection(presentation).references(image)[0]
