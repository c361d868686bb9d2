"""After each task a row of the accuracy matrix, equal to a plain loop over the test images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.learning.engines import ContinualEvents
from scripts.learning.handlers import EvaluationHandler
from scripts.learning.losses import others_cross_entropy, seen_cross_entropy
from scripts.learning.tasks import Task
from scripts.metrics import RunRecord
from scripts.model.decisions import DecisionRules
from scripts.model.networks import Outputs
from scripts.model.networks.cost import flops_per_image, parameter_count


def look_at(network: Any, task: Task) -> tuple[list[int], Outputs]:
    """Labels, and what the network says, one image after the other."""
    pixels = [np.asarray(Image.open(item["image"])) for item in task.test]
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return [item["label"] for item in task.test], network.eval()(batch)


def evaluated(
    tiny: SimpleNamespace, learnt: list[Task], head: str = "unified", **stage: Any
) -> tuple[RunRecord, Any, list[str]]:
    """A trainer of the head alone with an evaluation, its record, and the events it will fire."""
    record, network = RunRecord(), tiny.network(head)
    handler = EvaluationHandler(tiny.evaluator(network), network, record, {}, DecisionRules())
    trainer = tiny.trainer(network, learnt, [tiny.stage(**stage)], [handler])
    return record, trainer, tiny.record_events(trainer)


def test_the_last_row_is_the_share_of_correct_images(finished: SimpleNamespace) -> None:
    row, correct, total = [], 0, 0
    for task in finished.tasks:
        labels, outputs = look_at(finished.network, task)
        hits = sum(int(guess) == label for guess, label in zip(outputs.logits.argmax(1), labels, strict=True))
        row.append(hits / len(labels))
        correct, total = correct + hits, total + len(labels)
    matrix = finished.record.matrix
    assert matrix.accuracy_matrix[1] == row
    assert matrix.accuracy_matrix[0][1] is None
    assert matrix.accuracies[1] == correct / total
    figures = {name for name in finished.record.figures if not name.startswith(("task_incremental_", "calibration"))}
    assert figures == {"flops_per_image", "parameters", "memory_bytes"}


def test_told_the_task_a_network_chooses_among_its_classes(
    finished: SimpleNamespace, finished_acl: SimpleNamespace
) -> None:
    for run in (finished, finished_acl):
        row = []
        for number, task in enumerate(run.tasks):
            labels, outputs = look_at(run.network, task)
            end = task.first + len(task.classes)
            heads = outputs.task_logits
            scores = heads[number][:, :-1] if heads else outputs.logits[:, task.first : end]
            row.append(float(np.mean(task.first + scores.argmax(1).numpy() == np.array(labels))))
        figures, matrix = run.record.figures, run.record.matrix
        assert figures["task_incremental_accuracy_matrix"][-1] == row
        assert figures["task_incremental_final_accuracy"] >= matrix.final_accuracy
        # after the first task there is no other to choose from
        assert figures["task_incremental_accuracy_matrix"][0][0] == matrix.accuracy_matrix[0][0]


def test_the_cost_is_that_of_what_is_handed_out(finished: SimpleNamespace, finished_acl: SimpleNamespace) -> None:
    for run in (finished, finished_acl):
        plain = run.network.merge_and_unload([{"name": t.name, "classes": t.classes} for t in run.tasks])
        assert run.record.figures["flops_per_image"] == flops_per_image(plain, 33)
        assert run.record.figures["parameters"] == parameter_count(plain)
        assert run.record.figures["memory_bytes"] == run.memory.kept_bytes() + run.network.kept_bytes()
    merged, acl = finished.record.figures, finished_acl.record.figures
    assert acl["flops_per_image"] > 1.5 * merged["flops_per_image"]


def test_a_head_a_task_is_also_judged_by_the_task_it_finds(finished_acl: SimpleNamespace) -> None:
    found, known = [], []
    for number, task in enumerate(finished_acl.tasks):
        _, outputs = look_at(finished_acl.network, task)
        found += [int(guess) == number for guess in outputs.extras["others"].argmin(1)]
        known += (1 - outputs.extras["others"].amin(1)).tolist()
    figures = finished_acl.record.figures
    assert figures["task_identification_accuracy"] == sum(found) / len(found)
    assert all(0 <= value <= 1 for value in known)


def test_the_open_set_is_what_is_not_learnt_yet(finished_acl: SimpleNamespace) -> None:
    first, last = finished_acl.record.open_set
    assert last is None, "after the last task nothing is unknown"
    assert first is not None
    assert set(first) == {"auroc", "fpr95", "average_precision"}
    assert finished_acl.record.figures["open_set"] == first


@pytest.mark.parametrize("gone", [6, 1], ids=["all", "one"])
@pytest.mark.parametrize("head", ["unified", "others"])
def test_a_task_whose_test_images_are_gone_is_not_measured(
    gone: int, head: str, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks = tiny.tasks(tmp_path)
    loss = seen_cross_entropy if head == "unified" else others_cross_entropy
    record, trainer, _ = evaluated(tiny, tasks, head, loss=loss)

    def delete(engine: Any) -> None:
        for item in tasks[0].test[:gone] if engine.state.task == 2 else ():
            Path(item["image"]).unlink()

    trainer.add_event_handler(ContinualEvents.TASK_STARTED, delete)
    trainer.run()
    first, second = record.matrix.accuracy_matrix
    assert first[0] is not None
    assert second[0] is None
    assert second[1] is not None
    assert record.matrix.final_accuracy is None
    assert record.matrix.forgetting is None


def test_without_any_test_image_left_the_row_is_empty(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks = tiny.tasks(tmp_path)
    for item in tasks[0].test:
        Path(item["image"]).unlink()
    record, trainer, _ = evaluated(tiny, tasks[:1])
    trainer.run()
    assert record.matrix.accuracy_matrix == [[None]]


def test_a_task_in_which_nothing_is_learnt_is_not_evaluated(tmp_path: Path, tiny: SimpleNamespace) -> None:
    record, trainer, events = evaluated(tiny, tiny.tasks(tmp_path), data="all", tasks="last")
    trainer.run()
    assert events.count("task_evaluated") == 1
    matrix = record.matrix.accuracy_matrix
    assert matrix[0] == [None, None]
    assert None not in matrix[1]


class Keeper:
    """A handler with something of its own."""

    def attach(self, engine: Any) -> None:
        pass

    def kept_bytes(self) -> int:
        return 1000


def test_what_a_handler_keeps_counts_as_memory(tmp_path: Path, tiny: SimpleNamespace) -> None:
    kept = []
    for keepers in ([], [Keeper()]):
        network, record = tiny.network(adapter=None), RunRecord()
        handler = EvaluationHandler(tiny.evaluator(network), network, record, {"memory": Keeper()}, DecisionRules())
        stage = tiny.stage(trains=["backbone", "head"])
        tiny.trainer(network, tiny.tasks(tmp_path)[:1], [stage], [handler, *keepers]).run()
        kept.append(record.figures["memory_bytes"])
    assert kept == [1000, 2000]


def test_evaluating_changes_nothing(finished: SimpleNamespace, tiny: SimpleNamespace) -> None:
    before = tiny.copy_of(finished.network.state_dict())
    handler = EvaluationHandler(tiny.evaluator(finished.network), finished.network, RunRecord(), {}, DecisionRules())
    first, second = (handler.predict(finished.tasks[0].test) for _ in range(2))
    assert torch.equal(torch.cat(first.classes), torch.cat(second.classes))
    assert torch.cat(first.labels).tolist() == [item["label"] for item in finished.tasks[0].test]
    assert not tiny.changed_keys(before, finished.network.state_dict())
