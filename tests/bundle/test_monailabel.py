"""MONAI Label's stock app for bundles loads a packaged run and infers with it, over HTTP as its plugins do.

Its server runs in an environment of its own: it does not start with pydicom 3. What the two have in common, torch above
all, comes from the environment of the tests, and nothing is installed there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.package import package
from scripts.deploy.inference.loading import load_image_classifier

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
APP = Path("monailabel", "sample-apps", "monaibundle")
NAME = "dynammo_classification"  # what the app takes for a classifier has that word in its folder's name
PACKAGES = Path(__file__).with_name("monailabel.txt")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A virtual environment in which MONAI Label runs; 0.8 GB, and removed at the end."""
    if sys.version_info >= (3, 12):
        pytest.skip("MONAI Label 0.8.5 imports distutils, which Python 3.12 has no more")
    folder = tmp_path_factory.mktemp("monailabel")
    venv.create(folder, with_pip=False)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-cache-dir"]
    done = subprocess.run([*install, "--requirement", str(PACKAGES)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"MONAI Label cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(
    environment: Path, tmp_path_factory: pytest.TempPathFactory, small_run: Any, free_port: Callable[[], int]
) -> Iterator[str]:
    """The address of the stock server, with a packaged run among the models of the stock app."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copytree(environment / APP, folder / "app")
    package(small_run.output, folder / f"{NAME}.zip", BUNDLE)
    with zipfile.ZipFile(folder / f"{NAME}.zip") as archive:
        archive.extractall(folder / "app" / "model")
    shutil.copytree(small_run.dataset / "Pathology16" / "clusters" / "test" / "nests", folder / "images")
    settings = {"models": NAME, "skip_trainers": "true", "zoo_source": "local"}  # else it asks the model zoo
    options = [word for pair in settings.items() for word in ("--conf", *pair)]
    command = [str(environment / "bin" / "python"), "-m", "monailabel.main", "start_server", "--app", "app"]
    where = ["--studies", "images", "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*command, *where, *options], cwd=folder, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            try:
                ask(f"{address}/info/")
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


def ask(address: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(address, data) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_stock_app_lists_the_bundle_as_a_classifier(server: str, small_run: Any) -> None:
    model = ask(f"{server}/info/")["models"][NAME]
    classes = json.loads((small_run.output / "metrics.json").read_text())["classes"]
    assert model["type"] == "classification"
    assert model["labels"] == {name: number for number, name in enumerate(classes)}
    assert model["config"]["model_filename"] == ["model.pt"]


@pytest.mark.slow
def test_the_stock_app_says_what_the_bundle_says(server: str, small_run: Any) -> None:
    classifier = load_image_classifier(small_run.output)
    folder = small_run.dataset / "Pathology16" / "clusters" / "test" / "nests"
    for path in sorted(folder.iterdir()):
        answer = ask(f"{server}/infer/{NAME}?image={path.stem}&output=json", b"")
        scores = {entry["label"]: entry["score"] for entry in answer["prediction"]}
        expected = classifier.classify(str(path)).probabilities
        assert scores == pytest.approx(expected, abs=1e-5)
