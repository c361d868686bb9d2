"""What the memory keeps: quotas, order, copies apart from everything else, and what it can forget."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from scripts.imaging.transforms import read_volume
from scripts.learning.memory import CopyStore, ExemplarMemory, select
from scripts.learning.sources import Item
from scripts.utils.errors import UserError


@pytest.fixture
def items(tmp_path: Path, tiny: SimpleNamespace) -> list[Item]:
    """Six images of each of classes 0 to 2, class by class."""
    return [item for label in range(3) for item in tiny.items(tmp_path / "data", label, 6)]


@pytest.fixture
def features() -> Tensor:
    return torch.randn(18, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def copies(tmp_path: Path, items: list[Item], features: Tensor) -> ExemplarMemory:
    """A memory that holds copies of two images a class."""
    memory = ExemplarMemory(6, exemplars="copies", folder=str(tmp_path / "copies"))
    memory.add(items, features, 2)
    return memory


@pytest.fixture
def npz(tmp_path: Path) -> str:
    """The reference of an image in an npz file."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)
    path = tmp_path / "some.npz"
    np.savez(path, train_images=pixels, train_labels=np.zeros((4, 1), np.uint8))
    return f"{path}#train/2"


def test_the_quota_is_a_share_of_the_size_or_fixed() -> None:
    memory = ExemplarMemory(40)
    assert [memory.quota(seen) for seen in (0, 1, 3, 8, 40, 41)] == [40, 40, 13, 5, 1, 0]
    assert [ExemplarMemory(40, per_class=7).quota(seen) for seen in (1, 9, 100)] == [7, 7, 7]
    assert [ExemplarMemory(0).empty, ExemplarMemory(5, per_class=0).empty, ExemplarMemory(1).empty] == [
        True,
        True,
        False,
    ]


def test_each_class_keeps_its_own_selection_in_order(items: list[Item], features: Tensor) -> None:
    shuffled = torch.randperm(18, generator=torch.Generator().manual_seed(0)).tolist()
    memory = ExemplarMemory(9)
    memory.add([items[index] for index in shuffled], features[shuffled], 3)
    for label in range(3):
        positions = [index for index in shuffled if items[index]["label"] == label]
        chosen = select("herding", features[positions], 3)
        assert memory.classes[label] == [items[positions[index]] for index in chosen]


def test_reducing_keeps_the_first_of_every_class(items: list[Item], features: Tensor) -> None:
    memory = ExemplarMemory(18)
    memory.add(items, features, 6)
    before = {label: list(kept) for label, kept in memory.classes.items()}
    for count in (4, 1, 0):
        memory.reduce(count)
        assert memory.classes == {label: kept[:count] for label, kept in before.items()}


