"""The reservoir: a uniform sample of a stream, which forgets, is saved and is copied as any exemplar memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from scripts.learning.memory import ReservoirMemory
from scripts.learning.sources import Item


@pytest.fixture
def items(tmp_path: Path, tiny: SimpleNamespace) -> list[Item]:
    """Four images of each of three classes."""
    return [item for label in range(3) for item in tiny.items(tmp_path / "images", label, 4)]


@pytest.fixture
def logits() -> Tensor:
    """Logits of twelve images, each with its number first."""
    return torch.cat([torch.arange(12.0)[:, None], torch.rand(12, 2)], 1)


@pytest.fixture(params=["paths", "copies"])
def memory(request: pytest.FixtureRequest, items: list[Item], logits: Tensor, tmp_path: Path) -> ReservoirMemory:
    """Eight of the twelve images."""
    torch.manual_seed(0)
    memory = ReservoirMemory(8, exemplars=request.param, folder=str(tmp_path / "copies"))
    memory.offer(items, logits)
    memory.settle()
    return memory


def contents(memory: ReservoirMemory) -> list[tuple[bytes, int, list[float]]]:
    """What is kept, wherever its image is."""
    return [(Path(i["image"]).read_bytes(), i["label"], i["logits"].tolist()) for i in memory.items()]


@pytest.mark.parametrize(("size", "stream"), [(1, 6), (3, 10), (5, 7)])
def test_every_image_of_a_stream_is_kept_with_the_same_probability(size: int, stream: int) -> None:
    torch.manual_seed(0)
    counts = [0] * stream
    images = [{"image": str(number), "label": number % 3} for number in range(stream)]
    for _ in range(600):
        memory = ReservoirMemory(size)
        memory.offer(images[:4], torch.zeros(4, 2))  # in steps, of which one fills the memory
        memory.offer(images[4:], torch.zeros(stream - 4, 2))
        kept = [int(item["image"]) for item in memory.items()]
        assert len(kept) == len(set(kept)) == size
        for number in kept:
            counts[number] += 1
    assert chisquare(counts).pvalue > 0.01


def test_a_draw_is_uniform_and_without_repetition(memory: ReservoirMemory) -> None:
    counts = dict.fromkeys((float(item["logits"][0]) for item in memory.items()), 0)
    for _ in range(500):
        drawn = [float(item["logits"][0]) for item in memory.draw(3)]
        assert len(set(drawn)) == 3
        for number in drawn:
            counts[number] += 1
    assert chisquare(list(counts.values())).pvalue > 0.01
    assert len(memory.draw(99)) == 8


def test_an_image_stays_with_its_label_and_its_logits(
    memory: ReservoirMemory, items: list[Item], logits: Tensor
) -> None:
    for image, label, said in contents(memory):
        number = int(said[0])
        assert (image, label) == (Path(items[number]["image"]).read_bytes(), items[number]["label"])
        assert said == logits[number].tolist()


def test_logits_are_kept_without_the_batch_they_were_part_of(memory: ReservoirMemory) -> None:
    assert {item["logits"].untyped_storage().nbytes() for item in memory.items()} == {12}


def test_a_restored_memory_goes_on_as_the_saved_one(
    memory: ReservoirMemory, items: list[Item], logits: Tensor, tmp_path: Path
) -> None:
    torch.save(memory.state_dict(), tmp_path / "state.pt")
    state: dict[str, Any] = torch.load(tmp_path / "state.pt", weights_only=True)
    restored = ReservoirMemory(8, folder=str(tmp_path / "own"))
    restored.load_state_dict(state)
    for one in (memory, restored):
        torch.manual_seed(1)
        one.offer(items * 3, logits.repeat(3, 2))
    assert restored.seen == memory.seen == 48
    assert contents(restored) == contents(memory)
    assert any(len(said) == 6 for _, _, said in contents(memory)), "some were taken up"


def test_copies_are_made_once_settled_and_images_no_longer_kept_are_swept(
    items: list[Item], logits: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    memory = ReservoirMemory(4, exemplars="copies", folder=str(tmp_path / "copies"))
    for _ in range(3):
        memory.offer(items, logits)
        assert not (tmp_path / "copies").exists() or len(list((tmp_path / "copies").iterdir())) <= 4
        memory.settle()
        memory.sweep()
        files = {str(path) for path in (tmp_path / "copies").iterdir()}
        assert {item["image"] for item in memory.items()} == files


def test_forgetting_drops_every_exemplar_of_an_image(memory: ReservoirMemory, items: list[Item]) -> None:
    kept = [item["logits"][0].item() for item in memory.items()]
    image = items[int(kept[0])]["image"]
    memory.classes[memory.items()[0]["label"]].append(memory.items()[0])
    assert memory.forget([image]) == 2
    assert [item["logits"][0].item() for item in memory.items()] == kept[1:]


def test_bytes_count_an_image_once_and_its_logits_each_time(items: list[Item], logits: Tensor, tmp_path: Path) -> None:
    memory = ReservoirMemory(2)
    memory.offer([items[0], items[0]], logits[:2])
    assert memory.kept_bytes() == Path(items[0]["image"]).stat().st_size + 2 * 3 * 4
