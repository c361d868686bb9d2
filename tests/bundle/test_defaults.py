"""What train.json says when nothing is overridden, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"


def parsed(*overlays: str, **overrides: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("train.json", *overlays)])
    parser.update(overrides)
    return parser


@pytest.mark.parametrize(
    ("overlays", "overrides", "name"),
    [
        ((), {}, "generated-dynammo-resnet18-s1"),
        (("methods/acl.json",), {"seed": 3}, "generated-acl-resnet18-s3"),
        (("datasets/skin8.json",), {}, "skin8-dynammo-mobilenet_v2-s1"),
        (("datasets/image_folder.json",), {"dataset_dir": "/data/lungs/"}, "lungs-dynammo-resnet18-s1"),
        (("datasets/medmnist.json",), {"source#sets": "bloodmnist"}, "bloodmnist-dynammo-resnet18-s1"),
    ],
)
def test_the_output_folder_is_named_after_the_run(overlays: tuple[str, ...], overrides: Any, name: str) -> None:
    folder = parsed(*overlays, **overrides).get_parsed_content("output_dir")
    assert folder == str(CONFIGS.parent / "runs" / name)


def test_a_later_task_is_named_after_its_number(tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text('[{"name": "a"}, {"name": "b"}]')
    folder = parsed(previous=str(tmp_path)).get_parsed_content("output_dir")
    assert folder == str(CONFIGS.parent / "runs" / "generated-dynammo-resnet18-s1-t3")


def test_generated_images_stay_in_the_bundle() -> None:
    parser = parsed()
    assert parser.get_parsed_content("dataset_dir") == str(CONFIGS.parent / "data" / "generated")


def test_nothing_can_be_said_on_the_command_line() -> None:
    assert parsed(previous="$None").get_parsed_content("previous") is None


@pytest.mark.parametrize(
    ("data", "method", "rate"),
    [
        ("generated", "dynammo", 0.05),
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
    parser = parsed(f"methods/{method}.json", data=data)
    assert parser.get_parsed_content("optimizer#lr") == rate


@pytest.mark.parametrize(("data", "alpha", "beta"), [("path16", 0.1, 0.5), ("skin8", 0.3, 0.7)])
def test_dark_experience_replay_has_its_published_settings(data: str, alpha: float, beta: float) -> None:
    (stage,) = parsed("methods/derpp.json", data=data).get_parsed_content("stages")
    assert stage.loss.keywords == {"alpha": alpha, "beta": beta}
    (group,) = stage.optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], stage.scheduler) == (0.03, 0, 0, None)
    (stage,) = parsed("methods/der.json", data=data).get_parsed_content("stages")
    assert stage.loss.keywords == {"alpha": 0.3}


@pytest.mark.parametrize(("data", "rate"), [("generated", 0.02), ("path16", 1e-3)])
def test_podnet_finetunes_at_the_rate_of_its_data(data: str, rate: float) -> None:
    assert parsed("methods/podnet.json", data=data).get_parsed_content("finetune_optimizer#lr") == rate


@pytest.mark.parametrize("weights", [None, "DEFAULT"])
def test_only_an_untrained_backbone_is_trained_first(weights: str | None) -> None:
    without_network: dict[str, Any] = {"stage_features": None, "stem_maps": None}
    stages = [stage.name for stage in parsed(weights=weights, **without_network).get_parsed_content("stages")]
    first = ["backbone_training"] if weights is None else []
    assert stages == [*first, "adapter_tuning", "balanced_finetuning"]
