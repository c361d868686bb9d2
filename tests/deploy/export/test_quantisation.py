"""The means of what a model computes survive its rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from scripts.deploy.export.exporter import only_convolutions, onnx_model
from scripts.deploy.export.quantisation import convolutions, correct_biases, is_depthwise, quantised, rounded
from scripts.model.networks import Classifier, Convolutions

PIXELS = torch.rand(999, 12, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 5, 5)  # no border matters


def one_convolution(groups: int, bias: bool) -> ModelProto:
    rng = np.random.default_rng(0)
    values = {"weight": rng.normal(size=(12, 12 // groups, 3, 3)), "bias": rng.normal(size=12)}
    names = ["weight", "bias"] if bias else ["weight"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", *names], ["y"], group=groups)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values[name].astype(np.float32), name) for name in names],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def computed(model: ModelProto, images: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {model.graph.input[0].name: images.numpy()})[0]


def round_weights(model: ModelProto) -> ModelProto:
    values = {value.name: value for value in model.graph.initializer}
    for node in convolutions(model):
        value = values[node.input[1]]
        weight = rounded(numpy_helper.to_array(value), seven_bits=not is_depthwise(model, node))
        value.CopyFrom(numpy_helper.from_array(weight, value.name))
    return model


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_of_each_channel_survives_the_rounding_of_weights(groups: int, bias: bool) -> None:
    model, few = one_convolution(groups, bias), PIXELS[:24]
    wanted = computed(model, few).mean((0, 2, 3))
    without = computed(round_weights(one_convolution(groups, bias)), few).mean((0, 2, 3))
    correct_biases(model, few.split(8))
    found = computed(round_weights(model), few).mean((0, 2, 3))
    assert np.abs(without - wanted).max() > 1e-4
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("groups", [1, 3, 12])
def test_weights_are_rounded_as_the_biases_expect_and_the_mean_survives(groups: int) -> None:
    model = one_convolution(groups, bias=True)
    before = model.SerializeToString()
    small = quantised(model, lambda: PIXELS.split(99))
    assert model.SerializeToString() == before
    values = {value.name: numpy_helper.to_array(value) for value in small.graph.initializer}
    whole, scale = values["weight_quantized"], values["weight_scale"].reshape(-1, 1, 1, 1)
    plain = numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_allclose(scale * whole, rounded(plain, seven_bits=groups < 12), rtol=1e-6)
    wanted, biased = computed(model, PIXELS), computed(round_weights(one_convolution(groups, bias=True)), PIXELS)
    found = computed(small, PIXELS)
    assert np.abs(found - wanted).max() < 0.3
    assert np.abs((found - wanted).mean((0, 2, 3))).max() < 0.5 * np.abs((biased - wanted).mean((0, 2, 3))).max()


def test_a_head_of_norms_and_softmaxes_says_what_it_said() -> None:
    torch.manual_seed(0)
    tasks = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c"]}]
    images = torch.randn(16, 3, 64, 64)
    network = Classifier("resnet18", "cosine", tasks, Convolutions().record(), ("merged",), image_size=64)
    model = onnx_model(only_convolutions(network), images[:4])
    wanted, found = (computed(one, images) for one in (model, quantised(model, lambda: images.split(8))))
    assert np.linalg.norm(found - wanted) < 0.3 * np.linalg.norm(wanted)
