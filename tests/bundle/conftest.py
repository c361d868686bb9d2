"""Shared by the tests of whole commands: how a command is started, and one tiny run that all may read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
CompletedProcess = subprocess.CompletedProcess[str]
BundleRun = Callable[..., CompletedProcess]

# 8 classes in 4 tasks as in the main job, but few images and one epoch a stage: about 10 seconds
TINY: dict[str, Any] = {
    "source#root#train_per_class": 12,
    "source#root#test_per_class": 4,
    "backbone_epochs": 1,
    "adapter_epochs": 1,
    "finetune_epochs": 1,
    "memory_size": 16,
    "batch_size": 16,
    "device": "cpu",
}


@dataclass(frozen=True)
class SmallRun:
    """A finished run of the main job on few images. To be read only: every test sees the same folders.

    ``overrides`` are what it was started with, for a run of the same kind elsewhere; ``dataset`` holds the generated
    images (``Pathology16/<set>/<train|test>/<class>/0000.png``); ``log`` is what the run printed.
    """

    output: Path
    models: Path
    dataset: Path
    overrides: Mapping[str, Any]
    log: str


def environment() -> dict[str, str]:
    """One thread, so that tests beside each other do not slow each other down, and no PYTHONPATH from outside."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run_bundle(
    config_files: str | Path | Sequence[str | Path],
    overrides: Mapping[str, Any] | None = None,
    cwd: Path = BUNDLE,
    check: bool = True,
) -> CompletedProcess:
    """Run ``python -m monai.bundle run`` and return how it ended, with what it printed.

    Args:
        config_files: one config or several, later ones over earlier ones; relative ones start from the bundle.
        overrides: keys and values for the command line.
        cwd: the working directory.
        check: fail the test, with what was printed, unless the command ends with 0.
    """
    listed = [config_files] if isinstance(config_files, (str, Path)) else list(config_files)
    paths = [str(BUNDLE / path) for path in listed]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", paths[0] if len(paths) == 1 else str(paths)]
    for key, value in (overrides or {}).items():
        command += [f"--{key}", str(value)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\nended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


@pytest.fixture(scope="session")
def bundle_run() -> BundleRun:
    """The function `run_bundle`."""
    return run_bundle


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """One run of the main job, the same for all tests of a session."""
    folder = tmp_path_factory.mktemp("small_run")
    output, models, dataset = folder / "run", folder / "models", folder / "images"
    overrides = {**TINY, "dataset_dir": dataset}
    done = run_bundle("configs/train.json", {**overrides, "output_dir": output, "models_dir": models})
    return SmallRun(output, models, dataset, overrides, done.stdout + done.stderr)
