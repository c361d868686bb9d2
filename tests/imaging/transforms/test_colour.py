"""Colour transforms do to an image what their papers say, and nothing to one that has no colour to change."""

from __future__ import annotations

import csv
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from skimage.color import hed2rgb, rgb2hed

from scripts.commands.configs import read_config
from scripts.imaging.transforms import COLOURS, RandStainJitterd, make_colour
from scripts.imaging.transforms.colour import clahe, lab_statistics, shades_of_grey, stain_jitter, stain_normalisation
from scripts.utils.errors import UserError

PARTS = Path(__file__).parents[3] / "bundle" / "configs" / "parts"
SETTINGS = {
    name: {key: value for key, value in read_config(PARTS / f"{name}.yaml")["image#colour"].items() if key != "name"}
    for name in COLOURS
}
REFERENCE = SETTINGS["stain_normalisation"]
PALE = {"mean": [60, 10, -5], "deviation": [8, 5, 4]}  # a reference that a screen can show all of


def colourful(low: float = 60, high: float = 160, side: int = 24) -> np.ndarray:
    """Return an image [3, H, W] whose channels differ in mean and deviation and touch neither end of the range."""
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 0.7, side)[None, :, None] + 0.3 * rng.random((3, side, side))
    return (low + (high - low) * smooth * np.array([1, 0.5, 0.8])[:, None, None]).astype(np.float32)


def constant(red: float, green: float, blue: float, side: int = 16) -> np.ndarray:
    return np.broadcast_to(np.float32([red, green, blue])[:, None, None], (3, side, side)).copy()


def stained(side: int = 24) -> np.ndarray:
    """Return an image [3, H, W] made of haematoxylin and eosin, as ``hed2rgb`` has them."""
    stains = np.random.default_rng(0).uniform(0.01, 0.12, (side, side, 3)) * [1, 1, 0.2]
    return np.moveaxis(hed2rgb(stains), -1, 0) * 255


