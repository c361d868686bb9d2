"""The features that herding reads are those of a direct pass, without augmentation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.learning.features import FeatureExtractor
from scripts.model.networks import WholeBackbones


@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_features_equal_a_direct_pass(batch_size: int, tmp_path: Path, tiny: SimpleNamespace) -> None:
    items = tiny.items(tmp_path, 0, 7)
    network = tiny.network(sizes=[2, 2])
    network.merge()
    network.train_only(["backbone", "head"])
    network.train()
    before = tiny.copy_of(network.state_dict())
    extract = FeatureExtractor(network, tiny.transform(), batch_size)
    found = extract(items)
    pixels = np.stack([np.asarray(Image.open(item["image"])) for item in items])
    with torch.no_grad():
        direct = network.eval()(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).features[:, 0]
    torch.testing.assert_close(found, direct, rtol=1e-4, atol=1e-5)
    assert torch.equal(extract(items), found), "no augmentation, nothing random"
    assert not tiny.changed_keys(before, network.state_dict()), "BatchNorm learns nothing from it"
    assert not found.requires_grad


def test_one_head_over_several_branches_has_them_all_read(tmp_path: Path, tiny: SimpleNamespace) -> None:
    items, network = tiny.items(tmp_path, 0, 3), tiny.network("concatenated", sizes=[2, 2], adapter=WholeBackbones())
    found = FeatureExtractor(network, tiny.transform(), 3)(items)
    pixels = tiny.transform()(items)
    with torch.no_grad():
        direct = network.backbone(torch.stack([entry["image"] for entry in pixels]))
    torch.testing.assert_close(found, torch.cat([direct[:, 0], direct[:, 1]], 1), rtol=1e-4, atol=1e-5)


def test_the_newest_of_several_branches_is_read(tmp_path: Path, tiny: SimpleNamespace) -> None:
    items, network = tiny.items(tmp_path, 0, 3), tiny.network("others", sizes=[2, 2])
    network.unmerge()
    extract = FeatureExtractor(network, tiny.transform(), 3)
    found = extract(items)
    with network.through(["task1"]):
        newest = extract(items)
    with network.through(["task0"]):
        oldest = extract(items)
    assert torch.equal(found, newest)
    assert not torch.equal(found, oldest)


def test_an_image_passes_once_for_each_view_while_the_weights_stay(tmp_path: Path, tiny: SimpleNamespace) -> None:
    items, network = tiny.items(tmp_path, 0, 6), tiny.network(sizes=[2, 2])
    extract = FeatureExtractor(network, tiny.transform(), 3)
    passed: list[int] = []
    network.backbone.stem.register_forward_hook(lambda module, images, output: passed.append(len(images[0])))
    first = extract.features(items[:4], [(), (3,)])
    assert passed == [3, 3, 3], "the last batch is made up"
    again = extract.features(items[2:], [(3,), ()])
    assert passed == [3, 3, 3, 3, 3]
    assert torch.equal(again[:2], first[2:].flip(1))
    network.head.linear.weight.data.fill_(0.5)
    extract(items)
    assert len(passed) == 5, "the head stands above them"
    next(network.backbone.parameters()).data[0] += 1
    assert not torch.equal(extract(items)[:4], first[:, 0, 0])
    assert len(passed) == 7
    network.unmerge()
    extract(items)
    assert len(passed) == 9, "other branches are other weights"
    extract.max_bytes = 0
    extract(items)
    assert len(passed) == 11, "there is no room"


def test_features_are_the_same_to_the_bit_whichever_images_stand_beside(tmp_path: Path, tiny: SimpleNamespace) -> None:
    items, network = tiny.items(tmp_path, 0, 9), tiny.network(sizes=[2, 2])
    made = tiny.transform()
    together = FeatureExtractor(network, made, 4)(items)
    state = torch.get_rng_state()
    apart = FeatureExtractor(network, made, 4)
    found = torch.cat([apart(items[5:]), apart(items[::-1])[-5:].flip(0)])
    assert torch.equal(found, torch.cat([together[5:], together[:5]]))
    assert torch.equal(torch.get_rng_state(), state), "what is drawn next does not depend on what is known"
