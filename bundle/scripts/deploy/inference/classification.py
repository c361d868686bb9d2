"""The object behind every door (folder, DICOM node, service): an image in, a result out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.decoding.scans import is_scan, make_selection
from scripts.imaging.transforms.preprocessing import preprocessing
from scripts.model.decisions.results import ModelIdentity, Result
from scripts.model.folder import TrainedModel
from scripts.utils.errors import UserError, find_user_error


class ImageClassifier:
    """Classifies images by reference. May be called by several threads at once.

    Args:
        trained: the model.
        presentation: of DICOM and NIfTI files, over that of training, a setting at a time; see
            :func:`scripts.imaging.decoding.scans.make_selection`.
        device: where the network computes.
        workers: images that are read at the same time.

    Raises:
        UserError: when the device cannot be used, or the presentation means nothing.
    """

    def __init__(
        self,
        trained: TrainedModel,
        presentation: Mapping[str, Any] | None = None,
        device: str = "cpu",
        workers: int = 1,
    ) -> None:
        self.trained = trained
        self.network = _placed(trained.network, device).eval()
        self.prepare = preprocessing(trained.image)
        self.model = trained.identity
        self.presentation = trained.image.shown(presentation)
        self.selection = make_selection(self.presentation)
        self.device = device
        self._readers = ThreadPoolExecutor(workers, "reader")

    def pictures(self, file: str) -> list[str]:
        """Return references to the pictures of a file that count, shown as in training; of most files it is one."""
        return self.selection.references(file)[0] if is_scan(file) else [file]

    def classify(self, reference: str) -> Result:
        """Classify one picture.

        Args:
            reference: one of :meth:`pictures`, or any other that training could have read.

        Raises:
            ImageRefused: with the reason.
        """
        (result,) = self._judged([self._read(reference)])
        if isinstance(result, ImageRefused):
            raise result
        return result

    def classify_all(self, references: Sequence[str], batch_size: int) -> Iterator[Result | ImageRefused]:
        """Classify pictures in order; the next batch is read while the network is at work on one.

        Yields:
            A result, or why the picture is refused.
        """
        waiting: deque[list[Future[Tensor | ImageRefused]]] = deque()
        for start in range(0, len(references), batch_size):
            batch = references[start : start + batch_size]
            waiting.append([self._readers.submit(self._read, reference) for reference in batch])
            if len(waiting) > 1:
                yield from self._judged([future.result() for future in waiting.popleft()])
        for futures in waiting:
            yield from self._judged([future.result() for future in futures])

    def features(self, reference: str) -> Tensor:
        """Return what the head sees of one picture, float32 ``[d]``: the features of all branches, one after the other.

        Raises:
            ImageRefused: with the reason.
        """
        image = self._read(reference)
        if isinstance(image, ImageRefused):
            raise image
        backbone: Any = self.network.backbone
        with torch.inference_mode():
            return backbone(image[None].to(self.device)).flatten().float().cpu()

    def _read(self, reference: str) -> Tensor | ImageRefused:
        try:
            return torch.as_tensor(self.prepare({"image": reference})["image"])
        except Exception as error:  # MONAI wraps what a transform raises
            refusal = refusal_in(error)
            if refusal is None:
                raise
            return refusal

    def _judged(self, images: Sequence[Tensor | ImageRefused]) -> list[Result | ImageRefused]:
        taken = [image for image in images if isinstance(image, Tensor)]
        results = iter(self._results(torch.stack(taken))) if taken else iter(())
        return [image if isinstance(image, ImageRefused) else next(results) for image in images]

    def _results(self, images: Tensor) -> list[Result | ImageRefused]:
        with torch.inference_mode():
            logits = self.network(images.to(self.device)).cpu()
        rows = zip(self.model.probabilities(logits).tolist(), images.numpy(), strict=True)
        return [judged(self.model, row, image) for row, image in rows]


def _placed(network: nn.Module, device: str) -> nn.Module:
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:  # torch has no one kind for a device that is not there
        reason = str(error).splitlines()[0]
        raise UserError(f"device {device} cannot be used ({reason}): give cpu, or leave it out (device)") from error


def judged(model: ModelIdentity, probabilities: Sequence[float], image: NDArray[Any]) -> Result | ImageRefused:
    """Return the result, or that there is none; see :meth:`ModelIdentity.judge`."""
    try:
        return model.judge(probabilities, image)
    except ImageRefused as refusal:
        return refusal


def refusal_in(error: BaseException) -> ImageRefused | None:
    """Return why an image is refused, as the error of reading it says; ``None`` where it is no user's mistake."""
    mistake: UserError | None = find_user_error(error)
    if mistake is None or isinstance(mistake, ImageRefused):
        return mistake
    return ImageRefused(str(mistake), Reason.UNREADABLE)
