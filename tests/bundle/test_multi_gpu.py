"""Training by several processes: they end with the same weights, one of them writes, and one that dies comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import mobilenet_v2

from scripts.commands.configs import OF_TRANSFORMERS, known_methods, method_files

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
# each process saves what it ended with
SAVING = {
    "+run": [
        "$torch.save({key: value.clone() for key, value in @network.state_dict().items()}, "
        "@output_dir + '/rank' + str(dist.get_rank()) + '.pt')"
    ]
}


ON_TWO = ("--standalone", "--nproc_per_node=2")


def start(command: list[str], folder: Path, environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    """Start the command on the processes of one node."""
    words = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "monai.bundle", *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def finish(*nodes: subprocess.Popen[str]) -> str:
    """Wait for all nodes to come to a good end, and return what the first has said."""
    said = [node.communicate(timeout=280)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0] * len(nodes), "\n".join(said)
    return said[0]


def run_on_two(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run the command on two processes, to a good end."""
    return finish(start(command, folder, environment, *ON_TWO))


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
    printed = run_on_two(bundle_command(overrides, configs), tmp_path, bundle_environment)

    first, second = (torch.load(output / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    model = torch.load(output / "model.pt", weights_only=True)
    assert [key for key in model if not torch.equal(model[key], first[key])] == []
    # 12 images a class: each process sees half of them
    assert first["backbone.blocks.layer1.adapters.task0.layers.1.num_batches_tracked"] == 12 / batch_size

    assert len(json.loads((output / "metrics.json").read_text())["accuracy_matrix"]) == 2
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


SETS = {"source#sets": ["clusters", "fibres"], "batch_size": 6}
CONVOLUTIONS = {"backbone": "mobilenet_v2", "network_def#sites": ["features.3", "features.5"], "image_size": 40}
TOKENS = {"backbone": "timm:test_vit", "image_size": 32}


@pytest.fixture
def command_for(small_run: Any, bundle_command: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Return the command that learns by a method, in a folder, on several processes or on one."""

    def command(method: str, output: Path, several: bool = True, **own: Any) -> list[str]:
        places = {"dataset_dir": small_run.dataset, "output_dir": output}
        network = TOKENS if method in OF_TRANSFORMERS else CONVOLUTIONS
        overrides = {**small_run.overrides, **SETS, **network, **places, **own}
        apart = ["configs/multi_gpu_train.json"] if several else []
        return bundle_command(overrides, ["configs/train.json", *method_files(method), *apart])

    return command


def result(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the weights that a run has learnt, and its figures."""
    metrics = json.loads((run / "metrics.json").read_text())
    return torch.load(run / "model.pt", weights_only=True), metrics


@pytest.mark.slow
def test_a_head_in_closed_form_is_that_of_one_process_on_four_and_on_two_nodes(
    command_for: Callable[..., list[str]],
    free_port: Callable[[], int],
    bundle_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    weights_file = tmp_path / "weights.pth"
    torch.save(mobilenet_v2().state_dict(), weights_file)

    def command(name: str, several: bool = True) -> list[str]:
        return command_for("frozen+levels+ridge", tmp_path / name, several, weights=weights_file)

    words = [sys.executable, "-m", "monai.bundle", *command("alone", several=False)]
    done = subprocess.run(words, cwd=tmp_path, env=bundle_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    finish(start(command("four"), tmp_path, bundle_environment, "--nproc_per_node=4"))
    node = ("--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{free_port()}")
    finish(*(start(command("nodes"), tmp_path, bundle_environment, *node) for _ in range(2)))

    weights, metrics = result(tmp_path / "alone")
    for name in ("four", "nodes"):
        found, figures = result(tmp_path / name)
        for key, tensor in weights.items():
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-12, msg=f"{name}: {key}")
        assert figures == metrics, name


@pytest.mark.slow
def test_a_process_that_is_killed_is_restarted_and_the_run_ends_as_if_nothing_had_happened(
    command_for: Callable[..., list[str]],
    wait_until: Callable[..., None],
    bundle_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    run_on_two(command_for("dynammo", tmp_path / "whole"), tmp_path, bundle_environment)
    options = (*ON_TWO, "--max-restarts=1", "--monitor-interval=0.1")
    node = start(command_for("dynammo", tmp_path / "killed"), tmp_path, bundle_environment, *options)
    wait_until(node, lambda: (tmp_path / "killed" / "checkpoint.pt").is_file())
    os.kill(process_of(1, tmp_path / "killed"), signal.SIGKILL)
    said = finish(node)
    assert "Signal 9 (SIGKILL)" in said or "exitcode: -9" in said or "Resuming" in said, said
    (whole, metrics), (killed, others) = (result(tmp_path / name) for name in ("whole", "killed"))
    assert [key for key in whole if not torch.equal(whole[key], killed[key])] == []
    assert others["accuracy_matrix"] == metrics["accuracy_matrix"]


def process_of(rank: int, folder: Path) -> int:
    """Return the number of the process of a rank that learns in a folder."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = f"RANK={rank}".encode() in (path / "environ").read_bytes().split(b"\0")
            if mine and str(folder).encode() in (path / "cmdline").read_bytes():
                return int(path.name)
    pytest.fail("no such process")


@pytest.mark.slow
@pytest.mark.parametrize("method", [*known_methods(), *OF_TRANSFORMERS])
def test_every_method_learns_on_two_processes(
    method: str, command_for: Callable[..., list[str]], bundle_environment: dict[str, str], tmp_path: Path
) -> None:
    run_on_two(command_for(method, tmp_path / "run"), tmp_path, bundle_environment)
    _, metrics = result(tmp_path / "run")
    assert len(metrics["accuracy_matrix"]) == 2
