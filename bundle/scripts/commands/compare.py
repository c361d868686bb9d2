"""Train methods on one data set, several seeds each, and set the results side by side.

python -m scripts.commands.compare --data DATA --methods METHOD ... --seeds SEED ... [--key value ...]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts import bundle_root
from scripts.commands.configs import (
    SUFFIXES,
    TRAIN,
    data_files,
    known_methods,
    method_files,
    parse_config,
    published_files,
    read_config,
    run_arguments,
)
from scripts.commands.keys import top_level_keys, unknown_keys
from scripts.commands.terminal import end_or_stop, held_back, positive
from scripts.errors import UserError
from scripts.files import CHECKPOINT, cannot_write, last_line, write_atomically, write_csv
from scripts.metrics.comparison import csv_rows, markdown
from scripts.metrics.comparison_plots import accuracies_figure, cost_figure, forgetting_figure
from scripts.metrics.plots import save_figure
from scripts.run_config import config_of, differences, read_run_config
from scripts.run_config import is_finished as run_is_finished

REFERENCE = "dynammo"
ALL = "all"
# keys that the comparison sets itself, or that would make its runs unlike each other
SET_HERE = ("config_file", "seed", "output_dir", "previous", "restart")
# glibc otherwise gives the memory of each step back to the system, and takes it in small pages: a third and a fifth of
# the time of a step, on the same results
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
EPILOG = (
    "A finished run is not trained again, one that was interrupted goes on, one that fails does not stop the others. "
    "The output folder gets comparison.md, comparison.csv, three pictures, and a folder and a log for each run."
)
_SECONDS_TO_STOP = 30
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Run:
    """One training of the comparison.

    Attributes:
        method: its name.
        seed: of all its randomness.
        folder: its output folder; its log lies beside it.
        files: its configs after ``train.json``: those of the data, the method's, and what is published for both.
        overrides: ``--key value`` pairs over them.
    """

    method: str
    seed: int
    folder: Path
    files: tuple[Path, ...]
    overrides: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What the run prints, of each of its starts."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def configs(self) -> list[Path]:
        """All its configs, later ones over earlier ones."""
        return [TRAIN, *self.files]

    @property
    def keys(self) -> list[str]:
        """All that is set over the configs."""
        own = ["--seed", str(self.seed), "--output_dir", str(self.folder)]
        return [*self.overrides, *own]

    def arguments(self) -> list[str]:
        """Return the arguments of ``python -m monai.bundle``."""
        return run_arguments(self.configs, self.keys)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config that the run will write down."""
        return config_of(parse_config(self.configs, self.keys))


def plan_runs(
    data: str, methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], output: Path
) -> list[Run]:
    """Return the runs of a comparison: the first seed of every method, then the next.

    Args:
        data: configs of the data, as in :func:`scripts.commands.configs.data_files`, separated by commas.
        methods: as :func:`scripts.commands.configs.method_files`, or :data:`ALL` alone for all that the docs name.
        seeds: at least one.
        overrides: ``--key value`` pairs for each run.
        output: holds the folders of the runs.

    Raises:
        UserError: where a config is missing, two methods have one name, or a key is not to be set.
    """
    for key in top_level_keys(overrides):
        if key in SET_HERE:
            raise UserError(f"--{key} cannot be set for a comparison, whose runs have folders and seeds of their own")
    shared = [file for name in data.split(",") for file in data_files(name)]
    methods = known_methods() if list(methods) == [ALL] else methods
    files = {_named(method): [*method_files(method), *published_files(data, method)] for method in methods}
    if len(files) < len(set(methods)):
        raise UserError(f"two of the methods {', '.join(methods)} have one name: rename one of the files")
    _check_keys(overrides, [*shared, *(file for own in files.values() for file in own)])
    return [
        Run(method, seed, output / f"{data_name(data)}-{method}-s{seed}", (*shared, *own), tuple(overrides))
        for seed in dict.fromkeys(seeds)
        for method, own in files.items()
    ]


def _named(method: str) -> str:
    """Return a method's name, where a page or a part of it is a file."""
    return "+".join(Path(name).stem if name.endswith(SUFFIXES) else name for name in method.split("+"))


