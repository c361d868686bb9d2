"""What is said before MONAI runs, and what of its own words is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.commands.app import main


@pytest.mark.usefixtures("run_here")
def test_who_wrote_a_config_must_be_trusted_and_that_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["dynammo"])
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own.yaml"
    own.write_text("run: [\"$print('it ran')\"]\n")
    assert main(["train", "--config_file", str(own)]) == 0
    printed = capfd.readouterr()
    assert "it ran" in printed.out
    assert printed.err.count("trust") == 1, printed.err
    assert f"{own} may run any code" in printed.err
    assert "Loading torch and MONAI" in printed.err
    assert "Not all config files" not in printed.out + printed.err
