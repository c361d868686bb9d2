"""The head is that of all images learnt, solved at once, though no image is kept; sums follow a merge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from scripts.learning.engines import ClosedForm, ContinualEvents
from scripts.learning.features import FeatureExtractor, FeatureSums
from scripts.learning.handlers import AdapterAveragingHandler, AdapterTuningHandler, ClosedFormHandler
from scripts.learning.losses import auxiliary_cross_entropy
from scripts.model.networks import ContinualNet, Merging, drift_map
from scripts.model.networks.closed_form import ridge
from scripts.utils.errors import UserError

VIEWS = [(), (3,)]
SOLVE = ClosedForm()


def make_handler(network: ContinualNet, tiny: SimpleNamespace, **arguments: Any) -> ClosedFormHandler:
    features = FeatureExtractor(network, tiny.transform(), 8)
    own = {"shrinkage": 0.3, "candidates": [0.1, 1.0], "drift_ridge": 0.01, "least_images": 5, **arguments}
    return ClosedFormHandler(network, FeatureSums(VIEWS), features, **own)


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
