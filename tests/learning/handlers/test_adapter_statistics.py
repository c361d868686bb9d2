"""What strategies read of a task equals what the plainest loops measure; the auxiliary head is still there then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import AdapterStatisticsHandler
from scripts.learning.handlers.adapter_statistics import KINDS, input_gram
from scripts.model.networks import AdapterStatistics, ContinualNet, LowRank
from scripts.utils.errors import UserError


def extractor(network: ContinualNet, tiny: SimpleNamespace) -> FeatureExtractor:
    return FeatureExtractor(network, tiny.transform(), 2)


@pytest.fixture(scope="module")
def measured(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """All statistics of a task of two classes, three images each."""
    torch.manual_seed(0)
    (task,) = tiny.tasks(tmp_path_factory.mktemp("images"), [2], train=3)
    network = tiny.network(sizes=[2])
    network.add_auxiliary(3)
    network.train_only(["adapter", "auxiliary"])
    before = tiny.copy_of(network.state_dict())
    features = extractor(network, tiny)
    statistics = AdapterStatistics()
    handler = AdapterStatisticsHandler(network, statistics, features, list(KINDS))
    handler(SimpleNamespace(current_task=task))  # type: ignore[arg-type]
    assert not tiny.changed_keys(before, network.state_dict())
    return SimpleNamespace(network=network, task=task, features=features, found=statistics.tasks[0])


def test_images_are_counted_for_every_entry(measured: SimpleNamespace) -> None:
    state = measured.network.branch_state("task0")
    assert {key: float(value) for key, value in measured.found["samples"].items()} == dict.fromkeys(state, 6.0)


def test_the_auxiliary_head_is_copied(measured: SimpleNamespace) -> None:
    state = measured.network.auxiliary.state_dict()
    assert all(torch.equal(measured.found["auxiliary"][key], value) for key, value in state.items())


def test_fisher_sums_the_squared_gradients_of_drawn_labels(measured: SimpleNamespace) -> None:
    network, generator = measured.network, torch.Generator().manual_seed(0)
    parameters = dict(network.branch("task0").named_parameters())
    expected = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for (image,) in measured.features.images(measured.task.train, batch_size=1):
        scores = network(image.unsqueeze(0)).auxiliary[0].softmax(0)
        drawn = int(torch.multinomial(scores.detach(), 1, generator=generator))
        network.zero_grad()
        scores[drawn].log().backward()
        for name, value in parameters.items():
            expected[name] += value.grad**2
    assert measured.found["fisher"].keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(measured.found["fisher"][name], value, rtol=1e-3, atol=1e-9)
    assert any(bool(value.any()) for value in expected.values())


def test_every_convolution_of_the_adapters_has_a_gram_matrix(measured: SimpleNamespace) -> None:
    state = measured.network.branch_state("task0")
    kernels = {key for key, value in state.items() if value.dim() == 4}
    assert measured.found["gram"].keys() == kernels
    for key in kernels:
        gram, size = measured.found["gram"][key], state[key][0].numel()
        torch.testing.assert_close(gram.reshape(size, size), gram.reshape(size, size).T)


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(3, 4, bias=False), (5, 3)),
    (nn.Conv2d(3, 4, 3, bias=False), (2, 3, 6, 5)),
    (nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), (2, 3, 6, 5)),
    (nn.Conv3d(2, 3, 2, bias=False), (2, 2, 4, 3, 3)),
    (nn.ConvTranspose2d(3, 4, 3, bias=False), (2, 3, 4, 5)),
    (nn.ConvTranspose3d(2, 3, 2, bias=False), (1, 2, 3, 3, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_the_gram_matrix_says_how_large_a_layers_outputs_are(layer: Any, shape: tuple[int, ...]) -> None:
    # |W x|^2 summed over all positions is w' G w summed over the outputs, for any weight
    x: Tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    gram = input_gram(layer, x)
    single = gram.shape[: layer.weight.dim()]
    transposed = isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d))
    assert [side for side in single if side == 1] == [1]
    assert single[1 if transposed else 0] == 1
    size = int(torch.tensor(single).prod())
    rows = layer.weight.detach().double()
    rows = (rows.transpose(0, 1) if transposed else rows).reshape(-1, size)
    expected = layer(x).double().square().sum()
    torch.testing.assert_close((rows @ gram.reshape(size, size) @ rows.T).trace(), expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_kind_is_refused(tiny: SimpleNamespace, tmp_path: Path) -> None:
    network = tiny.network()
    with pytest.raises(UserError, match="unknown 'mean': choose some of samples, fisher, gram, auxiliary"):
        AdapterStatisticsHandler(network, AdapterStatistics(), extractor(network, tiny), ["mean"])


def test_what_low_rank_adapters_do_not_have_is_refused(tiny: SimpleNamespace) -> None:
    network = tiny.network(adapter=LowRank())
    with pytest.raises(UserError, match="'fisher' is measured of adapters' parameters, but of 'lora' products are"):
        AdapterStatisticsHandler(network, AdapterStatistics(), extractor(network, tiny), ["fisher"])
