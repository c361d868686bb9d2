"""Average the adapters of all tasks into one set."""

from __future__ import annotations

from ignite.engine import Engine

from scripts.engines.events import ContinualEvents
from scripts.networks.continual import ContinualNet
from scripts.networks.merging import check_strategy


class AdapterAveragingHandler:
    """Replace the adapters of all tasks by their average once a task's own are tuned.

    Source: Qazi et al., DynaMMo (MIUA 2024), merging.

    Args:
        network: the growing network; after ``merge`` its ``forward`` is one pass.
        strategy: a name in :data:`scripts.networks.merging.STRATEGIES`.

    Raises:
        UserError: for an unknown strategy.
    """

    def __init__(self, network: ContinualNet, strategy: str = "average") -> None:
        check_strategy(strategy)
        self.network = network
        self.strategy = strategy

    def attach(self, engine: Engine) -> None:
        """Act once a task's adapters are tuned."""
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Merge."""
        self.network.merge(self.strategy)
        engine.fire_event(ContinualEvents.ADAPTERS_AVERAGED)
