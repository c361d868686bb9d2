"""8-bit ONNX that says the same on every processor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.quant_utils import quantize_data
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

EIGHT_BITS = {"quant_type": QuantType.QInt8, "axis": 0, "symmetric": True, "reduce_range": False}
"""How ONNX Runtime rounds the weights of a depthwise convolution, a scale a channel."""
MEAN = "_mean"
PRODUCTS = ("MatMul", "Gemm")
NORMALISATION = "LayerNormalization"


def quantised(model: ModelProto, images: Callable[[], Iterable[Tensor]]) -> ModelProto:
    """Return a model with integer weights, a scale a channel, and 8-bit activations.

    The ranges of activations are those of some images. A transformer is also tried with ranges that each image sets
    anew (``dynamic``), and the one of the two whose scores are nearer to the model's is returned.

    Weights have 7 bits: x86 processors without 8-bit dot products (VNNI) add two products of activation and weight in
    16 bits, where 2 x 255 x 64 has room and 2 x 255 x 127 has not. Depthwise convolutions, which add no such pairs and
    lose most by rounding, keep 8. What follows the last convolution, the head, stays in floats: it costs next to
    nothing, and distances, norms and softmaxes do not bear rounding; so do those within a transformer.

    Args:
        model: from images, its only input.
        images: returns batches of normalised images [B, 3, H, W] that the ranges of activations are taken from.
    """
    if not products(model):
        return with_fixed_ranges(model, images)
    return min(
        (with_fixed_ranges(model, images), with_dynamic_ranges(model)),
        key=lambda small: distance(model, small, images()),
    )


def with_dynamic_ranges(model: ModelProto) -> ModelProto:
    """Return a model whose matrix products, but those of the head, have integer weights and ranges of each image."""
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder, name) for name in ("source.onnx", "prepared.onnx", "target.onnx"))
        onnx.save(model, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        whole = onnx.load(prepared)
        del whole.graph.value_info[:]  # of weights that are turned now
        onnx.save(whole, prepared)
        quantize_dynamic(
            prepared,
            target,
            op_types_to_quantize=list(PRODUCTS),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in head_of(whole)],
        )
        return onnx.load(target)


def distance(model: ModelProto, other: ModelProto, images: Iterable[Tensor]) -> float:
    """Return the mean squared difference of what two models say."""
    sessions = [
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"])
        for one in (model, other)
    ]
    source = model.graph.input[0].name
    errors = []
    for batch in images:
        first, second = (session.run(None, {source: batch.cpu().numpy()})[0] for session in sessions)
        errors.append(np.square(first - second).mean())
    return float(np.mean(errors))


def with_fixed_ranges(model: ModelProto, images: Callable[[], Iterable[Tensor]]) -> ModelProto:
    """Return a model whose activations have the ranges that they have on ``images``; see :func:`quantised`."""
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder, name) for name in ("source.onnx", "prepared.onnx", "target.onnx"))
        onnx.save(model, source)  # both steps would write into a model given as an object
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        whole = onnx.load(prepared)
        correct_biases(whole, images())
        onnx.save(whole, prepared)
        quantize_static(
            prepared,
            target,
            _Batches(whole.graph.input[0].name, images()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", *PRODUCTS] if products(whole) else None,
            nodes_to_exclude=[node.name for node in head_of(whole)],
            extra_options={
                "TensorQuantOverrides": {
                    node.input[1]: [EIGHT_BITS] for node in convolutions(whole) if is_depthwise(whole, node)
                }
            },
        )
        return onnx.load(target)


def correct_biases(model: ModelProto, images: Iterable[Tensor]) -> None:
    """Change biases so that each convolution's mean output, away from the border, survives the rounding of weights.

    b <- b - (Q(W) - W) E[x]. Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias
    Correction (ICCV 2019), section 4.2, with E[x] as the whole model has it on the calibration images.

    Args:
        model: with weights and biases as initializers; changed in place.
        images: batches of normalised images [B, 3, H, W].
    """
    values = {value.name: value for value in model.graph.initializer}
    means = input_means(model, images)
    for node in convolutions(model):
        weight = numpy_helper.to_array(values[node.input[1]])
        change = (rounded(weight, seven_bits=not is_depthwise(model, node)) - weight).sum((2, 3))
        groups = groups_of(node)
        shift = (change.reshape(groups, -1, change.shape[1]) * means[node.input[0]].reshape(groups, 1, -1)).sum(2)
        if len(node.input) == 2:
            node.input.append(f"{node.output[0]}_bias")
            values[node.input[2]] = model.graph.initializer.add(name=node.input[2])
            bias = np.zeros(len(weight), np.float32)
        else:
            bias = numpy_helper.to_array(values[node.input[2]])
        values[node.input[2]].CopyFrom(
            numpy_helper.from_array((bias - shift.ravel()).astype(np.float32), node.input[2])
        )


def input_means(model: ModelProto, images: Iterable[Tensor]) -> dict[str, NDArray[Any]]:
    """Return the mean over images and places of each channel of what each convolution reads, by its name."""
    names = sorted({node.input[0] for node in convolutions(model)})
    watched = ModelProto()
    watched.CopyFrom(model)
    for name in names:
        watched.graph.node.append(onnx.helper.make_node("GlobalAveragePool", [name], [name + MEAN]))
        watched.graph.output.append(onnx.helper.make_tensor_value_info(name + MEAN, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    source = model.graph.input[0].name
    parts = [session.run([name + MEAN for name in names], {source: batch.cpu().numpy()}) for batch in images]
    return {name: np.concatenate(found).mean((0, 2, 3)) for name, *found in zip(names, *parts, strict=True)}


def rounded(weight: NDArray[Any], seven_bits: bool) -> NDArray[Any]:
    """Return weights [out, in, k, k] as ONNX Runtime rounds them, a scale for each ``out``."""
    channels = [quantize_data(one, TensorProto.INT8, symmetric=True, reduce_range=seven_bits) for one in weight]
    return np.stack([scale * whole.astype(np.float32) for _, scale, whole in channels])


def convolutions(model: ModelProto) -> list[NodeProto]:
    """Return the convolutions of a model, in order."""
    return [node for node in model.graph.node if node.op_type == "Conv"]


def products(model: ModelProto) -> list[NodeProto]:
    """Return the matrix products of a transformer, whose layers are normalised; of other models there are none."""
    if not any(node.op_type == NORMALISATION for node in model.graph.node):
        return []
    return [node for node in model.graph.node if node.op_type in PRODUCTS]


def head_of(model: ModelProto) -> list[NodeProto]:
    """Return the nodes after the backbone: after its last convolution or, of a transformer, its last normalisation."""
    nodes = list(model.graph.node)
    last = max(index for index, node in enumerate(nodes) if node.op_type in ("Conv", NORMALISATION))
    return nodes[last + 1 :]


def groups_of(node: NodeProto) -> int:
    """Return how many parts a convolution's channels fall into."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def is_depthwise(model: ModelProto, node: NodeProto) -> bool:
    """Return whether a convolution makes one output channel of each input channel."""
    weight = next(value for value in model.graph.initializer if value.name == node.input[1])
    return groups_of(node) == weight.dims[0] > 1


class _Batches(CalibrationDataReader):
    def __init__(self, name: str, images: Iterable[Tensor]) -> None:
        self.name = name
        self.images: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, Any]:
        batch = next(self.images, None)
        return {} if batch is None else {self.name: batch.cpu().numpy()}
