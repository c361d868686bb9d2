"""Print what waiting threads cost: a step of tuning on two threads, on a quiet processor and beside other work.

    python benchmarks/waiting.py

OpenMP's threads wait awake for one another, some 100,000 turns, before they sleep; where other programs want the same
cores, a thread that waits holds up the one that it waits for. Each setting runs in a process of its own, all of them in
turn, three rounds; medians, as ratios to torch's own setting on a quiet processor. Other work is a process a core.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from contextlib import ExitStack

from tabulate import tabulate

STEP = """
import sys, time, torch, torchvision
sys.path.insert(0, "bundle")
from scripts.utils.process import keep_memory
keep_memory()
torch.set_num_threads(int(sys.argv[1]))
network, images = torchvision.models.resnet18(), torch.rand(32, 3, 64, 64)
network(images).sum().backward()
walls, processor, count = time.perf_counter(), time.process_time(), int(sys.argv[2])
for _ in range(count):
    network(images).sum().backward()
print((time.perf_counter() - walls) / count, (time.process_time() - processor) / count)
"""
SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "2 threads, as torch sets them": (2, {}),
    **{f"2 threads, {spins} turns": (2, {"GOMP_SPINCOUNT": str(spins)}) for spins in (500, 2000, 10_000)},
    "2 threads, passive": (2, {"OMP_WAIT_POLICY": "PASSIVE"}),
    "1 thread": (1, {}),
}
ROUNDS = 3


def step(threads: int, environment: dict[str, str], steps: int) -> tuple[float, float]:
    """Return the seconds, and the processor's seconds, of a step."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    words = [sys.executable, "-c", STEP, str(threads), str(steps)]
    done = subprocess.run(words, env={**kept, **environment}, capture_output=True, text=True, check=True)
    wall, processor = done.stdout.split()
    return float(wall), float(processor)


def busy(stack: ExitStack) -> None:
    """Keep every core busy until the stack ends."""
    for _ in range(os.cpu_count() or 1):
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        stack.callback(process.wait)
        stack.callback(process.kill)


def main() -> None:
    """Measure and print."""
    found: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for beside in (False, True):
            with ExitStack() as stack:
                if beside:
                    busy(stack)
                for name, (threads, environment) in SETTINGS.items():
                    found.setdefault((name, beside), []).append(step(threads, environment, 4 if beside else 20))
    reference = [statistics.median(column) for column in zip(*found[next(iter(SETTINGS)), False], strict=True)]
    rows = []
    for name in SETTINGS:
        row: list[object] = [name]
        for beside in (False, True):
            medians = [statistics.median(column) for column in zip(*found[name, beside], strict=True)]
            row += [value / base for value, base in zip(medians, reference, strict=True)]
        rows.append(row)
    headers = ["", "quiet: seconds", "processor's seconds", "beside other work: seconds", "processor's seconds"]
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".2f"))


if __name__ == "__main__":
    main()
