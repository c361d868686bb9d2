"""Let a backbone learn from images without their labels, and say how good its features are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.metrics import EmbeddingCollapseMetric
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import normalize

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.stage import Pretraining
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.metrics.record import RunRecord
from scripts.metrics.representation import nearest_neighbour_accuracy
from scripts.model.networks.continual import ContinualNet
from scripts.utils.errors import UserError
from scripts.utils.evenly import even_places
from scripts.utils.files import write_atomically, write_csv
from scripts.utils.sums import sha256

FILE, CURVE = "backbone.safetensors", "pretraining.csv"
COLUMNS = ("epoch", "nearest_neighbour_accuracy", "effective_rank_score")

Views = Callable[[Tensor], Tensor]


class PretrainingHandler:
    """Show two views of each image at once, side by side in one batch: SimSiam.

    The views share BatchNorm's statistics, where the authors' code makes a pass of each. After each epoch it is noted
    how many images have a nearest neighbour of their class (labels are read for that alone), and how far the features
    have collapsed; ``pretraining.csv`` has both. At the end the weights are written as a file that ``weights`` takes.

    Args:
        network: the growing network.
        features: of images under the network as it is.
        record: takes the figures.
        views: draws a view of each image of a batch.
        projection: from the width of the features to what learns on them.
        images: the most that an epoch is measured on, chosen at even distances; 0: none.
        output_dir: of the files.

    Raises:
        UserError: when no stage pretrains.
    """

    def __init__(
        self,
        network: ContinualNet,
        features: FeatureExtractor,
        record: RunRecord,
        views: Views,
        projection: Callable[[int], nn.Module],
        images: int,
        output_dir: str,
    ) -> None:
        self.network = network
        self.features = features
        self.record = record
        self.views = views
        self.projection = projection
        self.images = images
        self.folder = Path(output_dir)
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around the stage, each of its steps and epochs."""
        if not any(isinstance(stage, Pretraining) for stage in engine.stages):
            raise UserError(
                "this method has no stage that trains a backbone before all others: pretrain it first (dynammo "
                "pretrain DATA), and give the file (key 'weights')"
            )
        engine.add_event_handler(ContinualEvents.PRETRAINING_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._during(self.show))
        engine.add_event_handler(ContinualEvents.EPOCH_LEARNT, self._during(self.note))
        engine.add_event_handler(ContinualEvents.PRETRAINING_COMPLETED, self.complete)
        engine.add_event_handler(ContinualEvents.PRETRAINING_SETTLED, self.write)

    def _during(self, act: Callable[[ContinualTrainer], None]) -> Callable[[ContinualTrainer], None]:
        """Return what acts while a backbone is pretrained, and does nothing else."""

        def acting(engine: ContinualTrainer) -> None:
            if isinstance(engine.current_stage, Pretraining):
                act(engine)

        return acting

    def start(self) -> None:
        """Let a projection stand on the features."""
        self.network.stand(self.projection(self.network.backbone.last_width))

    def show(self, engine: ContinualTrainer) -> None:
        """Replace a batch by two views of it, one after the other."""
        batch: Any = engine.state.batch
        image = torch.cat([self.views(batch["image"]), self.views(batch["image"])])
        engine.state.batch = {**batch, "image": image, "label": batch["label"].repeat(2)}

    def note(self, engine: ContinualTrainer) -> None:
        """Measure the features after an epoch."""
        train = engine.current_task.train
        items = [train[place] for place in even_places(len(train), self.images)]
        if len(items) < 2:
            return
        was = self.network.training
        features = self.features.features(items)[:, 0, -1]
        self.network.train(was)
        labels = [item["label"] for item in items]
        near = nearest_neighbour_accuracy(features, labels) if len(set(labels)) > 1 else None
        score = EmbeddingCollapseMetric(include_indicators=["effective_rank"])(features)["effective_rank_score"]
        row = (engine.state.epoch, near, None if score is None else float(score))
        self.record.figures.setdefault("pretraining", []).append(dict(zip(COLUMNS, row, strict=True)))
        known = "" if near is None else f"nearest neighbour of the same class {near:.1%}, "
        self.logger.info("Epoch %d: %scollapse %.2f (0: none, 1: all)", engine.state.epoch, known, row[2])

    def complete(self) -> None:
        """Take the projection away."""
        self.network.drop_auxiliary()

    def write(self, engine: ContinualTrainer) -> None:
        """Write the weights and the figures of each epoch."""
        if engine.state.rank > 0:
            return
        content = save(
            {key: value.cpu().contiguous() for key, value in self.network.backbone.published_state().items()}
        )
        write_atomically(self.folder / FILE, content)
        rows = self.record.figures.get("pretraining", [])
        write_csv(self.folder / CURVE, [COLUMNS, *([row[name] for name in COLUMNS] for row in rows)])
        self.logger.info("Pretrained: --weights %s (sha256 %s)", self.folder / FILE, sha256(content))


