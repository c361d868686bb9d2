"""A head with rows for classes to come: which new classes take them over."""

from __future__ import annotations

import torch

from scripts.model.networks.heads.prepared import PREPARED, PreparedHead


def test_new_classes_take_over_the_next_rows() -> None:
    head = PreparedHead(4)
    head.grow(2)
    features = torch.randn(3, 1, 4)
    before = torch.cat([head(features), head.extras(features)["future"]], 1)
    assert before.shape == (3, 2 + PREPARED)
    head.grow(3)
    after = torch.cat([head(features), head.extras(features)["future"]], 1)
    assert head(features).shape == (3, 5)
    assert after.shape == (3, 5 + PREPARED)
    assert torch.equal(after[:, : 2 + PREPARED], before)


def test_a_grown_head_fits_one_that_is_made_anew() -> None:
    head = PreparedHead(4)
    head.grow(2)
    head.grow(1)
    PreparedHead(4, [2, 1]).load_state_dict(head.state_dict())
