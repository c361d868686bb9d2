"""A mistake ends the command before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.commands.experiments.merging import HEADS, RESULTS, main, plan_starts, write_table


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--starts", "last"], "unknown start 'last': choose some of previous, first, running_mean"),
        (["--strategies", "no_such"], "unknown way of merging 'no_such': choose one of average, "),
        (["--batchnorms", "none"], "unknown 'none': choose one of average, pooled, recalibrated"),
        (["--network_def#adapter_start", "first"], "#adapter_start cannot be set for the table of merging"),
        (["--seed", "3"], "--seed cannot be set"),
        (["--memory_sise", "3"], "did you mean --memory_size"),
    ],
)
def test_a_mistake_ends_with_one_line_before_anything_runs(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", "generated", "--output", str(tmp_path / "out"), *arguments]) in (1, 2)
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert part in printed.err
    assert list(tmp_path.iterdir()) == []


def test_each_start_and_seed_is_a_run_in_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = plan_starts("generated", ["previous", "first"], [1, 2], [], tmp_path)
    folders = {start: [str(run.folder.relative_to(tmp_path)) for run in own] for start, own in runs.items()}
    assert folders == {
        start: [f"{start}/generated-dynammo+statistics-resnet18-s{seed}" for seed in (1, 2)]
        for start in ("previous", "first")
    }
    assert all(run.keys[:2] == ["--network_def#adapter_start", start] for start, own in runs.items() for run in own)


def test_ways_are_compared_with_averaging_pair_by_pair(tmp_path: Path) -> None:
    runs = plan_starts("generated", ["previous", "first"], [1, 2], [], tmp_path)
    cells = [(start, way, "average") for start in runs for way in ("average", "ties", "magmax")]
    averaged = {"previous1": 0.5, "previous2": 0.25, "first1": 0.625, "first2": None}
    ties = {"previous1": 0.75, "previous2": 0.5, "first1": 0.875, "first2": 0.5}
    for start, own in runs.items():
        for run in own:
            mcr = {"average, average": averaged[f"{start}{run.seed}"], "ties, average": ties[f"{start}{run.seed}"]}
            run.folder.mkdir(parents=True)
            curves = {way: dict.fromkeys(HEADS, [1.0, last]) for way, last in mcr.items() if last is not None}
            (run.folder / RESULTS).write_text(json.dumps(curves))
    rows = [[cell.strip() for cell in line.split("|")] for line in write_table("x", runs, cells, tmp_path).splitlines()]
    pairs = [row for row in rows if row[1:3] == ["ties", "average"]]
    assert pairs == [["", "ties", "average", "3", *["+25.0 ± 0.0", "+12.5 ± 0.0"] * len(HEADS), ""]]
    starts = [row for row in rows if row[1:3] == ["first", "1"]]
    assert starts == [["", "first", "1", *["+12.5 (one seed)", "+6.2 (one seed)"] * len(HEADS), ""]]
    alone = {"previous": runs["previous"]}
    assert "## Differences" not in write_table("x", alone, [("previous", "magmax", "average")], tmp_path)
