"""Train methods on one data set, several seeds each, and set the results side by side."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.commands.configs import (
    SUFFIXES,
    TRAIN,
    data_files,
    known_methods,
    method_files,
    parse_config,
    published_files,
    run_arguments,
)
from scripts.commands.early import check_early, given_value
from scripts.commands.found import find_data
from scripts.commands.keys import top_level_keys
from scripts.commands.launch import Launch, Started, here, on_cluster, stop
from scripts.commands.terminal import held_back, interruptible
from scripts.learning.run_config import config_of, differences, read_run_config, run_folder
from scripts.learning.run_config import is_finished as run_is_finished
from scripts.metrics.comparison import csv_rows, markdown
from scripts.pictures.canvas import save_figure
from scripts.pictures.comparison import accuracies_figure, cost_figure, forgetting_figure
from scripts.utils.errors import GO_ON, UsageError, UserError, install_error_hook
from scripts.utils.files import CHECKPOINT, cannot_write, last_line, write_atomically, write_csv
from scripts.utils.looked_on import BETWEEN

REFERENCE = "dynammo"
RESULTS = "comparison.json"
"""What the runs of a comparison measured, by method and seed."""
ALL = "all"
OUTPUT = Path("runs")
# keys that the comparison sets itself, or that would make its runs unlike each other
SET_HERE = ("config_file", "seed", "output_dir", "previous", "restart")
JOBS = "jobs"
"""The folder of what jobs of a cluster leave, in that of the results."""
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
    files = {_named(method): (*shared, *method_files(method), *published_files(data, method)) for method in methods}
    if len(files) < len(set(methods)):
        raise UserError(f"two of the methods {', '.join(methods)} have one name: rename one of the files")
    name, backbones = data_name(data), dict[str, str]()
    for method, own in files.items():
        check_early([TRAIN, *own], overrides)
        backbones[method] = given_value("backbone", [TRAIN, *own], overrides)
    return [
        Run(method, seed, Path(run_folder(str(output), name, method, backbones[method], seed)), own, tuple(overrides))
        for seed in dict.fromkeys(seeds)
        for method, own in files.items()
    ]


def _named(method: str) -> str:
    """Return a method's name, where a page or a part of it is a file."""
    return "+".join(Path(name).stem if name.endswith(SUFFIXES) else name for name in method.split("+"))


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


def train(runs: Sequence[Run], jobs: int, launch: Launch, ended: Callable[[Run, int], None]) -> None:
    """Train, each run on its own; all are stopped in order when this process is interrupted.

    How far they are is said every few seconds.

    Args:
        runs: what to train or to go on with.
        jobs: runs at a time.
        launch: starts a run.
        ended: told of each run and its exit status.
    """
    waiting, running = list(runs), dict[Started, Run]()
    said, lines = time.monotonic(), dict[Run, str]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                tell(run, f"training, {run.log} has all of it")
                with held_back():
                    running[start_run(run, launch)] = run
            if time.monotonic() - said >= BETWEEN:
                said = time.monotonic()
                for run in running.values():
                    if (line := last_line(run.log)) != lines.get(run):
                        lines[run] = line
                        tell(run, line)
            for started, status in [(started, started.poll()) for started in running]:
                if status is not None:
                    ended(running.pop(started), status)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        stop(list(running))


