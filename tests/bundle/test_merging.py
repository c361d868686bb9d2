"""The table of merging, through a real run: trained once, merged in many ways, and gone on with."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.commands.compare import Run
from scripts.commands.configs import parse_config
from scripts.commands.experiments.merging import TunedRun, stages
from scripts.learning.handlers.checkpoint import read_checkpoint
from scripts.model.networks import NetworkState

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
WAYS = ("average", "regmean", "ties")


def finished(uninterrupted: Any) -> Run:
    """Return that run as one of a comparison."""
    keys = {key: value for key, value in uninterrupted.overrides.items() if key != "seed"}
    overrides = tuple(part for key, value in keys.items() for part in (f"--{key}", str(value)))
    return Run("dynammo", 1, uninterrupted.output, (), overrides)


@pytest.mark.slow
def test_adapters_are_tuned_once_and_merged_in_every_way(
    uninterrupted: Any, bundle_environment: dict[str, str], tmp_path: Path
) -> None:
    keys = dict(uninterrupted.overrides)
    keys |= {"source#sets": "['cells','spaces']", "merging#base": "start"}
    pairs = [part for key, value in keys.items() for part in (f"--{key}", str(value))]
    output = tmp_path / "out"

    def run(*strategies: str) -> subprocess.CompletedProcess[str]:
        options = ["--data", "generated", "--seeds", "1", "--starts", "first", "--batchnorms", "pooled", "recalibrated"]
        options += ["--threads", "1", "--output", str(output), "--strategies", *strategies]
        command = [sys.executable, "-m", "scripts.commands.experiments.merging", *options, *pairs]
        return subprocess.run(command, cwd=BUNDLE, env=bundle_environment, capture_output=True, text=True, timeout=300)

    first = run(*WAYS[:2])
    assert first.returncode == 0, first.stdout + first.stderr
    folder = output / "first" / "generated-dynammo+statistics-mobilenet_v2-s1"
    checkpoint = (folder / "checkpoint.pt").stat().st_mtime_ns
    second = run(*WAYS)
    assert second.returncode == 0, second.stderr
    assert (folder / "checkpoint.pt").stat().st_mtime_ns == checkpoint
    said = second.stderr.splitlines()
    assert said == ["generated-dynammo+statistics-mobilenet_v2-s1: finished before"] + [
        f"generated-dynammo+statistics-mobilenet_v2-s1: first, ties, {rule}" for rule in ("pooled", "recalibrated")
    ], "what was evaluated before is not evaluated again"
    with (output / "merging.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["strategy"], row["BatchNorm"]) for row in rows] == [
        (way, rule) for way in WAYS for rule in ("pooled", "recalibrated")
    ]
    assert all(0 <= float(row[f"{head}: last MCR mean"]) <= 1 for row in rows for head in ("unified", "ridge", "BOUND"))
    assert (output / "merging.md").read_text() in second.stdout
    curves = json.loads((folder / "merging.json").read_text())["average, pooled"]
    assert {head: len(values) for head, values in curves.items()} == {"unified": 2, "ridge": 2, "BOUND": 2}


def test_a_run_that_measured_no_statistics_is_averaged_as_it_was(uninterrupted: Any) -> None:
    tuned = TunedRun(finished(uninterrupted))
    own = read_checkpoint(uninterrupted.output / "checkpoint.pt")["states"]["network"]["weights"]
    counts = [len(labels.unique()) for _, _, labels in stages(tuned, "average", "average")]
    assert counts == [2, 4, 6, 8]
    merged = {name: value for name, value in tuned.network.state_dict().items() if ".merged." in name}
    assert merged
    for name, value in merged.items():
        torch.testing.assert_close(value, own[name], msg=f"{name} is not what the run itself merged")


@torch.no_grad()
def test_features_on_kept_maps_are_those_of_the_whole_network(uninterrupted: Any) -> None:
    tuned = TunedRun(finished(uninterrupted))
    tuned.network.backbone.branches = ["task0", "task1"]
    content = read_checkpoint(uninterrupted.output / "checkpoint.pt")
    parser = parse_config(finished(uninterrupted).configs, finished(uninterrupted).keys)
    network, features = (parser.get_parsed_content(key) for key in ("network", "features"))
    NetworkState(network).load_state_dict(content["states"]["network"])
    network.eval().backbone.branches = ["task0", "task1"]
    items = [item for task in tuned.tasks for item in task.test]
    whole = torch.cat([network.backbone(images).cpu() for images in features.images(items)])
    torch.testing.assert_close(tuned.features.features(items)[:, 0], whole)
