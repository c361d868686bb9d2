"""A head says what it can do; a method that asks for more is refused with the heads that have it."""

from __future__ import annotations

import pytest
import torch

from scripts.model.networks import HEADS, Ability, ContinualNet
from scripts.model.networks.heads import require
from scripts.utils.errors import UserError

ABLE = {
    Ability.JOINT: {*HEADS} - {"others"},
    Ability.LINEAR: {"unified", "levels", "nearest_mean", "concatenated", "random_projection"},
    Ability.SOLVED: {"unified", "levels", "random_projection", "ncm", "fecam"},
    Ability.MEANS: {"nearest_mean"},
    Ability.IMPRINTED: {"cosine", "proxies"},
    Ability.FINDINGS: {"unified", "levels", "random_projection"},
}


def test_an_unknown_head_is_refused_with_the_choice() -> None:
    for ask in (HEADS.find, lambda name: ContinualNet("mobilenet_v2", name)):
        with pytest.raises(UserError, match="unknown head 'cosinus': choose one of .*unified, .*others"):
            ask("cosinus")


@pytest.mark.parametrize("ability", Ability)
def test_who_lacks_an_ability_is_refused_with_those_that_have_it(ability: Ability) -> None:
    for name in HEADS:
        if name in ABLE[ability]:
            require(name, ability)
            continue
        with pytest.raises(UserError, match=f"this method needs {ability}, not '{name}': choose one of (.*) .key") as e:
            require(name, ability)
        assert set(str(e.value).split("choose one of ")[1].split(" (key")[0].split(", ")) == ABLE[ability]


@pytest.mark.parametrize("name", HEADS)
def test_what_a_head_says_it_can_it_does(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name](6, (2, 1))
    abilities = HEADS[name].abilities
    if Ability.LINEAR in abilities:
        assert head.linear_layer().out_features == 3
    if Ability.MEANS in abilities:
        head.take_mean(2, torch.ones(6) / 6**0.5)
    if Ability.IMPRINTED in abilities:
        head.imprint(torch.randn(head.per_class, 6))
    if Ability.SOLVED in abilities:
        x = torch.cat([head.embed(torch.randn(40, 6)), torch.ones(40, 1)], 1).double()
        labels = torch.arange(40) % 3
        first = torch.stack([x[labels == label].sum(0) for label in range(3)])
        seconds = torch.stack([x[labels == label].T @ x[labels == label] for label in range(3)])
        head.solve(seconds if name == "fecam" else seconds.sum(0, keepdim=True), first, 0.1)
    features = torch.randn(4, 2 if HEADS[name].concatenates else 1, 6)
    assert head(features).shape == (4, 3)
    assert head(features).isfinite().all()
    if Ability.FINDINGS in abilities:  # the score of one depends on no other
        before = head(features)[:, 0]
        head.solve(seconds.sum(0, keepdim=True), first * torch.tensor([[1.0], [2.0], [-3.0]]), 0.1)
        assert torch.allclose(head(features)[:, 0], before, atol=1e-6)
