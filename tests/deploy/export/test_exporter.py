"""What is exported says what the model says, has all that the edge needs, and is not left there when it is worse."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from scripts.deploy.edge.__main__ import main
from scripts.deploy.edge.classifier import EdgeClassifier
from scripts.deploy.export.exporter import (
    INT8,
    ONNX,
    PRUNED,
    PRUNED_INT8,
    REPORT,
    TORCHSCRIPT,
    Exporter,
    latencies,
    only_convolutions,
    onnx_model,
    onnx_scores,
    spread,
)
from scripts.deploy.export.pruning import drop_channels
from scripts.deploy.export.quantisation import groups_of
from scripts.deploy.inference.loading import load_image_classifier
from scripts.model.decisions.outliers import StatisticsSums, image_statistics, make_rule
from scripts.model.folder import TrainedModel
from scripts.model.networks import AttendedConvolutions, Classifier, Convolutions, SharedAdapters
from scripts.model.networks.adapters import Adapter
from scripts.utils.errors import UserError

BUNDLE = Path(__file__).resolve().parents[3] / "bundle"


def exporter(trained: Path, folder: Path, **changed: Any) -> Exporter:
    images = torch.randn(24, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    model = replace(TrainedModel.open(trained), **changed.pop("model", {}))
    with torch.no_grad():
        labels = model.network(images).argmax(1)  # the model is right by definition
    arguments: dict[str, Any] = {
        "trained": model,
        "folder": str(folder),
        "calibration": lambda: images.split(8),
        "test": [{"image": images, "label": labels}],
        "tolerance": 1e-3,
        "largest_drop": 0.5,
    }
    return Exporter(**{**arguments, **changed})


def narrower(network: nn.Module) -> nn.Module:
    """Return a network that is good for nothing, but has less to compute."""
    smaller = copy.deepcopy(network)
    drop_channels(smaller.backbone, 0.5, 40)
    return smaller


@pytest.fixture(scope="module")
def exported(trained_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of file, whatever it loses."""
    folder = tmp_path_factory.mktemp("export")
    exporter(trained_model, folder, prune=narrower, largest_drop=1.0).run()
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)).save(path)
    return str(path)


@pytest.mark.parametrize("kernel", [1, 2, 3, (3, 5)])
def test_a_transposed_convolution_is_rewritten_as_a_convolution(kernel: Any) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 5, kernel), nn.ConvTranspose2d(5, 2, 3, bias=False)
    )
    plain = only_convolutions(network)
    images = torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(plain(images), network(images))
    assert not any(isinstance(module, nn.ConvTranspose2d) for module in plain.modules())


def test_every_convolution_quantises_and_the_file_is_smaller(exported: Path) -> None:
    plain, small = onnx.load(exported / ONNX), onnx.load(exported / INT8)
    assert "ConvTranspose" not in {node.op_type for node in plain.graph.node}
    made_from = {name: node.op_type for node in small.graph.node for name in node.output}
    convolutions = [node for node in small.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 50
    assert all(made_from[name] == "DequantizeLinear" for node in convolutions for name in node.input[:2])
    assert (exported / INT8).stat().st_size < 0.4 * (exported / ONNX).stat().st_size


def test_no_pair_of_products_overflows_sixteen_bits(exported: Path) -> None:
    graph = onnx.load(exported / INT8).graph
    made_by = {name: node for node in graph.node for name in node.output}
    values = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    largest: dict[str, int] = {}
    for node in (node for node in graph.node if node.op_type == "Conv"):
        weight = values[made_by[node.input[1]].input[0]]
        assert weight.dtype == np.int8
        kind = "depthwise" if groups_of(node) == len(weight) else "dense"
        largest[kind] = max(largest.get(kind, 0), int(np.abs(weight.astype(int)).max()))
    assert 2 * 255 * 64 < 2**15 < 2 * 255 * 127
    assert largest == {"dense": 64, "depthwise": 127}


def test_the_head_stays_in_floats(exported: Path) -> None:
    nodes = list(onnx.load(exported / INT8).graph.node)
    head = nodes[1 + max(place for place, node in enumerate(nodes) if node.op_type == "Conv") :]
    integers = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in head if node.op_type in ("Gemm", "MatMul")]
    assert products
    assert not any(integers.intersection(node.input) for node in products)


