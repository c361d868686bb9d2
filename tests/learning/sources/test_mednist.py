"""MedNIST, from an archive that a server on this machine has."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from scripts.learning.sources import ensure_mednist, mednist
from scripts.utils.errors import UserError


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.fixture
def mednist_archive(web: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AbdomenCT", "Hand"):
        _image(tmp_path / "made/MedNIST" / name / "000000.jpeg")
    folder, address = web
    with tarfile.open(folder / "MedNIST.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made/MedNIST", "MedNIST")
    monkeypatch.setattr(mednist.MedNISTDataset, "resource", f"{address}/MedNIST.tar.gz")
    monkeypatch.setattr(
        mednist.MedNISTDataset, "md5", hashlib.md5((folder / "MedNIST.tar.gz").read_bytes()).hexdigest()
    )
    return folder / "MedNIST.tar.gz"


def test_mednist_is_downloaded_when_asked_for(mednist_archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert not Path(ensure_mednist(str(root))).exists()
    folder = Path(ensure_mednist(str(root), download=True))
    assert sorted(path.name for path in folder.iterdir()) == ["AbdomenCT", "Hand"]


def test_a_mednist_archive_that_is_there_is_unpacked(mednist_archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "MedNIST.tar.gz").write_bytes(mednist_archive.read_bytes())
    mednist_archive.unlink()
    assert (Path(ensure_mednist(str(root))) / "Hand/000000.jpeg").is_file()


def test_a_mednist_that_cannot_be_downloaded_is_named(mednist_archive: Path, tmp_path: Path) -> None:
    mednist_archive.write_bytes(b"another")
    with pytest.raises(UserError, match="MedNIST.tar.gz is not to be had .* to .*data/MedNIST.tar.gz"):
        ensure_mednist(str(tmp_path / "data"), download=True)
