"""Colour transforms that pathology, dermoscopy and X-ray expect, on scikit-image.

The functions take and give float arrays ``[3, H, W]``: red, green and blue with values 0..255. `StainNormalisationd`,
`ShadesOfGreyd` and `Clahed` are the same as MONAI dictionary transforms, to stand between ``EnsureChannelFirstd`` and
``Resized``. Being fixed they are part of the model: a run's config and ``network.json`` say which one it was trained
with (``{"name": ..., <its numbers>}``), and `make_colour` builds it from there. `RandStainJitterd` augments and leaves
no trace.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms.transform import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type
from skimage.color import hed_from_rgb, lab2rgb, rgb2lab, rgb_from_hed
from skimage.exposure import equalize_adapthist

from scripts.utils.errors import UserError

# The just noticeable difference in CIELAB (Mahy et al. 1994): what varies less is noise. Tissue varies more.
SMALLEST_DEVIATION = 2.3
# CLAHE's smallest region in pixels: the histogram of fewer says nothing.
SMALLEST_REGION = 8


def lab_statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of L, a and b (CIELAB) over an image, [3] each."""
    lab = rgb2lab(image / 255, channel_axis=0)
    return lab.mean(axis=(1, 2)), lab.std(axis=(1, 2))


def stain_normalisation(image: np.ndarray, mean: Sequence[float], deviation: Sequence[float]) -> np.ndarray:
    """Give an image the colour statistics of a reference.

    A channel of LAB that hardly varies is stretched no further than one that just visibly does, since only noise would
    grow; an image in which none does (glass, a black frame) shows no stain and stays as it is.

    Source: Reinhard et al., Color Transfer between Images (IEEE CG&A 2001), eq. 10-11, in CIELAB.

    Args:
        image: [3, H, W], values 0..255.
        mean: the reference's mean of L, a, b.
        deviation: the reference's standard deviation of L, a, b.
    """
    own_mean, own_deviation = lab_statistics(image)
    if own_deviation.max() < SMALLEST_DEVIATION:
        return image
    gain = np.asarray(deviation) / np.maximum(own_deviation, SMALLEST_DEVIATION)
    lab = rgb2lab(image / 255, channel_axis=0)
    lab = (lab - own_mean[:, None, None]) * gain[:, None, None] + np.asarray(mean)[:, None, None]
    lab[0] = lab[0].clip(0, 100)
    lab[2] = np.minimum(lab[2], 1.72 * (lab[0] + 16))  # bluer than no blue at all: lab2rgb would clip it with a warning
    return lab2rgb(lab, channel_axis=0) * 255


def shades_of_grey(image: np.ndarray, power: float) -> np.ndarray:
    """Take the colour of the light out of an image: the Minkowski means of red, green and blue become equal.

    The norm of the three means stays, and with it the brightness. A channel that is black everywhere stays black.

    Source: Finlayson and Trezzi, Shades of Gray and Colour Constancy (CIC 2004), eq. 4; for dermoscopy Barata et al.,
    Improving Dermoscopy Image Classification Using Color Constancy (IEEE JBHI 2015).

    Args:
        image: [3, H, W], values 0..255.
        power: p of the Minkowski norm; 1: grey world, towards infinity: white patch.
    """
    light = np.mean((image / 255.0) ** power, axis=(1, 2), dtype=np.float64) ** (1 / power)
    level = np.sqrt(np.mean(light**2))
    gain = np.divide(level, light, out=np.ones(3), where=light > 0)
    return (image * gain[:, None, None]).clip(0, 255)


