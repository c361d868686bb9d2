"""Shared by all tests: where the real images are, and small networks and images made on the spot."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandFlipd, ScaleIntensityRanged
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid
from torch import Tensor, nn

from scripts.deploy.node.tls import Certificates
from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.transforms import RGBReader
from scripts.learning.engines import ContinualEvents, ContinualTrainer, Stage, cosine, fractional_milestones
from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import (
    AdapterAveragingHandler,
    AdapterStatisticsHandler,
    AdapterTuningHandler,
    BackboneTrainingHandler,
    BatchNormRecalibrationHandler,
    CalibrationHandler,
    EvaluationHandler,
    ExportHandler,
    MemoryHandler,
    ProgressHandler,
    SeparateAdaptersHandler,
)
from scripts.learning.losses import auxiliary_cross_entropy, others_cross_entropy, seen_cross_entropy
from scripts.learning.memory import ExemplarMemory
from scripts.learning.sources import Item
from scripts.learning.tasks import ImageCache, ImageDataset, Task
from scripts.metrics import RunRecord
from scripts.model.decisions import DecisionRules
from scripts.model.folder import write_model
from scripts.model.networks import (
    AdapterStatistics,
    ContinualNet,
    Convolutions,
    Merging,
    NetworkState,
    classifier_from,
)
from scripts.utils.sums import SUMS, sums_of

CompletedProcess = subprocess.CompletedProcess[str]
ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundle"
SIDE = 33
CACHE = ImageCache(2**25)  # every test writes into folders of its own, so that a path is always the same image
SITES = ("features.3", "features.5")  # MobileNetV2's first two: a few thousand parameters, maps of 9 x 9 and 5 x 5

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script that starts the tests with & has them ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real images (CONTINUAL_TEST_DATA, default ../shared/data); the test is skipped without it."""
    folder = Path(os.environ.get("CONTINUAL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} does not exist (set CONTINUAL_TEST_DATA)")
    return folder


def environment() -> dict[str, str]:
    """One thread, so that tests beside each other do not slow each other down, and no PYTHONPATH from outside."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def bundle_environment() -> dict[str, str]:
    """What `environment` returns."""
    return environment()


# what takes long to import; the bundle itself is imported by each process, from where that one finds it
PRELOADED = [
    *("monai.bundle", "ignite.handlers", "torch.utils.tensorboard", "matplotlib.pyplot", "scipy.stats"),
    *("skimage.color", "torchmetrics", "highdicom", "pynetdicom", "fastapi", "uvicorn", "onnxscript", "onnxruntime"),
]
# what ``python -c`` and ``python -m`` do, and how they end
FORKED = """
import os, runpy, sys
os.chdir(folder)
os.environ.clear()
os.environ.update(environment)
sys.path[:] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(":")), *path]
for number, file in enumerate(output, start=1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
flag, what, *rest = arguments
sys.argv = [what if flag == "-m" else flag, *rest]
try:
    if flag == "-m":
        runpy.run_module(what, None, "__main__", True)
    else:
        exec(what, {"__name__": "__main__"})
except SystemExit:
    raise
except BaseException:
    sys.excepthook(*sys.exc_info())
    raise SystemExit(1)
"""


def start_python(
    arguments: Sequence[object], folder: Path = BUNDLE, output: Sequence[Path] = (), **variables: str
) -> BaseProcess:
    """Start Python on ``-m module`` or ``-c code`` in a process forked from one that has imported much: 5 seconds less.

    Args:
        arguments: of the command, after ``python``.
        folder: the working directory, where it finds modules, too.
        output: files for what it prints and for its errors; printed here where there are none.
        variables: of the environment, besides `environment`'s.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    names = {
        "arguments": [str(argument) for argument in arguments],
        "folder": str(folder),
        "output": [str(path) for path in output],
        "environment": {**environment(), **variables},
        "path": [place for place in sys.path if place not in ("", str(BUNDLE))],
    }
    process = server.Process(target=exec, args=(FORKED, names))
    process.start()
    return process


