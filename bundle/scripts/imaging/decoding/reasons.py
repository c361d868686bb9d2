"""Why an image is refused: a closed list of codes, and the error that carries one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from scripts.utils.errors import UserError


class Reason(StrEnum):
    """The code that stands wherever a refused image is listed."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNSUPPORTED_KIND = "unsupported_kind"
    TRANSPARENT = "transparent"
    MANY_PICTURES = "many_pictures"
    TIME_AXIS = "time_axis"
    NO_SUCH_PICTURE = "no_such_picture"
    CORRUPT_HEADER = "corrupt_header"
    CORRUPT_PIXELS = "corrupt_pixels"
    NO_PIXELS = "no_pixels"
    NON_FINITE = "non_finite"
    ZERO_SLOPE = "zero_slope"
    UNSUPPORTED_SOP_CLASS = "unsupported_sop_class"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    DECODER_DIED = "decoder_died"
    MISSING_IDENTIFIERS = "missing_identifiers"
    UNREADABLE_IDENTIFIERS = "unreadable_identifiers"
    SAME_INSTANCE = "same_instance"
    LOCALIZER = "localizer"
    DERIVED = "derived"
    BURNED_IN = "burned_in"
    UNKNOWN_ORIENTATION = "unknown_orientation"
    OWN_RESULT = "own_result"


WAIVABLE = (
    Reason.MISSING_IDENTIFIERS,
    Reason.LOCALIZER,
    Reason.DERIVED,
    Reason.BURNED_IN,
    Reason.UNKNOWN_ORIENTATION,
)
"""The reasons that a configuration may accept (key ``presentation#accept``): policy, not inability."""

EXPLANATIONS: dict[Reason, str] = {
    Reason.MISSING: "put it back, or take it out of the data",
    Reason.UNREADABLE: "replace it, or remove it",
    Reason.UNSUPPORTED_KIND: "it is of a kind that is not read; save it as a picture of 8-bit grey or RGB",
    Reason.TRANSPARENT: "save it without an alpha channel",
    Reason.MANY_PICTURES: "it holds several pictures; say which one counts (key 'presentation#pictures')",
    Reason.TIME_AXIS: (
        "its pictures follow one another in time, which no network here reads: learn volumes, or say which picture "
        "counts (key 'presentation#pictures')"
    ),
    Reason.NO_SUCH_PICTURE: "it holds no picture of that number; name one that it has",
    Reason.CORRUPT_HEADER: "its header is broken or contradicts itself; export it again",
    Reason.CORRUPT_PIXELS: "its pixels are broken or cut short; export it again",
    Reason.NO_PIXELS: "it is no image (a report, a plan, a waveform, a directory); leave it out",
    Reason.NON_FINITE: "it holds numbers that are infinite or not numbers; export it again",
    Reason.ZERO_SLOPE: "its RescaleSlope is 0, which makes all of its pixels one; export it again",
    Reason.UNSUPPORTED_SOP_CLASS: "its pixels are a segmentation, a dose, a map or a whole slide; leave it out",
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: (
        "its compression is not read here; convert it to an uncompressed one "
        "(JPEG lossless and 12-bit JPEG are read once dcmdjpeg of dcmtk is installed)"
    ),
    Reason.TOO_LARGE: "it is larger than allowed (keys 'presentation#max_pixels' and 'presentation#max_bytes')",
    Reason.TOO_SLOW: "decoding took longer than allowed (key 'presentation#seconds')",
    Reason.DECODER_DIED: "it killed the process that decodes; keep it apart, it may be hostile",
    Reason.MISSING_IDENTIFIERS: "it lacks a study, series or SOP instance UID; accept that in 'presentation#accept'",
    Reason.UNREADABLE_IDENTIFIERS: (
        "its patient or study cannot be read in the character set that it names; export it with the right one"
    ),
    Reason.SAME_INSTANCE: "another image has its SOP Instance UID; give each its own",
    Reason.LOCALIZER: "it is a localizer; accept those in 'presentation#accept'",
    Reason.DERIVED: "it is derived from another image; accept those in 'presentation#accept'",
    Reason.BURNED_IN: (
        "a name may be written into its pixels (BurnedInAnnotation is YES, or missing in an ultrasound image or a "
        "secondary capture); accept those in 'presentation#accept'"
    ),
    Reason.UNKNOWN_ORIENTATION: "its header does not say how it lies; accept that in 'presentation#accept'",
    Reason.OWN_RESULT: "it is a result that a model of this project wrote; leave it out",
}


class ImageRefused(UserError):
    """An image that is not taken.

    Args:
        message: one line, as of any :class:`~scripts.utils.errors.UserError`. Nothing that a file says of a patient is
            in it.
        reason: the code.
    """

    def __init__(self, message: str, reason: Reason = Reason.UNREADABLE) -> None:
        super().__init__(message)
        self.reason = reason


class Refusal(Exception):
    """Raised while a file is decoded; it knows the reason, not what the image is called."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@contextmanager
def refusing(reason: Reason) -> Iterator[None]:
    """Turn whatever a library raises on a broken file, which is nearly anything, into a refusal; memory stays memory.

    What a library says is dropped: it may quote the file.
    """
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError from None
        raise Refusal(reason) from None


def refused(reference: str, reason: Reason) -> ImageRefused:
    """Return the error to raise for a DICOM or NIfTI image."""
    return ImageRefused(f"image {reference} is refused, {reason.value}: {EXPLANATIONS[reason]}", reason)
