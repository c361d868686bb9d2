"""Say when the images that come are no longer like those that the model is for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import ks_2samp

from scripts.model.decisions.results import Result
from scripts.utils.errors import UserError

LEAST = 20
"""With fewer images nothing is said."""


@dataclass(frozen=True)
class Drift:
    """How the last images compare with those that the model is for.

    Attributes:
        images: how many were compared.
        p_value: how likely distances at least as different are of images of the same kind.
        alarm: whether that is under the level.
    """

    images: int
    p_value: float
    alarm: bool

    def record(self) -> dict[str, int | float | bool]:
        """Return it as JSON holds it."""
        return {"images": self.images, "p_value": self.p_value, "alarm": self.alarm}

    def __str__(self) -> str:
        """Say it in a line."""
        differ = "differ" if self.alarm else "do not differ"
        return (
            f"the last {self.images} images {differ} from those that the model is for (two-sample Kolmogorov-Smirnov "
            f"test of their distances, p = {self.p_value:.2g})"
        )


class DriftMonitor:
    """Compares the distances of every N images with the reference that the model carries: numbers, no images.

    Each image counts once, so that images of the same kind raise an alarm in a share ``level`` of the comparisons.
    ``comparisons`` and ``alarms`` say how many there were.

    Args:
        images: N, at least 20.
        level: p-value under which there is an alarm, in (0, 1).

    Raises:
        UserError: for numbers that mean nothing.
    """

    def __init__(self, images: int, level: float) -> None:
        if images < LEAST:
            raise UserError(f"drift_images is {images}: give a number from {LEAST} on (key 'drift_images')")
        if not 0 < level < 1:
            raise UserError(f"drift_level is {level}: give a number between 0 and 1 (key 'drift_level')")
        self.level = level
        self.alarms = 0
        self.comparisons = 0
        self._model = ""
        self._reference: tuple[float, ...] = ()
        self._distances: deque[float] = deque(maxlen=images)

    def add(self, result: Result) -> Drift | None:
        """Take a result; another model begins anew.

        Returns:
            The comparison, once N images have come since the last one.
        """
        if result.distance is None or result.model.outliers is None:
            return None
        if result.model.weights_sha256 != self._model:
            self._model, self._reference = result.model.weights_sha256, result.model.outliers.reference
            self._distances.clear()
        self._distances.append(result.distance)
        return self.compare() if len(self._distances) == self._distances.maxlen else None

    def last_of(self, results: Sequence[Result]) -> Drift | None:
        """Compare the last N of these images, or all where there are fewer; ``None`` where they are too few."""
        found = None
        for result in results[-(self._distances.maxlen or 0) :]:
            found = self.add(result)
        return found or self.compare()

    def compare(self) -> Drift | None:
        """Compare the images since the last comparison; ``None`` where they are too few."""
        if len(self._distances) < LEAST:
            return None
        p_value = float(ks_2samp(list(self._distances), self._reference).pvalue)
        images = len(self._distances)
        self._distances.clear()
        found = Drift(images, p_value, p_value < self.level)
        self.comparisons += 1
        self.alarms += found.alarm
        return found
