"""Comparisons as jobs of a cluster: one Slurm of one node, whose jobs die, and submitit's processes."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("submitit", reason="no submitit: install the extra [cluster]")
BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
DAEMONS = ("munged", "slurmctld", "slurmd")
SLURM = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores}
PartitionName=all Nodes=ALL Default=YES
"""


@pytest.fixture
def slurm(tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of this machine alone, without accounting."""
    if os.getuid():
        pytest.skip("Slurm's daemons start as root alone")
    if missing := [name for name in DAEMONS if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(missing)}: install the Debian packages slurm-wlm and munge")
    folder = tmp_path / "slurm"
    for name in (folder, folder / "state", folder / "spool"):
        name.mkdir(mode=0o755)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    config = folder / "slurm.conf"
    ports = [free_port() for _ in range(2)]
    config.write_text(SLURM.format(host=os.uname().nodename, folder=folder, ports=ports, cores=os.cpu_count()))
    monkeypatch.setenv("SLURM_CONF", str(config))
    options = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munge.pid"}
    options |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    munge = ["munged", "--foreground", "--force", *(f"--{key}={folder / name}" for key, name in options.items())]
    daemons: list[subprocess.Popen[bytes]] = []
    with open(folder / "log", "wb") as log:
        try:
            for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
                time.sleep(1)
            subprocess.run(["srun", "true"], check=True, timeout=60)
            yield
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(timeout=60)


def command_of(uninterrupted: Any, output: Path, submit: str, *options: str) -> list[str]:
    """Return a comparison of two methods on the images of that run, two of its tasks."""
    keys = dict(uninterrupted.overrides)
    keys["source#sets"] = "['cells','spaces']"
    pairs = [part for key, value in keys.items() for part in (f"--{key}", str(value))]
    words = ["compare", "generated", "finetune", "joint", "--seeds", "1", "--threads", "1", "--output", str(output)]
    return ["-m", "scripts.commands", *words, "--submit", submit, *options, *pairs]


def rows_of(output: Path) -> list[dict[str, str]]:
    """Return the table of a comparison without what differs from one start to the next: the seconds."""
    with (output / "comparison.csv").open() as file:
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in csv.DictReader(file)]


def trainings(folder: Path) -> dict[int, str]:
    """Return the processes that train in a folder, by number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if "monai.bundle" in words and any(str(folder) in word for word in words) and words[0] != "/bin/sh":
            found[int(path.parent.name)] = " ".join(words)
    return found


def parents(processes: Iterable[int]) -> list[int]:
    """Return the numbers of the processes that have started these."""
    status = [Path(f"/proc/{number}/stat").read_text() for number in processes]
    return [int(line.rpartition(")")[2].split()[1]) for line in status]


def queue() -> list[str]:
    """Return the jobs that run or wait."""
    command = ["squeue", "--noheader", "--format=%A"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.slow
def test_jobs_of_slurm_fill_the_same_table_and_one_that_dies_goes_on(
    slurm: None,
    uninterrupted: Any,
    python: Callable[..., Any],
    bundle_environment: dict[str, str],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    local, queued = tmp_path / "local", tmp_path / "queued"
    done = python(command_of(uninterrupted, local, "local"))
    assert done.returncode == 0, done.stderr
    environment = {**bundle_environment, "SLURM_CONF": os.environ["SLURM_CONF"]}
    page = tmp_path / "own.yaml"
    page.write_text(yaml.safe_dump({"executor": "slurm", "tries": 3, "ask": {"time": 30, "partition": "all"}}))
    command = [sys.executable, *command_of(uninterrupted, queued, str(page))]
    process = subprocess.Popen(command, cwd=BUNDLE, env=environment, stderr=subprocess.PIPE, text=True)
    first = queued / "generated-finetune-mobilenet_v2-s1"
    wait_until(process, lambda: (first / "checkpoint.pt").is_file())
    (job,) = queue()
    training = trainings(first)
    for number in (*parents(training), *training):
        os.kill(number, signal.SIGKILL)  # submitit's process and what it has started, as when a node goes down
    wait_until(process, lambda: queue() not in ([], [job]))
    assert f"job {job} died: see " in first.with_name(f"{first.name}.log").read_text()
    wait_until(process, lambda: bool(trainings(first)))
    subprocess.run(["scancel", *queue()], check=True)  # as a cluster does whose time is up
    _, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert rows_of(queued) == rows_of(local)


@pytest.mark.slow
def test_an_interrupted_comparison_cancels_its_jobs(
    slurm: None, uninterrupted: Any, bundle_environment: dict[str, str], wait_until: Callable[..., None], tmp_path: Path
) -> None:
    environment = {**bundle_environment, "SLURM_CONF": os.environ["SLURM_CONF"]}
    command = [sys.executable, *command_of(uninterrupted, tmp_path / "out", "slurm", "--jobs", "2")]
    process = subprocess.Popen(command, cwd=BUNDLE, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(process, lambda: bool(trainings(tmp_path / "out")))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    assert process.returncode == 130
    assert queue() == []
    assert not trainings(tmp_path / "out")
