"""A run stopped at any moment, in any way, goes on where it was and ends as if it had never been stopped."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24


def versions(folder: Path) -> dict[str, tuple[int, int]]:
    """Say which files are in a folder and which version of them: a replaced file has another inode."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def check_files(folder: Path) -> None:
    """Load every file that a reader may find."""
    for path in folder.rglob("*.pt"):
        if not path.name.startswith("."):
            torch.load(path, weights_only=True, mmap=True)
    for path in folder.rglob("*.json"):
        if not path.name.startswith("."):
            json.loads(path.read_text())


def unfinished_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.tmp"))


def listed(folder: Path) -> set[str]:
    """Name the files of a run; TensorBoard's have the time in their names."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "tensorboard" not in path.parts}


def last_save(output: Path) -> int:
    """Return when a checkpoint was written last, in nanoseconds; 0 before the first."""
    times = [0]
    for name in ("checkpoint.pt", "epoch.pt"):
        with suppress(FileNotFoundError):
            times.append((output / name).stat().st_mtime_ns)
    return max(times)


def kill_and_restart(start_run: Any, overrides: dict[str, Any], output: Path, kills: int, seed: int) -> int:
    """Kill a run after some saves, every second time while it writes a file; return how often it was killed.

    Moments are counted in saves, not in seconds: a fast machine must not finish before it is killed.
    """
    moments = random.Random(seed)
    for number in range(kills):
        process = start_run(overrides)
        saves, seen, last = moments.randint(1, 3), -1, 0
        while process.is_alive():
            if last != (last := last_save(output)):
                seen += 1  # the first is what the run found
            if seen >= saves and (number % 2 or unfinished_files(output)):
                break
            time.sleep(0.0005)
        process.kill()
        process.join()
        check_files(output)
        if process.exitcode == 0:
            return number
        assert process.exitcode == -signal.SIGKILL
    return kills


@pytest.mark.parametrize(
    ("kills", "least"), [(5, 3), pytest.param(40, 8, marks=pytest.mark.slow)], ids=["few kills", "many kills"]
)
def test_killed_run_ends_as_an_uninterrupted_one(
    kills: int,
    least: int,
    uninterrupted: Any,
    start_run: Any,
    finish_run: Any,
    weights_digest: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    output = tmp_path / "run"
    # copies: the memory's own files take part too
    overrides = {**uninterrupted.overrides, "output_dir": output, "memory#exemplars": "copies"}
    assert kill_and_restart(start_run, overrides, output, kills, seed=kills) >= least
    finish_run(overrides)
    for name in ("model.pt", "checkpoint.pt", "task_0/model.pt", "task_2/model.pt"):
        assert weights_digest(output / name) == weights_digest(uninterrupted.output / name), name
    for name in ("metrics.json", "network.json", "accuracy_matrix.csv"):
        assert (output / name).read_bytes() == (uninterrupted.output / name).read_bytes(), name
    kept = {path.name for path in (output / "exemplars").iterdir()}
    memory = torch.load(output / "checkpoint.pt", weights_only=True)["states"]["memory"]["classes"]
    assert kept == {Path(image).name for images in memory.values() for image in images}
    assert len(kept) == overrides["memory_size"]
    assert not unfinished_files(output)
    assert listed(output) - {"exemplars", *(f"exemplars/{name}" for name in kept)} == listed(uninterrupted.output)


class Command:
    """The real command in a process of its own, as a user starts it; to be stopped in some way.

    Args:
        arguments: of ``python -m monai.bundle``.
        log: takes what it prints.
        prepare: called in the new process before the command.
    """

    def __init__(self, arguments: list[str], log: Path, prepare: Callable[[], None] | None = None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "monai.bundle", *arguments],
                stdout=file,
                stderr=file,
                env=environment,
                preexec_fn=prepare,  # noqa: PLW1509  # no threads here
            )

    def last_line(self) -> str:
        """Wait for the end, which must not be a good one, and return the last line of all that was printed."""
        assert self.process.wait(200) != 0
        return self.log.read_text().splitlines()[-1]


@pytest.fixture
def command(bundle_command: Any, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(overrides: dict[str, Any], prepare: Callable[[], None] | None = None) -> Command:
        started.append(Command(bundle_command(overrides), tmp_path / f"log{len(started)}", prepare))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGTERM, "Terminated"), (signal.SIGINT, "Stopped")], ids=["SIGTERM", "Ctrl-C"]
)
def test_stop_while_a_checkpoint_is_written_is_one_line_and_costs_nothing(
    number: signal.Signals,
    word: str,
    halfway: Any,
    uninterrupted: Any,
    linked_copy: Any,
    command: Any,
    wait_until: Any,
    finish_run: Any,
    weights_digest: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    output = linked_copy(halfway.output, tmp_path / "run")
    overrides = {**halfway.overrides, "output_dir": output}
    before = (output / "checkpoint.pt").read_bytes()
    run = command(overrides)
    wait_until(run.process, (output / ".checkpoint.pt.tmp").exists)
    run.process.send_signal(number)
    assert (
        run.last_line() == f"{word}. What was learnt is saved: run the same command again (without --restart) to go on."
    )
    assert not {"Traceback", "ERROR"} & set(run.log.read_text().split())
    assert (output / "checkpoint.pt").read_bytes() == before
    assert not unfinished_files(output)
    finish_run(overrides)
    assert weights_digest(output / "model.pt") == weights_digest(uninterrupted.output / "model.pt")


def limit_file_size() -> None:
    # the checkpoint is larger, what is saved after an epoch of adapter tuning is not
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * 2**20, 5 * 2**20))


def test_full_disk_names_the_file_and_leaves_the_old_checkpoint(
    halfway: Any, linked_copy: Any, command: Any, tmp_path: Path
) -> None:
    output = linked_copy(halfway.output, tmp_path / "run")
    before = (output / "checkpoint.pt").read_bytes()
    last = command({**halfway.overrides, "output_dir": output}, limit_file_size).last_line()
    assert last.startswith(f"Error: cannot write {output}/checkpoint.pt: ")
    assert last.endswith("; free some space there and run again")
    assert (output / "checkpoint.pt").read_bytes() == before
    assert not unfinished_files(output)
    check_files(output)


@pytest.mark.slow
def test_disk_that_fills_up_leaves_the_old_checkpoint(
    halfway: Any,
    uninterrupted: Any,
    command: Any,
    finish_run: Any,
    weights_digest: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    megabytes = sum(path.stat().st_size for path in halfway.output.rglob("*") if path.is_file()) // 2**20 + 4
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(disk)]).returncode:
        pytest.skip("a file system of a fixed size can only be mounted by root")
    try:
        output = Path(shutil.copytree(halfway.output, disk / "run"))
        before = (output / "checkpoint.pt").read_bytes()
        last = command({**halfway.overrides, "output_dir": output}).last_line()
        assert "No space left on device" in last
        assert last.startswith(f"Error: cannot write {output}/")
        assert (output / "checkpoint.pt").read_bytes() == before
        check_files(output)
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)  # somebody freed some space
        finish_run({**halfway.overrides, "output_dir": output})
        assert weights_digest(output / "model.pt") == weights_digest(uninterrupted.output / "model.pt")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def obey_file_modes() -> None:
    """Take from root the right to write where the modes forbid it; nobody else has it."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def test_read_only_folder_is_refused_and_keeps_its_run(
    halfway: Any, linked_copy: Any, command: Any, tmp_path: Path
) -> None:
    output = linked_copy(halfway.output, tmp_path / "run")
    before = versions(output)
    output.chmod(0o555)
    try:
        last = command({**halfway.overrides, "output_dir": output}, obey_file_modes).last_line()
    finally:
        output.chmod(0o755)
    assert last.startswith(f"Error: cannot write {output}/")
    assert last.endswith(": Permission denied; make its folder writable or choose another one")
    assert versions(output) == before


