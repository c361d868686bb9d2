"""Images with several findings, learnt, classified and tested by whole commands, and which methods refuse them."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from scripts.commands.configs import method_files
from scripts.learning.sources.generated import FINDINGS, draw_findings

FAST = ("--backbone", "mobilenet_v2", "--image_size", "40", "--device", "cpu", "--batch_size", "16")
SMALL: dict[str, Any] = {
    "source#train": 40,
    "source#test": 20,
    "source#val": 10,
    "source#share": 0.4,
    "backbone_epochs": 1,
    "adapter_epochs": 1,
    "device": "cpu",
    "batch_size": 16,
    "image_size": 65,
    "backbone": "mobilenet_v2",
}
OVERLAYS = ("configs/train.json", "configs/datasets/generated_findings.yaml")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of one's own with a column of 0 and 1 a finding, and the images that it names."""
    folder = tmp_path_factory.mktemp("own")
    rows: list[tuple[object, ...]] = [("path", "rings", "holes", "split")]
    for number in range(60):
        rng = np.random.default_rng(number)
        has = {name: rng.random() < 0.5 for name in ("rings", "holes")}
        Image.fromarray(draw_findings([name for name in has if has[name]], rng)).save(folder / f"{number}.png")
        rows.append((f"{number}.png", *map(int, has.values()), "test" if number % 3 == 0 else "train"))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def run(table: Path, python: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("findings") / "run"
    command = ["-m", "scripts.commands", "train", str(table), "--method", "frozen+levels+ridge", *FAST]
    command += ["--source#findings", "['rings','holes']", "--source#labels", "many", "--output_dir", str(output)]
    done = python([*command, "--backbone_epochs", "2"], seconds=300)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "mean AUROC of the findings" in said and "mean average precision (mAP)" in said
    return output


def test_a_table_of_findings_is_learnt_and_every_figure_written(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert [row["class"] for row in metrics["findings"]] == ["rings", "holes"]
    for name in ("mean_auroc", "mean_average_precision", "final_accuracy"):
        assert 0 <= metrics[name] <= 1
    assert len(json.loads((run / "network.json").read_text())["thresholds"]) == 2


def test_classify_says_each_finding_of_each_image(
    run: Path, table: Path, python: Callable[..., Any], scans: Any, tmp_path: Path
) -> None:
    images = tmp_path / "in"
    images.mkdir()
    shutil.copy(table / "0.png", images / "0.png")
    scans.dicom(images / "scan", np.asarray(Image.open(table / "1.png").convert("L")))
    command = ["-m", "scripts.commands", "classify", str(run), str(images), "--output", str(tmp_path / "out")]
    done = python(command, seconds=120)
    assert done.returncode == 0, done.stderr
    counted = next(line for line in done.stdout.splitlines() if line.startswith("Findings: "))
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    thresholds = content["model"]["thresholds"]
    counts: Counter[str] = Counter()
    for said in content["images"]:
        present = [name for name, score in said["probabilities"].items() if score >= thresholds[name]]
        assert said["findings"] == present
        assert said["predicted_class"] == ("|".join(present) or "none")
        counts.update(["indeterminate"] if said["indeterminate"] else present or ["none"])
    assert counted == f"Findings: {', '.join(f'{name} in {count}' for name, count in sorted(counts.items()))}"
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert [row["predicted class"] for row in csv.DictReader(file)] == [
            said["predicted_class"] for said in content["images"]
        ]
    report = str(pydicom.dcmread(tmp_path / "out" / "scan.sr.dcm"))
    assert all(f"Score of {name}" in report for name in ("rings", "holes"))


def test_the_model_of_findings_is_evaluated(run: Path, run_here: Callable[..., None], tmp_path: Path) -> None:
    run_here(
        {"model": str(run), "evaluation_dir": str(tmp_path / "eval")}, ("configs/train.json", "configs/evaluate.json")
    )
    with (tmp_path / "eval" / "classes.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["rings", "holes"]


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("dynammo", "seen_cross_entropy of the stage balanced_finetuning"),
        ("icarl", "icarl_loss of the stage training"),
        ("frozen+ridge+fecam", "the head fecam"),
        ("frozen+ridge+federated", "leave the part 'federated' out"),
    ],
)
def test_methods_that_give_an_image_one_class_are_refused_by_name(
    method: str, why: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    memory = {} if "frozen" in method else {"memory_size": 20}
    paths = {"dataset_dir": tmp_path / "images", "output_dir": tmp_path / "run"}
    assert why in refusal({**SMALL, **paths, **memory}, [*OVERLAYS, *method_files(method)])
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_merged_adapters_carry_findings_of_two_tasks_and_are_exported(
    run_here: Callable[..., None], tmp_path: Path
) -> None:
    paths = {"dataset_dir": tmp_path / "images", "output_dir": tmp_path / "run"}
    run_here({**SMALL, **paths}, [*OVERLAYS, *method_files("dynammo+levels+ridge+without_memory")])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [row["class"] for row in metrics["findings"]] == [*FINDINGS]
    assert len(metrics["auroc_matrix"]) == 2
    settings = {"model": tmp_path / "run", "export_dir": tmp_path / "export", "largest_drop": 1.0, "device": "cpu"}
    run_here(settings, ("configs/train.json", "configs/export.json"))
    figures = json.loads((tmp_path / "export" / "export.json").read_text())
    assert figures["model.onnx"]["agreement"] == figures["model.ts"]["agreement"] == 1.0
