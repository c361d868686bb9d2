"""Kill, fill, turn back and cut off what a hospital runs, and count what was lost, done twice, or answered wrongly.

All are the real commands on this machine. A part can be run alone, and with fewer kills:

python benchmarks/reliability.py                                  # the whole campaign: hours
python benchmarks/reliability.py --kills 5 --images 200 --away 10 # a small one, of all parts
python benchmarks/reliability.py --parts node disk --kills 5      # prints alone

Parts: training, node, service, promotion, federation (killed, the kills shared among those that run), disk (the queue's
disk is full), clock (set back a day), away (the archive; an hour is meant, --away says how many seconds), many (images,
5 % of them broken). An image is lost that was answered with success and has neither report nor refusal. It was done
twice where two different reports came of it; the same one sent again is counted apart, since archives keep one. A
version is wrong that answers and is not the one that the log says. The longest stop is from a kill to the first answer
after it.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
from doors import HERE, echo, image_files
from node import SECONDS, free_port, make_model
from PIL import Image
from pydicom.uid import Comprehensive3DSRStorage, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from service import RUN, command, png
from tabulate import tabulate
from torchvision.models import mobilenet_v2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.deploy.queue import WAITING, QueueRecord, State
from scripts.deploy.versions import VersionStore
from scripts.utils.files import write_atomically
from scripts.utils.sums import file_sha256

RESULT = Path(__file__).parent / "results" / "reliability.md"
KILLED = ("training", "node", "service", "promotion", "federation")
PARTS = (*KILLED, "disk", "clock", "away", "many")
HEADERS = ("part", "what was done", "lost", "twice", "sent again", "wrong version", "longest stop (s)")
LENIENT = ("--class_margin", "1", "--mean_margin", "1", "--class_floor", "0", "--mean_floor", "0")
TESTED = {"images": {}, "recalls": {}, "mean_class_recall": 1.0, "calibration_error": 0.1, "refused": 0}
DISK_MB, SIDE = 8, 96
BROKEN_SHARE = 0.05
SMALL = {
    **RUN,
    "backbone": "mobilenet_v2",
    "network_def#sites": "['features.3']",
    "image_size": 40,
    "source#train_per_class": 8,
    "source#test_per_class": 4,
    "source#val_per_class": 2,
}
CLOCK = """
import datetime, runpy, sys
BACK = datetime.timedelta(days=1)
class Turned(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) - BACK
datetime.datetime = Turned
import time
real = time.time
time.time = lambda: real() - BACK.total_seconds()
sys.argv = ["monai.bundle", *sys.argv[1:]]
runpy.run_module("monai.bundle", None, "__main__", True)
"""
rng = random.Random(0)


@dataclass
class Row:
    """What a part came to."""

    part: str
    done: str
    lost: int = 0
    twice: int = 0
    again: int = 0
    wrong: int = 0
    stops: list[float] = field(default_factory=list)

    def cells(self) -> list[object]:
        """Return it as a line of the table."""
        stop = f"{max(self.stops):.1f}" if self.stops else ""
        return [self.part, self.done, self.lost, self.twice, self.again, self.wrong, stop]


class Archive:
    """Takes reports, and knows which came of each image."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reports: dict[str, list[str]] = defaultdict(list)
        self.last = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take reports until the end of the block."""
        entity = AE("ORTHANC")
        entity.add_supported_context(Comprehensive3DSRStorage, ExplicitVRLittleEndian)
        entity.start_server((HERE, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        try:
            yield
        finally:
            entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        evidence = event.dataset.CurrentRequestedProcedureEvidenceSequence[0]
        image = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        self.reports[str(image)].append(str(event.dataset.SOPInstanceUID))
        self.last = time.monotonic()
        return 0


class Door:
    """A command that is started, killed and started again, with what asks whether it answers."""

    def __init__(self, words: Sequence[str], answers: Callable[[], bool]) -> None:
        self.words = words
        self.answers = answers
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it, and return after how many seconds it answered."""
        started = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(self.words, cwd=bundle_root(), env=environment, **quiet)
        until(lambda: self.answers() or self.process is None or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise SystemExit(f"it has ended: {' '.join(self.words)}")
        return time.monotonic() - started

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()

    def killed(self, kills: int, between: float = 2.0) -> list[float]:
        """Kill it so often at random moments, and return after how many seconds each time it answered again."""
        stops = []
        for _ in range(kills):
            time.sleep(rng.uniform(0, between))
            self.end(signal.SIGKILL)
            stops.append(self.start())
        return stops


class Sender:
    """Sends images one after the other until it is stopped, each until it is taken, as an archive does."""

    def __init__(self, port: int, files: Sequence[tuple[str, Path]]) -> None:
        self.port = port
        self.files = files
        self.taken: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def wait(self) -> None:
        """Wait until all are taken."""
        self._thread.join()

    def _work(self) -> None:
        entity = AE("BENCH")
        entity.dimse_timeout = 5
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        left = list(self.files)[::-1]
        while left and not self._stopped.is_set():
            association = entity.associate(HERE, self.port, ae_title="DYNAMMO")
            while left and association.is_established and not self._stopped.is_set():
                uid, path = left[-1]
                try:
                    answer = association.send_c_store(path)
                except (RuntimeError, ValueError):
                    break
                if not answer or answer.Status != 0:
                    break
                self.taken.append(uid)
                left.pop()
            if association.is_established:
                association.release()
            time.sleep(0.05)


def until(happened: Callable[[], Any], seconds: float = 10 * SECONDS) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise SystemExit("it does not happen")
        time.sleep(0.05)


def node_door(folder: Path, archive: Archive, **settings: Any) -> tuple[Door, int, Path]:
    """Return a node with a small model, its port and its queue."""
    if not (folder / "model").exists():
        make_model(folder / "model", "mobilenet_v2", SIDE)
    port, queue = free_port(), folder / "node"
    given = {"model": folder / "model", "queue_dir": queue, "port": port, "health_port": 0, "device": "cpu"}
    given |= {"destination_port": archive.port, "first_pause": 0.2, "longest_pause": 2, **settings}
    return Door(command("configs/node.json", given), lambda: echo(port)), port, queue


def settle(row: Row, taken: Sequence[str], archive: Archive, queue: Path, bad: set[str] = frozenset()) -> Row:  # type: ignore[assignment]
    """Wait until nothing waits, and count what became of the images that were taken."""
    with closing(QueueRecord(str(queue))) as record:
        until(lambda: not any(record.counts()[state] for state in WAITING))
        refused = {uid for uid in taken if record.state(uid) is State.REFUSED}
    row.lost = sum(uid not in archive.reports and uid not in refused for uid in taken)
    row.lost += len((refused - bad) | (bad & archive.reports.keys()))
    row.twice = sum(len(set(archive.reports[uid])) > 1 for uid in taken if uid in archive.reports)
    row.again = sum(len(reports) - len(set(reports)) for reports in archive.reports.values())
    return row


def kill_the_node(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Kill the node while images come."""
    archive = Archive(free_port())
    door, port, queue = node_door(folder, archive)
    files, _ = image_files(folder / "images", 40 * kills + 40, 0)
    with archive.listening():
        door.start()
        with Sender(port, files) as sender:
            stops = door.killed(kills)
            time.sleep(1)
        row = Row("node", f"{kills} kills, {len(sender.taken)} images", stops=stops)
        settle(row, sender.taken, archive, queue)
        door.end()
    return row


def fill_the_disk(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Send more than the disk of the queue holds."""
    disk = folder / "disk"
    disk.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", disk], capture_output=True
        ).returncode
    ):
        return Row("disk", "not run: only root mounts a small disk")
    try:
        archive = Archive(free_port())
        door, port, queue = node_door(folder, archive, queue_dir=disk / "node")
        files, _ = image_files(folder / "images", 60, 0)
        door.start()
        ballast = disk / "ballast"
        with archive.listening(), Sender(port, files) as sender:
            until(lambda: len(sender.taken) > 10)
            with suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            until(lambda: _is_full(disk, sender))
            held = len(sender.taken)
            ballast.unlink()
            sender.wait()
            row = Row("disk", f"{len(files)} images, {held} of them until {DISK_MB} MB were full; then room was made")
            settle(row, sender.taken, archive, disk / "node")
        row.lost += len(files) - len(sender.taken)
        door.end()
        return row
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def _is_full(disk: Path, sender: Sender) -> bool:
    """Say whether no image was taken for a while."""
    before = len(sender.taken)
    time.sleep(3)
    return before > 0 and len(sender.taken) == before


