"""A memory whose images have with them what the network said of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scripts.learning.memory.exemplars import ExemplarMemory, stored_bytes
from scripts.learning.sources.source import Item


class LogitMemory(ExemplarMemory):
    """An exemplar memory whose items hold ``logits`` [K] besides, on the CPU; see :class:`ExemplarMemory`."""

    def draw(self, count: int) -> list[Item]:
        """Return ``count`` of the exemplars, or all if there are fewer, in random order (torch's generator)."""
        kept = self.items()
        return [kept[place] for place in torch.randperm(len(kept))[:count].tolist()]

    def kept_bytes(self) -> int:
        """Return the bytes of the images, each counted once, and of the logits."""
        images = {item["image"] for item in self.items()}
        return sum(map(stored_bytes, images)) + sum(item["logits"].nbytes for item in self.items())

    def state_dict(self) -> dict[str, Any]:
        """Return which images are kept, and what was said of them: no pixels."""
        said = {label: [_beside(item) for item in items] for label, items in self.classes.items()}
        return {**super().state_dict(), "said": said}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a memory; see :meth:`ExemplarMemory.load_state_dict`."""
        super().load_state_dict(state)
        for label, said in state["said"].items():
            pairs = zip(self.classes[label], said, strict=True)
            self.classes[label] = [{**item, **beside} for item, beside in pairs]


def _beside(item: Item) -> dict[str, Any]:
    """Return what stands beside an image and its label."""
    return {key: value for key, value in item.items() if key in ("logits", "implants")}
