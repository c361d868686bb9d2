"""The means of what a model computes survive its rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from scripts.inference.quantisation import convolutions, correct_biases, is_depthwise, quantised, rounded

PIXELS = torch.rand(24, 6, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 9, 9)  # no border matters


def one_convolution(groups: int, bias: bool) -> ModelProto:
    rng = np.random.default_rng(0)
    values = {"weight": rng.normal(size=(12, 6 // groups, 3, 3)), "bias": rng.normal(size=12)}
    names = ["weight", "bias"] if bias else ["weight"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", *names], ["y"], group=groups)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values[name].astype(np.float32), name) for name in names],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def computed(model: ModelProto, images: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images.numpy()})[0]


def round_weights(model: ModelProto) -> ModelProto:
    values = {value.name: value for value in model.graph.initializer}
    for node in convolutions(model):
        value = values[node.input[1]]
        weight = rounded(numpy_helper.to_array(value), seven_bits=not is_depthwise(model, node))
        value.CopyFrom(numpy_helper.from_array(weight, value.name))
    return model


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_of_each_channel_survives_the_rounding_of_weights(groups: int, bias: bool) -> None:
    model = one_convolution(groups, bias)
    wanted = computed(model, PIXELS).mean((0, 2, 3))
    without = computed(round_weights(one_convolution(groups, bias)), PIXELS).mean((0, 2, 3))
    correct_biases(model, PIXELS.split(8))
    found = computed(round_weights(model), PIXELS).mean((0, 2, 3))
    assert np.abs(without - wanted).max() > 1e-4
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_a_model_given_stays_as_it_is() -> None:
    model = one_convolution(1, bias=True)
    before = model.SerializeToString()
    small = quantised(model, lambda: PIXELS.split(8))
    assert model.SerializeToString() == before
    assert np.abs(computed(small, PIXELS) - computed(model, PIXELS)).max() < 0.1
