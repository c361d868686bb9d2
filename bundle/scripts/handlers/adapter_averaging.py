"""Merge the adapters of all tasks into one set."""

from __future__ import annotations

from ignite.engine import Engine

from scripts.engines.events import ContinualEvents
from scripts.networks.continual import ContinualNet
from scripts.networks.merging import MergingOptions


class AdapterAveragingHandler:
    """Merge the adapters of all tasks, as published into their average, once a task's own are tuned.

    Source: Qazi et al., DynaMMo (MIUA 2024), merging.

    Args:
        network: the growing network; after ``merge`` its ``forward`` is one pass.
        options: how; ``None``: nothing is merged.
    """

    def __init__(self, network: ContinualNet, options: MergingOptions | None) -> None:
        self.network = network
        self.options = options

    def attach(self, engine: Engine) -> None:
        """Act once a task's adapters are tuned; before they learn, keep their start where it is the base."""
        if self.options is None:
            return
        if self.options.base == "start":
            engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_PREPARED, self.network.keep_start)
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_SETTLED, self)

    def __call__(self, engine: Engine) -> None:
        """Merge."""
        self.network.merge(self.options)
        engine.fire_event(ContinualEvents.ADAPTERS_AVERAGED)
