"""What goes into the zip: code, configs and one trained model, with metadata that fits it."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser

from scripts.commands.package import fitted_inference, fitted_metadata, main
from scripts.networks import Classifier
from scripts.run_config import RECORDED, write_run_config
from scripts.transforms import Clahed

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION: dict[str, Any] = {
    "backbone": "mobilenet_v2",
    "head": "others",
    "adapter": None,
    "branches": ["backbone"],
    "sites": ["features.3"],
    "tasks": [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c"]}],
    "image_size": 65,
    "mean": [0.5, 0.4, 0.6],
    "std": [0.2, 0.25, 0.2],
    "method": "finetune",
    "data": "skin8",
}
METRICS = {
    "classes": ["a", "b", "c"],
    "final_accuracy": 0.5,
    "average_accuracy": None,
    "final_mean_class_recall": 0.25,
    "average_mean_class_recall": None,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: as much of it as is packaged, and a checkpoint, which is not."""
    folder = tmp_path_factory.mktemp("run")
    network = Classifier(**{key: DESCRIPTION[key] for key in list(DESCRIPTION)[:6]})
    torch.save(network.state_dict(), folder / "model.pt")
    (folder / "network.json").write_text(json.dumps(DESCRIPTION))
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "checkpoint.pt").write_bytes(b"what a hospital keeps to itself")
    source = {"_target_": "scripts.tasks.ImageFolder", "root": str(folder / "images of Jane Doe")}
    places = {
        "dataset_dir": str(folder),
        "output_dir": str(folder),
        "weights": f"{folder}/weights.pth",
        "source": source,
    }
    write_run_config(folder, {"memory_size": 24, **places, RECORDED: {"tasks": 2}})
    return folder


def metadata() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "bundle" / "configs" / "metadata.json").read_text())
    return content


def test_metadata_is_that_of_the_network() -> None:
    fitted = fitted_metadata(metadata(), DESCRIPTION, METRICS)
    image, prediction = (
        fitted["network_data_format"][side][name] for side, name in (("inputs", "image"), ("outputs", "pred"))
    )
    assert image["spatial_shape"] == [65, 65]
    assert image["value_range"] == [-3.0, 2.5]
    assert prediction["num_channels"] == 3
    assert prediction["channel_def"] == {"0": "a", "1": "b", "2": "c"}
    assert fitted["eval_metrics"] == {"final_accuracy": 0.5, "final_mean_class_recall": 0.25}
    assert "skin8" in fitted["data_source"]
    schema = json.loads((ROOT / "tests" / "bundle" / "metadata_schema.json").read_text())
    jsonschema.validate(fitted, schema)


def test_metadata_of_a_network_of_volumes_has_one_channel_and_three_sides() -> None:
    description = {**DESCRIPTION, "backbone": "resnet18_3d", "image_size": 28, "mean": [0.5], "std": [0.5]}
    fitted = fitted_metadata(metadata(), description, METRICS)
    image = fitted["network_data_format"]["inputs"]["image"]
    assert image["spatial_shape"] == [28, 28, 28]
    assert image["num_channels"] == len(image["channel_def"]) == 1
    assert image["value_range"] == [-1.0, 1.0]
    assert fitted["image_classes"].startswith("volumes of 28 x 28 x 28 pixels")
    jsonschema.validate(fitted, json.loads((ROOT / "tests" / "bundle" / "metadata_schema.json").read_text()))


def inference() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "bundle" / "configs" / "inference.json").read_text())
    return content


def test_without_a_colour_transform_the_preprocessing_is_monai_alone() -> None:
    fitted = fitted_inference(inference(), DESCRIPTION)
    assert fitted == fitted_inference(inference(), {**DESCRIPTION, "colour_transform": None})
    assert fitted["colour_transform"] is None
    assert "scripts." not in json.dumps(fitted["preprocessing"])
    assert "colours" not in fitted_metadata(metadata(), DESCRIPTION, METRICS)["image_classes"]


def test_a_colour_transform_is_packed_with_its_numbers() -> None:
    description = {**DESCRIPTION, "colour_transform": {"name": "clahe", "clip_limit": 0.02, "tiles": 4}}
    fitted = fitted_inference(inference(), description)
    assert fitted["colour_transform"] == description["colour_transform"]
    assert fitted["preprocessing"] == inference()["preprocessing"]
    keys = ("image_size", "mean", "std", "colour_transform", "preprocessing")
    prepare = ConfigParser({key: fitted[key] for key in keys}).get_parsed_content("preprocessing")
    (made,) = [step for step in prepare.transforms if isinstance(step, Clahed)]
    assert (made.clip_limit, made.tiles) == (0.02, 4)
    words = fitted_metadata(metadata(), description, METRICS)["image_classes"]
    assert "their colours changed by clahe (clip_limit 0.02, tiles 4)" in words


def test_the_metadata_of_the_main_job_stays_what_it_is() -> None:
    shipped = json.loads((ROOT / "bundle" / "models" / "network.json").read_text())
    unmeasured = dict.fromkeys(METRICS)
    fitted = fitted_metadata(metadata(), shipped, unmeasured)
    assert fitted["network_data_format"] == metadata()["network_data_format"]
    assert fitted["data_source"] == metadata()["data_source"]
    assert "eval_metrics" not in fitted


def test_the_zip_holds_one_folder_with_code_configs_and_the_model_alone(run: Path, tmp_path: Path) -> None:
    assert main([str(run), str(tmp_path / "skin.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "skin.zip") as archive:
        names = archive.namelist()
        assert archive.read("skin/models/model.pt") == (run / "model.pt").read_bytes()
        assert json.loads(archive.read("skin/configs/inference.json"))["mean"] == DESCRIPTION["mean"]
        train = ROOT / "bundle" / "configs" / "train.json"
        assert archive.read("skin/configs/train.json") == train.read_bytes()
    assert {name.split("/")[0] for name in names} == {"skin"}
    assert {name.split("/")[1] for name in names} == {"LICENSE", "configs", "docs", "models", "scripts"}
    models = [name.removeprefix("skin/models/") for name in names if "/models/" in name]
    assert models == ["config.json", "model.pt", "network.json"]
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_config_it_was_trained_with_goes_along_without_a_path(run: Path, tmp_path: Path) -> None:
    assert main([str(run), str(tmp_path / "skin.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "skin.zip") as archive:
        config = archive.read("skin/models/config.json").decode()
    assert json.loads(config)["memory_size"] == 24
    assert str(run) not in config
    assert "Jane Doe" not in config


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert main([str(run), str(tmp_path / folder / "x.zip")]) == 0
    assert (tmp_path / "one" / "x.zip").read_bytes() == (tmp_path / "two" / "x.zip").read_bytes()


def test_a_run_whose_figures_are_of_another_model_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "metrics.json").write_text(json.dumps({**METRICS, "classes": ["a", "b"]}))
    assert main([str(copy), str(tmp_path / "x.zip")]) == 1
    assert "is not finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "message"),
    [("model.pt", "no trained model"), ("network.json", "no trained model"), ("metrics.json", "cannot read")],
)
def test_a_folder_without_a_finished_run_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, message: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / missing).unlink()
    assert main([str(copy), str(tmp_path / "x.zip")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Error: {message}")
    assert said.count("\n") == 1
    assert not (tmp_path / "x.zip").exists()


def test_a_wrong_name_and_a_missing_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "x.tar")]) == 1
    assert "ends in .zip" in capsys.readouterr().err
    assert main([str(tmp_path / "gone"), str(tmp_path / "x.zip")]) == 1
    assert "gone is missing" in capsys.readouterr().err
