"""What a model says and which model it is: the same files have the same identity, and a rule decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.model.decisions.results import ModelIdentity
from scripts.utils.errors import UserError

MODEL = ModelIdentity("a", "task_1", "0" * 64, ("x", "y", "z"))


def with_rule(**rule: float | None) -> ModelIdentity:
    return ModelIdentity(MODEL.name, MODEL.version, MODEL.weights_sha256, MODEL.classes, **rule)


def test_the_most_probable_class_is_predicted() -> None:
    result = MODEL.judge([0.2, 0.5, 0.3])
    assert (result.predicted_class, result.indeterminate) == ("y", False)
    assert result.probabilities == {"x": 0.2, "y": 0.5, "z": 0.3}
    assert result.model is MODEL


@pytest.mark.parametrize(("threshold", "indeterminate"), [(None, False), (0.0, False), (0.5, False), (0.51, True)])
def test_below_the_threshold_a_result_is_indeterminate(threshold: float | None, indeterminate: bool) -> None:
    result = with_rule(threshold=threshold).judge([0.2, 0.5, 0.3])
    assert result.indeterminate is indeterminate
    assert result.predicted_class == "y"


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.7])
def test_a_temperature_divides_the_logits(temperature: float) -> None:
    logits = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    result = with_rule(temperature=temperature).judge(logits.softmax(0).tolist())
    expected = (logits / temperature).softmax(0).tolist()
    np.testing.assert_allclose(list(result.probabilities.values()), expected, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ImageRefused) as refusal:
        MODEL.judge([value, 0.0, 0.0])
    assert refusal.value.reason is Reason.NON_FINITE


@pytest.mark.parametrize("rule", [{"temperature": 0.0}, {"temperature": float("nan")}, {"threshold": 1.5}], ids=str)
def test_a_rule_that_means_nothing_is_refused(rule: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(rule))} is .*: give a"):
        with_rule(**rule)


def test_the_class_list_has_a_hash_of_names_and_order() -> None:
    others = [ModelIdentity("a", "task_1", "0" * 64, names) for names in (("y", "x", "z"), ("x", "y z"), ("x", "y"))]
    assert len({MODEL.classes_sha256, *(other.classes_sha256 for other in others)}) == 4


SEVERAL = ModelIdentity("a", "task_1", "0" * 64, ("x", "y", "z"), thresholds=(0.3, 0.5, 0.9))


@pytest.mark.parametrize(
    ("logits", "findings", "said"),
    [([1.4, 0.5, 0.2], ("x", "y"), "x|y"), ([-1.0, 0.4, 0.8], (), "none"), ([0.0, 0.0, 2.0], ("z",), "z")],
)
def test_each_finding_has_a_score_and_a_threshold(logits: list[float], findings: tuple[str, ...], said: str) -> None:
    result = SEVERAL.judge(SEVERAL.probabilities(logits))
    assert (result.findings, result.said) == (findings, said)
    record = result.record()
    assert (record["predicted_class"], record["findings"]) == (said, list(findings))
    scores = [min(max(value, 0.0), 1.0) for value in logits]
    assert list(record["probabilities"].values()) == pytest.approx(scores)
    assert SEVERAL.record()["thresholds"] == {"x": 0.3, "y": 0.5, "z": 0.9}


def test_classes_that_exclude_each_other_get_the_softmax_and_no_word_of_findings() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [1000.0, 0.0, -1000.0]])
    np.testing.assert_allclose(MODEL.probabilities(logits), logits.softmax(1), atol=1e-7)
    result = MODEL.judge(MODEL.probabilities(logits[0]))
    assert "findings" not in result.record() and "thresholds" not in MODEL.record()


@pytest.mark.parametrize("rule", [{"temperature": 2.0}, {"threshold": 0.5}], ids=str)
def test_findings_take_no_rule_of_one_class(rule: dict[str, float]) -> None:
    with pytest.raises(UserError, match="each finding of this model has a threshold of its own"):
        ModelIdentity("a", "task_1", "0" * 64, ("x", "y"), thresholds=(0.5, 0.5), **rule)
    with pytest.raises(UserError, match="1 thresholds do not fit 2 findings"):
        ModelIdentity("a", "task_1", "0" * 64, ("x", "y"), thresholds=(0.5,))
