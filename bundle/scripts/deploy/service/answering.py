"""The classifier behind the routes: every image passes through few threads, each answer comes from one version."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from scripts.deploy.inference.classification import ImageClassifier
from scripts.deploy.inference.saliency import Drawing, Saliency
from scripts.deploy.inference.serving import Served
from scripts.deploy.service.uploads import NPZ, as_file, chosen, pictures_of
from scripts.deploy.service.views import View, view_of_pixels, view_of_values
from scripts.imaging.decoding.kinds import kind_of
from scripts.imaging.decoding.presentation import Presentation, split_reference
from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import Reason, Refusal, refused
from scripts.imaging.decoding.scans import is_scan
from scripts.imaging.decoding.values import MOST, Values
from scripts.imaging.transforms.reader import is_volume, read_rgb, read_volume
from scripts.model.decisions.results import Result

Loaded = tuple[ImageClassifier, Saliency | None]
Done = TypeVar("Done")


@dataclass(frozen=True)
class Sent:
    """A file in a request.

    Args:
        content: its bytes, to be read once.
        name: as the caller calls it; it goes nowhere.
    """

    content: BinaryIO
    name: str


@dataclass(frozen=True)
class Kept:
    """What is to be kept of an image.

    Attributes:
        pixels: as training reads them.
        patient: an HMAC, where the file names one.
        values: what was measured, where the file says so.
    """

    pixels: np.ndarray
    patient: str | None
    values: Values | None


@dataclass(frozen=True)
class Answer:
    """What is said of an image.

    Args:
        result: the classes.
        latencies: seconds by part, as MONAI Label names them.
        drawing: where the network looked, where it was asked for and there is a class to look for.
    """

    result: Result
    latencies: Mapping[str, float]
    drawing: Drawing | None = None

    def record(self) -> dict[str, Any]:
        """Return it as MONAI Label's clients read it, and what else our doors say."""
        names = self.result.model.classes
        scores = self.result.probabilities
        return {
            "prediction": [{"idx": idx, "label": name, "score": scores[name]} for idx, name in enumerate(names)],
            "label_names": {name: idx for idx, name in enumerate(names)},
            "latencies": dict(self.latencies),
            "version": self.result.model.version,
            "model": self.result.model.record(),
            **self.result.record(),
        }


