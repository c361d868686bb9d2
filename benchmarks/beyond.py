"""What methods gain over ACL and over doing nothing, and how far they are from their bounds.

    python benchmarks/beyond.py skin8 --seeds 1 2 3 4 5

Runs what ``accuracy.py`` would (what is recorded is not trained again), then prints, for each method, the paired
differences over the seeds to ACL and to the frozen backbone, and its distances to two bounds. *Own bound*: ridge
regression on all training images of all tasks in the features that the run ended with, of networks of one pass; no
continual learner may see what it sees. *Best bound*: the best own bound of the table. The table goes to
``benchmarks/results/<data>_beyond.md``. Further ``--key value`` pairs go to each method, not to ACL; such runs need a
name of their own::

    python benchmarks/beyond.py skin8 --runs skin8_published_levels --network_def#levels published
        --methods dynammo+levels+ridge dynammo+lora+levels+ridge
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from accuracy import DATA_HELP, RESULTS, finish, planned_runs, require_images, runs_name
from records import Records
from tabulate import tabulate

from scripts.commands.compare import Run
from scripts.commands.joint_ridge import joint_ridge
from scripts.commands.terminal import end_or_stop
from scripts.learning.handlers.checkpoint import read_checkpoint
from scripts.metrics.accuracy_matrix import mean_class_recall
from scripts.metrics.comparison import Results
from scripts.utils.files import CHECKPOINT, write_atomically

REFERENCE = "acl"
FROZEN = "frozen+levels+ridge"
REFERENCES = (REFERENCE, FROZEN)
METHODS = (
    *("dynammo", "dynammo_others", "dynammo+lora", "first_task+ridge", "frozen+ridge"),
    *("dynammo+ridge", "dynammo+ridge+without_memory"),
    *("dynammo+levels+ridge", "dynammo+levels+ridge+without_memory"),
    *("dynammo+lora+ridge", "dynammo+lora+ridge+without_memory"),
    *("dynammo+lora+levels+ridge", "dynammo+lora+levels+ridge+without_memory"),
)
KEYS = ("final_mean_class_recall", "average_mean_class_recall")
BOUND = "bound, final_mean_class_recall"


def own_bound(run: Run) -> float:
    """Return the last MCR of the head that sees all images at once, in the features that the run ended with."""
    joint, tasks = joint_ridge(run.folder)
    test = [item for task in tasks for item in task.test]
    labels = np.array([item["label"] for item in test])
    return mean_class_recall(labels, joint.classify(test).argmax(1).numpy()) or 0.0


def find_bounds(runs: Sequence[Run], records: Records) -> None:
    """Compute and record the bounds that are not recorded, of the runs whose folders are here."""
    torch.set_num_threads(1)
    for run in runs:
        known = records.find(run)
        if known is not None and BOUND not in known and (run.folder / CHECKPOINT).is_file() and one_pass(run):
            records.note(run, {BOUND: own_bound(run)})


def one_pass(run: Run) -> bool:
    """Say whether a run's network reads one branch."""
    return len(read_checkpoint(run.folder / CHECKPOINT)["states"]["network"]["structure"]["branches"]) == 1


def best_bounds(results: Results) -> dict[int, float]:
    """Return, of each seed, the best bound that is known of any method."""
    found: dict[int, float] = {}
    for figures in results.values():
        for seed, run in figures.items():
            found[seed] = max(found.get(seed, 0.0), run.get(BOUND, 0.0))
    return {seed: value for seed, value in found.items() if value}


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> str:
    """Return the mean difference over the seeds that both have, and its standard error, in percentage points."""
    differences = [100 * (values[seed] - reference[seed]) for seed in values if seed in reference]
    if not differences:
        return ""
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
    return f"{statistics.mean(differences):+.1f}" + (" (one seed)" if error is None else f" ± {error:.1f}")


def table(results: Results) -> str:
    """Return the table of all recorded runs."""

    def of_seeds(method: str, key: str) -> dict[int, float]:
        return {seed: figures[key] for seed, figures in results.get(method, {}).items() if key in figures}

    rows, best = [], best_bounds(results)
    for method, figures in results.items():
        row = [method, ", ".join(map(str, figures))]
        for key in KEYS:
            values = {seed: value for seed, value in of_seeds(method, key).items() if value is not None}
            row.append(f"{100 * statistics.mean(values.values()):.1f}" if values else "")
            row += [paired(values, of_seeds(reference, key)) for reference in REFERENCES]
        row += [paired(of_seeds(method, KEYS[0]), bound) for bound in (of_seeds(method, BOUND), best)]
        gigaflops = {f"{run['flops_per_image'] / 1e9:.2f}" for run in figures.values()}
        rows.append([*row, ", ".join(sorted(gigaflops))])
    measures = [f"{part} {what}" for part in ("last", "average") for what in ("MCR", "to ACL", "to frozen")]
    bounds = ["last to own bound", "last to best bound"]
    headers = ["method", "seeds", *measures, *bounds, "GFLOPs an image"]
    best_said = ", ".join(f"{100 * value:.1f} (seed {seed})" for seed, value in best.items())
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + (
        f"\n\nBest bound: {best_said}." if best else ""
    )


def write_table(name: str, results: Results, remark: str) -> str:
    """Write the table to ``benchmarks/results/<name>.md``, and return it."""
    text = "\n\n".join(filter(None, (table(results), remark)))
    head = f"# {name}: mean class recall (MCR) in per cent, paired differences ± standard error in points"
    write_atomically(RESULTS / f"{name}.md", f"{head}\n\n{text}\n")
    return text


def main() -> int:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", help=DATA_HELP)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="default: 1 2 3 4 5")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of a thread each; default: 1")
    parser.add_argument("--runs", help="name of the folder and the record of the runs; default: the data's")
    given, overrides = parser.parse_known_args()
    require_images()

    def work() -> str:
        name, own = given.runs or runs_name(given.data), runs_name(given.data)
        reference = planned_runs(given.data, [REFERENCE], given.seeds, [], own)
        runs = planned_runs(given.data, given.methods, given.seeds, overrides, name)
        known, records = finish(reference, own, given.jobs), finish(runs, name, given.jobs)
        find_bounds(reference, known)
        find_bounds(runs, records)
        results = {**known.results(reference), **records.results(runs)}
        return write_table(f"{name}_beyond", results, records.remark(runs))

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
