"""A head of cosines looks at directions alone; of several rows a class, near ones count."""

from __future__ import annotations

import math

import pytest
import torch

from scripts.model.networks.heads import CosineHead, ProxyHead

WIDTH = 12


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize(("kind", "proxies"), [(CosineHead, 1), (ProxyHead, 10)])
def test_cosines_are_averaged_over_a_classs_rows_by_their_softmax(kind: type[CosineHead], proxies: int) -> None:
    torch.manual_seed(0)
    head, features = kind(WIDTH, (2, 1)), torch.randn(4, 1, WIDTH)
    with torch.no_grad():
        head.scale.factor.fill_(3)
    found, logits = head.cosines(features), head(features)
    assert found.shape == (4, 3)
    rows = torch.cat([layer.weight for layer in head.rows]).tolist()
    for image in range(4):
        for label in range(3):
            own = [cosine(features[image, 0].tolist(), row) for row in rows[label * proxies : (label + 1) * proxies]]
            expected = sum(
                weight * value for weight, value in zip(torch.tensor(own).softmax(0).tolist(), own, strict=True)
            )
            assert found[image, label].item() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(logits, 3 * found)
    assert torch.equal(head.extras(features)["cosines"], found)
    assert torch.allclose(head(5 * features), logits, atol=1e-6), "the length of a feature does not count"


@pytest.mark.parametrize(("kind", "proxies"), [(CosineHead, 1), (ProxyHead, 10)])
def test_a_head_of_cosines_grows_by_a_layer_and_starts_from_the_auxiliary_head(
    kind: type[CosineHead], proxies: int
) -> None:
    torch.manual_seed(0)
    head, auxiliary = kind(WIDTH), torch.nn.Linear(WIDTH, 4)
    assert head(torch.randn(2, 1, WIDTH)).shape == (2, 0)
    assert head.newest() == [head.scale]
    head.grow(2)
    before = head.rows[0].weight.detach().clone()
    head.grow(3)
    head.start_from(auxiliary, 3)
    assert torch.equal(head.rows[0].weight, before)
    assert head.rows[1].weight.shape == (3 * proxies, WIDTH)
    features = torch.randn(2, 1, WIDTH)
    expected = [[cosine(row, known) for known in auxiliary.weight[:3].tolist()] for row in features[:, 0].tolist()]
    assert torch.allclose(head.cosines(features)[:, 2:], torch.tensor(expected), atol=1e-5)
    assert head.newest() == [head.scale, head.rows[1]]


@pytest.mark.parametrize(("kind", "proxies"), [(CosineHead, 1), (ProxyHead, 10)])
def test_imprinted_rows_point_where_they_are_told_and_are_as_long_as_the_old_ones(
    kind: type[CosineHead], proxies: int
) -> None:
    torch.manual_seed(0)
    head, directions = kind(WIDTH, (2, 1)), torch.nn.functional.normalize(torch.randn(proxies, WIDTH))
    old = head.rows[0].weight.detach().clone()
    head.imprint(directions)
    assert torch.equal(head.rows[0].weight, old)
    torch.testing.assert_close(head.rows[1].weight, old.norm(dim=1).mean() * directions)
