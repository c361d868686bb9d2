"""A registry gives each name once, and says what there is."""

from __future__ import annotations

import pytest

from scripts.model.networks import ADAPTERS, BACKBONES, HEADS, ROWS
from scripts.model.networks.registry import Registry
from scripts.utils.errors import UserError


def test_a_name_is_given_once() -> None:
    registry: Registry[int] = Registry("fruit", "basket#fruit")
    registry["apple"] = 1
    with pytest.raises(ValueError, match="there is a fruit 'apple' already"):
        registry["apple"] = 2
    assert dict(registry) == {"apple": 1}


def test_an_unknown_name_is_refused_with_the_choice_in_the_order_given() -> None:
    registry: Registry[int] = Registry("fruit", "basket#fruit")
    registry["pear"], registry["apple"] = 2, 1
    assert registry.find("apple") == 1
    with pytest.raises(UserError, match=r"unknown fruit 'nut': choose one of pear, apple \(key 'basket#fruit'\)"):
        registry.find("nut")


@pytest.mark.parametrize(
    ("registry", "key"),
    [
        (BACKBONES, "key 'backbone'"),
        (ADAPTERS, "key 'adapter'"),
        (HEADS, "key 'network_def#head'"),
        (ROWS, "key 'merging#row'"),
    ],
    ids=["backbones", "adapters", "heads", "rows"],
)
def test_every_registry_says_where_its_names_are_given(registry: Registry[object], key: str) -> None:
    with pytest.raises(UserError, match=f"'nothing': choose one of {', '.join(registry)} .{key}.$"):
        registry.find("nothing")
