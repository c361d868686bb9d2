"""The processes of a distributed run look at some of the images each, and all know what was seen of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor, nn

Thing = TypeVar("Thing")


def share(things: Sequence[Thing]) -> Sequence[Thing]:
    """Return what this process has to look at: neighbours, as many as others have or one less.

    Fewer things than processes, and those of a run of one process, are looked at by every process.
    """
    first, last = _bounds(len(things))[idist.get_rank()]
    return things[first:last]


def everyones(rows: Tensor, count: int) -> Tensor:
    """Return the rows of all processes, in the order of the things that :func:`share` divided, on the CPU.

    Args:
        rows: of this process, [n, ...]: one for each thing of its share.
        count: of all things.
    """
    bounds = _bounds(count)
    if bounds[0] == (0, count):
        return rows.cpu()
    longest = max(last - first for first, last in bounds)
    padded = torch.cat([rows, rows[-1:]])[:longest].to(idist.device())  # shares differ by one at most
    gathered: Tensor = idist.all_gather(padded)  # type: ignore[assignment]
    parts = zip(gathered.cpu().split(longest), bounds, strict=True)
    return torch.cat([part[: last - first] for part, (first, last) in parts])


def same_buffers(network: nn.Module) -> None:
    """Give every process the running statistics of the first: DDP leaves each one's last update in place."""
    if dist.is_initialized():
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def _bounds(count: int) -> list[tuple[int, int]]:
    processes = idist.get_world_size()
    if count < processes:
        return [(0, count)] * processes
    ends = [count * number // processes for number in range(processes + 1)]
    return list(zip(ends, ends[1:], strict=False))
