"""Merge the adapters of all tasks into one set."""

from __future__ import annotations

from ignite.engine import Engine

from scripts.learning.engines.events import ContinualEvents
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.merging import Merging
from scripts.utils.errors import UserError


class AdapterAveragingHandler:
    """Merge the adapters of all tasks, as published into their average, once a task's own are tuned.

    Source: Qazi et al., DynaMMo (MIUA 2024), merging.

    Args:
        network: the growing network; after ``merge`` its ``forward`` is one pass.
        merging: how; ``None``: nothing is merged.

    Raises:
        UserError: where adapters are not merged, but gathered.
    """

    def __init__(self, network: ContinualNet, merging: Merging | None) -> None:
        if merging is not None and network.gathers:
            kind = network.backbone.adapter and network.backbone.adapter.kind
            raise UserError(f"adapters '{kind}' of all tasks are in use, none is merged: leave it out (key 'merging')")
        self.network = network
        self.merging = merging

    def attach(self, engine: Engine) -> None:
        """Act once a task's adapters are tuned; before they learn, keep their start where it is the base."""
        if self.merging is None:
            return
        if self.merging.base == "start":
            engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_PREPARED, self.network.keep_start)
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_SETTLED, self)
        if self.merging.row.running:
            engine.add_event_handler(ContinualEvents.ROUND_STARTED, self.refuse_round)

    def refuse_round(self) -> None:
        """Refuse a further round of a later task: the mean holds the last round's adapters already.

        Raises:
            UserError: says so.
        """
        if len(self.network.classes) > 1:
            raise UserError("a running mean cannot be learnt further in rounds: merge otherwise (key 'merging#row')")

    def __call__(self, engine: Engine) -> None:
        self.network.merge(self.merging)
        engine.fire_event(ContinualEvents.ADAPTERS_AVERAGED)