def test_the_memory_holds_equally_many_a_class_within_its_size(tmp_path: Path, tiny: SimpleNamespace) -> None:
    memory, seen = ExemplarMemory(20), 0
    for classes in (2, 3, 1):
        new = [item for label in range(seen, seen + classes) for item in tiny.items(tmp_path, label, 11)]
        memory.add(new, torch.randn(len(new), 4), memory.quota(seen or classes))
        if seen:  # the balanced set: old classes as the last task left them, new ones cut down to the same number
            assert Counter(item["label"] for item in memory.items()) == dict.fromkeys(range(seen + classes), 20 // seen)
        seen += classes
        memory.reduce(memory.quota(seen))
        assert Counter(item["label"] for item in memory.items()) == dict.fromkeys(range(seen), min(20 // seen, 11))
        assert len(memory.items()) <= 20


@pytest.mark.parametrize("size", [1, 7])
def test_a_memory_of_less_than_one_a_class_is_refused_with_the_smallest_that_works(size: int) -> None:
    with pytest.raises(UserError, match=rf"memory_size {size} is less than one image .* 8 classes: .* at least 8"):
        ExemplarMemory(size).check(8)
    for good in (ExemplarMemory(0), ExemplarMemory(8), ExemplarMemory(size, per_class=1)):
        good.check(8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": -1}, "a memory of -1 images: use 0 or more"),
        ({"size": 5, "per_class": -2}, "a memory of -2 images"),
        ({"size": 5, "selection": "best"}, "unknown selection 'best'"),
        ({"size": 5, "exemplars": "both"}, "unknown way to keep exemplars 'both': choose paths or copies"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ExemplarMemory(**arguments)  # type: ignore[arg-type]


def test_paths_leave_the_disk_alone(items: list[Item], features: Tensor, tmp_path: Path) -> None:
    memory = ExemplarMemory(6, folder=str(tmp_path / "copies"))
    memory.add(items, features, 2)
    memory.sweep()
    assert not (tmp_path / "copies").exists()
    assert all(item in items for item in memory.items())
    assert all(Path(item["image"]).is_file() for item in items)


def test_copies_are_byte_equal_and_private(copies: ExemplarMemory, items: list[Item], tmp_path: Path) -> None:
    originals = {Path(item["image"]).read_bytes(): item["label"] for item in items}
    assert len(originals) == 18
    for item in copies.items():
        path = Path(item["image"])
        assert path.parent == tmp_path / "copies"
        assert originals[path.read_bytes()] == item["label"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert item.keys() == {"image", "label"}
    assert stat.S_IMODE((tmp_path / "copies").stat().st_mode) == 0o700
    assert len(os.listdir(tmp_path / "copies")) == 6


def test_copies_outlive_their_originals(copies: ExemplarMemory, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data")
    again = ExemplarMemory(6, exemplars="copies", folder=str(tmp_path / "copies"))
    again.load_state_dict(copies.state_dict())
    assert again.classes == copies.classes
    assert again.kept_bytes() == sum(Path(item["image"]).stat().st_size for item in copies.items()) > 0


def test_an_npz_entry_is_copied_as_a_lossless_png(npz: str, tmp_path: Path) -> None:
    kept = CopyStore(str(tmp_path / "copies")).keep({"image": npz, "label": 4})
    assert Path(kept["image"]).suffix == ".png"
    assert kept["label"] == 4
    with Image.open(kept["image"]) as image:
        assert np.array_equal(np.asarray(image), np.load(npz.split("#")[0])["train_images"][2])
    assert stat.S_IMODE(Path(kept["image"]).stat().st_mode) == 0o600


def test_a_volume_is_copied_as_an_npy_file_and_forgotten_by_its_reference(tmp_path: Path) -> None:
    volumes = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 7), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", train_images=volumes)
    reference = f"{tmp_path}/some.npz#train/2"
    memory = ExemplarMemory(4, exemplars="copies", folder=str(tmp_path / "copies"))
    memory.add([{"image": reference, "label": 0}], torch.ones(1, 2), 1)
    (kept,) = memory.items()
    assert np.array_equal(read_volume(kept["image"]), volumes[2])
    assert memory.kept_bytes() == Path(kept["image"]).stat().st_size
    assert CopyStore(str(tmp_path / "copies")).keep(kept)["image"] == kept["image"], "a copy of a copy is the same file"
    paths = ExemplarMemory(4)
    paths.add([{"image": reference, "label": 0}], torch.ones(1, 2), 1)
    assert paths.kept_bytes() == volumes[2].nbytes
    assert memory.forget([reference]) == paths.forget([reference]) == 1


def test_sweeping_removes_only_what_is_not_kept(copies: ExemplarMemory, tmp_path: Path) -> None:
    copies.sweep()
    assert len(os.listdir(tmp_path / "copies")) == 6
    copies.reduce(1)
    assert len(os.listdir(tmp_path / "copies")) == 6, "only once a checkpoint says so"
    copies.sweep()
    assert {str(path) for path in (tmp_path / "copies").iterdir()} == {item["image"] for item in copies.items()}
    assert len(copies.items()) == 3


def test_sweeping_before_anything_was_kept_is_harmless(tmp_path: Path) -> None:
    CopyStore(str(tmp_path / "none")).sweep([])
    assert not (tmp_path / "none").exists()


def test_forgetting_goes_by_content(copies: ExemplarMemory, items: list[Item], tmp_path: Path) -> None:
    target = copies.classes[1][0]
    content = Path(target["image"]).read_bytes()
    renamed = tmp_path / "renamed.png"
    renamed.write_bytes(content)
    others = [item for item in copies.items() if item != target]
    assert copies.forget([str(renamed)]) == 1
    assert copies.items() == others
    copies.sweep()
    assert not Path(target["image"]).exists()
    assert copies.forget([str(renamed)]) == 0
    stranger = tmp_path / "stranger.png"
    stranger.write_bytes(b"none of them")
    assert copies.forget([str(stranger)]) == 0


def test_the_copy_of_an_npz_entry_is_forgotten_by_its_reference(npz: str, tmp_path: Path) -> None:
    memory = ExemplarMemory(4, exemplars="copies", folder=str(tmp_path / "copies"))
    memory.add([{"image": npz, "label": 0}], torch.ones(1, 2), 1)
    assert memory.forget([npz]) == 1
    assert memory.items() == []


@pytest.mark.parametrize("exemplars", ["paths", "copies"])
def test_a_missing_exemplar_is_named_when_the_memory_is_loaded(
    exemplars: str, items: list[Item], features: Tensor, tmp_path: Path
) -> None:
    memory = ExemplarMemory(6, exemplars=exemplars, folder=str(tmp_path / "copies"))
    memory.add(items, features, 2)
    gone = memory.classes[2][1]["image"]
    Path(gone).unlink()
    with pytest.raises(UserError, match=f"the exemplar {gone} is gone"):
        ExemplarMemory(6, exemplars=exemplars, folder=str(tmp_path / "other")).load_state_dict(memory.state_dict())


def test_a_missing_npz_file_is_named_when_the_memory_is_loaded(npz: str) -> None:
    memory = ExemplarMemory(4)
    memory.add([{"image": npz, "label": 0}], torch.ones(1, 2), 1)
    ExemplarMemory(4).load_state_dict(memory.state_dict())
    Path(npz.split("#")[0]).unlink()
    with pytest.raises(UserError, match="the exemplar .*some.npz#train/2 is gone"):
        ExemplarMemory(4).load_state_dict(memory.state_dict())


def test_a_memory_taken_over_is_copied_into_the_own_folder(copies: ExemplarMemory, tmp_path: Path) -> None:
    later = ExemplarMemory(6, exemplars="copies", folder=str(tmp_path / "later"))
    later.load_state_dict(copies.state_dict())
    shutil.rmtree(tmp_path / "copies")
    assert [Path(item["image"]).parent for item in later.items()] == [tmp_path / "later"] * 6
    assert all(Path(item["image"]).is_file() for item in later.items())
    assert {label: len(kept) for label, kept in later.classes.items()} == {0: 2, 1: 2, 2: 2}


def test_copies_are_found_where_their_folder_was_moved(copies: ExemplarMemory, tmp_path: Path) -> None:
    state = copies.state_dict()
    (tmp_path / "moved").mkdir()
    Path(copies.items()[0]["image"]).parent.rename(tmp_path / "moved" / "exemplars")
    memory = ExemplarMemory(8, exemplars="copies", folder=str(tmp_path / "own"), previous=str(tmp_path / "moved"))
    memory.load_state_dict(state)
    assert [Path(item["image"]).parent for item in memory.items()] == [tmp_path / "own"] * len(memory.items())
    assert [item["label"] for item in memory.items()] == [item["label"] for item in copies.items()]


def test_the_state_holds_references_and_no_pixels(copies: ExemplarMemory) -> None:
    state = copies.state_dict()
    assert state == {"classes": {label: [item["image"] for item in kept] for label, kept in copies.classes.items()}}


def test_bytes_are_those_of_the_files_or_of_an_npz_entrys_pixels(npz: str, items: list[Item]) -> None:
    memory = ExemplarMemory(4)
    memory.add([items[0], {"image": npz, "label": 1}], torch.ones(2, 2), 1)
    assert memory.kept_bytes() == Path(items[0]["image"]).stat().st_size + 28 * 28 * 3
