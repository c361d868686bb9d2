"""A head that reads the levels before the last map costs a layer, and leaves the tuning of adapters as it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from scripts.engines import ContinualTrainer
from scripts.errors import UserError
from scripts.handlers import AdapterAveragingHandler, AdapterTuningHandler
from scripts.losses import auxiliary_cross_entropy
from scripts.memory import ExemplarMemory
from scripts.networks import SITES, ContinualNet, LevelsHead, MergingOptions, make_backbone
from scripts.networks.backbones import black_image
from scripts.networks.cost import flops_per_image


def test_features_are_the_last_mean_then_mean_and_deviation_of_each_map_before(
    tiny: SimpleNamespace, images: Tensor
) -> None:
    network = tiny.network("levels", sizes=[2, 1]).eval()
    backbone = network.backbone
    with torch.no_grad():
        features, maps = backbone.features_and_maps(images)
    assert features.shape == (5, 1, backbone.width)
    for image in range(5):
        expected = [*maps[-1][image].mean((1, 2)).tolist()]
        for level in maps[:-1]:
            expected += level[image].mean((1, 2)).tolist()
            expected += [float(channel.std(correction=0)) for channel in level[image]]
        torch.testing.assert_close(features[image, 0], torch.tensor(expected), rtol=1e-3, atol=1.1e-3)


@pytest.mark.parametrize("name", SITES)
def test_every_backbone_has_levels(name: str) -> None:
    backbone = make_backbone(name, None, None, reads=LevelsHead.reads).eval()
    plain = make_backbone(name, None, None).eval()
    plain.load_state_dict(backbone.state_dict())
    image = black_image(backbone, 32) + 1
    with torch.no_grad():
        features = backbone(image)
        assert features.shape == (1, 1, backbone.width)
        assert torch.equal(features[..., : plain.width], plain(image))
    assert backbone.head_width == backbone.width - plain.width == 2 * sum(backbone.channels[1:])


def test_the_head_does_not_read_the_last_map(tiny: SimpleNamespace) -> None:
    network = tiny.network("levels", sizes=[2, 1]).eval()
    features = torch.randn(4, 1, network.backbone.width)
    others = features.clone()
    others[..., : network.backbone.last_width] = torch.randn(4, 1, network.backbone.last_width)
    assert torch.equal(network.head(features), network.head(others))
    others[..., network.backbone.last_width] += 1
    assert not torch.allclose(network.head(features), network.head(others))


def test_a_single_site_has_no_level_before_the_last() -> None:
    with pytest.raises(UserError, match="reads the maps before the last site: give two or more"):
        ContinualNet("resnet18", "levels", sites=["layer3"])


def test_levels_cost_next_to_nothing() -> None:
    counted = []
    for head in ("unified", "levels"):
        network = ContinualNet("resnet18", head)
        network.grow(8)
        counted.append(flops_per_image(network.merge_and_unload([{"name": "all", "classes": list("abcdefgh")}]), 224))
    assert counted[0] < counted[1] < 1.0001 * counted[0]


def test_a_map_of_one_value_has_a_slope() -> None:
    backbone = make_backbone("mobilenet_v2", None, None, reads=LevelsHead.reads).train()
    image = torch.zeros(2, 3, 32, 32, requires_grad=True)
    backbone(image).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_adapters_are_tuned_as_under_a_head_that_reads_the_last_map(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks = tiny.tasks(tmp_path)

    def tuned(head: str) -> ContinualNet:
        network = tiny.network(head, seed=3)
        stage = tiny.stage(
            "adapter_tuning", epochs=2, loss=auxiliary_cross_entropy, trains=["adapter", "auxiliary"], data="task"
        )
        handlers = [AdapterTuningHandler(network), AdapterAveragingHandler(network, MergingOptions())]
        trainer: ContinualTrainer = tiny.trainer(network, tasks, [stage], handlers, ExemplarMemory(0))
        trainer.run()
        return network

    plain, levels = tuned("unified"), tuned("levels")
    expected = plain.backbone.state_dict()
    for key, value in levels.backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key
