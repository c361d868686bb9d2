"""The command that compares, through real runs: one fails and no other, and Ctrl-C ends them all."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


def command_of(uninterrupted: Any, methods: Sequence[str], output: Path) -> list[str]:
    """Return a comparison of methods on the images of that run, two of its tasks."""
    keys = dict(uninterrupted.overrides)
    keys["source#sets"] = "['cells','spaces']"
    options = ["generated", *methods, "--seeds", "1", "--jobs", "2", "--threads", "1"]
    pairs = [part for key, value in keys.items() for part in (f"--{key}", str(value))]
    return ["-m", "scripts.commands", "compare", *options, "--output", str(output), *pairs]


def test_one_failing_method_stops_no_other_and_a_finished_run_is_left_alone(
    uninterrupted: Any, python: Callable[..., Any], tmp_path: Path
) -> None:
    page = (BUNDLE / "configs" / "methods" / "finetune.yaml").read_text()
    (tmp_path / "broken.yaml").write_text(f"{page}training#data: yesterdays\n")
    output = tmp_path / "out"

    first = python(command_of(uninterrupted, [str(tmp_path / "broken.yaml"), "finetune"], output))
    assert first.returncode == 1, first.stdout + first.stderr
    assert "generated-broken-mobilenet_v2-s1: failed with 1: Error: " in first.stderr
    assert "yesterdays" in first.stderr
    assert "generated-finetune-mobilenet_v2-s1: finished\n" in first.stderr
    last = first.stderr.splitlines()[-1]
    assert last.startswith("Error: 1 of 2 runs failed (generated-broken-mobilenet_v2-s1: ")
    assert "yesterdays" in last

    metrics = json.loads((output / "generated-finetune-mobilenet_v2-s1" / "metrics.json").read_text())
    with (output / "comparison.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["finetune"]["final_accuracy_mean"]) == metrics["final_accuracy"]
    assert float(rows["finetune"]["seconds_mean"]) > 0
    assert [value for value in rows["broken"].values() if value] == ["broken", "0"]
    assert (output / "comparison.md").read_text() in first.stdout
    assert "Not finished, and not in the table: broken (seed 1)." in first.stdout
    for name in ("accuracy_over_tasks", "accuracy_and_cost", "forgetting"):
        with Image.open(output / f"{name}.png") as picture:
            picture.load()

    checkpoint = (output / "generated-finetune-mobilenet_v2-s1" / "checkpoint.pt").stat().st_mtime_ns
    log = (output / "generated-finetune-mobilenet_v2-s1.log").read_bytes()
    second = python(command_of(uninterrupted, ["finetune"], output))
    assert second.returncode == 0, second.stderr
    assert second.stderr == "generated-finetune-mobilenet_v2-s1: finished before\n"
    assert (output / "generated-finetune-mobilenet_v2-s1" / "checkpoint.pt").stat().st_mtime_ns == checkpoint
    assert (output / "generated-finetune-mobilenet_v2-s1.log").read_bytes() == log


def test_an_interrupted_comparison_leaves_no_process_behind(
    uninterrupted: Any, bundle_environment: dict[str, str], wait_until: Callable[..., None], tmp_path: Path
) -> None:
    def started() -> set[str]:
        lines = {path.parent.name: path for path in Path("/proc").glob("[0-9]*/cmdline")}
        return {number for number, path in lines.items() if b"monai.bundle" in (text := content(path)) and here in text}

    here = str(tmp_path).encode()
    command = [sys.executable, *command_of(uninterrupted, ["finetune", "joint"], tmp_path)]
    process = subprocess.Popen(command, cwd=BUNDLE, env=bundle_environment, stderr=subprocess.PIPE, text=True)
    wait_until(process, lambda: len(started()) == 2)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=200)
    assert (process.returncode, started()) == (130, set())
    last = "Stopped. What was learnt is saved: run the same command again (without --restart) to go on."
    assert printed.splitlines()[-1] == last


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
