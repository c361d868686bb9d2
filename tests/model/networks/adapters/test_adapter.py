"""A kind of adapter is an object with settings; what ``network.json`` records of it makes the same one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from scripts.model.networks import (
    ADAPTERS,
    L2P,
    AttendedConvolutions,
    Bottleneck,
    CodaPrompt,
    Convolutions,
    DualPrompt,
    LowRank,
    SharedAdapters,
    WholeBackbones,
    make_adapter,
)
from scripts.model.networks.adapters import AdaptedBlock, Adapter, Place
from scripts.model.networks.backbones import Layout, Segment, find_backbone
from scripts.utils.errors import UserError

RECORDS: list[tuple[Adapter, dict[str, Any]]] = [
    (Convolutions(), {"kind": "conv", "width": 1.0}),
    (Convolutions(0.25), {"kind": "conv", "width": 0.25}),
    (AttendedConvolutions(0.5), {"kind": "attention", "width": 0.5}),
    (
        SharedAdapters(Bottleneck(8), Bottleneck(4)),
        {
            "kind": "shared",
            "common": {"kind": "bottleneck", "width": 8, "scale": 0.1},
            "own": {"kind": "bottleneck", "width": 4, "scale": 0.1},
        },
    ),
    (LowRank(4, 0.5), {"kind": "lora", "rank": 4, "scale": 0.5}),
    (Bottleneck(8, 1.0), {"kind": "bottleneck", "width": 8, "scale": 1.0}),
    (WholeBackbones(), {"kind": "backbone", "afresh": False}),
    (
        L2P(length=5, chosen=5),
        {
            **{"kind": "l2p", "query": "last", "blocks": None, "pool_size": 10, "added": 0, "length": 5},
            **{"chosen": 5, "prefix": False, "pull": 1.0, "choice": "image"},
        },
    ),
    (
        DualPrompt(query="blocks.2"),
        {
            **{"kind": "dualprompt", "query": "blocks.2", "blocks": None, "general_blocks": None},
            **{"general_length": 5, "length": 5, "pull": 1.0, "choice": "image"},
        },
    ),
    (
        CodaPrompt(orthogonality=0.001),
        {
            **{"kind": "coda_prompt", "query": "last", "blocks": None, "components": 10, "length": 4},
            **{"orthogonality": 0.001},
        },
    ),
]


@pytest.mark.parametrize(("adapter", "record"), RECORDS, ids=str)
def test_a_record_makes_the_same_adapter(adapter: Adapter, record: dict[str, Any]) -> None:
    assert adapter.record() == record
    assert make_adapter(json.loads(json.dumps(record))) == adapter


def test_every_kind_is_recorded_here() -> None:
    assert {record["kind"] for _, record in RECORDS} == set(ADAPTERS)
    assert make_adapter(None) is None


def test_an_unknown_kind_is_refused_with_the_choice() -> None:
    with pytest.raises(
        UserError,
        match="unknown adapter 'linear': choose one of conv, attention, .*lora, .*coda_prompt, shared, backbone",
    ):
        make_adapter({"kind": "linear"})


def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(UserError, match="'rank': 4.* has settings of another kind: take the file of the same run"):
        make_adapter({"kind": "conv", "rank": 4})


def test_a_block_goes_through_the_named_adapter_only() -> None:
    torch.manual_seed(0)
    place = Place(find_backbone("resnet18"), "layer1", 4, Layout.CHANNELS_FIRST)
    block, x = Convolutions().inject(Segment(nn.ReLU()), place), torch.randn(2, 4, 5, 5)
    for name in ("a", "b"):
        block.adapters[name] = block.new(name)
    block.eval()
    maps = {name: block(x, name) for name in ("a", "b", "none of them")}
    assert all(len(found) == 1 for found in maps.values())
    for name in ("a", "b"):
        assert torch.equal(maps[name][0], block.adapters[name](x).relu())
    assert torch.equal(maps["none of them"][0], x.relu())
    assert not torch.equal(maps["a"][0], maps["b"][0])


def test_a_block_without_adapters_makes_none() -> None:
    block = AdaptedBlock(Segment(nn.ReLU()))
    assert block.new("task0") is None
    assert block.mergeable("task0") == block.folded("task0") == {}
