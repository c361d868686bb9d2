"""Print milliseconds from the C-STORE of an image to the arrival of its report, beside the network's own.

The network's own time is that of a relay in the node's place: it takes the same images by C-STORE and sends a report
that lies ready; nothing is kept on disk, decoded, classified or written. Associations stay open, as the node's do.
Node and relay are processes of their own and are measured in turns.

make bench                                                    # MobileNetV2, 224 px, CT images of 512 x 512, 2 threads
python benchmarks/node.py --backbone resnet18 --images 200
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pydicom
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import Comprehensive3DSRStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.deploy.node.destinations import StoreDestination
from scripts.imaging.image_spec import ImageSpec
from scripts.model.folder import write_model
from scripts.model.networks import ContinualNet

SIDE = 512
CLASSES = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c", "d"]}]
SECONDS = 120
RELAY, NODE = "the network alone (relay)", "node"


def free_port() -> int:
    """Return a port that nothing listens on, below those that the system hands out itself."""
    for port in random.SystemRandom().sample(range(10_000, 32_768), 1_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise SystemExit("no port is free")


def make_model(folder: Path, backbone: str, image_size: int) -> torch.nn.Module:
    """Write a merged model with random weights, and return its network."""
    network = ContinualNet(backbone, head="unified")
    for _ in CLASSES:
        network.grow(2)
        network.add_adapters()
    network.merge()
    plain = network.merge_and_unload(CLASSES)
    image = ImageSpec(image_size, [0.5] * 3, [0.25] * 3, presentation={"window": [40, 400]})
    write_model(folder, plain.state_dict(), {**network.description(), "tasks": CLASSES, "image": image.record()})
    return plain.eval()


def ct_image(pixels: np.ndarray) -> Dataset:
    """Return a CT of stored values, int16 [H, W]."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = CTImageStorage
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = (generate_uid() for _ in range(3))
    image.PatientID, image.Modality, image.ImageType = "bench", "CT", ["ORIGINAL", "PRIMARY"]
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    image.PixelData = pixels.tobytes()
    return image


def make_images(count: int) -> list[Dataset]:
    """Make CT images of noise, 512 KiB each."""
    rng = np.random.default_rng(0)
    return [ct_image(rng.integers(-1000, 1000, (SIDE, SIDE), dtype=np.int16)) for _ in range(count)]


def listen(port: int, stored: Queue[Any]) -> AE:
    """Put whatever is stored on this port into a queue."""

    def store(event: evt.Event) -> int:
        stored.put(event.request)
        return 0

    entity = AE("ANY")
    for sop_class in (CTImageStorage, Comprehensive3DSRStorage):
        entity.add_supported_context(sop_class, ExplicitVRLittleEndian)
    entity.maximum_pdu_size = 2**18  # the node's
    entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    return entity


def answer_at_once(port: int, destination: int, report: Path) -> None:
    """Answer every image with the same report, at once."""
    images: Queue[Any] = Queue()
    listen(port, images)
    archive = StoreDestination("127.0.0.1", destination, "ANY", "RELAY", SECONDS)
    content = report.read_bytes()
    while images.get():
        archive.send([content])


def connect(port: int, title: str) -> Association:
    """Open an association, as soon as somebody listens."""
    entity = AE("BENCH")
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    for _ in range(SECONDS * 10):
        association = entity.associate("127.0.0.1", port, ae_title=title)
        if association.is_established:
            return association
        time.sleep(0.1)
    raise SystemExit(f"nobody listens on port {port}")


def milliseconds(association: Association, image: Dataset, reports: Queue[Any]) -> float:
    """Return the time from the request to store an image to the arrival of its report."""
    start = time.perf_counter()
    association.send_c_store(image)
    reports.get(timeout=SECONDS)
    return 1e3 * (time.perf_counter() - start)


