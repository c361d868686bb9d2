"""Saliency: Grad-CAM as its paper defines it, over the picture, as a PNG and in DICOM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, relu

from scripts import bundle_version
from scripts.deploy.dicom.dicom_result import NOT_VERIFIED, dicom_bytes
from scripts.deploy.dicom.structured_report import structured_report
from scripts.deploy.inference import ImageClassifier, Saliency, make_saliency
from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.inference.saliency import Drawing, secondary_capture
from scripts.imaging.decoding.dicom import OWN_MANUFACTURER
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.transforms import read_rgb
from scripts.imaging.transforms.scans import read_source_image
from scripts.model.decisions.results import Result
from scripts.model.networks import L2P, Bottleneck, CodaPrompt, Convolutions
from scripts.model.networks.adapters import Adapter, Prompts
from scripts.pictures.saliency import saliency_sheet
from scripts.utils.errors import UserError

PICTURE = np.random.default_rng(1).integers(0, 256, (50, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier(trained_model: Path) -> ImageClassifier:
    return load_image_classifier(trained_model)


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def is_sheet_of(drawing: Drawing, heat: Tensor, result: Result) -> bool:
    """Whether a drawing is that of a map over the picture, up to rounding."""
    places = interpolate(heat, PICTURE.shape[:2], mode="bilinear")[0, 0].numpy()
    predicted = result.predicted_class
    model = result.model
    notes = [NOT_VERIFIED, f"{model.name}, version {model.version}", f"{OWN_MANUFACTURER} {bundle_version()}"]
    expected = saliency_sheet(PICTURE, places, predicted, result.probabilities[predicted], notes)
    drawn = drawing.picture
    return drawn.shape == expected.shape and int(np.abs(drawn.astype(int) - expected).max()) <= 2


def test_it_is_grad_cam_of_the_predicted_class(classifier: ImageClassifier, image: str) -> None:
    result = classifier.classify(image)
    drawn = Saliency(classifier.network, classifier.prepare)(image, result)

    # the plain way: gradients of the class's logit, averaged over places, weigh the last map's channels
    network: Any = classifier.network
    backbone = network.backbone
    prepared = classifier.prepare({"image": image})["image"][None]
    with torch.enable_grad():
        _, maps = backbone.features_and_maps(prepared)
        last = maps[-1].detach().requires_grad_(True)
        logits = network.head(torch.stack([backbone.pool(last)], 1))
        (gradient,) = torch.autograd.grad(logits[0, result.model.classes.index(result.predicted_class)], last)
    heat = relu((gradient.mean((2, 3), keepdim=True) * last).sum(1, keepdim=True)).detach()
    stretched = interpolate(heat, prepared.shape[2:], mode="bilinear")
    assert heat.max() > 0
    assert drawn is not None and is_sheet_of(drawn, stretched / stretched.max(), result)


def test_a_map_that_the_head_reads_is_shown(make_model: Callable[..., Path], tmp_path: Path, image: str) -> None:
    sites = {"sites": ["features.3", "features.12", "features.15"]}
    described = {"backbone": "mobilenet_v2", "adapter": None, "branches": ["backbone"], "head": "levels", **sites}
    classifier = load_image_classifier(make_model(tmp_path / "model", **described))
    drawn = Saliency(classifier.network, classifier.prepare)(image, classifier.classify(image))
    flat = torch.zeros(1, 1, 4, 4)
    assert drawn is not None
    assert not is_sheet_of(drawn, flat, classifier.classify(image)), "the map after the last site has no part in it"


def test_of_an_indeterminate_result_nothing_is_shown(trained_model: Path, image: str) -> None:
    unsure = load_image_classifier(trained_model, threshold=1.0)
    assert Saliency(unsure.network, unsure.prepare)(image, unsure.classify(image)) is None


@pytest.mark.parametrize(
    ("backbone", "head", "adapter"),
    [
        *((backbone, head, None) for backbone in ("timm:test_vit", "swin_t") for head in ("unified", "levels")),
        ("timm:test_vit", "unified", L2P(length=3, chosen=2)),
        ("timm:test_vit", "unified", CodaPrompt(query="blocks.1")),
        ("timm:test_vit", "unified", Bottleneck()),
    ],
)
def test_maps_of_other_layouts_are_laid_out_first(
    backbone: str, head: str, adapter: Adapter | None, make_model: Callable[..., Path], tmp_path: Path, image: str
) -> None:
    described = {"backbone": backbone, "adapter": None, "branches": ["backbone"], "head": head, "sites": None}
    if adapter is not None:
        branches = ["backbone", "task0"] if adapter.gathers else ["merged"]
        described |= {"adapter": adapter.record(), "branches": branches}
    classifier = load_image_classifier(make_model(tmp_path / "model", **described, image={"size": 64}))
    result = classifier.classify(image)
    drawn = Saliency(classifier.network, classifier.prepare)(image, result)

    network: Any = classifier.network
    prepared, kept = classifier.prepare({"image": image})["image"][None], []
    layer = network.backbone.get_submodule(network.backbone.last_read())
    with torch.enable_grad(), layer.register_forward_hook(lambda module, x, y: kept.append(y)):
        logits = network.requires_grad_(True)(prepared)
        kept = kept[-1:]  # of the pass with prompts
        (gradient,) = torch.autograd.grad(logits[0, result.model.classes.index(result.predicted_class)], kept)
    special = 1 + (adapter.prepended if isinstance(adapter, Prompts) else 0)
    last, slope = (of_places(value.detach(), backbone, special) for value in (kept[0], gradient))
    heat = relu((slope.mean((2, 3), keepdim=True) * last).sum(1, keepdim=True))
    stretched = interpolate(heat, prepared.shape[2:], mode="bilinear")
    assert heat.max() > 0
    assert drawn is not None and is_sheet_of(drawn, stretched / stretched.max(), result)


def of_places(x: Tensor, backbone: str, special: int) -> Tensor:
    """A map [B, c, H, W] of tokens behind a class token and prompts, or of channels at the end."""
    if backbone == "swin_t":
        return x.movedim(3, 1)
    return x[:, special:].transpose(1, 2).unflatten(2, (4, 4))


def test_a_network_that_is_one_block_has_no_map(make_model: Callable[..., Path], tmp_path: Path, image: str) -> None:
    described = {"backbone": "timm:test_resnet", "adapter": None, "branches": ["backbone"], "sites": None}
    classifier = load_image_classifier(make_model(tmp_path / "model", **described))
    with pytest.raises(UserError, match="timm:test_resnet is not known by its blocks, .*: leave saliency out"):
        Saliency(classifier.network, classifier.prepare)(image, classifier.classify(image))


def test_the_network_stays_as_it_is(classifier: ImageClassifier, image: str) -> None:
    before = classifier.classify(image)
    hooks = sum(len(module._forward_hooks) for module in classifier.network.modules())
    Saliency(classifier.network, classifier.prepare)(image, before)
    assert classifier.classify(image) == before
    assert not classifier.network.training
    assert sum(len(module._forward_hooks) for module in classifier.network.modules()) == hooks == 0
    assert all(parameter.grad is None for parameter in classifier.network.parameters())


def test_a_capture_is_valid_and_the_report_shows_it(
    classifier: ImageClassifier, scans: Any, tmp_path: Path, is_valid_dicom: Callable[[Path], bool]
) -> None:
    reference = scans.dicom(tmp_path / "a", np.arange(1155, dtype=np.uint16).reshape(33, 35), Laterality="L")
    source, result = read_source_image(reference), classifier.classify(reference)
    assert source is not None
    drawing = Saliency(classifier.network, classifier.prepare)(reference, result)
    assert drawing is not None
    picture = drawing.picture
    capture = secondary_capture(picture, result, source)
    report = structured_report(result, source, [capture])
    for name, dataset in {"sc.dcm": capture, "sr.dcm": report}.items():
        (tmp_path / name).write_bytes(dicom_bytes(dataset))
        assert is_valid_dicom(tmp_path / name)
    read = pydicom.dcmread(tmp_path / "sc.dcm")
    assert np.array_equal(read.pixel_array, picture)
    assert read.StudyInstanceUID == source.header.StudyInstanceUID
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert read.SOPInstanceUID in [series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for series in evidence]
    assert str(read.SOPInstanceUID) in str(report.ContentSequence)
    assert len({capture.SeriesInstanceUID, report.SeriesInstanceUID, source.header.SeriesInstanceUID}) == 3
    assert capture.SOPInstanceUID == secondary_capture(picture, result, source).SOPInstanceUID
    assert report.SOPInstanceUID == structured_report(result, source, [capture]).SOPInstanceUID
    assert report.SOPInstanceUID != structured_report(result, source).SOPInstanceUID  # which shows nothing

    with pytest.raises(ImageRefused) as refusal:
        read_rgb(f"{tmp_path}/sc.dcm#?accept=derived,burned_in")
    assert refusal.value.reason is Reason.OWN_RESULT


@pytest.mark.parametrize(
    ("said", "written"), [(None, "YES"), ("", "YES"), ("YES", "YES"), ("NO", "NO"), ("no", "YES"), ("UNKNOWN", "YES")]
)
def test_only_an_image_that_says_so_has_no_name_in_its_pixels(
    said: str | None, written: str, classifier: ImageClassifier, scans: Any, tmp_path: Path
) -> None:
    stated = {} if said is None else {"BurnedInAnnotation": said}
    reference = scans.dicom(tmp_path / "a", np.zeros((33, 35), np.uint16), **stated) + "#?accept=burned_in"
    source, result = read_source_image(reference), classifier.classify(reference)
    assert source is not None
    assert secondary_capture(PICTURE, result, source).BurnedInAnnotation == written


def test_volumes_are_drawn_in_their_middle(make_model: Callable[..., Path], tmp_path: Path) -> None:
    image = {"size": 16, "mean": [0.5], "std": [0.2], "dimensions": 3}
    described = {"backbone": "resnet10_3d", "sites": ["layer2"], "adapter": Convolutions().record()}
    classifier = load_image_classifier(make_model(tmp_path / "model", **described, image=image))
    volume = np.random.default_rng(0).integers(0, 256, (21, 19, 17), dtype=np.uint8)
    np.save(tmp_path / "a.npy", volume)
    drawn = Saliency(classifier.network, classifier.prepare)(
        f"{tmp_path}/a.npy", classifier.classify(f"{tmp_path}/a.npy")
    )
    assert drawn is not None
    assert drawn.heat.shape == (19, 17) and min(drawn.picture.shape[:2]) > 19
    assert drawn.heats.shape == (16, 16, 16) and drawn.heats.max() == 1, "as the network sees it, slice by slice"
    middle = interpolate(torch.as_tensor(drawn.heats[None, None, 8]), (19, 17), mode="bilinear")[0, 0]
    assert np.allclose(drawn.heat, middle)


def test_a_model_of_several_branches_has_no_map(make_model: Callable[..., Path], tmp_path: Path, image: str) -> None:
    classifier = load_image_classifier(make_model(tmp_path / "model", branches=["task0", "task1"], head="others"))
    result = classifier.classify(image)
    with pytest.raises(UserError, match="several branches, .*: leave saliency out"):
        Saliency(classifier.network, classifier.prepare)(image, result)


def test_saliency_is_made_by_name(classifier: ImageClassifier) -> None:
    made = {kind: make_saliency(kind, classifier.network, classifier.prepare) for kind in (None, "png", "dicom", "seg")}
    assert made[None] is None
    assert made["png"].capture is None  # type: ignore[union-attr]
    with pytest.raises(UserError, match="saliency is 'jpg': give png or dicom or seg"):
        make_saliency("jpg", classifier.network, classifier.prepare)
