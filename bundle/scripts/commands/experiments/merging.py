"""Tune adapters once a start and seed, keep them, then merge them in every way and fit heads.

python -m scripts.commands.experiments.merging --data DATA [--starts START ...] [--strategies NAME ...] [--key value
...]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from scripts.commands.compare import OUTPUT, Run, data_name, plan_runs, runs_failed, tell, train_unfinished
from scripts.commands.configs import find_config, parse_config
from scripts.commands.experiments.fitted_heads import HEADS, Learnt
from scripts.commands.launch import here
from scripts.commands.terminal import end_or_stop, positive
from scripts.learning.handlers.batchnorm_recalibration import mixed_batches
from scripts.learning.handlers.checkpoint import read_checkpoint
from scripts.learning.memory.exemplars import ExemplarMemory
from scripts.learning.sources.source import Item
from scripts.learning.tasks.task import Task
from scripts.metrics.accuracy_matrix import mean_class_recall
from scripts.metrics.comparison import Measure, mean_and_deviation, shown_difference
from scripts.model.networks.adapter_statistics import AdapterStatistics
from scripts.model.networks.adapters import MERGED
from scripts.model.networks.continual import ADAPTER_STARTS, START, NetworkState
from scripts.model.networks.merging import BATCHNORMS, ROWS, Merging, merge, recalibrate
from scripts.utils.errors import UserError, find_user_error
from scripts.utils.files import CHECKPOINT, write_atomically, write_csv

METHOD = "dynammo+statistics"
AVERAGING = "average, average"  # strategy, BatchNorm
FIGURES = [f"{head}: {part} MCR" for head in HEADS for part in ("last", "average")]
RESULTS = "merging.json"
SET_HERE = ("adapter", "merging#row", "merging#batchnorm", "network_def#adapter_start", "network_def#head")
EPILOG = (
    "Each start and seed is one run of DynaMMo, in a folder of its own; a finished one is not trained again. While it "
    "learns it averages, so that the exemplars that a later task's tuning sees are those of averaging, whatever the "
    "strategy. The output folder gets merging.md and merging.csv, written anew after each way of merging."
)
_NOTES = (
    "MCR in per cent, mean (standard deviation) over seeds: *last* after the last task, *average* over the stages. "
    "*unified*: balanced fine-tuning on the features of the exemplars, which herding chooses anew in the merged "
    "features, without augmentation. *ridge*: the head that keeps sums and follows the merge, without augmentation. "
    "*BOUND*: no method, but the same ridge regression on all training images of all tasks learnt, in the same merged "
    "features."
)
_RULE = (
    "Each way minus averaging, paired over the starts and seeds that have both, and, where all is averaged, each start "
    "minus `{}`, paired over the seeds; in percentage points, the mean and the half width of its 95 % interval "
    "(Student's t). *noise*: the interval holds 0. Of twenty intervals around no difference one misses 0 by chance; "
    "pairs of one seed share their images and the first task's adapters."
)

Cell = tuple[str, str, str]
"""Start, strategy, BatchNorm."""
Curves = Mapping[str, Sequence[float]]
"""Of each head, the MCR after each task."""


class TunedRun:
    """A finished run, whose adapters of every task are kept.

    Args:
        run: trained with what the part ``statistics`` keeps for all strategies.
    """

    def __init__(self, run: Run) -> None:
        self.parser = parse_config([*run.configs, find_config("parts", "ridge")], run.keys)
        content = read_checkpoint(run.folder / CHECKPOINT)
        self.tasks: list[Task] = self.get("tasks")
        self.network = self.get("network")
        NetworkState(self.network).load_state_dict(content["states"]["network"])
        self.statistics = AdapterStatistics()
        if "statistics" in content["states"]:
            self.statistics.load_state_dict(content["states"]["statistics"])
        self.network.backbone.add_branch(MERGED)
        self.features = self.get("features")
        self.seed = run.seed
        self._keep_stem_maps()

    def _keep_stem_maps(self) -> None:
        """Put the maps before the first adapter in the images' place: whatever is merged, they are the same."""
        items = [item for task in self.tasks for item in (*task.train, *task.test)]
        maps = dict(
            zip(
                (item["image"] for item in items),
                self.get("adapter_tuning#stem_maps").maps(items, [()])[:, 0],
                strict=True,
            )
        )
        self.features.dataset = lambda wanted: [{"image": maps[item["image"]]} for item in wanted]
        self.network.backbone.stem = nn.Identity()

    def get(self, key: str) -> Any:
        """Return what the run's config says.

        Raises:
            UserError: where building it does.
        """
        try:
            return self.parser.get_parsed_content(key)
        except Exception as error:  # MONAI wraps what a constructor raises
            mistake = find_user_error(error)
            if mistake is None:
                raise
            raise mistake from error

    def memory(self) -> ExemplarMemory:
        """Return an empty memory of the run's kind, that copies no image."""
        kept = self.get("memory")
        return ExemplarMemory(kept.size, kept.selection, kept.per_class)

    def merge(self, count: int, strategy: str, batchnorm: str) -> None:
        """Merge the adapters of the first ``count`` tasks."""
        states = [self.network.mergeable_state(f"task{number}") for number in range(count)]
        row = ROWS.find(strategy)().seeded(self.seed)
        merging = replace(self.get("merging"), row=row, batchnorm=batchnorm, statistics=self.statistics, groups=None)
        start = self.network.mergeable_state(START) if merging.base == "start" else None
        self.network.branch(MERGED).load_state_dict(merge(states, merging, start))
        self.network.backbone.branches = [MERGED]


