"""MONAI's commands and this bundle's own, on a fresh checkout and on a finished run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.commands.app import main
from scripts.commands.package import FIGURES, fitted_metadata
from scripts.model.folder import TrainedModel

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"

# Run in a folder that is not the bundle's, with the bundle on PYTHONPATH.
CHECK = """
import json, sys
from monai.bundle import ConfigWorkflow, create_workflow, verify_net_in_out
configs, models, overrides = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
train, evaluate, inference = (f"{configs}/{name}.json" for name in ("train", "evaluate", "inference"))
found = {}
for name, files, kind, own in (
    ("train", train, "train", {}),
    ("train and evaluate", [train, evaluate], "train", {"model": overrides["output_dir"]}),
    ("inference", inference, "inference", {"model": models}),
):
    given = {**(overrides if kind == "train" else {}), **own}
    workflow = ConfigWorkflow(config_file=files, workflow_type=kind, logging_file=False, **given)
    workflow.initialize()
    found[name] = workflow.check_properties()
    workflow.finalize()
workflow = create_workflow(config_file=train, workflow_type="train", **overrides)
found["trainer"] = type(workflow.trainer).__name__
verify_net_in_out(
    "network_def", meta_file=f"{configs}/metadata.json", config_file=inference, device="cpu", model=models
)
print(json.dumps(found))
"""


def test_a_fresh_checkout_has_all_properties_and_a_network_that_fits(
    tmp_path: Path, small_run: Any, python: Callable[..., Any]
) -> None:
    overrides = {**small_run.overrides, "dataset_dir": str(small_run.dataset), "output_dir": str(small_run.output)}
    arguments = [BUNDLE / "configs", small_run.output, json.dumps(overrides)]
    done = python(["-c", CHECK, *arguments], tmp_path, PYTHONPATH=str(BUNDLE))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"train": [], "train and evaluate": [], "inference": [], "trainer": "ContinualTrainer"}


def test_the_metadata_is_that_of_the_main_job(small_run: Any) -> None:
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    unmeasured = dict.fromkeys(FIGURES)
    fitted = fitted_metadata(metadata, TrainedModel.open(small_run.output), unmeasured)
    assert fitted["network_data_format"] == metadata["network_data_format"]
    assert fitted["data_source"] == metadata["data_source"]
    assert "eval_metrics" not in fitted


PRINTING = {
    "run": [
        "$print('rates', @optimizer.keywords['lr'], @balanced_finetuning#optimizer.keywords['lr'])",
        "$print('epochs', [stage.epochs for stage in @stages])",
        "$print('sizes', @batch_size, @memory_size, @seed, @image_size)",
        "$print('names', @data, @split)",
    ]
}


def test_every_way_to_override_a_key(tmp_path: Path, bundle_run: Any) -> None:
    """Nested keys with # and ::, references, expressions, lists, keys of another file, and files over files."""
    (tmp_path / "printing.json").write_text(json.dumps(PRINTING))
    (tmp_path / "site.json").write_text(json.dumps({"sizes": {"batch": 7}, "image_size": 48}))
    overrides = {
        "optimizer#lr": 0.5,
        "balanced_finetuning::optimizer::lr": 0.25,
        "backbone_epochs": 3,
        "train#trainer#max_epochs": 5,
        "finetune_epochs": "@backbone_epochs",
        "batch_size": f"%{tmp_path}/site.json#sizes#batch",
        "memory_size": "$8 * 5",
        "seed": 11,
        "split": "[['a', 'b'], ['c']]",
    }
    configs = ["configs/train.json", "configs/datasets/image_folder.yaml", tmp_path / "site.json"]
    done = bundle_run([*configs, tmp_path / "printing.json"], overrides, cwd=tmp_path)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("rates", "epochs", "sizes", "names"))]
    assert lines == [
        "rates 0.5 0.25",
        "epochs [3, 5, 3]",
        "sizes 7 40 11 48",
        "names image_folder [['a', 'b'], ['c']]",
    ]


def test_an_image_is_forgotten_and_the_run_goes_on(
    tmp_path: Path,
    small_run: Any,
    linked_copy: Callable[[Path, Path], Path],
    finish_run: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = linked_copy(small_run.output, tmp_path / "run")
    before = torch.load(run / "checkpoint.pt", weights_only=True)
    image = before["states"]["memory"]["classes"][3][0]
    shutil.copy(image, tmp_path / "patient.png")
    assert main(["forget", str(run), str(tmp_path / "patient.png")]) == 0
    assert capsys.readouterr().out.startswith(f"Removed 1 of 16 exemplars from the memory of {run}.")
    after = torch.load(run / "checkpoint.pt", weights_only=True)
    assert after["states"]["memory"]["classes"][3] == before["states"]["memory"]["classes"][3][1:]
    weights, old = (content["states"]["network"]["weights"] for content in (after, before))
    assert all(torch.equal(weights[key], value) for key, value in old.items())
    # the run is still a finished one, which a later task can follow
    finish_run({**small_run.overrides, "output_dir": run})
    assert (run / "model.pt").read_bytes() == (small_run.output / "model.pt").read_bytes()