def turn_the_clock(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Let the node and the store of versions go on with a clock that is a day back."""
    archive = Archive(free_port())
    door, port, queue = node_door(folder, archive)
    files, _ = image_files(folder / "images", 60, 0)
    store = make_store(folder / "store")
    store.promote(1)
    taken: list[str] = []
    with archive.listening():
        for number, words in enumerate((door.words, [sys.executable, "-c", CLOCK, *door.words[3:]])):
            door.words = words
            door.start()
            with Sender(port, files[30 * number : 30 * (number + 1)] + files[:5]) as sender:
                sender.wait()
            taken += sender.taken
            if number == 0:
                door.end(signal.SIGKILL)
        row = Row("clock", f"{len(set(taken))} images, the second half and a promotion a day back")
        settle(row, sorted(set(taken)), archive, queue)
        door.end()
    run = "import sys; from scripts.commands.versions import main; sys.exit(main(sys.argv[1:]))"
    turned = CLOCK.split("import time")[0] + run
    subprocess.run(
        [sys.executable, "-c", turned, store.folder, "promote", "2", *LENIENT],
        **{"cwd": bundle_root(), "check": True, "stdout": subprocess.DEVNULL},
    )
    store.check()
    row.wrong = served_wrongly(store) + (store.history() != [1, 2])
    return row


def cut_the_archive_off(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Let the archive be away while images come."""
    archive = Archive(free_port())
    door, port, queue = node_door(folder, archive)
    files, _ = image_files(folder / "images", max(20, min(5 * given.away, 2000)), 0)
    door.start()
    with Sender(port, files) as sender:
        sender.wait()
    time.sleep(given.away)
    back = time.monotonic()
    with archive.listening():
        until(lambda: archive.reports)
        row = Row("away", f"archive away for {given.away} s, {len(files)} images", stops=[archive.last - back])
        settle(row, sender.taken, archive, queue)
        door.end()
    return row


def send_many(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Send many images, some of them broken."""
    archive = Archive(free_port())
    door, port, queue = node_door(folder, archive)
    files, bad = image_files(folder / "images", given.images, int(BROKEN_SHARE * given.images))
    with archive.listening():
        door.start()
        with Sender(port, files) as sender:
            sender.wait()
        row = Row("many", f"{len(files)} images, {len(bad)} of them broken")
        settle(row, sender.taken, archive, queue, bad)
        door.end()
    return row


def make_store(folder: Path) -> VersionStore:
    """Make a store of two versions of a small model."""
    store = VersionStore(folder)
    make_model(folder.with_name(f"{folder.name}_model"), "mobilenet_v2", SIDE)
    files = {path.name: path.read_bytes() for path in folder.with_name(f"{folder.name}_model").iterdir()}
    files.pop("SHA256SUMS")
    tasks = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c", "d"]}]
    details = {"name": "bench", "tasks": tasks, "accuracy_matrix": [[1.0]], "config": {}, "licence": "none"}
    for parent in (None, 1):
        store.add({**files, "answers.json": b"{}"}, {**details, "tested": TESTED}, parent)
    return store


def served_wrongly(store: VersionStore) -> int:
    """Return 1 where what is served is not what the log says."""
    served, history = store.promoted(), store.history()
    return int((None if served is None else served.number) != (history[-1] if history else None))


def kill_the_service(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Kill the service while images come and versions change."""
    store = make_store(folder / "service" / "store")
    store.promote(1)
    port, row, kept = free_port(), Row("service", ""), dict[str, str]()
    url, stop = f"http://{HERE}:{port}", threading.Event()

    def answers() -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"{url}/healthz", timeout=5).ok
        return False

    def send() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            picture = png(np.random.default_rng(number).integers(0, 256, (40, 40, 3)).astype(np.uint8))
            with suppress(requests.RequestException, KeyError, ValueError):
                answer = requests.put(f"{url}/datastore/image", files={"file": ("a.png", picture)}, timeout=5)
                name = answer.json()["image"]
                label = {"label": ("label.json", f'{{"label": "new{number % 3}"}}')}
                if requests.put(f"{url}/datastore/label", params={"image": name}, files=label, timeout=5).ok:
                    kept[name] = f"new{number % 3}"
            time.sleep(0.05)

    settings = {"service_dir": folder / "service", "port": port, "device": "cpu"}
    door = Door(command("configs/service.json", settings), answers)
    door.start()
    sender = threading.Thread(target=send)
    sender.start()
    for number in range(kills):
        time.sleep(rng.uniform(0, 2))
        if number % 2:
            store.rollback()
        else:
            store.promote(2)
        door.end(signal.SIGKILL)
        row.stops.append(door.start())
        said = requests.get(f"{url}/healthz", timeout=SECONDS).json()["version"]
        row.wrong += said != str(store.history()[-1])
    stop.set()
    sender.join()
    objects = requests.get(f"{url}/datastore/", params={"output": "all"}, timeout=SECONDS).json()["objects"]
    found = {name: one["labels"].get("final", {"info": {}})["info"].get("label") for name, one in objects.items()}
    row.lost = sum(found.get(name) != label for name, label in kept.items())
    row.done = f"{kills} kills, {len(kept)} labelled images, {kills} changes of version"
    door.end()
    return row


def killed_until_done(words: Sequence[str], kills: int, before: Callable[[], object] = lambda: None) -> list[float]:
    """Run a command that is killed so often on its way and then left alone; return the seconds of each start."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": bundle_root()}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    took = []
    for _ in range(kills):
        process = subprocess.Popen(words, env=environment, **quiet)
        begun = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.5, LENGTH.get(words[-1], 20)))
        process.kill()
        process.wait()
        took.append(time.monotonic() - begun)
        before()
    quiet["stderr"] = subprocess.PIPE
    done = subprocess.run(words, env=environment, text=True, **quiet)
    if done.returncode:
        raise SystemExit(f"it does not end well: {' '.join(map(str, words))}\n{done.stderr[-500:]}")
    return took


LENGTH: dict[str, float] = {}
"""Seconds that a command takes which is left alone, by its last word."""


def kill_the_training(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Kill a training, which ends with the weights of one that was not."""
    runs = [folder / name for name in ("alone", "killed")]
    lines = [
        command("configs/train.json", {**SMALL, "dataset_dir": folder / "images", "output_dir": run}) for run in runs
    ]
    begun = time.monotonic()
    killed_until_done(lines[0], 0)
    LENGTH[lines[1][-1]] = time.monotonic() - begun
    killed_until_done(lines[1], kills)
    differ = file_sha256(runs[0] / "model.pt") != file_sha256(runs[1] / "model.pt")
    return Row(
        "training", f"{kills} kills, resumed; weights {'differ' if differ else 'equal, to the bit'}", int(differ)
    )


def kill_promotions(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Kill promotions and ways back."""
    store = make_store(folder / "store")
    store.promote(1)
    start = [sys.executable, "-m", "scripts.commands", "versions", str(store.folder)]
    row, quiet = Row("promotion", f"{kills} kills"), {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    begun = time.monotonic()
    subprocess.run([*start, "promote", "2", *LENIENT], cwd=bundle_root(), check=True, **quiet)
    length = time.monotonic() - begun
    for number in range(kills):
        words = ["rollback"] if number % 2 == 0 else ["promote", "2", *LENIENT]
        process = subprocess.Popen([*start, *words], cwd=bundle_root(), **quiet)
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.3, 1.0) * length)
        process.kill()
        process.wait()
        begun = time.monotonic()
        store.recover()
        row.stops.append(time.monotonic() - begun)
        store.check()
        row.wrong += served_wrongly(store)
        if len(store.history()) < 2:
            store.promote(2)
    row.lost = 2 - len(store.versions())
    return row


COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60)}
SITE = {
    "backbone": "mobilenet_v2",
    "network_def#levels": "['features.1']",
    "network_def#sites": "['features.3', 'features.5']",
    "image_size": 40,
    "batch_size": 16,
    "device": "cpu",
    "planned_tasks#validation_fraction": 0,
    "ridge#shrinkage": 0.1,
    "split": 1,
}


def kill_the_federation(folder: Path, given: argparse.Namespace, kills: int) -> Row:
    """Kill a federation while it adds; it ends with the head of one that was not."""
    torch.manual_seed(0)
    weights = folder / "weights.pth"
    torch.save(mobilenet_v2(weights=None).state_dict(), weights)
    files, main = [], [sys.executable, "-m", "scripts.commands"]
    for site, classes in {"a": ("red", "green"), "b": ("green", "red")}.items():
        images = folder / "images" / site
        images.mkdir(parents=True)
        rows = [["path", "label", "split"]]
        for name in classes:
            for number in range(40):
                noise = np.random.default_rng(number).normal(0, 25, (40, 40, 3))
                pixels = np.clip(np.array(COLOURS[name]) + noise + ord(site), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(images / f"{name}{number}.png")
                rows.append([f"{name}{number}.png", name, "train" if number < 38 else "test"])
        with (images / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        keys = {**SITE, "weights": weights, "output_dir": folder / site}
        typed = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
        contribution = folder / f"{site}.safetensors"
        for words in (
            ["train", str(images / "labels.csv"), "--method", "frozen+levels+ridge+federated", *typed],
            ["join", site, "--folder", str(folder)],
            ["contribute", str(folder / site), str(contribution), "--site", str(folder / f"{site}.site.json")],
        ):
            subprocess.run([*main, *words], cwd=bundle_root(), check=True, stdout=subprocess.DEVNULL)
        files.append(str(contribution))
    heads = []
    for name, count in (("alone", 0), ("killed", kills)):
        out = folder / name
        (out / "sites").mkdir(parents=True)
        for site in "ab":
            write_atomically(out / "sites" / f"{site}.site.json", (folder / f"{site}.site.json").read_bytes())
        words = [*main, "federate", *files, str(out), "--weights", str(weights), "--shrinkage", "0.1"]
        begun = time.monotonic()
        killed_until_done(words, count, VersionStore(out).recover)
        LENGTH[words[-1]] = time.monotonic() - begun
        store = VersionStore(out)
        store.check()
        heads.append(file_sha256(store.versions()[-1].folder / "model.pt"))
    differ = heads[0] != heads[1]
    return Row("federation", f"{kills} kills; weights {'differ' if differ else 'equal, to the bit'}", int(differ))


RUNS: Mapping[str, Callable[[Path, argparse.Namespace, int], Row]] = {
    "training": kill_the_training,
    "node": kill_the_node,
    "service": kill_the_service,
    "promotion": kill_promotions,
    "federation": kill_the_federation,
    "disk": fill_the_disk,
    "clock": turn_the_clock,
    "away": cut_the_archive_off,
    "many": send_many,
}


def page(rows: Sequence[Row]) -> str:
    """Return the page of results."""
    load = os.getloadavg()[0]
    return (
        "# What was killed, filled, turned back and cut off\n\n"
        f"Written by `{' '.join(['python', 'benchmarks/reliability.py', *sys.argv[1:]])}`: MobileNetV2, {SIDE} px, "
        f"{os.cpu_count()} cores (load average {load:.1f} at the end), Python {platform.python_version()}. The bar is "
        "0 lost, 0 twice, 0 wrong versions.\n\n" + tabulate([row.cells() for row in rows], HEADERS, "github") + "\n"
    )


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--kills", type=int, default=100, help="in all, shared among the parts that are killed")
    parser.add_argument("--images", type=int, default=10_000, help="of the part `many`")
    parser.add_argument("--away", type=int, default=3600, help="seconds for which the archive is away")
    parser.add_argument("--write", action="store_true", help="write results/reliability.md")
    given = parser.parse_args()
    killed = [part for part in given.parts if part in KILLED]
    rows = []
    for part in given.parts:
        kills = given.kills // len(killed) + (killed.index(part) < given.kills % len(killed)) if part in killed else 0
        with tempfile.TemporaryDirectory() as folder:
            rows.append(RUNS[part](Path(folder), given, max(kills, 1)))
        print(tabulate([rows[-1].cells()], HEADERS, "github"), flush=True)
    text = page(rows)
    print(text)
    if given.write:
        write_atomically(RESULT, text)
    if any(row.lost or row.twice or row.wrong for row in rows):
        raise SystemExit("the bar is not met")


if __name__ == "__main__":
    main()