def evaluate(tuned: TunedRun, strategy: str, batchnorm: str) -> dict[str, list[float]]:
    """Merge the adapters after each task, fit each head, and return its MCR after each task.

    Args:
        tuned: the run.
        strategy: a key of :data:`scripts.model.networks.merging.ROWS`.
        batchnorm: a name in :data:`scripts.model.networks.merging.BATCHNORMS`.
    """
    width = tuned.network.backbone.head_width
    heads = {name: make(width, tuned.get) for name, make in HEADS.items()}
    curves: dict[str, list[float]] = {name: [] for name in heads}
    for learnt, test, labels in stages(tuned, strategy, batchnorm):
        for name, head in heads.items():
            classify = head(learnt)
            found = mean_class_recall(labels.numpy(), classify(test).argmax(1).numpy())
            assert found is not None
            curves[name].append(found)
    return curves


@torch.no_grad()
def stages(tuned: TunedRun, strategy: str, batchnorm: str) -> Iterator[tuple[Learnt, Tensor, Tensor]]:
    """Yield, for each task in turn, what heads are fitted on, and features and labels of all test images so far."""
    memory, embed = tuned.memory(), tuned.network.head.embed
    for count, task in enumerate(tuned.tasks, start=1):
        at_hand = [*task.train, *memory.items()]
        before = embed(tuned.features(at_hand)) if count > 1 else None
        tuned.merge(count, strategy, batchnorm)
        if batchnorm == "recalibrated":
            recalibrate(tuned.network, tuned.network.branch(MERGED), mixed_batches(tuned.features, at_hand))
        seen = tuned.tasks[:count]
        train = [item for old in seen for item in old.train]
        test = [item for old in seen for item in old.test]
        features = tuned.features(train)
        rows = {item["image"]: row for row, item in enumerate(train)}
        moved = None if before is None else (before, embed(features[_rows(rows, at_hand)]))
        memory.add(task.train, features[-len(task.train) :], memory.quota(task.first or len(task.classes)))
        sizes = tuple(len(old.classes) for old in seen)
        auxiliary = tuned.statistics.of(count - 1).get("auxiliary", {})
        fitted_on = (embed(features), _labels(train), _rows(rows, memory.items()))
        learnt = Learnt(sizes, *fitted_on, auxiliary, moved, 1000 * tuned.seed + count)
        yield learnt, embed(tuned.features(test)), _labels(test)
        memory.reduce(memory.quota(sum(sizes)))


def _rows(rows: Mapping[str, int], items: Sequence[Item]) -> Tensor:
    return torch.tensor([rows[item["image"]] for item in items])


def _labels(items: Sequence[Item]) -> Tensor:
    return torch.tensor([item["label"] for item in items])


