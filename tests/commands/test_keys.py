"""What a command line gives is what a key takes, or is refused in one line with status 2; texts stay as typed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow

from scripts.commands import configs, pages
from scripts.commands.app import main
from scripts.commands.given import OWN, given
from scripts.commands.key_table import is_expression, is_of, quoted, read_keys, reference
from scripts.commands.keys import STRUCTURE, check, check_keys, top_level_keys, unknown_keys
from scripts.utils.errors import UsageError

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
CONFIGS = BUNDLE / "configs"
CONFIG: dict[str, Any] = {
    "data": "generated",
    "method": "dynammo",
    "parts": [],
    "backbone": "resnet18",
    "weights": None,
    "image_size": 64,
    "batch_size": 32,
    "adapter_epochs": 12,
    "memory_size": 80,
    "split": None,
    "seed": 1,
    "device": "cpu",
    "previous": None,
    "restart": False,
    "dataset_dir": "$@test_data + '/images'",
    "limits": {"num_workers": 0},
    "source": {"_target_": "scripts.learning.sources.LabelsCsv", "root": "@dataset_dir", "label": "label"},
    "memory": {"_target_": "scripts.learning.memory.ExemplarMemory", "size": "@memory_size", "folder": "x"},
    "random_transforms": [{"_target_": "RandFlipd", "keys": "image", "prob": 0.5, "spatial_axis": 1}],
    "optimizer": {"_target_": "torch.optim.SGD", "_mode_": "callable", "lr": 0.05, "nesterov": False},
    "run": [{"_target_": "scripts.commands.keys.check_keys"}],
}


def checked(folder: Path, *typed: str, config: dict[str, Any] = CONFIG, files: Sequence[str] = ()) -> ConfigParser:
    """Return the config that a command line leaves, read as MONAI reads it, or raise what refuses it."""
    (folder / "config.json").write_text(json.dumps(config))
    listed = [str(folder / "config.json"), *files]
    said = given(["run", "--config_file", str(listed), *typed])
    assert said is not None
    parser = ConfigParser()
    parser.read_config(listed)
    parser.update(
        {key: True if text is None else DefaultParseValue(text) for key, text in said.pairs if key not in OWN}
    )
    parser.parse(reset=True)
    check(said, parser)
    return parser


def refusal(folder: Path, *typed: str, **more: Any) -> str:
    with pytest.raises(UsageError) as caught:
        checked(folder, *typed, **more)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_top_level_keys_are_read_in_all_of_monais_forms() -> None:
    arguments = ["run", "--config_file", "a.json", "--seed", "2", "--a#b#c", "5", "--d::e", "6", "--f=7"]
    assert top_level_keys(arguments) == ["config_file", "seed", "a", "d", "f"]


def test_a_key_that_only_an_expression_refers_to_is_known() -> None:
    config = {"memory_size": 1, "weights": "$@test_data + '/weights.pth'"}
    assert unknown_keys(["memory_size", "test_data", "memory_sise", "zzz"], config) == {
        "memory_sise": ["memory_size"],
        "zzz": [],
    }


@pytest.mark.parametrize(
    ("typed", "place", "value"),
    [
        ("--data 2019", "data", "2019"),
        ("--data 12.10", "data", "12.10"),
        ("--dataset_dir 1e5", "dataset_dir", "1e5"),
        ("--dataset_dir a,b", "dataset_dir", "a,b"),
        ("--dataset_dir=[1]", "dataset_dir", "[1]"),
        ("--data '2019'", "data", "2019"),
        ("--previous 7", "previous", "7"),
        ("--previous null", "previous", None),
        ("--weights None", "weights", None),
        ("--data null", "data", "null"),
        ("--source#label 2019", "source#label", "2019"),
        ("--source#label true", "source#label", "true"),
        ("--restart true", "restart", True),
        ("--restart False", "restart", False),
        ("--restart", "restart", True),
        ("--norestart", "restart", False),
        ("--optimizer#nesterov true", "optimizer#nesterov", True),
        ("--optimizer#lr 1", "optimizer#lr", 1),
        ("--optimizer#lr 1e-3", "optimizer#lr", 0.001),
        ("--memory#size @seed", "memory#size", "@seed"),
        ("--image_size $3*4", "image_size", "$3*4"),
        ("--random_transforms#0#prob 0.1", "random_transforms#0#prob", 0.1),
        ("--optimizer#_disabled_ true", "optimizer#_disabled_", "true"),
        ("--split null", "split", None),
        ("--split [1,2]", "split", [1, 2]),
        ("--limits#num_workers 2", "limits#num_workers", 2),
        ("--batch-size 4", "batch_size", 4),
    ],
)
def test_what_fits_is_taken_as_it_was_meant(typed: str, place: str, value: Any, tmp_path: Path) -> None:
    found = checked(tmp_path, *typed.split())[place]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("value", ["@source", "$[@seed]", "%method"])
def test_a_reference_is_not_put_back_as_text(value: str, tmp_path: Path) -> None:
    before = ConfigParser({**CONFIG, "data": value})
    before.parse()
    assert checked(tmp_path, "--data", value)["data"] == before["data"]


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (
            "--image_size abc",
            "--image_size was given 'abc': it takes a whole number from 1 (pixels), such as --image_size 224",
        ),
        ("--batch_size -3", "--batch_size was given '-3': it takes a whole number from 1 (images)"),
        ("--seed abc", "--seed was given 'abc': it takes a whole number from 0"),
        ("--seed true", "--seed was given 'true': it takes a whole number"),
        ("--image_size None", "--image_size was given 'None': it takes a whole number"),
        ("--adapter_epochs 1.5", "--adapter_epochs was given '1.5': it takes a whole number from 1 (epochs)"),
        ("--restart maybe", "--restart was given 'maybe': it takes true or false, such as --restart true"),
        ("--limits#num_workers -1", "--limits#num_workers was given '-1': it takes a whole number from 0 (processes)"),
        ("--optimizer#lr abc", "--optimizer#lr was given 'abc': it takes a number, such as --optimizer#lr 0.05"),
        ("--optimizer#nesterov 2", "--optimizer#nesterov was given '2': it takes true or false, such as"),
        ("--random_transforms#0#prob x", "--random_transforms#0#prob was given 'x': it takes a number, such as"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(typed: str, line: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, *typed.split()).startswith(line)


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ("--memory_sise 40", ["--memory_sise was given '40'", "--memory_size", "a whole number from 0 (images)"]),
        ("--num_workers 2", ["no file in --config_file has this key", "did you mean --limits#num_workers"]),
        ("--zzzz", ["--zzzz was given no value", "dynammo keys [WORD] lists the keys"]),
        ("--memory#sise 5", ["--memory#sise was given '5', but memory takes size, ", "did you mean --memory#size?"]),
        ("--limits#worker 1", ["but limits takes num_workers; did you mean --limits#num_workers?"]),
        ("--random_transforms#0#probb 1", ["random_transforms#0 takes keys, prob, "]),
        ("-sed 1", ["--sed was given '1'", "--seed"]),
        ("stray --seed 2", ["'stray' stands without a key"]),
    ],
)
def test_what_nothing_takes_is_refused_with_the_nearest_name(typed: str, parts: list[str], tmp_path: Path) -> None:
    line = refusal(tmp_path, *typed.split())
    assert [part for part in parts if part not in line] == []


def test_a_number_of_a_methods_own_block_stays_a_number(tmp_path: Path) -> None:
    config = {**CONFIG, "ewc": {"strength": 1000.0}}
    assert checked(tmp_path, "--ewc#strength", "5", config=config)["ewc"] == {"strength": 5}
    line = refusal(tmp_path, "--ewc#strength", "abc", config=config)
    assert line == "--ewc#strength was given 'abc': it takes a number or null, such as --ewc#strength 1000.0"
    assert "did you mean --ewc#strength?" in refusal(tmp_path, "--ewc#strenght", "5", config=config)


@pytest.mark.parametrize("typed", [["--test_data", "x"], ["--tracking", "mlflow", "--run_name", "x"], ["run"]])
def test_what_something_reads_is_no_unknown_key(typed: list[str], tmp_path: Path) -> None:
    checked(tmp_path, *typed)


def test_a_misspelt_key_of_ones_own_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text('{"memory_sise": 4}')
    assert "own.json sets 'memory_sise'" in refusal(tmp_path, files=[str(tmp_path / "own.json")])
    (tmp_path / "own.yaml").write_text("rate: 0.1\noptimizer#lr: '@rate'\nmemory_size: 4\nport: 1\n")
    assert checked(tmp_path, files=[str(tmp_path / "own.yaml")])["memory_size"] == 4


def test_a_wrong_value_of_a_file_is_refused_too(tmp_path: Path) -> None:
    line = refusal(tmp_path, config={**CONFIG, "image_size": "64"})
    assert line.startswith("image_size is '64' in the config: it takes a whole number from 1 (pixels)")


def test_an_open_block_takes_any_key(tmp_path: Path) -> None:
    config = {**CONFIG, "presentation": {"window": "file"}, "training_settings": {}}
    typed = ("--presentation#accept", "['derived']", "--training_settings#seed", "3")
    assert checked(tmp_path, *typed, config=config)["presentation"]["accept"] == ["derived"]


@pytest.mark.parametrize(("typed", "value"), [("A,2", ["A", "2"]), ("A", ["A"]), ("['A']", ["A"])])
def test_a_list_of_texts_is_one_however_it_is_typed(typed: str, value: list[str], tmp_path: Path) -> None:
    assert checked(tmp_path, "--callers", typed, config={**CONFIG, "callers": []})["callers"] == value


def test_a_text_that_monai_would_change_is_refused(tmp_path: Path) -> None:
    line = "--dataset_dir was given 'a#1', but MONAI reads # as ::, so give a name without it"
    assert refusal(tmp_path, "--dataset_dir", "a#1") == line


@pytest.mark.parametrize("key", ["weights", "seed", "dataset_dir"])
def test_a_key_without_a_value_is_refused_unless_it_is_a_switch(key: str, tmp_path: Path) -> None:
    line = f"--{key} has no value: write --{key} VALUE, or leave it out"
    assert refusal(tmp_path, "--restart", f"--{key}", "--batch_size", "2") == line


@pytest.mark.parametrize("name", ["gpu", "cuda:1", "cuda", "meta", "0"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    line = f"--device was given '{name}', which is not there: it takes one of cpu"
    assert refusal(tmp_path, "--device", name) == line


def test_a_device_that_is_there_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1"):
        assert checked(tmp_path, "--device", name)["device"] == name
    assert "cpu, cuda:0, cuda:1" in refusal(tmp_path, "--device", "cuda:2")


def test_a_backbone_without_sites_is_refused(tmp_path: Path) -> None:
    line = refusal(tmp_path, "--backbone", "resnet81")
    assert line.startswith("--backbone was given 'resnet81': it takes one of resnet18, ")
    assert "did you mean resnet" in line


@pytest.fixture
def few_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configs with two methods and two parts."""
    folder = tmp_path / "configs"
    for page in ("methods/acl", "methods/dynammo", "parts/lora", "parts/ridge", "datasets/skin8", "networks/big"):
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{page}.yaml").write_text("{}")
    (folder / "train.json").write_text("{}")
    for module in (pages, configs):
        monkeypatch.setattr(module, "CONFIGS", folder)
    return folder


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        (["--method", "acl"], "list configs/methods/acl.yaml in --config_file and leave --method out"),
        (["--method", "dynammo+ridge"], "list configs/parts/ridge.yaml in --config_file"),
        (["--method", "acl+ridge"], "list configs/methods/acl.yaml and configs/parts/ridge.yaml in --config_file"),
        (["--method", "acll"], "has no acll.yaml: it takes the names of pages, here acl, dynammo; did you mean acl?"),
        (["--method", "acl+rigde"], "here lora, ridge; did you mean ridge?"),
        (["--parts", "['ridge']"], "list configs/parts/ridge.yaml in --config_file and leave --parts out"),
    ],
)
def test_a_method_or_part_without_its_page_is_refused(
    typed: list[str], part: str, tmp_path: Path, few_pages: Path
) -> None:
    assert part in refusal(tmp_path, *typed)