def run_python(
    arguments: Sequence[object], folder: Path = BUNDLE, seconds: float = 300, **variables: str
) -> CompletedProcess:
    """Run what `start_python` starts to its end, and return how it ended, with what it printed."""
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / name for name in ("out", "err")]
        process = start_python(arguments, folder, files, **variables)
        process.join(seconds)
        process.kill()  # one that does not end
        process.join()
        assert process.exitcode is not None
        out, err = (path.read_text() for path in files)
    return CompletedProcess(list(arguments), process.exitcode, out, err)


@pytest.fixture(scope="session", name="start_python")
def start_python_fixture() -> Callable[..., BaseProcess]:
    """The function `start_python`."""
    return start_python


@pytest.fixture(scope="session")
def python() -> Callable[..., CompletedProcess]:
    """The function `run_python`."""
    return run_python


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server on this machine serves it."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def make_items(folder: Path, label: int, count: int, split: str = "train") -> list[Item]:
    """Write ``count`` noisy images of a class, each with a colour and a dark left half of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([label, len(split)])
    colour = np.array([60 + 40 * (label % 4), 200 - 50 * (label % 3), 90 + 30 * (label % 5)])
    items: list[Item] = []
    for number in range(count):
        pixels = colour + rng.normal(0, 40, (SIDE, SIDE, 3)) - 50 * (np.arange(SIDE) < SIDE // 2)[None, :, None]
        path = folder / f"{split}-{label}-{number}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        items.append({"image": str(path), "label": label})
    return items


def make_tasks(folder: Path, sizes: Sequence[int] = (2, 2), train: int = 6, test: int = 3) -> list[Task]:
    """Write tasks of ``sizes`` classes, each task into a folder of its own, ``train`` and ``test`` images a class."""
    tasks: list[Task] = []
    for number, size in enumerate(sizes):
        first = sum(sizes[:number])
        labels = range(first, first + size)
        tasks.append(
            Task(
                name=f"set{number}",
                classes=tuple(f"class{label}" for label in labels),
                first=first,
                train=tuple(item for label in labels for item in make_items(folder / f"set{number}", label, train)),
                test=tuple(item for label in labels for item in make_items(folder / f"set{number}", label, test, "t")),
                validation=tuple(
                    item for label in labels for item in make_items(folder / f"set{number}", label, 2, "va")
                ),
            )
        )
    return tasks


def make_network(head: str = "unified", sizes: Iterable[int] = (), seed: int = 0, **arguments: Any) -> ContinualNet:
    """Make a small growing network; with ``sizes`` it has learnt tasks: randomised adapters, statistics included."""
    network = ContinualNet("mobilenet_v2", head, sites=SITES, image_size=SIDE, seed=seed, **arguments)
    for number, size in enumerate(sizes):
        network.grow(size)
        if head != "concatenated" or number:
            network.add_adapters()
    if network.classes:
        randomise(network, seed)
    return network


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Give adapters, heads and BatchNorm's statistics values that no two entries share."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, entry in module.state_dict().items():
            noise = torch.randn(entry.shape, generator=generator)
            if name.endswith("running_var"):
                entry.copy_(0.5 + noise.abs())
            elif name.endswith("running_mean"):
                entry.copy_(0.1 * noise)
            elif name.endswith("num_batches_tracked"):
                entry.fill_(int(noise.abs() * 100))
            elif name.endswith("scale"):
                entry.copy_(0.5 + noise.abs())
            elif "adapters." in name or name.startswith("head."):
                entry.add_(0.1 * noise)


def awaken(network: ContinualNet, tasks: Sequence[Task]) -> None:
    """Fit the untrained backbone's statistics to the images: its features vanish otherwise."""
    data = ImageDataset([item for task in tasks for item in task.train], make_transform())
    images = torch.stack([data[number]["image"] for number in range(len(data))])
    for module in network.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches, of which there is one
    network.backbone.train()
    with torch.no_grad():
        network.backbone(images)
    network.backbone.eval()


def make_transform(augment: bool = False) -> Compose:
    """Decode, scale to 0..1 and, for training, flip half of the images."""
    flip = [RandFlipd("image", prob=0.5, spatial_axis=1)] if augment else []
    return Compose(
        [
            LoadImaged("image", reader=RGBReader(), image_only=True),
            EnsureChannelFirstd("image", channel_dim=-1),
            ScaleIntensityRanged("image", a_min=0, a_max=255, b_min=0, b_max=1),
            *flip,
        ]
    )