def evaluate_run(run: Run, start: str, cells: Sequence[Cell], found: Callable[[], object]) -> None:
    """Evaluate a finished run in each way of merging that it has not been evaluated in.

    Args:
        run: the run.
        start: what its adapters started from.
        cells: the ways.
        found: called after each.
    """
    waiting = [cell for cell in cells if cell[0] == start and cell_name(cell) not in read_curves(run)]
    tuned = TunedRun(run) if waiting else None
    for cell in waiting:
        assert tuned is not None
        _, strategy, batchnorm = cell
        curves = {**read_curves(run), cell_name(cell): evaluate(tuned, strategy, batchnorm)}
        write_atomically(run.folder / RESULTS, json.dumps(curves, indent=4) + "\n")
        tell(run, f"{start}, {cell_name(cell)}")
        found()


def cell_name(cell: Cell) -> str:
    """Return what a way of merging is called among the results of a run."""
    return f"{cell[1]}, {cell[2]}"


def read_curves(run: Run) -> dict[str, Curves]:
    """Return the results of a run, by the name of the way of merging."""
    path = run.folder / RESULTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def rows_of(runs: Mapping[str, Sequence[Run]], cells: Sequence[Cell]) -> list[tuple[Cell, list[Curves]]]:
    """Return, for each way of merging that was evaluated, its results, one a seed."""
    listed = []
    for cell in cells:
        results = [curves[cell_name(cell)] for curves in map(read_curves, runs[cell[0]]) if cell_name(cell) in curves]
        if results:
            listed.append((cell, results))
    return listed


def write_table(title: str, runs: Mapping[str, Sequence[Run]], cells: Sequence[Cell], output: Path) -> str:
    """Write the table for readers and the one for programs; return the former."""
    shown: list[list[object]] = []
    rows: list[list[object]] = []
    for cell, results in rows_of(runs, cells):
        pairs = [mean_and_deviation([figures(curves)[name] for curves in results]) for name in FIGURES]
        shown.append([*cell, len(results), *(_percent(*pair) for pair in pairs)])
        rows.append([*cell, len(results), *(value for pair in pairs for value in pair)])
    first = ["start", "strategy", "BatchNorm", "seeds"]
    table = tabulate(shown, headers=[*first, *FIGURES], tablefmt="github", disable_numparse=True)
    parts = [f"# {title}: ways of merging", table, _NOTES]
    if compared := list(filter(None, (way_differences(runs, cells), start_differences(runs)))):
        parts += ["## Differences", _RULE.format(next(iter(runs))), *compared]
    text = "\n\n".join(parts) + "\n"
    header = [*first, *(f"{figure} {part}" for figure in FIGURES for part in ("mean", "deviation"))]
    write_csv(output / "merging.csv", [header, *rows])
    write_atomically(output / "merging.md", text)
    return text


def figures(curves: Curves) -> dict[str, float]:
    """Return the last and the average MCR of each head, as :data:`FIGURES` names them."""
    values = [(curves[head][-1], sum(curves[head]) / len(curves[head])) for head in HEADS]
    return dict(zip(FIGURES, (value for pair in values for value in pair), strict=True))


def way_differences(runs: Mapping[str, Sequence[Run]], cells: Sequence[Cell]) -> str:
    """Return the table of what each way gains over averaging, whatever the start; nothing where none is comparable."""
    every = [read_curves(run) for own in runs.values() for run in own]
    results = {
        name: {number: figures(curves[name]) for number, curves in enumerate(every) if name in curves}
        for name in (AVERAGING, *map(cell_name, cells))
    }
    return _compared(["strategy", "BatchNorm"], results, AVERAGING)


def start_differences(runs: Mapping[str, Sequence[Run]]) -> str:
    """Return the table of what each start gains over the first one; nothing where none is comparable."""
    results = {
        start: {run.seed: figures(curves[AVERAGING]) for run in own if AVERAGING in (curves := read_curves(run))}
        for start, own in runs.items()
    }
    return _compared(["start"], results, next(iter(runs)))


