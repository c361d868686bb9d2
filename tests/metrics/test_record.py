"""What a checkpoint holds of the measurements."""

from __future__ import annotations

from pathlib import Path

import torch

from scripts.metrics.record import RunRecord


def test_record_survives_a_weights_only_checkpoint(tmp_path: Path) -> None:
    record = RunRecord()
    record.matrix.update([0, 1, 1], [0, 1, 0], [2])
    record.figures = {"flops_per_image": 5, "open_set": {"auroc": 0.5, "fpr95": None, "average_precision": 1.0}}
    record.open_set = [record.figures["open_set"], None]
    record.stages = [{"task": "a", "stage": "adapter_tuning", "seconds": 0.5}]
    torch.save(record.state_dict(), tmp_path / "state.pt")
    restored = RunRecord()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.state_dict() == record.state_dict()
    assert restored.matrix.accuracies == record.matrix.accuracies