def test_finished_run_shows_its_table_and_trains_nothing(
    uninterrupted: Any, linked_copy: Any, bundle_run: Any, tmp_path: Path
) -> None:
    output = linked_copy(uninterrupted.output, tmp_path / "run")
    before = versions(output)
    done = bundle_run("configs/train.json", {**uninterrupted.overrides, "output_dir": output})
    printed = done.stdout + done.stderr
    assert f"The run in {output} is finished (begin anew: --restart true)." in printed
    assert "average accuracy over stages" in printed
    assert "epochs of" not in printed
    assert versions(output) == before


def test_restart_moves_the_old_folder_aside_and_begins_anew(
    uninterrupted: Any, halfway: Any, linked_copy: Any, finish_run: Any, tmp_path: Path
) -> None:
    output = linked_copy(halfway.output, tmp_path / "run")
    (tmp_path / "run.1").mkdir()  # of an earlier restart
    before = versions(output)
    finish_run({**halfway.overrides, "output_dir": output, "restart": "true"})
    assert versions(tmp_path / "run.2") == before
    assert not list((tmp_path / "run.1").iterdir())
    assert (output / "metrics.json").read_bytes() == (uninterrupted.output / "metrics.json").read_bytes()
    assert listed(output) == listed(uninterrupted.output)