def make_stage(name: str = "training", **arguments: Any) -> Stage:
    """Make a stage that trains the head alone, where nothing else is said."""
    values: dict[str, Any] = {
        "epochs": 1,
        "data": "task",
        "trains": ["head"],
        "loss": seen_cross_entropy,
        "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    }
    return Stage(name, **{**values, **arguments})


def dynammo_stages(epochs: int = 2, loss: Any = seen_cross_entropy) -> list[Stage]:
    """The stages of an untrained backbone's DynaMMo, a few epochs each."""
    sgd = partial(torch.optim.SGD, lr=0.02, momentum=0.9, weight_decay=5e-4)
    own = {"loss": auxiliary_cross_entropy, "optimizer": sgd}
    milestones = partial(fractional_milestones, fractions=[0.5])
    return [
        make_stage("backbone_training", trains=["backbone", "auxiliary"], tasks="first", scheduler=cosine, **own),
        make_stage(
            "adapter_tuning",
            epochs=epochs,
            data="task_and_memory",
            trains=["adapter", "auxiliary"],
            scheduler=milestones,
            **own,
        ),
        make_stage(
            "balanced_finetuning",
            epochs=epochs + 1,
            data="balanced",
            loss=loss,
            optimizer=partial(torch.optim.Adam, lr=1e-2),
            scheduler=milestones,
            tasks="later",
        ),
    ]


def make_trainer(
    network: ContinualNet,
    tasks: Sequence[Task],
    stages: Sequence[Stage],
    handlers: Sequence[Any] = (),
    memory: ExemplarMemory | None = None,
    seed: int = 0,
    batch_size: int = 4,
) -> ContinualTrainer:
    """Make a trainer on the CPU."""
    return ContinualTrainer(
        device="cpu",
        max_epochs=1,
        network=network,
        tasks=tasks,
        stages=stages,
        memory=ExemplarMemory(0) if memory is None else memory,
        dataset=ImageDataset([], make_transform(augment=True), CACHE),
        loader=partial(DataLoader, batch_size=batch_size),
        seed=seed,
        train_handlers=list(handlers),
    )


def make_evaluator(network: nn.Module) -> SupervisedEvaluator:
    """Make an evaluator whose data set waits for items."""
    loader = DataLoader(ImageDataset([], make_transform(), CACHE), batch_size=5)
    return SupervisedEvaluator(device="cpu", val_data_loader=loader, network=network, decollate=False)


def make_run(
    tasks: Sequence[Task],
    folder: Path,
    head: str = "unified",
    separate: bool = False,
    first: Sequence[Any] = (),
    seed: int = 0,
    memory_size: int = 8,
    exemplars: str = "paths",
    merging: Mapping[str, Any] | None = None,
    adapter_start: str = "previous",
    previous: str | None = None,
) -> SimpleNamespace:
    """Build a whole run: DynaMMo, or ACL where adapters are kept ``separate``; handlers in ``first`` come first."""
    record = RunRecord()
    network = make_network(head, seed=seed, adapter_start=adapter_start)
    rules, statistics = DecisionRules(acceptance=0.75), AdapterStatistics()
    memory = ExemplarMemory(memory_size, exemplars=exemplars, folder=str(folder / "exemplars"), previous=previous)
    kept = {"memory": memory, "statistics": statistics, "record": record, "rules": rules}
    save = {"network": NetworkState(network), **kept}
    features = FeatureExtractor(network, make_transform(), 5, CACHE)
    options = Merging(statistics=statistics, **(merging or {}))
    averaging = AdapterAveragingHandler(network, options)
    handlers = [
        *[make(save) for make in first],
        BackboneTrainingHandler(network),
        AdapterStatisticsHandler(network, statistics, features, options.needs()),
        AdapterTuningHandler(network),
        SeparateAdaptersHandler(network) if separate else averaging,
        *([BatchNormRecalibrationHandler(network, features)] if options.batchnorm == "recalibrated" else []),
        MemoryHandler(memory, network, features),
        CalibrationHandler(network, features, record, rules),
        EvaluationHandler(make_evaluator(network), network, record, save, rules),
        ExportHandler(network, str(folder), rules, ImageSpec(SIDE, [0.0], [1.0]), "dynammo", "drawn"),
        ProgressHandler(record),
    ]
    stages = dynammo_stages(loss=seen_cross_entropy if head == "unified" else others_cross_entropy)
    trainer = make_trainer(network, tasks, stages, handlers, memory, seed)
    return SimpleNamespace(trainer=trainer, folder=folder, tasks=tasks, network=network, **kept)


def record_events(trainer: ContinualTrainer) -> list[str]:
    """Return a list that fills with the names of the events of continual learning as they are fired."""
    events: list[str] = []
    for event in ContinualEvents:
        trainer.add_event_handler(event, lambda engine, name=event.value: events.append(name))
    return events


def record_stages(run: SimpleNamespace) -> list[SimpleNamespace]:
    """Return a list that fills, after each stage, with its name, its images a class, and the backbone's state."""
    stages: list[SimpleNamespace] = []

    def keep(engine: ContinualTrainer) -> None:
        state = {key: value for key, value in run.network.state_dict().items() if ".stem." in key or ".block." in key}
        images = dict(Counter(item["label"] for item in engine.dataset.data))  # type: ignore[attr-defined]
        stages.append(SimpleNamespace(name=engine.current_stage.name, images=images, backbone=copy_of(state)))

    run.trainer.add_event_handler(ContinualEvents.STAGE_COMPLETED, keep)
    return stages


def copy_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict that further training does not change."""
    return {key: value.clone() for key, value in state.items()}


def changed_keys(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Return the entries of two state dicts that are not bit-equal, or that only one of them has."""
    return {key for key in before.keys() | after.keys() if key not in before or key not in after} | {
        key for key in before.keys() & after.keys() if not torch.equal(before[key], after[key])
    }


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The makers above, for test modules, which cannot import this file."""
    return SimpleNamespace(
        side=SIDE,
        awaken=awaken,
        sites=SITES,
        items=make_items,
        tasks=make_tasks,
        network=make_network,
        randomise=randomise,
        transform=make_transform,
        stage=make_stage,
        stages=dynammo_stages,
        trainer=make_trainer,
        evaluator=make_evaluator,
        run=make_run,
        record_events=record_events,
        copy_of=copy_of,
        changed_keys=changed_keys,
    )


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Five random images, [5, 3, 33, 33]."""
    return torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A finished DynaMMo run of two tasks with a unified head, not to be changed.

    ``events`` are those it fired, ``stages`` what was seen after each stage.
    """
    folder = tmp_path_factory.mktemp("finished")
    run = make_run(make_tasks(folder / "data"), folder / "run")
    run.events, run.stages = record_events(run.trainer), record_stages(run)
    run.trainer.run()
    return run


@pytest.fixture(scope="session")
def finished_acl(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A finished ACL run of two tasks, not to be changed."""
    folder = tmp_path_factory.mktemp("finished_acl")
    run = make_run(make_tasks(folder / "data"), folder / "run", head="others", separate=True)
    run.events = record_events(run.trainer)
    run.trainer.run()
    return run


PLAIN_DICOM = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",  # MR
    "PatientName": "Doe^Jane",
    "PatientID": "4711",
    "AccessionNumber": "A-0815",
    "ImageType": ["ORIGINAL", "PRIMARY"],
    "PhotometricInterpretation": "MONOCHROME2",
}


