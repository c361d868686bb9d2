"""Open the labelling service's page with 100 tasks and 10,000 images, and say how soon it is there.

The versions are made up (100 tasks of two classes, 20 test images a class), the last of them with the model of a small
run, which answers; the images are drawn, 64 px, a tenth of them labelled. Each load is one of a fresh tab, on loopback.

python benchmarks/page.py                      # trains the small run first; prints what is kept in results/page.md
python benchmarks/page.py --run runs/RUN       # uses a finished one
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import requests
from node import free_port
from selenium import webdriver
from service import RUN, command, until
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.deploy.service.images import ImageStore
from scripts.deploy.versions.gate import ANSWERS
from scripts.deploy.versions.store import VersionStore
from scripts.utils.files import WEIGHTS
from scripts.utils.sums import SUMS

CLASSES, TESTED = 2, 20  # of a task; test images of a class
NETWORK = "network.json"
SEEN = """
const done = arguments[0], rows = document.querySelectorAll("#rows .item");
const painted = rows.length > 2 && [...rows].slice(0, 3).every((row) => row.querySelector("img").naturalWidth);
const first = performance.getEntriesByType("paint").find((entry) => entry.name === "first-contentful-paint");
return painted && first ? [first.startTime, performance.now(), rows.length] : null;
"""


def add_versions(store: VersionStore, run: Path, tasks: int) -> None:
    """Fill a store: a version a task, the last with the run's model."""
    rng = np.random.default_rng(0)
    files = {name: (run / name).read_bytes() for name in (WEIGHTS, NETWORK, SUMS)}
    named = [[f"organ {number}/finding {part}" for part in range(CLASSES)] for number in range(tasks)]
    for number in range(1, tasks + 1):
        known = [name for names in named[:number] for name in names]
        told = {name: rng.random(TESTED) < 0.8 for name in known}
        answers = {
            f"{name} {at}": [name, name if right else known[0]] for name in known for at, right in enumerate(told[name])
        }
        recalls = {name: float(right.mean()) for name, right in told.items()}
        details: dict[str, Any] = {
            "name": "made-up-model",
            "tasks": [{"name": f"organ {at}", "classes": names} for at, names in enumerate(named[:number])],
            "tested": {
                "images": dict.fromkeys(known, TESTED),
                "recalls": recalls,
                "mean_class_recall": statistics.mean(recalls.values()),
                "calibration_error": 0.1,
                "refused": 0,
            },
            "accuracy_matrix": [
                [float(rng.random()) if task <= row else None for task in range(number)] for row in range(number)
            ],
            "config": {"method": "dynammo"},
            "licence": "bsd-3-clause",
        }
        own = files if number == tasks else {WEIGHTS: b"-", NETWORK: b"{}"}
        kept = {name: content for name, content in own.items() if name != SUMS}
        store.add({**kept, ANSWERS: json.dumps(answers).encode()}, details, number - 1 or None)
    store.promote(tasks)


def add_images(folder: Path, count: int) -> None:
    """Fill a store of images, a tenth of them labelled."""
    store, rng = ImageStore(folder), np.random.default_rng(0)
    for number in range(count):
        image = store.add(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), f"patient {number // 3}")
        if number % 10 == 0:
            store.relabel([image], f"organ {number % 7}/finding 0", "Zoe")
    store.close()


def loads(url: str, count: int, browser: Callable[[], Any]) -> list[list[float]]:
    """Return of each load: milliseconds to the first paint, and to three rows with their pictures; rows in the page."""
    found = []
    for _ in range(count):
        driver = browser()
        try:
            driver.get(url)
            found.append(until(lambda driver=driver: driver.execute_script(SEEN)))
        finally:
            driver.quit()
    return found


def chromium() -> Any:
    """Return a browser without a window and without a cache."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1280,1000",
    ):
        options.add_argument(word)
    return webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))


def measure(given: argparse.Namespace, folder: Path) -> str:
    """Measure, and return what is printed."""
    run = given.run
    if run is None:
        run = folder / "run"
        settings = {**RUN, "dataset_dir": folder / "images", "output_dir": run}
        subprocess.run(command("configs/train.json", settings), cwd=bundle_root(), check=True, capture_output=True)
    service, port = folder / "service", free_port()
    add_versions(VersionStore(service / "store"), run.absolute(), given.tasks)
    add_images(service / "images", given.images)
    settings = {"service_dir": service, "port": port, "device": "cpu", "model": service / "store" / "promoted"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command("configs/service.json", settings), cwd=bundle_root(), **quiet)
    try:
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            if process.poll() is not None:
                raise SystemExit("the service does not start")
            try:
                return requests.get(f"{url}/healthz").ok
            except requests.ConnectionError:
                return False

        until(answers)
        found = loads(url, given.loads, chromium)
        asked = {}
        for path in (
            "/datastore/worklist",
            "/datastore/labels",
            "/tasks",
            f"/tasks/compare?number={given.tasks}&other=1",
        ):
            times = [requests.get(url + path) for _ in range(5)]
            asked[path] = [
                statistics.median(1e3 * answer.elapsed.total_seconds() for answer in times),
                len(times[0].content),
            ]
    finally:
        process.terminate()
        process.wait()
    first, listed, rows = zip(*found, strict=True)
    lines = [
        ["first paint", f"{statistics.median(first):.0f}", f"{max(first):.0f}"],
        ["three rows of the worklist with their pictures", f"{statistics.median(listed):.0f}", f"{max(listed):.0f}"],
    ]
    routes = [[path, f"{took:.0f}", f"{size / 1e3:.0f}"] for path, (took, size) in asked.items()]
    return "\n\n".join(
        [
            "# The page of the labelling service with many tasks and images",
            f"Written by `python benchmarks/page.py`: {given.tasks} tasks, {given.images} images, {given.loads} loads, "
            f"{max(rows):.0f} rows in the page; {os.cpu_count()} cores, load average {os.getloadavg()[1]:.1f}.",
            tabulate(lines, ["milliseconds", "median", "longest"], "github"),
            tabulate(routes, ["route", "milliseconds, median of 5", "kB"], "github"),
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(given, Path(folder)))


if __name__ == "__main__":
    main()
