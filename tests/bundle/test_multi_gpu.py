"""Training by two processes: they end with the same weights, and one of them writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
# each process saves what it ended with
SAVING = {
    "+run": [
        "$torch.save({key: value.clone() for key, value in @network.state_dict().items()}, "
        "@output_dir + '/rank' + str(dist.get_rank()) + '.pt')"
    ]
}


def run_on_two(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command on two processes, to a good end."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
    done = subprocess.run([*start, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("methods", "batch_size"),
    [
        pytest.param([], 6, id="dynammo"),
        pytest.param(
            ["configs/methods/dynammo_others.yaml"],
            2,
            id="heads without an image of their own in a batch",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_agree_and_one_writes(
    methods: list[str],
    batch_size: int,
    tmp_path: Path,
    small_run: Any,
    bundle_command: Callable[..., list[str]],
    bundle_environment: dict[str, str],
) -> None:
    (tmp_path / "saving.json").write_text(json.dumps(SAVING))
    output = tmp_path / "run"
    overrides = {
        **small_run.overrides,
        "dataset_dir": small_run.dataset,
        "source#sets": ["clusters", "fibres"],
        "batch_size": batch_size,
        "finetune_epochs": 3,  # on features
        "optimizer#lr": 0.001,  # two images a step are few
        "memory#exemplars": "copies",
        "output_dir": output,
    }
    configs = ["configs/train.json", *methods, "configs/multi_gpu_train.json", tmp_path / "saving.json"]
    done = run_on_two(bundle_command(overrides, configs), tmp_path, bundle_environment)

    first, second = (torch.load(output / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    model = torch.load(output / "model.pt", weights_only=True)
    assert [key for key in model if not torch.equal(model[key], first[key])] == []
    # 12 images a class: each process sees half of them
    assert first["backbone.blocks.layer1.adapters.task0.layers.1.num_batches_tracked"] == 12 / batch_size

    assert len(json.loads((output / "metrics.json").read_text())["accuracy_matrix"]) == 2
    printed = done.stdout + done.stderr
    for line in ("Task 1/2 clusters, adapter tuning: ", "Task 2/2 fibres, balanced finetuning: ", "final mean class"):
        assert printed.count(line) == 1, printed
    assert len(list((output / "exemplars").iterdir())) == 16  # all that the memory holds, and nothing half written


@pytest.mark.slow
def test_two_processes_keep_one_reservoir(
    tmp_path: Path, small_run: Any, bundle_command: Callable[..., list[str]], bundle_environment: dict[str, str]
) -> None:
    own = "@output_dir + '/rank' + str(dist.get_rank()) + '.pt'"
    saving = {"+run": [f"$torch.save([@memory.state_dict(), @network.linear_layer().weight], {own})"]}
    (tmp_path / "saving.json").write_text(json.dumps(saving))
    overrides = {
        **small_run.overrides,
        "dataset_dir": small_run.dataset,
        "source#sets": ["clusters", "fibres"],
        "batch_size": 6,
        "backbone": "mobilenet_v2",
        "image_size": 40,
        "output_dir": tmp_path / "run",
    }
    methods = ["configs/methods/derpp.yaml", "configs/multi_gpu_train.json"]
    configs = ["configs/train.json", *methods, tmp_path / "saving.json"]
    run_on_two(bundle_command(overrides, configs), tmp_path, bundle_environment)

    (memory, weight), (other, others) = (torch.load(tmp_path / f"run/rank{rank}.pt") for rank in (0, 1))
    assert torch.equal(weight, others)
    assert memory["seen"] == other["seen"] == 4 * 12, "every image of every process, once an epoch"
    assert memory["classes"] == other["classes"]
    for label, logits in memory["logits"].items():
        assert all(torch.equal(a, b) for a, b in zip(logits, other["logits"][label], strict=True))
