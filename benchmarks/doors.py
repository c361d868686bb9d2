"""Print how the node and the service fare under callers that mean harm, and under load.

Both doors are the real commands, on generated images and a model with random weights; all callers are on this machine.
While each attack lasts, another process asks the door again and again (C-ECHO, ``/healthz``), from the attacker's own
address where nothing else is said. Then 8 clients send at once, and 1,200 images pass the node, 5 % of them broken.

python benchmarks/doors.py                                     # writes results/doors.md
python benchmarks/doors.py --each 20 --evening 60              # prints alone
"""

from __future__ import annotations

import argparse
import gzip
import io
import multiprocessing
import os
import platform
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import requests
from node import SECONDS, ct_image, free_port, make_model
from PIL import Image
from pydicom.uid import Comprehensive3DSRStorage, CTImageStorage, DeflatedExplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from service import command, memory_of, png
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.deploy.queue import WAITING, QueueRecord, State

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
HOLD = 5.0
"""Seconds for which connections are held open."""
HALF_OPEN, SLOW, KNOCKS, BOMBS, LEAST_ASKED = 200, 120, 500, 4, 20
RESULT = Path(__file__).parent / "results" / "doors.md"
HUGE, LARGE = 2**29, 500_000_000
"""Bytes of objects: over the node's limit, and under it."""
BROKEN_SHARE = 0.05
VERIFICATION = "1.2.840.10008.1.1"


@dataclass
class Door:
    """A door that runs.

    ``ask`` asks it something, and says whether it answered; ``port`` is where it listens; ``asker`` is the process that
    asks it, in which nothing else is at work.
    """

    process: subprocess.Popen[bytes]
    port: int
    ask: Callable[[], bool]
    asker: ProcessPoolExecutor

    def answer(self) -> tuple[bool, float]:
        """Ask it, and return whether it answered, and after how many seconds."""
        return self.asker.submit(timed, self.ask).result()

    def memory(self) -> float:
        """Return the MB that it holds, with what decodes for it."""
        return memory_of(self.process.pid)


@contextmanager
def running(config: str, settings: Mapping[str, Any], port: int, ask: Callable[[], bool]) -> Iterator[Door]:
    """Start a door, wait until it answers, and stop it at the end."""
    settings = {**settings, "port": port, "device": "cpu"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(config, settings), cwd=bundle_root(), env=environment, **quiet)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as asker:
            door = Door(process, port, ask, asker)
            until(lambda: door.answer()[0], process)
            yield door
        if process.poll() is not None:
            raise SystemExit(f"{config} has ended")
    finally:
        process.terminate()
        process.wait()


def until(happened: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    """Wait for something."""
    end = time.monotonic() + 5 * SECONDS
    while not happened():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit("it does not happen")
        time.sleep(0.1)


def timed(ask: Callable[[], bool]) -> tuple[bool, float]:
    """Return what is answered, and after how many seconds."""
    started = time.perf_counter()
    return ask(), time.perf_counter() - started


def echo(port: int) -> bool:
    """Say whether the node answers a C-ECHO."""
    entity = AE("BENCH")
    entity.add_requested_context(VERIFICATION)
    association = entity.associate(HERE, port, ae_title="DYNAMMO")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status) and status.Status == 0


def health(port: int) -> bool:
    """Say whether the service answers."""
    with suppress(requests.RequestException):
        return requests.get(f"http://{HERE}:{port}/healthz", timeout=SECONDS).ok
    return False


def under(door: Door, what: str, attack: Callable[[], object]) -> list[Any]:
    """Attack a door, ask it meanwhile and, of a short attack, after it; return a row of the table."""
    seconds, failed, before, peak = [], 0, door.memory(), 0.0
    with ThreadPoolExecutor(1) as pool:
        attacking = pool.submit(attack)
        while not (attacking.done() and len(seconds) >= LEAST_ASKED):
            answered, took = door.answer()
            failed += not answered
            seconds.append(took)
            peak = max(peak, door.memory())
            time.sleep(0.05)
    time.sleep(1)
    times = [f"{1e3 * value:.0f}" for value in (statistics.median(seconds), max(seconds))]
    memory = [f"{value:.0f}" for value in (before, peak, door.memory())]
    return [what, len(seconds), failed, *times, attacking.result() or "", *memory]


