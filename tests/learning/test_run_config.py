"""A run's config says all that the run was: what is evaluated in it, what is compared, and what may differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from scripts.commands.configs import CONFIGS, TRAIN, VOLUMES, find_config, known_configs, parse_config
from scripts.learning.run_config import (
    AS_WRITTEN,
    DATA,
    LATER,
    MAY_DIFFER,
    config_digest,
    config_of,
    differences,
    may_differ,
    read_run_config,
    resolved,
    running_config,
    what_matters,
    write_run_config,
)
from scripts.utils.errors import UserError
from scripts.utils.running import RECORDED, running_parser

PAGES = [file for folder in ("networks", "datasets", "methods", "parts") for file in known_configs(folder).values()]
ABOVE = {name: ["ridge"] for name in ("fecam", "federated", "judged", "ncm", "orientations")}  # what changes a part


def merged(*pages: Path, **keys: Any) -> dict[str, Any]:
    listed = [
        file for page in pages for file in (*(find_config("parts", part) for part in ABOVE.get(page.stem, [])), page)
    ]
    parser = parse_config([TRAIN, *listed], [])
    parser.update(keys)
    return resolved(parser.get())


def leaves(value: Any, place: str = "") -> dict[str, Any]:
    """Return the plain values of a config by their ids."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        return {place: value}
    found: dict[str, Any] = {}
    for key, own in inner:
        found.update(leaves(own, f"{place}#{key}" if place else str(key)))
    return found


@pytest.mark.parametrize("page", [None, *PAGES], ids=lambda page: "train" if page is None else page.stem)
def test_every_key_of_every_page_is_compared_or_may_differ(page: Path | None) -> None:
    config = merged(*([] if page is None else [page]))
    for place in leaves(config):
        key = place.split("#")[0]
        parser = ConfigParser(json.loads(json.dumps(config)))
        parser[place] = "something else"
        found = differences(config, parser.get())
        free = key in AS_WRITTEN or may_differ(key) or any(f"{place}#".startswith(f"{one}#") for one in MAY_DIFFER)
        assert bool(found) != free, place


def test_what_may_differ_is_in_a_page() -> None:
    configs = [ConfigParser(merged(*([] if page is None else [page]))) for page in (None, *PAGES)]
    signed = {"network_def#weights_sha256", "tasks#check", "balanced_finetuning#features#views"}  # of a signature
    for place in {*MAY_DIFFER, *DATA, *LATER} - signed:
        assert any(place in config for config in configs), place


def test_expressions_over_literals_are_evaluated_and_objects_stay_as_written() -> None:
    config = merged(CONFIGS / "datasets" / "cifar10.yaml", image_size=48, both="$[@image_size] * 2")
    assert (config["both"], config["random_transforms"][2]["roi_size"]) == ([48, 48], [48, 48])
    assert config["network_def"]["image_size"] == "@image_size"
    assert config["image"]["size"] == "@image_size"
    assert config["dataset_dir"] == str(Path("datasets/cifar").absolute())
    assert config["device"].startswith("$"), "another machine has another one"
    assert config["run"][-1] == "$@train::trainer.run()"


@pytest.mark.parametrize("page", [None, *PAGES], ids=lambda page: "train" if page is None else page.stem)
def test_it_is_the_same_config_again(page: Path | None) -> None:
    volumes = [VOLUMES] if page is not None and "volumes" in page.stem else []
    config = merged(*volumes, *([] if page is None else [page]))
    again = resolved(json.loads(json.dumps(config)))
    assert differences(config, again) == []
    assert config_digest(config) == config_digest(again)


def test_all_differences_are_named_with_both_values() -> None:
    before, now = (
        merged(),
        merged(memory_size=40, **{"optimizer#lr": 0.5, "device": "cuda:1", "network_def#head": "levels"}),
    )
    assert differences(before, now) == [
        "memory_size was 80, is 40",
        "network_def#head was unified, is levels",
        "optimizer#lr was 0.05, is 0.5",
    ]


def test_handlers_are_compared_by_their_class() -> None:
    before = merged()
    now = json.loads(json.dumps(before))
    averaging = next(one for one in now["train"]["handlers"] if one["_target_"].endswith("AdapterAveragingHandler"))
    averaging["merging"] = None
    now["train"]["handlers"].insert(0, {"_target_": "scripts.learning.handlers.ProgressFileHandler", "path": "x"})
    assert differences(before, now) == ["train#handlers#AdapterAveragingHandler#merging was @merging, is null"]
    now = json.loads(json.dumps(before))
    now["train"]["handlers"].reverse()
    (order,) = differences(before, now)
    assert order.startswith("train#handlers (their order) was CheckpointHandler, ")


def test_weights_are_compared_by_their_content(tmp_path: Path) -> None:
    def of(name: str, content: bytes) -> dict[str, Any]:
        (tmp_path / name).write_bytes(content)
        return config_of(parse_config([TRAIN], ["--weights", str(tmp_path / name)]))

    first, moved, other = of("a.pth", b"1"), of("b.pth", b"1"), of("c.pth", b"2")
    assert differences(first, moved) == [] and config_digest(first) == config_digest(moved)
    (changed,) = differences(first, other)
    assert changed.startswith("weights was 6b86b273ff34")
    assert config_digest(first) != config_digest(other)
    assert differences(first, other, (*DATA, *LATER)) == [], "a later task does not read them"


def test_places_become_absolute_and_are_no_part_of_what_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = merged(dataset_dir="images", output_dir="run")
    assert (config["dataset_dir"], config["output_dir"]) == (f"{tmp_path}/images", f"{tmp_path}/run")
    assert str(tmp_path) not in json.dumps(what_matters(config))


def test_a_config_knows_the_parser_that_resolves_it() -> None:
    parser = ConfigParser(
        {"config": {"_target_": "scripts.learning.run_config.running_config"}, "weights": None, "a": "$1 + 1"}
    )
    found = parser.get_parsed_content("config")
    assert found["a"] == 2
    assert {"code", "format", "versions", "weights"} == found[RECORDED].keys()
    with pytest.raises(UserError, match="a run's config is known while MONAI resolves it"):
        running_parser()
    with pytest.raises(UserError):
        running_config()


def test_what_is_no_runs_config_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no config.json"):
        read_run_config(tmp_path)
    write_run_config(tmp_path, {"a": 1, RECORDED: {}})
    (tmp_path / "task_0").mkdir()
    assert read_run_config(tmp_path / "task_0") == {"a": 1, RECORDED: {}}
    for broken in ("", "[]", "{}", '{"recorded": 3}'):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(UserError, match="is no run's config") as caught:
            read_run_config(tmp_path)
        assert "\n" not in str(caught.value)
