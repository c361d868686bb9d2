"""Write what a run has learnt as one file that can be added to those of other sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from safetensors.torch import load_file

from scripts.commands.take_over import parser_of
from scripts.federation.contribution import TOLERANCE, ClassSums, Identity, write_contribution
from scripts.federation.masks import Round
from scripts.federation.network import (
    adapters_of,
    base_digest,
    features_digest,
    image_record,
    network_record,
    take_adapters,
)
from scripts.federation.noise import Noise
from scripts.federation.site import Site
from scripts.learning.features import FeatureExtractor, FeatureSums
from scripts.learning.handlers.checkpoint import read_checkpoint
from scripts.learning.handlers.closed_form import feature_vectors
from scripts.learning.sources import Item
from scripts.model.folder import TrainedModel
from scripts.model.networks import ContinualNet, NetworkState, drift_map
from scripts.utils.errors import UserError
from scripts.utils.files import CHECKPOINT
from scripts.utils.words import counted

CodeTable = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Wanted:
    """How a run is to be contributed.

    Attributes:
        card: of the site; its keys lie beside it.
        round: the file of a round, whose masks hide the sums; ``None``: they are not masked.
        noise: is added to sums over the images; ``None``: none.
        adapters: the sites' average; the sums are carried to where it takes the features.
        codes: a YAML or JSON file with the public code of classes.
        leave_out: classes that stay here.
        tolerance: see :data:`scripts.federation.contribution.TOLERANCE`.
    """

    card: Path
    round: Path | None = None
    noise: Noise | None = None
    adapters: Path | None = None
    codes: Path | None = None
    leave_out: Sequence[str] = ()
    tolerance: float = TOLERANCE


def contribute(run: Path, file: Path, wanted: Wanted) -> str:
    """Write the file.

    Args:
        run: a finished run with a head in closed form, its sums kept apart.
        file: what is written.
        wanted: how.

    Returns:
        What was done, in one line.

    Raises:
        UserError: when there is no such run, or its sums may not leave as they are.
    """
    site = Site.open(wanted.card)
    given = Given.read(run)
    if wanted.round is not None and wanted.noise is not None:
        raise UserError("masks or noise, not both: give --round or --epsilon")
    if wanted.adapters is not None:
        given.carry(wanted.adapters)
    classes = given.classes(wanted)
    hidden: Round | Noise | None = wanted.noise
    if wanted.round is not None:
        hidden = Round.read(wanted.round)
        classes = _of_round(classes, hidden, given.width)
    write_contribution(
        file,
        site,
        given.identity(),
        classes,
        given.method,
        given.sums.errors,
        {} if wanted.adapters else adapters_of(given.network),
        hidden,
        wanted.tolerance,
    )
    said = "masked, " if wanted.round else f"with noise for epsilon {wanted.noise.epsilon:g}, " if wanted.noise else ""
    return (
        f"{file}: the sums of {counted(len(classes), 'class', 'classes')} over {given.width - 1} features, {said}"
        f"signed by site {site.name}, {file.stat().st_size / 2**20:.1f} MiB. No image, path or name of a file is in it."
    )


@dataclass
class Given:
    """What a run has to give.

    Attributes:
        run: its folder.
        parser: builds its objects.
        network: as it ended.
        sums: as they ended, or were carried.
        names: of its classes.
        method: how it has learnt.
    """

    run: Path
    parser: ConfigParser
    network: ContinualNet
    sums: FeatureSums
    names: list[str]
    method: str

    @classmethod
    def read(cls, run: Path) -> Given:
        """Read a run.

        Raises:
            UserError: when it is none, is not finished, or keeps no sums apart.
        """
        if not (run / CHECKPOINT).is_file():
            raise UserError(f"no {CHECKPOINT} in {run}: give the output folder of a run (RUN)")
        content = read_checkpoint(run / CHECKPOINT)
        if "sums" not in content["states"]:
            raise UserError(
                f"the run in {run} keeps no sums over features: train with a head in closed form, such as --method "
                "frozen+levels+ridge+federated"
            )
        if content["tasks_completed"] < content["tasks_planned"]:
            raise UserError(f"the run in {run} is not finished: finish it first, then contribute it")
        if "candidates" in content["states"]["sums"]:
            raise UserError(
                f"the run in {run} keeps sums of several kinds of features, and which are used each site would choose "
                "for itself: train without the parts 'orientations' and 'judged'"
            )
        parser = parser_of(run)
        network: ContinualNet = parser.get_parsed_content("network_def")
        NetworkState(network).load_state_dict(content["states"]["network"])
        sums = FeatureSums()
        sums.load_state_dict(content["states"]["sums"])
        method = str(TrainedModel.open(run).description.get("method", ""))
        return cls(run, parser, network, sums, [name for task in content["tasks"] for name in task[1:]], method)

    @property
    def width(self) -> int:
        """D, the features and a 1."""
        return self.sums.first.shape[1]

    def identity(self) -> Identity:
        """Return which features the sums are of."""
        return Identity(
            network=network_record(self.network, self.parser.get_parsed_content("seed")),
            image=image_record(self.parser.get_parsed_content("image")),
            views=[list(view) for view in self.sums.views],
            base=base_digest(self.network),
            features=features_digest(self.network.merge_and_unload(self._tasks()).state_dict()),
        )

    def _tasks(self) -> list[dict[str, Any]]:
        names = iter(self.names)
        return [{"name": "", "classes": list(islice(names, count))} for count in self.network.classes]

    def carry(self, adapters: Path) -> None:
        """Let the sums follow the features to where the sites' average takes them, by a map fitted on the run's images.

        Raises:
            UserError: when there are no such adapters, or no image is at hand.
        """
        items, features = self._items(), self._extractor()
        before = feature_vectors(self.network.head, features, items, self.sums.views)
        try:
            take_adapters(self.network, load_file(adapters))
        except OSError as error:
            raise UserError(f"no adapters in {adapters} ({error}): give what federate has averaged") from error
        after = feature_vectors(self.network.head, features, items, self.sums.views)
        self.sums.carry(drift_map(before, after, self.parser.get_parsed_content("ridge#drift_ridge")))

    def classes(self, wanted: Wanted) -> list[ClassSums]:
        """Return the sums of each class that may leave.

        Raises:
            UserError: when a class has too few images, or none is left.
        """
        codes, least = read_codes(wanted.codes), self.parser.get_parsed_content("ridge#least_images")
        if unknown := {*wanted.leave_out} - {*self.names}:
            raise UserError(
                f"no class {', '.join(sorted(unknown))}: choose among {', '.join(self.names)} (--leave_out)"
            )
        found = []
        for label, name in enumerate(self.names):
            if name in wanted.leave_out:
                continue
            images, second = self.sums.of_class(label) if wanted.noise is None else self._noisy(label, wanted.noise)
            if images < least:
                raise UserError(
                    f"class {name} has {images} images, fewer than {least} (key 'ridge#least_images' of the run): "
                    f"leave it out (--leave_out {name})"
                )
            found.append(ClassSums(name, images, second, codes.get(name)))
        if not found:
            raise UserError("all classes are left out: nothing is to be contributed")
        return found

    def _noisy(self, label: int, noise: Noise) -> tuple[int, torch.Tensor]:
        own = [item for item in self._items() if item["label"] == label]
        if not own:
            raise UserError(f"no image of class {self.names[label]} is at hand, and noise needs all: leave it out")
        vectors = noise.clipped(feature_vectors(self.network.head, self._extractor(), own, self.sums.views))
        return len(own), noise.added(vectors.T @ vectors, len(self.sums.views))

    def _items(self) -> list[Item]:
        """Return the run's training images that are at hand."""
        found = [item for task in self.parser.get_parsed_content("tasks") for item in task.train]
        if not found:
            raise UserError(f"no training image of the run in {self.run} is at hand: put them back where they were")
        return found

    def _extractor(self) -> FeatureExtractor:
        features: FeatureExtractor = self.parser.get_parsed_content("features")
        features.network = self.network
        return features


def _of_round(classes: Sequence[ClassSums], agreed: Round, width: int) -> list[ClassSums]:
    """Return the sums of the classes of a round, in its order; of a class without images, zeros."""
    own = {one.name: one for one in classes}
    if unknown := [name for name in own if name not in agreed.classes]:
        raise UserError(
            f"round {agreed.name} has no class {', '.join(unknown)}: add it to its file at all sites (key 'classes'), "
            "or leave it out (--leave_out)"
        )
    nothing = torch.zeros(width, width, dtype=torch.double)
    return [own.get(name, ClassSums(name, 0, nothing)) for name in agreed.classes]


def read_codes(path: Path | None) -> CodeTable:
    """Read the public codes of classes, as the key ``codes`` has them.

    Raises:
        UserError: when the file holds something else.
    """
    if path is None:
        return {}
    try:
        found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{path} cannot be read as YAML or JSON ({error}): give class: [scheme, code, meaning]"
        ) from error
    fits = isinstance(found, dict) and all(
        isinstance(code, list) and len(code) == 3 and all(isinstance(word, str) for word in code)
        for code in found.values()
    )
    if not fits:
        raise UserError(f"{path} is no table of codes: give class: [scheme, code, meaning], all text")
    return found
