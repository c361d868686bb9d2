"""DICOM and NIfTI in MONAI pipelines; one picture is the same in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized
from PIL import Image
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.decoding.scans import is_scan, make_selection
from scripts.imaging.transforms import RGBReader, ScanReader, VolumeReader, file_of, is_volume, read_rgb, read_volume
from scripts.utils.errors import UserError

ROWS, COLUMNS = 40, 60  # neither square nor symmetric: the picture is brighter to the right and, less so, to the bottom
GREY = (2 * np.arange(ROWS)[:, None] + 2.9 * np.arange(COLUMNS)).astype(np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def written(folder: Path, pixels: np.ndarray, scans: Any) -> dict[str, str]:
    """Write a picture in every format that is read, and return the references."""
    colour = pixels.ndim == 3
    Image.fromarray(pixels).save(folder / "a.png")
    np.savez(folder / "a.npz", train_images=pixels[None])
    interpretation = {"PhotometricInterpretation": "RGB" if colour else "MONOCHROME2"}
    voxels = (np.ascontiguousarray(pixels).view(RGB24)[..., 0] if colour else pixels).T[:, :, None]
    flipped = np.ascontiguousarray(voxels[::-1, ::-1])
    return {
        "png": f"{folder}/a.png",
        "npz": f"{folder}/a.npz#train/0",
        **{
            f"dicom {syntax}": scans.dicom(folder / str(syntax), pixels, syntax, **interpretation)
            for syntax in ("1.2.840.10008.1.2", ExplicitVRBigEndian, RLELossless, JPEG2000Lossless)
        },
        "nifti": scans.nifti(folder / "a.nii.gz", voxels) + "#2/0",
        "nifti stored otherwise": scans.nifti(folder / "b.nii", flipped, "RAI") + "#2/0",
    }


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_one_picture_gives_equal_tensors_in_every_format(tmp_path: Path, scans: Any, pixels: np.ndarray) -> None:
    transform = Compose(
        [
            LoadImaged("image", reader=RGBReader(), image_only=True),
            EnsureChannelFirstd("image", channel_dim=-1),
            Resized("image", spatial_size=(20, 24), mode="bilinear", anti_aliasing=True),
        ]
    )
    references = written(tmp_path, pixels, scans)
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    resized = torch.as_tensor(transform({"image": references["png"]})["image"])
    assert resized.shape == (3, 20, 24)
    for name, reference in references.items():
        assert np.array_equal(read_rgb(reference), expected), name
        assert torch.equal(torch.as_tensor(transform({"image": reference})["image"]), resized), name


def test_the_reader_serves_any_pipeline(tmp_path: Path, scans: Any) -> None:
    pixels = (20 * GREY.astype(np.int16)) - 1000
    path = scans.dicom(tmp_path / "ct", pixels)
    load = LoadImaged("image", reader=ScanReader(window="40,400"), image_only=True, ensure_channel_first=True)
    image = torch.as_tensor(load({"image": path})["image"])
    assert image.shape == (1, ROWS, COLUMNS)
    np.testing.assert_allclose(image[0].numpy(), np.clip((pixels + 160) / 400, 0, 1), atol=1e-5)


def test_the_reader_gives_colours_frames_and_volumes(tmp_path: Path, scans: Any) -> None:
    def loaded(reader: ScanReader, path: str) -> np.ndarray:
        load = LoadImaged("image", reader=reader, image_only=True, ensure_channel_first=True, dtype=None)
        return np.asarray(load({"image": path})["image"])

    colour = scans.dicom(tmp_path / "colour", COLOUR, PhotometricInterpretation="RGB")
    assert np.array_equal(loaded(ScanReader(bits=8), colour), COLOUR.transpose(2, 0, 1))
    frames = np.stack([GREY, GREY // 2, GREY // 3])  # MONAI's own reader turns 3 frames into 3 columns
    path = scans.dicom(tmp_path / "frames", frames)
    assert np.array_equal(loaded(ScanReader("1", bits=8), path), frames[1][None])
    assert np.array_equal(loaded(ScanReader("1", bits=8), f"{path}#2"), frames[2][None])
    for depth in (3, 4):
        voxels = np.random.default_rng(0).integers(0, 256, (5, 6, depth), dtype=np.uint8)
        volume = scans.nifti(tmp_path / "volume.nii", voxels)
        assert np.array_equal(loaded(ScanReader(bits=8), volume), voxels[None])
        with pytest.raises(ImageRefused) as refusal:
            read_rgb(volume)
        assert refusal.value.reason == Reason.MANY_PICTURES


def test_a_refusal_reaches_the_user_through_monai_and_its_processes(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "scout", GREY, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    load = LoadImaged("image", reader=RGBReader(), image_only=True)
    with pytest.raises(ImageRefused) as refusal:
        load({"image": path})
    assert refusal.value.reason == Reason.LOCALIZER
    message = f"image {path} is refused, localizer: it is a localizer; accept those in 'presentation#accept'"
    assert str(refusal.value) == message
    with pytest.raises(RuntimeError, match="is refused, localizer"):
        list(DataLoader(Dataset([{"image": path}], load), num_workers=1))


def test_images_are_read_by_several_processes(tmp_path: Path, scans: Any) -> None:
    items = [{"image": scans.dicom(tmp_path / str(number), GREY // (number + 1))} for number in range(4)]
    read_rgb(items[0]["image"])  # the decoder of this process runs when the others are forked
    load = LoadImaged("image", reader=RGBReader(), image_only=True)
    batches = list(DataLoader(Dataset(items, load), batch_size=1, num_workers=2))
    for number, batch in enumerate(batches):
        assert np.array_equal(np.asarray(batch["image"][0, ..., 0]), GREY // (number + 1))


@pytest.mark.parametrize(
    ("pictures", "dicom", "nifti"),
    [
        ("only", [""], [""]),
        ("middle", ["#middle"], ["#1/middle"]),
        (2, ["#2"], ["#1/2"]),
        ("all", ["#0", "#1", "#2", "#3"], ["#1/0", "#1/1", "#1/2", "#1/3", "#1/4", "#1/5"]),
        ([1, 4, 2], ["#1", "#3"], ["#1/1", "#1/3"]),
    ],
    ids=str,
)
def test_the_pictures_of_a_file_that_count(
    tmp_path: Path, scans: Any, pictures: Any, dicom: list[str], nifti: list[str]
) -> None:
    frames = scans.dicom(tmp_path / "frames", np.stack([GREY] * 4))
    volume = scans.nifti(tmp_path / "volume.nii", np.zeros((5, 6, 7), np.uint8))
    single = scans.dicom(tmp_path / "single", GREY)
    selection = make_selection({"pictures": pictures, "axis": 1, "window": [1, 2]})
    assert selection.references(frames)[0] == [f"{frames}{part or '#'}?window=1,2" for part in dicom]
    assert selection.references(volume)[0] == [f"{volume}{part or '#'}?window=1,2" for part in nifti]
    if pictures in ("only", "middle"):
        assert selection.references(single)[0] == [f"{single}#?window=1,2"]


def test_a_volume_of_a_series_is_chosen_and_a_flat_volume_needs_no_choice(tmp_path: Path, scans: Any) -> None:
    series = scans.nifti(tmp_path / "a.nii", np.zeros((5, 6, 7, 3), np.uint8))
    assert make_selection({"pictures": "middle", "volume": 1}).references(series)[0] == [f"{series}#2/middle/1"]
    flat = scans.nifti(tmp_path / "b.nii", np.zeros((5, 6, 1), np.uint8))
    assert make_selection({}).references(flat)[0] == [f"{flat}#2/0"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pictures": "first"}, "pictures is 'first'"),
        ({"pictures": [1, 2]}, "pictures is '1,2'"),
        ({"pictures": [0, 9, 0]}, "pictures is '0,9,0'"),
        ({"axis": 3}, "axis is 3"),
        ({"volume": "last"}, "volume is 'last'"),
        ({"windows": "file"}, "unknown setting 'windows'"),
    ],
    ids=str,
)
def test_a_selection_that_means_nothing_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_selection(settings)


def test_the_file_of_an_image(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "a#b", GREY)
    assert file_of(path) == file_of(f"{path}#middle?window=1,2") == path
    assert file_of("/a/b.npz#train/3") == "/a/b.npz"
    assert is_scan(f"{path}#middle?window=1,2")
    assert not is_scan("/a/b.png")


def test_a_volume_is_its_axial_slices_one_after_the_other(scans: Any, tmp_path: Path) -> None:
    voxels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    path = scans.nifti(tmp_path / "a.nii.gz", voxels, "RAS")
    volume = read_volume(path)
    assert volume.shape == (5, 4, 3)
    for number, slice_ in enumerate(volume):
        assert np.array_equal(slice_, read_rgb(f"{path}#2/{number}")[..., 0])
    assert VolumeReader().pixels(path).shape == (5, 4, 3, 1)
    assert is_volume(path) and not is_volume(f"{path}#2/0")
    with pytest.raises(ImageRefused) as caught:
        read_rgb(path)
    assert caught.value.reason is Reason.MANY_PICTURES
    with pytest.raises(UserError, match="is no volume"):
        read_volume(f"{path}#2/0")
