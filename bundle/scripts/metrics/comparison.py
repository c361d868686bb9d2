"""Compare methods over several seeds: a table of means and deviations, and which differences are more than noise.

Results are what finished runs wrote, nothing else: a figure that one of them lacks is None, and its cell is empty.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student
from tabulate import tabulate

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Of each method, by seed, what ``metrics.json`` holds and ``seconds``, the time of training; {}: nothing finished."""

CONFIDENCE = 0.95
NOTES = (
    "*last*: after the last task, *average*: over the stages, MCR: mean class recall, *task given*: each image's task "
    "is told, and only its classes stand to choice; all of these and forgetting in per cent. FLOPs are 2 x "
    "multiply-adds, of inference after the last task. Kept: what is stored between tasks for learning, exemplars, "
    "adapters and added backbones. Seconds are those of this machine under its load. A cell that was not measured is "
    "empty."
)
RULE = (
    "Percentage points: the mean difference over the seeds that both have, ± the half width of its 95 % interval "
    "(paired, Student's t with n - 1 degrees of freedom). *noise*: the interval holds 0. Of twenty differences between "
    "methods that are equal one lies beyond the noise by chance. After one seed nothing can be said about the noise."
)


@dataclass(frozen=True)
class Measure:
    """A figure of a run, and how it is printed.

    Attributes:
        key: its name in the results.
        title: its name in the table.
        unit: what 1 in the table stands for.
        digits: decimals in the table.
    """

    key: str
    title: str
    unit: float = 0.01
    digits: int = 1


FORGETTING = Measure("forgetting", "forgetting")
ACCURACIES = (
    Measure("final_accuracy", "last accuracy"),
    Measure("average_accuracy", "average accuracy"),
    Measure("final_mean_class_recall", "last MCR"),
    Measure("average_mean_class_recall", "average MCR"),
)
COMPARED = (*ACCURACIES, FORGETTING)
MEASURES = (
    *COMPARED,
    Measure("task_incremental_final_accuracy", "last accuracy, task given"),
    Measure("task_incremental_average_accuracy", "average accuracy, task given"),
    Measure("flops_per_image", "GFLOPs an image", 1e9, 2),
    Measure("parameters", "parameters (M)", 1e6, 2),
    Measure("memory_bytes", "kept (MiB)", 2**20, 2),
    Measure("seconds", "training (s)", 1, 0),
)


@dataclass(frozen=True)
class Difference:
    """What separates two methods.

    Attributes:
        mean: of the differences over the common seeds, in the figure's own unit.
        margin: half the width of its 95 % interval; None with one seed.
    """

    mean: float
    margin: float | None

    @property
    def noise(self) -> bool | None:
        """Whether the interval holds 0; None with one seed."""
        return None if self.margin is None else abs(self.mean) <= self.margin


