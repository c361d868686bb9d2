"""Versions as a hospital keeps them: taken in from a run, promoted through the gate, rolled back, checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.versions import main
from scripts.deploy.versions import VersionStore
from scripts.deploy.versions.audit import account

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


@pytest.fixture(scope="module")
def store(uninterrupted: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions") / "store"
    assert main([str(folder), "add", str(uninterrupted.output)]) == 0
    return folder


@pytest.fixture
def versions(store: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command and returns its exit status and what it printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(store), *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_every_task_of_a_run_is_a_version_once(uninterrupted: Any, store: Path, versions: Callable[..., Any]) -> None:
    tasks = len(list(uninterrupted.output.glob("task_*")))
    assert versions("add", str(uninterrupted.output))[0] == 0, "a second time adds nothing"
    records = [
        json.loads((store / f"versions/{number:04d}/version.json").read_text()) for number in range(1, tasks + 1)
    ]
    assert [record["parent"] for record in records] == [None, *range(1, tasks)]
    assert len(list((store / "versions").iterdir())) == tasks
    metrics = json.loads((uninterrupted.output / "metrics.json").read_text())
    last = records[-1]
    assert last["tested"]["mean_class_recall"] == pytest.approx(metrics["final_mean_class_recall"])
    assert last["accuracy_matrix"] == metrics["accuracy_matrix"]
    assert set(last["files"]) == {"model.pt", "network.json", "answers.json"}
    said = "".join(path.read_text() for path in (store / "versions/0001").glob("*.json"))
    assert str(uninterrupted.dataset) not in said, "no path of an image, which may name a patient"


ANY = ("--class_margin", "1", "--mean_margin", "1", "--class_floor", "0", "--mean_floor", "0")


def test_a_version_passes_the_gate_or_the_old_one_goes_on(versions: Callable[..., Any], store: Path) -> None:
    status, _, said = versions("promote", "1")  # of three test images a class
    assert (status, said.count("\n")) == (3, 1)
    assert "version 1 is refused, " in said and "nothing is served yet" in said
    assert versions("--by", "Dr Zoe", "promote", "1", *ANY) == (0, "Version 1 is served now.\n", "")
    status, _, said = versions("promote", "2", "--mean_floor", "0.99", "--reason", "I want it")
    assert status == 3
    assert "mean: its recall is" in said and said.endswith("version 1 is served as before\n"), "no reason helps there"
    assert versions("promote", "2", *ANY)[0] == 0
    assert " served " in versions("list")[1].splitlines()[3]
    assert versions("rollback")[:2] == (0, "Version 1 is served now.\n")
    assert versions("rollback")[0] == 1
    refused, promoted = (
        next(event for event in VersionStore(store).audit.events() if event["event"] == kind)
        for kind in ("refused", "promoted")
    )
    assert (promoted["by"], promoted["asked"]["mean_floor"], refused["by"]) == ("Dr Zoe", 0.0, account())


def test_the_card_says_what_the_version_is(versions: Callable[..., Any], uninterrupted: Any) -> None:
    status, card, _ = versions("card", "2")
    assert status == 0
    said = ("version 2", "Parent: version 1", "Licence: no pretrained weights", "expected calibration error", "SHA-256")
    for part in (*said, "Not a medical device"):
        assert part in card
    assert str(uninterrupted.dataset) not in card


def test_what_was_changed_is_named(store: Path, versions: Callable[..., Any]) -> None:
    assert versions("check")[0] == 0
    weights = store / "versions/0002/model.pt"
    whole = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    status, _, said = versions("check")
    weights.write_bytes(whole)
    assert (status, said) == (
        1,
        f"Error: {weights} is not as it was added: restore it from a copy; until then its version is void\n",
    )


def test_going_back_waits_for_neither_torch_nor_monai() -> None:
    code = "import sys; import scripts.commands.versions; print(sorted({'torch', 'monai', 'scipy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=BUNDLE, env=os.environ, capture_output=True, text=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["add", "nowhere"], "no trained model in nowhere: give a run's folder"),
        (["promote", "99"], "has no version 99: choose among those there are (1, 2"),
        (["promote", "1", "--class_margin", "7"], "class_margin is 7.0: give a number from 0 to 1"),
    ],
)
def test_a_mistake_ends_with_one_line(arguments: list[str], part: str, versions: Callable[..., Any]) -> None:
    status, out, said = versions(*arguments)
    assert (status, out, said.count("\n")) == (1, "", 1)
    assert part in said
