"""Saliency: Grad-CAM as its paper defines it, over the picture, as a PNG and in DICOM."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, relu

from scripts.commands.model import load_image_classifier
from scripts.decoding.reasons import ImageRefused, Reason
from scripts.errors import UserError
from scripts.inference import ImageClassifier, Saliency, make_saliency, structured_report
from scripts.inference.dicom_result import dicom_bytes
from scripts.inference.saliency import overlay, png_bytes, secondary_capture
from scripts.transforms import read_rgb
from scripts.transforms.scans import read_source

PICTURE = np.random.default_rng(1).integers(0, 256, (50, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier(trained_model: Path) -> ImageClassifier:
    return load_image_classifier(trained_model)


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


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
    expected = overlay(PICTURE, stretched / stretched.max())
    assert heat.max() > 0
    assert np.abs(drawn.astype(int) - expected).max() <= 1


def test_a_map_that_the_head_reads_is_shown(make_model: Callable[..., Path], tmp_path: Path, image: str) -> None:
    sites = {"sites": ["features.3", "features.12", "features.15"]}
    described = {"backbone": "mobilenet_v2", "adapter": None, "branches": ["backbone"], "head": "levels", **sites}
    classifier = load_image_classifier(make_model(tmp_path / "model", **described))
    drawn = Saliency(classifier.network, classifier.prepare)(image, classifier.classify(image))
    assert not np.array_equal(drawn, PICTURE), "the map after the last site has no part in the answer"


def test_the_network_stays_as_it_is(classifier: ImageClassifier, image: str) -> None:
    before = classifier.classify(image)
    hooks = sum(len(module._forward_hooks) for module in classifier.network.modules())
    Saliency(classifier.network, classifier.prepare)(image, before)
    assert classifier.classify(image) == before
    assert not classifier.network.training
    assert sum(len(module._forward_hooks) for module in classifier.network.modules()) == hooks == 0
    assert all(parameter.grad is None for parameter in classifier.network.parameters())


def test_nothing_is_coloured_where_nothing_speaks_for_the_class() -> None:
    assert np.array_equal(overlay(PICTURE, torch.zeros(1, 1, 4, 4)), PICTURE)
    coloured = overlay(PICTURE, torch.ones(1, 1, 4, 4))
    assert coloured.shape == PICTURE.shape and coloured[..., 0].min() >= 153  # 0.6 x 255


def test_a_png_holds_the_picture() -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(PICTURE)))), PICTURE)


def test_a_capture_is_valid_and_the_report_shows_it(
    classifier: ImageClassifier, scans: Any, tmp_path: Path, is_valid_dicom: Callable[[Path], bool]
) -> None:
    reference = scans.dicom(tmp_path / "a", np.arange(1155, dtype=np.uint16).reshape(33, 35), Laterality="L")
    source, result = read_source(reference), classifier.classify(reference)
    assert source is not None
    picture = Saliency(classifier.network, classifier.prepare)(reference, result)
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


def test_volumes_are_drawn_in_their_middle(make_model: Callable[..., Path], tmp_path: Path) -> None:
    described = {"backbone": "resnet10_3d", "sites": ["layer2"], "adapter": "conv", "mean": [0.5], "std": [0.2]}
    classifier = load_image_classifier(make_model(tmp_path / "model", **described, image_size=16))
    volume = np.random.default_rng(0).integers(0, 256, (21, 19, 17), dtype=np.uint8)
    np.save(tmp_path / "a.npy", volume)
    assert classifier.suffixes == (".npy",)
    drawn = Saliency(classifier.network, classifier.prepare)(
        f"{tmp_path}/a.npy", classifier.classify(f"{tmp_path}/a.npy")
    )
    assert drawn.shape == (19, 17, 3)


def test_a_model_of_several_branches_has_no_map(make_model: Callable[..., Path], tmp_path: Path, image: str) -> None:
    classifier = load_image_classifier(make_model(tmp_path / "model", branches=["task0", "task1"], head="others"))
    result = classifier.classify(image)
    with pytest.raises(UserError, match="several branches, .*: leave saliency out"):
        Saliency(classifier.network, classifier.prepare)(image, result)


def test_saliency_is_made_by_name(classifier: ImageClassifier) -> None:
    made = {kind: make_saliency(kind, classifier.network, classifier.prepare) for kind in (None, "png", "dicom")}
    assert made[None] is None
    assert [made[kind].captures for kind in ("png", "dicom")] == [False, True]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="saliency is 'jpg': give png or dicom"):
        make_saliency("jpg", classifier.network, classifier.prepare)
