"""Say which prompts images choose, and show where they match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from torch import Tensor
from torch.nn.functional import interpolate

from scripts.imaging.decoding.scans import is_scan
from scripts.imaging.drawing import png_bytes
from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.transforms.scans import file_of
from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.shares import everyones
from scripts.learning.sources.source import Item
from scripts.metrics.record import RunRecord
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.prompted import PromptedBackbone
from scripts.pictures.canvas import save_figure
from scripts.pictures.runs import choices_figure
from scripts.pictures.saliency import overlay
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically

SHOWN = 3  # images in the picture of a prompt


class PromptChoiceHandler:
    """Record how often the test images of each task choose each prompt, and draw it.

    ``metrics.json`` gets ``prompt_choices``, [T, P], row = the test images of task j, column = the mean part of a
    prompt in what they are told, 0..1; a row without images is None. ``prompts.png`` shows it. After the last task
    ``prompts/<number>.png`` shows for each prompt that was chosen the images that choose it most and, beside each, the
    patches that match its key as a query does. Both are of test images; no scan is shown.

    Args:
        evaluator: tests the network after each task.
        network: the growing network, with prompts.
        record: takes the figures.
        features: loads images.
        image: how the network sees them.
        output_dir: the run's folder.

    Raises:
        UserError: for a network without prompts.
    """

    def __init__(
        self,
        evaluator: SupervisedEvaluator,
        network: ContinualNet,
        record: RunRecord,
        features: FeatureExtractor,
        image: ImageSpec,
        output_dir: str,
    ) -> None:
        if not isinstance(network.backbone, PromptedBackbone):
            raise UserError("there are no prompts to choose among: give l2p, dualprompt or coda_prompt (key 'adapter')")
        self.evaluator = evaluator
        self.backbone = network.backbone
        self.record = record
        self.features = features
        self.image = image
        self.output_dir = Path(output_dir)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def attach(self, engine: ContinualTrainer) -> None:
        """Look on while the network is tested, and draw when all is measured."""
        self.evaluator.add_event_handler(Events.STARTED, self.seen.clear)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.look)
        self.evaluator.add_event_handler(Events.COMPLETED, self.note)
        engine.add_event_handler(ContinualEvents.TASK_EVALUATED, self.draw)

    def look(self, evaluator: Engine) -> None:
        """Keep what each image of a batch was told, [B, P], with the task of each, [B]."""
        output = evaluator.state.output
        outputs = output["pred"]  # type: ignore[index]
        ends = torch.tensor(outputs.classes).cumsum(0)
        tasks = torch.bucketize(output["label"].cpu(), ends, right=True)  # type: ignore[index]
        self.seen.append((outputs.extras["prompts"].cpu(), tasks))

    def note(self, evaluator: Engine) -> None:
        """Record the mean of each task's images."""
        count = len(evaluator.state.items)  # type: ignore[attr-defined]
        shares, tasks = (everyones(torch.cat(parts), count) for parts in zip(*self.seen, strict=True))
        self.seen[:] = [(shares, tasks)]  # the same list, which the next test clears
        rows = [shares[tasks == task] for task in range(len(self.backbone.prompts.slices))]
        self.record.figures["prompt_choices"] = [row.mean(0).tolist() if len(row) else None for row in rows]

    def draw(self, engine: ContinualTrainer) -> None:
        """Draw how often each prompt is chosen and, after the last task, where it matches."""
        if engine.state.rank > 0:
            return
        names = [task.name for task in engine.tasks[: engine.state.task]]
        save_figure(self.output_dir / "prompts.png", choices_figure(self.record.figures["prompt_choices"], names))
        items: list[Item] = self.evaluator.state.items
        if engine.state.task == len(engine.tasks) and not any(is_scan(file_of(item["image"])) for item in items):
            self._draw_matches(items)

    def _draw_matches(self, items: list[Item]) -> None:
        shares = torch.cat([part for part, _ in self.seen])
        for number, own in enumerate(shares.T):
            best = [index for index in own.argsort(descending=True, stable=True)[:SHOWN].tolist() if own[index] > 0]
            if best:
                images = torch.cat(list(self.features.images([items[index] for index in best])))
                heat = self.backbone.matches(images)[:, number : number + 1].cpu()
                pictures = [self._pair(image, level[None]) for image, level in zip(images.cpu(), heat, strict=True)]
                write_atomically(self.output_dir / "prompts" / f"{number}.png", png_bytes(np.concatenate(pictures, 0)))

    def _pair(self, image: Tensor, heat: Tensor) -> np.ndarray:
        """Return an image and, beside it, the same with what matches coloured, uint8 [H, 2 W, 3]."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.image.mean, self.image.std))
        picture = ((image * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        lowest, highest = heat.aminmax()
        warmth = (heat - lowest) / (highest - lowest).clamp(min=torch.finfo(heat.dtype).tiny)
        places = interpolate(warmth, picture.shape[:2], mode="bilinear")[0, 0].numpy()
        return np.concatenate([picture, overlay(picture, places)], 1)
