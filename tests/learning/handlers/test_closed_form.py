"""The head is that of all images learnt, solved at once, though no image is kept; sums follow a merge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn.functional import pad

from scripts.learning.engines import ClosedForm, ContinualEvents
from scripts.learning.features import CandidateSums, FeatureExtractor, FeatureSums
from scripts.learning.handlers import (
    AdapterAveragingHandler,
    AdapterTuningHandler,
    ClosedFormHandler,
    EvaluationHandler,
)
from scripts.learning.handlers.closed_form import candidate_vectors
from scripts.learning.losses import auxiliary_cross_entropy
from scripts.learning.memory import ExemplarMemory
from scripts.learning.sources import Item
from scripts.learning.tasks import Task
from scripts.learning.tasks.labels import findings_of
from scripts.metrics import RunRecord
from scripts.model.decisions import DecisionRules
from scripts.model.networks import ContinualNet, LowRank, Merging, drift_map
from scripts.model.networks.closed_form import middle_scores, ridge
from scripts.utils.errors import UserError

VIEWS = [(), (3,)]
SOLVE = ClosedForm()


def make_handler(network: ContinualNet, tiny: SimpleNamespace, sums: Any = None, **arguments: Any) -> ClosedFormHandler:
    features = FeatureExtractor(network, tiny.transform(), 8)
    own = {"shrinkage": 0.3, "candidates": [0.1, 1.0], "drift_ridge": 0.01, "least_images": 5, **arguments}
    return ClosedFormHandler(network, sums or FeatureSums(VIEWS), features, **own)


def vectors_of(handler: ClosedFormHandler, items: Any) -> Tensor:
    return pad(handler.features(items, VIEWS).double(), (0, 1), value=1.0)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1)])
def test_tasks_one_after_the_other_end_with_the_head_of_all_images(
    sizes: tuple[int, ...], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks, network = tiny.tasks(tmp_path, sizes), tiny.network(adapter=None)
    tiny.awaken(network, tasks)
    handler = make_handler(network, tiny)
    events = tiny.record_events(trainer := tiny.trainer(network, tasks, [SOLVE], [handler]))
    trainer.run()
    together = FeatureSums(VIEWS)
    items = [item for task in tasks for item in task.train]
    together.add(vectors_of(handler, items), torch.tensor([item["label"] for item in items]).repeat_interleave(2))
    expected = ridge(together.second[0], together.first, 0.3).float()
    linear = network.linear_layer()
    assert torch.allclose(linear.weight, expected[:, :-1], atol=1e-6)
    assert torch.allclose(linear.bias, expected[:, -1], atol=1e-6)
    stage = ["closed_form_started", "closed_form_prepared", "stage_prepared"]
    stage += ["closed_form_completed", "closed_form_settled", "stage_completed"]
    assert [event for event in events if event != "progressed"][1:9] == ["task_started", *stage, "task_completed"]


def test_sums_follow_the_features_where_a_merge_takes_them(
    tmp_path: Path, tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    tasks, network = tiny.tasks(tmp_path), tiny.network()
    tiny.awaken(network, tasks)
    handler = make_handler(network, tiny)
    seen: list[SimpleNamespace] = []

    def keep() -> None:
        sums = tiny.copy_of({"second": handler.sums.second, "first": handler.sums.first})
        seen.append(SimpleNamespace(vectors=vectors_of(handler, tasks[1].train), **sums))

    tuning = tiny.stage("adapter_tuning", trains=["adapter", "auxiliary"], loss=auxiliary_cross_entropy)
    handlers = [AdapterTuningHandler(network), AdapterAveragingHandler(network, Merging()), handler]
    trainer = tiny.trainer(network, tasks, [tuning, SOLVE], handlers)
    trainer.add_event_handler(ContinualEvents.TASK_COMPLETED, keep)
    trainer.add_event_handler(ContinualEvents.CLOSED_FORM_STARTED, lambda e: keep() if e.state.task == 2 else None)
    with caplog.at_level("INFO"):
        trainer.run()
    first, merged, _ = seen
    assert not torch.allclose(first.vectors, merged.vectors, atol=1e-4), "the merge moves the features"
    drift = drift_map(first.vectors, merged.vectors, 0.01)
    assert torch.allclose(merged.second, drift.T @ first.second @ drift, atol=1e-10)
    assert torch.allclose(merged.first, first.first @ drift, atol=1e-10)
    assert "fitted on 24 views of images, fewer than the 1281 features" in caplog.text


def test_the_shrinkage_that_has_erred_least_over_all_tasks_is_chosen_where_none_is_given(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([{0.1: 5.0, 1.0: 1.0}, {0.1: 1.0, 1.0: 2.0}])  # the newest task alone would choose 0.1
    monkeypatch.setattr("scripts.learning.handlers.closed_form.shrinkage_errors", lambda *_: next(found))
    network = tiny.network(adapter=None)
    handler = make_handler(network, tiny, shrinkage=None)
    tiny.trainer(network, tiny.tasks(tmp_path), [SOLVE], [handler]).run()
    assert handler.sums.errors == {0.1: 6.0, 1.0: 3.0}
    assert handler.sums.shrinkage == 1.0


def test_the_shrinkage_is_one_of_the_candidates_where_none_is_given(tmp_path: Path, tiny: SimpleNamespace) -> None:
    network = tiny.network(adapter=None)
    handler = make_handler(network, tiny, shrinkage=None)
    tiny.trainer(network, tiny.tasks(tmp_path), [SOLVE], [handler]).run()
    assert handler.sums.shrinkage in (0.1, 1.0)
    assert set(handler.sums.errors) == {0.1, 1.0}


def test_a_class_with_fewer_images_than_allowed_is_refused_before_training(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks, network = tiny.tasks(tmp_path, train=4), tiny.network(adapter=None)
    with pytest.raises(UserError, match="class class0 of task set0 has 4 training images.*--ridge#least_images 4"):
        tiny.trainer(network, tasks, [SOLVE], [make_handler(network, tiny)])
    tiny.trainer(network, tasks, [SOLVE], [make_handler(network, tiny, least_images=4)]).run()


def test_a_head_a_task_is_refused(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="a head that can be solved, not 'others'"):
        make_handler(tiny.network("others"), tiny)


def judged_run(tmp_path: Path, tiny: SimpleNamespace, blind: str) -> tuple[ClosedFormHandler, Any]:
    """Learn three tasks in frozen and tuned features, of which one kind is the same for all images."""
    tasks = tiny.tasks(tmp_path, (2, 2, 2), train=8)
    network = tiny.network("levels", adapter=LowRank(rank=2), levels=["features.4"])
    tiny.awaken(network, tasks)
    blocks = dict(network.adapted().blocks.items())
    weights = {
        f"{site}.{key}.change": block.block.get_parameter(name)
        for site, block in blocks.items()
        for key, name in block.layers.items()
    }
    known = tiny.copy_of(weights)
    if blind == "frozen":
        for weight in weights.values():
            weight.detach().zero_()

    def end_tuning() -> None:
        for name, change in network.branch_state("merged").items():
            change.copy_(known[name] - weights[name] if blind == "frozen" else -known[name])

    sums = CandidateSums(VIEWS, further_views=[(2,), (2, 3)], branches=["backbone", "merged"])
    handler = make_handler(network, tiny, sums)
    tuning = tiny.stage("adapter_tuning", trains=["adapter", "auxiliary"], loss=auxiliary_cross_entropy, tasks="first")
    handlers = [AdapterTuningHandler(network), AdapterAveragingHandler(network, Merging()), handler]
    trainer = tiny.trainer(network, tasks, [tuning, SOLVE], handlers)
    trainer.add_event_handler(ContinualEvents.ADAPTERS_AVERAGED, torch.no_grad()(end_tuning))
    trainer.run()
    return handler, tasks


def test_where_tuning_hurts_the_model_is_that_of_the_frozen_backbone_to_the_bit(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    handler, tasks = judged_run(tmp_path, tiny, blind="tuned")
    sums, network = handler.sums, handler.network
    assert (sums.chosen.branch, network.backbone.branches) == ("backbone", ["backbone"])
    frozen = tiny.network("levels", adapter=None, levels=["features.4"])
    tiny.awaken(frozen, tasks)
    alone = make_handler(frozen, tiny, FeatureSums(sums.chosen.views))
    tiny.trainer(frozen, tasks, [SOLVE], [alone]).run()
    images = torch.stack([entry["image"] for entry in tiny.transform()([*tasks[0].test, *tasks[2].test])])
    with torch.no_grad():
        expected = frozen.eval()(images).logits
        assert torch.equal(network.eval()(images).logits, expected)
        classes = [{"name": task.name, "classes": task.classes} for task in tasks]
        exported, plain = network.merge_and_unload(classes), frozen.merge_and_unload(classes)
        assert torch.equal(exported(images), expected)
    assert exported.state_dict().keys() == plain.state_dict().keys(), "no adapter is left"


def test_where_tuning_helps_it_is_taken_once_later_tasks_have_judged(tmp_path: Path, tiny: SimpleNamespace) -> None:
    handler, tasks = judged_run(tmp_path, tiny, blind="frozen")
    sums, network = handler.sums, handler.network
    assert isinstance(sums, CandidateSums)
    assert (sums.chosen.branch, network.backbone.branches) == ("merged", ["merged"])
    taken = [[one["taken"] for one in verdicts if "tuned" in one["candidate"]] for verdicts in sums.verdicts]
    assert not any(taken[0]), "the first task cannot judge what was tuned on it"
    assert any(taken[1])
    together = FeatureSums(sums.chosen.views)
    items = [item for task in tasks for item in task.train]
    labels = torch.tensor([item["label"] for item in items])
    vectors = candidate_vectors(network, handler.features, items, sums.chosen)
    together.add(vectors, labels.repeat_interleave(len(together.views)))
    expected = ridge(together.second[0], together.first, 0.3).float()
    assert torch.allclose(network.linear_layer().weight, expected[:, :-1], atol=1e-5)


def test_tuned_features_cannot_be_judged_where_no_adapters_are_merged(tiny: SimpleNamespace) -> None:
    sums = CandidateSums(VIEWS, branches=["backbone", "merged"])
    with pytest.raises(UserError, match="no adapters are tuned and merged.*sums#branches"):
        make_handler(tiny.network(adapter=None), tiny, sums)
    with pytest.raises(UserError, match="one linear layer over all classes, not 'ncm'"):
        make_handler(tiny.network("ncm"), tiny, sums)


def with_findings(tasks: list[Task], tmp_path: Path, tiny: SimpleNamespace) -> list[Task]:
    """Return the tasks with their classes as findings, each image of the first class having the second one's, too."""
    found = []
    for task in tasks:
        count = task.first + len(task.classes)

        def label(item: Item, task: Task = task, count: int = count) -> Item:
            own = {item["label"], task.first + 1} if item["label"] == task.first else {item["label"]}
            said = [int(number in own) if number >= task.first else -1 for number in range(count)]
            return {**item, "label": said}

        none = [{**item, "label": [-1] * task.first + [0] * len(task.classes)} for item in tiny.items(tmp_path, 7, 3)]
        train, validation, test = (tuple(map(label, part)) for part in task.parts)
        found.append(replace(task, train=(*train, *none), validation=validation, test=(*test, *none)))
    return found


