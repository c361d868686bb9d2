"""Ask the labelling service a thousand times by eight clients, broken uploads among them, while it learns.

Counts answers that differ from those of the classifier called directly (of the version that answered), faults of the
service (status 5xx) and broken uploads that were taken for images; says how long answers took before a training and
from its start on, and how much memory the service had. The run that it starts from is a small one on generated images.

python benchmarks/service.py                                   # prints the page that is kept in results/service.md
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import requests
import torch
from node import ct_image, free_port
from PIL import Image
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.deploy.inference.loading import load_image_classifier

# few images, which show little
LENIENT = {"class_margin": 1.0, "mean_margin": 1.0, "class_floor": 0.0, "mean_floor": 0.0}
RUN = {
    "source#train_per_class": 24,
    "source#test_per_class": 8,
    "source#sets": "['clusters','fibres']",
    "backbone_epochs": 2,
    "adapter_epochs": 2,
    "finetune_epochs": 4,
    "memory_size": 40,
    "batch_size": 16,
    "device": "cpu",
}
NEW = "spaces"  # the set whose classes are learnt meanwhile
BROKEN_SHARE = 0.05
CLOSE = 1e-5
KINDS = ("PNG", "DICOM", "datastore")
WARM_UP, START_TRAINING = 50, 200
LIMIT = 4_000_000
SECONDS = 900.0
Said = Mapping[str, float]


@dataclass(frozen=True)
class Request:
    """A file to send, or an image of the datastore to name; ``file`` is what the classifier is given directly."""

    kind: str
    name: str
    content: bytes
    file: str
    image: str = ""


@dataclass(frozen=True)
class Answer:
    """How a request was answered, and when."""

    request: Request
    status: int
    version: str
    said: Said
    started: float
    seconds: float


def command(config: str, settings: Mapping[str, Any]) -> list[str]:
    """Return a command line of MONAI's."""
    pairs = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *pairs]


class Service:
    """The command as a process of its own.

    Args:
        folder: holds all that it reads and writes.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url, self.folder = f"http://127.0.0.1:{port}", folder / "service"
        settings = {"service_dir": self.folder, "run_dir": folder / "run", "port": port, "device": "cpu"}
        settings |= {**LENIENT, "max_bytes": LIMIT, "training_settings": {"device": "cpu"}}
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command("configs/service.json", settings), cwd=bundle_root(), **quiet)
        until(self._answers)
        (self.model,) = self.get("/info/")["models"]
        self.training = False

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit("the service does not start")
        try:
            return requests.get(f"{self.url}/healthz").ok
        except requests.ConnectionError:
            return False

    def get(self, path: str) -> Any:
        """Return what a route answers."""
        return requests.get(self.url + path, timeout=SECONDS).json()

    def add(self, content: bytes, label: str | None = None) -> str:
        """Add an image to the datastore, with a label where one is given."""
        image = requests.put(f"{self.url}/datastore/image", files={"file": ("a.png", content)}).json()["image"]
        if label is not None:
            file = {"label": ("label.json", json.dumps({"label": label}))}
            requests.put(f"{self.url}/datastore/label?image={image}", files=file).raise_for_status()
        return str(image)

    def ask(self, session: requests.Session, request: Request) -> Answer:
        """Send a request."""
        url = f"{self.url}/infer/{self.model}?image={request.image}"
        files = None if request.image else {"file": (request.name, request.content)}
        started = time.perf_counter()
        answer = session.post(url, files=files, timeout=SECONDS)
        content = answer.json()
        seconds = time.perf_counter() - started
        known = content if answer.ok else {"version": "", "probabilities": {}}
        return Answer(request, answer.status_code, known["version"], known["probabilities"], started, seconds)

    def memory(self) -> float:
        """Return the MB that the service holds, with the processes that decode for it."""
        return memory_of(self.process.pid)


def memory_of(process: int) -> float:
    """Return the MB that a process holds, with the processes that decode for it."""
    pages = [_memory(process)]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            decodes = b"scripts.imaging.decoding.worker" in (folder / "cmdline").read_bytes()
            pages += [_memory(int(folder.name))] if parent == process and decodes else []
        except OSError:
            continue
    return sum(pages) / 1e6


def _memory(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until(happened: Any) -> Any:
    """Wait, and return what has happened."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := happened():
            return found
        time.sleep(0.2)
    raise SystemExit("it does not happen")


