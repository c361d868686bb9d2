"""The network that leaves the project: backbone (or backbones), merged adapters and head, without tasks or memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from scripts.model.networks.adapted import EVERY, PLAIN
from scripts.model.networks.adapters import make_adapter
from scripts.model.networks.expandable import make_backbone
from scripts.model.networks.heads import HEADS


class Classifier(nn.Module):
    """A trained network for inference: normalised images [B, 3, H, W] or volumes [B, 1, D, H, W] to logits [B, C].

    Args:
        backbone: see :func:`scripts.model.networks.backbones.find_backbone`.
        head: a name in :data:`scripts.model.networks.heads.HEADS`.
        tasks: ``[{"name": ..., "classes": [...]}, ...]`` in the order they were learnt.
        adapter: the record of the kind of adapter; see :func:`scripts.model.networks.adapters.make_adapter`.
        branches: ``["merged"]`` after averaging, one a task for ACL and for whole backbones, ``["backbone"]`` without
            adapters.
        sites: blocks that adapters stand at; ``None``: the published ones.
        levels: see :class:`scripts.model.networks.adapted.AdaptedBackbone`.
        image_size: side of the images or volumes, in pixels.
    """

    def __init__(
        self,
        backbone: str,
        head: str,
        tasks: Sequence[Mapping[str, Any]],
        adapter: Mapping[str, Any] | None = None,
        branches: Sequence[str] = (PLAIN,),
        sites: Sequence[str] | None = None,
        levels: str | Sequence[str] = EVERY,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        kind = HEADS.find(head)
        self.backbone = make_backbone(backbone, make_adapter(adapter), sites, branches, kind.reads, levels, image_size)
        self.head = kind(self.backbone.head_width, [len(task["classes"]) for task in tasks])

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W], or volumes [B, 1, D, H, W], float32, to logits [B, C]."""
        return self.head(self.backbone(images))


NETWORK_KEYS = ("backbone", "head", "tasks", "adapter", "branches", "sites", "levels")


def classifier_from(description: Mapping[str, Any]) -> Classifier:
    """Build the (untrained) network that a ``network.json`` describes; further keys are ignored."""
    own = {key: description[key] for key in NETWORK_KEYS}
    return Classifier(**own, image_size=description["image"]["size"])
