"""Make a trained network smaller: drop whole channels, then learn from the network as it was."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch_pruning
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from scripts.model.networks.backbones import TransformerBlock, WholeModel, black_image
from scripts.model.networks.classifier import Classifier
from scripts.utils.errors import UserError

MULTIPLE = 8  # of channels are kept: a CPU's vector unit takes so many at once


class Pruner:
    """Prunes a classifier of images, and distils the network that it was into what is left.

    The backbone alone changes: the head, and the features that it reads, stay as wide as they are.

    Args:
        share: of the channels that are dropped; see :func:`drop_channels`.
        epochs: of distillation.
        rate: of Adam at first; it falls to 0 along half a cosine.
        loader: batches with ``image``, normalised, [B, 3, H, W]; labels are not read.
        image_size: side H = W of the images.
        device: where it learns.

    Raises:
        UserError: for a share that is not between 0 and 1, or no epoch.
    """

    def __init__(
        self, share: float, epochs: int, rate: float, loader: Iterable[Mapping[str, Any]], image_size: int, device: str
    ) -> None:
        if not 0 < share < 1:
            raise UserError(
                f"{share} of the channels cannot be dropped: give a share from 0 to below 1 (key 'pruning')"
            )
        if epochs < 1:
            raise UserError(
                f"a pruned network does not learn again in {epochs} epochs: give at least 1 (key 'distillation_epochs')"
            )
        self.share = share
        self.epochs = epochs
        self.rate = rate
        self.loader = loader
        self.image_size = image_size
        self.device = torch.device(device)

    def __call__(self, network: Classifier) -> Classifier:
        """Return a smaller network, in evaluation mode, on the CPU; ``network`` stays as it is."""
        check_prunable(network)
        smaller = copy.deepcopy(network)
        drop_channels(smaller.backbone, self.share, self.image_size)
        self.distil(smaller.backbone, network.backbone)
        return smaller.cpu().eval()

    def distil(self, student: nn.Module, teacher: nn.Module) -> None:
        """Teach a backbone the features of another; BatchNorm's statistics are learnt anew.

        The loss is the mean squared difference. Source: Hinton et al., Distilling the knowledge in a neural network
        (2015); of features instead of probabilities: Romero et al., FitNets (ICLR 2015), equation 3.
        """
        student.to(self.device)
        teacher = copy.deepcopy(teacher).to(self.device).eval()
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()

        @torch.no_grad()
        def images_and_features(batch: Mapping[str, Tensor], device: torch.device, *_: Any) -> tuple[Tensor, Tensor]:
            images = batch["image"].to(device)
            return images, teacher(images)

        optimizer = Adam(student.parameters(), self.rate)
        schedule = CosineAnnealingLR(optimizer, self.epochs)
        trainer = SupervisedTrainer(
            device=self.device,
            max_epochs=self.epochs,
            train_data_loader=self.loader,
            network=student,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            prepare_batch=images_and_features,
            decollate=False,
        )
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: schedule.step())
        trainer.add_event_handler(Events.EPOCH_COMPLETED, say_loss)
        trainer.run()


def check_prunable(network: Classifier) -> None:
    """Refuse a network whose channels cannot be dropped.

    Raises:
        UserError: says which.
    """
    if any(isinstance(module, TransformerBlock | WholeModel) for module in network.modules()):
        raise UserError(
            f"{network.backbone.name} is not pruned: the heads of its attention share channels; leave pruning out (key "
            "'pruning'), the 8-bit file is small without"
        )


def drop_channels(backbone: nn.Module, share: float, image_size: int) -> None:
    """Drop the channels of least magnitude of each layer, in place, with all that depends on them.

    Layers whose channels can only go together (by a residual connection, an adapter, a depthwise convolution) are found
    by tracing. Those that the features come from, for some heads those before each adapter too, stay whole.
    Source: Fang et al., DepGraph (CVPR 2023), section 3.2, without sparse training.

    Args:
        backbone: from images [B, 3, H, W] to features [B, R, d]; in evaluation mode.
        share: of the channels of each layer, between 0 and 1; what is kept is rounded to a multiple of
            :data:`MULTIPLE`, at least one.
        image_size: side H = W.
    """

    def features(network: nn.Module, images: Tensor) -> Tensor:
        return network(images).flatten(1)  # torch-pruning takes the second dimension for the channels

    backbone.requires_grad_(True)  # torch-pruning follows gradients
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # of the adapters' scales, which have no channels
        pruner = torch_pruning.BasePruner(
            backbone,
            black_image(backbone, image_size),
            torch_pruning.importance.GroupMagnitudeImportance(),
            pruning_ratio_dict={
                layer: dropped(layer.out_channels, share)
                for layer in backbone.modules()
                if isinstance(layer, nn.Conv2d)
            },
            forward_fn=features,
        )
    for group in pruner.step(interactive=True):
        if not any(dependency.target.type == torch_pruning.ops.OPTYPE.OUTPUT for dependency, _ in group):
            group.prune()


def dropped(channels: int, share: float) -> float:
    """Return the share of a layer's channels with which torch-pruning, which rounds down, keeps a multiple."""
    kept = MULTIPLE * max(1, round(channels * (1 - share) / MULTIPLE))
    return 1 - (min(kept, channels) + 0.5) / channels


def say_loss(engine: Engine) -> None:
    """Log the loss of an epoch's last batch."""
    state: Any = engine.state
    logging.getLogger(__name__).info(
        "Distillation, epoch %d of %d: last loss %.4f", state.epoch, state.max_epochs, state.output["loss"]
    )
