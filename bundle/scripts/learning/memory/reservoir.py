"""A memory that holds a uniform sample of all images trained on, each with what the network said of it then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from scripts.learning.memory.logits import LogitMemory
from scripts.learning.sources.source import Item


class ReservoirMemory(LogitMemory):
    """An exemplar memory filled step by step: whatever was seen is kept with the same probability.

    The ``logits`` [C] of an item are for the C classes that there were. An image seen in several epochs may be kept
    more than once. Chance decides what is kept, so a class has its share on average alone.
    Source: Vitter, Random sampling with a reservoir (1985), algorithm R.

    Args:
        size: images in all.
        exemplars: ``paths`` or ``copies``.
        folder: where copies go.
        previous: see :class:`scripts.learning.memory.ExemplarMemory`.
    """

    fills_itself = True

    def __init__(
        self,
        size: int,
        exemplars: str = "paths",
        folder: str = "exemplars",
        previous: str | None = None,
    ) -> None:
        super().__init__(size, exemplars=exemplars, folder=folder, previous=previous)
        self.seen = 0

    def offer(self, items: Iterable[Item], logits: Tensor) -> None:
        """Take up some of the images of a step, in place of others once the memory is full (torch's generator).

        Args:
            items: the images.
            logits: what the network said of them, [N, C].
        """
        for item, said in zip(items, logits.detach().cpu(), strict=True):
            self.seen += 1
            place = int(torch.randint(self.seen, ()))
            if place >= self.size:
                continue
            kept = self.items()
            if len(kept) == self.size:
                self._drop(kept[place])
            new = {"image": item["image"], "label": item["label"], "logits": said.clone()}
            self.classes.setdefault(item["label"], []).append(new)

    def settle(self) -> None:
        """Copy what was taken up, where copies are kept: once a stage, not at every step."""
        for label, items in self.classes.items():
            self.classes[label] = [{**item, **self.store.keep(item)} for item in items]

    def state_dict(self) -> dict[str, Any]:
        """Return which images are kept, their logits, and how many were offered: no pixels."""
        return {**super().state_dict(), "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a memory; see :meth:`ExemplarMemory.load_state_dict`."""
        super().load_state_dict(state)
        self.seen = state["seen"]

    def _drop(self, gone: Item) -> None:
        """Drop this exemplar; another of the same image stays."""
        self.classes[gone["label"]] = [item for item in self.classes[gone["label"]] if item is not gone]
