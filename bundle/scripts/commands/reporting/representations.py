"""What the network of a run has learnt: its features before and after each merge, its maps and filters, in pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.commands.reporting.answers import Answers
from scripts.commands.take_over import parser_of
from scripts.deploy.inference.classification import ImageClassifier
from scripts.deploy.inference.loading import load_image_classifier
from scripts.imaging.transforms.reader import read_picture
from scripts.learning.handlers.checkpoint import read_checkpoint
from scripts.metrics.representation import linear_cka, neighbourhoods, principal_components
from scripts.model.folder import TASK
from scripts.model.networks import MERGED, ContinualNet, NetworkState
from scripts.pictures.canvas import svg_of
from scripts.pictures.representations import (
    alignment_figure,
    blocks_figure,
    features_figure,
    filters_figure,
    maps_figure,
)
from scripts.utils.errors import UserError
from scripts.utils.evenly import even_places
from scripts.utils.files import CHECKPOINT

MOST = 400
"""Images whose features are drawn, chosen at even distances."""
BATCH = 32


@dataclass(frozen=True)
class Seen:
    """N images as a network sees them.

    Attributes:
        features: what the head reads, [N, d].
        blocks: the maps after each block, averaged over places, [N, c] each.
    """

    features: NDArray[np.float32]
    blocks: Sequence[NDArray[np.float32]]

    def of(self, chosen: NDArray[np.bool_]) -> Seen:
        """Return some of the images."""
        return Seen(self.features[chosen], [block[chosen] for block in self.blocks])


@torch.inference_mode()
def seen(backbone: Any, images: Tensor) -> Seen:
    """Let a backbone see images [N, 3, H, W], or volumes."""
    features, blocks = [], []
    for batch in images.split(BATCH):
        own, maps = backbone.features_and_maps(batch)
        features.append(own.flatten(1))
        blocks.append([_pooled(backbone, level) for level in maps])
    listed = [torch.cat(level).numpy() for level in zip(*blocks, strict=True)]
    return Seen(torch.cat(features).numpy(), listed)


def _pooled(backbone: Any, level: Tensor) -> Tensor:
    places = getattr(backbone, "places", None)
    return (level if places is None else places(level)).flatten(2).mean(2)


def figures_of(run: Path, answers: Sequence[Answers], image: str | None = None) -> Iterator[tuple[str, str, Figure]]:
    """Yield name, title and picture of all that is drawn of the network of a run.

    Args:
        run: its folder.
        answers: of the model after each task; see :func:`scripts.commands.reporting.answers.answers_of`.
        image: whose feature maps are drawn; ``None``: of none.

    Raises:
        UserError: when the image cannot be read.
    """
    last = load_image_classifier(run)
    if answers:
        yield from _of_features(run, answers, last)
        yield "confusion_between_tasks", "Confusion between tasks, after the last one", _between_tasks(answers[-1])
    if image is not None:
        yield "feature_maps", f"Feature maps of {Path(image).name}", _maps(last, image)
    if (weights := _first_filters(last.network)) is not None:
        yield "first_filters", "First filters of the network", filters_figure(weights)


def drawn_of(run: Path, answers: Sequence[Answers]) -> dict[str, str]:
    """Return those pictures as elements of a page, by their titles; of the features, those of the last merge."""
    figures = list(figures_of(run, answers))
    planes = [name for name, _, _ in figures if name.startswith("features_")]
    return {title: svg_of(figure, name) for name, title, figure in figures if name not in planes[:-1]}


def _of_features(run: Path, answers: Sequence[Answers], last: ImageClassifier) -> Iterator[tuple[str, str, Figure]]:
    listed, labels = _chosen(answers[-1])
    images = torch.stack([torch.as_tensor(last.prepare({"image": image})["image"]) for image in listed])
    network = _network(run)
    own = dict(_own_branches(network, answers, images))
    tasks = {one.task: one.classes[sum(one.sizes[:-1]) :] for one in answers}
    merged: dict[str, Seen] = {}
    for number, answer in enumerate(answers):
        known = labels < len(answer.classes)
        after = merged[answer.task] = seen(
            load_image_classifier(run / f"{TASK}{number}").network.backbone, images[known]
        )
        if number == 0 or known.sum() < 4:
            continue
        planes: dict[str, NDArray[np.float64]] = {}
        if answer.task in own:
            before = own[answer.task].of(known)
            planes["PCA, before the merge"] = principal_components(before.features)
            planes["PCA, after it"] = principal_components(after.features)
            planes["t-SNE, before the merge"] = neighbourhoods(before.features)
            planes["t-SNE, after it"] = neighbourhoods(after.features)
        else:
            planes = {"PCA": principal_components(after.features), "t-SNE": neighbourhoods(after.features)}
        shown = {task: classes for task, classes in tasks.items() if task in merged}
        title = f"Features of test images after learning {answer.task}; a colour a task, a marker a class"
        yield f"features_{number}", title, features_figure(planes, labels[known], shown)
    if own and next(iter(own.values())).blocks:
        yield "alignment", _ALIGNMENT, _alignment(own, merged, labels, answers, last)


_ALIGNMENT = (
    "Linear CKA of merged against own features after each block, on the test images of the task: 1, the merge has kept "
    "what the task's own adapters made of them"
)


def _alignment(
    own: Mapping[str, Seen],
    merged: Mapping[str, Seen],
    labels: NDArray[np.int64],
    answers: Sequence[Answers],
    last: ImageClassifier,
) -> Figure:
    names = list(own)
    at_once, at_last = list[list[float | None]](), list[list[float | None]]()
    for one in (one for one in answers if one.task in own):
        first, end = len(one.classes) - one.sizes[-1], len(one.classes)
        of_task = (labels >= first) & (labels < end)
        theirs = own[one.task].of(of_task)
        for rows, task in ((at_once, one.task), (at_last, answers[-1].task)):
            now = merged[task].of(of_task[labels < _classes(answers, task)])
            rows.append([linear_cka(a, b) for a, b in zip(theirs.blocks, now.blocks, strict=True)])
    blocks = _block_names(last.network.backbone, len(at_once[0]))
    return alignment_figure({"at its own merge": at_once, "after the last merge": at_last}, names, blocks)


def _classes(answers: Sequence[Answers], task: str) -> int:
    return next(len(one.classes) for one in answers if one.task == task)


def _block_names(backbone: Any, count: int) -> list[str]:
    names = [name.replace("_", ".") for name in getattr(backbone, "blocks", {})]
    return names if len(names) == count else [f"level {number + 1}" for number in range(count)]


def _chosen(answers: Answers) -> tuple[list[str], NDArray[np.int64]]:
    """Return some of the test images, at even distances, and their classes."""
    places = even_places(len(answers.images), MOST)
    return [answers.images[place] for place in places], answers.labels[places]


def _network(run: Path) -> ContinualNet:
    network: ContinualNet = parser_of(run).get_parsed_content("network_def")
    NetworkState(network).load_state_dict(read_checkpoint(run / CHECKPOINT)["states"]["network"])
    return network.eval()


def _own_branches(network: ContinualNet, answers: Sequence[Answers], images: Tensor) -> Iterator[tuple[str, Seen]]:
    """Yield what the adapters of each task see, where they are kept and were merged."""
    kept = network.adapter_branches()
    if not any(name.startswith(MERGED) for name in network.backbone.added()):
        return
    for number, answer in enumerate(answers):
        if f"task{number}" in kept:
            with network.through([f"task{number}"]):
                yield answer.task, seen(network.backbone, images)


def _between_tasks(answers: Answers) -> Figure:
    starts = np.cumsum((0, *answers.sizes[:-1]))
    counts = np.add.reduceat(np.add.reduceat(answers.counts, starts, 0), starts, 1)
    return blocks_figure(counts, _tasks(answers))


def _tasks(answers: Answers) -> list[str]:
    """Return a name for each task: the part that its classes share, or its first class."""
    ends = np.cumsum(answers.sizes)
    groups = [answers.classes[end - size : end] for end, size in zip(ends, answers.sizes, strict=True)]
    return [group[0].split("/")[0] if "/" in group[0] else ", ".join(group) for group in groups]


def _maps(classifier: ImageClassifier, image: str) -> Figure:
    prepared = torch.as_tensor(classifier.prepare({"image": image})["image"])
    backbone: Any = classifier.network.backbone
    with torch.inference_mode():
        maps = backbone.features_and_maps(prepared[None])[1]
    places = getattr(backbone, "places", None)
    laid = [(level if places is None else places(level))[0] for level in maps]
    flat = [level[:, level.shape[1] // 2] if level.dim() == 4 else level for level in laid]  # a volume's middle
    names = _block_names(backbone, len(flat))
    return maps_figure(read_picture(image), {name: level.numpy() for name, level in zip(names, flat, strict=True)})


def _first_filters(network: nn.Module) -> NDArray[np.float32] | None:
    """Return the weights of the first convolution, where they can be seen as pictures."""
    first = next((one for one in network.modules() if isinstance(one, nn.Conv2d)), None)
    if first is None or first.in_channels not in (1, 3) or min(first.kernel_size) < 3:
        return None
    return first.weight.detach().numpy()


def require_image(image: str) -> None:
    """Refuse an image that is not there.

    Raises:
        UserError: when it is missing.
    """
    if not Path(image).is_file():
        raise UserError(f"image {image} is missing: give the file whose feature maps are to be drawn (--image)")
