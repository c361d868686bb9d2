"""How a model sees an image: the one description that training, inference and the edge make its input from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scripts.utils.errors import UserError

_PER_CHANNEL = {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": -1e6, "maximum": 1e6}}
_NUMBERS = {"type": ["number", "array"], "items": {"type": ["number", "array"], "items": {"type": "number"}}}
SCHEMA = {
    "type": "object",
    "required": ["size", "mean", "std"],
    "additionalProperties": False,
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 2048},
        "mean": _PER_CHANNEL,
        "std": {**_PER_CHANNEL, "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e6}},
        "colour": {
            "type": ["object", "null"],
            "properties": {"name": {"type": "string", "pattern": "^[a-z_]+$"}},
            "propertyNames": {"pattern": "^[a-z]"},
            "additionalProperties": _NUMBERS,
        },
        "presentation": {"type": ["object", "null"]},
        "dimensions": {"enum": [2, 3]},
    },
}
"""Its record as a JSON schema."""


@dataclass(frozen=True)
class ImageSpec:
    """How a model sees an image.

    Args:
        size: of all sides, in pixels.
        mean: of each channel, or one for all, of values 0..1.
        std: as the mean, above 0.
        colour: changes colours before the image is resized; see :func:`scripts.imaging.transforms.make_colour`.
        presentation: of DICOM and NIfTI files; see :func:`scripts.imaging.decoding.scans.make_selection`.
        dimensions: 2: images of three channels; 3: volumes of one.

    Raises:
        UserError: where the mean or the deviation has another number of channels.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]
    colour: Mapping[str, Any] | None = None
    presentation: Mapping[str, Any] | None = None
    dimensions: int = 2

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            given = len(getattr(self, name))
            if given not in (1, self.channels):
                raise UserError(f"'{name}' has {given} numbers, not {self.channels} (key 'image#{name}')")

    @property
    def channels(self) -> int:
        """Of an image that is read: red, green and blue, or the values of a volume."""
        return 3 if self.dimensions == 2 else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the network's input, without the batch: [C, H, W] or [C, D, H, W]."""
        return (self.channels, *[self.size] * self.dimensions)

    def shown(self, presentation: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return how DICOM and NIfTI files are shown, with settings over those of training."""
        return {**(self.presentation or {}), **(presentation or {})}

    def record(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)
