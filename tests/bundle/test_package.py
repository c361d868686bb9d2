"""A packaged run, unpacked elsewhere, is a whole MONAI bundle: it infers, verifies, exports and loads there."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import load_net_with_metadata

from scripts.model.folder import TrainedModel

Python = Callable[..., Any]
SCHEMA = Path(__file__).with_name("metadata_schema.json")

# Run in the folder that holds the unpacked one, by its name: all of it with the code and the configs that were packed.
USE = """
import json
import sys
import monai.bundle as bundle
import torch
folder, images, run, overrides = sys.argv[1:]
sys.path.insert(0, folder)
files = ("inference", "torchscript", "metadata")
inference, torchscript, metadata = (f"{folder}/configs/{name}.json" for name in files)
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
bundle.ckpt_export("network_def", filepath=f"{folder}/models/model.ts", config_file=torchscript, bundle_root=folder)
parent, _, name = folder.rpartition("/")
network = bundle.load(name=name, bundle_dir=parent, workflow_type="inference", device="cpu")
torch.save({"loaded": network.eval()(torch.ones(1, 3, 65, 65))}, f"{folder}/loaded.pt")
"""
KINDS: dict[str, dict[str, Any]] = {
    "mobilenet": {"backbone": "mobilenet_v2", "image_size": 65, "batch_size": 8},
    "acl": {"image_size": 40},
}


@pytest.fixture(scope="module", params=["mobilenet", pytest.param("acl", marks=pytest.mark.slow)])
def unpacked(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    small_run: Any,
    finish_run: Callable[..., None],
    python: Python,
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
    packed = python(["-m", "scripts.commands", "package", folder / "run", folder / f"{kind}.zip"])
    assert packed.returncode == 0, packed.stderr
    assert f"{kind}.zip: the bundle with the model of" in packed.stdout
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(folder / f"{kind}.zip") as archive:
        archive.extractall(elsewhere)
    images = small_run.dataset / "Pathology16" / "clusters" / "test"
    given = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
    used = python(["-c", USE, elsewhere / kind, images, folder / "run", json.dumps(given)], elsewhere)
    assert used.returncode == 0, used.stdout + used.stderr
    return elsewhere / kind


def test_it_classifies(unpacked: Path) -> None:
    with open(unpacked.parent / "eval" / "predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[3:-1] == ["clusters/nests", "clusters/rings", "fibres/parallel", "fibres/tangled"]
    assert len(rows) == 8
    assert all(sum(float(cell) for cell in row[3:-1]) == pytest.approx(1, abs=1e-5) for row in rows)


def test_its_metadata_is_valid_and_that_of_its_network(unpacked: Path) -> None:
    metadata = json.loads((unpacked / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    description = json.loads((unpacked / "models" / "network.json").read_text())
    tensors = metadata["network_data_format"]
    assert tensors["inputs"]["image"]["spatial_shape"] == [description["image"]["size"]] * 2
    assert tensors["outputs"]["pred"]["num_channels"] == 4
    assert 0 <= metadata["eval_metrics"]["final_accuracy"] <= 1


def test_its_torchscript_says_what_the_network_says(unpacked: Path) -> None:
    network = TrainedModel.open(unpacked / "models").network
    exported = torch.jit.load(unpacked / "models" / "model.ts").eval()
    images = torch.rand(3, 3, 65, 65)
    with torch.no_grad():
        assert exported(images).allclose(network(images), atol=1e-5)
        loaded = torch.load(unpacked / "loaded.pt", weights_only=True)["loaded"]
        assert loaded.allclose(network(torch.ones(1, 3, 65, 65)), atol=1e-5)


def test_its_torchscript_is_used_without_the_bundle(unpacked: Path, small_run: Any, tmp_path: Path) -> None:
    """The config inside the exported file prepares an image and turns the output into probabilities by MONAI alone."""
    exported, _, extra = load_net_with_metadata(
        str(unpacked / "models" / "model.ts"), more_extra_files=["torchscript.json"]
    )
    config = json.loads(extra["torchscript.json"])
    parts = {key: config[key] for key in ("preprocessing", "inferer", "postprocessing")}
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
    with open(unpacked.parent / "eval" / "predictions.csv", newline="") as file:
        row = next(row for row in csv.reader(file) if row[0] == name)
    assert torch.as_tensor(probabilities).tolist() == pytest.approx([float(cell) for cell in row[3:-1]], abs=1e-5)


@pytest.fixture(scope="module")
def deployed(small_run: Any, python: Python, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked zip of a run, for deployment alone."""
    folder = tmp_path_factory.mktemp("deployment")
    packed = python(["-m", "scripts.commands", "package", small_run.output, folder / "deployed.zip", "--deploy"])
    assert packed.returncode == 0, packed.stderr
    with zipfile.ZipFile(folder / "deployed.zip") as archive:
        archive.extractall(folder)
    return folder / "deployed"


def test_a_zip_for_deployment_classifies(deployed: Path, small_run: Any, python: Python) -> None:
    images = small_run.dataset / "Pathology16" / "clusters" / "test"
    assert not (deployed / "scripts" / "learning").exists()
    run = ["monai.bundle", "run", "--config_file", "configs/inference.json", "--dataset_dir", str(images)]
    for command in (run, ["scripts.commands", "classify", "models", str(images), "--output", str(deployed / "said")]):
        done = python(["-m", *command], deployed)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (deployed / "eval" / "predictions.csv").read_bytes() == (deployed / "said" / "predictions.csv").read_bytes()


LEARN = """
from scripts.deploy.service import ImageStore, Trainings
from scripts.deploy.service.problems import Problem
from scripts.deploy.versions import VersionStore
try:
    Trainings("trainings", ImageStore("images"), VersionStore("store"), None, {}, {}).start({}, "Zoe")
except Problem as problem:
    print(problem)
"""


def test_a_zip_for_deployment_says_that_it_learns_nothing(deployed: Path, small_run: Any, python: Python) -> None:
    learnt = python(["-c", LEARN], deployed)
    assert learnt.stdout == "this bundle was packaged for deployment alone: learn where the whole one is\n", (
        learnt.stderr
    )
    store = ["-m", "scripts.commands", "versions", "store", "add", str(small_run.output)]
    added = python(store, deployed)
    assert added.returncode == 1
    assert added.stderr.splitlines()[-1].startswith("Error: this bundle was packaged for deployment alone")
