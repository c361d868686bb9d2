"""What the processes of a distributed run see of their shares is put together in order, however many there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.learning.features.shares import everyones, share

BUNDLE = Path(__file__).resolve().parents[3] / "bundle"
THREE = """
import torch
import torch.distributed as dist
from scripts.learning.features.shares import everyones, same_buffers, share

dist.init_process_group("gloo")
for count in range(9):
    things = [[float(place), -1 / (place + 1)] for place in range(count)]
    own = share(things)
    assert count < 3 or len(own) in (count // 3, count // 3 + 1)
    rows = torch.tensor(own, dtype=torch.float64).reshape(-1, 2)
    assert torch.equal(everyones(rows, count), torch.tensor(things, dtype=torch.float64).reshape(-1, 2))
norm = torch.nn.BatchNorm1d(2)
norm.running_mean.fill_(dist.get_rank() + 1)
same_buffers(norm)
assert norm.running_mean.tolist() == [1, 1]
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_three_processes_see_all_that_one_sees(bundle_environment: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "three.py"
    script.write_text(THREE)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", str(script)]
    environment = {**bundle_environment, "PYTHONPATH": str(BUNDLE)}
    done = subprocess.run(start, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_one_process_has_all() -> None:
    assert share([1, 2, 3]) == [1, 2, 3]
    assert everyones(torch.eye(3), 3).equal(torch.eye(3))
