"""Damaged images where they are decoded: an image or a reason, never a crash, a hang, or memory without end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.transforms import read_rgb, read_volume
from scripts.utils.errors import UserError


def read(reference: str) -> np.ndarray:
    try:
        pixels = read_volume(reference) if reference.endswith(".npy") else read_rgb(reference)
    except UserError as error:
        if isinstance(error, ImageRefused):
            raise
        raise ImageRefused(str(error)) from error  # of an npz file as a whole
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and (pixels.shape[2] == 3 or reference.endswith(".npy"))
    return pixels


def check(figures: Any, files: Any) -> dict[str, int]:
    """Read damaged files, and count what came of it."""
    for path, rest in files:
        figures.ask(path.name, lambda: read(f"{path}{rest}"), "image")  # noqa: B023
        path.unlink()
    return dict(figures.outcomes)


def test_damaged_files_give_an_image_or_a_reason(drawn: Any, mutants: Any, tally: Any, tmp_path: Path) -> None:
    outcomes = check(tally("decoding"), mutants(drawn, 120, tmp_path))
    assert outcomes["image"] > 10
    assert len(outcomes) > 4
    assert Reason.DECODER_DIED not in outcomes


@pytest.mark.slow
def test_thousands_of_damaged_files(drawn: Any, mutants: Any, tally: Any, tmp_path: Path) -> None:
    outcomes = check(tally("decoding, drawn files"), mutants(drawn, 2100, tmp_path))
    assert Reason.DECODER_DIED not in outcomes


@pytest.mark.slow
def test_thousands_of_damaged_real_files(real: Any, mutants: Any, tally: Any, tmp_path: Path) -> None:
    outcomes = check(tally("decoding, real files"), mutants(real, 2100, tmp_path))
    decoder().close()
    assert Reason.DECODER_DIED not in outcomes
