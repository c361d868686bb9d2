"""The labelling service learns: labels in, a version out, through restarts, a stop and the gate."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

pytestmark = pytest.mark.slow

SERVICE = ("configs/service.json",)
SECONDS = 300.0
NAME = "Secretname^Jane"
# few images, which show little
LENIENT = {"class_margin": 1.0, "mean_margin": 1.0, "class_floor": 0.0, "mean_floor": 0.0}


class Running:
    """The command on a finished run's versions."""

    def __init__(self, start: Callable[..., Any], port: int, folder: Path) -> None:
        self.url, self.folder = f"http://127.0.0.1:{port}", folder
        self._start, self._port = start, port

    def start(self, **overrides: Any) -> None:
        """Start, or start again."""
        own = {"port": self._port, "service_dir": self.folder, "device": "cpu", "training_settings": {"device": "cpu"}}
        self._process = self._start({**own, **overrides}, SERVICE)
        self.wait(self._answers)

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """End it by a signal, and return how it ended."""
        if self._process.is_alive():
            (self._process.kill if number == signal.SIGKILL else self._process.terminate)()
        self._process.join(SECONDS)
        return self._process.exitcode

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Ask, and return the JSON of an answer that is a good one."""
        answer = requests.request(method, self.url + path, timeout=SECONDS, **request)
        assert answer.ok, answer.text
        return answer.json()

    def wait(self, happened: Callable[[], Any]) -> Any:
        """Wait, and return what has happened."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if found := happened():
                return found
            time.sleep(0.1)
        pytest.fail(f"it does not happen: {self.ask('GET', '/train/?all=true')}")

    def ended(self) -> Any:
        """Wait for the end of the training, and return how it ended."""
        return self.wait(lambda: (found := self.ask("GET", "/train/"))["status"] != "RUNNING" and found)

    def label(self, name: str, seed: int) -> list[str]:
        """Add images of a new class."""
        rng, images = np.random.default_rng(seed), []
        for number in range(6):
            picture = (rng.integers(0, 64, (40, 40, 3)) + 30 * seed).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            sent = {"file": (f"{NAME}.png", file.getvalue())}
            form = {"params": json.dumps({"group": f"{NAME}{number}"})}
            images.append(self.ask("PUT", "/datastore/image", files=sent, data=form)["image"])
            self.ask("PUT", f"/datastore/label?image={images[-1]}", files={"label": json.dumps({"label": name})})
        return images

    def train(self) -> Any:
        """Start a training."""
        (model,) = self.ask("GET", "/info/")["models"]
        return self.ask("POST", f"/train/{model}", json={"max_epochs": 2})

    def _answers(self) -> bool:
        assert self._process.is_alive(), "what it printed is captured"
        try:
            return requests.get(f"{self.url}/healthz").ok
        except requests.ConnectionError:
            return False


@pytest.fixture
def service(start_run: Any, free_port: Any, tmp_path: Path, uninterrupted: Any) -> Iterator[Running]:
    running = Running(start_run, free_port(), tmp_path / "service")
    running.start(run_dir=uninterrupted.output, **LENIENT)
    yield running
    running.stop(signal.SIGKILL)


