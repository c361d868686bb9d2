"""A packaged run, unpacked elsewhere, is a whole MONAI bundle: it infers, verifies, exports and loads there."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import load_net_with_metadata

from scripts.inference import load_classifier

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Path(__file__).with_name("metadata_schema.json")

# Run in the folder that holds the unpacked one, by its name: all of it with the code and the configs that were packed.
USE = """
import json
import sys
import monai.bundle as bundle
import torch
folder, images, run, overrides = sys.argv[1:]
sys.path.insert(0, folder)
inference, metadata = f"{folder}/configs/inference.json", f"{folder}/configs/metadata.json"
bundle.run(config_file=inference, dataset_dir=images, device="cpu")
import scripts
assert scripts.__file__ == f"{folder}/scripts/__init__.py", scripts.__file__
workflow = bundle.create_workflow(config_file=inference, workflow_type="inference", dataset_dir=images, device="cpu")
assert workflow.check_properties() == []
for files in ([f"{folder}/configs/train.json"], [f"{folder}/configs/{name}.json" for name in ("train", "evaluate")]):
    given = {**json.loads(overrides), "output_dir": run, "model": run}
    workflow = bundle.create_workflow(config_file=files, workflow_type="train", **given)
    assert workflow.check_properties() == [], files
bundle.verify_net_in_out("network_def", meta_file=metadata, config_file=inference, device="cpu")
bundle.ckpt_export("network_def", filepath=f"{folder}/models/model.ts", config_file=inference, bundle_root=folder)
parent, _, name = folder.rpartition("/")
network = bundle.load(name=name, bundle_dir=parent, workflow_type="inference", device="cpu")
torch.save({"loaded": network.eval()(torch.ones(1, 3, 65, 65))}, f"{folder}/loaded.pt")
"""
KINDS: dict[str, dict[str, Any]] = {
    "mobilenet": {"backbone": "mobilenet_v2", "image_size": 65, "batch_size": 8},
    "acl": {"image_size": 40},
}


@pytest.fixture(scope="module", params=KINDS)
def unpacked(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    small_run: Any,
    finish_run: Callable[..., None],
    bundle_environment: dict[str, str],
) -> Path:
    """Train, package by the command, unpack elsewhere and use what is there."""
    kind: str = request.param
    folder = tmp_path_factory.mktemp(kind)
    overrides = {
        **small_run.overrides,
        "source#sets": ["clusters", "fibres"],
        "output_dir": folder / "run",
        **KINDS[kind],
    }
    finish_run(overrides, ["configs/train.json", *(["configs/methods/acl.yaml"] if kind == "acl" else [])])
    start = [sys.executable, "-m", "scripts.commands.package"]
    packed = subprocess.run(
        [*start, str(folder / "run"), str(folder / f"{kind}.zip")],
        cwd=ROOT / "bundle",
        env=bundle_environment,
        capture_output=True,
        text=True,
    )
    assert packed.returncode == 0, packed.stderr
    assert f"{kind}.zip: the bundle with the model of" in packed.stdout
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(folder / f"{kind}.zip") as archive:
        archive.extractall(elsewhere)
    images = small_run.dataset / "Pathology16" / "clusters" / "test"
    given = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
    used = subprocess.run(
        [sys.executable, "-c", USE, str(elsewhere / kind), str(images), str(folder / "run"), json.dumps(given)],
        cwd=elsewhere,
        env=bundle_environment,
        capture_output=True,
        text=True,
    )
    assert used.returncode == 0, used.stdout + used.stderr
    return elsewhere / kind


def test_it_classifies(unpacked: Path) -> None:
    with open(unpacked / "eval" / "predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[2:-1] == ["clusters/nests", "clusters/rings", "fibres/parallel", "fibres/tangled"]
    assert len(rows) == 8
    assert all(sum(float(cell) for cell in row[2:-1]) == pytest.approx(1, abs=1e-5) for row in rows)


def test_its_metadata_is_valid_and_that_of_its_network(unpacked: Path) -> None:
    metadata = json.loads((unpacked / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    description = json.loads((unpacked / "models" / "network.json").read_text())
    tensors = metadata["network_data_format"]
    assert tensors["inputs"]["image"]["spatial_shape"] == [description["image_size"]] * 2
    assert tensors["outputs"]["pred"]["num_channels"] == 4
    assert 0 <= metadata["eval_metrics"]["final_accuracy"] <= 1


def test_its_torchscript_says_what_the_network_says(unpacked: Path) -> None:
    network = load_classifier(unpacked / "models")
    exported = torch.jit.load(unpacked / "models" / "model.ts").eval()
    images = torch.rand(3, 3, 65, 65)
    with torch.no_grad():
        assert exported(images).allclose(network(images), atol=1e-5)
        loaded = torch.load(unpacked / "loaded.pt", weights_only=True)["loaded"]
        assert loaded.allclose(network(torch.ones(1, 3, 65, 65)), atol=1e-5)


def test_its_torchscript_is_used_without_the_bundle(unpacked: Path, small_run: Any, tmp_path: Path) -> None:
    """The config inside the exported file prepares an image and turns the output into probabilities by MONAI alone."""
    exported, _, extra = load_net_with_metadata(
        str(unpacked / "models" / "model.ts"), more_extra_files=["inference.json"]
    )
    config = json.loads(extra["inference.json"])
    parts = {key: config[key] for key in ("image_size", "mean", "std", "preprocessing", "inferer", "postprocessing")}
    assert "scripts." not in json.dumps(parts)
    parser = ConfigParser(parts)
    prepare, inferer, finish = (
        parser.get_parsed_content(key) for key in ("preprocessing", "inferer", "postprocessing")
    )
    name = "nests/0000.png"
    image = prepare({"image": str(small_run.dataset / "Pathology16" / "clusters" / "test" / name)})["image"]
    with torch.no_grad():
        output = inferer(torch.as_tensor(image)[None], exported.eval())
    temperature = json.loads((unpacked / "models" / "network.json").read_text())["temperature"]
    probabilities = finish({"pred": output[0] / temperature})["pred"]
    with open(unpacked / "eval" / "predictions.csv", newline="") as file:
        row = next(row for row in csv.reader(file) if row[0] == name)
    assert torch.as_tensor(probabilities).tolist() == pytest.approx([float(cell) for cell in row[2:-1]], abs=1e-5)
