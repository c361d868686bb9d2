"""How a finished network decides: its temperature, and which images it is not made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.model.decisions.outliers import OutlierRule, StatisticsSums
from scripts.utils.errors import UserError


class DecisionRules:
    """What is fitted to the network of the task just learnt, and the sums over images that the next task needs for it.

    Args:
        acceptance: share of validation images that are no outliers, in (0, 1]; ``None``: no image is ever one.

    Attributes:
        temperature: that logits are divided by; ``None``: not fitted.
        outliers: says which images are not of the kind learnt; ``None``: every image is.
        thresholds: of findings, of which an image may carry several: the score of each from which on it is present;
            ``None``: classes exclude each other.
        statistics: sums over the images of every class.

    Raises:
        UserError: for an acceptance that is no share.
    """

    def __init__(self, acceptance: float | None = 0.95) -> None:
        if acceptance is not None and not 0 < acceptance <= 1:
            raise UserError(
                f"acceptance is {acceptance}: give a share above 0, up to 1, or null (key 'save#rules#acceptance')"
            )
        self.acceptance = acceptance
        self.temperature: float | None = None
        self.outliers: OutlierRule | None = None
        self.thresholds: list[float] | None = None
        self.statistics = StatisticsSums()

    def reset(self) -> None:
        """Drop what was fitted to the network as it was; the thresholds are those of its head."""
        self.temperature = self.outliers = None

    def description(self) -> dict[str, Any]:
        """Return what ``network.json`` says of them; nothing of a rule that there is not."""
        outliers = None if self.outliers is None else self.outliers.record()
        listed = {"temperature": self.temperature, "outliers": outliers, "thresholds": self.thresholds}
        return {name: value for name, value in listed.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint that is loaded with ``weights_only``."""
        return {**self.description(), "statistics": self.statistics.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.temperature = state.get("temperature")
        self.outliers = OutlierRule.read(state.get("outliers"))
        self.thresholds = state.get("thresholds")
        self.statistics.load_state_dict(state["statistics"])
