"""What goes into the zip: code, configs and one trained model, with metadata that fits it."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser

from scripts.commands.app import main
from scripts.commands.package import LEARNING, METADATA, TORCHSCRIPT, fitted_metadata, torchscript_config
from scripts.deploy.service.routes.page import FILES as PAGE
from scripts.imaging.transforms import Clahed
from scripts.learning.run_config import write_run_config
from scripts.model.folder import TrainedModel, write_model
from scripts.model.networks import classifier_from
from scripts.utils.running import RECORDED

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION: dict[str, Any] = {
    "backbone": "mobilenet_v2",
    "head": "others",
    "adapter": None,
    "branches": ["backbone"],
    "sites": ["features.3"],
    "levels": "published",
    "tasks": [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c"]}],
    "image": {"size": 65, "mean": [0.5, 0.4, 0.6], "std": [0.2, 0.25, 0.2]},
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
    write_model(folder, classifier_from(DESCRIPTION).state_dict(), DESCRIPTION)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "checkpoint.pt").write_bytes(b"what a hospital keeps to itself")
    source = {"_target_": "scripts.learning.sources.ImageFolder", "root": str(folder / "images of Jane Doe")}
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


def trained(run: Path, **image: Any) -> TrainedModel:
    model = TrainedModel.open(run)
    return replace(model, image=replace(model.image, **image))


def test_metadata_is_that_of_the_network(run: Path) -> None:
    fitted = fitted_metadata(metadata(), trained(run), METRICS)
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


def test_metadata_of_a_network_of_volumes_has_one_channel_and_three_sides(run: Path) -> None:
    volumes = trained(run, size=28, mean=[0.5], std=[0.5], dimensions=3)
    fitted = fitted_metadata(metadata(), volumes, METRICS)
    image = fitted["network_data_format"]["inputs"]["image"]
    assert image["spatial_shape"] == [28, 28, 28]
    assert image["num_channels"] == len(image["channel_def"]) == 1
    assert image["value_range"] == [-1.0, 1.0]
    assert fitted["image_classes"].startswith("volumes of 28 x 28 x 28 pixels")
    jsonschema.validate(fitted, json.loads((ROOT / "tests" / "bundle" / "metadata_schema.json").read_text()))


def test_a_colour_transform_is_named_with_its_numbers(run: Path) -> None:
    colour = {"name": "clahe", "clip_limit": 0.02, "tiles": 4}
    words = fitted_metadata(metadata(), trained(run, colour=colour), METRICS)["image_classes"]
    assert "their colours changed by clahe (clip_limit 0.02, tiles 4)" in words
    assert "colours" not in fitted_metadata(metadata(), trained(run), METRICS)["image_classes"]


def test_who_has_the_exported_network_alone_needs_monai_alone(run: Path) -> None:
    inference = json.loads((ROOT / "bundle" / "configs" / "inference.json").read_text())
    config = torchscript_config(trained(run), inference)
    assert "scripts." not in json.dumps({key: config[key] for key in ("preprocessing", "inferer", "postprocessing")})
    colour = torchscript_config(trained(run, colour={"name": "clahe", "clip_limit": 0.02, "tiles": 4}), inference)
    prepare = ConfigParser({"preprocessing": colour["preprocessing"]}).get_parsed_content("preprocessing")
    (made,) = [step for step in prepare.transforms if isinstance(step, Clahed)]
    assert (made.clip_limit, made.tiles) == (0.02, 4)


def test_the_zip_holds_one_folder_with_code_configs_and_the_model_alone(run: Path, tmp_path: Path) -> None:
    assert main(["package", str(run), str(tmp_path / "skin.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "skin.zip") as archive:
        names = archive.namelist()
        assert archive.read("skin/models/model.pt") == (run / "model.pt").read_bytes()
        for name in names:
            file = ROOT / "bundle" / name.removeprefix("skin/")
            own = name.startswith("skin/models/") or name in (f"skin/{METADATA}", f"skin/{TORCHSCRIPT}")
            assert own or archive.read(name) == file.read_bytes(), "rewritten"
    assert {name.split("/")[0] for name in names} == {"skin"}
    assert {name.split("/")[1] for name in names} == {"LICENSE", "configs", "docs", "models", "scripts"}
    models = [name.removeprefix("skin/models/") for name in names if "/models/" in name]
    assert models == ["SHA256SUMS", "config.json", "model.pt", "network.json"]
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_a_zip_for_deployment_leaves_learning_out_and_says_so(run: Path, tmp_path: Path) -> None:
    assert main(["package", str(run), str(tmp_path / "skin.zip"), "--deploy"]) == 0
    with zipfile.ZipFile(tmp_path / "skin.zip") as archive:
        content = {name.removeprefix("skin/"): archive.read(name) for name in archive.namelist()}
    assert "scripts/learning, configs/train.json" in json.loads(content[METADATA])["contents"]
    assert "configs/train.json" not in content and "configs/inference.json" in content
    assert {f"scripts/deploy/service/page/{name}" for name in ("index.html", *PAGE)} <= content.keys()
    code = {name: data.decode() for name, data in content.items() if name.endswith(".py")}
    assert [name for name, text in code.items() if re.search(r"(from|import) scripts\.learning", text)] == []
    left_out = {f"scripts.commands.{name}" for name in LEARNING}
    at_once = [line for text in code.values() for line in text.splitlines() if line.startswith(("from ", "import "))]
    assert [line for line in at_once if line.split()[1] in left_out] == []
    assert [name for name, data in content.items() if name.endswith(".json") and b'"scripts.learning' in data] == []


def test_the_config_it_was_trained_with_goes_along_without_a_path(run: Path, tmp_path: Path) -> None:
    assert main(["package", str(run), str(tmp_path / "skin.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "skin.zip") as archive:
        config = archive.read("skin/models/config.json").decode()
    assert json.loads(config)["memory_size"] == 24
    assert str(run) not in config
    assert "Jane Doe" not in config


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert main(["package", str(run), str(tmp_path / folder / "x.zip")]) == 0
    assert (tmp_path / "one" / "x.zip").read_bytes() == (tmp_path / "two" / "x.zip").read_bytes()


def test_a_run_whose_figures_are_of_another_model_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "metrics.json").write_text(json.dumps({**METRICS, "classes": ["a", "b"]}))
    assert main(["package", str(copy), str(tmp_path / "x.zip")]) == 1
    assert "is not finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "message"),
    [("model.pt", "{run}/model.pt, which"), ("network.json", "no trained model"), ("metrics.json", "cannot read")],
)
def test_a_folder_without_a_finished_run_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, message: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / missing).unlink()
    assert main(["package", str(copy), str(tmp_path / "x.zip")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: " + message.format(run=copy))
    assert said.count("\n") == 1
    assert not (tmp_path / "x.zip").exists()


def test_a_wrong_name_and_a_missing_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["package", str(tmp_path), str(tmp_path / "x.tar")]) == 1
    assert "ends in .zip" in capsys.readouterr().err
    assert main(["package", str(tmp_path / "gone"), str(tmp_path / "x.zip")]) == 1
    assert "gone is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("thresholds", "said"),
    [(None, [0.0420, 0.1142, 0.8438]), ((0.5, 0.5, 0.5), [0.0, 0.5, 1.0])],
    ids=["classes", "findings"],
)
def test_it_gives_probabilities_of_classes_and_scores_of_findings(
    thresholds: tuple[float, ...] | None, said: list[float], run: Path
) -> None:
    model = trained(run)
    model = replace(model, identity=replace(model.identity, thresholds=thresholds, temperature=None, threshold=None))
    config = torchscript_config(model, json.loads((ROOT / "bundle" / "configs" / "inference.json").read_text()))
    finish = ConfigParser({"postprocessing": config["postprocessing"]}).get_parsed_content("postprocessing")
    assert finish({"pred": torch.tensor([-0.5, 0.5, 2.5])})["pred"].tolist() == pytest.approx(said, abs=1e-4)
