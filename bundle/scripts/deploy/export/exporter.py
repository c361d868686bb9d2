"""Write a trained model as TorchScript, ONNX and 8-bit ONNX, pruned too, and say what each is worth beside torch."""

from __future__ import annotations

import copy
import io
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from scripts.deploy.edge.checksum import CHECKSUM, NO_SUM, with_checksum
from scripts.deploy.edge.classifier import METADATA
from scripts.deploy.export.quantisation import quantised
from scripts.imaging.image_spec import ImageSpec
from scripts.metrics.accuracy_matrix import accuracy, mean_class_recall
from scripts.metrics.findings import decisions
from scripts.model.folder import TrainedModel
from scripts.model.networks.backbones import WholeModel
from scripts.model.networks.cost import flops_per_image
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically

TORCH, TORCHSCRIPT, ONNX, INT8 = "torch", "model.ts", "model.onnx", "model.int8.onnx"
PRUNED, PRUNED_INT8 = "model.pruned.onnx", "model.pruned.int8.onnx"
REPORT = "export.json"
REMEDIES = {
    INT8: "calibrate on more images (key 'calibration_images')",
    PRUNED: "drop fewer channels or learn longer (keys 'pruning', 'distillation_epochs')",
    PRUNED_INT8: "calibrate on more images (key 'calibration_images')",
}
"""The files that may be worse than the model, and what helps."""
TURNS = 15  # in which latencies are measured
CHATTY = ("onnxscript", "onnx_ir")
"""Loggers that say of every node what was done to it."""
IMAGES, LOGITS = "images", "logits"
Scores = Callable[[Tensor], Tensor]
"""From normalised images [B, 3, H, W] to logits [B, C]."""


