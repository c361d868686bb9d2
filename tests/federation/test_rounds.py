"""Clients are averaged by images, their heads by the names of their classes."""

from __future__ import annotations

import pytest
import torch

from scripts.federation.rounds import Update, average, for_client
from scripts.utils.errors import UserError


def client(value: float, classes: list[str], images: int) -> Update:
    rows = torch.arange(len(classes), dtype=torch.float)[:, None] * 10 + value
    weights = {"adapter": torch.full((2,), value), "steps": torch.tensor(int(value))}
    return Update({**weights, "head.linear.weight": rows, "head.linear.bias": rows[:, 0]}, classes, images)


def test_rows_are_matched_by_name() -> None:
    mean = average([client(1.0, ["a", "b"], 30), client(5.0, ["b", "c"], 10)])
    assert (mean.classes, mean.images) == (["a", "b", "c"], 40)
    assert torch.equal(mean.weights["adapter"], torch.full((2,), 2.0))
    assert mean.weights["steps"] == 5
    assert mean.weights["head.linear.bias"].tolist() == [1.0, (11 * 30 + 5 * 10) / 40, 15.0]
    own = for_client(mean, ["c", "b"])
    assert own["head.linear.weight"].tolist() == [[15.0], [9.5]]
    with pytest.raises(UserError, match="the class d"):
        for_client(mean, ["d"])


def test_equal_clients_stay_as_they_are() -> None:
    one = client(3.0, ["a"], 7)
    mean = average([one, one, one])
    assert all(torch.allclose(mean.weights[key], value) for key, value in one.weights.items())


def test_other_networks_are_refused() -> None:
    other = Update({"adapter": torch.zeros(2)}, ["a"], 1)
    with pytest.raises(UserError, match="different networks"):
        average([client(1.0, ["a"], 1), other])
    with pytest.raises(UserError, match="no client"):
        average([])