def zip_image(path: Path, label: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        rows = csv.DictReader(io.TextIOWrapper(archive.open("labels.csv")))
        name = next(row["path"] for row in rows if row["label"] == label)
        return np.moveaxis(np.array(Image.open(archive.open(name)).convert("RGB")), -1, 0)


@pytest.fixture(scope="module")
def real_images(test_data: Path) -> list[np.ndarray]:
    """A tile of tissue, one of glass, two photographs of skin and an X-ray, uint8 [3, H, W]."""
    tiles, skin = test_data / "histopath_pack.zip", test_data / "skin8_isic_180.zip"
    with np.load(test_data / "pneumoniamnist_rebuilt.npz") as arrays:
        xray = arrays["test_images"][0]
    return [
        zip_image(tiles, "CRC7K/TUM"),
        zip_image(tiles, "KATHER2016/EMPTY"),
        zip_image(skin, "MEL"),
        zip_image(skin, "SCC"),
        np.repeat(xray[None], 3, axis=0),
    ]


def transforms() -> list[Any]:
    """Return every transform: the fixed ones as shipped, and a strong jitter."""
    fixed = [make_colour("image", {"name": name, **numbers}) for name, numbers in SETTINGS.items()]
    return [*fixed, RandStainJitterd("image", 0.2).set_random_state(0)]


MADE = {
    "white": constant(255, 255, 255),
    "black": constant(0, 0, 0),
    "grey": constant(127, 127, 127),
    "red": constant(255, 0, 0),
    "one pixel": np.float32([[[200]], [[30]], [[90]]]),
    "a row": colourful()[:, :1],
    "noise": np.random.default_rng(1).integers(0, 256, (3, 20, 30)).astype(np.float32),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transform", transforms(), ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("name", MADE)
def test_any_image_stays_an_image(transform: Any, name: str) -> None:
    image = torch.tensor(MADE[name])
    changed = transform({"image": image})["image"]
    assert changed.shape == image.shape
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 255.001
    assert torch.equal(image, torch.tensor(MADE[name]))  # the item that went in is not changed


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transform", transforms(), ids=lambda transform: type(transform).__name__)
def test_real_images_stay_images(transform: Any, real_images: list[np.ndarray]) -> None:
    for pixels in real_images:
        changed = transform({"image": torch.tensor(pixels, dtype=torch.float32)})["image"]
        assert changed.isfinite().all()
        assert changed.min() >= 0
        assert changed.max() <= 255.001


@pytest.mark.parametrize("transform", transforms(), ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("kind", [torch.Tensor, MetaTensor], ids=["plain", "meta"])
def test_type_dtype_and_metadata_stay(transform: Any, kind: type[torch.Tensor]) -> None:
    image = torch.tensor(colourful())
    item = {"image": MetaTensor(image, meta={"origin": "here"}) if kind is MetaTensor else image, "label": 3}
    changed = transform(item)
    assert type(changed["image"]) is kind
    assert changed["image"].dtype == torch.float32
    assert changed["label"] == 3
    if kind is MetaTensor:
        assert changed["image"].meta["origin"] == "here"


@pytest.mark.parametrize("transform", transforms(), ids=lambda transform: type(transform).__name__)
def test_a_volume_has_no_colours(transform: Any) -> None:
    with pytest.raises(UserError, match="volumes have no colours to change: leave out the parts that do"):
        transform({"image": torch.zeros(1, 4, 4, 4)})


@pytest.mark.parametrize("name", COLOURS)
def test_equal_settings_have_equal_pickles_and_others_have_not(name: str) -> None:
    description = {"name": name, **SETTINGS[name]}
    number = next(key for key in SETTINGS[name])
    other = [1, 2, 3] if isinstance(SETTINGS[name][number], list) else SETTINGS[name][number] / 2
    one, same, different = (
        pickle.dumps(make_colour("image", told))
        for told in (description, dict(description), {**description, number: other})
    )
    assert one == same != different


# -- stain normalisation --------------------------------------------------------------------------------------------


def test_normalised_stains_have_the_statistics_of_the_reference() -> None:
    mean, deviation = lab_statistics(stain_normalisation(colourful(), **PALE))
    assert mean == pytest.approx(PALE["mean"], abs=0.01)
    assert deviation == pytest.approx(PALE["deviation"], abs=0.01)


def test_a_normalised_tile_of_tissue_is_close_to_the_reference(real_images: list[np.ndarray]) -> None:
    before, after = (
        np.concatenate(lab_statistics(image)) - [*REFERENCE["mean"], *REFERENCE["deviation"]]
        for image in (real_images[0], stain_normalisation(real_images[0], **REFERENCE))
    )
    assert np.abs(after).max() < 3  # what lies outside of the colours that a screen has is cut off
    assert np.abs(after).max() < np.abs(before).max() / 3


def test_normalising_stains_again_changes_nothing() -> None:
    once = stain_normalisation(colourful(), **PALE)
    assert stain_normalisation(once, **PALE) == pytest.approx(once, abs=0.1)


def test_two_scanners_of_one_tissue_agree_once_normalised() -> None:
    tissue = stained()
    bright = tissue * 0.7 + 70
    assert np.abs(bright - tissue).mean() > 15
    one, two = (stain_normalisation(image, **REFERENCE) for image in (tissue, bright))
    assert np.abs(one - two).mean() < 5


@pytest.mark.parametrize("name", ["white", "black", "grey", "red", "one pixel"])
def test_an_image_of_one_colour_keeps_it(name: str) -> None:
    assert np.array_equal(stain_normalisation(MADE[name], **REFERENCE), MADE[name])
    assert clahe(MADE[name], **SETTINGS["clahe"]) == pytest.approx(MADE[name])


def test_glass_stays_glass(real_images: list[np.ndarray]) -> None:
    assert np.array_equal(stain_normalisation(real_images[1], **REFERENCE), real_images[1])


# -- shades of grey -------------------------------------------------------------------------------------------------


def minkowski_means(image: np.ndarray, power: float) -> np.ndarray:
    return (image.astype(float).reshape(3, -1) ** power).mean(axis=1) ** (1 / power)


@pytest.mark.parametrize("power", [1, 6])
def test_shades_of_grey_makes_the_minkowski_means_equal(power: float) -> None:
    image = colourful()
    before, after = minkowski_means(image, power), minkowski_means(shades_of_grey(image, power), power)
    assert np.ptp(before) > 10
    assert after == pytest.approx(np.full(3, after[0]))
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before))


def test_shades_of_grey_does_not_see_the_colour_of_the_light() -> None:
    image = colourful()
    light = np.array([1.2, 0.8, 0.5])[:, None, None]
    one, other = shades_of_grey(image, 6), shades_of_grey(image * light, 6)
    assert other / other.mean() == pytest.approx(one / one.mean())


def test_shades_of_grey_leaves_grey_and_black_as_they_are() -> None:
    grey = np.repeat(colourful()[:1], 3, axis=0)
    assert shades_of_grey(grey, 6) == pytest.approx(grey)
    assert np.array_equal(shades_of_grey(MADE["black"], 6), MADE["black"])


# -- CLAHE ----------------------------------------------------------------------------------------------------------


def local_contrast(image: np.ndarray, side: int = 7) -> float:
    """Return the mean over small regions of the deviation of brightness."""
    value = image.max(axis=0)
    rows, columns = (length // side * side for length in value.shape)
    blocks = value[:rows, :columns].reshape(rows // side, side, columns // side, side)
    return float(blocks.std(axis=(1, 3)).mean())


def test_clahe_raises_local_contrast(real_images: list[np.ndarray]) -> None:
    for image in (real_images[2], real_images[4]):
        assert local_contrast(clahe(image, **SETTINGS["clahe"])) > 1.3 * local_contrast(image)


def test_a_higher_clip_limit_gives_more_contrast(real_images: list[np.ndarray]) -> None:
    low, high = (local_contrast(clahe(real_images[2], limit, 8)) for limit in (0.005, 0.05))
    assert high > 1.3 * low


def test_clahe_leaves_grey_grey(real_images: list[np.ndarray]) -> None:
    red, green, blue = clahe(real_images[4], **SETTINGS["clahe"])
    assert np.array_equal(red, green)
    assert np.array_equal(red, blue)


def test_clahe_keeps_the_ratio_of_the_colours() -> None:
    image = colourful()
    changed = clahe(image, **SETTINGS["clahe"])
    lit = changed.max(axis=0) > 5
    before, after = image[:, lit], changed[:, lit]
    assert after / after.max(axis=0) == pytest.approx(before / before.max(axis=0), abs=0.01)


# -- stain jitter ---------------------------------------------------------------------------------------------------


def test_no_jitter_is_the_identity(real_images: list[np.ndarray]) -> None:
    for image in [*MADE.values(), *real_images]:
        changed = RandStainJitterd("image", sigma=0)({"image": torch.tensor(image, dtype=torch.float32)})["image"]
        assert np.abs(changed.numpy() - image).max() < 1e-3


def test_stains_are_changed_as_in_hed_space() -> None:
    image, scale, shift = stained(), np.array([1.1, 0.9, 1.2]), np.array([0.02, 0.01, 0.03])
    stains = rgb2hed(np.moveaxis(image, 0, -1) / 255) * scale + shift / 6  # its unit is six decades
    assert stain_jitter(image, scale, shift) == pytest.approx(np.moveaxis(hed2rgb(stains), -1, 0) * 255, abs=0.05)


def test_jitter_changes_stains_and_not_structure(real_images: list[np.ndarray]) -> None:
    tissue = torch.tensor(real_images[0], dtype=torch.float32)
    jitter = RandStainJitterd("image", 0.05).set_random_state(3)
    for _ in range(3):
        changed = jitter({"image": tissue})["image"]
        assert (changed - tissue).abs().mean() > 1
        grey = torch.stack([image.mean(dim=0).flatten() for image in (tissue, changed)])
        assert torch.corrcoef(grey)[0, 1] > 0.99


def test_jitter_is_seeded() -> None:
    item = {"image": torch.tensor(stained())}
    one, same, other = (RandStainJitterd("image", 0.1).set_random_state(seed) for seed in (1, 1, 2))
    first = one(item)["image"]
    assert torch.equal(first, same(item)["image"])
    assert not torch.equal(first, one(item)["image"])
    assert not torch.equal(first, other(item)["image"])


def test_jitter_of_a_normalised_image_is_the_normalised_jitter() -> None:
    image = torch.tensor(stained(), dtype=torch.float32)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.3, 0.2, 0.1])

    def normalise(pixels: torch.Tensor) -> torch.Tensor:
        return (pixels / 255 - mean[:, None, None]) / std[:, None, None]

    plain = RandStainJitterd("image", 0.1).set_random_state(1)
    normalised = RandStainJitterd("image", 0.1, mean.tolist(), std.tolist()).set_random_state(1)
    expected = normalise(plain({"image": image})["image"])
    assert normalised({"image": normalise(image)})["image"].allclose(expected, atol=1e-4)


# -- names and numbers ----------------------------------------------------------------------------------------------


def test_a_described_transform_is_the_one_that_is_made() -> None:
    description = {"name": "clahe", "clip_limit": 0.02, "tiles": 4}
    made = make_colour("image", json.loads(json.dumps(description)))
    image = colourful()
    assert np.array_equal(made.convert(image), clahe(image, 0.02, 4))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            {"name": "sepia"},
            r"unknown colour transform 'sepia': choose among stain_normalisation, .* \(key 'image#colour'\)",
        ),
        ({"power": 6}, "unknown colour transform 'None'"),
        ({"name": "shades_of_grey", "p": 6}, "shades_of_grey cannot be built from {'p': 6}"),
        ({"name": "shades_of_grey", "power": 0}, "power 0: give at least 1"),
        ({"name": "shades_of_grey", "power": "six"}, "cannot be built from {'power': 'six'}"),
        ({"name": "clahe", "clip_limit": 0, "tiles": 8}, "clip_limit 0 and tiles 8"),
        ({"name": "clahe", "clip_limit": 0.1, "tiles": 0}, "clip_limit 0.1 and tiles 0"),
        ({"name": "stain_normalisation", "mean": [1, 2, 3], "deviation": [1, 0, 3]}, "deviations above 0"),
        ({"name": "stain_normalisation", "mean": [1, 2], "deviation": [1, 1, 1]}, "three numbers each"),
    ],
)
def test_what_cannot_be_made_says_why(description: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_colour("image", description)


@pytest.mark.parametrize("sigma", [-0.1, 1])
def test_a_senseless_jitter_is_refused(sigma: float) -> None:
    with pytest.raises(UserError, match="the stain jitter's sigma is"):
        RandStainJitterd("image", sigma)


def test_the_shipped_numbers_are_those_of_every_transform() -> None:
    assert set(SETTINGS) == set(COLOURS)
    train = read_config(PARTS.parent / "train.json")
    assert train["image"]["colour"] is None
    assert [one["_target_"] for one in train["random_transforms"]] == ["RandFlipd"]
