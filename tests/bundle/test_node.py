"""The DICOM node as the real command, beside a real archive: images go in, valid reports come back, none is lost."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from pynetdicom import AE

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
NODE = ("configs/node.json",)
CR, CT, MR = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
SC, FRAMES, PHOTO = (f"1.2.840.10008.5.1.4.1.1.{last}" for last in ("7", "7.2", "77.1.4"))
SR = "1.2.840.10008.5.1.4.1.1.88.34"
NAME, IDENTIFIER, ACCESSION = "Secretname^Jane", "PATIENT-4711", "ACCESSION-0815"
WHO = {"PatientName": NAME, "PatientID": IDENTIFIER, "AccessionNumber": ACCESSION}
SECONDS = 60.0
numbers = itertools.count()
# dcmtk's, not the one that pynetdicom puts beside this Python, which an activated environment finds first
PATHS = [path for path in os.get_exec_path() if Path(path) != Path(sys.executable).parent]
STORESCU = shutil.which("storescu", path=os.pathsep.join(PATHS))


def grey(kind: type = np.uint8, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(next(numbers))
    return rng.integers(0, 200, shape or (40, 48)).astype(kind)


KINDS: dict[str, Callable[[Any], Dataset]] = {
    "MONOCHROME1": lambda make: make(grey(), SOPClassUID=CR, PhotometricInterpretation="MONOCHROME1", **WHO),
    "MONOCHROME2": lambda make: make(grey(np.uint16), BitsStored=12, **WHO),
    "CT": lambda make: make(grey(np.int16), SOPClassUID=CT, RescaleSlope=1, RescaleIntercept=-100, **WHO),
    "RGB": lambda make: make(grey(np.uint8, 40, 48, 3), SOPClassUID=PHOTO, PhotometricInterpretation="RGB", **WHO),
    "multi-frame": lambda make: make(grey(np.uint8, 5, 40, 48), SOPClassUID=FRAMES, BurnedInAnnotation="NO", **WHO),
    "JPEG-LS": lambda make: make(grey(), JPEGLSLossless, **WHO),
    "JPEG 2000": lambda make: make(grey(np.uint16), JPEG2000Lossless, **WHO),
    "RLE": lambda make: make(grey(np.uint16), RLELossless, **WHO),
}
PROPOSE = {JPEGLSLossless: "-xt", JPEG2000Lossless: "-xv", RLELossless: "-xr", ExplicitVRLittleEndian: "-xe"}


class NodeProcess:
    """The command with its own settings, which may be started again."""

    def __init__(self, start: Callable[..., Any], settings: dict[str, Any]) -> None:
        self.settings = settings
        self._start = start
        self._process: Any = None

    @property
    def port(self) -> int:
        return int(self.settings["port"])

    def start(self, wait: bool = True) -> None:
        self._process = self._start(self.settings, NODE)
        if wait:
            until(lambda: echo(self.port) or not self._process.is_alive())
            assert self._process.is_alive()

    def end(self, number: int = signal.SIGTERM) -> int | None:
        os.kill(self._process.pid, number)
        self._process.join(SECONDS)
        return self._process.exitcode

    def close(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()


def until(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def associate(port: int, datasets: Sequence[Dataset] = (), calling: str = "TEST") -> Any:
    entity = AE(calling)
    entity.dimse_timeout = 5
    entity.add_requested_context("1.2.840.10008.1.1")
    for sop_class, syntax in {(data.SOPClassUID, data.file_meta.TransferSyntaxUID) for data in datasets}:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port, ae_title="DYNAMMO")
    if association.is_established:  # or each small image waits 40 ms for TCP
        association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return association


def echo(port: int) -> bool:
    association = associate(port)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status) and status.Status == 0


def send_all(port: int, datasets: Sequence[Dataset]) -> None:
    """Send until the node has taken on all: pynetdicom now and then misses an answer, and a sender then sends again."""
    left = list(datasets)
    while left:
        left = send(port, left)


def send(port: int, datasets: Sequence[Dataset]) -> list[Dataset]:
    """Send, and return those that the node has not taken on."""
    association = associate(port, datasets)
    left = list(datasets)
    while left and association.is_established:
        try:
            status = association.send_c_store(left[0])
        except RuntimeError:  # the association has ended
            break
        if not status or status.Status != 0:
            break
        left.pop(0)
    if association.is_established:
        association.release()
    return left


@pytest.fixture
def make_node(
    start_run: Callable[..., Any], trained_model: Path, free_port: Callable[[], int], tmp_path: Path
) -> Iterator[Callable[..., NodeProcess]]:
    """Make a node with a trained model of two tasks, not yet started."""
    made: list[NodeProcess] = []

    def make(**overrides: Any) -> NodeProcess:
        settings = {
            "model": trained_model,
            "queue_dir": tmp_path / "queue",
            "port": free_port(),
            "health_port": 0,
            "device": "cpu",
            "first_pause": 0.2,
            "longest_pause": 1,
            "presentation#pictures": "middle",
            **overrides,
        }
        made.append(NodeProcess(start_run, settings))
        return made[-1]

    yield make
    for node in made:
        node.close()


def sources(reports: Sequence[Dataset]) -> list[str]:
    """Return the images that reports are of."""
    evidence = [report.CurrentRequestedProcedureEvidenceSequence[0] for report in reports]
    return [item.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in evidence]


def put(orthanc: Any, images: Sequence[Dataset]) -> None:
    """Give images to the archive by its own interface."""
    for image in images:
        with io.BytesIO() as file:
            image.save_as(file, enforce_file_format=True)
            orthanc.ask("/instances", file.getvalue())


def store(orthanc: Any, dataset: Dataset, folder: Path) -> None:
    """Send a file to the archive by dcmtk."""
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    proposal = PROPOSE[UID(dataset.file_meta.TransferSyntaxUID)]
    assert STORESCU is not None
    subprocess.run([STORESCU, proposal, "-R", "-aec", "ORTHANC", "127.0.0.1", str(orthanc.port), path], check=True)


@pytest.mark.skipif(STORESCU is None, reason="no storescu: install the Debian package dcmtk")
def test_every_kind_of_image_comes_back_as_a_valid_report_in_its_study(
    make_node: Callable[..., NodeProcess],
    make_orthanc: Callable[..., Any],
    is_valid_dicom: Callable[[Path], bool],
    scans: Any,
    tmp_path: Path,
) -> None:
    node = make_node()
    orthanc = make_orthanc(node=("DYNAMMO", node.port), forwarding=True)
    node.settings["destination_port"] = orthanc.port
    node.start()
    images = {kind: make(scans.make_dicom) for kind, make in KINDS.items()}
    for dataset in images.values():
        store(orthanc, dataset, tmp_path)
    until(lambda: orthanc.count() == 2 * len(KINDS))
    for kind, dataset in images.items():
        (report,) = orthanc.find(StudyInstanceUID=dataset.StudyInstanceUID, SOPClassUID=SR)
        assert sources([report]) == [dataset.SOPInstanceUID], kind
        assert report.SeriesInstanceUID != dataset.SeriesInstanceUID
        assert (report.PatientName, report.AccessionNumber) == (NAME, ACCESSION)
        report.save_as(tmp_path / "report.dcm")
        assert is_valid_dicom(tmp_path / "report.dcm"), kind
    # the archive has sent the reports to the node, too
    until(lambda: {job["State"] for job in orthanc.ask("/jobs?expand")} <= {"Success"})
    assert orthanc.count() == 2 * len(KINDS)
    assert node.end() == 0


def test_nothing_is_lost_while_the_archive_is_away(
    make_node: Callable[..., NodeProcess], make_orthanc: Callable[..., Any], scans: Any
) -> None:
    orthanc = make_orthanc()
    node = make_node(destination_port=orthanc.port)
    node.start()
    images = [scans.make_dicom(grey()) for _ in range(100)]
    send_all(node.port, images[:40])
    until(lambda: orthanc.count() > 10)
    orthanc.stop()
    send_all(node.port, images[40:])
    time.sleep(1)
    orthanc.start()
    until(lambda: orthanc.count() == 100)
    assert sorted(sources(orthanc.find(SOPClassUID=SR))) == sorted(image.SOPInstanceUID for image in images)


def test_nothing_is_lost_or_sent_twice_when_the_node_is_killed(
    make_node: Callable[..., NodeProcess], make_orthanc: Callable[..., Any], scans: Any
) -> None:
    orthanc = make_orthanc()
    node = make_node(destination_port=orthanc.port)
    images = [scans.make_dicom(grey()) for _ in range(100)]
    left, taken = images, 0
    while left:
        node.start()
        batch = 20 + taken // 4
        left = send(node.port, left[:batch]) + left[batch:]
        taken += batch
        until(lambda: orthanc.count() > 5)
        node.end(signal.SIGKILL)
    node.start()
    until(lambda: orthanc.count() == 100)
    assert sorted(sources(orthanc.find(SOPClassUID=SR))) == sorted(image.SOPInstanceUID for image in images)
    send_all(node.port, images[:3])  # as a sender does that has not heard of the first time
    time.sleep(0.5)
    assert node.end() == 0
    assert orthanc.count() == 100


def test_images_are_pulled_and_reports_stored_by_web(
    make_node: Callable[..., NodeProcess], make_orthanc: Callable[..., Any], scans: Any
) -> None:
    orthanc = make_orthanc()
    node = make_node(
        **{"input": "@puller", "destination": "@stow", "web_url": orthanc.web_url},
        **{"puller#interval": 0.1, "puller#days": "$None"},
    )
    images = [make(scans.make_dicom) for make in KINDS.values()]
    put(orthanc, images)
    node.start(wait=False)
    until(lambda: orthanc.count() == 2 * len(images))
    assert node.end() == 0
    images.append(scans.make_dicom(grey()))
    put(orthanc, images[-1:])
    node.start(wait=False)  # only one is new
    until(lambda: orthanc.count() == 2 * len(images))
    assert node.end() == 0
    assert sorted(sources(orthanc.find(SOPClassUID=SR))) == sorted(image.SOPInstanceUID for image in images)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"model": "/nowhere"}, ("Error: no trained model in /nowhere: give a run or a model",)),
        ({"queue_dir": "/proc/node"}, ("Error: cannot write /proc/node: ", "check the path")),
        ({"host": "0.0.0.0"}, ("Error: anybody could send to 0.0.0.0", "(key 'callers')")),
        ({"sop_classes": "CatScan"}, ("Error: unknown UID 'CatScan'", "(keys 'sop_classes'")),
        ({"tls_key": "/nowhere"}, ("Error: TLS needs a certificate", "(keys 'tls_certificate', 'tls_key'")),
        ({"first_pause": 0}, ("Error: the pauses are 0 to 60 seconds", "(keys 'first_pause'")),
        ({"input": "@puller", "puller#interval": 0}, ("Error: interval is 0", "(key 'puller#interval')")),
        ({"saliency": "jpeg"}, ("Error: saliency is 'jpeg'", "(key 'saliency')")),
        ({"destination": "@stow", "web_url": "pacs"}, ("Error: 'pacs' is no address", "(key 'web_url')")),
    ],
)
def test_what_cannot_work_ends_with_one_line(
    overrides: dict[str, str], parts: tuple[str, ...], trained_model: Path, refusal: Callable[..., str], tmp_path: Path
) -> None:
    line = refusal({"model": trained_model, "queue_dir": tmp_path / "queue", "device": "cpu", **overrides}, NODE)
    for part in parts:
        assert part in line


def test_a_port_in_use_ends_with_one_line(trained_model: Path, refusal: Callable[..., str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = refusal({"model": trained_model, "queue_dir": tmp_path / "queue", "port": port}, NODE)
    assert line.startswith(f"Error: port {port} of 127.0.0.1 is in use: ")
