"""Methods on a vision transformer: learnt in parts, stopped and gone on with, as the same weights; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from PIL import Image

from scripts.commands.configs import OF_TRANSFORMERS, method_files
from scripts.deploy.inference.loading import load_image_classifier
from scripts.model.folder import TrainedModel
from scripts.utils.errors import UserError

SPLIT = [["clusters/nests", "clusters/rings"], ["fibres/parallel"], ["cells/large", "cells/small"]]
TINY: dict[str, Any] = {
    "source#train_per_class": 4,
    "source#test_per_class": 2,
    "source#val_per_class": 2,
    "backbone": "timm:test_vit",  # six blocks of 64 numbers
    "image_size": 32,
    "backbone_epochs": 1,
    "adapter_epochs": 2,
    "finetune_epochs": 3,
    "memory_size": 10,
    "batch_size": 8,
    "device": "cpu",
}
QUICK = ("dynammo+bottleneck", "dynammo+lora+levels+ridge", "podnet", *OF_TRANSFORMERS)
MERGING = {"_target_": "scripts.model.networks.Merging"}
METHODS = (
    *QUICK,
    *("dynammo_others+bottleneck", "acl+bottleneck", "dynammo+lora", "dynammo+bottleneck+ridge"),
    *("dynammo+bottleneck+running_mean", "dynammo+bottleneck+ties", "dynammo+bottleneck+fisher"),
    *("dynammo+bottleneck+regmean", "frozen+levels+ridge", "frozen+ridge+ranpac", "frozen+ridge+fecam"),
    *("l2p+one_pass", "dualprompt+one_pass", "coda_prompt+one_pass", "l2p+memory", "dualprompt+memory"),
    *("coda_prompt+memory", "l2p+ridge", "dualprompt+zero_to_one"),
    *("finetune", "icarl", "wa", "bic", "der", "derpp", "lwf", "ewc", "gem", "ucir"),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "images"


@pytest.fixture
def train(images: Path, run_here: Callable[..., None]) -> Callable[..., None]:
    """Train a method on small images into a folder."""

    def run(method: str, output: Path, *arguments: Any, split: Any = SPLIT, **overrides: Any) -> None:
        own = {"dataset_dir": images, "output_dir": output, "split": split}
        least = {"ridge#least_images": 1} if "ridge" in method else {}
        run_here({**TINY, **own, **least, **overrides}, ["configs/train.json", *method_files(method)], *arguments)

    return run


def stop_after_a_first_epoch(workflow: ConfigWorkflow) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    workflow.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), interrupt)


@pytest.mark.parametrize(
    "method", [pytest.param(method, marks=[pytest.mark.slow] * (method not in QUICK)) for method in METHODS]
)
def test_a_later_task_stopped_on_the_way_ends_with_the_weights_of_one_run(
    method: str, train: Callable[..., None], weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    later = {"split": SPLIT[2:], "previous": tmp_path / "earlier"}
    train(method, tmp_path / "whole")
    train(method, tmp_path / "earlier", split=SPLIT[:2])
    while not (tmp_path / "later/metrics.json").is_file():
        try:
            train(method, tmp_path / "later", stop_after_a_first_epoch, **later)
        except KeyboardInterrupt:
            assert (tmp_path / "later/epoch.pt").is_file()
    for name in ("model.pt", "checkpoint.pt"):
        assert weights_digest(tmp_path / "later" / name) == weights_digest(tmp_path / "whole" / name), name
    assert TrainedModel.open(tmp_path / "whole").network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_all_classes_at_once(train: Callable[..., None], images: Path, tmp_path: Path) -> None:
    train("joint", tmp_path / "run")
    picture = sorted((images / "Pathology16/cells/test/large").iterdir())[0]
    result = load_image_classifier(tmp_path / "run").classify(str(picture))
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_prompts_chosen_by_the_majority_are_for_comparison_alone(train: Callable[..., None], tmp_path: Path) -> None:
    train("l2p+majority", tmp_path / "run")
    found = json.loads((tmp_path / "run/metrics.json").read_text())
    chosen = [sum(part > 0 for part in row) for row in found["prompt_choices"]]
    assert max(chosen) <= 4, "the images of the one test batch get the same prompts"
    for door in (TrainedModel.open, load_image_classifier):
        with pytest.raises(UserError, match="answers by the majority of the images beside .* --adapter#choice image"):
            door(tmp_path / "run")


@pytest.mark.parametrize("method", OF_TRANSFORMERS)
def test_how_often_each_prompt_is_chosen_is_said_and_drawn(
    method: str, train: Callable[..., None], images: Path, tmp_path: Path
) -> None:
    train(method, tmp_path / "run", adapter_epochs=1)
    picture = sorted((images / "Pathology16/cells/test/large").iterdir())[0]
    result = load_image_classifier(tmp_path / "run").classify(str(picture))
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-3)
    rows = json.loads((tmp_path / "run/metrics.json").read_text())["prompt_choices"]
    prompts = {"l2p": 10, "dualprompt": 3, "coda_prompt": 30}[method]
    assert [len(row) for row in rows] == [prompts] * 3
    assert [sum(row) for row in rows] == pytest.approx([1] * 3)
    chosen = {number for row in rows for number, part in enumerate(row) if part > 0}
    assert {int(file.stem) for file in (tmp_path / "run/prompts").iterdir()} == chosen
    assert Image.open(tmp_path / "run/prompts" / f"{min(chosen)}.png").size[0] == 2 * 32
    assert (tmp_path / "run/prompts.png").is_file()


@pytest.mark.parametrize(
    ("method", "overrides", "words"),
    [
        ("dynammo", {}, "adapters 'conv' stand before a convolutional network's blocks, and timm:test_vit is none"),
        ("dynammo+bottleneck", {"image_size": 40}, "image_size 40 is no multiple of 16, the patches of timm:test_vit"),
        ("dynammo+bottleneck", {"backbone": "timm:test_convnext"}, "beside the MLP of a plain vision transformer's"),
        ("dynammo+lora", {"backbone": "timm:no_such"}, "timm cannot make timm:no_such"),
        ("frozen+levels+ridge", {"network_def#levels": ["blocks.99"]}, "has no level 'blocks.99'"),
        ("l2p", {"backbone": "resnet18"}, "prompts need a plain vision transformer of torchvision or timm"),
        ("l2p+levels", {}, "prompts 'l2p' are read at the end of the transformer: leave part 'levels' out"),
        ("l2p", {"adapter#pool_size": 3}, "a pool of 3 prompts is smaller than the 4 that are chosen"),
        ("coda_prompt", {"adapter#blocks": ["blocks.6"]}, "timm:test_vit has no block 'blocks.6' for prompts"),
        ("coda_prompt", {"merging": MERGING}, "adapters 'coda_prompt' of all tasks are in use, none is merged"),
    ],
)
def test_what_a_transformer_does_not_have_is_refused_by_name(
    method: str, overrides: dict[str, Any], words: str, images: Path, refusal: Callable[..., str], tmp_path: Path
) -> None:
    own = {"dataset_dir": images, "output_dir": tmp_path / "run", "split": SPLIT}
    last = refusal({**TINY, **own, **overrides}, ["configs/train.json", *method_files(method)])
    assert words in last