def test_the_method_that_the_files_describe_can_be_named(tmp_path: Path) -> None:
    checked(tmp_path, "--method", "dynammo", "--parts", "[]")
    checked(tmp_path, config={**CONFIG, "method": "my own"})


@pytest.mark.parametrize(
    ("files", "first", "second"),
    [
        (["methods/acl.yaml", "datasets/skin8.yaml"], "methods/acl.yaml", "datasets/skin8.yaml"),
        (["networks/big.yaml", "train.json"], "networks/big.yaml", "train.json"),
        (["train.json", "parts/ridge.yaml", "methods/acl.yaml"], "parts/ridge.yaml", "methods/acl.yaml"),
    ],
)
def test_pages_in_another_order_are_refused(
    files: list[str], first: str, second: str, tmp_path: Path, few_pages: Path
) -> None:
    line = refusal(tmp_path, files=[str(few_pages / file) for file in files])
    assert f"{first} before {second}" in line
    assert f"list {second} first" in line


def test_pages_in_their_order_are_taken(tmp_path: Path, few_pages: Path) -> None:
    pages_listed = ["train.json", "networks/big.yaml", "datasets/skin8.yaml", "methods/acl.yaml", "parts/lora.yaml"]
    checked(
        tmp_path, files=[*(str(few_pages / page) for page in pages_listed), str(few_pages / "parts" / "ridge.yaml")]
    )


