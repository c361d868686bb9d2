"""What the heads in closed form and the adapters that fold away gain over ACL, and how far they are from their bound.

    python benchmarks/beyond.py skin8 --seeds 1 2 3 4 5

Runs what ``accuracy.py`` would (a finished run is not trained again), then prints, for each method, the paired
difference to ACL over the seeds, and for each head that follows the merge its distance to ridge regression on all
training images of all tasks in the same merged features. The table goes to ``benchmarks/results/<data>_beyond.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accuracy import OVERLAYS, RESULTS, arguments, output_folder, require_images
from tabulate import tabulate

from scripts.commands.compare import Run, is_finished, plan_runs
from scripts.commands.compare import main as compare
from scripts.commands.fitted_heads import ridge_bound
from scripts.commands.merging import TunedRun, stages
from scripts.files import write_atomically
from scripts.metrics.accuracy_matrix import mean_class_recall

REFERENCE = "acl"
FOLLOWING = (  # heads whose sums follow the merge
    *("dynammo_ridge", "dynammo_ridge_without_memory"),
    *("dynammo_levels_ridge", "dynammo_levels_ridge_without_memory"),
    *("dynammo_lora_ridge", "dynammo_lora_ridge_without_memory"),
)
METHODS = (REFERENCE, "dynammo", "dynammo_others", "dynammo_lora", *FOLLOWING, "first_task_ridge", "ridge")
KEYS = ("final_mean_class_recall", "average_mean_class_recall")
BOUND = "bound.json"


def bound(run: Run) -> dict[str, float]:
    """Return the last and average MCR of the head that sees all images again; computed once a run."""
    path = run.folder / BOUND
    if not path.is_file():
        tuned = TunedRun(run)
        fit, curve = ridge_bound(tuned.network.backbone.width, tuned.get), []
        for learnt, test, labels in stages(tuned, "average", "average"):
            curve.append(mean_class_recall(labels.numpy(), fit(learnt)(test).argmax(1).numpy()) or 0.0)
        write_atomically(path, json.dumps(dict(zip(KEYS, (curve[-1], sum(curve) / len(curve)), strict=True))))
    return json.loads(path.read_text())


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> str:
    """Return the mean difference over the seeds that both have, and its standard error, in percentage points."""
    differences = [100 * (values[seed] - reference[seed]) for seed in values if seed in reference]
    if not differences:
        return ""
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
    return f"{statistics.mean(differences):+.1f}" + (" (one seed)" if error is None else f" ± {error:.1f}")


def table(runs: Sequence[Run]) -> str:
    """Return the table of all finished runs."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for run in runs:
        if is_finished(run):
            metrics = json.loads((run.folder / "metrics.json").read_text())
            bounds: Mapping[str, Any] = bound(run) if run.method in FOLLOWING else {}
            for key in KEYS:
                found.setdefault(run.method, {}).setdefault(key, {})[run.seed] = metrics[key]
                if key in bounds:
                    found[run.method].setdefault(f"bound, {key}", {})[run.seed] = bounds[key]
    rows = []
    for method, figures in found.items():
        reference = found.get(REFERENCE, {})
        row = [method, ", ".join(map(str, figures[KEYS[0]]))]
        for key in KEYS:
            values = list(figures[key].values())
            row += [f"{100 * statistics.mean(values):.1f}", paired(figures[key], reference.get(key, {}))]
        row += [paired(figures[key], figures.get(f"bound, {key}", {})) for key in KEYS]
        rows.append(row)
    measures = [f"{part} {what}" for part in ("last", "average") for what in ("MCR", f"to {REFERENCE}")]
    headers = ["method", "seeds", *measures, "last to bound", "average to bound"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> int:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", choices=sorted(OVERLAYS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--jobs", default="1", help="runs at a time; default: 1")
    given, others = parser.parse_known_args()
    require_images()
    output = output_folder(given.data)
    configs, folders = arguments(given.data)
    keys = [*others, *folders]
    wanted = ["--data", configs, "--methods", *given.methods, "--seeds", *map(str, given.seeds), "--jobs", given.jobs]
    status = compare([*wanted, "--output", str(output), *keys])
    torch.set_num_threads(1)
    text = table(plan_runs(configs, given.methods, given.seeds, keys, output))
    head = f"# {given.data}: mean class recall (MCR) in per cent, paired differences ± standard error in points"
    write_atomically(RESULTS / f"{given.data}_beyond.md", f"{head}\n\n{text}\n")
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
