"""What the heads in closed form and the adapters that fold away gain over ACL, and how far they are from their bound.

    python benchmarks/beyond.py skin8 --seeds 1 2 3 4 5

Runs what ``accuracy.py`` would (what is recorded is not trained again), then prints, for each method, the paired
difference to ACL over the seeds, and for each head that follows the merge its distance to ridge regression on all
training images of all tasks in the same merged features. The table goes to ``benchmarks/results/<data>_beyond.md``.
Further ``--key value`` pairs go to each method, not to ACL; such runs need a name of their own::

    python benchmarks/beyond.py skin8 --runs skin8_published_levels --network_def#levels published
        --methods dynammo+levels+ridge dynammo+lora+levels+ridge
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence

import torch
from accuracy import OVERLAYS, RESULTS, finish, planned_runs, require_images
from records import Records
from tabulate import tabulate

from scripts.commands.compare import Run
from scripts.commands.experiments.fitted_heads import ridge_bound
from scripts.commands.experiments.merging import TunedRun, stages
from scripts.commands.terminal import end_or_stop
from scripts.metrics.accuracy_matrix import mean_class_recall
from scripts.metrics.comparison import Results
from scripts.utils.files import CHECKPOINT, write_atomically

REFERENCE = "acl"
FOLLOWING = (  # heads whose sums follow the merge
    *("dynammo+ridge", "dynammo+ridge+without_memory"),
    *("dynammo+levels+ridge", "dynammo+levels+ridge+without_memory"),
    *("dynammo+lora+ridge", "dynammo+lora+ridge+without_memory"),
    *("dynammo+lora+levels+ridge", "dynammo+lora+levels+ridge+without_memory"),
)
METHODS = ("dynammo", "dynammo_others", "dynammo+lora", *FOLLOWING, "first_task+ridge", "frozen+ridge")
KEYS = ("final_mean_class_recall", "average_mean_class_recall")


def bound_of(key: str) -> str:
    """Return what the bound of a figure is called."""
    return f"bound, {key}"


def bound(run: Run) -> dict[str, float]:
    """Return the last and average MCR of the head that sees all images again."""
    tuned = TunedRun(run)
    fit, curve = ridge_bound(tuned.network.backbone.head_width, tuned.get), []
    for learnt, test, labels in stages(tuned, "average", "average"):
        curve.append(mean_class_recall(labels.numpy(), fit(learnt)(test).argmax(1).numpy()) or 0.0)
    return {bound_of(KEYS[0]): curve[-1], bound_of(KEYS[1]): sum(curve) / len(curve)}


def find_bounds(runs: Sequence[Run], records: Records) -> None:
    """Compute and record the bounds that are not recorded, of the runs whose folders are here."""
    torch.set_num_threads(1)
    for run in runs:
        known = records.find(run) or {}
        if run.method in FOLLOWING and bound_of(KEYS[0]) not in known and (run.folder / CHECKPOINT).is_file():
            records.note(run, bound(run))


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

    rows = []
    for method, figures in results.items():
        row = [method, ", ".join(map(str, figures))]
        for key in KEYS:
            values = of_seeds(method, key)
            row += [f"{100 * statistics.mean(values.values()):.1f}", paired(values, of_seeds(REFERENCE, key))]
        row += [paired(of_seeds(method, key), of_seeds(method, bound_of(key))) for key in KEYS]
        gigaflops = {f"{run['flops_per_image'] / 1e9:.2f}" for run in figures.values()}
        rows.append([*row, ", ".join(sorted(gigaflops))])
    measures = [f"{part} {what}" for part in ("last", "average") for what in ("MCR", f"to {REFERENCE}")]
    headers = ["method", "seeds", *measures, "last to bound", "average to bound", "GFLOPs an image"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> int:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", choices=sorted(OVERLAYS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="default: 1 2 3 4 5")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of a thread each; default: 1")
    parser.add_argument("--runs", help="name of the folder and the record of the runs; default: the data's")
    given, overrides = parser.parse_known_args()
    require_images()

    def work() -> str:
        name = given.runs or given.data
        reference = planned_runs(given.data, [REFERENCE], given.seeds, [], given.data)
        runs = planned_runs(given.data, given.methods, given.seeds, overrides, name)
        known, records = finish(reference, given.data, given.jobs), finish(runs, name, given.jobs)
        find_bounds(runs, records)
        results = {**known.results(reference), **records.results(runs)}
        text = "\n\n".join(filter(None, (table(results), records.remark(runs))))
        head = f"# {given.data}: mean class recall (MCR) in per cent, paired differences ± standard error in points"
        write_atomically(RESULTS / f"{name}_beyond.md", f"{head}\n\n{text}\n")
        return text

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