def start_run(run: Run, launch: Launch) -> Started:
    """Start or go on with a run."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    return launch([sys.executable, "-m", "monai.bundle", *run.arguments()], run.log)


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
    results, seeds = read_results(runs), list(dict.fromkeys(run.seed for run in runs))
    text = markdown(title, results, seeds, REFERENCE)
    save_figure(output / "accuracy_over_tasks.png", accuracies_figure(results))
    save_figure(output / "accuracy_and_cost.png", cost_figure(results))
    save_figure(output / "forgetting.png", forgetting_figure(results))
    write_csv(output / "comparison.csv", csv_rows(results))
    write_atomically(
        output / RESULTS, json.dumps({"title": title, "seeds": seeds, "results": results}, indent=1) + "\n"
    )
    write_atomically(output / "comparison.md", text)
    return text


def tell(run: Run, what: str) -> None:
    """Say how far a run is."""
    print(f"{run.folder.name}: {what}", file=sys.stderr, flush=True)


def train_unfinished(
    runs: Sequence[Run], output: Path, jobs: int, launch: Launch, finished: Callable[[], object]
) -> dict[Run, str]:
    """Train what is not finished.

    Args:
        runs: see :func:`plan_runs`.
        output: is made where it is missing.
        jobs: runs at a time.
        launch: starts a run.
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
    train(wanted, jobs, launch, ended)
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


@dataclass(frozen=True)
class Comparison:
    """What is to be compared.

    Attributes:
        data: see :func:`scripts.commands.found.find_data`; further configs after commas.
        methods: see :func:`plan_runs`.
        seeds: whole numbers with commas between them.
        keys: ``--key value`` words for each run.
        output: gets the tables and the pictures; ``None``: a folder called like the data.
        own_runs: gets the runs, called as training calls them; ``None``: the output, too.
        jobs: runs at a time.
        threads: of each run; ``None``: the cores divided by the jobs, or what a cluster's page says.
        submit: a cluster, see :func:`scripts.commands.launch.on_cluster`; ``None``: this machine.
    """

    data: str
    methods: tuple[str, ...]
    seeds: str
    keys: tuple[str, ...] = ()
    output: Path | None = None
    own_runs: Path | None = None
    jobs: int = 1
    threads: int | None = None
    submit: str | None = None

    @property
    def title(self) -> str:
        """What is learnt."""
        return data_name(self.data)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return (self.output or OUTPUT / "comparisons" / self.title).absolute()

    def runs(self) -> list[Run]:
        """Return its runs.

        Raises:
            UserError: as :func:`plan_runs`, or for seeds that are no numbers.
        """
        seeds = seeds_in(self.seeds)
        data, keys = self.data, self.keys
        if "," not in data and (found := find_data(data)).keys:
            data, keys = ",".join(map(str, found.files)), (*found.keys, *keys)
        folder = (self.own_runs or self.folder).absolute()
        return plan_runs(data, self.methods, seeds, keys, folder)

    def launch(self) -> Launch:
        """Return what starts its runs.

        Raises:
            UserError: as :func:`scripts.commands.launch.on_cluster`.
        """
        if self.submit is not None:
            return on_cluster(self.submit, self.threads, self.folder / JOBS)
        return here(self.threads or max((os.cpu_count() or 1) // self.jobs, 1))


def seeds_in(text: str) -> tuple[int, ...]:
    """Read numbers with commas between them.

    Raises:
        UsageError: for anything else.
    """
    seeds = text.split(",")
    if not all(seed.isascii() and seed.isdigit() for seed in seeds):
        raise UsageError(f"--seeds was given '{text}': it takes whole numbers, such as --seeds 1,2,3")
    return tuple(map(int, seeds))


def compare(wanted: Comparison, show: bool = False) -> str:
    """Train what is not finished, and write the comparison after each run.

    Args:
        wanted: the comparison.
        show: return the lines of MONAI, and train nothing.

    Returns:
        The table for readers, and where it is.

    Raises:
        UserError: where runs failed; the others are finished, and the table is printed.
    """
    runs, output = wanted.runs(), wanted.folder
    if show:
        return "\n".join(shlex.join(["python", "-m", "monai.bundle", *run.arguments()]) for run in runs)
    install_error_hook(GO_ON)
    with interruptible():
        failed = train_unfinished(
            runs, output, wanted.jobs, wanted.launch(), lambda: write_comparison(wanted.title, runs, output)
        )
    text = write_comparison(wanted.title, runs, output)
    if failed:
        print(text)
        raise runs_failed(failed, len(runs), output)
    return f"{text}\nThe comparison and its pictures are in {output}."
