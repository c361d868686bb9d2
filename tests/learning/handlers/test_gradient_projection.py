"""The projection solves the paper's quadratic problem, and the step takes it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.engines.utils import IterationEvents
from scipy.optimize import minimize
from torch import Tensor

from scripts.learning.engines import ContinualTrainer
from scripts.learning.handlers import GradientProjectionHandler
from scripts.learning.handlers.gradient_projection import project
from scripts.learning.losses import seen_cross_entropy
from scripts.learning.memory import ExemplarMemory
from scripts.learning.tasks import ImageDataset, Task
from scripts.model.networks import ContinualNet, Outputs
from scripts.utils.errors import UserError


def disagreeing(tasks: int, size: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return a gradient, and one of each past task, with inner products of both signs."""
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(size, generator=generator, dtype=torch.double)
    memory = torch.randn(tasks, size, generator=generator, dtype=torch.double)
    memory[0] -= gradient
    return gradient, memory


@pytest.mark.parametrize("tasks", [1, 2, 9])
@pytest.mark.parametrize(("margin", "ridge"), [(0.5, 1e-3), (0.0, 1e-3), (0.5, 10.0)])
def test_the_projection_is_that_of_a_general_solver(tasks: int, margin: float, ridge: float) -> None:
    gradient, memory = disagreeing(tasks)
    gram = (memory @ memory.T).numpy() + ridge * np.eye(tasks)
    linear = (memory @ gradient).numpy()
    solved = minimize(
        lambda v: v @ gram @ v / 2 + linear @ v,
        np.full(tasks, margin + 1),
        jac=lambda v: gram @ v + linear,
        bounds=[(margin, None)] * tasks,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    expected = gradient + torch.from_numpy(solved.x) @ memory
    assert torch.allclose(project(gradient, memory, margin, ridge), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tasks", [1, 3, 20])
def test_no_inner_product_is_negative_afterwards(tasks: int) -> None:
    gradient, memory = disagreeing(tasks, size=50)
    assert (memory @ gradient).min() < -1
    for margin in (0.0, 0.5):
        assert (memory @ project(gradient, memory, margin, ridge=1e-9)).min() > -1e-6


def test_without_a_margin_nothing_closer_agrees() -> None:
    gradient, memory = disagreeing(1)
    g, m = gradient, memory[0]
    closest = g - (g @ m) / (m @ m) * m  # one past task has a formula: A-GEM's
    projected = project(gradient, memory, margin=0.0, ridge=1e-12)
    assert torch.allclose(projected, closest, atol=1e-9)
    assert torch.allclose(project(projected, memory, margin=0.0, ridge=1e-12), projected, atol=1e-9), "idempotent"


def test_a_gradient_that_agrees_with_all_is_left_as_it_is() -> None:
    gradient, memory = disagreeing(3)
    memory *= (memory @ gradient).sign()[:, None]
    assert project(gradient, memory, margin=0.5, ridge=1e-3) is gradient


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_equal_gradients_of_any_length_have_a_projection(scale: float) -> None:
    gradient, memory = disagreeing(2)
    memory = (scale * memory[:1]).expand(3, -1).float()
    projected = project(gradient.float(), memory, margin=0.0, ridge=1e-3)
    weight = (projected - gradient).norm() / memory.norm(dim=1).sum()  # of each of the three
    assert projected.dtype == torch.float32
    assert (memory @ projected).min() > -1e-3 * weight - 1e-6 * memory[0].norm() * gradient.norm()


# -- the handler --------------------------------------------------------------------------------------------------


def build(
    tasks: list[Task],
    tiny: SimpleNamespace,
    batch_size: int = 32,
    loss: Callable[[Outputs, Tensor], Tensor] = seen_cross_entropy,
    before: Callable[[ContinualTrainer], None] = lambda engine: None,
    after: Callable[[ContinualTrainer], None] = lambda engine: None,
) -> ContinualTrainer:
    """Build a trainer that has learnt all tasks but the last, with what looks on before and after a projection."""
    sizes = [len(task.classes) for task in tasks[:-1]]
    torch.manual_seed(0)  # of the head's first weights
    network = tiny.network(adapter=None, sizes=sizes)
    memory = ExemplarMemory(4 * sum(sizes))
    for task in tasks[:-1]:
        memory.add(task.train, torch.randn(len(task.train), 3, generator=torch.Generator().manual_seed(0)), 4)
    handler = GradientProjectionHandler(network, partial(ImageDataset, transform=tiny.transform()), batch_size)
    stage = tiny.stage(trains=["backbone", "head"], loss=loss)
    trainer: ContinualTrainer = tiny.trainer(network, tasks, [stage], memory=memory)
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, before)
    handler.attach(trainer)
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, after)
    trainer.tasks_completed = len(tasks) - 1
    return trainer


