"""The command: what it takes, what it prints instead of running, and how it ends."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.commands import everyone, further
from scripts.commands.app import main
from scripts.commands.given import given

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundle" / "configs"


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], list[str]]:
    """Return the configs' names and the other words of the line that a command prints."""
    assert main([*words, "--show"]) == 0
    printed = shlex.split(capsys.readouterr().out)
    assert printed[:5] == ["python", "-m", "monai.bundle", "run", "--config_file"]
    return [Path(file).relative_to(CONFIGS).as_posix() for file in json.loads(printed[5])], printed[6:]


@pytest.mark.parametrize(
    ("words", "files", "keys"),
    [
        ("train", ["train.json"], []),
        ("train --seed 2 --optimizer#lr=0.1", ["train.json"], ["--seed", "2", "--optimizer#lr=0.1"]),
        (
            "train --memory_size 40 skin8 --method derpp",
            ["train.json", "datasets/skin8.yaml", "methods/derpp.yaml", "published/skin8/derpp.yaml"],
            ["--memory_size", "40"],
        ),
        (
            "plan generated --method frozen+levels+ridge --network resnet50",
            [
                *("train.json", "networks/resnet50.yaml", "parts/frozen.yaml", "parts/levels.yaml"),
                *("parts/ridge.yaml", "plan.json"),
            ],
            [],
        ),
        ("evaluate {run} --task 0", ["train.json", "evaluate.json"], ["--model", "{run}", "--task", "0"]),
        ("export {run}", ["train.json", "export.json"], ["--model", "{run}"]),
        ("serve {run} --port 80", ["service.json"], ["--run_dir", "{run}", "--port", "80"]),
        ("node {run}", ["node.json"], ["--model", "{run}"]),
        (
            "classify {run} images --threshold 0.2",
            ["inference.json"],
            ["--model", "{run}", "--dataset_dir", "images", "--output_dir", "eval", "--threshold", "0.2"],
        ),
    ],
)
def test_a_command_is_a_line_of_monai(
    words: str, files: list[str], keys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(capsys, *words.format(run=tmp_path).split())
    assert found == (files, [key.format(run=tmp_path) for key in keys])


def test_a_later_task_brings_its_images_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, new = tmp_path / "skin-dynammo-resnet18-s1-t2", tmp_path / "new"
    for folder in (run, new):
        folder.mkdir()
    (run / "tasks.json").write_text("[{}, {}]")
    (new / "labels.csv").write_text("path,dx\n")
    files, keys = shown(capsys, "learn", str(run), str(new), "--adapter_epochs", "3")
    assert files == ["train.json"]
    said = given(["run", *keys])
    assert said is not None
    typed = said.typed()
    assert set(typed) == {"previous", "output_dir", "split", "dataset_dir", "source", "adapter_epochs"}
    assert typed["output_dir"] == "runs/skin-dynammo-resnet18-s1-t3"
    assert ast.literal_eval(typed["source"] or "")["label"] == "dx"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --optimiser#lr 1", "--optimiser#lr was given '1', but there is no such key: did you mean --optimizer?"),
        ("train --image_size", "--image_size has no value"),
        ("train --memory_size -3", "--memory_size was given '-3': it takes a whole number from 0"),
        ("train --method fecam", "fecam.yaml changes 'ridge', which no file before it has: name the part ridge before"),
        ("train --method acl+hierarchical", "hierarchical.yaml changes 'merging', which a file before it leaves out"),
        ("train --method dynamo", "unknown method 'dynamo'"),
        ("train --config_file a,b", "cannot read a "),
        ("evaluate {file}", "run {file} is a file: give the folder that it is in (RUN)"),
        ("evaluate gone", "run gone is missing"),
        ("compare generated", "Missing argument 'METHOD...'"),
        ("doctor --colour 1", "No such option: --colour"),
        ("trian", "No such command 'trian'"),
    ],
)
def test_a_mistake_ends_with_one_line_before_torch_is_loaded(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(words.format(file=tmp_path / "file").split()) in (1, 2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Error: ")
    assert message.format(file=tmp_path / "file") in last


def test_every_command_has_help_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    names = {
        one.name or one.callback.__name__
        for own in (everyone, further)
        for one in own.app.registered_commands
        if one.callback
    }
    assert names >= {"plan", "train", "learn", "classify", "evaluate", "doctor"}
    for name in names - {"versions", "users", "queue"}:  # whose help is their own
        assert main([name, "--help"]) == 0
        assert f"dynammo {name}" in capsys.readouterr().out


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'monai', 'numpy', 'yaml', 'fire'}"
    code = f"import sys; from scripts.commands.app import main; main(['--help']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "bundle", capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_who_has_read_enough_of_the_output_breaks_nothing() -> None:
    command = f"{shlex.quote(sys.executable)} -m dynammo keys | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("| key |")