def test_this_processor_computes_what_the_8_bit_numbers_say(exported: Path) -> None:
    images = torch.randn(24, 3, 40, 40, generator=torch.Generator().manual_seed(0)).numpy()
    plainly = onnxruntime.SessionOptions()  # integers are turned into floats, which are multiplied
    plainly.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    whole, found, wanted = (
        onnxruntime.InferenceSession(exported / name, options).run(None, {"images": images})[0]
        for name, options in ((ONNX, None), (INT8, None), (INT8, plainly))
    )
    assert np.linalg.norm(found - wanted) < 0.5 * np.linalg.norm(wanted - whole)


def test_the_figures_say_how_good_each_file_is(exported: Path) -> None:
    figures = json.loads((exported / REPORT).read_text())
    assert list(figures) == ["torch", TORCHSCRIPT, ONNX, INT8, PRUNED, PRUNED_INT8]
    assert all(figures[name]["mean_class_recall"] == 1 for name in ("torch", TORCHSCRIPT, ONNX))
    assert 0 <= figures[INT8]["agreement"] <= 1
    assert figures[ONNX]["latency"] == 1
    assert figures[INT8]["mebibytes"] == (exported / INT8).stat().st_size / 2**20


@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_takes_batches_of_any_size_and_says_what_torch_says(
    exported: Path, trained_model: Path, batch: int
) -> None:
    images = torch.randn(batch, 3, 40, 40)
    session = EdgeClassifier(exported / ONNX).session
    with torch.no_grad():
        expected = TrainedModel.open(trained_model).network(images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("head", "adapter", "branches"),
    [
        pytest.param("unified", AttendedConvolutions(), ["merged"], id="attention"),
        pytest.param(
            *("unified", SharedAdapters(Convolutions(), Convolutions(0.25)), ["merged"]),
            id="shared",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("others", Convolutions(), ["merged0", "merged1", "merged0"]), id="groups", marks=pytest.mark.slow
        ),
    ],
)
def test_adapters_of_each_kind_say_in_onnx_what_they_say_in_torch(
    head: str, adapter: Adapter, branches: list[str], tiny: SimpleNamespace
) -> None:
    tasks = [{"name": name, "classes": [f"{name}1", f"{name}2"]} for name in "abc"]
    network = Classifier("mobilenet_v2", head, tasks, adapter.record(), branches, tiny.sites, image_size=tiny.side)
    tiny.randomise(network)
    images = torch.randn(3, 3, tiny.side, tiny.side)
    plain = only_convolutions(network)
    with torch.no_grad():
        found = onnx_scores(onnx_model(plain, images[:2]).SerializeToString())(images)
        torch.testing.assert_close(found, network.eval()(images), atol=1e-4, rtol=1e-4)


def test_the_edge_says_of_an_image_what_every_other_door_says(exported: Path, trained_model: Path, image: str) -> None:
    expected = load_image_classifier(trained_model).classify(image)
    found = EdgeClassifier(exported / ONNX).classify(image)
    assert found["model"] == json.loads(json.dumps(expected.model.record()))
    assert found["predicted_class"] == expected.predicted_class
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-3)
    assert found["indeterminate"] is False


