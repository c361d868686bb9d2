"""What is to be seen of a DICOM or NIfTI file, and the reference that says so: ``<path>#<picture>?<settings>``.

An image is named by one text everywhere (tasks, memory, checkpoints). Whatever decides how a file becomes a picture is
part of that text, so that training, its checks, evaluation and inference cannot read one image in two ways.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlencode

from scripts.imaging.decoding.reasons import WAIVABLE
from scripts.utils.errors import UserError

WINDOWS = ("file", "range", "minmax")
KEY = "key 'presentation'"


@dataclass(frozen=True)
class Presentation:
    """How grey values become a picture, and what is accepted.

    Args:
        window: ``<centre>,<width>`` in the units of the file after rescaling (Hounsfield units in CT), from
            ``centre - width / 2`` to ``centre + width / 2``; ``file``: the VOI LUT or window in the file, else
            ``range``; ``range``: all values that can be stored; ``minmax``: the values there are, in the frame
            (DICOM) or the volume (NIfTI).
        accept: codes of :data:`~scripts.imaging.decoding.reasons.WAIVABLE` that are no reason to refuse.
        axcodes: NIfTI only: where the three axes lead once reoriented. In LPI, the default, the slices of every axis
            look as radiologists look at them: head or nose up, the patient's right on the left.
        max_pixels: rows x columns x frames (DICOM), at most.
        max_bytes: of the file, of what a deflated one inflates to, and of a volume uncompressed, at most.
        seconds: that describing and decoding a picture may take together.

    Raises:
        UserError: for a value that means nothing.
    """

    window: str = "file"
    accept: tuple[str, ...] = ()
    axcodes: str = "LPI"
    max_pixels: int = 2**26
    max_bytes: int = 2**29
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            centre_and_width(self.window)
        for code in self.accept:
            if code not in WAIVABLE:
                raise UserError(f"unknown reason {code!r} to accept: choose among {', '.join(WAIVABLE)} ({KEY})")
        if sorted(_AXES.get(letter, "") for letter in self.axcodes) != ["x", "y", "z"]:
            raise UserError(f"axcodes is {self.axcodes!r}: give three letters such as LPI or RAS ({KEY})")
        for name in ("max_pixels", "max_bytes", "seconds"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise UserError(f"{name} is {getattr(self, name)}: give a number above 0 ({KEY})")

    def options(self) -> dict[str, str]:
        """Return the settings that are not the default, as text."""
        return {
            field.name: ",".join(value) if isinstance(value, tuple) else str(value)
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }


_AXES = {"L": "x", "R": "x", "A": "y", "P": "y", "S": "z", "I": "z"}


def centre_and_width(window: str) -> tuple[float, float]:
    """Read ``<centre>,<width>``.

    Raises:
        UserError: when it is not two finite numbers, the width above 0.
    """
    try:
        centre, width = (float(number) for number in window.split(","))
    except ValueError:
        centre, width = math.nan, math.nan
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        raise UserError(f"window is {window!r}: give '<centre>,<width>' or one of {', '.join(WINDOWS)} ({KEY})")
    return centre, width


def make_presentation(settings: Mapping[str, Any] | None) -> Presentation:
    """Make a presentation of a config's values, in which a window may be ``[centre, width]``.

    Raises:
        UserError: for an unknown name, or as :class:`Presentation`.
    """
    known: dict[str, Any] = {field.name: type(field.default) for field in fields(Presentation)}
    values: dict[str, Any] = {}
    for name, value in (settings or {}).items():
        if name not in known:
            raise UserError(f"unknown setting {name!r}: choose among {', '.join(known)} ({KEY})")
        listed = isinstance(value, (list, tuple))
        if known[name] is tuple:
            values[name] = tuple(value) if listed else tuple(filter(None, str(value).split(",")))
        else:
            try:
                values[name] = known[name](",".join(map(str, value)) if listed else value)
            except (ValueError, TypeError, OverflowError) as error:
                raise UserError(f"{name} is {value!r}: it must be a number ({KEY})") from error
    return Presentation(**values)


def make_reference(path: str, picture: str, presentation: Presentation) -> str:
    """Name a picture of a file; the path alone where nothing more needs to be said.

    Args:
        path: the file.
        picture: DICOM: ``""`` (the only one), a frame's number from 0, ``middle`` or ``mean``. NIfTI: ``""`` (the
            whole volume), ``<axis>/<index>`` or, of a 4-D file, ``<axis>/<index>/<volume>``; the index may be
            ``middle`` or ``mean``.
        presentation: how it is shown.
    """
    options = urlencode(presentation.options(), safe=",")
    return f"{path}#{picture}?{options}" if options else f"{path}#{picture}" if picture else path


def split_reference(reference: str) -> tuple[str, str, Presentation]:
    """Return path, picture and presentation of a reference; see :func:`make_reference`.

    Raises:
        UserError: when what stands behind ``#`` is not understood.
    """
    path, mark, member = reference.rpartition("#")
    if not mark or os.path.isfile(reference):  # a file's own name may hold a #
        return reference, "", Presentation()
    picture, _, options = member.partition("?")
    return path, picture, make_presentation(dict(parse_qsl(options)))