def test_what_is_labelled_is_learnt_through_a_restart_and_served(service: Running, uninterrupted: Any) -> None:
    before = service.ask("GET", "/info/")
    tasks = len(list(uninterrupted.output.glob("task_*")))
    assert service.ask("GET", "/healthz")["version"] == str(tasks)
    images = service.label("new/first", 1) + service.label("new/second", 2)
    started = service.train()
    assert (started["status"], started["request"]["classes"]) == ("RUNNING", ["new/first", "new/second"])
    assert service.stop() == 0, "it does not wait for the training"
    service.start(**LENIENT)
    assert service.ask("GET", "/train/?check_if_running=true")["id"] == started["id"]
    service.wait(lambda: service.ask("GET", "/train/")["progress"].get("stage") == "adapter_tuning")
    assert requests.delete(f"{service.url}/datastore/image?id={images[0]}").status_code == 409
    assert service.ask("GET", "/info/")["labels"] == before["labels"], "the old version answers meanwhile"
    ended = service.ended()
    assert (ended["id"], ended["status"]) == (started["id"], "DONE"), ended
    assert ended["result"] == {"version": tasks + 1, "promoted": True, "reason": None}
    after = service.ask("GET", "/info/")
    assert after["labels"] == [*before["labels"], "new/first", "new/second"]
    (model,) = after["models"]
    said = service.ask("POST", f"/infer/{model}?image={images[0]}")
    assert (said["version"], len(said["prediction"])) == (str(tasks + 1), len(after["labels"]))
    versions = service.ask("GET", "/tasks")
    newest = versions["versions"][-1]
    assert (versions["served"], versions["back"], newest["parent"]) == (tasks + 1, tasks, tasks)
    whole = service.ask("GET", f"/tasks/{tasks + 1}")
    assert (len(whole["accuracy_matrix"]), whole["tested"]["images"]["new/first"]) == (tasks + 1, 1)
    compared = service.ask("GET", f"/tasks/compare?number={tasks + 1}&other={tasks}")
    assert [one["name"] for one in compared["classes"] if one["is_new"]] == ["new/first", "new/second"]
    for one in compared["classes"]:
        if not one["is_new"] and one["images"]:
            assert one["before"] - one["recall"] == pytest.approx((one["lost"] - one["gained"]) / one["images"])
            assert one["recall"] == pytest.approx(whole["tested"]["recalls"][one["name"]])
    assert service.ask("POST", "/tasks/rollback") == {"served": tasks}
    assert service.ask("POST", f"/tasks/{tasks + 1}/serve") == {"served": tasks + 1}
    assert service.ask("GET", "/healthz")["version"] == str(tasks + 1)
    assert requests.post(f"{service.url}/tasks/1/serve").json()["reason"] == "never_served"
    assert requests.post(f"{service.url}/tasks/99/serve").status_code == 404
    assert service.ask("POST", f"/tasks/{tasks}/serve") == {"served": tasks}
    assert service.ask("GET", "/healthz")["version"] == str(tasks)
    for path in service.folder.rglob("*"):
        assert NAME not in str(path) and not (path.is_file() and NAME.encode() in path.read_bytes()), path


def test_a_stopped_training_goes_on_and_the_gate_has_the_last_word(service: Running) -> None:
    served = service.ask("GET", "/healthz")["version"]
    service.label("new/third", 3)
    service.stop(signal.SIGKILL)
    service.start(**{**LENIENT, "mean_floor": 1.0})
    first = service.train()
    service.wait(lambda: service.ask("GET", "/train/")["progress"].get("epoch"))
    (lock,) = service.folder.glob("trainings/*/lock")
    os.kill(int(lock.read_text()), signal.SIGKILL)  # what it has started still trains
    assert service.ask("GET", "/train/?check_if_running=true")["id"] == first["id"]
    stopped = service.ask("DELETE", "/train/")
    assert (stopped["id"], stopped["status"]) == (first["id"], "STOPPED")
    second = service.train()
    ended = service.ended()
    assert (ended["id"], ended["status"]) == (second["id"], "DONE"), ended
    (log,) = service.folder.glob("trainings/*/train.log")  # of both
    assert "Going on after epoch " in log.read_text()
    assert "under the floor of 100.0 %" in ended["result"]["reason"]
    assert (ended["result"]["promoted"], service.ask("GET", "/healthz")["version"]) == (False, served)
    versions = service.ask("GET", "/tasks")
    assert (str(versions["served"]), len(versions["versions"][-1]["objections"])) == (served, 1)
    assert [task["status"] for task in service.ask("GET", "/train/?all=true")] == ["DONE"]
