"""An answer names every class or finding with its score, as MONAI Label's clients read it."""

from __future__ import annotations

import pytest

from scripts.deploy.service.answering import Answer
from scripts.deploy.service.routes.infer import Said
from scripts.model.decisions.results import ModelIdentity

NAMES = ("effusion", "nodule", "mass")


@pytest.mark.parametrize(("thresholds", "findings"), [((0.5, 0.5, 0.1), ["effusion", "mass"]), (None, None)])
def test_every_name_has_its_score_and_findings_are_named(
    thresholds: tuple[float, ...] | None, findings: list[str] | None
) -> None:
    model = ModelIdentity("chest", "3", "0" * 64, NAMES, thresholds=thresholds)
    record = Answer(model.judge([0.6, 0.2, 0.2]), {"total": 0.1}).record()
    said = Said.model_validate(record)
    assert [(one.label, one.score) for one in said.prediction] == list(zip(NAMES, (0.6, 0.2, 0.2), strict=True))
    assert (said.findings, said.predicted_class) == (findings, "|".join(findings or ["effusion"]))