def test_the_edge_reads_dicom_as_every_other_door_does(
    exported: Path, trained_model: Path, scans: Any, tmp_path: Path
) -> None:
    grey = np.random.default_rng(1).integers(0, 4000, (60, 80), dtype=np.uint16)
    path = scans.dicom(tmp_path / "image.dcm", grey, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    other, edge = load_image_classifier(trained_model), EdgeClassifier(exported / ONNX)
    (reference,) = other.pictures(path)
    assert edge.pictures(path) == [reference]
    assert edge.classify(reference)["probabilities"] == pytest.approx(other.classify(reference).probabilities, abs=1e-3)


def test_what_is_an_outlier_is_one_at_the_edge_too(
    exported: Path, trained_model: Path, image: str, tmp_path: Path
) -> None:
    like = np.random.default_rng(1).normal(size=(30, 3, 40, 40)).astype(np.float32)
    statistics, sums = np.stack([image_statistics(part) for part in like]), StatisticsSums()
    sums.count(0, statistics)
    model = replace(TrainedModel.open(trained_model).identity, outliers=make_rule(sums, statistics, 0.9))
    (tmp_path / ONNX).write_bytes(
        exporter(trained_model, tmp_path, model={"identity": model}).described(onnx.load(exported / ONNX))
    )
    other = load_image_classifier(trained_model)
    other.model = model
    expected, found = other.classify(image), EdgeClassifier(tmp_path / ONNX).classify(image)
    assert (found["indeterminate"], found["doubt"], expected.doubt) == (True, "outlier", "outlier")
    assert found["distance"] == pytest.approx(expected.distance, rel=1e-3)


def test_a_threshold_and_a_temperature_travel_with_the_file(
    exported: Path, trained_model: Path, image: str, tmp_path: Path
) -> None:
    identity = TrainedModel.open(trained_model, temperature=50.0, threshold=0.9).identity
    decided = exporter(trained_model, tmp_path, model={"identity": identity})
    (tmp_path / ONNX).write_bytes(decided.described(onnx.load(exported / ONNX)))
    found = EdgeClassifier(tmp_path / ONNX).classify(image)
    expected = load_image_classifier(trained_model, temperature=50.0).classify(image)
    assert found["indeterminate"] is True
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-3)


def test_an_8_bit_model_that_is_worse_is_not_left_there(trained_model: Path, tmp_path: Path) -> None:
    (tmp_path / INT8).write_bytes(b"of an earlier export")
    flat = [torch.zeros(8, 3, 40, 40)]  # ranges of nothing
    torch.manual_seed(0)
    small = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(UserError, match=rf"loses .* points of mean class recall, more than 1.0.*use {ONNX}"):
        exporter(trained_model, tmp_path, calibration=lambda: flat, largest_drop=0.01, model={"network": small}).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ONNX, TORCHSCRIPT, REPORT])


def test_a_pruned_model_is_exported_and_the_edge_runs_it(exported: Path, trained_model: Path, image: str) -> None:
    figures = json.loads((exported / REPORT).read_text())
    assert figures[PRUNED]["gflops"] == figures[PRUNED_INT8]["gflops"] < 0.7 * figures[ONNX]["gflops"]
    assert figures[PRUNED]["mebibytes"] < 0.7 * figures[ONNX]["mebibytes"]
    for name in (PRUNED, PRUNED_INT8):
        found = EdgeClassifier(exported / name).classify(image)
        assert sum(found["probabilities"].values()) == pytest.approx(1)
        assert list(found["probabilities"]) == list(TrainedModel.open(trained_model).identity.classes)


@pytest.mark.slow
def test_a_pruned_model_that_is_worse_is_not_left_there_and_the_others_are(trained_model: Path, tmp_path: Path) -> None:
    (tmp_path / PRUNED).write_bytes(b"of an earlier export")
    with pytest.raises(
        UserError, match=rf"^{PRUNED} loses .*, {PRUNED_INT8} loses .*use {ONNX}, or drop fewer channels"
    ):
        exporter(trained_model, tmp_path, prune=narrower, largest_drop=0.3).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([INT8, ONNX, TORCHSCRIPT, REPORT])


def test_each_variant_is_measured_as_often_as_the_others() -> None:
    asked: list[str] = []
    variants = {name: lambda image, name=name: asked.append(name) for name in ("one", "other")}
    assert latencies(variants, torch.zeros(1, 3, 4, 4), turns=3).keys() == variants.keys()
    assert asked == ["one", "other"] * 5  # in turns, and two that warm up


