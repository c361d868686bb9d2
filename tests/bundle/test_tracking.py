"""A run in a real MLflow server: one entry over all stages and restarts, with curves, artifacts and the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

mlflow = pytest.importorskip("mlflow", reason="no MLflow client: install the extra [mlflow]")
SERVER = "CONTINUAL_TEST_MLFLOW"  # a virtual environment with the whole of MLflow, where there is one already


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the whole of MLflow, whose packages must not come into this one."""
    if SERVER in os.environ:
        return Path(os.environ[SERVER])
    folder = tmp_path_factory.mktemp("mlflow") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    wanted = f"mlflow=={version('mlflow-skinny')}"
    done = subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", wanted], capture_output=True)
    if done.returncode:
        pytest.skip(f"MLflow's server cannot be installed: {done.stderr.decode()[-300:]}")
    return folder


@pytest.fixture(scope="module")
def server(environment: Path, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    """The address of a server on this machine, with SQLite behind it."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [environment / "bin" / "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", folder / "artifacts", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    for _ in range(1200):
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        try:
            urllib.request.urlopen(f"{address}/health")
            break
        except OSError:
            time.sleep(0.1)
    yield address
    process.terminate()
    process.wait()


@pytest.mark.slow
def test_a_killed_run_goes_on_in_its_entry(
    server: str,
    tmp_path: Path,
    uninterrupted: Any,
    start_run: Callable[..., Any],
    finish_run: Callable[..., None],
    wait_until: Callable[..., None],
) -> None:
    run = tmp_path / "a run"
    own = {"tracking": "mlflow", "tracking_uri": server, "experiment_name": "tests", "save_execute_config": False}
    overrides = {**uninterrupted.overrides, "output_dir": run, **own}
    process = start_run(overrides)
    wait_until(process, lambda: (run / "task_0" / "model.pt").is_file() and (run / "epoch.pt").is_file())
    process.kill()
    process.join()
    finish_run(overrides)
    finish_run(overrides)  # a finished run called again opens no other entry
    client = mlflow.MlflowClient(server)
    (entry,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert (entry.info.status, entry.info.run_name) == ("FINISHED", "a run")
    assert entry.data.params["optimizer/lr"] == "0.05" and entry.data.params["seed"] == "1"
    history = client.get_metric_history(entry.info.run_id, "loss/adapter_tuning")
    rows = (run / "history.csv").read_text().splitlines()[1:]
    assert len({point.step for point in history}) == len(history) == sum(",adapter_tuning," in row for row in rows)
    metrics = json.loads((run / "metrics.json").read_text())
    accuracy = client.get_metric_history(entry.info.run_id, "final_accuracy")
    assert [(point.step, point.value) for point in accuracy] == list(enumerate(metrics["accuracies"], 1))
    first = client.get_metric_history(entry.info.run_id, f"accuracy/{metrics['tasks'][0]['name']}")
    assert [point.value for point in first] == [row[0] for row in metrics["accuracy_matrix"]]
    files = {file.path for file in client.list_artifacts(entry.info.run_id)}
    assert {"metrics.json", "history.csv", "accuracy_matrix.png", "curves.png", "config.json", "model"} <= files
    model = Path(client.download_artifacts(entry.info.run_id, "model/model.pt", str(tmp_path)))
    assert model.read_bytes() == (run / "model.pt").read_bytes()
    # what was learnt, and what the run says it was, are those of a run that nobody looks on
    assert (run / "model.pt").read_bytes() == (uninterrupted.output / "model.pt").read_bytes()
    finish_run({**uninterrupted.overrides, "output_dir": run})


def test_without_a_server_the_run_says_what_to_do(tmp_path: Path, uninterrupted: Any, bundle_run: Any) -> None:
    overrides = {**uninterrupted.overrides, "output_dir": tmp_path / "run", "tracking": "mlflow"}
    done = bundle_run("configs/train.json", {**overrides, "save_execute_config": False}, check=False)
    assert done.returncode == 1
    assert "Error: --tracking mlflow needs to know where the server is: give --tracking_uri" in done.stderr