def _compared(headers: Sequence[str], results: Mapping[str, Mapping[int, Mapping[str, float]]], reference: str) -> str:
    rows = []
    for name, found in results.items():
        pairs = len(found.keys() & results[reference].keys())
        if name != reference and pairs:
            shown = [shown_difference(results, name, reference, Measure(figure, figure)) for figure in FIGURES]
            rows.append([*name.split(", "), pairs, *shown])
    headers = [*headers, "pairs", *FIGURES]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) if rows else ""


def _percent(mean: float | None, deviation: float | None) -> str:
    assert mean is not None
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ({100 * deviation:.1f})")


def plan_starts(
    data: str, starts: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], output: Path
) -> dict[str, list[Run]]:
    """Return the runs of each start.

    Raises:
        UserError: for an unknown start or a key that is set here, and as :func:`scripts.commands.compare.plan_runs`.
    """
    for word in overrides:
        key = word.removeprefix("--").partition("=")[0]
        if key in SET_HERE:
            raise UserError(f"--{key} cannot be set for the table of merging, which sets it itself")
    runs: dict[str, list[Run]] = {}
    for start in starts:
        if start not in ADAPTER_STARTS:
            raise UserError(f"unknown start '{start}': choose some of {', '.join(ADAPTER_STARTS)}")
        keys = [*overrides, "--network_def#adapter_start", start]
        runs[start] = plan_runs(data, [METHOD], seeds, keys, output / start)
    return runs


def tabulate_merging(
    title: str, runs: Mapping[str, Sequence[Run]], cells: Sequence[Cell], output: Path, jobs: int, threads: int
) -> str:
    """Train what is not finished, evaluate each way of merging, and write the table after each.

    Args:
        title: what is learnt.
        runs: of each start; see :func:`plan_starts`.
        cells: the ways.
        output: gets the tables.
        jobs: runs at a time.
        threads: of each run.

    Returns:
        The table for readers, and where it is.

    Raises:
        UserError: where runs failed; the table of the others is printed.
    """
    failed: dict[Run, str] = {}
    write = partial(write_table, title, runs, cells, output)
    for start, own in runs.items():
        failed |= train_unfinished(own, output / start, jobs, here(threads), lambda: None)
        for run in own:
            if run not in failed:
                evaluate_run(run, start, cells, write)
    text = write()
    if failed:
        print(text)
        raise runs_failed(failed, sum(map(len, runs.values())), output)
    return f"{text}\nThe table is in {output}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.commands.experiments.merging",
        usage="%(prog)s --data DATA [--starts START ...] [--strategies NAME ...] [--batchnorms RULE ...] "
        "[--seeds SEED ...] [options] [--key value ...]",
        description="Tune adapters once a start and seed, keep them, then merge them in every way and fit heads.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    strategies = [name for name, row in ROWS.items() if not row.running]  # equal to the average
    parser.add_argument("--data", required=True, help="as for dynammo compare")
    parser.add_argument("--starts", nargs="+", default=list(ADAPTER_STARTS), help=f"of {', '.join(ADAPTER_STARTS)}")
    parser.add_argument("--strategies", nargs="+", default=strategies, help=f"of {', '.join(ROWS)}")
    parser.add_argument("--batchnorms", nargs="+", default=list(BATCHNORMS), help=f"of {', '.join(BATCHNORMS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time; default: 1")
    parser.add_argument("--threads", type=positive, help="threads a run; default: the cores divided by the jobs")
    parser.add_argument("--output", type=Path, help="default: runs/merging/DATA")
    given, overrides = parser.parse_known_args(arguments)
    title = data_name(given.data)
    output = (given.output or OUTPUT / "merging" / title).absolute()
    threads = given.threads or max((os.cpu_count() or 1) // given.jobs, 1)

    def work() -> str:
        for strategy in given.strategies:
            ROWS.find(strategy)
        for batchnorm in given.batchnorms:
            Merging(batchnorm=batchnorm)
        runs = plan_starts(given.data, given.starts, given.seeds, overrides, output)
        torch.set_num_threads(threads)
        cells = list(product(given.starts, given.strategies, given.batchnorms))
        return tabulate_merging(title, runs, cells, output, given.jobs, threads)

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