def values_of(results: Results, method: str, key: str) -> list[float]:
    """Return a figure of each seed of a method; none where one of its runs lacks it.

    Args:
        results: see :data:`Results`.
        method: one of its keys.
        key: the figure's name.
    """
    values = [run.get(key) for run in results[method].values()]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation (of a sample, n - 1); None without values, and without two of them.

    Args:
        values: one a seed.
    """
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def difference(results: Results, method: str, reference: str, key: str) -> Difference | None:
    """Compare two methods seed by seed: a seed gives both the same images in the same order.

    Args:
        results: see :data:`Results`.
        method: one of its keys.
        reference: another one.
        key: the figure's name.

    Returns:
        ``method`` minus ``reference`` and the half width of the 95 % interval of the paired t-test; None without a
        common seed, or where a run of a common seed lacks the figure.
    """
    first, second = results[method], results[reference]
    pairs = [(first[seed].get(key), second[seed].get(key)) for seed in first if seed in second]
    differences = [one - other for one, other in pairs if one is not None and other is not None]
    if not differences or len(differences) < len(pairs):
        return None
    mean, count = statistics.fmean(differences), len(differences)
    if count == 1:
        return Difference(mean, None)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Difference(mean, quantile * statistics.stdev(differences) / count**0.5)


def best_method(results: Results, measure: Measure) -> str | None:
    """Return the method with the best mean of a figure (forgetting: the lowest), the first of equal ones.

    Args:
        results: see :data:`Results`.
        measure: one of :data:`COMPARED`.

    Returns:
        Its name; None where no method has the figure.
    """
    means = {method: mean_and_deviation(values_of(results, method, measure.key))[0] for method in results}
    known = {method: mean for method, mean in means.items() if mean is not None}
    if not known:
        return None
    return (min if measure is FORGETTING else max)(known, key=lambda method: known[method])


def csv_rows(results: Results) -> list[list[object]]:
    """Return the table for programs: a header, and a row a method; not rounded, in the units of ``metrics.json``.

    Args:
        results: see :data:`Results`.
    """
    header = [f"{measure.key}_{part}" for measure in MEASURES for part in ("mean", "deviation")]
    rows: list[list[object]] = [["method", "seeds", *header]]
    for method, runs in results.items():
        pairs = [mean_and_deviation(values_of(results, method, measure.key)) for measure in MEASURES]
        rows.append([method, len(runs), *(value for pair in pairs for value in pair)])
    return rows


def summary(results: Results) -> list[list[str]]:
    """Return the table for readers: a header, and a row a method."""
    rows = [
        [method, str(len(runs)), *(_summary(results, method, measure) for measure in MEASURES)]
        for method, runs in results.items()
    ]
    return [["method", "seeds", *(measure.title for measure in MEASURES)], *rows]


def unfinished(results: Results, seeds: Sequence[int]) -> str:
    """Name the methods that lack results, with their seeds; an empty text where none does."""
    missing = {method: [seed for seed in seeds if seed not in runs] for method, runs in results.items()}
    return ", ".join(f"{method} (seed {', '.join(map(str, absent))})" for method, absent in missing.items() if absent)


def differences(results: Results, reference: str) -> list[list[list[str]]]:
    """Return tables of the differences to the best method and to another one; none of a single method.

    Args:
        results: see :data:`Results`.
        reference: the method that all are compared with beside the best; left out where it has no results.
    """
    measured = [method for method, runs in results.items() if runs]
    if len(measured) < 2:
        return []
    to_best = _differences(results, measured, {m: best_method(results, m) for m in COMPARED})
    others = [_differences(results, measured, dict.fromkeys(COMPARED, reference))] if reference in measured else []
    return [to_best, *others]


def markdown(title: str, results: Results, seeds: Sequence[int], reference: str) -> str:
    """Return the table for readers, what was not run, and the differences to the best method and to another one.

    Args:
        title: what was learnt.
        results: see :data:`Results`.
        seeds: those that each method should have.
        reference: see :func:`differences`.
    """
    parts = [f"# {title}: mean (standard deviation) over seeds", _table(summary(results)), NOTES]
    if absent := unfinished(results, seeds):
        parts.append(f"Not finished, and not in the table: {absent}.")
    if tables := differences(results, reference):
        parts += ["## Differences", RULE, *map(_table, tables)]
    return "\n\n".join(parts) + "\n"


def _differences(results: Results, methods: Sequence[str], references: Mapping[Measure, str | None]) -> list[list[str]]:
    """Return the differences of all methods to a reference for each figure: a header, and a row a method."""
    rows = [[method, *(shown_difference(results, method, n, m) for m, n in references.items())] for method in methods]
    header = ["method", *(f"{m.title}: to {name}" if name else m.title for m, name in references.items())]
    return [header, *(row for row in rows if any(row[1:]))]  # without the reference itself


def shown_difference(results: Results, method: str, reference: str | None, measure: Measure) -> str:
    """Return the :func:`difference` of two methods as text; empty where there is none.

    Args:
        results: see :data:`Results`.
        method: one of its keys.
        reference: another one.
        measure: the figure.
    """
    if reference is None or method == reference:
        return ""
    found = difference(results, method, reference, measure.key)
    if found is None:
        return ""
    mean = f"{found.mean / measure.unit:+.{measure.digits}f}"
    if found.margin is None:
        return f"{mean} (one seed)"
    return f"{mean} ± {found.margin / measure.unit:.{measure.digits}f}{' noise' if found.noise else ''}"


def _summary(results: Results, method: str, measure: Measure) -> str:
    mean, deviation = mean_and_deviation(values_of(results, method, measure.key))
    if mean is None:
        return ""
    text = f"{mean / measure.unit:.{measure.digits}f}"
    if deviation is None or (deviation == 0 and measure not in COMPARED):  # a network costs the same for every seed
        return text
    return f"{text} ({deviation / measure.unit:.{measure.digits}f})"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, headers="firstrow", tablefmt="github", disable_numparse=True)
