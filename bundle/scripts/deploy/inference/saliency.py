"""Where the network looks: Grad-CAM over the picture, as a PNG and as a DICOM secondary capture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.visualize import GradCAM
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from scripts import bundle_version
from scripts.deploy.dicom.dicom_result import NOT_VERIFIED, dicom_result, reference_to
from scripts.deploy.dicom.heat_map import heat_segmentation
from scripts.imaging.decoding.dicom import OWN_MANUFACTURER
from scripts.imaging.transforms.reader import read_picture
from scripts.imaging.transforms.scans import SourceImage
from scripts.model.decisions.results import Result
from scripts.model.networks.backbones import Layout
from scripts.pictures.saliency import saliency_sheet
from scripts.utils.errors import UserError


@dataclass(frozen=True)
class Drawing:
    """Where the network looked.

    Attributes:
        picture: uint8 ``[h, w, 3]``; see :func:`scripts.pictures.saliency.saliency_sheet`.
        heat: ``[H, W]``, 0..1, as large as the image; of a volume in its middle slice.
        heats: ``[D, h, w]``, the same as the network sees it, of a picture one, of a volume those of all slices.
    """

    picture: NDArray[np.uint8]
    heat: NDArray[np.float32]
    heats: NDArray[np.float32]


Capture = Callable[[Drawing, Result, SourceImage], Dataset]


class Saliency:
    """Draws what speaks for the predicted class: Grad-CAM (Selvaraju et al., ICCV 2017) of the last map the head reads.

    Args:
        network: a trained classifier of one branch; it is copied at the first picture, and left as it is.
        prepare: reads and normalises, as for classifying.
        capture: makes the DICOM object that the report of a DICOM image shows; ``None``: it shows none.
    """

    def __init__(
        self,
        network: nn.Module,
        prepare: Callable[[dict[str, Any]], Mapping[str, Any]],
        capture: Capture | None = None,
    ) -> None:
        self.network = network
        self.prepare = prepare
        self.capture = capture
        self._lock = threading.Lock()  # Grad-CAM keeps what passes through the network

    @cached_property
    def _cam(self) -> GradCAM:
        network: Any = deepcopy(self.network).eval().requires_grad_(True)
        if network.backbone.passes() != 1 or not hasattr(network.backbone, "blocks"):
            raise UserError(
                "this model passes through several branches, which have no common map: "
                "leave saliency out (key 'saliency'), or merge the adapters"
            )
        if network.backbone.layout is Layout.WHOLE:
            raise UserError(
                f"{network.backbone.name} is not known by its blocks, so that there is no map to show: leave saliency "
                "out (key 'saliency')"
            )
        return PlacedGradCAM(network, f"backbone.{network.backbone.last_read()}", postprocessing=_to_one)

    def __call__(self, reference: str, result: Result) -> Drawing | None:
        """Draw one image beside where the network looked; nothing where the result is indeterminate, or no finding.

        Of several findings it is drawn for the one that scores highest.

        Args:
            reference: the image.
            result: what was said of it.

        Returns:
            The drawing with the image at its own size, of a volume its middle slice.

        Raises:
            ImageRefused: when the image cannot be read any more.
            UserError: when the network has several branches.
        """
        if result.indeterminate or result.findings == ():
            return None
        picture, predicted = read_picture(reference), result.predicted_class
        with self._lock:
            heats = self._heats(reference, result).cpu()
            middle = heats[None, None, len(heats) // 2]
            places = interpolate(middle, picture.shape[:2], mode="bilinear")[0, 0].numpy()
            sheet = saliency_sheet(picture, places, predicted, result.probabilities[predicted], _notes(result))
            return Drawing(sheet, places, heats.numpy())

    @torch.enable_grad()
    def _heats(self, reference: str, result: Result) -> Tensor:
        """Return what speaks for the predicted class, [D, h, w], 0..1; of a picture in one slice."""
        image = torch.as_tensor(self.prepare({"image": reference})["image"])[None]
        device = next(self.network.parameters()).device
        heat = self._cam(image.to(device), class_idx=result.model.classes.index(result.predicted_class))
        return heat.detach()[0].flatten(0, -3)


class PlacedGradCAM(GradCAM):
    """MONAI's Grad-CAM, also of tokens: a layer's output is laid out as a map first."""

    def compute_map(  # type: ignore[override]  # MONAI's own Grad-CAM takes more than its base, too
        self, x: Tensor, class_idx: int | None = None, retain_graph: bool = False, layer_idx: int = -1, **kwargs: Any
    ) -> Tensor:
        """Return the map of images [B, 3, H, W], or volumes, [B, 1, h, w]; nowhere negative."""
        _, outputs, gradients = self.nn_module(x, class_idx=class_idx, retain_graph=retain_graph, **kwargs)
        network: Any = self.nn_module.model
        places = network.backbone.places
        level, gradient = places(outputs[layer_idx]), places(gradients[layer_idx])
        axes = tuple(range(2, gradient.dim()))
        return relu((gradient.mean(axes, keepdim=True) * level).sum(1, keepdim=True))


def make_saliency(
    kind: str | None, network: nn.Module, prepare: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> Saliency | None:
    """Make what draws saliency.

    Args:
        kind: ``png``: the image and where the network looked; ``dicom``: besides, a secondary capture that the report
            shows; ``seg``: besides, the map alone as a segmentation that the report shows; ``None``: nothing is drawn.
        network: see :class:`Saliency`.
        prepare: see :class:`Saliency`.

    Raises:
        UserError: for another kind.
    """
    if kind is None:
        return None
    captures: dict[str, Capture | None] = {
        "png": None,
        "dicom": lambda drawing, result, source: secondary_capture(drawing.picture, result, source),
        "seg": lambda drawing, result, source: heat_segmentation(drawing.heat, result, source),
    }
    if kind not in captures:
        raise UserError(f"saliency is {kind!r}: give {' or '.join(captures)}, or leave it out (key 'saliency')")
    return Saliency(network, prepare, captures[kind])


def _to_one(heat: Tensor) -> Tensor:
    """Scale a map that is nowhere negative to 0..1."""
    return heat / heat.amax().clamp_min(torch.finfo(heat.dtype).tiny)


def _notes(result: Result) -> list[str]:
    """Return what stands in the pixels of every picture, since a picture may lose all that stands beside them."""
    model = result.model
    return [NOT_VERIFIED, f"{model.name}, version {model.version}", f"{OWN_MANUFACTURER} {bundle_version()}"]


def secondary_capture(picture: np.ndarray, result: Result, source: SourceImage) -> Dataset:
    """Return a saliency picture as a secondary capture in the study of its image.

    Args:
        picture: uint8 ``[H, W, 3]``.
        result: what it explains.
        source: the image it is of.

    Raises:
        ImageRefused: as :func:`scripts.deploy.dicom.dicom_result.dicom_result`.
    """
    capture = dicom_result(SecondaryCaptureImageStorage, "OT", result.model, source)
    capture.ConversionType = "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.DerivationDescription = "Grad-CAM of the predicted class over the image"
    capture.SourceImageSequence = [reference_to(source.header)]
    # an image that says nothing may have a name in its pixels, which are shown
    capture.BurnedInAnnotation = "NO" if source.header.get("BurnedInAnnotation") == "NO" else "YES"
    for name in ("PatientOrientation", "Laterality"):
        setattr(capture, name, source.header.get(name) or "")
    capture.Rows, capture.Columns = picture.shape[:2]
    capture.SamplesPerPixel, capture.PhotometricInterpretation, capture.PlanarConfiguration = 3, "RGB", 0
    capture.BitsAllocated, capture.BitsStored, capture.HighBit, capture.PixelRepresentation = 8, 8, 7, 0
    content = picture.tobytes()
    capture.PixelData = content + b"\0" * (len(content) % 2)
    capture["PixelData"].VR = "OB"
    return capture
