"""Few, uneven and wrongly labelled training images: what is left of each method.

    python benchmarks/few.py blood --seeds 1

Each method learns the data from 5, 10, 20 and 50 images a class, from as many as the benchmark has, from an uneven set
(the first class has 100 times the images of the last) and with 10 % of the labels wrong (each that of another class of
its task). Test images are always the same. Runs are those of ``accuracy.py``, recorded under
``<data>_<condition>``. The table goes to ``benchmarks/results/<data>_few.md``, the curves beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence

from accuracy import DATA_HELP, RESULTS, finish, planned_runs, require_images, runs_name
from matplotlib.figure import Figure
from tabulate import tabulate

from scripts.commands.terminal import end_or_stop
from scripts.metrics.comparison import Results
from scripts.pictures.canvas import PAPER, canvas, name_at_the_right, per_cent_axis, save_figure, style
from scripts.utils.files import write_atomically

METHODS = ("frozen+levels+ridge", "frozen+ridge+ncm", "frozen+ridge+ranpac", "dynammo", "acl")
CURVE = (5, 10, 20, 50)
CONDITIONS: dict[str, tuple[str, list[str]]] = {
    **{f"few_{count}": (f"{count} a class", ["--planned_tasks#limit", str(count)]) for count in CURVE},
    "": ("all", []),
    "uneven": ("100:1", ["--planned_tasks#imbalance", "100"]),
    "mislabelled": ("10 % wrong", ["--planned_tasks#wrong_labels", "0.1"]),
}
"""What each is called in the names of runs, and in the table, and its keys."""
LEAST = ["--ridge#least_images", "1"]  # uneven classes go down to two images
MCR = "final_mean_class_recall"


def cell(figures: Mapping[int, Mapping[str, float]]) -> str:
    """Return the mean of the last MCR over seeds, in per cent, and its deviation where there are several."""
    values = [100 * run[MCR] for run in figures.values()]
    if not values:
        return ""
    return f"{statistics.mean(values):.1f}" + (f" ({statistics.stdev(values):.1f})" if len(values) > 1 else "")


def curves(found: Mapping[str, Results], methods: Sequence[str]) -> Figure:
    """Draw the last MCR over the images a class, of each method."""
    figure, axes = canvas(5.6, 4.2)
    ends: dict[str, float] = {}
    for number, method in enumerate(methods):
        cells = [found[f"{count} a class"].get(method, {}) for count in CURVE]
        known = {
            count: 100 * statistics.mean(run[MCR] for run in runs.values())
            for count, runs in zip(CURVE, cells, strict=True)
            if runs
        }
        axes.plot(list(known), list(known.values()), **style(number), markeredgecolor=PAPER)
        ends |= {method: list(known.values())[-1]} if known else {}
    axes.set(xscale="log", xlabel="training images a class", ylabel="last mean class recall")
    axes.set_xticks(CURVE, list(map(str, CURVE)))
    axes.minorticks_off()
    per_cent_axis(axes)
    colours = [style(number)["color"] for number, method in enumerate(methods) if method in ends]
    name_at_the_right(axes, list(ends), list(ends.values()), colours)
    return figure


def learn(given: argparse.Namespace, name: str, keys: Sequence[str]) -> Results:
    """Train under one condition what is not recorded, and return its figures."""
    least = LEAST if keys else []
    runs = [
        run
        for method in given.methods
        for run in planned_runs(given.data, [method], given.seeds, [*keys, *(least if "ridge" in method else [])], name)
    ]
    return finish(runs, name, given.jobs).results(runs)


def main() -> int:
    """Train what is missing, print the table and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", help=DATA_HELP)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of a thread each; default: 1")
    given = parser.parse_args()
    require_images()

    def work() -> str:
        base = runs_name(given.data)
        found = {
            title: learn(given, "_".join(filter(None, (base, condition))), keys)
            for condition, (title, keys) in CONDITIONS.items()
        }
        rows = [[method, *(cell(results[method]) for results in found.values())] for method in given.methods]
        text = tabulate(rows, headers=["method", *found], tablefmt="github", disable_numparse=True)
        save_figure(RESULTS / f"{base}_few.png", curves(found, given.methods))
        seeds = ", ".join(map(str, given.seeds))
        head = f"# {base}: last mean class recall in per cent, by training images (seeds {seeds})"
        write_atomically(RESULTS / f"{base}_few.md", f"{head}\n\n{text}\n\n![curves]({base}_few.png)\n")
        return text

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