class Exporter:
    """Exports a model, and refuses what says something else, or is worse, than the model itself.

    Args:
        trained: the model.
        folder: where the files go.
        calibration: normalised images [B, 3, H, W] that the ranges of the 8-bit numbers are taken from.
        test: batches with ``image`` and ``label``.
        tolerance: how far logits in TorchScript and ONNX may be from torch's, in units of their largest magnitude.
        largest_drop: mean class recall that an 8-bit or a pruned model may lose, 0..1.
        prune: returns a smaller network, as :class:`scripts.deploy.export.pruning.Pruner` does; ``None``: no pruned
            file.

    Raises:
        UserError: for a network of volumes, or of images whose colours are changed first.
    """

    def __init__(
        self,
        trained: TrainedModel,
        folder: str,
        calibration: Callable[[], Iterable[Tensor]],
        test: Iterable[Mapping[str, Tensor]],
        tolerance: float,
        largest_drop: float,
        prune: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        check_exportable(trained.image)
        self.network = only_convolutions(trained.network)
        self.image, self.model = trained.image, trained.identity
        self.folder = Path(folder)
        self.calibration = calibration
        self.test = test
        self.tolerance = tolerance
        self.largest_drop = largest_drop
        self.prune = prune
        self.logger = logging.getLogger(__name__)

    def run(self) -> None:
        """Export, and write ``export.json``.

        Raises:
            UserError: when a file says something else than its network (then there are none), an 8-bit or a pruned
                model is too bad (its file is then not left there), or the folder cannot be written.
        """
        example = next(iter(self.calibration()))
        for name in (TORCHSCRIPT, ONNX, *REMEDIES, REPORT):
            (self.folder / name).unlink(missing_ok=True)
        networks = dict.fromkeys((TORCH, TORCHSCRIPT, ONNX, INT8), self.network)
        files = {
            TORCHSCRIPT: torchscript(self.network, example),
            **self.onnx_files(self.network, example, (ONNX, INT8)),
        }
        if self.prune is not None:
            networks |= dict.fromkeys((PRUNED, PRUNED_INT8), self.prune(self.network))
            files |= self.onnx_files(networks[PRUNED], example, (PRUNED, PRUNED_INT8))
        variants: dict[str, Scores] = {
            TORCH: self.network,
            **{name: scores(name, content) for name, content in files.items()},
        }
        for name in files.keys() - {INT8, PRUNED_INT8}:
            self.check(name, variants[name], networks[name], example)
        said = examine(variants, self.test, self.model.thresholds)
        drops = {
            name: said[TORCH]["mean_class_recall"] - said[name]["mean_class_recall"]
            for name in REMEDIES
            if name in said
        }
        bad = {name: drop for name, drop in drops.items() if drop > self.largest_drop}
        for name in files.keys() - bad.keys():
            write_atomically(self.folder / name, files[name])
        cost = self.costs(networks, files, latencies(variants, example[:1]))
        figures = {name: {**said[name], **cost[name]} for name in variants}
        write_atomically(self.folder / REPORT, json.dumps(figures, indent=4) + "\n")
        self.logger.info("Exported to %s:\n%s", self.folder, table(figures))
        if bad:
            raise UserError(refusal(bad, self.largest_drop, self.folder))

    def onnx_files(self, network: nn.Module, example: Tensor, names: tuple[str, str]) -> dict[str, bytes]:
        """Return a network as an ONNX file and as an 8-bit one, under their names."""
        plain = onnx_model(network, example)
        small = quantised(plain, self.calibration)
        return dict(zip(names, (self.described(plain), self.described(small)), strict=True))

    def costs(
        self, networks: Mapping[str, nn.Module], files: Mapping[str, bytes], seconds: Mapping[str, float]
    ) -> dict[str, dict[str, float | None]]:
        """Return what each costs: MiB of its file, GFLOPs of an image, and latency in units of that of ONNX."""
        return {
            name: {
                "mebibytes": len(files[name]) / 2**20 if name in files else None,
                "gflops": flops_per_image(network, self.image.size) / 1e9,
                "latency": seconds[name] / seconds[ONNX],
            }
            for name, network in networks.items()
        }

    def described(self, model: onnx.ModelProto) -> bytes:
        """Return the file, with all that the edge needs to know in it, and a checksum over the rest of it."""
        content = {
            "image": self.image.record(),
            "classes": list(self.model.classes),
            "model": self.model.record(),
            "outliers": None if self.model.outliers is None else self.model.outliers.record(),
        }
        onnx.helper.set_model_props(model, {METADATA: json.dumps(content), CHECKSUM: NO_SUM.decode()})
        return with_checksum(model.SerializeToString())

    @torch.inference_mode()
    def check(self, name: str, found: Scores, network: nn.Module, images: Tensor) -> None:
        """Compare what a file computes with what its network does.

        Raises:
            UserError: when they are not the same.
        """
        wanted = network(images)
        distance = float((found(images) - wanted).abs().max() / wanted.abs().max())
        if not distance <= self.tolerance:
            raise UserError(
                f"{self.folder / name} says something else than the model (logits differ by {distance:.1e} of the "
                f"largest, more than {self.tolerance:.1e}): it is not left there"
            )


def check_exportable(image: ImageSpec) -> None:
    """Refuse a model whose input the edge cannot make.

    Raises:
        UserError: says why.
    """
    if image.dimensions == 3:
        raise UserError("this model takes volumes, which the edge does not read: export one of images")
    if image.colour is not None:
        raise UserError(
            "this model's images have their colours changed first (image#colour), which the edge does not do: train "
            "one without"
        )


def only_convolutions(network: nn.Module) -> nn.Module:
    """Return a copy, in evaluation mode, whose transposed convolutions are plain ones, which quantise.

    One of stride 1 without padding is the convolution, on a map with k - 1 zeros around it, with its kernel turned
    round and its channels exchanged.
    """
    plain = copy.deepcopy(network).eval()
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ConvTranspose2d):
                setattr(module, name, _turned(child))
    return plain


def _turned(layer: nn.ConvTranspose2d) -> nn.Conv2d:
    assert set(layer.stride) == {1} and set(layer.padding) == {0} and layer.groups == 1
    height, width = layer.kernel_size
    margins = (height - 1, width - 1)
    plain = nn.Conv2d(
        layer.in_channels, layer.out_channels, (height, width), padding=margins, bias=layer.bias is not None
    )
    plain.weight.data = layer.weight.data.flip(2, 3).transpose(0, 1).contiguous()
    if layer.bias is not None:
        assert plain.bias is not None
        plain.bias.data = layer.bias.data
    return plain


def torchscript(network: nn.Module, example: Tensor) -> bytes:
    """Return a model as a TorchScript file holds it.

    Args:
        network: in evaluation mode.
        example: normalised images, that a network is traced with whose code cannot be compiled (timm's).
    """
    is_foreign = any(isinstance(module, WholeModel) for module in network.modules())
    compiled = torch.jit.trace(network, example) if is_foreign else torch.jit.script(network)
    file = io.BytesIO()
    torch.jit.save(compiled, file)
    return file.getvalue()


