"""The wheel, installed from its file into an empty environment, is all that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    *("--source#train_per_class", "12", "--source#test_per_class", "4", "--source#val_per_class", "2"),
    *("--backbone_epochs", "1", "--adapter_epochs", "1", "--finetune_epochs", "1", "--memory_size", "16"),
)


@pytest.fixture(scope="module")
def dynammo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that holds the wheel, its dependencies at their pins, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)
    venv.create(folder / "venv", with_pip=True)
    (wheel,) = folder.glob("*.whl")
    install = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel)]
    subprocess.run([*install, "--constraint", str(ROOT / "constraints.txt")], check=True)
    return folder / "venv" / "bin" / "dynammo"


def run(dynammo: Path, folder: Path, *words: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(dynammo), *words], cwd=folder, env={**kept, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_it_trains_and_classifies_in_any_folder_and_writes_nowhere_else(dynammo: Path, tmp_path: Path) -> None:
    (package,) = dynammo.parent.parent.glob("lib/python*/site-packages/dynammo")
    assert not (package.parent / "scripts").exists()
    before = files_of(package)
    page = Path("bundle", "scripts", "deploy", "service", "page")
    own = {path.relative_to(ROOT) for path in files_of(ROOT / page)}
    assert own and own == {path.relative_to(package) for path in files_of(package / page)}
    said = run(dynammo, tmp_path, "train", *SMALL)
    name = "runs/generated-dynammo-resnet18-s1"
    assert f"Model: {name}/model.pt" in said
    assert "evaluate runs/" in said.splitlines()[-1]
    images = "data/generated/Pathology16/cells/test"
    assert "Classified 8 images, refused 0: eval" in run(dynammo, tmp_path, "classify", name, images)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "runs", "eval"}
    assert files_of(package) == before
    assert "torch and MONAI" in run(dynammo, tmp_path, "doctor")