@pytest.mark.parametrize(("key", "value"), [("memory_size", 24), ("image_size", 48), ("seed", 2)])
def test_changed_setting_is_refused_by_name(
    key: str, value: int, halfway: Any, linked_copy: Any, refusal: Any, tmp_path: Path
) -> None:
    output = linked_copy(halfway.output, tmp_path / "run")
    before = versions(output)
    last = refusal({**halfway.overrides, "output_dir": output, key: value})
    assert f"other settings ({key} was {halfway.overrides.get(key, 1)}, is {value}" in last
    assert "--restart true" in last
    assert versions(output) == before


def test_changed_task_is_refused_once_it_has_begun(
    halfway: Any, linked_copy: Any, refusal: Any, tmp_path: Path
) -> None:
    output = linked_copy(halfway.output, tmp_path / "run")
    before = versions(output)
    changed = {"source#sets": ["clusters", "fibres", "spaces", "cells"]}
    last = refusal({**halfway.overrides, "output_dir": output, **changed})
    assert "task 3" in last
    assert "was cells" in last
    assert "is spaces" in last
    assert versions(output) == before


def test_added_tasks_are_no_change(
    uninterrupted: Any, finish_run: Any, weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    overrides = {**uninterrupted.overrides, "output_dir": tmp_path / "run"}
    finish_run({**overrides, "source#sets": ["clusters", "fibres"]})
    finish_run(overrides)
    for name in ("model.pt", "checkpoint.pt"):
        assert weights_digest(tmp_path / "run" / name) == weights_digest(uninterrupted.output / name)
    assert (tmp_path / "run/metrics.json").read_bytes() == (uninterrupted.output / "metrics.json").read_bytes()


def test_random_exemplars_are_the_same_after_a_kill_before_they_are_saved(
    uninterrupted: Any, start_run: Any, finish_run: Any, wait_until: Any, tmp_path: Path
) -> None:
    overrides = {**uninterrupted.overrides, "source#sets": ["clusters"], "memory#selection": "random", "memory_size": 4}
    killed = start_run({**overrides, "output_dir": tmp_path / "killed"})
    wait_until(killed, (tmp_path / "killed/task_0").exists)  # evaluated, not yet saved as learnt
    killed.kill()
    killed.join()
    assert torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["tasks_completed"] == 0
    finish_run({**overrides, "output_dir": tmp_path / "killed"})
    finish_run({**overrides, "output_dir": tmp_path / "whole"})
    killed_memory, memory = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["states"]["memory"]
        for name in ("killed", "whole")
    )
    assert killed_memory == memory
    assert [len(images) for images in memory["classes"].values()] == [2, 2]
