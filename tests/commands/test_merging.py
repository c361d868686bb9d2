"""A mistake ends the command before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.commands.merging import main, plan_starts


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--starts", "last"], "unknown start 'last': choose some of previous, first, running_mean"),
        (["--strategies", "median"], "unknown merging strategy 'median'"),
        (["--batchnorms", "none"], "unknown 'none': choose one of average, pooled, recalibrated"),
        (["--adapter_start", "first"], "--adapter_start cannot be set for the table of merging"),
        (["--seed", "3"], "--seed cannot be set"),
        (["--memory_sise", "3"], "did you mean --memory_size?"),
    ],
)
def test_a_mistake_ends_with_one_line_before_anything_runs(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", "generated", "--output", str(tmp_path / "out"), *arguments]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert part in printed.err
    assert list(tmp_path.iterdir()) == []


def test_each_start_and_seed_is_a_run_in_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = plan_starts("generated", ["previous", "first"], [1, 2], [], tmp_path)
    folders = {start: [str(run.folder.relative_to(tmp_path)) for run in own] for start, own in runs.items()}
    assert folders == {
        start: [f"{start}/generated-dynammo-s{seed}" for seed in (1, 2)] for start in ("previous", "first")
    }
    assert all(run.keys[:2] == ["--adapter_start", start] for start, own in runs.items() for run in own)
