"""The table against plain computations, empty cells and the rule of noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from scripts.metrics.comparison import COMPARED, FORGETTING, best_method, csv_rows, difference, markdown


def run(accuracy: float, **others: Any) -> dict[str, Any]:
    """What a run of three tasks wrote; the second figure is always half of the first, and so on."""
    figures = {
        "tasks": [{"name": name, "classes": []} for name in ("a", "b", "c")],
        "accuracies": [1.0, (1 + accuracy) / 2, accuracy],
        "final_accuracy": accuracy,
        "average_accuracy": (1 + accuracy) / 2,
        "final_mean_class_recall": accuracy / 2,
        "average_mean_class_recall": accuracy / 4,
        "forgetting": 1 - accuracy,
        "task_incremental_final_accuracy": (2 + accuracy) / 3,
        "task_incremental_average_accuracy": (3 + accuracy) / 4,
        "flops_per_image": 250_000_000,
        "parameters": 2_500_000,
        "memory_bytes": 2**19,
        "seconds": 100 * accuracy,
    }
    return {**figures, **others}


RESULTS = {
    "dynammo": {1: run(0.5), 2: run(0.53), 3: run(0.56)},
    "acl": {1: run(0.55), 2: run(0.57), 3: run(0.625)},
    "finetune": {1: run(0.2), 3: run(0.26)},
    "joint": {1: run(0.9, average_accuracy=None, forgetting=None, accuracies=[None, None, 0.9])},
    "icarl": {},
}


def cells(text: str, method: str, table: int = 0) -> list[str]:
    """Return the cells of a method's row in the n-th of the Markdown tables that have one."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {method} ")]
    return [cell.strip() for cell in rows[table].strip("|").split("|")]


def page(results: dict[str, dict[int, dict[str, Any]]] = RESULTS) -> str:
    return markdown("skin", results, [1, 2, 3], "dynammo")


def test_the_table_is_mean_and_sample_deviation_over_seeds() -> None:
    last, recall = np.array([0.5, 0.53, 0.56]), np.array([0.25, 0.265, 0.28])
    assert cells(page(), "dynammo") == [
        "dynammo",
        "3",
        f"{100 * last.mean():.1f} ({100 * last.std(ddof=1):.1f})",
        "76.5 (1.5)",
        f"{100 * recall.mean():.1f} ({100 * recall.std(ddof=1):.1f})",
        "13.2 (0.8)",
        "47.0 (3.0)",
        "84.3 (1.0)",
        "88.2 (0.8)",
        "0.25",
        "2.50",
        "0.50",
        "53 (3)",
    ]


def test_the_table_for_programs_is_not_rounded() -> None:
    header, first, *_ = csv_rows(RESULTS)
    row = dict(zip(header, first, strict=True))
    assert row["final_accuracy_mean"] == pytest.approx(0.53, abs=1e-15)
    assert row["final_accuracy_deviation"] == pytest.approx(0.03, abs=1e-15)
    assert (row["flops_per_image_mean"], row["memory_bytes_deviation"]) == (250_000_000, 0)


def test_what_was_not_run_or_not_measured_is_empty() -> None:
    assert cells(page(), "icarl") == ["icarl", "0", *[""] * 11]
    assert cells(page(), "joint")[3] == cells(page(), "joint")[6] == ""
    header, *rows = csv_rows(RESULTS)
    assert rows[-1] == ["icarl", 0, *[None] * (len(header) - 2)]
    assert "not in the table: finetune (seed 2), joint (seed 2, 3), icarl (seed 1, 2, 3)." in page()


def test_a_figure_that_one_seed_lacks_is_not_the_mean_of_the_others() -> None:
    results = {"gem": {1: run(0.4), 2: run(0.5, forgetting=None)}}
    assert cells(page(results), "gem")[6] == ""
    assert cells(page(results), "gem")[2] == "45.0 (7.1)"


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_noise_is_what_the_paired_t_test_does_not_tell_from_zero(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.normal(0.5, 0.03, 4), rng.normal(0.5 + shift, 0.03, 4)
    results = {
        name: {number: run(value) for number, value in enumerate(values)}
        for name, values in (("one", one), ("other", other))
    }
    found = difference(results, "other", "one", "final_accuracy")
    assert found is not None and found.margin is not None
    test = ttest_rel(other, one)
    interval = test.confidence_interval(0.95)
    assert found.noise == (test.pvalue >= 0.05)
    assert (found.mean - found.margin, found.mean + found.margin) == pytest.approx((interval.low, interval.high))


def test_methods_are_compared_over_common_seeds_alone() -> None:
    found = difference(RESULTS, "finetune", "dynammo", "final_accuracy")
    assert found is not None
    assert found.mean == pytest.approx(((0.2 - 0.5) + (0.26 - 0.56)) / 2)
    assert difference({"a": {1: run(0.5)}, "b": {2: run(0.5)}}, "a", "b", "final_accuracy") is None


def test_one_seed_says_nothing_about_the_noise() -> None:
    found = difference(RESULTS, "joint", "dynammo", "final_accuracy")
    assert found is not None
    assert (found.margin, found.noise) == (None, None)
    assert "+40.0 (one seed)" in cells(page(), "joint", table=-1)


def test_differences_are_told_to_the_best_and_to_the_reference() -> None:
    text = page()
    assert "last accuracy: to joint" in text
    assert "forgetting: to acl" in text
    assert "last accuracy: to dynammo" in text
    # 5, 4, 6.5 points: deviation 1.258, times 4.303 / sqrt(3)
    assert cells(text, "acl", table=-1)[1] == "+5.2 ± 3.1"
    noisy = {"dynammo": RESULTS["dynammo"], "acl": {1: run(0.58), 2: run(0.5), 3: run(0.57)}}
    assert cells(page(noisy), "acl", table=-1)[1].endswith(" noise")


def test_one_method_has_nothing_to_differ_from() -> None:
    assert "## Differences" not in page({"dynammo": RESULTS["dynammo"], "acl": {}})


def test_the_best_forgets_least() -> None:
    assert best_method(RESULTS, FORGETTING) == "acl"
    assert [best_method(RESULTS, measure) for measure in COMPARED[:2]] == ["joint", "acl"]
    assert best_method({"icarl": {}}, FORGETTING) is None
