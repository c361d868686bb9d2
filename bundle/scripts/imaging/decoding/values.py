"""What a scanner measured, for who looks at it with a window of their own: 16 bits a value, and what they mean."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from scripts.imaging.decoding.reasons import Reason, Refusal

TOP = 2**16 - 1
MOST = 2**26
"""Values of one stack of pictures, at most: 128 MiB."""
MOST_ASPECT = 50.0
"""Of a pixel that somebody measured."""
_NUMBERS = ("lowest", "step", "black", "white", "inverted", "hounsfield", "aspect")


@dataclass(frozen=True)
class Values:
    """Grey pictures of one file, in the file's units: ``lowest + step * steps``.

    Attributes:
        steps: uint16 ``[D, H, W]``, rows first.
        lowest: value of step 0.
        step: between two steps; above 0.
        black: value that is shown black at first.
        white: value that is shown white at first.
        inverted: low values are bright (MONOCHROME1).
        hounsfield: the units are Hounsfield's.
        aspect: height of a pixel over its width.
    """

    steps: np.ndarray
    lowest: float
    step: float
    black: float
    white: float
    inverted: bool = False
    hounsfield: bool = False
    aspect: float = 1.0

    def numbers(self) -> dict[str, float | bool]:
        """Return all but the pictures."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def packed(self) -> bytes:
        """Return what a file holds of it: an npz archive."""
        file = io.BytesIO()
        np.savez_compressed(file, steps=self.steps, numbers=np.array([*self.numbers().values()], np.float64))
        return file.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> Values:
        """Return what :meth:`packed` has made a file of."""
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            lowest, step, black, white, inverted, hounsfield, aspect = archive["numbers"].tolist()
            return cls(archive["steps"], lowest, step, black, white, bool(inverted), bool(hounsfield), aspect)


def aspect_of(height: float, width: float) -> float:
    """Return the height of a pixel over its width; 1 where the file says nothing that makes sense."""
    if not (height > 0 and width > 0):
        return 1.0
    aspect = height / width
    return aspect if 1 / MOST_ASPECT <= aspect <= MOST_ASPECT else 1.0


def require_few(count: int) -> None:
    """Refuse more values than are handed out at once.

    Raises:
        Refusal: there are more than `MOST`.
    """
    if count > MOST:
        raise Refusal(Reason.TOO_LARGE)


def in_steps(values: np.ndarray, step: float) -> tuple[np.ndarray, float, float]:
    """Return values as steps from the lowest on, exactly where 65,536 of them reach, else in the steps that do.

    Args:
        values: finite numbers.
        step: that they are multiples of, counted from the lowest; 0: of none.

    Returns:
        uint16 of the same shape, the lowest value, and the step.

    Raises:
        Refusal: some are no numbers.
    """
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite([lowest, highest]).all():
        raise Refusal(Reason.NON_FINITE)
    if step <= 0 or (highest - lowest) / step > TOP:
        step = (highest - lowest) / TOP or 1.0
    return np.rint((values - lowest) / step).astype(np.uint16), lowest, step