def flat_gradient(network: ContinualNet) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).clone()


def task_losses(
    network: ContinualNet, tasks: list[Task], memory: ExemplarMemory, tiny: SimpleNamespace
) -> list[Tensor]:
    """Return the loss on the exemplars of each past task, in the plainest way."""
    network.train()
    losses = []
    for task in tasks[:-1]:
        items = [item for label in range(task.first, task.first + len(task.classes)) for item in memory.classes[label]]
        batch = torch.stack([tiny.transform()({"image": item["image"]})["image"] for item in items])
        losses.append(seen_cross_entropy(network(batch), torch.tensor([item["label"] for item in items])))
    return losses


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1, 2)])
def test_a_step_takes_the_projected_gradient_and_touches_nothing_else(
    sizes: tuple[int, ...], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks = tiny.tasks(tmp_path, sizes, train=4)
    kept: list[tuple[Tensor, dict[str, Tensor]]] = []
    raised: list[bool] = []

    def keep(engine: ContinualTrainer) -> None:
        network = engine.continual_network
        kept.append((flat_gradient(network), tiny.copy_of(network.state_dict())))

    def compare(engine: ContinualTrainer) -> None:
        gradient, state = kept.pop()
        network = engine.continual_network
        assert not tiny.changed_keys(state, network.state_dict()), "running statistics included"
        copy = deepcopy(network)
        memory = []
        for loss in task_losses(copy, tasks, engine.memory, tiny):
            copy.zero_grad()
            loss.backward()
            memory.append(flat_gradient(copy))
        expected = project(gradient, torch.stack(memory), 0.5, 1e-3)
        found = flat_gradient(network)
        assert (found - expected).norm() < 1e-5 * expected.norm()
        raised.append(bool((torch.stack(memory) @ gradient < 0).any()))
        assert torch.equal(found, gradient) != raised[-1]
        lengths = torch.stack(memory).norm(dim=1) * found.norm()
        assert (torch.stack(memory) @ found > -1e-5 * lengths).all()

    build(tasks, tiny, before=keep, after=compare).run()
    assert any(raised), "a test without a conflict shows nothing"


def test_of_many_exemplars_a_step_draws_as_many_as_a_batch_the_same_in_every_run(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    seen: list[tuple[Tensor, ...]] = []

    def loss(outputs: Outputs, labels: Tensor) -> Tensor:
        seen.append((outputs.logits.detach().clone(), labels))
        return seen_cross_entropy(outputs, labels)

    tasks = tiny.tasks(tmp_path)
    networks = []
    for _ in range(2):
        trainer = build(tasks, tiny, batch_size=3, loss=loss)
        trainer.run()
        networks.append(tiny.copy_of(trainer.continual_network.state_dict()))
    assert not tiny.changed_keys(*networks)
    drawn = [labels.tolist() for _, labels in seen if labels.max() < 2]
    assert {len(labels) for labels in drawn} == {3}
    steps = len(drawn) // 2
    assert steps == 3  # 12 images, 4 a step
    assert drawn[:steps] == drawn[steps:]


def test_a_task_without_exemplars_asks_for_nothing(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks = tiny.tasks(tmp_path)
    kept: list[Tensor] = []
    changed: list[bool] = []

    def keep(engine: ContinualTrainer) -> None:
        kept.append(flat_gradient(engine.continual_network))

    def compare(engine: ContinualTrainer) -> None:
        changed.append(not torch.equal(kept.pop(), flat_gradient(engine.continual_network)))

    trainer = build(tasks, tiny, before=keep, after=compare)
    trainer.memory.reduce(0)
    trainer.run()
    assert changed
    assert not any(changed)


def test_a_loss_on_exemplars_that_is_no_number_ends_the_run(tmp_path: Path, tiny: SimpleNamespace) -> None:
    def diverging(outputs: Outputs, labels: Tensor) -> Tensor:
        return seen_cross_entropy(outputs, labels) / (labels.min() >= 2)

    with pytest.raises(UserError, match="the loss is inf in training of task set1, epoch 1: lower the learning rate"):
        build(tiny.tasks(tmp_path), tiny, loss=diverging).run()


@pytest.mark.parametrize(("margin", "ridge"), [(-0.1, 1e-3), (0.5, 0.0)])
def test_a_problem_without_a_solution_is_refused(margin: float, ridge: float, tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="use a margin of 0 or more and a ridge above 0"):
        GradientProjectionHandler(tiny.network(), ImageDataset, 4, margin, ridge)  # type: ignore[arg-type]
