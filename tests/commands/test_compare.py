"""Which runs a comparison is made of, what is refused before the first starts, and when a run counts as finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.commands import compare
from scripts.commands.app import main
from scripts.commands.compare import Run, is_finished, plan_runs, read_results, runs_failed
from scripts.commands.configs import CONFIGS, TRAIN
from scripts.commands.launch import Started, here
from scripts.commands.terminal import interruptible
from scripts.learning.run_config import write_run_config
from scripts.utils.errors import UserError
from scripts.utils.files import CHECKPOINT
from scripts.utils.running import RECORDED


def finish(run: Run, accuracy: float = 0.5) -> None:
    """Leave what a run leaves that has ended well."""
    begin(run)
    for name, content in (("metrics", {"final_accuracy": accuracy}), ("timing", {"seconds": 2.0})):
        (run.folder / f"{name}.json").write_text(json.dumps(content))
    (run.folder / "tasks.json").write_text("[{}]")


def begin(run: Run) -> None:
    """Leave what a run leaves that has begun to learn one task."""
    write_run_config(run.folder, {**run.config, RECORDED: {**run.config[RECORDED], "tasks": 1}})
    (run.folder / CHECKPOINT).touch()
    (run.folder / "tasks.json").write_text("[]")


def planned(folder: Path, overrides: tuple[str, ...] = (), seeds: tuple[int, ...] = (1,)) -> list[Run]:
    return plan_runs("skin8", ["acl", "joint"], seeds, overrides, folder)


def test_the_first_seed_of_every_method_comes_first(tmp_path: Path) -> None:
    runs = planned(tmp_path, seeds=(3, 1, 3))
    assert [run.folder.name for run in runs] == [
        "skin8-acl-mobilenet_v2-s3",
        "skin8-joint-mobilenet_v2-s3",
        "skin8-acl-mobilenet_v2-s1",
        "skin8-joint-mobilenet_v2-s1",
    ]


def test_a_run_is_the_training_with_data_then_method_then_what_is_the_runs_own(tmp_path: Path) -> None:
    own = tmp_path / "small.json"
    own.write_text('{"planned_tasks#limit": 20}')
    (run,) = plan_runs(f"skin8,{own}", ["acl"], [2], ["--memory_size", "16"], tmp_path)
    files = [TRAIN, CONFIGS / "datasets" / "skin8.yaml", own, CONFIGS / "methods" / "acl.yaml"]
    assert run.arguments() == [
        "run",
        "--config_file",
        json.dumps([str(file) for file in files]),
        "--memory_size",
        "16",
        "--seed",
        "2",
        "--output_dir",
        str(tmp_path / "small-acl-mobilenet_v2-s2"),
    ]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["generated", "aci"], "unknown method 'aci': choose one of acl, "),
        (["generated", "nowhere/own.json"], "cannot read nowhere/own.json"),
        (["skin9", "acl"], "there is no skin9: give a folder, a CSV, JSON or npz file, or one of generated, "),
        (["generated,nowhere.json", "acl"], "cannot read nowhere.json"),
        (["generated", "acl", "--seed", "3"], "--seed cannot be set for a comparison"),
        (["generated", "acl", "--output_dir=x"], "--output_dir cannot be set"),
        (["generated", "acl", "--seeds", "1,x"], "--seeds was given '1,x': it takes whole numbers"),
        (["generated", "acl", "--memory_sise", "3"], "but there is no such key: did you mean --memory_size"),
    ],
)
def test_a_mistake_ends_with_one_line_before_anything_runs(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments, "--output", str(tmp_path / "out")]) in (1, 2)
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert part in printed.err
    assert list(tmp_path.iterdir()) == []


def test_two_methods_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "acl.json").write_text("{}")
    with pytest.raises(UserError, match="have one name"):
        plan_runs("generated", ["acl", str(tmp_path / "acl.json")], [1], [], tmp_path)


def test_a_key_that_only_a_config_of_ones_own_names_is_known(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("""{"weights": "$@my_folder + '/weights.pth'"}""")
    assert plan_runs(str(tmp_path / "own.json"), ["acl"], [1], ["--my_folder", "x"], tmp_path)


def test_a_run_is_finished_once_it_has_ended_well(tmp_path: Path) -> None:
    run, _ = planned(tmp_path)
    assert not is_finished(run)
    begin(run)
    (run.folder / "metrics.json").write_text("{}")
    assert not is_finished(run)
    finish(run)
    assert is_finished(run)


def test_a_run_that_learnt_with_other_settings_is_refused_and_they_are_named(tmp_path: Path) -> None:
    run, _ = planned(tmp_path)
    finish(run)
    other, _ = planned(tmp_path, ("--memory_size", "16"))
    with pytest.raises(
        UserError, match=r"skin8-acl-mobilenet_v2-s1 has learnt with other settings \(memory_size was 40, is 16\)"
    ):
        is_finished(other)


def test_a_changed_config_is_named_with_its_key(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"planned_tasks#limit": 20, "split": 2}')
    (run,) = plan_runs(str(own), ["acl"], [1], [], tmp_path)
    finish(run)
    own.write_text('{"planned_tasks#limit": 30, "split": 2}')
    (changed,) = plan_runs(str(own), ["acl"], [1], [], tmp_path)
    with pytest.raises(UserError, match=r"\(planned_tasks#limit was 20, is 30\)"):
        is_finished(changed)


def test_a_run_that_failed_before_it_learnt_starts_again_with_a_mended_config(tmp_path: Path) -> None:
    before, _ = planned(tmp_path, ("--split", "wrong"))
    write_run_config(before.folder, before.config)
    mended, _ = planned(tmp_path, ("--split", "2"))
    assert not is_finished(mended)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_starts_while_the_comparison_is_interrupted_is_stopped_with_it(
    number: signal.Signals, tmp_path: Path
) -> None:
    started: list[Started] = []

    def launch_and_interrupt(words: Sequence[str], log: Path) -> Started:
        started.append(here(threads=1)(words, log))
        os.kill(os.getpid(), number)
        return started[-1]

    with pytest.raises(KeyboardInterrupt), interruptible():
        compare.train(planned(tmp_path), jobs=2, launch=launch_and_interrupt, ended=lambda run, status: None)
    (process,) = started
    assert isinstance(process, subprocess.Popen)
    assert process.returncode is not None, "nobody has waited for it"


def test_each_reason_for_which_runs_failed_is_said_once(tmp_path: Path) -> None:
    first, second = planned(tmp_path)
    (third, _) = planned(tmp_path, seeds=(2,))
    failed = {first: "Error: no file", second: "Error: no file", third: "Killed"}
    assert str(runs_failed(failed, 4, tmp_path)) == (
        "3 of 4 runs failed (skin8-acl-mobilenet_v2-s1, skin8-joint-mobilenet_v2-s1: no file; "
        "skin8-acl-mobilenet_v2-s2: Killed): "
        f"see their logs in {tmp_path}, then run this again"
    )


def test_only_finished_runs_with_these_settings_are_results(tmp_path: Path) -> None:
    acl, joint = planned(tmp_path)
    other, _ = planned(tmp_path, ("--memory_size", "16"), seeds=(2,))
    finish(acl, 0.75)
    finish(other)
    begin(joint)
    (joint.folder / "metrics.json").write_text('{"final_accuracy": 0.9}')
    assert read_results(planned(tmp_path, seeds=(1, 2))) == {
        "acl": {1: {"final_accuracy": 0.75, "seconds": 2.0}},
        "joint": {},
    }