def test_a_file_that_says_something_else_is_named(trained_model: Path, tmp_path: Path) -> None:
    one, images = exporter(trained_model, tmp_path), torch.randn(2, 3, 40, 40)
    one.check(ONNX, lambda images: one.network(images) * 1.0005, one.network, images)
    with pytest.raises(UserError, match=rf"{ONNX} says something else than the model .*5\.0e-02 of the"):
        one.check(ONNX, lambda images: one.network(images) * 1.05, one.network, images)
    with pytest.raises(UserError, match="says something else"):
        one.check(ONNX, lambda images: one.network(images) * float("nan"), one.network, images)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"mean": [0.5], "std": [0.5], "dimensions": 3}, "takes volumes"),
        ({"colour": {"name": "clahe"}}, "colours changed first"),
    ],
)
def test_what_the_edge_cannot_prepare_is_refused(
    changed: dict[str, Any], part: str, trained_model: Path, tmp_path: Path
) -> None:
    image = replace(TrainedModel.open(trained_model).image, **changed)
    with pytest.raises(UserError, match=part):
        exporter(trained_model, tmp_path, model={"image": image})


@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
def test_an_exported_model_that_was_changed_is_refused(exported: Path, place: float, tmp_path: Path) -> None:
    content = bytearray((exported / ONNX).read_bytes())
    content[int(place * len(content))] ^= 1
    (tmp_path / ONNX).write_bytes(content)
    with pytest.raises(
        UserError, match="is not as configs/export.json wrote it, its checksum differs: export it again"
    ):
        EdgeClassifier(tmp_path / ONNX)


def test_calibration_images_are_spread_over_all() -> None:
    assert spread(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert spread([1, 2], 5) == [1, 2]


def run_edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.deploy.edge", *arguments]
    return subprocess.run(command, cwd=BUNDLE, env=os.environ, capture_output=True, text=True, timeout=120)


def test_the_edge_imports_only_what_it_says(exported: Path, image: str) -> None:
    code = (
        "import sys; from scripts.deploy.edge.__main__ import main; assert main(sys.argv[1:]) == 0; "
        "found = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names); "
        "print(sorted(name for name in found if not name.startswith('_')), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, str(exported / INT8), image]
    done = subprocess.run(command, cwd=BUNDLE, env=os.environ, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["image"] == image
    imported = set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))
    assert {"numpy", "onnxruntime", "PIL"} <= imported
    assert not {"torch", "monai", "pydicom", "scipy", "torchvision", "onnx"} & imported


def test_a_folder_is_searched_and_what_is_refused_says_why(exported: Path, image: str, tmp_path: Path) -> None:
    Image.open(image).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    done = run_edge(str(exported / ONNX), str(tmp_path))
    broken, good = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 3
    assert (broken["refused"], Path(broken["image"]).name) == ("unreadable", "broken.png")
    assert good["predicted_class"] in good["probabilities"]


@pytest.mark.parametrize(
    ("content", "part"), [(None, "no exported model at"), (b"text", "is not as configs/export.json wrote it")]
)
def test_a_mistake_is_one_line(content: bytes | None, part: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), "image.png"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert part in said.err


def test_findings_are_exported_with_their_thresholds(
    make_model: Callable[..., Path], image: str, tmp_path: Path
) -> None:
    trained = make_model(tmp_path / "model", thresholds=[0.2, -0.1, 0.5])
    images = torch.randn(24, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = TrainedModel.open(trained).network(images)
    labels = (logits >= torch.tensor([0.2, -0.1, 0.5])).long()
    labels[0] = -1  # nobody has said
    exporter(trained, tmp_path / "out", test=[{"image": images, "label": labels}]).run()
    figures = json.loads((tmp_path / "out" / REPORT).read_text())
    assert figures["torch"]["accuracy"] == figures[TORCHSCRIPT]["accuracy"] == figures[ONNX]["agreement"] == 1.0
    said, edge = load_image_classifier(trained).classify(image), EdgeClassifier(tmp_path / "out" / ONNX)
    found = edge.classify(image)
    assert found["findings"] == list(said.findings or ())
    assert list(found["probabilities"].values()) == pytest.approx(list(said.probabilities.values()), abs=1e-4)
    assert edge.identity.thresholds == (0.2, -0.1, 0.5)
