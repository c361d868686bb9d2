"""Merge the adapters of all tasks into one set."""

from __future__ import annotations

from ignite.engine import Engine

from scripts.engines.events import ContinualEvents
from scripts.networks.adapter_statistics import AdapterStatistics
from scripts.networks.continual import ContinualNet
from scripts.networks.merging import MergingOptions, check_strategy


class AdapterAveragingHandler:
    """Merge the adapters of all tasks, as published into their average, once a task's own are tuned.

    Source: Qazi et al., DynaMMo (MIUA 2024), merging.

    Args:
        network: the growing network; after ``merge`` its ``forward`` is one pass.
        strategy: a name in :data:`scripts.networks.merging.STRATEGIES`.
        options: the further choices; ``None``: the defaults.
        statistics: has what the strategy reads beside the adapters; ``None``: it reads nothing else.

    Raises:
        UserError: for an unknown strategy.
    """

    def __init__(
        self,
        network: ContinualNet,
        strategy: str = "average",
        options: MergingOptions | None = None,
        statistics: AdapterStatistics | None = None,
    ) -> None:
        check_strategy(strategy)
        self.network = network
        self.strategy = strategy
        self.options = options or MergingOptions()
        self.statistics = statistics or AdapterStatistics()

    def attach(self, engine: Engine) -> None:
        """Act once a task's adapters are tuned; before they learn, keep their start where it is the base."""
        if self.options.base == "start":
            engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_PREPARED, self.network.keep_start)
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_SETTLED, self)

    def __call__(self, engine: Engine) -> None:
        """Merge."""
        self.network.merge(self.strategy, self.options, self.statistics.tasks)
        engine.fire_event(ContinualEvents.ADAPTERS_AVERAGED)
