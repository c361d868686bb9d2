"""CIFAR-10 and CIFAR-100, on batches written as the originals are."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from scripts.imaging.transforms import read_rgb
from scripts.learning.sources import Cifar
from scripts.utils.errors import UserError


def _batch(folder: Path, name: str, labels: list[int], key: str) -> str:
    rng = np.random.default_rng(len(labels))
    content = {"data": rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8), key: labels}
    (folder / name).write_bytes(pickle.dumps(content))
    return hashlib.md5((folder / name).read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both CIFARs as their archives unpack, with the checksums of these files."""
    for source, key, files in (
        (CIFAR10, "labels", [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]),
        (CIFAR100, "fine_labels", ["train", "test"]),
    ):
        classes = 10 if source is CIFAR10 else 100
        folder = tmp_path / source.base_folder
        folder.mkdir()
        sums = [[name, _batch(folder, name, list(range(classes)) * 2, key)] for name in files]
        meta = source.meta["filename"]
        (folder / meta).write_bytes(pickle.dumps({source.meta["key"]: [f"name{n:03d}" for n in range(classes)]}))
        monkeypatch.setattr(source, "train_list", sums[:-1])
        monkeypatch.setattr(source, "test_list", sums[-1:])
        digest = hashlib.md5((folder / meta).read_bytes()).hexdigest()
        monkeypatch.setattr(source, "meta", {**source.meta, "md5": digest})
    return tmp_path


@pytest.mark.parametrize(("classes", "each"), [(10, 10), (100, 2)])
def test_cifar_is_read_once_and_then_from_an_npz_file(cifar: Path, classes: int, each: int) -> None:
    (group,) = Cifar(str(cifar), classes).groups()
    assert group.classes == tuple(f"name{number:03d}" for number in range(classes))
    assert {len(items) for items in group.train.values()} == {each}
    source = CIFAR10 if classes == 10 else CIFAR100
    wanted = source(str(cifar), train=False)
    for index in (0, classes - 1, classes):
        image = read_rgb(f"{cifar}/cifar{classes}.npz#test/{index}")
        assert np.array_equal(image, np.asarray(wanted[index][0]))
        assert {"image": f"{cifar}/cifar{classes}.npz#test/{index}"} in group.test[group.classes[index % classes]]
    for path in (cifar / source.base_folder).iterdir():
        path.unlink()
    assert Cifar(str(cifar), classes).groups() == [group]


def test_a_cifar_archive_is_unpacked_without_a_network(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(cifar / CIFAR100.filename, "w:gz") as archive:
        archive.add(cifar / CIFAR100.base_folder, CIFAR100.base_folder)
    for path in (cifar / CIFAR100.base_folder).iterdir():
        path.unlink()
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5((cifar / CIFAR100.filename).read_bytes()).hexdigest())
    assert len(Cifar(str(cifar), 100).groups()[0].classes) == 100


def test_a_missing_cifar_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"https://.*cifar-100-python.tar.gz .*MD5 .* to {tmp_path}/cifar-100"):
        Cifar(str(tmp_path), 100).groups()


def test_a_changed_cifar_file_is_refused(cifar: Path) -> None:
    (cifar / "cifar-100-python/train").write_bytes(b"another")
    with pytest.raises(UserError, match="cifar-100-python.tar.gz is not to be had .*corrupted"):
        Cifar(str(cifar), 100).groups()


def test_there_is_no_cifar_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CIFAR of 20 classes: choose 10 or 100"):
        Cifar(str(tmp_path), 20)
