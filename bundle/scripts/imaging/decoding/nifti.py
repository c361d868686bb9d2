"""One slice of a NIfTI volume, or the whole volume, reoriented to stated axes and stretched to 0..1."""

from __future__ import annotations

import gzip
import io
import math
import os
from functools import lru_cache
from typing import Any, NamedTuple

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from scripts.imaging.decoding.dicom import stretch
from scripts.imaging.decoding.presentation import WINDOWS, Presentation, centre_and_width
from scripts.imaging.decoding.reasons import Reason, Refusal, refusing
from scripts.imaging.decoding.values import Values, aspect_of, in_steps, require_few

_HEAD = 348


class _Volume(NamedTuple):
    """Voxels as stored, ``[X, Y, Z]``, with a last axis of volumes or colours, and the values that become 0 and 1.

    ``in_time``: the header measures a further axis in seconds.
    """

    voxels: np.ndarray
    black: float
    white: float
    colour: bool
    in_time: bool


def read_nifti(path: str, picture: str, presentation: Presentation) -> np.ndarray:
    """Decode a slice or a volume.

    Args:
        path: the file.
        picture: ``<axis>/<index>`` for a slice of the only volume, ``<axis>/<index>/<volume>`` of one of several, with
            axes as reoriented and ``middle`` or ``mean`` as possible index; ``""`` for the only volume as a whole. Axes
            of length 1 behind the third do not count, and a file of two axes has one slice.
        presentation: window, axes, limits. A window is in the units of the file after its scaling; ``file`` is
            ``cal_min`` to ``cal_max`` where those are set, else ``minmax``; ``range`` is all values of the stored
            integer type. Unsigned bytes without a window are shown as they are.

    Returns:
        float32 0..1: a slice ``[H, W]`` (rows: the later of the two other axes) or a volume ``[X, Y, Z]``; colours
        have a last axis of 3.

    Raises:
        Refusal: with the reason.
    """
    volume = _read(path, os.stat(path).st_mtime_ns, presentation)
    voxels = _chosen(volume, picture.split("/")[2:])
    if not picture:
        return stretch(voxels.astype(np.float32), volume.black, volume.white)
    axis, index = _place(picture, voxels.shape)
    if index is None:
        shown = stretch(voxels.astype(np.float32), volume.black, volume.white)
        return shown.mean(axis, dtype=np.float64).astype(np.float32).swapaxes(0, 1)
    shown = stretch(np.take(voxels, index, axis).astype(np.float32), volume.black, volume.white)
    return shown.swapaxes(0, 1)


def nifti_values(path: str, picture: str, presentation: Presentation) -> Values:
    """Read what was measured, of one slice or of all that are cut across an axis.

    Args:
        path: the file.
        picture: as of :func:`read_nifti`; ``""``: the axial slices of the only volume; with the index ``mean`` or none,
            as in ``1/``, all slices across the axis.
        presentation: the window that is shown at first, axes, limits.

    Raises:
        Refusal: with the reason; ``unsupported_kind`` for colours.
    """
    volume = _read(path, os.stat(path).st_mtime_ns, presentation)
    if volume.colour:
        raise Refusal(Reason.UNSUPPORTED_KIND)
    axis, index, *number = [*(picture or "2/").split("/"), ""]
    voxels = _chosen(volume, [part for part in number if part])
    if index not in ("", "mean"):
        found = int(_place(f"{axis}/{index}", voxels.shape)[1] or 0)
        voxels = voxels.take([found], int(axis))
    elif axis not in ("0", "1", "2"):
        raise Refusal(Reason.NO_SUCH_PICTURE)
    require_few(voxels.size)
    image = _opened(path, presentation)
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    slices = np.moveaxis(voxels, int(axis), 0).swapaxes(1, 2).astype(np.float64) * slope + intercept
    steps, lowest, step = in_steps(slices, abs(slope) if voxels.dtype.kind in "ui" else 0.0)
    black, white = (end * slope + intercept for end in (volume.black, volume.white))
    aspect = aspect_of(*_sides(image, axis, presentation))
    return Values(steps, lowest, step, min(black, white), max(black, white), aspect=aspect)


def _sides(image: Any, axis: str, presentation: Presentation) -> tuple[float, float]:
    """Return height and width of a pixel of the slices across an axis: distances along the two others."""
    turned, stored = _turn(image, presentation), voxel_sizes(image.affine)
    sizes = dict(zip(turned[:, 0].astype(int).tolist(), stored.tolist(), strict=True))
    width, height = (sizes[other] for other in range(3) if other != int(axis))
    return height, width


def describe_nifti(path: str, presentation: Presentation) -> dict[str, Any]:
    """Say of a file what is needed to list its slices.

    Returns:
        ``shape``: as reoriented, with the number of volumes of a file of several last. A NIfTI file names no patient.
    """
    image = _opened(path, presentation)
    turned = _turn(image, presentation)
    stored = _shape(image)
    shape = [0, 0, 0, *stored[3:]]
    for axis in range(3):
        shape[int(turned[axis, 0])] = stored[axis]
    return {"shape": shape}