def images_a_second(association: Association, images: list[Dataset], reports: Queue[Any]) -> float:
    """Send images one after the other without waiting for reports; count until the last one is there."""
    start = time.perf_counter()
    for image in images:
        association.send_c_store(image)
    for _ in images:
        reports.get(timeout=SECONDS)
    return len(images) / (time.perf_counter() - start)


def passes(network: torch.nn.Module, image_size: int, rounds: int) -> float:
    """Return the median milliseconds of the network for one image."""
    image, seconds = torch.randn(1, 3, image_size, image_size), []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            network(image)
            seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def first_report(association: Association, images: list[Dataset], reports: Queue[Any]) -> bytes:
    """Warm the node up, and return a report as the relay is to send it."""
    for image in images:
        milliseconds(association, image, reports)
    association.send_c_store(make_images(1)[0])
    request = reports.get(timeout=SECONDS)
    found = pydicom.dcmread(BytesIO(request.DataSet.getvalue()), force=True)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with BytesIO() as file:
        found.save_as(file, enforce_file_format=True)
        return file.getvalue()


def measure(
    folder: Path, backbone: str, image_size: int, count: int, threads: int
) -> tuple[dict[str, list[float]], dict[str, float], float]:
    """Measure both ways in turns, then each with many images, then the model alone.

    Returns:
        Milliseconds of each image and images a second, by the way; milliseconds of the model's pass.
    """
    ports = {name: free_port() for name in ("archive", NODE, RELAY)}
    reports: Queue[Any] = Queue()
    archive = listen(ports["archive"], reports)
    network = make_model(folder / "model", backbone, image_size)
    settings = {"model": folder / "model", "queue_dir": folder / "queue", "device": "cpu", "port": ports[NODE]}
    settings |= {"destination_port": ports["archive"], "health_port": 0}
    pairs = [argument for key, value in settings.items() for argument in (f"--{key}", str(value))]
    processes = [start(["-m", "monai.bundle", "run", "--config_file", "configs/node.json", *pairs], threads)]
    try:
        node = connect(ports[NODE], "DYNAMMO")
        (folder / "report.dcm").write_bytes(first_report(node, make_images(5), reports))
        relay = [
            str(Path(__file__).resolve()),
            "--relay",
            str(ports[RELAY]),
            str(ports["archive"]),
            str(folder / "report.dcm"),
        ]
        processes.append(start(relay, threads))
        ways = {RELAY: connect(ports[RELAY], "ANY"), NODE: node}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for image in make_images(count):
            for name, association in ways.items():
                times[name].append(milliseconds(association, image, reports))
        rates = {name: images_a_second(way, make_images(count), reports) for name, way in ways.items()}
        return times, rates, passes(network, image_size, 30)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
        archive.shutdown()


def start(arguments: list[str], threads: int) -> subprocess.Popen[bytes]:
    """Start Python in the bundle's folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *arguments], cwd=bundle_root(), env=environment, **quiet)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2, help="of the model's pass")
    parser.add_argument("--relay", nargs=3, metavar=("PORT", "DESTINATION", "REPORT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.disable(logging.ERROR)  # pynetdicom's, while nobody listens yet
    if given.relay:
        answer_at_once(int(given.relay[0]), int(given.relay[1]), Path(given.relay[2]))
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        times, rates, one_pass = measure(Path(folder), given.backbone, given.image_size, given.images, given.threads)
    rows = [
        [name, f"{statistics.median(found):.1f}", f"{statistics.quantiles(found, n=10)[-1]:.1f}", f"{rates[name]:.1f}"]
        for name, found in times.items()
    ]
    own = statistics.median(times[NODE]) - statistics.median(times[RELAY])
    print(
        f"{given.backbone}, {given.image_size} px, {given.threads} threads; {given.images} CT images of {SIDE} px; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(tabulate(rows, ["C-STORE to report", "median ms", "90 % ms", "images/s, one after the other"], "github"))
    print(f"The node's own time is {own:.1f} ms an image at the median; {one_pass:.1f} ms of it are the model's pass.")


if __name__ == "__main__":
    main()
