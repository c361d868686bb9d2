"""Where the network looks: Grad-CAM over the picture, as a PNG and as a DICOM secondary capture."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.visualize import GradCAM
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from torch import Tensor, nn
from torch.nn.functional import interpolate

from scripts.edge.results import Result
from scripts.errors import UserError
from scripts.inference.dicom_result import dicom_result, reference_to
from scripts.transforms.reader import read_picture
from scripts.transforms.scans import Source

KINDS = ("png", "dicom")
OPACITY = 0.6
"""Of the colour where the map is highest."""


class Saliency:
    """Draws what speaks for the predicted class: Grad-CAM (Selvaraju et al., ICCV 2017) of the last map the head reads.

    Args:
        network: a trained classifier of one branch; it is copied at the first picture, and left as it is.
        prepare: reads and normalises, as for classifying.
        captures: whether the pictures of DICOM images become secondary captures too.
    """

    def __init__(
        self, network: nn.Module, prepare: Callable[[dict[str, Any]], Mapping[str, Any]], captures: bool = False
    ) -> None:
        self.network = network
        self.prepare = prepare
        self.captures = captures
        self._lock = threading.Lock()  # Grad-CAM keeps what passes through the network

    @cached_property
    def _cam(self) -> GradCAM:
        network: Any = deepcopy(self.network).eval().requires_grad_(True)
        if len(network.backbone.branches) != 1 or not hasattr(network.backbone, "blocks"):
            raise UserError(
                "this model passes through several branches, which have no common map: "
                "leave saliency out (key 'saliency'), or merge the adapters"
            )
        return GradCAM(network, f"backbone.blocks.{network.backbone.last_read()}", postprocessing=_to_one)

    def __call__(self, reference: str, result: Result) -> np.ndarray:
        """Draw one image.

        Args:
            reference: the image.
            result: what was said of it.

        Returns:
            The picture, uint8 ``[H, W, 3]``, as large as the image; of a volume its middle slice. The more red and
            yellow, the more a place speaks for the predicted class.

        Raises:
            ImageRefused: when the image cannot be read any more.
            UserError: when the network has several branches.
        """
        with self._lock, torch.enable_grad():
            image = torch.as_tensor(self.prepare({"image": reference})["image"])[None]
            device = next(self.network.parameters()).device
            heat = self._cam(image.to(device), class_idx=result.model.classes.index(result.predicted_class))
        if heat.ndim == 5:
            heat = heat[:, :, heat.shape[2] // 2]
        return overlay(read_picture(reference), heat.detach().cpu())


def make_saliency(
    kind: str | None, network: nn.Module, prepare: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> Saliency | None:
    """Make what draws saliency.

    Args:
        kind: ``png``: a picture an image; ``dicom``: besides, a secondary capture that the report shows; ``None``:
            nothing is drawn.
        network: see :class:`Saliency`.
        prepare: see :class:`Saliency`.

    Raises:
        UserError: for another kind.
    """
    if kind is None:
        return None
    if kind not in KINDS:
        raise UserError(f"saliency is {kind!r}: give {' or '.join(KINDS)}, or leave it out (key 'saliency')")
    return Saliency(network, prepare, captures=kind == "dicom")


def _to_one(heat: Tensor) -> Tensor:
    """Scale a map that is nowhere negative to 0..1."""
    return heat / heat.amax().clamp_min(torch.finfo(heat.dtype).tiny)


def overlay(picture: np.ndarray, heat: Tensor) -> np.ndarray:
    """Colour a picture.

    Args:
        picture: uint8 ``[H, W, 3]``.
        heat: ``[1, 1, h, w]``, 0..1; stretched to the picture's size.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    values = interpolate(heat, picture.shape[:2], mode="bilinear")[0, 0].numpy()[..., None]
    colour = np.concatenate([np.full_like(values, 255), 255 * values, np.zeros_like(values)], axis=2)
    return np.rint(picture + OPACITY * values * (colour - picture)).astype(np.uint8)


def png_bytes(picture: np.ndarray) -> bytes:
    """Return a picture as a PNG file holds it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def secondary_capture(picture: np.ndarray, result: Result, source: Source) -> Dataset:
    """Return a saliency picture as a secondary capture in the study of its image.

    Args:
        picture: uint8 ``[H, W, 3]``.
        result: what it explains.
        source: the image it is of.

    Raises:
        ImageRefused: as :func:`scripts.inference.dicom_result.dicom_result`.
    """
    capture = dicom_result(SecondaryCaptureImageStorage, "OT", result.model, source)
    capture.ConversionType = "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.DerivationDescription = "Grad-CAM of the predicted class over the image"
    capture.SourceImageSequence = [reference_to(source.header)]
    capture.BurnedInAnnotation = source.header.get("BurnedInAnnotation") or "NO"
    for name in ("PatientOrientation", "Laterality"):
        setattr(capture, name, source.header.get(name) or "")
    capture.Rows, capture.Columns = picture.shape[:2]
    capture.SamplesPerPixel, capture.PhotometricInterpretation, capture.PlanarConfiguration = 3, "RGB", 0
    capture.BitsAllocated, capture.BitsStored, capture.HighBit, capture.PixelRepresentation = 8, 8, 7, 0
    content = picture.tobytes()
    capture.PixelData = content + b"\0" * (len(content) % 2)
    capture["PixelData"].VR = "OB"
    return capture