def test_another_program_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--memory_sise", "4"])
    check_keys()
    assert capsys.readouterr().err == ""


def test_later_steps_of_a_run_see_the_text_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**CONFIG, "run": [*CONFIG["run"], "$@seen.append(@data)"], "seen": []}))
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--config_file", str(file), "--data", "2019"])
    workflow = ConfigWorkflow(str(file), logging_file=False, data=2019)
    workflow.initialize()
    workflow.run()
    assert workflow.parser.get_parsed_content("seen") == ["2019"]


def test_a_run_ends_with_status_2_and_one_line(python: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    command = ["-m", "monai.bundle", "run", "--config_file", tmp_path / "config.json"]
    done = python([*command, "--batch_size", "-3"])
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "Error: --batch_size was given '-3': it takes a whole number from 1 (images), such as --batch_size 16"
    )
    assert "Traceback" not in done.stderr


def contents(pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(CONFIGS.glob(pattern)):
        if path.name not in ("metadata.json", "keys.yaml"):
            yield yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else json.loads(path.read_text())


def is_literal(value: Any) -> bool:
    """Say whether nothing in a value is resolved or built."""
    if isinstance(value, dict):
        return "_target_" not in value and all(map(is_literal, value.values()))
    return all(map(is_literal, value)) if isinstance(value, list) else not is_expression(value)


def test_every_literal_key_of_the_configs_is_in_the_table() -> None:
    keys = read_keys()
    blocks = {place.split("#")[0] for place in keys}
    literal = {key for content in contents("*.json") for key, value in content.items() if is_literal(value)}
    assert {key.split("#")[0].lstrip("+") for key in literal} - blocks - set(STRUCTURE) == set()


def places(content: dict[str, Any], above: str = "") -> Iterator[str]:
    """Yield the places of a config, those within blocks, too."""
    for key, value in content.items():
        place = f"{above}{key.lstrip('+')}"
        yield place
        if isinstance(value, dict):
            yield from places(value, f"{place}#")


def test_every_key_of_the_table_is_in_some_config() -> None:
    there = {
        place for pattern in ("*.json", "*/**/*.yaml") for content in contents(pattern) for place in places(content)
    }
    assert set(read_keys()) - there == set()


def test_every_value_of_the_configs_fits_its_key() -> None:
    keys = read_keys()
    for pattern in ("*.json", "*/**/*.yaml"):
        for content in contents(pattern):
            wrong = {key: value for key, value in content.items() if key in keys and not keys[key].fits(value)}
            assert wrong == {}


def value_at(content: Any, place: str) -> Any:
    """Return the value at a place of a config; ``None`` where there is none."""
    for part in place.split("#"):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def test_the_table_says_the_defaults_that_the_configs_have() -> None:
    wrong = {}
    for content in contents("*.json"):
        for place, key in read_keys().items():
            value = value_at(content, place)
            if is_of("number", value):
                written = "|".join(re.escape(text) for text in (f"{value}", f"{value:g}", f"{value / 2**20:g} MiB"))
                if not re.search(rf"(?<![\w.])({written})(?![\w.]*\d)", key.why):
                    wrong[place] = value, key.why
    assert wrong == {}


def test_every_example_is_what_its_key_takes() -> None:
    assert [key.place for key in read_keys().values() if not key.fits(key.read(key.example))] == []


def test_without_a_word_all_keys_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys"]) == 0
    assert capsys.readouterr().out == reference(read_keys().values()) + "\n"


def test_single_keys_are_printed_and_others_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "port", "adapter#width"]) == 0
    assert capsys.readouterr().out == reference([read_keys()["port"], read_keys()["adapter#width"]]) + "\n"
    assert main(["keys", "prot"]) == 2
    assert capsys.readouterr().err.endswith(": did you mean port?\n")
    assert main(["keys", "augmentation"]) == 2
    assert main(["keys", "exemplars"]) == 0
    assert "`memory_size`" in capsys.readouterr().out, "a word of what a key does"


def test_an_example_is_quoted_where_a_shell_needs_it() -> None:
    assert [quoted(text) for text in ("0.1", "@csv_source", "['CT1']")] == ["0.1", "@csv_source", "\"['CT1']\""]