def _check_keys(overrides: Sequence[str], files: Sequence[Path]) -> None:
    """Refuse a key that is in no config: it would change nothing, and its warning would be lost in the logs."""
    config: dict[str, Any] = {}
    for file in (TRAIN, *files):
        config[str(file)] = content = read_config(file)
        config.update(content)  # whole configs stay beside: expressions that a later one replaces name keys, too
    for key, alike in unknown_keys(top_level_keys(overrides), config).items():
        hint = f": did you mean --{alike[0]}?" if alike else ": see docs/KEYS.md"
        raise UserError(f"--{key} is no key of the config{hint}")


def data_name(data: str) -> str:
    """Return the name of what is learnt: that of the last config of the data, which says most."""
    return Path(data.split(",")[-1]).stem


def is_finished(run: Run) -> bool:
    """Whether a run has ended well, with the config that it has now.

    Raises:
        UserError: the run has learnt with other settings; names them.
    """
    if not (run.folder / CHECKPOINT).is_file():
        return False
    changed = differences(read_run_config(run.folder), run.config)
    if changed:
        raise UserError(
            f"{run.folder} has learnt with other settings ({'; '.join(changed)}): give another --output, or move that "
            "folder away"
        )
    return run_is_finished(run.folder) and (run.folder / "metrics.json").is_file()


def train(runs: Sequence[Run], jobs: int, threads: int, ended: Callable[[Run, int], None]) -> None:
    """Train, each run in a process of its own, which is stopped in order when this one is interrupted.

    Args:
        runs: what to train or to go on with.
        jobs: processes at a time.
        threads: of each process.
        ended: told of each run and its exit status.
    """
    waiting, running = list(runs), dict[subprocess.Popen[bytes], Run]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                with held_back():
                    running[_start(run, threads)] = run
            for process in [process for process in running if process.poll() is not None]:
                ended(running.pop(process), process.returncode)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        _stop(list(running))