def clahe(image: np.ndarray, clip_limit: float, tiles: int) -> np.ndarray:
    """Equalise the histogram of brightness (the largest of red, green, blue) region by region, its slope limited.

    scikit-image stretches the brightness to the full range as well; hue and saturation stay, and grey stays grey. An
    image of one brightness has no contrast to raise and stays as it is.

    Source: Zuiderveld, Contrast Limited Adaptive Histogram Equalization (Graphics Gems IV, 1994).

    Args:
        image: [3, H, W], values 0..255.
        clip_limit: 0..1, higher gives more contrast.
        tiles: regions along each side; in a small image fewer, of 8 pixels.
    """
    if np.ptp(image.max(axis=0)) == 0:
        return image
    region = [max(side // tiles, SMALLEST_REGION) for side in image.shape[1:]]
    pixels = np.moveaxis(image, 0, -1) / 255
    return np.moveaxis(equalize_adapthist(pixels, kernel_size=region, clip_limit=clip_limit), -1, 0) * 255


def stain_jitter(image: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Change how much haematoxylin, eosin and DAB an image shows.

    ``stain <- scale * stain + shift``, with stains in optical density (base 10) along the axes of Ruifrok and Johnston
    (2001). ``rgb2hed`` sets negative stains to zero, so that ``hed2rgb`` does not give the image back (on H&E tiles it
    is 7 of 255 off in the mean); here only scikit-image's axes are used, and ``scale = 1, shift = 0`` changes nothing.

    Source: Tellez et al. (2018), https://arxiv.org/abs/1808.05896, section III-B.

    Args:
        image: [3, H, W], values 0..255.
        scale: factor of each stain, [3].
        shift: what is added to each stain, [3].
    """
    density = -np.log10(np.maximum(image / 255, 1 / 255))
    stains = np.einsum("chw,cs->shw", density, hed_from_rgb)
    change = stains * (scale - 1)[:, None, None] + shift[:, None, None]
    return (image * 10 ** -np.einsum("shw,sc->chw", change, rgb_from_hed)).clip(0, 255)


class ColourTransformd(MapTransform):
    """Changes the colours of images ``[3, H, W]`` with values 0..255; type, dtype and metadata stay."""

    backend = [TransformBackends.NUMPY]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = convert_data_type(result[key], np.ndarray)[0]
            if image.ndim != 3:
                raise UserError("volumes have no colours to change: leave out the parts that do")
            result[key] = convert_to_dst_type(self.convert(image), result[key])[0]
        return result

    @abstractmethod
    def convert(self, image: np.ndarray) -> np.ndarray:
        """Return another image, ``image`` itself unchanged."""


class StainNormalisationd(ColourTransformd):
    """Dictionary form of `stain_normalisation`.

    Raises:
        UserError: unless mean and deviation are three numbers each, the deviations above 0.
    """

    def __init__(self, keys: KeysCollection, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__(keys)
        if len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0:
            raise UserError(
                f"stain_normalisation has mean {mean} and deviation {deviation}: give three numbers each, for L, a "
                "and b, deviations above 0 (key 'image#colour')"
            )
        self.mean = list(mean)
        self.deviation = list(deviation)

    def convert(self, image: np.ndarray) -> np.ndarray:
        return stain_normalisation(image, self.mean, self.deviation)


class ShadesOfGreyd(ColourTransformd):
    """Dictionary form of `shades_of_grey`.

    Raises:
        UserError: unless the power is at least 1.
    """

    def __init__(self, keys: KeysCollection, power: float) -> None:
        super().__init__(keys)
        if power < 1:
            raise UserError(f"shades_of_grey has power {power}: give at least 1 (key 'image#colour')")
        self.power = power

    def convert(self, image: np.ndarray) -> np.ndarray:
        return shades_of_grey(image, self.power)


class Clahed(ColourTransformd):
    """Dictionary form of `clahe`.

    Raises:
        UserError: unless the clip limit is between 0 and 1 and there is at least one tile.
    """

    def __init__(self, keys: KeysCollection, clip_limit: float, tiles: int) -> None:
        super().__init__(keys)
        if not 0 < clip_limit < 1 or tiles < 1:
            raise UserError(
                f"clahe has clip_limit {clip_limit} and tiles {tiles}: give a limit between 0 and 1 and at least one "
                "tile (key 'image#colour')"
            )
        self.clip_limit = clip_limit
        self.tiles = int(tiles)

    def convert(self, image: np.ndarray) -> np.ndarray:
        return clahe(image, self.clip_limit, self.tiles)


class RandStainJitterd(RandomizableTransform, ColourTransformd):
    """Applies `stain_jitter` with scales drawn from 1 - sigma..1 + sigma and shifts drawn from -sigma..sigma.

    Source: Tellez et al. (2019), https://arxiv.org/abs/1902.06543: sigma 0.05 is light, 0.2 strong. Their shifts
    have the unit of an older scikit-image; here, in optical density, the same sigma changes pixels half as much.

    Args:
        keys: which images; all of an item are given the same stains.
        sigma: 0..1, how far stains go; 0 leaves images as they are.
        mean: what was taken off the image's red, green and blue (0..1) before.
        std: what they were then divided by; without both the image has values 0..255.

    Raises:
        UserError: for another sigma.
    """

    def __init__(
        self,
        keys: KeysCollection,
        sigma: float,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1 / 255,
    ) -> None:
        RandomizableTransform.__init__(self)
        ColourTransformd.__init__(self, keys)
        if not 0 <= sigma < 1:
            raise UserError(f"the stain jitter's sigma is {sigma}: give 0 (none) or more, below 1 (argument 'sigma')")
        self.sigma = sigma
        self.black = np.broadcast_to(-np.asarray(mean) / np.asarray(std), 3)
        self.unit = np.broadcast_to(1 / (255 * np.asarray(std)), 3)
        self.scale = np.ones(3)
        self.shift = np.zeros(3)

    def randomize(self, data: Any = None) -> None:
        """Draw the stains of the next item."""
        self.scale = self.R.uniform(1 - self.sigma, 1 + self.sigma, 3)
        self.shift = self.R.uniform(-self.sigma, self.sigma, 3)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        return ColourTransformd.__call__(self, data)

    def convert(self, image: np.ndarray) -> np.ndarray:
        black, unit = self.black[:, None, None], self.unit[:, None, None]
        return stain_jitter((image - black) / unit, self.scale, self.shift) * unit + black


COLOURS: dict[str, type[ColourTransformd]] = {
    "stain_normalisation": StainNormalisationd,
    "shades_of_grey": ShadesOfGreyd,
    "clahe": Clahed,
}


def make_colour(keys: KeysCollection, description: Mapping[str, Any]) -> ColourTransformd:
    """Build the transform that ``{"name": one of COLOURS, <its numbers>}`` describes.

    Raises:
        UserError: when it is unknown, or its numbers are not those it takes.
    """
    settings = dict(description)
    name = settings.pop("name", None)
    _check_name(name)
    try:
        return COLOURS[name](keys, **settings)
    except TypeError as error:
        raise UserError(
            f"colour transform {name} cannot be built from {settings} ({error}): give its numbers"
        ) from error


def _check_name(name: object) -> None:
    if name not in COLOURS:
        raise UserError(f"unknown colour transform '{name}': choose among {', '.join(COLOURS)} (key 'image#colour')")