HEADERS = ["attack", "asked", "unanswered", "median ms", "longest ms", "answers", "MB before", "MB at most", "MB after"]


def hold(port: int, count: int, first: bytes) -> str:
    """Hold connections open that have sent so much; say how many were hung up on meanwhile."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((HERE, port), SECONDS)) for _ in range(count)]
        for connection in held:
            with suppress(OSError):
                connection.sendall(first)
        time.sleep(HOLD)
        return f"{sum(map(_is_hung_up, held))} of {count} hung up on"


def _is_hung_up(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(2**16) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def knock(port: int, contents: list[bytes], source: str = HERE, callers: int = 4) -> str:
    """Connect, send and hang up, for each content."""

    def once(content: bytes) -> bool:
        try:
            with socket.create_connection((HERE, port), SECONDS, (source, 0)) as connection:
                connection.sendall(content)
            return True
        except OSError:
            return False

    with ThreadPoolExecutor(callers) as pool:
        return f"{sum(pool.map(once, contents))} of {len(contents)} sent"


def request_for_association() -> bytes:
    """Return the bytes with which a good caller asks for an association."""
    said: list[bytes] = []
    port = free_port()
    listening = AE("DYNAMMO")
    listening.add_supported_context(VERIFICATION)
    listening.start_server((HERE, port), block=False)
    entity = AE("BENCH")
    entity.add_requested_context(VERIFICATION)
    entity.associate(*(HERE, port), evt_handlers=[(evt.EVT_DATA_SENT, lambda event: said.append(event.data))]).release()
    listening.shutdown()
    return said[0]


def garbage(count: int) -> list[bytes]:
    """Return requests for an association with bytes changed or cut off, and noise."""
    rng, good, made = np.random.default_rng(0), request_for_association(), []
    for number in range(count):
        content = bytearray(good)
        for place in rng.integers(0, len(content), rng.integers(1, 30)):
            content[place] = rng.integers(0, 256)
        made.append([bytes(content), bytes(content[: len(content) // 2]), rng.bytes(500)][number % 3])
    return made


def stalled(port: int) -> str:
    """Open associations from another address, as many as it may have, that begin a PDU and go silent."""
    entity = AE("BENCH")
    entity.add_requested_context(VERIFICATION)
    opened = [entity.associate(HERE, port, ae_title="DYNAMMO", bind_address=(ELSEWHERE, 0)) for _ in range(20)]
    established = [association for association in opened if association.is_established]
    for association in established:
        association.dul.socket.socket.sendall(struct.pack(">BBL", 4, 0, 1000))
    time.sleep(HOLD)
    for association in opened:
        association.abort()
    return f"{len(established)} of {len(opened)} established"


def huge_file(folder: Path, size: int) -> Path:
    """Write an image of so many bytes of pixels, none of which takes room on the disk."""
    image = ct_image(np.zeros((8, 8), np.int16))
    del image.PixelData
    path = folder / f"{size}-{image.SOPInstanceUID}.dcm"
    image.save_as(path, enforce_file_format=True)
    with open(path, "ab") as file:
        file.write(b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", size))
        file.truncate(file.tell() + size)
    return path


def store_files(port: int, paths: list[Path]) -> str:
    """Send files as they are, all at once; return the statuses."""

    def store(path: Path) -> str:
        entity = AE("BENCH")
        entity.add_requested_context(CTImageStorage, pydicom.uid.ExplicitVRLittleEndian)
        association = entity.associate(HERE, port, ae_title="DYNAMMO")
        if not association.is_established:
            return "rejected"
        status = association.send_c_store(path)
        association.release()
        return f"{status.Status:04X}H" if status else "aborted"

    with ThreadPoolExecutor(len(paths)) as pool:
        return _counted(pool.map(store, paths))


def _counted(answers: Any) -> str:
    return ", ".join(f"{count} x {answer}" for answer, count in sorted(Counter(answers).items()))


@dataclass
class Archive:
    """Takes reports, and notes when the report of each image came."""

    arrived: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """Take reports until the end of the block."""
        entity = AE("ORTHANC")
        entity.add_supported_context(Comprehensive3DSRStorage, pydicom.uid.ExplicitVRLittleEndian)
        entity.start_server((HERE, port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        yield
        entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        evidence = event.dataset.CurrentRequestedProcedureEvidenceSequence[0]
        image = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        self.arrived.setdefault(str(image), []).append(time.perf_counter())
        return 0


def send_images(port: int, files: list[tuple[str, Path]], clients: int) -> tuple[dict[str, float], list[float], int]:
    """Send files by clients with an association each; return when each was sent, seconds of each answer, and resends.

    A client that hears nothing sends again, as archives do: the library's sender now and then misses an answer, when
    two of its threads wait for it.
    """
    sent: dict[str, float] = {}
    seconds: list[float] = []
    again: list[str] = []

    def work(own: list[tuple[str, Path]]) -> None:
        entity = AE("BENCH")
        entity.dimse_timeout = HOLD
        for syntax in (pydicom.uid.ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
            entity.add_requested_context(CTImageStorage, syntax)
        left = own[::-1]
        while left:
            association = entity.associate(HERE, port, ae_title="DYNAMMO")
            association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while left:
                uid, path = left[-1]
                started = time.perf_counter()
                sent.setdefault(uid, started)
                answer = association.send_c_store(path)
                if not answer:
                    again.append(uid)
                    break
                if answer.Status != 0:
                    raise SystemExit("the node does not take an image")
                left.pop()
                seconds.append(time.perf_counter() - started)
            association.release()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, [files[number::clients] for number in range(clients)]))
    return sent, seconds, len(again)


def image_files(folder: Path, count: int, broken: int) -> tuple[list[tuple[str, Path]], set[str]]:
    """Write CT images, some of them with bytes cut off or changed; return them by UID, and which are broken."""
    rng, order = np.random.default_rng(count), random.Random(0)
    folder.mkdir()
    files = []
    for number in range(count):
        image = ct_image(rng.integers(-1000, 1000, (128, 128), dtype=np.int16))
        if number < broken:
            match number % 4:
                case 0:
                    image.PixelData = image.PixelData[:1000]
                case 1:
                    image.Rows = 60000
                case 2:
                    image.RescaleSlope = 0
                case 3:
                    del image.StudyInstanceUID
        path = folder / f"{number}.dcm"
        image.save_as(path, enforce_file_format=True)
        files.append((str(image.SOPInstanceUID), path))
    bad = {uid for uid, _ in files[:broken]}
    order.shuffle(files)
    return files, bad


def slow_bomb(folder: Path, number: int) -> tuple[str, Path]:
    """Write a deflated image of millions of empty elements, which takes longer to read than any may."""
    image = ct_image(np.zeros((8, 8), np.int16))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = folder / f"bomb{number}.dcm"
    image.save_as(path, enforce_file_format=True)
    deflater, elements = zlib.compressobj(wbits=-zlib.MAX_WBITS), 2**17 * b"\x09\x00\x10\x00LO\x00\x00"
    head = path.read_bytes()[: 144 + pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength]
    deflated = b"".join(deflater.compress(elements) for _ in range(2**28 // len(elements)))
    path.write_bytes(head + deflated + deflater.flush())
    return str(image.SOPInstanceUID), path


def beside_slow_bombs(door: Door, archive: Archive, folder: Path) -> list[str]:
    """Send two bombs that take as long as they may, and then an image; return when its report came."""
    files, _ = image_files(folder / "last", 1, 0)
    bombs = [slow_bomb(folder, number) for number in range(2)]
    sent, _, _ = send_images(door.port, [*bombs, *files], 1)
    ((uid, _),) = files
    until(lambda: archive.arrived.get(uid), door.process)
    took = f"{1e3 * (archive.arrived[uid][0] - sent[uid]):.0f}"
    return ["node, an image after two slow bombs: until the report", "1", took, took, took]


def quantiles(seconds: list[float]) -> list[str]:
    """Return count, and median, 99 % and longest in milliseconds."""
    values = (statistics.median(seconds), statistics.quantiles(seconds, n=100)[-1], max(seconds))
    return [str(len(seconds)), *(f"{1e3 * value:.0f}" for value in values)]


def node_under_load(
    door: Door, archive: Archive, queue: Path, files: list[tuple[str, Path]], bad: set[str], clients: int
) -> tuple[list[list[str]], list[Any]]:
    """Send images, and return rows of times and of what became of them."""
    before, started = door.memory(), time.perf_counter()
    sent, seconds, again = send_images(door.port, files, clients)
    with closing(QueueRecord(str(queue))) as record:
        until(lambda: not any(record.counts()[state] for state in WAITING), door.process)
        took = time.perf_counter() - started
        refused = sum(record.state(uid) is State.REFUSED for uid in bad)
        codes = _counted(code for _, name, code in record.refusals() if name in {record.name(uid) for uid in bad})
    good = set(sent) - bad
    reports = {uid: archive.arrived.get(uid, []) for uid in sent}
    until_report = [arrived[0] - sent[uid] for uid, arrived in reports.items() if arrived]
    kind = f"node, {clients} clients, {len(files)} images" + (f", {again} sent again" if again else "")
    lost = sum(not reports[uid] for uid in good) + len(bad) - refused
    twice = sum(len(arrived) > 1 for arrived in reports.values())
    times = [
        [f"{kind}: C-STORE", *quantiles(seconds)],
        [f"{kind}: until the report", *quantiles(until_report)],
    ]
    memory = [f"{value:.0f}" for value in (before, door.memory())]
    return times, [kind, f"{took:.0f}", len(until_report), codes, lost, twice, *memory]


def service_under_load(door: Door, model: str, clients: int, each: int) -> tuple[list[str], list[Any]]:
    """Ask for the class of pictures, some of which are broken; return a row of times and one of what was answered."""
    rng = np.random.default_rng(1)
    pictures = [png(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(20)]
    seconds: list[float] = []

    def work(client: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        with requests.Session() as session:
            for number in range(each):
                content = pictures[(client + number) % len(pictures)]
                broken = random.Random(client * each + number).random() < BROKEN_SHARE
                started = time.perf_counter()
                files = {"file": ("a.png", content[:200] if broken else content)}
                answer = session.post(f"http://{HERE}:{door.port}/infer/{model}", files=files, timeout=SECONDS)
                seconds.append(time.perf_counter() - started)
                statuses[answer.status_code] += 1
                if (answer.status_code == 200) is broken:
                    raise SystemExit("a wrong answer")
        return statuses

    before, started = door.memory(), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        statuses = sum(pool.map(work, range(clients)), Counter())
    took = time.perf_counter() - started
    kind = f"service, {clients} clients, {clients * each} requests"
    codes = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    memory = [f"{value:.0f}" for value in (before, door.memory())]
    return [kind, *quantiles(seconds)], [
        kind,
        f"{took:.0f}",
        statuses[200],
        codes,
        clients * each - len(seconds),
        0,
        *memory,
    ]


def bombs() -> dict[str, bytes]:
    """Return small files of large pictures, by name."""
    made: dict[str, bytes] = {}
    with io.BytesIO() as file:
        Image.new("1", (40000, 40000)).save(file, "PNG")
        made["a.png"] = file.getvalue()
    with io.BytesIO() as file:
        np.savez_compressed(file, test_images=np.zeros((3000, 300, 300, 3), np.uint8))
        made["a.npz"] = file.getvalue()
    header = bytearray(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<3h", header, 42, 1024, 1024, 600)
    made["a.nii.gz"] = gzip.compress(header) + 600 * gzip.compress(bytes(2**20))
    image = ct_image(np.zeros((14000, 14000), np.int16))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with io.BytesIO() as file:
        pydicom.dcmwrite(file, image, enforce_file_format=True)
        made["a.dcm"] = file.getvalue()
    return made


def send_bombs(url: str, files: Mapping[str, bytes], rounds: int) -> str:
    """Send each file so many times, two at a time; return what is answered."""

    def ask(file: tuple[str, bytes]) -> str:
        answer = requests.post(url, files={"file": file}, timeout=5 * SECONDS)
        return f"{answer.status_code} {answer.json().get('reason', '')}"

    with ThreadPoolExecutor(2) as pool:
        return _counted(pool.map(ask, [*files.items()] * rounds))


def oversize(url: str, count: int) -> str:
    """Send bodies of half a gigabyte without saying how long they are, all at once."""

    def ask(_: int) -> str:
        def body() -> Iterator[bytes]:
            yield b"--x\r\nContent-Disposition: form-data; name=file; filename=a.png\r\n\r\n"
            for _ in range(HUGE // 2**20):
                yield bytes(2**20)

        headers = {"content-type": "multipart/form-data; boundary=x"}
        try:
            return str(requests.post(url, data=body(), headers=headers, timeout=SECONDS).status_code)
        except requests.ConnectionError:  # it was told before all was sent
            return "hung up on"

    with ThreadPoolExecutor(count) as pool:
        return _counted(pool.map(ask, range(count)))


def attack_node(door: Door, queue: Path, folder: Path) -> list[list[Any]]:
    """Do to the node what callers might; return rows."""
    part, broken = request_for_association()[:60], garbage(KNOCKS)
    attacks: dict[str, Callable[[], object]] = {
        "none": lambda: time.sleep(HOLD),
        f"{HALF_OPEN} silent connections": lambda: hold(door.port, HALF_OPEN, b""),
        f"{HALF_OPEN} half requests": lambda: hold(door.port, HALF_OPEN, part),
        f"scan, {KNOCKS} connections": lambda: knock(door.port, [b""] * KNOCKS, callers=1),
        f"{KNOCKS} broken requests": lambda: knock(door.port, broken, callers=1),
        f"flood from another address, {10 * KNOCKS} connections": lambda: knock(door.port, broken * 10, ELSEWHERE, 8),
        "20 associations of another address that begin a PDU": lambda: stalled(door.port),
    }
    rows = [under(door, what, attack) for what, attack in attacks.items()]
    with closing(QueueRecord(str(queue))) as record:
        earlier = len(record.refusals())
    huge, large, more = ([huge_file(folder, size) for _ in range(2)] for size in (HUGE, LARGE, LARGE))
    rows.append(under(door, "two objects of 512 MiB at a time", lambda: store_files(door.port, huge)))
    rows.append(under(door, f"two objects of {LARGE // 10**6} MB at a time", lambda: settled(door, queue, large)))
    rows.append(under(door, "the same again", lambda: settled(door, queue, more)))
    with closing(QueueRecord(str(queue))) as record:
        later = [code for _, _, code in record.refusals()[earlier:]]
    rows[-1][5] += f"; of the six are listed: {_counted(later)}"
    return rows


def settled(door: Door, queue: Path, paths: list[Path]) -> str:
    """Send files, and wait until they are answered."""
    said = store_files(door.port, paths)
    with closing(QueueRecord(str(queue))) as record:
        until(lambda: not any(record.counts()[state] for state in WAITING), door.process)
    return said


def attack_service(door: Door, model: str, folder: Path) -> list[list[Any]]:
    """Do to the service what callers might; return rows."""
    url = f"http://{HERE}:{door.port}/infer/{model}"
    head = f"POST /infer/{model} HTTP/1.1\r\nHost: localhost\r\n".encode()
    body = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000\r\n\r\n--x"
    files, noise = bombs(), garbage(KNOCKS)
    slow = {path.name: path.read_bytes() for _, path in (slow_bomb(folder, number) for number in range(2))}
    attacks: dict[str, Callable[[], object]] = {
        "none": lambda: time.sleep(HOLD),
        f"{SLOW} silent connections": lambda: hold(door.port, SLOW, b""),
        f"{SLOW} half heads": lambda: hold(door.port, SLOW, head),
        f"{SLOW} half bodies": lambda: hold(door.port, SLOW, head + body),
        f"scan, {KNOCKS} connections": lambda: knock(door.port, [b""] * KNOCKS, callers=1),
        f"{KNOCKS} requests that are none": lambda: knock(door.port, noise, callers=1),
        "8 bodies of 512 MiB at a time": lambda: oversize(url, 8),
        f"bombs, {BOMBS} of each kind, two at a time": lambda: send_bombs(url, files, BOMBS),
        "the same again": lambda: send_bombs(url, files, BOMBS),
        "two bombs that take as long as they may, at a time": lambda: send_bombs(url, slow, 1),
    }
    return [under(door, what, attack) for what, attack in attacks.items()]


def page(folder: Path, clients: int, each: int, evening: int) -> str:
    """Measure, and return the page."""
    make_model(folder / "model", "resnet18", 64)
    node_port, archive_port, service_port = free_port(), free_port(), free_port()
    archive, queue = Archive(), folder / "queue"
    settings = {"model": folder / "model", "queue_dir": queue, "destination_port": archive_port, "health_port": 0}
    times, fates = [], []
    with (
        archive.listening(archive_port),
        running("configs/node.json", settings, node_port, partial(echo, node_port)) as node,
    ):
        for name, count, broken in (("load", clients * each, 0), ("evening", evening, round(BROKEN_SHARE * evening))):
            files, bad = image_files(folder / name, count, broken)
            rows, fate = node_under_load(node, archive, queue, files, bad, clients)
            times += rows
            fates.append(fate)
        times.append(beside_slow_bombs(node, archive, folder))
        on_node = attack_node(node, queue, folder)
    settings = {"model": folder / "model", "service_dir": folder / "service"}
    with running("configs/service.json", settings, service_port, partial(health, service_port)) as service:
        (model,) = requests.get(f"http://{HERE}:{service_port}/info/", timeout=SECONDS).json()["models"]
        row, fate = service_under_load(service, model, clients, each)
        times.append(row)
        fates.append(fate)
        on_service = attack_service(service, model, folder)
    what = ["", "seconds", "answered", "refused, by code", "lost", "twice", "MB before", "MB after"]
    lines = [
        "# The doors under attack and under load",
        f"Written by `python benchmarks/doors.py`: ResNet-18, 64 px, {os.cpu_count()} cores with other work on them "
        f"(load average {os.getloadavg()[1]:.1f}), one thread a pass; Python {platform.python_version()}. All callers "
        "are on the same machine and take their share of it. *MB* is what the door holds, with its decoders, torch "
        f"included. Connections are held for {HOLD:.0f} s.",
        "The node, asked by C-ECHO meanwhile:",
        tabulate(on_node, HEADERS, "github"),
        "The service, asked for `/healthz` meanwhile:",
        tabulate(on_service, HEADERS, "github"),
        "Milliseconds under load:",
        tabulate(times, ["", "count", "median", "99 %", "longest"], "github"),
        "What became of what was sent:",
        tabulate(fates, what, "github"),
    ]
    return "\n\n".join(lines)


def main() -> None:
    """Measure, print and, where nothing is chosen, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--each", type=int, default=100, help="images or requests of a client")
    parser.add_argument("--evening", type=int, default=1200, help="images, some of them broken")
    given, usual = parser.parse_args(), parser.parse_args([])
    _config.STORE_SEND_CHUNKED_DATASET = True  # files are sent as they are
    with tempfile.TemporaryDirectory() as folder:
        text = page(Path(folder), given.clients, given.each, given.evening)
    print(text)
    if given == usual:
        RESULT.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
