"""What ignite's metrics read: the accuracy of one class and of several."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ignite.metrics import Accuracy

from scripts.metrics import scores_and_labels


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_accuracy_is_the_share_of_right_answers(classes: int) -> None:
    logits = torch.randn(40, classes, generator=torch.Generator().manual_seed(classes)) - 5
    labels = torch.arange(40) % classes
    accuracy = Accuracy(output_transform=scores_and_labels)
    for pred in (logits, SimpleNamespace(logits=logits)):
        accuracy.reset()
        accuracy.update(scores_and_labels({"pred": pred, "label": labels}))
        assert accuracy.compute() == (logits.argmax(dim=1) == labels).sum().item() / 40
