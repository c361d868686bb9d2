"""What was measured of each task's adapters while they were new, for the merges to come."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scripts.model.networks.merging import Statistics


class AdapterStatistics:
    """Keeps what merging strategies read of the tasks beside the adapters: sums over images, no image.

    Attributes:
        tasks: one a task, in the order learnt: of each kind (``samples``, ``fisher``, ``gram``) a tensor an entry.
    """

    def __init__(self) -> None:
        self.tasks: list[Statistics] = []

    def put(self, task: int, measured: Statistics) -> None:
        """Keep what was measured of a task, from 0; of tasks before it that were not measured there is nothing."""
        self.tasks += [{} for _ in range(task + 1 - len(self.tasks))]
        self.tasks[task] = measured

    def of(self, task: int) -> Statistics:
        """Return what was measured of a task, from 0; nothing where nothing was."""
        return self.tasks[task] if task < len(self.tasks) else {}

    def kept_bytes(self) -> int:
        """Return the bytes of the tensors, each counted once."""
        tensors = [tensor for task in self.tasks for kind in task.values() for tensor in kind.values()]
        return sum(tensor.nbytes for tensor in {tensor.data_ptr(): tensor for tensor in tensors}.values())

    def state_dict(self) -> dict[str, list[dict[str, dict[str, Tensor]]]]:
        """Return the tensors, for a checkpoint that is loaded with ``weights_only``."""
        return {"tasks": [{kind: dict(entries) for kind, entries in task.items()} for task in self.tasks]}

    def load_state_dict(self, state: Mapping[str, list[Statistics]]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.tasks = list(state["tasks"])
