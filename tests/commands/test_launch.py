"""Runs as jobs of a cluster: they end with their own status, and a job that dies is submitted again."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.commands.configs import CONFIGS
from scripts.commands.launch import Launch, on_cluster, stop
from scripts.utils.errors import UserError

submitit = pytest.importorskip("submitit", reason="no submitit: install the extra [cluster]")


def page(folder: Path, **others: Any) -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load((CONFIGS / "clusters" / "local.yaml").read_text()), **others}))
    return str(path)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return on_cluster(page(tmp_path, tries=2), 3, tmp_path / "jobs")


def test_a_job_ends_with_the_status_of_its_command_and_all_it_prints_is_added_to_the_log(
    launch: Launch, tmp_path: Path
) -> None:
    log, says = tmp_path / "it's a log", "echo $OMP_NUM_THREADS; echo 'two  words' >&2"
    for status in (0, 3):
        assert launch(["sh", "-c", f"{says}; exit {status}"], log).wait() == status
    assert log.read_text() == "3\ntwo  words\n" * 2


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 143"])
def test_a_job_that_dies_is_submitted_again_and_goes_on_where_it_was(end: str, launch: Launch, tmp_path: Path) -> None:
    once = f"test -e {tmp_path}/half && exit 0; touch {tmp_path}/half; {end}"
    assert launch(["sh", "-c", once], tmp_path / "log").wait() == 0


def test_a_job_whose_node_dies_is_submitted_again_as_often_as_the_page_says(launch: Launch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert launch(["sh", "-c", "echo started; kill -9 $PPID; sleep 60"], log).wait() == -signal.SIGKILL
    lines = log.read_text().splitlines()
    assert lines.count("started") == 2
    assert sum(line.startswith("job ") and "died: see" in line for line in lines) == 2


def test_a_job_that_is_stopped_stays_so(launch: Launch, tmp_path: Path) -> None:
    job = launch(["sleep", "600"], tmp_path / "log")
    assert job.poll() is None
    stop([job])
    assert job.poll() is not None


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"executor": "cloud"}, "names the executor cloud: choose one of slurm, local"),
        ({"ask": {"nodes": 3}}, "cannot be submitted .*one node"),
    ],
)
def test_a_page_that_means_nothing_is_refused(others: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        on_cluster(page(tmp_path, **others), None, tmp_path / "jobs")
    with pytest.raises(UserError, match="unknown cluster 'gone': choose one of local, slurm, or give"):
        on_cluster("gone", None, tmp_path / "jobs")


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="srun"):
        on_cluster("slurm", None, tmp_path / "jobs")
