"""Shared by the tests of whole commands: how a command is started, and one tiny run that all may read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import monai.data
import pytest
import torch
from monai.bundle import ConfigWorkflow

from scripts.utils.errors import describe

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
CompletedProcess = subprocess.CompletedProcess[str]
BundleRun = Callable[..., CompletedProcess]

# 8 classes in 4 tasks as in the main job, but few images and one epoch a stage: about 10 seconds
TINY: dict[str, Any] = {
    "source#train_per_class": 12,
    "source#test_per_class": 4,
    "source#val_per_class": 2,
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
    dataset: Path
    overrides: Mapping[str, Any]
    log: str


@pytest.fixture(scope="session")
def bundle_run(python: Callable[..., CompletedProcess]) -> BundleRun:
    """Run the command in a process of its own to its end, which must be a good one unless told not to ``check``."""

    def run(
        configs: str | Path | Sequence[str | Path],
        overrides: Mapping[str, Any],
        cwd: Path = BUNDLE,
        check: bool = True,
    ) -> CompletedProcess:
        listed = [configs] if isinstance(configs, str | Path) else configs
        done = python(["-m", "monai.bundle", *command_line(overrides, listed)], cwd)
        if check and done.returncode != 0:
            pytest.fail(f"ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    return run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, bundle_run: BundleRun) -> SmallRun:
    """One run of the main job, the same for all tests of a session."""
    folder = tmp_path_factory.mktemp("small_run")
    output, dataset = folder / "run", folder / "images"
    overrides = {**TINY, "dataset_dir": dataset}
    done = bundle_run("configs/train.json", {**overrides, "output_dir": output})
    return SmallRun(output, dataset, overrides, done.stdout + done.stderr)


# two epochs a stage, so that a run can be stopped within a stage, and a network that is soon written
TWO_EPOCHS: dict[str, Any] = {
    **TINY,
    "backbone": "mobilenet_v2",
    "network_def#sites": ["features.3", "features.5"],
    "source#train_per_class": 6,
    "source#test_per_class": 3,
    "source#val_per_class": 2,
    "backbone_epochs": 2,
    "adapter_epochs": 2,
    "finetune_epochs": 2,
    "image_size": 40,
    "batch_size": 8,
}
StartRun = Callable[..., BaseProcess]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Run:
    """A run with two epochs a stage; ``overrides`` are what it was started with, its output folder apart."""

    output: Path
    dataset: Path
    overrides: Mapping[str, Any]


@pytest.fixture(scope="session")
def bundle_command() -> Callable[..., list[str]]:
    """The function `command_line`."""
    return command_line


def command_line(overrides: Mapping[str, Any], configs: Sequence[str | Path] = ("configs/train.json",)) -> list[str]:
    """Return the arguments of ``python -m monai.bundle``."""
    listed = str([str(BUNDLE / path) for path in configs])
    pairs = [argument for key, value in overrides.items() for argument in (f"--{key}", str(value))]
    return ["run", "--config_file", listed, *pairs]


@pytest.fixture(scope="session")
def start_run(start_python: Callable[..., BaseProcess]) -> StartRun:
    """Start the command in a process of its own."""

    def start(overrides: Mapping[str, Any], configs: Sequence[str | Path] = ("configs/train.json",)) -> BaseProcess:
        return start_python(["-m", "monai.bundle", *command_line(overrides, configs)])

    return start


@pytest.fixture(scope="session")
def finish_run(start_run: StartRun) -> Callable[..., None]:
    """Run the command in a process forked as by `start_run`, to its end, which must be a good one."""

    def finish(
        overrides: Mapping[str, Any],
        configs: Sequence[str | Path] = ("configs/train.json",),
        seconds: float = 300,
    ) -> None:
        process = start_run(overrides, configs)
        process.join(seconds)
        assert process.exitcode == 0, f"ended with {process.exitcode}; what it printed is captured"

    return finish


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, finish_run: Callable[..., None]) -> Run:
    """A finished run, the same for all tests of a session; to be read only."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    overrides = {**TWO_EPOCHS, "dataset_dir": folder / "images"}
    finish_run({**overrides, "output_dir": folder / "run"})
    return Run(folder / "run", folder / "images", overrides)