def _place(picture: str, shape: tuple[int, ...]) -> tuple[int, int | None]:
    """Return axis and index of a slice; no index for the mean of all."""
    axis, _, rest = picture.partition("/")
    index = rest.split("/")[0]
    if axis not in ("0", "1", "2"):
        raise Refusal(Reason.NO_SUCH_PICTURE)
    length = shape[int(axis)]
    if index in ("middle", "mean"):
        return int(axis), length // 2 if index == "middle" else None
    if not (index.isascii() and index.isdigit()) or int(index) >= length:
        raise Refusal(Reason.NO_SUCH_PICTURE)
    return int(axis), int(index)


def _opened(path: str, presentation: Presentation) -> Any:
    """Read the header, and refuse by it what is too large before any voxel is read."""
    if os.path.getsize(path) > presentation.max_bytes:
        raise Refusal(Reason.TOO_LARGE)
    with refusing(Reason.CORRUPT_HEADER):
        image = _image(path)
        shape, kind = _shape(image), image.get_data_dtype()
        affine = np.asarray(image.affine)
    if len(image.shape) < 2 or len(shape) > 4:
        raise Refusal(Reason.UNSUPPORTED_KIND)
    if min(shape) < 1 or not np.isfinite(affine).all():
        raise Refusal(Reason.CORRUPT_HEADER)
    if math.prod(shape) * kind.itemsize > presentation.max_bytes:
        raise Refusal(Reason.TOO_LARGE)
    if kind.kind not in "uif" and kind.names != ("R", "G", "B"):
        raise Refusal(Reason.UNSUPPORTED_KIND)
    return image


def _image(path: str) -> Any:
    """Open a file by its content: nibabel's own ``load`` goes by its name."""
    stored = io.FileIO(path)  # which lives as long as the image
    zipped = stored.read(2) == b"\x1f\x8b"
    stored.seek(0)
    file: Any = gzip.GzipFile(fileobj=stored) if zipped else stored
    head = file.read(_HEAD)
    file.seek(0)
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise Refusal(Reason.UNSUPPORTED_KIND)  # the header of a pair of files
    kind = nibabel.Nifti2Image if head[4:8] == b"n+2\0" else nibabel.Nifti1Image
    return kind.from_stream(file)


def _shape(image: Any) -> tuple[int, ...]:
    """Return the sides ``X, Y, Z`` and what further axes of more than 1 there are; a picture has one slice."""
    stored = image.shape
    return (*(*stored, 1)[:3], *(length for length in stored[3:] if length != 1))


def _turn(image: Any, presentation: Presentation) -> np.ndarray:
    """Return what reorients the stored axes to the stated ones."""
    stated = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    wanted = axcodes2ornt(presentation.axcodes)
    if not stated:
        if Reason.UNKNOWN_ORIENTATION not in presentation.accept:
            raise Refusal(Reason.UNKNOWN_ORIENTATION)
        return np.array([[0, 1], [1, 1], [2, 1]])
    found = io_orientation(image.affine)
    if np.isnan(found).any():
        raise Refusal(Reason.CORRUPT_HEADER)
    return ornt_transform(found, wanted)


@lru_cache(maxsize=1)
def _read(path: str, modified: int, presentation: Presentation) -> _Volume:
    """Read all voxels, reoriented; the last file is kept, for its other slices."""
    image = _opened(path, presentation)
    turn = _turn(image, presentation)
    with refusing(Reason.CORRUPT_PIXELS):
        stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(_shape(image))
    colour = stored.dtype.names is not None
    if colour:
        stored = np.stack([stored[name] for name in ("R", "G", "B")], axis=-1)
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        raise Refusal(Reason.NON_FINITE)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise Refusal(Reason.NON_FINITE)
    shown = (0.0, 255.0) if colour else _shown(stored, slope, intercept, image.header, presentation.window)
    black, white = ((end - intercept) / slope for end in shown)
    in_time = image.header.get_xyzt_units()[1] in ("sec", "msec", "usec")
    return _Volume(apply_orientation(stored, turn), black, white, colour, in_time)


def _shown(stored: np.ndarray, slope: float, intercept: float, header: Any, window: str) -> tuple[float, float]:
    """Return the values, after scaling, that become black and white."""
    if window not in WINDOWS:
        centre, width = centre_and_width(window)
        return centre - width / 2, centre + width / 2
    lowest, highest = float(header["cal_min"]), float(header["cal_max"])
    if window == "file" and math.isfinite(lowest) and math.isfinite(highest) and highest > lowest:
        return lowest, highest
    if stored.dtype.kind in "ui" and (window == "range" or (window == "file" and stored.dtype == np.uint8)):
        lowest, highest = float(np.iinfo(stored.dtype).min), float(np.iinfo(stored.dtype).max)
    else:
        lowest, highest = float(stored.min()), float(stored.max())
    ends = sorted((lowest * slope + intercept, highest * slope + intercept))
    return ends[0], ends[1]


def _chosen(volume: _Volume, number: list[str]) -> np.ndarray:
    """Return one volume of a 4-D file, or the only one."""
    voxels = volume.voxels
    count = voxels.shape[3] if voxels.ndim - volume.colour == 4 else 1
    if not number and count > 1:
        raise Refusal(Reason.TIME_AXIS if volume.in_time else Reason.MANY_PICTURES)
    chosen = number[0] if number else "0"
    if not (chosen.isascii() and chosen.isdigit()) or int(chosen) >= count:
        raise Refusal(Reason.NO_SUCH_PICTURE)
    return voxels[:, :, :, int(chosen)] if voxels.ndim - volume.colour == 4 else voxels