def _start(run: Run, threads: int) -> subprocess.Popen[bytes]:
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([bundle_root(), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**ALLOCATOR, **os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    command = [sys.executable, "-m", "monai.bundle", *run.arguments()]
    with run.log.open("ab") as log:
        # a session of its own: Ctrl-C reaches this process alone, which then stops the others once
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end; those that do not are killed, and lose at most an epoch."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its session: processes that load images for it end, too
            process.wait()


def read_results(runs: Sequence[Run]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Return what the finished ones among the runs wrote, by method and seed; a method without any has {}.

    Raises:
        UserError: a file of a finished run cannot be read.
    """
    results: dict[str, dict[int, Mapping[str, Any]]] = {run.method: {} for run in runs}
    for run in runs:
        try:
            finished = is_finished(run)
        except UserError:  # learnt with other settings: no result of this comparison
            continue
        if finished:
            seconds = _read(run.folder / "timing.json")["seconds"]
            results[run.method][run.seed] = {**_read(run.folder / "metrics.json"), "seconds": seconds}
    return results


def _read(path: Path) -> dict[str, Any]:
    """Read what a run or the comparison has written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): move its folder away and run again") from error


def write_comparison(title: str, runs: Sequence[Run], output: Path) -> str:
    """Write the tables and the pictures of the runs that are finished.

    Returns:
        The table for readers.

    Raises:
        UserError: the folder cannot be written.
    """
    results = read_results(runs)
    text = markdown(title, results, list(dict.fromkeys(run.seed for run in runs)), REFERENCE)
    save_figure(output / "accuracy_over_tasks.png", accuracies_figure(results))
    save_figure(output / "accuracy_and_cost.png", cost_figure(results))
    save_figure(output / "forgetting.png", forgetting_figure(results))
    write_csv(output / "comparison.csv", csv_rows(results))
    write_atomically(output / "comparison.md", text)
    return text


def tell(run: Run, what: str) -> None:
    """Say how far a run is."""
    print(f"{run.folder.name}: {what}", file=sys.stderr, flush=True)


def train_unfinished(
    runs: Sequence[Run], output: Path, jobs: int, threads: int, finished: Callable[[], object]
) -> dict[Run, str]:
    """Train what is not finished.

    Args:
        runs: see :func:`plan_runs`.
        output: is made where it is missing.
        jobs: processes at a time.
        threads: of each process.
        finished: called whenever a run has finished.

    Returns:
        Those that failed, or have learnt with other settings, and why.

    Raises:
        UserError: the folder cannot be written.
    """
    failed, wanted = dict[Run, str](), list[Run]()

    def ended(run: Run, status: int) -> None:
        if status == 0:
            tell(run, "finished")
            finished()
        else:
            failed[run] = last_line(run.log)
            tell(run, f"failed with {status}: {failed[run]}")

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(output, error) from error
    for run in runs:
        try:
            if is_finished(run):
                tell(run, "finished before")
            else:
                wanted.append(run)
        except UserError as error:
            failed[run] = str(error)
            tell(run, f"left out: {error}")
    train(wanted, jobs, threads, ended)
    return failed


def runs_failed(failed: Mapping[Run, str], count: int, output: Path) -> UserError:
    """Return the error of a command some of whose ``count`` runs failed, which gives each reason once.

    Args:
        failed: see :func:`train_unfinished`.
        count: of all runs.
        output: holds their folders and logs.
    """
    names: dict[str, list[str]] = {}
    for run, reason in failed.items():
        names.setdefault(reason.removeprefix("Error: "), []).append(str(run.folder.relative_to(output)))
    reasons = "; ".join(f"{', '.join(alike)}: {reason}" for reason, alike in names.items())
    return UserError(
        f"{len(failed)} of {count} runs failed ({reasons}): see their logs in {output}, then run this again"
    )


def compare(runs: Sequence[Run], title: str, output: Path, jobs: int, threads: int) -> str:
    """Train what is not finished, and write the comparison after each run.

    Args:
        runs: see :func:`plan_runs`.
        title: what is learnt.
        output: gets the tables and the pictures.
        jobs: processes at a time.
        threads: of each process.

    Returns:
        The table for readers, and where it is.

    Raises:
        UserError: where runs failed; the others are finished, and the table is printed.
    """
    failed = train_unfinished(runs, output, jobs, threads, lambda: write_comparison(title, runs, output))
    text = write_comparison(title, runs, output)
    if failed:
        print(text)
        raise runs_failed(failed, len(runs), output)
    return f"{text}\nThe comparison and its pictures are in {output}."


def add_run_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the options of a command that trains several runs; ``folder``: of its results, in the bundle's runs."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time; default: 1")
    parser.add_argument("--threads", type=positive, help="threads a run; default: the cores divided by the jobs")
    parser.add_argument("--output", type=Path, help=f"default: runs/{folder}/DATA in the bundle")
    parser.set_defaults(folder=folder)


def where_and_how(given: argparse.Namespace) -> tuple[Path, int]:
    """Return the output folder and the threads a run that the options of :func:`add_run_options` ask for."""
    default = Path(bundle_root()) / "runs" / given.folder / data_name(given.data)
    return (given.output or default).absolute(), given.threads or max((os.cpu_count() or 1) // given.jobs, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.commands.compare",
        usage="%(prog)s --data DATA --methods METHOD ... [--seeds SEED ...] [options] [--key value ...]",
        description="Train methods on one data set, several seeds each, and set the results side by side.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data", required=True, help="generated, a name in configs/datasets, or a file; further ones after commas"
    )
    parser.add_argument(
        "--methods",
        required=True,
        nargs="+",
        help="names in configs/methods with those of configs/parts after +, files, or: all",
    )
    add_run_options(parser, "comparisons")
    given, overrides = parser.parse_known_args(arguments)
    if overrides and not overrides[0].startswith("--"):
        parser.error(f"'{overrides[0]}' is no key")
    title = data_name(given.data)
    output, threads = where_and_how(given)

    def work() -> str:
        runs = plan_runs(given.data, given.methods, given.seeds, overrides, output)
        return compare(runs, title, output, given.jobs, threads)

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
