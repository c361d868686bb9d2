"""Alpha and beta are the ones that made the logits, and fold into the head exactly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from scripts.learning.engines.stage import held_out_items
from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import BiasCorrectionHandler
from scripts.learning.handlers.bias_correction import fit_bias
from scripts.learning.memory import ExemplarMemory
from scripts.utils.errors import UserError


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, -1.0), (1.0, 0.0), (1.4, 0.7)])
def test_the_two_parameters_are_recovered(alpha: float, beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(40000, 5, generator=generator)
    labels = true.softmax(1).multinomial(1, generator=generator).squeeze(1)
    biased = true.clone()
    biased[:, 3:] = (true[:, 3:] - beta) / alpha
    assert fit_bias(biased, labels, 3, deviation=1.0) == pytest.approx((alpha, beta), abs=0.05)


@pytest.mark.parametrize("deviation", [0.3, 10.0])
def test_no_neighbour_is_better(deviation: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(30, 4, generator=generator).double(), torch.arange(30) % 4

    def cost(alpha: float, beta: float) -> float:
        corrected = torch.cat([logits[:, :2], alpha * logits[:, 2:] + beta], 1)
        return 30 * cross_entropy(corrected, labels).item() + ((alpha - 1) ** 2 + beta**2) / (2 * deviation**2)

    alpha, beta = fit_bias(logits, labels, 2, deviation)
    steps = [(a, b) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01) if a or b]
    assert all(cost(alpha + a, beta + b) > cost(alpha, beta) for a, b in steps)


def test_images_that_are_all_right_ask_for_no_infinite_alpha() -> None:
    alpha, beta = fit_bias(4 * torch.eye(4), torch.arange(4), 2, deviation=1.0)
    assert 1 < alpha < 3
    assert abs(beta) < 2


@pytest.mark.parametrize("sizes", [[2, 2], [3, 1], [1, 2]])
def test_the_correction_is_folded_into_the_heads_new_rows(
    sizes: list[int], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks, first = tiny.tasks(tmp_path, sizes), sizes[0]
    network, memory = tiny.network(sizes=sizes, adapter=None), ExemplarMemory(8)
    memory.add(tasks[0].train, torch.randn(len(tasks[0].train), 3), 4)
    features = FeatureExtractor(network, tiny.transform(), 8)
    engine = SimpleNamespace(tasks=tasks, current_task=tasks[1], memory=memory, state=SimpleNamespace(task=2))
    items = held_out_items(tasks, 2, memory)
    network.eval()
    with torch.no_grad():
        batch = torch.stack([features.dataset([item])[0]["image"] for item in items])  # type: ignore[index]
        before = network(batch).logits
        alpha, beta = fit_bias(before, torch.tensor([item["label"] for item in items]), first, 1.0)
        BiasCorrectionHandler(network, features, 1.0)(engine)  # type: ignore[arg-type]
        after = network(batch).logits
    assert abs(alpha - 1) + abs(beta) > 0.01
    assert torch.equal(after[:, :first], before[:, :first])
    assert torch.allclose(after[:, first:], alpha * before[:, first:] + beta, rtol=1e-4, atol=1e-4)


def test_a_class_of_one_image_is_refused_before_training(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks, network = tiny.tasks(tmp_path, train=1), tiny.network(adapter=None)
    handler = BiasCorrectionHandler(network, lambda items: torch.empty(0), 1.0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="class class0 of task set0 has a single training image: BiC learns from one"):
        tiny.trainer(network, tasks, [tiny.stage()], [handler])
