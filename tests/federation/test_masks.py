"""Masked sums add up to the plain ones exactly, one alone is noise, and a site that is missing is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from scripts.federation.contribution import Contribution
from scripts.federation.fixed_point import to_fixed, triangle
from scripts.federation.masks import Round
from scripts.federation.pool import Pool
from scripts.federation.site import Site
from scripts.utils.errors import UserError

CLASSES = ("s", "t")


def agree(folder: Path, name: str = "spring", sites: str = "abc") -> Round:
    for site in sites:
        if not (folder / f"{site}.site.json").exists():
            Site.make(site, folder)
    record = {"round": name, "sites": [f"{site}.site.json" for site in sites], "classes": list(CLASSES)}
    (folder / "round.yaml").write_text(yaml.safe_dump(record))
    return Round.read(folder / "round.yaml")


@pytest.fixture
def images(fed: SimpleNamespace) -> dict[str, dict[str, torch.Tensor]]:
    """Of few images, which may leave masked."""
    return {site: {name: fed.vectors(5 + at, at) for name in CLASSES} for at, site in enumerate("abc")}


@pytest.fixture
def masked(fed: SimpleNamespace, images: dict, tmp_path: Path) -> list[Contribution]:
    agreed = agree(tmp_path)
    errors = {0.1: 1.0, 1.0: 3.0}
    return [fed.give(tmp_path, site, own, errors, hidden=agreed) for site, own in images.items()]


def test_the_sum_of_masked_files_is_that_of_plain_ones_to_the_bit(
    fed: SimpleNamespace, images: dict, masked: list[Contribution]
) -> None:
    pool = Pool(masked, fed.same_names(masked))
    pool.check()
    for number, name in enumerate(CLASSES):
        plain = [to_fixed(triangle(own[name].T @ own[name])) for own in images.values()]
        hidden = [one.numbers(f"class.{number}") for one in masked]
        assert np.array_equal(sum(hidden[1:], hidden[0]), sum(plain[1:], plain[0]))
    assert fed.differences(fed.solved(masked), fed.pooled(images)) < 1e-8
    assert pool.shrinkage() == 0.1


def test_one_masked_file_is_noise(images: dict, masked: list[Contribution]) -> None:
    """Its numbers are spread evenly over 64 bits, and two of three do not cancel either."""
    alone = masked[0].numbers("class.0")
    both = alone + masked[1].numbers("class.0")
    for numbers in (alone, both):
        bits = np.unpackbits(numbers.view(np.uint8))
        assert abs(bits.mean() - 0.5) < 4 * 0.5 / len(bits) ** 0.5
        assert np.abs(numbers.astype(float)).mean() > 2.0**61
    assert [own["images"] for own in masked[0].classes] == [None, None]


def test_a_site_that_drops_out_is_named_and_the_others_begin_anew(
    fed: SimpleNamespace, images: dict, masked: list[Contribution], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="round spring lacks c, and only together do its masks cancel"):
        fed.solved(masked[:2])
    images["d"] = images.pop("c")
    agreed = agree(tmp_path, "spring without c", "abd")
    again = [fed.give(tmp_path, site, own, hidden=agreed) for site, own in images.items()]
    assert fed.differences(fed.solved(again), fed.pooled(images)) < 1e-8


def test_a_round_is_masked_once(fed: SimpleNamespace, images: dict, masked: list[Contribution], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has masked its sums in this round already"):
        fed.give(tmp_path, "a", images["b"], hidden=Round.read(tmp_path / "round.yaml"))


def test_a_round_of_other_sites_classes_or_keys_has_other_masks(tmp_path: Path) -> None:
    agreed = agree(tmp_path)
    site = Site.open(tmp_path / "a.site.json")
    others = [agree(tmp_path, "summer"), agree(tmp_path, "spring", "abcd")]
    assert all(not np.array_equal(agreed.mask(site, "x", 8), other.mask(site, "x", 8)) for other in others)
    assert not np.array_equal(agreed.mask(site, "x", 8), agreed.mask(site, "y", 8))
    assert np.array_equal(agreed.mask(site, "x", 8), agree(tmp_path, "spring", "cab").mask(site, "x", 8))


def test_two_sites_have_nothing_to_hide_from_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no file of a round"):
        agree(tmp_path, sites="ab")


def test_tuned_adapters_are_not_hidden(fed: SimpleNamespace, images: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not hidden by masks or noise"):
        fed.give(tmp_path, "a", images["a"], hidden=agree(tmp_path), adapters={"change": torch.zeros(2)})
