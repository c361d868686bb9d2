"""Print images a second of the command that pipelines call, beside the network's own time in the same run.

Measured is what ``scripts.commands.classify`` does once it has started (model loaded, decoders running): find the
images, read them, classify, write a JSON file an image, for DICOM a structured report, and the lists. What is not the
network is ours.

make bench                                                       # MobileNetV2, 224 px; PNG of 224 px, DICOM of 512 px
python benchmarks/folder.py --backbone resnet18 --images 200
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from tabulate import tabulate
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.commands import folder
from scripts.commands.classify import Order
from scripts.deploy.inference import ImageClassifier
from scripts.deploy.inference.loading import load_image_classifier
from scripts.model.folder import write_model
from scripts.model.networks import ContinualNet, classifier_from, image_spec

SIDE = 224
TASKS = [{"name": str(task), "classes": [f"{task}a", f"{task}b"]} for task in range(4)]


class Timed(nn.Module):
    """A network that notes how long it is at work.

    Args:
        network: any.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seconds = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Pass images on."""
        started = time.perf_counter()
        logits: Tensor = self.network(images)
        if logits.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started
        return logits


def write_untrained(target: Path, backbone: str) -> None:
    """Write an untrained model: what it says matters not, how long it takes does."""
    network = ContinualNet(backbone, image_size=SIDE)
    network.backbone.branches = ["merged"]
    description = {**network.description(), "tasks": TASKS, "image": image_spec(backbone, SIDE).record()}
    write_model(target, classifier_from(description).state_dict(), description)


def soft(side: int, number: int) -> np.ndarray:
    """Return a picture of soft blobs and a little noise, 0..1, ``[side, side]``."""
    rng = np.random.default_rng(number)
    blobs = Image.fromarray(rng.random((side // 16, side // 16), dtype=np.float32))
    smooth = np.asarray(blobs.resize((side, side), Image.Resampling.BICUBIC))
    return (smooth + rng.normal(0, 0.02, smooth.shape)).clip(0, 1)


def write_png(path: Path, number: int) -> None:
    """Write a colour picture of 224 px."""
    channels = [soft(224, 3 * number + channel) for channel in range(3)]
    Image.fromarray(np.rint(255 * np.stack(channels, 2)).astype(np.uint8)).save(path.with_suffix(".png"))


def write_dicom(path: Path, number: int) -> None:
    """Write an uncompressed CT slice of 512 px."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.ImageType = "Doe^Jane", "1", ["ORIGINAL", "PRIMARY"]
    dataset.Rows = dataset.Columns = 512
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = np.rint(4095 * soft(512, number)).astype("<u2").tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def measure(source: Path, models: Path, batch_size: int, workers: int) -> tuple[float, float]:
    """Classify a folder once.

    Returns:
        Seconds in all, and those of the network.
    """
    started, timed = 0.0, Timed(nn.Identity())

    def load(*arguments: Any, **settings: Any) -> ImageClassifier:
        nonlocal started, timed
        classifier = load_image_classifier(*arguments, **settings)
        first = [classifier.pictures(str(path))[0] for path in sorted(source.iterdir())[:8]]
        list(classifier.classify_all(first, 8))  # starts what reads
        classifier.network = timed = Timed(classifier.network).eval()
        started = time.perf_counter()
        return classifier

    with tempfile.TemporaryDirectory() as output, mock.patch.object(folder, "load_image_classifier", load):
        order = Order(str(models), str(source), output, ("--batch_size", str(batch_size)), workers)
        _, refused, _ = folder.classify_folder(order)
        assert not refused
        return time.perf_counter() - started, timed.seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", nargs="+", default=["1:1", "8:1", "8:2", "32:2"], help="batch size:workers")
    arguments = parser.parse_args()
    settings = [tuple(map(int, setting.split(":"))) for setting in arguments.settings]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        write_untrained(models, arguments.backbone)
        for kind, write in {"PNG, 224 px": write_png, "DICOM, 512 px, with SR": write_dicom}.items():
            source = Path(name) / kind
            source.mkdir()
            for number in range(arguments.images):
                write(source / f"{number:04}", number)
            measure(source, models, 8, 1)  # warms up
            found: dict[tuple[int, ...], list[tuple[float, float]]] = {setting: [] for setting in settings}
            for _ in range(arguments.rounds):
                for batch_size, workers in settings:
                    found[batch_size, workers].append(measure(source, models, batch_size, workers))
            for setting, runs in found.items():
                seconds = {"network": [run[1] for run in runs], "ours": [run[0] - run[1] for run in runs]}
                whole = statistics.median(run[0] for run in runs)
                network, ours = (statistics.median(values) for values in seconds.values())
                milliseconds = [f"{1000 * value / arguments.images:.1f}" for value in (network, ours)]
                rows.append([kind, *setting, f"{arguments.images / whole:.1f}", *milliseconds])
    print(f"\nFolder in, folder out: {arguments.backbone}, 224 px; {platform.processor() or platform.machine()}")
    headers = ["images", "batch", "workers", "images/s", "network ms/image", "ours ms/image"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