@pytest.fixture(scope="session")
def halfway(tmp_path_factory: pytest.TempPathFactory, start_run: StartRun, uninterrupted: Run) -> Run:
    """The same run killed in its third task, after an epoch of adapter tuning; to be read only."""
    output = tmp_path_factory.mktemp("halfway") / "run"
    process = start_run({**uninterrupted.overrides, "output_dir": output})
    wait_until(process, lambda: _in_third_task(output))
    process.kill()
    process.join()
    return Run(output, uninterrupted.dataset, uninterrupted.overrides)


def _in_third_task(output: Path) -> bool:
    try:
        learnt = len(json.loads((output / "tasks.json").read_text()))
        epoch, checkpoint, tasks = ((output / name).stat() for name in ("epoch.pt", "checkpoint.pt", "tasks.json"))
    except FileNotFoundError:
        return False
    return learnt == 2 and epoch.st_mtime_ns > checkpoint.st_mtime_ns > tasks.st_mtime_ns


def wait_until(process: BaseProcess | subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Wait for something that ``process`` is sure to do."""
    alive = process.is_alive if isinstance(process, BaseProcess) else lambda: process.poll() is None
    while not happened():
        assert alive(), "the run ended early; what it printed is captured"
        time.sleep(0.001)


@pytest.fixture(scope="session", name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    """The function `wait_until`."""
    return wait_until


@pytest.fixture(scope="session")
def linked_copy() -> Callable[[Path, Path], Path]:
    """Copy a folder by hard links: a run replaces its files and never writes into one."""

    def copy(folder: Path, target: Path) -> Path:
        shutil.copytree(folder, target, copy_function=os.link)
        return target

    return copy


@pytest.fixture(scope="session")
def weights_digest() -> Callable[[Path], str]:
    """Digest names, shapes, types and values of the tensors in a file."""

    def digest(path: Path) -> str:
        state = torch.load(path, weights_only=True)
        found = hashlib.sha256()
        state = state["states"]["network"]["weights"] if "states" in state else state
        for key, value in sorted(state.items()):
            found.update(f"{key} {list(value.shape)} {value.dtype}".encode())
            found.update(value.contiguous().numpy().tobytes())
        return found.hexdigest()

    return digest


@pytest.fixture
def run_here() -> Iterator[Callable[..., None]]:
    """Run the command's workflow, which may be prepared, in this process, and undo what it changes of it.

    It draws no pictures: they take a quarter of such a run, and are the same in any.
    """

    def run(
        overrides: Mapping[str, Any],
        configs: Sequence[str | Path] = ("configs/train.json",),
        prepare: Callable[[ConfigWorkflow], None] = lambda workflow: None,
    ) -> None:
        files = [str(BUNDLE / path) for path in configs]
        workflow = ConfigWorkflow(config_file=files, workflow_type="train", **plain(overrides))
        workflow.initialize()
        prepare(workflow)
        workflow.run()

    hook, handler, tracks = sys.excepthook, signal.getsignal(signal.SIGTERM), monai.data.get_track_meta()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scripts.learning.handlers.report.png_of", lambda figure: PIXEL)
        yield run
    sys.excepthook = hook
    signal.signal(signal.SIGTERM, handler)
    monai.data.set_track_meta(tracks)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def refusal(run_here: Callable[..., None]) -> Callable[..., str]:
    """Run in this process what must be refused, and return the last line that the command would end with."""

    def refuse(overrides: Mapping[str, Any], configs: Sequence[str | Path] = ("configs/train.json",)) -> str:
        with pytest.raises(BaseException) as caught:
            run_here(overrides, configs)
        return describe(caught.value)

    return refuse


def plain(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides as a config holds them: paths as text."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
