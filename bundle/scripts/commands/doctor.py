"""What works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

LEAST_FREE = 10 * 10**9
"""Bytes on the disk: the images, a run with its models, and room to write files anew."""
DECODERS = {
    "pylibjpeg": "JPEG and JPEG 2000 in DICOM",
    "pylibjpeg-openjpeg": "JPEG 2000 in DICOM",
    "pyjpegls": "JPEG-LS in DICOM",
}
TOOLS = {"dcmdjpeg": ("JPEG lossless in DICOM", "install dcmtk (apt install dcmtk, brew install dcmtk)")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: it is.
        state: how it is.
        advice: what to do; empty where it works.
        is_needed: whether nothing can be learnt without it.
    """

    what: str
    state: str
    advice: str = ""
    is_needed: bool = False


def examine() -> tuple[str, int]:
    """Look at everything.

    Returns:
        A table, and the exit status: 1 where something that is needed does not work.
    """
    found = [finding for look in (_python, _torch, _decoders, _tools, _fonts, _places) for finding in look()]
    rows = [("ok" if not one.advice else "NO" if one.is_needed else "-", one.what, one.state) for one in found]
    advice = "\n".join(f"{one.what}: {one.advice}" for one in found if one.advice)
    is_broken = any(one.is_needed and one.advice for one in found)
    return f"{tabulate(rows, tablefmt='plain')}\n\n{advice or 'All of it works.'}", int(is_broken)


def _python() -> Sequence[Finding]:
    return [Finding("Python", f"{sys.version.split()[0]}, {os.cpu_count()} cores")]


def _torch() -> Sequence[Finding]:
    try:
        import monai
        import torch
    except Exception as error:  # a broken installation raises anything
        said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        return [Finding("torch and MONAI", said[0], "install the package anew (README says how)", is_needed=True)]
    versions = f"torch {torch.__version__}, MONAI {monai.__version__}"
    computed = float(torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)))
    wrong = "" if computed == 9 else "a convolution is computed wrong: install torch anew"
    return [Finding("torch and MONAI", versions, wrong, is_needed=True), _gpu()]


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "none", "training takes the processor; small images (--image_size 64) keep it short")
    free, total = torch.cuda.mem_get_info()
    return Finding("GPU", f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")


def _decoders() -> Sequence[Finding]:
    return [_installed(name, what) for name, what in DECODERS.items()]


def _installed(name: str, what: str) -> Finding:
    try:
        return Finding(what, f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(what, "refused", f"pip install {name}")


def _tools() -> Sequence[Finding]:
    return [
        Finding(what, shutil.which(name) or "refused", "" if shutil.which(name) else advice)
        for name, (what, advice) in TOOLS.items()
    ]


def _fonts() -> Sequence[Finding]:
    from matplotlib import font_manager

    try:
        font = Path(font_manager.findfont("DejaVu Sans", fallback_to_default=False)).name
    except ValueError:
        return [Finding("fonts of pictures", "none", "pip install --force-reinstall matplotlib, which brings one")]
    return [Finding("fonts of pictures", font)]


def _places() -> Sequence[Finding]:
    places: dict[str, Callable[[], Path]] = {
        "results (the current folder)": Path.cwd,
        "pretrained weights": lambda: Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser(),
        "temporary files": lambda: Path(tempfile.gettempdir()),
    }
    return [_place(what, folder()) for what, folder in places.items()]


def _place(what: str, folder: Path) -> Finding:
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    free = shutil.disk_usage(there).free
    state = f"{folder}, {free / 1e9:.0f} GB free"
    is_results = folder == Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(what, f"{folder}: {error.strerror}", "make it writable, or use another folder", is_results)
    if free < LEAST_FREE:
        return Finding(what, state, f"free some space, {LEAST_FREE / 1e9:.0f} GB are enough for most runs")
    return Finding(what, state)