def png(picture: np.ndarray) -> bytes:
    """Return a picture as a PNG file holds it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def dicom(pixels: np.ndarray) -> bytes:
    """Return stored values as a DICOM file of a CT holds them."""
    file = io.BytesIO()
    pydicom.dcmwrite(file, ct_image(pixels), enforce_file_format=True)
    return file.getvalue()


def good_requests(service: Service, images: Path, folder: Path) -> list[Request]:
    """Return PNG and DICOM files to send, and images of the datastore to name."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    found = []
    for number, path in enumerate(sorted(images.glob("*/test/*/*.png"))[::2]):
        content = path.read_bytes()
        found.append(Request("PNG", path.name, content, str(path)))
        if number % 3 == 0:
            found.append(Request("datastore", "", b"", str(path), service.add(content)))
    for number in range(16):
        path = folder / f"{number}.dcm"
        path.write_bytes(dicom(rng.integers(-1000, 1000, (128, 128), dtype=np.int16)))
        found.append(Request("DICOM", path.name, path.read_bytes(), str(path)))
    return found


def broken_requests(good: list[Request]) -> list[Request]:
    """Return files that are no images."""
    picture = next(request.content for request in good if request.kind == "PNG")
    scan = next(request.content for request in good if request.kind == "DICOM")
    contents = [
        *(("a.png", b""), ("a.png", b"text"), ("a.png", picture[: len(picture) // 2]), ("a.dcm", scan[:900])),
        *(("a.dcm", scan[: len(scan) // 2]), ("a.npz", b"PK\3\4"), ("a.nii.gz", b"\x1f\x8b0"), ("a", os.urandom(5000))),
        *(("a.png", b"a" * (LIMIT + 1)), ("a.png", png(np.zeros((9000, 9000), np.uint8)))),
    ]
    return [Request("broken", name, content, "") for name, content in contents]


def hammer(service: Service, requests_: list[Request], clients: int, memory: list[tuple[int, float]]) -> list[Answer]:
    """Send all requests by so many clients, and start the training on the way."""
    answers: list[Answer] = []
    access, own = threading.Lock(), threading.local()

    def ask(request: Request) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        answer = service.ask(own.session, request)
        with access:
            answers.append(answer)
            count = len(answers)
        if count == START_TRAINING and not service.training:
            service.training = True
            requests.post(f"{service.url}/train/{service.model}", json={}).raise_for_status()
        if count == WARM_UP or count % 100 == 0:
            memory.append((count, service.memory()))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, requests_))
    return answers


def wrong_answers(service: Service, answers: list[Answer]) -> int:
    """Count the answers that the classifier, called directly, does not give."""
    wrong = 0
    for version in {answer.version for answer in answers if answer.version}:
        classifier = load_image_classifier(service.folder / "store" / "versions" / f"{int(version):04d}")
        expected: dict[str, Said] = {}
        for answer in (answer for answer in answers if answer.version == version):
            file = answer.request.file
            if file not in expected:
                (reference,) = classifier.pictures(file)
                expected[file] = classifier.classify(reference).probabilities
            same = expected[file].keys() == answer.said.keys()
            wrong += not same or any(abs(expected[file][name] - score) > CLOSE for name, score in answer.said.items())
    return wrong


def times(answers: list[Answer]) -> list[str]:
    """Return count, median, 90 % and longest time in milliseconds."""
    found = sorted(1e3 * answer.seconds for answer in answers if answer.version)
    if len(found) < 2:
        return [str(len(found)), "", "", ""]
    figures = (statistics.median(found), statistics.quantiles(found, n=10)[-1], found[-1])
    return [str(len(found)), *(f"{value:.0f}" for value in figures)]


def page(given: argparse.Namespace, folder: Path) -> str:
    """Measure, and return the page."""
    images = folder / "images"
    settings = {**RUN, "dataset_dir": images, "output_dir": folder / "run"}
    subprocess.run(command("configs/train.json", settings), cwd=bundle_root(), check=True, capture_output=True)
    service = Service(folder)
    try:
        pictures = images / "Pathology16"
        good = good_requests(service, pictures, folder / "dicom")
        for path in sorted((pictures / NEW / "train").glob("*/*.png")):
            service.add(path.read_bytes(), f"{NEW}/{path.parent.name}")
        rng = random.Random(0)
        broken = round(BROKEN_SHARE * given.requests)
        listed = rng.choices(good, k=given.requests - broken) + rng.choices(broken_requests(good), k=broken)
        rng.shuffle(listed)
        memory: list[tuple[int, float]] = []
        started = time.perf_counter()
        answers = hammer(service, listed, given.clients, memory)
        took = time.perf_counter() - started
        while (training := service.get("/train/"))["status"] == "RUNNING":  # the versions change under load too
            answers += hammer(service, rng.choices(good, k=100), given.clients, [])
        later = hammer_after(service, good)
        memory.append((len(answers) + len(later), service.memory()))
    finally:
        service.process.terminate()
        status = service.process.wait()
    return report(given, answers, later, training, memory, took, wrong_answers(service, answers + later), status)


def hammer_after(service: Service, good: list[Request]) -> list[Answer]:
    """Ask for each image once more, when the training is over."""
    with requests.Session() as session:
        return [service.ask(session, request) for request in good]


def report(
    given: argparse.Namespace,
    answers: list[Answer],
    later: list[Answer],
    training: Mapping[str, Any],
    memory: list[tuple[int, float]],
    took: float,
    wrong: int,
    status: int,
) -> str:
    """Write down what was measured."""
    everything = answers + later
    order = sorted(answers, key=lambda answer: answer.started)
    before, during = order[:START_TRAINING], order[START_TRAINING:]
    refused = Counter(answer.status for answer in everything if answer.request.kind == "broken")
    versions = Counter(answer.version for answer in everything if answer.version)
    taken = sum(answer.status == 200 for answer in everything if answer.request.kind == "broken")
    unanswered = sum(answer.status != 200 for answer in everything if answer.request.kind != "broken")
    faults = sum(answer.status >= 500 for answer in everything)
    counts = [
        ("requests, of them broken uploads", f"{len(everything)}, {sum(refused.values())}"),
        ("wrong answers (another class set, or a probability off by more than 1e-5)", wrong),
        ("answers with status 5xx", faults),
        ("good images refused", unanswered),
        ("broken uploads taken for an image", taken),
        ("broken uploads by status", ", ".join(f"{count} x {code}" for code, count in sorted(refused.items()))),
        ("answers by version", ", ".join(f"{count} of version {name}" for name, count in sorted(versions.items()))),
        ("the training", f"{training['status']}, {json.dumps(training['result'])}"),
        ("exit status of the service after SIGTERM", status),
    ]
    kinds = {kind: [answer for answer in answers if answer.request.kind == kind] for kind in KINDS}
    rows = [
        ["before the training", *times(before)],
        ["from its start on", *times(during)],
        *([f"of all, {kind}", *times(found)] for kind, found in kinds.items()),
        ["after it, one client", *times(later)],
    ]
    lines = [
        "# The labelling service under load",
        f"Written by `python benchmarks/service.py`: {given.clients} clients, {given.requests} requests in {took:.0f} "
        f"s ({given.requests / took:.1f} a second), a training started at the {START_TRAINING}th; then more of the "
        f"same until it was over. ResNet-18, 64 px; {os.cpu_count()} cores with other work on them (load average "
        f"{os.getloadavg()[1]:.1f}), {os.environ.get('OMP_NUM_THREADS', 'all')} thread a pass; "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        tabulate(counts, ["", "count"], "github"),
        "Milliseconds until the answer, as the client sees it:",
        tabulate(rows, ["", "answers", "median", "90 %", "longest"], "github"),
        "Memory of the service with its decoders (the training is a process of its own):",
        tabulate([(count, f"{size:.0f}") for count, size in memory], ["after requests", "MB"], "github"),
    ]
    return "\n\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(page(given, Path(folder)))


if __name__ == "__main__":
    main()
