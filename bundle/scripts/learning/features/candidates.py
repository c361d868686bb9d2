"""Sums over several kinds of features of the same images, of which the error on images left out chooses one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from scripts.learning.features.sums import FeatureSums
from scripts.model.networks.adapted import PLAIN
from scripts.model.networks.adapters import MERGED
from scripts.utils.words import counted

KINDS = {None: "", PLAIN: "frozen, ", MERGED: "tuned, "}


class CandidateSums:
    """Sums over the features of each candidate: of these branches of the network, with few views of an image or more.

    The first candidate stands until another, in turn, takes its place. Of one branch, the views are taken whose head
    errs least on images left out, summed over classes. Another branch has to err less by more than the standard error
    of that sum, on classes that adapters have not learnt from: what was fitted to labels errs less on these alone, and
    the plainer features are kept where the difference may be chance. Each class is judged once, while it is new.
    Source: Breiman et al., Classification and regression trees (1984), section 3.4.3, the one-standard-error rule.

    Args:
        views: of an image, those that every candidate sums, and is judged by; see
            :func:`scripts.imaging.transforms.flip_views`.
        apart: see :class:`FeatureSums`.
        further_views: what the candidates of more views sum beside; see
            :func:`scripts.imaging.transforms.orientation_views`.
        branches: of the network; ``None``: what a pass goes through.

    Attributes:
        candidates: the sums of each.
        position: the place of the chosen one.
        errors: of each candidate on each class, squared, when that was new.
        verdicts: after each task, of each candidate but the first: what it was compared with, on how many classes, its
            gain and the standard error of that, both as shares of the other's error, and whether it was taken.
    """

    def __init__(
        self,
        views: Sequence[Sequence[int]],
        apart: bool = False,
        further_views: Sequence[Sequence[int]] = (),
        branches: Sequence[str | None] = (None,),
    ) -> None:
        self.shared = len(views)
        groups = [views, [*views, *further_views]] if further_views else [views]
        self.candidates = [FeatureSums(group, apart, branch) for branch in branches for group in groups]
        self.position = 0
        self.errors: list[list[float]] = [[] for _ in self.candidates]
        self.verdicts: list[list[dict[str, Any]]] = []

    @property
    def chosen(self) -> FeatureSums:
        """The sums that the head is solved from."""
        return self.candidates[self.position]

    def judge(self, errors: Sequence[Sequence[float]], tuned: int) -> list[dict[str, Any]]:
        """Choose again, now that a task's classes are judged, and return the verdicts.

        Args:
            errors: of each candidate on each new class.
            tuned: classes that adapters have learnt from.
        """
        for known, new in zip(self.errors, errors, strict=True):
            known.extend(new)
        self.position, verdicts = 0, []
        for position in range(1, len(self.candidates)):
            verdicts.append(self._verdict(position, tuned))
            if verdicts[-1]["taken"]:
                self.position = position
        self.verdicts.append(verdicts)
        return verdicts

    def _verdict(self, position: int, tuned: int) -> dict[str, Any]:
        """Compare a candidate with the one that stands."""
        same = self.candidates[position].branch == self.chosen.branch
        first = 0 if same else tuned
        found = compared(self.errors[self.position][first:], self.errors[position][first:])
        gain, error = found["gain"], found["standard_error"]
        taken = gain > 0 if same else error is not None and gain > error
        return {"candidate": self.name(position), "against": self.name(self.position), **found, "taken": taken}

    def name(self, position: int) -> str:
        """Return what a candidate is called."""
        own = self.candidates[position]
        return KINDS.get(own.branch, f"{own.branch}, ") + counted(len(own.views), "view")

    def measured(self) -> dict[str, Any]:
        """Return what ``metrics.json`` says of the choice, after each task."""
        return {"candidates": [list(verdicts) for verdicts in self.verdicts]}

    def kept_bytes(self) -> int:
        """Return the bytes of the sums."""
        return sum(own.kept_bytes() for own in self.candidates)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and the choice, for a checkpoint that is loaded with ``weights_only``."""
        return {
            "candidates": [own.state_dict() for own in self.candidates],
            "position": self.position,
            "errors": [list(known) for known in self.errors],
            "verdicts": [list(verdicts) for verdicts in self.verdicts],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        for own, known in zip(self.candidates, state["candidates"], strict=True):
            own.load_state_dict(known)
        self.position = state["position"]
        self.errors = [list(known) for known in state["errors"]]
        self.verdicts = [list(verdicts) for verdicts in state["verdicts"]]


def compared(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Return by how much one error is less than another, summed over classes.

    Args:
        before: the error on each class.
        after: the other one.

    Returns:
        ``classes``, the number; ``gain`` and its ``standard_error``, as shares of the error before. Of no class nothing
        is known, of one not the standard error.
    """
    gains, whole = [old - new for old, new in zip(before, after, strict=True)], sum(before)
    return {
        "classes": len(gains),
        "gain": sum(gains) / whole if gains else None,
        "standard_error": len(gains) ** 0.5 * stdev(gains) / whole if len(gains) > 1 else None,
    }
