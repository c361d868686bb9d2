"""An image becomes a report; what is not an image becomes a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage, SecondaryCaptureImageStorage, SegmentationStorage

from scripts.deploy.inference.drift import DriftMonitor
from scripts.deploy.inference.loading import load_image_classifier, load_reporting
from scripts.deploy.inference.saliency import make_saliency
from scripts.deploy.inference.serving import Served
from scripts.deploy.node.reporter import Reporter
from scripts.imaging.decoding.dicom import OWN_MANUFACTURER
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.model.decisions.outliers import OutlierRule

GREY = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)


@pytest.fixture(scope="module")
def classifier(trained_model: Path) -> Any:
    return load_image_classifier(trained_model)


@pytest.fixture
def reporter(classifier: Any) -> Reporter:
    return Reporter(lambda: (classifier, None))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Dataset | bytes], Path]:
    """Write an image to a file of its own."""

    def write(image: Dataset | bytes) -> Path:
        file = tmp_path / f"{len([*tmp_path.iterdir()])}.dcm"
        file.write_bytes(image if isinstance(image, bytes) else encoded(image))
        return file

    return write


def encoded(dataset: Dataset) -> bytes:
    with BytesIO() as file:
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()


def test_an_image_becomes_a_report_of_it(reporter: Reporter, scans: Any, written: Any) -> None:
    dataset = scans.make_dicom(GREY)
    (found,) = (pydicom.dcmread(BytesIO(report)) for report in reporter(written(dataset)))
    evidence = found.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert evidence.ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    assert found.StudyInstanceUID == dataset.StudyInstanceUID


def test_the_next_report_is_of_the_version_that_was_promoted(
    trained_model: Path, make_model: Any, scans: Any, written: Any, tmp_path: Path
) -> None:
    link = tmp_path / "promoted"
    link.symlink_to(trained_model)
    reporter = Reporter(Served(link, load_reporting).current)
    image = written(scans.make_dicom(GREY))
    first = pydicom.dcmread(BytesIO(reporter(image)[0]))
    link.unlink()
    link.symlink_to(make_model(tmp_path / "other", backbone="resnet18", sites=["layer4"]))
    second = pydicom.dcmread(BytesIO(reporter(image)[0]))
    assert "resnet18" in second.ManufacturerModelName
    assert first.DeviceSerialNumber != second.DeviceSerialNumber
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_the_same_image_gives_the_same_report(reporter: Reporter, scans: Any, written: Any) -> None:
    image = written(scans.make_dicom(GREY))
    first, second = (pydicom.dcmread(BytesIO(reporter(image)[0])) for _ in range(2))
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.ContentSequence == second.ContentSequence


def test_images_one_after_the_other_are_not_mixed_up(
    reporter: Reporter, classifier: Any, scans: Any, written: Any
) -> None:
    images = [written(scans.make_dicom(GREY // (1 + step), BitsStored=12)) for step in range(8)]
    together = [pydicom.dcmread(BytesIO(reporter(image)[0])).ContentSequence for image in images]
    alone = []
    for image in images:
        apart = Reporter(lambda: (classifier, None))
        alone.append(pydicom.dcmread(BytesIO(apart(image)[0])).ContentSequence)
    assert together == alone


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: b"", Reason.CORRUPT_HEADER),
        (lambda image: image[:-500], Reason.CORRUPT_PIXELS),
    ],
)
def test_a_broken_file_is_refused(change: Any, reason: Reason, reporter: Reporter, scans: Any, written: Any) -> None:
    with pytest.raises(ImageRefused) as caught:
        reporter(written(change(encoded(scans.make_dicom(GREY)))))
    assert caught.value.reason is reason


@pytest.mark.parametrize(("kind", "sop_class"), [("dicom", SecondaryCaptureImageStorage), ("seg", SegmentationStorage)])
def test_where_saliency_is_asked_for_the_report_shows_what_is_sent_before_it(
    kind: str, sop_class: UID, classifier: Any, scans: Any, written: Any, tmp_path: Path
) -> None:
    saliency = make_saliency(kind, classifier.network, classifier.prepare)
    files = Reporter(lambda: (classifier, saliency))(written(scans.make_dicom(GREY)))
    capture, report = (pydicom.dcmread(BytesIO(file)) for file in files)
    assert capture.SOPClassUID == sop_class
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert capture.SOPInstanceUID in str(report.ContentSequence)
    with pytest.raises(ImageRefused) as caught:
        Reporter(lambda: (classifier, None))(written(files[0]))
    assert caught.value.reason is Reason.OWN_RESULT


def test_an_image_that_came_under_another_uid_gets_no_report(reporter: Reporter, scans: Any, written: Any) -> None:
    dataset = scans.make_dicom(GREY)
    other = f"{dataset.SOPInstanceUID[:-1]}{(int(dataset.SOPInstanceUID[-1]) + 1) % 10}"
    image = encoded(dataset).replace(dataset.SOPInstanceUID.encode(), other.encode(), 1)  # in the meta information
    assert pydicom.dcmread(BytesIO(image)).SOPInstanceUID == dataset.SOPInstanceUID
    with pytest.raises(ImageRefused) as caught:
        reporter(written(image))
    assert caught.value.reason is Reason.CORRUPT_HEADER


def test_a_result_of_this_bundle_is_refused_as_one(reporter: Reporter, scans: Any, written: Any) -> None:
    with pytest.raises(ImageRefused) as caught:
        reporter(written(scans.make_dicom(GREY, Manufacturer=OWN_MANUFACTURER)))
    assert caught.value.reason is Reason.OWN_RESULT


def test_a_drift_is_said_in_the_log(
    classifier: Any,
    scans: Any,
    written: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = OutlierRule(np.zeros((1, 25)), np.eye(25), 1e9, tuple(map(float, range(1000, 1100))))
    monkeypatch.setattr(classifier, "model", replace(classifier.model, outliers=rule))
    reporter = Reporter(lambda: (classifier, None), DriftMonitor(20, 0.01))
    image = written(scans.make_dicom(GREY))
    with caplog.at_level(logging.WARNING):
        for _ in range(19):
            reporter(image)
        assert caplog.text == ""
        reporter(image)
    assert "Drift: the last 20 images differ from those that the model is for" in caplog.text
