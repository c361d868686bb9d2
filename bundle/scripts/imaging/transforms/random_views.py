"""Random views of an image, which self-supervised learning takes for one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.transforms import (
    Compose,
    RandFlip,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
    RandSpatialCrop,
    Resize,
)
from torch import Tensor
from torchvision.transforms import v2

from scripts.imaging.image_spec import ImageSpec

HUE = 0.25  # of the jitter: it changes colours more than the others do
DEVIATIONS = (0.1, 2.0)  # of the blur, in pixels


class RandomViews:
    """Draws a view of each image: a part of it at full size, mirrored, with other colours, grey or blurred.

    Chance is torch's. Of a volume a part is mirrored along any axis, its values are scaled and shifted, and it is
    smoothed. Source: Chen et al., Improved baselines with momentum contrastive learning (MoCo v2, 2020), section 2; the
    views of volumes are ours after that pattern.

    Args:
        spec: how the network sees images, whose normalisation is undone before colours change.
        smallest: share of an image that a view shows at least.
        jitter: of brightness, contrast and saturation, and four times that of hue, in shares.
        jittered: how likely colours change.
        grey: how likely colours are left out.
        blurred: how likely it is blurred.
    """

    def __init__(
        self,
        spec: ImageSpec,
        smallest: float = 0.2,
        jitter: float = 0.4,
        jittered: float = 0.8,
        grey: float = 0.2,
        blurred: float = 0.5,
    ) -> None:
        if spec.dimensions == 2:
            self.view = _of_images(spec, smallest, jitter, jittered, grey, blurred)
        else:
            self.view = _of_volumes(spec, smallest, jitter, jittered, blurred)

    def __call__(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W], or volumes [B, 1, D, H, W], to as many of their shape."""
        return torch.stack([self.view(image) for image in images])


def _of_images(
    spec: ImageSpec, smallest: float, jitter: float, jittered: float, grey: float, blurred: float
) -> Callable[[Tensor], Tensor]:
    inverse = [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    odd = spec.size // 20 * 2 + 1  # SimCLR's kernel: a tenth of the image
    return v2.Compose(
        [
            v2.Normalize(inverse, [1 / std for std in spec.std]),
            v2.RandomResizedCrop(spec.size, (smallest, 1.0), antialias=True),
            v2.RandomApply([v2.ColorJitter(jitter, jitter, jitter, jitter * HUE)], jittered),
            v2.RandomGrayscale(grey),
            v2.RandomApply([v2.GaussianBlur(odd, DEVIATIONS)], blurred),
            v2.RandomHorizontalFlip(),
            v2.Normalize(list(spec.mean), list(spec.std)),
        ]
    )


def _of_volumes(
    spec: ImageSpec, smallest: float, jitter: float, jittered: float, blurred: float
) -> Callable[[Tensor], Tensor]:
    sides = spec.shape[1:]
    least = [max(1, round(side * smallest ** (1 / len(sides)))) for side in sides]
    steps = Compose(
        [
            RandSpatialCrop(least, random_size=True),
            Resize(sides, mode="trilinear"),
            *(RandFlip(0.5, axis) for axis in range(len(sides))),
            RandScaleIntensity(jitter, jittered),
            RandShiftIntensity(jitter, prob=jittered),
            RandGaussianSmooth(DEVIATIONS, DEVIATIONS, DEVIATIONS, blurred),
        ]
    )

    def view(volume: Tensor) -> Tensor:
        steps.set_random_state(int(torch.randint(2**31, ())))
        seen: Tensor = steps(volume)
        return seen.as_subclass(Tensor)

    return view
