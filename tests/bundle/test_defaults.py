"""What train.json says when nothing is overridden, without training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.commands.configs import CONFIGS, TRAIN, data_files, method_files, parse_config, published_files


def parsed(*overlays: str, **overrides: Any) -> ConfigParser:
    parser = parse_config([TRAIN, *(CONFIGS / name for name in overlays)], [])
    parser.update(overrides)
    return parser


def learnt(method: str, data: str) -> ConfigParser:
    """Return the config of a method on a data set, as a comparison has it."""
    return parse_config([TRAIN, *data_files(data), *method_files(method), *published_files(data, method)], [])


@pytest.mark.parametrize(
    ("overlays", "overrides", "name"),
    [
        ((), {}, "generated-dynammo-resnet18-s1"),
        (("parts/levels.yaml", "parts/ridge.yaml"), {}, "generated-dynammo+levels+ridge-resnet18-s1"),
        (("methods/acl.yaml",), {"seed": 3}, "generated-acl-resnet18-s3"),
        (("datasets/skin8.yaml",), {}, "skin8-dynammo-mobilenet_v2-s1"),
        (("datasets/image_folder.yaml",), {"dataset_dir": "/data/lungs/"}, "lungs-dynammo-resnet18-s1"),
        (("datasets/medmnist.yaml",), {"source#sets": "bloodmnist"}, "bloodmnist-dynammo-resnet18-s1"),
    ],
)
def test_the_output_folder_is_named_after_the_run(overlays: tuple[str, ...], overrides: Any, name: str) -> None:
    folder = parsed(*overlays, **overrides).get_parsed_content("output_dir")
    assert folder == f"runs/{name}"


def test_a_later_task_is_named_after_its_number(tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text('[{"name": "a"}, {"name": "b"}]')
    folder = parsed(previous=str(tmp_path)).get_parsed_content("output_dir")
    assert folder == "runs/generated-dynammo-resnet18-s1-t3"


def test_generated_images_go_below_the_current_folder() -> None:
    assert parsed().get_parsed_content("dataset_dir") == "data/generated"


def test_nothing_can_be_said_on_the_command_line() -> None:
    assert parsed(previous="$None").get_parsed_content("previous") is None


@pytest.mark.parametrize(
    ("data", "method", "rate"),
    [
        ("generated", "dynammo", 0.05),
        ("generated", "finetune", 0.02),
        ("path16", "finetune+without_memory", 1e-3),
        ("skin8", "dynammo", 0.01),
        ("path16", "finetune", 1e-4),
        ("skin8", "joint", 1e-3),
        ("medmnist", "icarl", 1e-2),
        ("path16", "wa", 1e-2),
        ("skin8", "bic", 1e-3),
        ("path16", "derpp", 0.03),
        ("path16", "der_expandable", 1e-3),
        ("skin8", "gem", 1e-3),
        ("path16", "ucir", 5e-3),
        ("skin8", "podnet", 1e-3),
    ],
)
def test_the_published_rate_follows_from_data_and_method(data: str, method: str, rate: float) -> None:
    assert learnt(method, data).get_parsed_content("optimizer#lr") == rate


@pytest.mark.parametrize(("data", "alpha", "beta"), [("path16", 0.1, 0.5), ("skin8", 0.3, 0.7)])
def test_dark_experience_replay_has_its_published_settings(data: str, alpha: float, beta: float) -> None:
    (stage,) = learnt("derpp", data).get_parsed_content("stages")
    assert stage.loss.keywords == {"alpha": alpha, "beta": beta}
    (group,) = stage.optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], stage.scheduler) == (0.03, 0, 0, None)
    (stage,) = learnt("der", data).get_parsed_content("stages")
    assert stage.loss.keywords == {"alpha": 0.3}


@pytest.mark.parametrize(("data", "rate"), [("generated", 0.02), ("path16", 1e-3)])
def test_podnet_finetunes_at_the_rate_of_its_data(data: str, rate: float) -> None:
    assert learnt("podnet", data).get_parsed_content("balanced_finetuning#optimizer#lr") == rate


@pytest.mark.parametrize("weights", [None, "DEFAULT"])
def test_only_an_untrained_backbone_is_trained_first(weights: str | None) -> None:
    without_network: dict[str, Any] = {"balanced_finetuning#features": None, "adapter_tuning#stem_maps": None}
    found = parsed(weights=weights, **without_network).get_parsed_content("stages")
    stages = [stage.name for stage in found if stage is not None]
    first = ["backbone_training"] if weights is None else []
    assert stages == [*first, "adapter_tuning", "balanced_finetuning"]


def depths(value: Any) -> int:
    """Return how many keys there are at all depths."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return (len(value) if isinstance(value, dict) else 0) + sum(map(depths, inner))


def test_the_main_job_can_be_read_aloud() -> None:
    config = json.loads(TRAIN.read_text())
    assert TRAIN.read_text() == json.dumps(config, indent=4) + "\n"
    assert len(TRAIN.read_text().splitlines()) <= 330
    assert len(config) <= 45
    assert depths(config) < 250
    assert all(stage[1:] in config for stage in config["stages"])
    assert ".lower()" not in TRAIN.read_text()
    assert not [page for page in CONFIGS.glob("*/**/*.yaml") if re.search(r"@data\b", page.read_text())]