def load_torchscript(content: bytes) -> Scores:
    """Return what a TorchScript file computes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but what older runtimes read
        return torch.jit.load(io.BytesIO(content))


def onnx_model(network: nn.Module, example: Tensor) -> onnx.ModelProto:
    """Return a model in ONNX, for batches of any size.

    Args:
        network: in evaluation mode.
        example: normalised images, at least two.
    """
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[IMAGES],
            output_names=[LOGITS],
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def onnx_scores(content: bytes) -> Scores:
    """Return what an ONNX file computes."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {IMAGES: images.cpu().numpy()})[0])


def scores(name: str, content: bytes) -> Scores:
    """Return what a file of that name computes."""
    return load_torchscript(content) if name == TORCHSCRIPT else onnx_scores(content)


@torch.inference_mode()
def examine(
    variants: Mapping[str, Scores], test: Iterable[Mapping[str, Tensor]], thresholds: Sequence[float] | None = None
) -> dict[str, dict[str, float]]:
    """Return accuracy and mean class recall of each variant, and how often it agrees with the first, all 0..1.

    Args:
        variants: by name.
        test: batches with ``image`` and ``label``.
        thresholds: of several findings an image, of which each counts: see :func:`scripts.metrics.findings.decisions`.
    """
    labels: list[Tensor] = []
    said: dict[str, list[Tensor]] = {name: [] for name in variants}
    for batch in test:
        labels.append(batch["label"])
        for name, scores in variants.items():
            said[name].append(scores(batch["image"]))
    truth = torch.cat(labels).numpy()
    found = {name: torch.cat(parts) for name, parts in said.items()}
    if thresholds is None:
        predictions = {name: logits.argmax(1).numpy() for name, logits in found.items()}
    else:
        pairs = {name: decisions(truth, logits.numpy(), thresholds) for name, logits in found.items()}
        truth, predictions = next(iter(pairs.values()))[0], {name: own for name, (_, own) in pairs.items()}
    first = next(iter(predictions.values()))
    return {
        name: {
            "accuracy": accuracy(truth, own) or 0.0,
            "mean_class_recall": mean_class_recall(truth, own) or 0.0,
            "agreement": float((own == first).mean()),
        }
        for name, own in predictions.items()
    }


@torch.inference_mode()
def latencies(variants: Mapping[str, Scores], image: Tensor, turns: int = TURNS) -> dict[str, float]:
    """Return the median seconds of each variant for ``image``, [1, 3, H, W], measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(turns + 2):  # the first two warm up
        for name, compute in variants.items():
            started = time.perf_counter()
            compute(image)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


COLUMNS = {
    "MiB": ("mebibytes", "{:.1f}"),
    "GFLOPs": ("gflops", "{:.2f}"),
    "latency to ONNX": ("latency", "{:.2f}"),
    "accuracy": ("accuracy", "{:.1%}"),
    "MCR": ("mean_class_recall", "{:.1%}"),
    "agrees with torch": ("agreement", "{:.1%}"),
}


def table(figures: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return the figures, a line a variant."""
    rows = [
        [name, *("" if own[key] is None else shown.format(own[key]) for key, shown in COLUMNS.values())]
        for name, own in figures.items()
    ]
    return tabulate(rows, headers=["model", *COLUMNS], disable_numparse=True)


def refusal(drops: Mapping[str, float], largest: float, folder: Path) -> str:
    """Say which files are not left in a folder, why, and what helps.

    Args:
        drops: the mean class recall that each of them loses, 0..1.
        largest: what it may lose.
        folder: where the files are.
    """
    lost = ", ".join(f"{name} loses {100 * drop:.1f} points" for name, drop in drops.items())
    help_with = ", or ".join(dict.fromkeys(REMEDIES[name] for name in drops))
    return (
        f"{lost} of mean class recall, more than {100 * largest:.1f}: not left in {folder}; use {ONNX}, or {help_with}"
    )


def batches(dataset: Dataset, batch_size: int) -> Iterator[Tensor]:
    """Yield the images of a data set in batches."""
    for batch in DataLoader(dataset, batch_size=batch_size):
        yield batch["image"]


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` items at equal distances, or all where there are fewer."""
    step = max(len(items) / max(count, 1), 1.0)
    return [items[int(number * step)] for number in range(min(count, len(items)))]
