"""The seconds of the processor, of the wall or of a GPU, and what they were spent on."""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import torch


class Queued:
    """A moment in a GPU's queue; of two, the difference is the seconds from one to the other (it is waited for)."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record(torch.cuda.current_stream(device))

    def __sub__(self, earlier: Queued) -> float:
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1000


def clock(device: str | torch.device = "cpu") -> Any:
    """Return a moment; the difference of two is seconds.

    On one thread they are those that the processor has worked for this process, as nothing else counts then; on more
    those of the wall. On CUDA the moment is when the GPU gets there, which the host does not wait for: pauses in which
    the GPU has nothing to do count, as on the wall.
    """
    if torch.device(device).type == "cuda":
        return Queued(torch.device(device))
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def machine(device: str | torch.device = "cpu") -> str:
    """Return the chip's name, and the processor's threads in use."""
    threads = f"{torch.get_num_threads()} thread"
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {threads}"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {threads}"


def add_device(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark run on a GPU."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1; default: cpu")
