"""A slice or a volume of a NIfTI file: how it lies, what its grey values mean, and what is refused."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

from scripts.imaging.decoding.nifti import describe_nifti, read_nifti
from scripts.imaging.decoding.presentation import Presentation
from scripts.imaging.decoding.reasons import Reason, Refusal
from scripts.imaging.decoding.scans import make_selection

VOXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)  # axes lead left, posterior, inferior
ORIENTATIONS = [
    "".join(codes) for order in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*order)
]


def shown(path: str, picture: str = "2/3", **settings: Any) -> np.ndarray:
    return read_nifti(path, picture, Presentation(**settings))


def reason_of(path: str, picture: str = "2/3", **settings: Any) -> Reason:
    with pytest.raises(Refusal) as refusal:
        shown(path, picture, **settings)
    return refusal.value.reason


def stored_as(axcodes: str) -> np.ndarray:
    """Return the same body, stored along other axes."""
    return apply_orientation(VOXELS, ornt_transform(axcodes2ornt("LPI"), axcodes2ornt(axcodes)))


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_a_slice_looks_the_same_however_the_file_is_stored(tmp_path: Path, scans: Any, axcodes: str) -> None:
    path = scans.nifti(tmp_path / "a.nii", stored_as(axcodes), axcodes)
    for axis, expected in enumerate((VOXELS[2].T, VOXELS[:, 2].T, VOXELS[:, :, 2].T)):
        np.testing.assert_array_equal(np.rint(shown(path, f"{axis}/2") * 255), expected)


def test_other_axes_can_be_stated(tmp_path: Path, scans: Any) -> None:
    path = scans.nifti(tmp_path / "a.nii", VOXELS)
    np.testing.assert_array_equal(np.rint(shown(path, "2/0", axcodes="RAS") * 255), VOXELS[::-1, ::-1, -1].T)


def test_the_whole_volume_keeps_its_three_axes(tmp_path: Path, scans: Any) -> None:
    path = scans.nifti(tmp_path / "a.nii", stored_as("SAR"), "SAR")
    np.testing.assert_array_equal(np.rint(shown(path, "") * 255), VOXELS)


def test_the_middle_and_the_mean_of_all_slices(tmp_path: Path, scans: Any) -> None:
    path = scans.nifti(tmp_path / "a.nii", VOXELS)
    np.testing.assert_array_equal(shown(path, "0/middle"), shown(path, "0/2"))
    np.testing.assert_allclose(shown(path, "0/mean") * 255, VOXELS.mean(0).T, rtol=1e-5)


def test_colours_are_kept(tmp_path: Path, scans: Any) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = scans.nifti(tmp_path / "a.nii", np.ascontiguousarray(colours).view(kind)[..., 0])
    np.testing.assert_array_equal(np.rint(shown(path) * 255), colours[:, :, 3].swapaxes(0, 1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -100), (-0.5, 7)])
def test_a_window_is_in_scaled_units(tmp_path: Path, scans: Any, order: str, slope: float, intercept: float) -> None:
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(f"{order}i2")
    image = nibabel.Nifti1Image(VOXELS.astype(f"{order}i2"), np.diag([-1, -1, -1, 1]), header)
    image.header.set_slope_inter(slope, intercept)
    image.header["sform_code"] = 1
    nibabel.save(image, tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii")
    real = np.asarray(stored.dataobj)
    assert stored.header.endianness == order
    expected = np.clip((real[:, :, 3].T - (40 - 50)) / 100, 0, 1)
    np.testing.assert_allclose(shown(str(tmp_path / "a.nii"), window="40,100"), expected, atol=1e-5)
    expected = (real[:, :, 3].T - real.min()) / (real.max() - real.min())
    np.testing.assert_allclose(shown(str(tmp_path / "a.nii"), window="minmax"), expected, atol=1e-5)


def test_the_window_of_the_file_is_its_calibration(tmp_path: Path, scans: Any) -> None:
    real = VOXELS.astype(np.float32)
    path = scans.nifti(tmp_path / "a.nii", real, cal_min=50, cal_max=150)
    np.testing.assert_allclose(shown(path), np.clip((real[:, :, 3].T - 50) / 100, 0, 1), atol=1e-6)
    path = scans.nifti(tmp_path / "b.nii", real)
    np.testing.assert_allclose(shown(path), (real[:, :, 3].T - real.min()) / np.ptp(real), atol=1e-6)


def test_of_four_dimensions_a_volume_is_named(tmp_path: Path, scans: Any) -> None:
    series = np.stack([VOXELS, VOXELS[::-1]], axis=3)
    path = scans.nifti(tmp_path / "a.nii.gz", series)
    np.testing.assert_array_equal(np.rint(shown(path, "2/3/1") * 255), VOXELS[::-1, :, 3].T)
    assert reason_of(path, "2/3") == Reason.MANY_PICTURES
    assert reason_of(path, "2/3/2") == Reason.NO_SUCH_PICTURE
    assert describe_nifti(path, Presentation(axcodes="SAR"))["shape"] == [7, 6, 5, 2]


def test_volumes_that_follow_in_time_are_refused_as_such(tmp_path: Path, scans: Any) -> None:
    image = nibabel.load(scans.nifti(tmp_path / "apart.nii", np.stack([VOXELS, VOXELS[::-1]], axis=3)))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path := str(tmp_path / "a.nii"))
    assert reason_of(path, "2/3") == Reason.TIME_AXIS
    np.testing.assert_array_equal(np.rint(shown(path, "2/3/1") * 255), VOXELS[::-1, :, 3].T)


@pytest.mark.parametrize("picture", ["3/0", "2/7", "2/-1", "2/x", "x", "2/3/1"])
def test_a_slice_that_is_not_there_is_refused(tmp_path: Path, scans: Any, picture: str) -> None:
    assert reason_of(scans.nifti(tmp_path / "a.nii", VOXELS), picture) == Reason.NO_SUCH_PICTURE


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path, scans: Any, value: float) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[0, 0, 0] = value
    assert reason_of(scans.nifti(tmp_path / "a.nii", voxels)) == Reason.NON_FINITE


def test_an_affine_that_is_no_number_is_refused(tmp_path: Path, scans: Any) -> None:
    path = scans.nifti(tmp_path / "a.nii", VOXELS)
    content = bytearray(Path(path).read_bytes())
    content[280:284] = np.float32(np.nan).tobytes()  # srow_x
    Path(path).write_bytes(content)
    assert reason_of(path) == Reason.CORRUPT_HEADER


def test_what_does_not_say_how_it_lies_is_refused_unless_accepted(tmp_path: Path, scans: Any) -> None:
    path = scans.nifti(tmp_path / "a.nii", VOXELS)
    content = bytearray(Path(path).read_bytes())
    content[252:256] = bytes(4)  # qform_code, sform_code
    Path(path).write_bytes(content)
    assert reason_of(path) == Reason.UNKNOWN_ORIENTATION
    accepted = shown(path, accept=(Reason.UNKNOWN_ORIENTATION,))
    np.testing.assert_array_equal(np.rint(accepted * 255), VOXELS[:, :, 3].T)


def test_what_is_too_large_is_refused_by_its_header(tmp_path: Path, scans: Any) -> None:
    path = scans.nifti(tmp_path / "a.nii.gz", np.zeros((50, 50, 50), np.uint8))
    assert Path(path).stat().st_size < 1000
    assert reason_of(path, max_bytes=124_999) == Reason.TOO_LARGE
    assert shown(path, max_bytes=125_000).shape == (50, 50)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_truncated_file_is_refused(tmp_path: Path, scans: Any, suffix: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (30, 30, 30), dtype=np.uint8)
    path = Path(scans.nifti(tmp_path / f"a{suffix}", voxels))
    path.write_bytes(path.read_bytes()[:-20])
    assert reason_of(str(path)) == Reason.CORRUPT_PIXELS
    path.write_bytes(path.read_bytes()[:50])
    assert reason_of(str(path)) == Reason.CORRUPT_HEADER


@pytest.mark.parametrize("voxels", [VOXELS.astype(np.complex64), np.tile(VOXELS[..., None, None], (2, 1))])
def test_other_kinds_of_voxels_are_refused(tmp_path: Path, scans: Any, voxels: np.ndarray) -> None:
    path = scans.nifti(tmp_path / "a.nii", np.concatenate([voxels, voxels], axis=-1))
    assert reason_of(path) == Reason.UNSUPPORTED_KIND


def test_files_are_known_by_their_content(tmp_path: Path, scans: Any) -> None:
    plain = Path(scans.nifti(tmp_path / "good.nii", VOXELS)).read_bytes()
    files = {"T1": plain, "T1gz": gzip.compress(plain), "not_gz.nii.gz": plain, "is_gz.nii": gzip.compress(plain)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(np.rint(shown(str(tmp_path / name)) * 255), VOXELS[:, :, 3].T)
        assert describe_nifti(str(tmp_path / name), Presentation()) == {"shape": [5, 6, 7]}


def test_the_second_version_is_read_too(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(VOXELS, np.diag([-1, -1, -1, 1])), tmp_path / "a.nii")
    (tmp_path / "a.nii").rename(tmp_path / "a")
    np.testing.assert_array_equal(np.rint(shown(str(tmp_path / "a")) * 255), VOXELS[:, :, 3].T)


@pytest.mark.parametrize("pair", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
def test_half_of_a_pair_of_files_is_refused(tmp_path: Path, pair: Any) -> None:
    nibabel.save(pair(VOXELS, np.eye(4)), tmp_path / "a.img")
    assert reason_of(str(tmp_path / "a.hdr")) == Reason.UNSUPPORTED_KIND


@pytest.mark.parametrize("further", [(1,), (1, 1), (1, 1, 1)])
def test_axes_of_length_1_do_not_count(tmp_path: Path, scans: Any, further: tuple[int, ...]) -> None:
    path = scans.nifti(tmp_path / "a.nii", VOXELS.reshape(*VOXELS.shape, *further))
    truth = nibabel.load(path).get_fdata()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(np.rint(shown(path) * 255), truth.squeeze()[:, :, 3].T)
    np.testing.assert_array_equal(np.rint(shown(path, "") * 255), VOXELS)
    assert describe_nifti(path, Presentation()) == {"shape": [5, 6, 7]}


@pytest.mark.parametrize("further", [(2,), (1, 2), (2, 1)])
def test_several_volumes_may_lie_along_any_further_axis(tmp_path: Path, scans: Any, further: tuple[int, ...]) -> None:
    both = np.stack([VOXELS, 255 - VOXELS], axis=-1)
    path = scans.nifti(tmp_path / "a.nii", both.reshape(*VOXELS.shape, *further))
    np.testing.assert_array_equal(np.rint(shown(path, "2/3/1") * 255), 255 - VOXELS[:, :, 3].T)
    assert describe_nifti(path, Presentation()) == {"shape": [5, 6, 7, 2]}
    assert reason_of(path) == Reason.MANY_PICTURES


def test_a_file_of_two_axes_is_one_slice(tmp_path: Path, scans: Any) -> None:
    path = scans.nifti(tmp_path / "a.nii", VOXELS[:, :, 3])
    assert describe_nifti(path, Presentation()) == {"shape": [5, 6, 1]}
    np.testing.assert_array_equal(np.rint(shown(path, "2/0") * 255), VOXELS[:, :, 3].T)
    assert make_selection({}).references(path)[0] == [f"{path}#2/0"]
