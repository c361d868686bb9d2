"""The doctor names what does not work, what follows from it, and fails where nothing can be learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.commands import doctor
from scripts.commands.app import main


def test_a_machine_on_which_the_tests_run_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    table = capsys.readouterr().out
    assert all(what in table for what in ("Python", "torch", "GPU", "JPEG-LS", "fonts", f"{tmp_path}, "))
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_work_has_advice_and_a_full_disk_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE", 10**18)
    monkeypatch.setenv("PATH", "")
    assert main(["doctor"]) == 0, "training works all the same"
    table = capsys.readouterr().out
    assert "JPEG lossless in DICOM: install dcmtk" in table
    assert "results (the current folder): free some space" in table


def test_a_folder_that_cannot_be_written_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    monkeypatch.setattr(doctor, "_torch", list)
    table, status = doctor.examine()
    assert status == 1
    assert "NO  results (the current folder)" in table