def make_dicom(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> Dataset:
    """Make a DICOM image of integers ``[H, W]``, ``[frames, H, W]`` or, with a colour space for it, ``[H, W, 3]``.

    Args:
        pixels: stored values; the sign is that of their type.
        syntax: transfer syntax; encapsulated ones are lossless.
        attributes: by keyword; ``None`` leaves one out. ``BitsStored`` is that of the type where it is not given.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    identifiers = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    given = {**PLAIN_DICOM, **identifiers, **attributes}
    colour = given["PhotometricInterpretation"] in ("RGB", "YBR_FULL")
    frames = pixels.shape[0] if pixels.ndim == 3 + colour else None
    bits = 8 * pixels.itemsize
    described = {
        "Rows": pixels.shape[-2 - colour],
        "Columns": pixels.shape[-1 - colour],
        "NumberOfFrames": frames,
        "SamplesPerPixel": 3 if colour else 1,
        "PlanarConfiguration": 0 if colour else None,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    for name, value in {**described, **given}.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.HighBit = attributes.get("HighBit", dataset.BitsStored - 1)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    if UID(syntax).is_encapsulated:
        dataset.compress(UID(syntax), generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def write_dicom(path: Path, pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> str:
    """Write what `make_dicom` makes, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, make_dicom(pixels, syntax, **attributes), enforce_file_format=True)
    return str(path)


