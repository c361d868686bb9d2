"""3-D backbones are MONAI's, take MedicalNet's weights, and grow, merge and export like the 2-D ones."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.networks import nets
from torch import Tensor

from scripts.model.networks import AdaptedBackbone, Classifier, ContinualNet, Convolutions, classifier_from
from scripts.model.networks.backbones.shortcut import PaddedShortcut
from scripts.model.networks.backbones.volumes import volume_resnet
from scripts.model.networks.cost import flops_per_image
from scripts.utils.errors import UserError

SMALLEST = 17
TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c"]}]


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    """Two random volumes whose sides all differ, [2, 1, 17, 19, 21]."""
    return torch.randn(2, 1, 17, 19, 21, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network(tiny: SimpleNamespace) -> ContinualNet:
    """A small growing network of volumes with two tasks, to be read only."""
    network = ContinualNet("resnet10_3d", image_size=SMALLEST, adapter=Convolutions(0.25), sites=["layer1", "layer4"])
    for task in TASKS:
        network.grow(len(task["classes"]))
        network.add_adapters()
    tiny.randomise(network)
    network.merge()
    return network.eval()


@pytest.fixture(scope="module")
def classifier(network: ContinualNet) -> Classifier:
    return network.merge_and_unload(TASKS)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_shortcut_has_the_values_of_monais_and_passes_the_gradient(stride: int) -> None:
    x = torch.randn(2, 3, 5, 6, 7, requires_grad=True)
    block = nets.resnet18(spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type="A", widen_factor=0.1)
    expected = block._downsample_basic_block(x, planes=5, stride=stride, spatial_dims=3)
    found = PaddedShortcut(5, stride, 3)(x)
    assert torch.equal(found, expected)
    assert not expected.requires_grad
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == 2 * 3 * expected[0, 0].numel()


def test_medicalnets_weights_give_the_features_of_monais_network(
    volumes: Tensor, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    medicalnet = nets.resnet18(spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type="A").eval()
    tiny.randomise(medicalnet)
    saved = {"state_dict": {f"module.{key}": value for key, value in medicalnet.state_dict().items()}}
    torch.save(saved, tmp_path / "resnet_18_23dataset.pth")
    backbone = AdaptedBackbone("resnet18_3d")
    backbone.load_pretrained(str(tmp_path / "resnet_18_23dataset.pth"))
    with torch.no_grad():
        assert torch.equal(backbone.eval()(volumes)[:, 0], medicalnet(volumes))


def test_the_names_in_the_small_backbone_are_those_of_medicalnets_file() -> None:
    state = volume_resnet("resnet10_3d").state_dict()
    assert state["conv1.weight"].shape == (64, 1, 7, 7, 7)
    assert "layer2.0.downsample.0.weight" in state
    assert not any(key.startswith("fc") or key.endswith("downsample.0.bias") for key in state)


def test_weights_of_volumes_are_not_downloaded() -> None:
    with pytest.raises(UserError, match=r"resnet10_3d has no weights called 'DEFAULT': .*resnet_10_23dataset.pth"):
        AdaptedBackbone("resnet10_3d").load_pretrained("DEFAULT")


def test_adapters_stand_before_each_layer_and_convolve_in_three_dimensions() -> None:
    backbone = AdaptedBackbone("resnet10_3d", Convolutions(), branches=["task0"])
    assert backbone.sites == ("layer1", "layer2", "layer3", "layer4")
    counts = [sum(p.numel() for p in block.adapters["task0"].parameters()) for block in backbone.blocks.values()]
    assert counts == [54 * c**2 + 6 * c + 1 for c in (64, 64, 128, 256)]


def test_the_smallest_volume_passes_and_one_voxel_less_is_refused(classifier: Classifier) -> None:
    with torch.no_grad():
        assert classifier(torch.zeros(1, 1, *[SMALLEST] * 3)).isfinite().all()
        with pytest.raises(RuntimeError):
            classifier(torch.zeros(1, 1, *[SMALLEST - 1] * 3))
    with pytest.raises(UserError, match="before layer4 has 2 x 2 x 2 pixels, an adapter needs 3 x 3 x 3; .* least 17 "):
        ContinualNet("resnet10_3d", image_size=SMALLEST - 1)


def test_merging_takes_the_mean_of_three_dimensional_adapters(network: ContinualNet) -> None:
    adapters = network.backbone.blocks["layer4"].adapters
    weight = {name: adapter.layers[0].weight for name, adapter in adapters.items()}
    assert weight["merged"].dim() == 5
    torch.testing.assert_close(weight["merged"], (weight["task0"] + weight["task1"]) / 2)


def test_the_unloaded_network_is_rebuilt_from_its_description_with_the_same_logits(
    network: ContinualNet, classifier: Classifier, volumes: Tensor
) -> None:
    described = {**network.description(), "tasks": TASKS, "image": {"size": SMALLEST}}
    rebuilt = classifier_from(json.loads(json.dumps(described))).eval()
    rebuilt.load_state_dict(classifier.state_dict())
    with torch.no_grad():
        expected = network(volumes).logits
        assert expected.shape == (2, 3)
        assert torch.equal(classifier(volumes), expected)
        assert torch.equal(rebuilt(volumes), expected)


def test_separate_adapters_of_volumes_are_a_branch_each(network: ContinualNet, volumes: Tensor) -> None:
    with torch.no_grad(), network.through(["task0", "task1"]):
        features = network.backbone(volumes)
    assert features.shape == (2, 2, 512)
    assert not torch.equal(features[:, 0], features[:, 1])


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("name", ["resnet10_3d", "resnet18_3d"])
def test_torchscript_of_volumes_equals_eager_after_saving(name: str, volumes: Tensor, tiny: SimpleNamespace) -> None:
    classifier = Classifier(name, "unified", TASKS, Convolutions(0.25).record(), ["merged"]).eval()
    tiny.randomise(classifier)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(classifier), buffer)
    buffer.seek(0)
    scripted = torch.jit.load(buffer)
    with torch.no_grad():
        expected = classifier(volumes)
        for _ in range(2):  # the second call runs the optimised graph
            torch.testing.assert_close(scripted(volumes), expected, rtol=1e-4, atol=1e-5)


def test_flops_of_volumes_are_those_of_one_pass_for_any_number_of_tasks() -> None:
    counts = []
    for tasks in (1, 3):
        names = [{"name": str(task), "classes": ["a", "b"]} for task in range(tasks)]
        with torch.device("meta"):
            network = Classifier("resnet10_3d", "unified", names, Convolutions().record(), ["merged"])
            counts.append(flops_per_image(network, 28))
    assert counts[1] - counts[0] == 2 * 512 * 4
    assert flops_per_image(torch.nn.Conv3d(1, 8, 3), 10) == 2 * 8**3 * 27 * 8
