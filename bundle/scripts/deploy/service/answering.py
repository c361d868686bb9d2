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
from scripts.deploy.inference.saliency import Saliency
from scripts.deploy.inference.serving import Served
from scripts.deploy.service.uploads import as_file, chosen, pictures_of
from scripts.imaging.decoding.scans import is_scan
from scripts.imaging.drawing import png_bytes
from scripts.imaging.transforms.reader import read_rgb, read_volume
from scripts.model.decisions.results import Result

Loaded = tuple[ImageClassifier, Saliency | None]
Said = Mapping[str, float]
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
class Answer:
    """What is said of an image.

    Args:
        result: the classes.
        latencies: seconds by part, as MONAI Label names them.
        drawn: the image with Grad-CAM over it, a PNG, where that was asked for.
    """

    result: Result
    latencies: Mapping[str, float]
    drawn: bytes | None = None

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

    async def answer(self, given: Sent | Path, picture: int | None = None, drawn: bool = False) -> Answer:
        """Classify an image.

        Args:
            given: what was sent, or a file of ours.
            picture: which of the file's pictures, from 0; ``None``: the only one.
            drawn: whether Grad-CAM is drawn.

        Raises:
            ImageRefused: with the reason.
        """
        return await self._in_pool(lambda: self._answer(given, picture, drawn))

    async def pixels(self, given: Sent, picture: int | None, key: bytes) -> tuple[np.ndarray, str | None]:
        """Return the pixels of an image as training would read them, and an HMAC of the patient where it names one.

        Raises:
            ImageRefused: with the reason.
        """
        return await self._in_pool(lambda: self._pixels(given, picture, key))

    def close(self) -> None:
        """Finish what is at work."""
        self._pool.shutdown(cancel_futures=True)

    def probabilities(self, files: Mapping[str, Path], stop: threading.Event | None = None) -> dict[str, Said]:
        """Return the probability of each class for each of our files; what was said before is remembered.

        Args:
            files: by name.
            stop: once it is set, no further file is read.
        """
        return self._of_all("probabilities", files, lambda one, file: one.classify(file).probabilities, stop)

    def features(self, files: Mapping[str, Path]) -> dict[str, list[float]]:
        """Return the features of each of our files, as :meth:`probabilities`."""
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

    def _answer(self, given: Sent | Path, picture: int | None, drawn: bool) -> Answer:
        started = time.perf_counter()
        classifier, saliency = self.served.current()
        with _opened(given) as file:
            reference = chosen(pictures_of(file, classifier, self.max_unpacked), picture)
            found = time.perf_counter()
            result = classifier.classify(reference)
            judged = time.perf_counter()
            found_places = saliency(reference, result) if drawn and saliency is not None else None
            drawing = None if found_places is None else png_bytes(found_places.picture)
        ended = time.perf_counter()
        parts = {"pre": found - started, "infer": judged - found, "post": ended - judged, "total": ended - started}
        return Answer(result, {name: round(seconds, 4) for name, seconds in parts.items()}, drawing)

    def _pixels(self, given: Sent, picture: int | None, key: bytes) -> tuple[np.ndarray, str | None]:
        classifier = self.classifier
        backbone: Any = classifier.network.backbone
        with _opened(given) as file:
            reference = chosen(pictures_of(file, classifier, self.max_unpacked), picture)
            pixels = (read_volume if backbone.spatial_dims == 3 else read_rgb)(reference)
            described = classifier.selection.references(file, key)[1] if is_scan(file) else {}
        return pixels, described.get("patient")

    async def _in_pool(self, work: Callable[[], Done]) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


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