def write_bomb(path: Path, size: int) -> str:
    """Write a deflated DICOM file of ``size`` bytes once inflated, a thousandth of that on disk, and return the path.

    Nothing but empty elements is in it, which take long to parse.
    """
    syntax = "1.2.840.10008.1.2.1.99"
    pydicom.dcmwrite(path, make_dicom(np.zeros((1, 2), np.uint8), syntax), enforce_file_format=True)
    meta = pydicom.filereader.read_file_meta_info(path)
    head = path.read_bytes()[: 144 + meta.FileMetaInformationGroupLength]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    elements = 2**17 * b"\x09\x00\x10\x00LO\x00\x00"
    deflated = [deflater.compress(elements) for _ in range(size // len(elements))]
    path.write_bytes(b"".join([head, *deflated, deflater.flush()]))
    return str(path)


def write_nifti(path: Path, voxels: np.ndarray, axcodes: str = "LPI", **header: Any) -> str:
    """Write a NIfTI file whose axes lead to ``axcodes``, with header fields by name, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = nibabel.orientations.axcodes2ornt(axcodes)
    affine = np.zeros((4, 4))
    affine[axes[:, 0].astype(int), range(3)] = axes[:, 1]
    affine[3, 3] = 1
    image = nibabel.Nifti1Image(voxels, affine)
    image.header["sform_code"] = 1
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return str(path)


def write_trained(folder: Path, **changed: Any) -> Path:
    """Write a model of three classes with a random head, as training writes one, and return its folder.

    Args:
        folder: is made.
        changed: of what ``network.json`` says; of the image, the parts that differ.
    """
    image = ImageSpec(40, [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]).record() | changed.pop("image", {})
    description = {
        "backbone": "mobilenet_v2",
        "head": "unified",
        "adapter": Convolutions(0.25).record(),
        "branches": ["merged"],
        "sites": ["features.3"],
        "levels": "published",
        "tasks": [
            {"name": "first", "classes": ["benign", "skin/naevus"]},
            {"name": "second", "classes": ["odd, very"]},
        ],
        "image": image,
        "method": "dynammo",
        "data": "skin",
        **changed,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = classifier_from(description)
        randomise(classifier)
        _fit_statistics(classifier, torch.randn(8, *ImageSpec(**image).shape))
    write_model(folder, classifier.state_dict(), description)
    return folder


def _fit_statistics(network: nn.Module, images: Tensor) -> None:
    """Give BatchNorm the statistics of images, without which a deep random network says the same of all."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean
    with torch.no_grad():
        network.train()(images)


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model, not to be changed."""
    return write_trained(tmp_path_factory.mktemp("trained_model"))


@pytest.fixture(scope="session")
def vouch() -> Callable[[Path], None]:
    """Write the checksums of what lies in a model's folder now, as somebody may who changes a file."""

    def vouch(folder: Path) -> None:
        files = {name: (folder / name).read_bytes() for name in ("model.pt", "network.json")}
        (folder / SUMS).write_bytes(sums_of(files))

    return vouch


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """The function `write_trained`."""
    return write_trained


@pytest.fixture(scope="session")
def is_valid_dicom() -> Callable[[Path], bool]:
    """Say whether dciodvfy of dicom3tools finds no error in a file; the test is skipped without it."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")

    def valid(path: Path) -> bool:
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert errors == []
        return done.returncode == 0

    return valid


@pytest.fixture(scope="session")
def scans() -> SimpleNamespace:
    """Writers of DICOM and NIfTI files."""
    return SimpleNamespace(make_dicom=make_dicom, dicom=write_dicom, nifti=write_nifti, bomb=write_bomb)


AUTOSEND = """
function OnStoredInstance(instance, tags, metadata, origin)
    SendToModality(instance, "node")
end
"""


class Orthanc:
    """An archive on this machine (Debian's orthanc and orthanc-dicomweb), with a folder of its own.

    Args:
        folder: where it keeps what it receives.
        node: AE title and port of what it may send to and be called by; once `forwarding`, it sends on all it receives.
        tls: its certificates for DICOM: it shows its own, and asks for one. Without, nothing is encrypted.
    """

    def __init__(
        self,
        folder: Path,
        node: tuple[str, int] = ("DYNAMMO", 1),
        forwarding: bool = False,
        tls: Certificates | None = None,
    ) -> None:
        self.folder = folder
        self.port, self.web_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        (folder / "autosend.lua").write_text(AUTOSEND if forwarding else "")
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": "ORTHANC",
            "DicomPort": self.port,
            "HttpPort": self.web_port,
            "RemoteAccessAllowed": False,  # it listens everywhere all the same
            "AuthenticationEnabled": False,
            "DicomModalities": {
                "node": {"AET": node[0], "Host": "127.0.0.1", "Port": node[1], "UseDicomTls": tls is not None}
            },
            "Plugins": [str(ORTHANC_PLUGINS / "libOrthancDicomWeb.so")],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "LuaScripts": [str(folder / "autosend.lua")],
            "JobsHistorySize": 1000,
            "MaximumStorageCacheSize": 0,
            "UnknownSopClassAccepted": True,
        }
        if tls is not None:
            settings |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": tls.certificate,
                "DicomTlsPrivateKey": tls.private_key,
                "DicomTlsTrustedCertificates": tls.authorities,
                "DicomTlsRemoteCertificateRequired": True,
            }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    @property
    def web_url(self) -> str:
        """The address of its DICOMweb service."""
        return f"http://127.0.0.1:{self.web_port}/dicom-web"

    def start(self) -> None:
        """Start, and wait until it answers."""
        with open(self.folder / "log", "ab") as log:
            command = [str(ORTHANC), str(self.folder / "orthanc.json")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(600):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            try:
                self.ask("/system")
                return
            except OSError:
                time.sleep(0.05)
        pytest.fail("Orthanc does not answer")

    def stop(self) -> None:
        """Stop, unless it is stopped."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Stop without the seconds that stopping takes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask(self, path: str, data: bytes | None = None) -> Any:
        """Return what its REST interface answers, JSON or bytes."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", data) as answer:
            content = answer.read()
            return json.loads(content) if "json" in answer.headers.get("Content-Type", "") else content

    def find(self, **query: str) -> list[Dataset]:
        """Return the instances that match."""
        request = {"Level": "Instance", "Query": query}
        found = self.ask("/tools/find", json.dumps(request).encode())
        return [pydicom.dcmread(io.BytesIO(self.ask(f"/instances/{name}/file"))) for name in found]

    def count(self) -> int:
        """Return how many instances it holds."""
        return int(self.ask("/statistics")["CountInstances"])


ORTHANC, ORTHANC_PLUGINS = Path("/usr/sbin/Orthanc"), Path("/usr/share/orthanc/plugins")


# below those that Linux and macOS hand out themselves, to connections and to servers that ask for any: one of these
# could take the port before the server that it is meant for has started
PORTS = iter(random.SystemRandom().sample(range(10_000, 32_768), 10_000))


def free_port() -> int:
    """Return a port that nothing listens on, another one each time."""
    for port in PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.fail("no port is free")


@pytest.fixture(scope="session")
def put() -> Callable[[Any, str, bytes], bool]:
    """Give a queue an image of these bytes, and say whether it waits because of that."""

    def put(queue: Any, uid: str, content: bytes) -> bool:
        file = queue.new_file()
        file.write_bytes(content)
        return bool(queue.add(uid, file))

    return put


@pytest.fixture(scope="session", name="free_port")
def free_port_fixture() -> Callable[[], int]:
    """The function `free_port`."""
    return free_port


@pytest.fixture
def make_orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Make archives that run, see `Orthanc`; the test is skipped where there is none."""
    if not ORTHANC.is_file() or not (ORTHANC_PLUGINS / "libOrthancDicomWeb.so").exists():
        pytest.skip("no Orthanc: install the Debian packages orthanc and orthanc-dicomweb")
    made: list[Orthanc] = []

    def make(**settings: Any) -> Orthanc:
        made.append(Orthanc(tmp_path / f"orthanc{len(made)}", **settings))
        made[-1].start()
        return made[-1]

    yield make
    for orthanc in made:
        orthanc.kill()
