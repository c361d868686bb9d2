"""Keep the adapters of every task apart: one pass a task."""

from __future__ import annotations

from ignite.engine import Engine

from scripts.learning.engines.events import ContinualEvents
from scripts.model.networks.continual import ContinualNet
from scripts.utils.errors import UserError


class SeparateAdaptersHandler:
    """Send an image through the adapters of each task, whose features feed that task's head.

    Source: Zhang et al., ACL (MICCAI 2023).

    Args:
        network: the growing network, with ``others`` heads.

    Raises:
        UserError: when the network has one head over all classes, or adapters that fold into one backbone.
    """

    def __init__(self, network: ContinualNet) -> None:
        check_apart(network)
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Act once a task's adapters are tuned."""
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_SETTLED, self)

    def __call__(self) -> None:
        """Pass through all adapters from now on."""
        self.network.unmerge()


def check_apart(network: ContinualNet) -> None:
    """Refuse a network whose adapters cannot stay in several sets.

    Raises:
        UserError: when it has one head over all classes, or adapters that fold into one backbone.
    """
    if network.head_name != "others":
        raise UserError(f"separate adapters need a head a task: use head 'others', not '{network.head_name}'")
    adapter = network.backbone.adapter
    if adapter is not None and adapter.folds:
        raise UserError(
            f"adapter '{adapter.kind}' folds into the one backbone, so that adapters cannot stay "
            "apart: use another adapter, or a method that merges them (key 'merging')"
        )
