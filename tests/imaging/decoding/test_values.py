"""What was measured comes out as it was measured, and the picture that training sees is one window of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset

from scripts.imaging.decoding.presentation import Presentation
from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import Reason, Refusal
from scripts.imaging.decoding.values import Values, in_steps, require_few

RNG = np.random.default_rng(0)


def measured(values: Values) -> np.ndarray:
    return values.lowest + values.step * values.steps.astype(np.float64)


def shown(values: Values) -> np.ndarray:
    grey = np.clip((measured(values) - values.black) / (values.white - values.black), 0, 1)
    return 1 - grey if values.inverted else grey


@pytest.mark.parametrize("colours", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", ["file", "50,300", "minmax"])
def test_dicom_in_its_first_window_is_the_picture_that_training_sees(
    scans: Any, tmp_path: Path, colours: str, window: str
) -> None:
    stored = RNG.integers(0, 4096, (9, 7)).astype(np.uint16)
    about = {"PhotometricInterpretation": colours, "RescaleSlope": 2, "RescaleIntercept": -1024, "BitsStored": 12}
    path = scans.dicom(tmp_path / "a", stored, HighBit=11, WindowCenter=100, WindowWidth=900, **about)
    values = decoder().values(str(path), "", Presentation(window=window))
    assert (measured(values)[0] == 2.0 * stored - 1024).all()
    assert values.inverted is (colours == "MONOCHROME1")
    picture = decoder().read(str(path), "", Presentation(window=window), 32)
    assert np.abs(shown(values)[0] - picture).max() < 0.002  # LINEAR leaves half a value out at each end


def test_all_frames_or_one_of_them(scans: Any, tmp_path: Path) -> None:
    stored = RNG.integers(0, 4096, (4, 6, 5)).astype(np.uint16)
    path = str(scans.dicom(tmp_path / "a", stored, NumberOfFrames=4))
    assert (measured(decoder().values(path, "", Presentation())) == stored).all()
    assert (measured(decoder().values(path, "2", Presentation())) == stored[2:3]).all()
    with pytest.raises(Refusal) as refusal:
        decoder().values(path, "4", Presentation())
    assert refusal.value.reason is Reason.NO_SUCH_PICTURE


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nifti_slices_are_those_that_training_sees(scans: Any, tmp_path: Path, axis: int) -> None:
    path = str(tmp_path / "a.nii.gz")
    scans.nifti(Path(path), RNG.integers(-500, 900, (5, 6, 7)).astype(np.int16))
    values = decoder().values(path, f"{axis}/", Presentation())
    for index in range((5, 6, 7)[axis]):
        picture = decoder().read(path, f"{axis}/{index}", Presentation(), 32)
        assert np.allclose(shown(values)[index], picture, atol=1e-5)
        (one,) = measured(decoder().values(path, f"{axis}/{index}", Presentation()))
        assert (one == measured(values)[index]).all()


@pytest.mark.parametrize(
    ("about", "aspect"),
    [
        ({}, 1),
        ({"PixelSpacing": [2, 0.5]}, 4),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"PixelSpacing": [0, 1], "PixelAspectRatio": [3, 4]}, 1),
        ({"PixelAspectRatio": [3, 4]}, 0.75),
        ({"PixelSpacing": [9000, 1]}, 1),
    ],
)
def test_dicom_says_how_high_a_pixel_is_for_its_width(
    scans: Any, tmp_path: Path, about: dict[str, Any], aspect: float
) -> None:
    path = scans.dicom(tmp_path / "a", RNG.integers(0, 99, (4, 6)).astype(np.uint16), **about)
    assert decoder().values(str(path), "", Presentation()).aspect == pytest.approx(aspect)


def test_an_enhanced_file_says_it_of_its_frames(scans: Any, tmp_path: Path) -> None:
    measures = Dataset()
    measures.PixelSpacing = [1.5, 0.5]
    group = Dataset()
    group.PixelMeasuresSequence = [measures]
    frames = RNG.integers(0, 99, (2, 4, 6)).astype(np.uint16)
    path = scans.dicom(tmp_path / "a", frames, NumberOfFrames=2, SharedFunctionalGroupsSequence=[group])
    assert decoder().values(str(path), "", Presentation()).aspect == pytest.approx(3)


@pytest.mark.parametrize(("axis", "aspect"), [(0, 5 / 2), (1, 5 / 0.5), (2, 2 / 0.5)])
def test_nifti_says_it_of_the_slices_across_any_axis(tmp_path: Path, axis: int, aspect: float) -> None:
    affine = np.diag([-0.5, -2, 5, 1])[:, [1, 2, 0, 3]]  # stored in another order
    voxels = RNG.integers(0, 99, (6, 7, 5)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "a.nii")
    values = decoder().values(str(tmp_path / "a.nii"), f"{axis}/", Presentation())
    assert values.aspect == pytest.approx(aspect)


def test_floats_lose_no_more_than_a_step(scans: Any, tmp_path: Path) -> None:
    path, voxels = str(tmp_path / "a.nii"), RNG.normal(0, 1e-3, (5, 6, 7)).astype(np.float32)
    scans.nifti(Path(path), voxels)
    values = decoder().values(path, "2/", Presentation())
    assert np.allclose(np.sort(measured(values).ravel()), np.sort(voxels.ravel()), atol=values.step)
    assert values.step < 1e-6


def test_what_is_no_grey_picture_or_too_much_is_refused(scans: Any, tmp_path: Path) -> None:
    path = str(
        scans.dicom(tmp_path / "a", RNG.integers(0, 255, (4, 5, 3)).astype(np.uint8), PhotometricInterpretation="RGB")
    )
    with pytest.raises(Refusal) as refusal:
        decoder().values(path, "", Presentation())
    assert refusal.value.reason is Reason.UNSUPPORTED_KIND
    with pytest.raises(Refusal, match="too_large"):
        require_few(2**26 + 1)
    with pytest.raises(Refusal, match="non_finite"):
        in_steps(np.array([0.0, np.inf]), 1.0)


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.array([[-5.0, 70000.0]]), np.array([[3.0, 4.0]])])
def test_steps_go_back_to_values(values: np.ndarray) -> None:
    steps, lowest, step = in_steps(values, 1.0)
    assert np.allclose(lowest + step * steps, values, atol=step / 2) and step > 0