def test_findings_learnt_before_are_filled_in_by_the_head_before_where_nobody_has_said(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks, network = with_findings(tiny.tasks(tmp_path), tmp_path, tiny), tiny.network(adapter=None)
    said = list(tasks[1].train[0]["label"])
    said[0] = 1  # of this image somebody has
    tasks[1] = replace(tasks[1], train=({**tasks[1].train[0], "label": said}, *tasks[1].train[1:]))
    tiny.awaken(network, tasks)
    rules = DecisionRules()
    handler = make_handler(network, tiny, rules=rules)
    tiny.trainer(network, tasks, [SOLVE], [handler]).run()
    first, second = FeatureSums(VIEWS), [vectors_of(handler, task.train) for task in tasks]
    told = [torch.tensor([item["label"] for item in task.train]) for task in tasks]
    first.add_findings(second[0], told[0].repeat_interleave(2, 0))
    before = ridge(first.second[0], first.first, 0.3)
    scores = (second[1] @ before.T).unflatten(0, (-1, 2)).mean(1)
    filled = (scores >= middle_scores(first.second[0], first.first, before)).long()
    assert filled.any() and not filled.all()
    told[1][1:, :2] = filled[1:]
    told[1][0, 1] = filled[0, 1]
    assert (told[1] >= 0).all()
    first.add_findings(second[1], told[1].repeat_interleave(2, 0))
    expected = ridge(first.second[0], first.first, 0.3)
    linear = network.linear_layer()
    assert torch.allclose(linear.weight, expected[:, :-1].float(), atol=1e-6)
    assert torch.allclose(linear.bias, expected[:, -1].float(), atol=1e-6)
    assert rules.thresholds == pytest.approx(middle_scores(first.second[0], first.first, expected).tolist())
    again = DecisionRules()
    again.load_state_dict(rules.state_dict() | {"statistics": rules.statistics.state_dict()})
    assert again.thresholds == rules.thresholds


def test_tasks_of_findings_end_with_ridge_regression_on_all_images_where_all_is_known(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks, network = with_findings(tiny.tasks(tmp_path), tmp_path, tiny), tiny.network(adapter=None)
    # of the second task's images somebody has said that they have nothing of the first's
    told = tuple({**item, "label": [0, 0, *item["label"][2:]]} for item in tasks[1].train)
    tasks[1] = replace(tasks[1], train=told)
    tiny.awaken(network, tasks)
    handler = make_handler(network, tiny, shrinkage=0.1)
    tiny.trainer(network, tasks, [SOLVE], [handler]).run()
    x = torch.cat([vectors_of(handler, task.train) for task in tasks]).numpy()
    y = findings_of([item for task in tasks for item in task.train], 4).clamp(min=0).repeat_interleave(2, 0).numpy()
    w = np.concatenate([_weights(part) for part in np.split(y, [len(tasks[0].train) * 2])])
    penalty = 0.1 * (w[:, None] * x * x).sum() / x.shape[1]
    plain = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky").fit(x, y, w).coef_
    assert np.allclose(network.linear_layer().weight.detach(), plain[:, :-1], atol=1e-6)


def _weights(targets: np.ndarray) -> np.ndarray:
    """Weigh the views of a task's images: the mean over their findings of one by so many views as have it."""
    counts, none = targets.sum(0), (targets.sum(1) == 0).sum()
    return np.array([(1 / counts[row == 1]).mean() if row.any() else 1 / none for row in targets])


@pytest.mark.parametrize("shrinkage", [0.1, None])
def test_a_task_of_findings_has_its_shrinkage_and_figures(
    shrinkage: float | None, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks, network = with_findings(tiny.tasks(tmp_path), tmp_path, tiny), tiny.network(adapter=None)
    tiny.awaken(network, tasks)
    record, rules = RunRecord(), DecisionRules()
    evaluation = EvaluationHandler(tiny.evaluator(network), network, record, {}, rules)
    handler = make_handler(network, tiny, shrinkage=shrinkage, rules=rules)
    tiny.trainer(network, tasks, [SOLVE], [handler, evaluation]).run()
    assert handler.sums.shrinkage in (0.1, 1.0)
    assert [row["class"] for row in record.figures["findings"]] == [name for task in tasks for name in task.classes]
    assert record.figures["mean_auroc"] > 0.8, "each class of images has a colour of its own"
    assert len(record.matrix) == len(record.figures["auroc_matrix"]) == 2


def test_adapters_are_tuned_on_findings_and_merged(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks, network = with_findings(tiny.tasks(tmp_path), tmp_path, tiny), tiny.network()
    tiny.awaken(network, tasks)
    tuning = tiny.stage(
        "adapter_tuning", trains=["adapter", "auxiliary"], loss=auxiliary_cross_entropy, data="task_and_memory"
    )
    handler = make_handler(network, tiny, rules=DecisionRules())
    handlers = [AdapterTuningHandler(network), AdapterAveragingHandler(network, Merging()), handler]
    tiny.trainer(network, tasks, [tuning, SOLVE], handlers).run()
    assert network.backbone.branches == ["merged"]
    assert network.linear_layer().weight.abs().sum() > 0


def test_sums_of_each_class_apart_take_no_findings(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks, network = with_findings(tiny.tasks(tmp_path), tmp_path, tiny), tiny.network(adapter=None)
    handler = make_handler(network, tiny)
    handler.sums.apart = True
    with pytest.raises(UserError, match="leave the part 'federated' out"):
        tiny.trainer(network, tasks, [SOLVE], [handler])


@pytest.mark.parametrize(
    ("head", "stages", "memory", "why"),
    [
        ("others", ["closed"], 0, "the head others"),
        ("unified", ["training"], 0, "seen_cross_entropy of the stage training, a head that is not solved"),
        ("unified", ["closed"], 8, "a memory of images by their class"),
    ],
)
def test_a_method_that_gives_an_image_one_class_is_refused_by_what_it_lacks(
    head: str, stages: list[str], memory: int, why: str, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks = with_findings(tiny.tasks(tmp_path), tmp_path, tiny)
    learnt = [SOLVE if name == "closed" else tiny.stage(name) for name in stages]
    with pytest.raises(UserError, match=why):
        tiny.trainer(tiny.network(head), tasks, learnt, [], ExemplarMemory(memory))
