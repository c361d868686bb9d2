"""Which of the two settings leads a run's record."""

from __future__ import annotations

import pytest

from scripts.metrics import RunRecord
from scripts.utils.errors import UserError

LABELS, AMONG_ALL, WITHIN = [0, 1, 2, 3], [0, 1, 0, 3], [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("setting", "leading", "other"),
    [("class_incremental", 0.75, "task_incremental"), ("task_incremental", 1.0, "class_incremental")],
)
def test_the_setting_leads_and_the_other_is_named(setting: str, leading: float, other: str) -> None:
    record = RunRecord(setting)
    record.update(LABELS[:2], AMONG_ALL[:2], WITHIN[:2], [2])
    record.update(LABELS, AMONG_ALL, WITHIN, [2, 2])
    assert record.matrix.final_accuracy == leading
    assert record.figures[f"{other}_final_accuracy"] == 1.75 - leading
    again = RunRecord(setting)
    again.load_state_dict(record.state_dict())
    assert again.matrix.accuracy_matrix == record.matrix.accuracy_matrix
    assert again.other.accuracy_matrix == record.other.accuracy_matrix


def test_another_setting_is_refused() -> None:
    with pytest.raises(UserError, match="task_incremental"):
        RunRecord("til")