class Answering:
    """Reads and classifies images in a few threads, however many ask.

    Args:
        served: the model, and what draws where it looks.
        workers: images at the same time.
        max_unpacked: bytes of the arrays of an npz file.
    """

    def __init__(self, served: Served[Loaded], workers: int, max_unpacked: int) -> None:
        self.served = served
        self.max_unpacked = max_unpacked
        self._pool = ThreadPoolExecutor(workers, "answer")
        self._known = _Known()

    @property
    def classifier(self) -> ImageClassifier:
        """The classifier of the version that is served now."""
        return self.served.current()[0]

    async def answer(self, given: Sent | Path, picture: int | None = None, draws: bool = False) -> Answer:
        """Classify an image.

        Args:
            given: what was sent, or a file of ours.
            picture: which of the file's pictures, from 0; ``None``: the only one.
            draws: draw where the network looked, too.

        Raises:
            ImageRefused: with the reason.
        """
        return await self._in_pool(lambda: self._answer(given, picture, draws))

    async def kept(self, given: Sent, picture: int | None, key: bytes) -> Kept:
        """Return what is to be kept of an image.

        Args:
            given: what was sent.
            picture: which of the file's pictures, from 0; ``None``: the only one.
            key: of the HMAC.

        Raises:
            ImageRefused: with the reason.
        """
        return await self._in_pool(lambda: self._kept(given, picture, key))

    async def view(self, given: Sent) -> View:
        """Return all pictures of a file for who looks at them: what was measured, where it says so, else its pixels.

        Raises:
            ImageRefused: with the reason.
        """
        return await self._in_pool(lambda: self._view(given))

    def close(self) -> None:
        """Finish what is at work."""
        self._pool.shutdown(cancel_futures=True)

    def results(self, files: Mapping[str, Path], stop: threading.Event | None = None) -> dict[str, Result]:
        """Return what the served version says of each of our files; what was said before is remembered.

        Args:
            files: by name.
            stop: once it is set, no further file is read.
        """
        return self._of_all("results", files, lambda one, file: one.classify(file), stop)

    def known_results(self) -> Mapping[str, Result]:
        """Return what the served version was asked of our files so far, by name."""
        return self._known.of("results", self.classifier.model.weights_sha256)

    def features(self, files: Mapping[str, Path]) -> dict[str, list[float]]:
        """Return the features of each of our files, as :meth:`results`."""
        return self._of_all("features", files, lambda one, file: one.features(file).tolist())

    def _of_all(
        self,
        kind: str,
        files: Mapping[str, Path],
        ask: Callable[[ImageClassifier, str], Done],
        stop: threading.Event | None = None,
    ) -> dict[str, Done]:
        classifier = self.classifier
        known = self._known.of(kind, classifier.model.weights_sha256)
        for name, file in files.items():
            if stop is not None and stop.is_set():
                break
            if name not in known:
                known[name] = self._pool.submit(ask, classifier, str(file)).result()
        return {name: known[name] for name in files if name in known}

    def _answer(self, given: Sent | Path, picture: int | None, draws: bool) -> Answer:
        started = time.perf_counter()
        classifier, saliency = self.served.current()
        with _opened(given) as file:
            reference = chosen(pictures_of(file, classifier, self.max_unpacked, picture), picture)
            found = time.perf_counter()
            result = classifier.classify(reference)
            judged = time.perf_counter()
            drawing = saliency(reference, result) if draws and saliency is not None else None
        ended = time.perf_counter()
        parts = {"pre": found - started, "infer": judged - found, "post": ended - judged, "total": ended - started}
        return Answer(result, {name: round(seconds, 4) for name, seconds in parts.items()}, drawing)

    def _kept(self, given: Sent, picture: int | None, key: bytes) -> Kept:
        classifier = self.classifier
        backbone: Any = classifier.network.backbone
        with _opened(given) as file:
            reference = chosen(pictures_of(file, classifier, self.max_unpacked, picture), picture)
            pixels = (read_volume if backbone.spatial_dims == 3 else read_rgb)(reference)
            described = classifier.selection.references(file, key)[1] if is_scan(file) else {}
            return Kept(pixels, described.get("patient"), _measured(reference) if described else None)

    def _view(self, given: Sent) -> View:
        classifier = self.classifier
        with _opened(given) as file:
            if is_scan(file):
                try:
                    return view_of_values(decoder().values(file, *_all_of(file, classifier)))
                except Refusal as refusal:
                    if refusal.reason is not Reason.UNSUPPORTED_KIND:  # which colours are
                        raise refused(file, refusal.reason) from None
                return view_of_pixels(read_rgb(classifier.pictures(file)[0])[None])
            if file.endswith(NPZ):
                return view_of_pixels(_first_of(pictures_of(file, classifier, self.max_unpacked)))
            return view_of_pixels(read_rgb(file)[None])

    async def _in_pool(self, work: Callable[[], Done]) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _all_of(file: str, classifier: ImageClassifier) -> tuple[str, Presentation]:
    """Return what names all pictures of a file, and how they are shown at first."""
    settings = classifier.selection
    backbone: Any = classifier.network.backbone
    if kind_of(file) == "dicom" or backbone.spatial_dims == 3:  # a volume as the network is given it
        return "", settings.presentation
    return f"{settings.axis}/" + ("" if settings.volume is None else f"/{settings.volume}"), settings.presentation


def _first_of(pictures: list[str]) -> np.ndarray:
    """Return the first pictures of an npz file, all of one size, as many as are handed out; or its first volume."""
    first = chosen(pictures, 0)
    if is_volume(first):
        return read_volume(first)
    taken = [read_rgb(first)]
    for reference in pictures[1 : MOST // taken[0].size]:
        picture = read_rgb(reference)
        if picture.shape != taken[0].shape:
            break  # so that the number of each is its place
        taken.append(picture)
    return np.stack(taken)


def _measured(reference: str) -> Values | None:
    """Return what was measured of the picture that a reference names; nothing where it is one of colours."""
    try:
        return decoder().values(*split_reference(reference))
    except Refusal:
        return None


class _Known:
    """What was computed for the version that is served; that of the one before is dropped."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, dict[str, Any]]] = {}

    def of(self, kind: str, weights: str) -> dict[str, Any]:
        if kind not in self._kept or self._kept[kind][0] != weights:
            self._kept[kind] = weights, {}
        return self._kept[kind][1]


@contextmanager
def _opened(given: Sent | Path) -> Iterator[str]:
    if isinstance(given, Path):
        yield str(given)
    else:
        with as_file(given.content, given.name) as path:
            yield path