class MomentumContrastHandler(PretrainingHandler):
    """Show one view, and compare it with the other one's key and those of earlier images: MoCo.

    Keys are of a slowly following copy of backbone and projection, whose running statistics follow too and are what
    its BatchNorm uses: a batch's own would tell which keys belong to it, wherefore the authors shuffle them over
    several GPUs. Several processes keep the same queue. Source: He et al., Momentum contrast (CVPR 2020), algorithm 1;
    Cai et al., Exponential moving average normalization (CVPR 2021).

    Args:
        queue: keys that are kept.
        momentum: of the copy, a step.
        network: see :class:`PretrainingHandler`, as of all others.
        features: see there.
        record: see there.
        views: see there.
        projection: see there.
        images: see there.
        output_dir: see there.
    """

    def __init__(
        self,
        queue: int,
        momentum: float,
        network: ContinualNet,
        features: FeatureExtractor,
        record: RunRecord,
        views: Views,
        projection: Callable[[int], nn.Module],
        images: int,
        output_dir: str,
    ) -> None:
        super().__init__(network, features, record, views, projection, images, output_dir)
        self.size = queue
        self.momentum = momentum
        self.copy: nn.ModuleList | None = None
        self.queue = torch.empty(0)
        self.place = 0
        self.other = torch.empty(0)

    def attach(self, engine: ContinualTrainer) -> None:
        super().attach(engine)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._during(self.compare))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._during(self.follow))

    def start(self) -> None:
        super().start()
        self.copy = nn.ModuleList(deepcopy(module) for module in self._followed()).eval().requires_grad_(False)
        device = next(self.copy.parameters()).device
        with torch.no_grad():
            width = self.copy[1](torch.zeros(1, self.network.backbone.last_width, device=device)).shape[1]
        self.queue, self.place = normalize(torch.randn(self.size, width), dim=1).to(device), 0

    def _followed(self) -> tuple[nn.Module, nn.Module]:
        assert self.network.auxiliary is not None
        return self.network.backbone, self.network.auxiliary

    def show(self, engine: ContinualTrainer) -> None:
        batch: Any = engine.state.batch
        engine.state.batch = {**batch, "image": self.views(batch["image"])}
        self.other = self.views(batch["image"])

    @torch.no_grad()
    def compare(self, engine: ContinualTrainer) -> None:
        """Lay the keys of the other views, and those of earlier images, beside what is said of this view."""
        assert self.copy is not None
        backbone, projection = self.copy
        features = backbone(self.other.to(self.queue.device))[:, -1, : self.network.backbone.last_width]
        outputs = engine.state.output["pred"]
        outputs.extras["keys"] = normalize(projection(features), dim=1)
        outputs.extras["queue"] = self.queue.clone()  # the queue goes on before the gradient is taken

    @torch.no_grad()
    def follow(self, engine: ContinualTrainer) -> None:
        """Let the copy follow by a step, and the keys take the place of the oldest ones."""
        assert self.copy is not None
        for own, module in zip(self.copy, self._followed(), strict=True):
            followed = module.state_dict()
            for name, value in own.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(followed[name], 1 - self.momentum)
        keys: Any = idist.all_gather(engine.state.output["pred"].extras["keys"])
        places = (self.place + torch.arange(len(keys), device=keys.device)) % self.size
        self.queue[places] = keys
        self.place = (self.place + len(keys)) % self.size

    def complete(self) -> None:
        super().complete()
        self.copy, self.queue, self.place = None, torch.empty(0), 0

    def state_dict(self) -> dict[str, Any]:
        """Return copy and queue while a backbone is pretrained; before and after there is nothing."""
        if self.copy is None:
            return {}
        return {"copy": self.copy.state_dict(), "queue": self.queue, "place": self.place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        if self.copy is not None and state:
            self.copy.load_state_dict(state["copy"])
            self.queue.copy_(state["queue"])
            self.place = state["place"]
