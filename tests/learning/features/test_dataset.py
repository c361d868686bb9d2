"""Trained on features instead of images, a head sees what it would have seen, and ends as it would have ended."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from scripts.learning.engines import ContinualTrainer
from scripts.learning.features import FeatureDataset, FeatureExtractor, StageFeatures
from scripts.learning.handlers import (
    AdapterAveragingHandler,
    AdapterTuningHandler,
    MemoryHandler,
    SeparateAdaptersHandler,
)
from scripts.learning.losses import others_cross_entropy, seen_cross_entropy
from scripts.learning.memory import ExemplarMemory
from scripts.learning.tasks import ImageCache, ImageDataset, Task
from scripts.model.networks.merging import Merging

EPOCHS = 5
CACHE = ImageCache(2**25)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> list[Task]:
    return tiny.tasks(tmp_path_factory.mktemp("features"))


def augmentation(tiny: SimpleNamespace, more: Sequence[Any] = ()) -> Compose:
    both = [RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in (0, 1)]
    return Compose([*tiny.transform().transforms, *both, *more])


def extractor(tiny: SimpleNamespace, network: Any) -> FeatureExtractor:
    return FeatureExtractor(network, tiny.transform(), 4, CACHE)


def trained(tiny: SimpleNamespace, tasks: Sequence[Task], cached: bool, head: str) -> SimpleNamespace:
    """DynaMMo, or ACL with heads a task, whose last stage reads images, or features."""
    network, memory = tiny.network(head, seed=2), ExemplarMemory(8)
    features = extractor(tiny, network)
    _, tuning, _ = tiny.stages(epochs=1)
    last = tiny.stage(
        "balanced_finetuning",
        epochs=EPOCHS,
        data="balanced",
        tasks="later",
        loss=seen_cross_entropy if head == "unified" else others_cross_entropy,
        features=StageFeatures(features) if cached else None,
    )
    handlers = [
        AdapterTuningHandler(network),
        AdapterAveragingHandler(network, Merging()) if head == "unified" else SeparateAdaptersHandler(network),
        MemoryHandler(memory, network, features),
    ]
    trainer = tiny.trainer(network, tasks, [tuning, last], handlers, memory)
    trainer.dataset = ImageDataset([], augmentation(tiny), CACHE)
    found = SimpleNamespace(network=network, losses=[], order=[], seen=[], passes=0)

    def keep(engine: ContinualTrainer) -> None:
        if engine.current_stage is last:
            batch: Any = engine.state.batch
            found.losses.append(engine.state.output["loss"].item())
            found.order.append(batch["index"].tolist())
            found.seen.append(batch["image"])

    def count(module: Any, inputs: Any, output: Any) -> None:
        found.passes += len(inputs[0]) * (trainer.state.task == 2 and trainer.current_stage is last)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep)
    with network.backbone.stem.register_forward_hook(count):
        trainer.run()
    return found


@pytest.fixture(scope="module", params=["unified", "others"])
def both(request: pytest.FixtureRequest, tasks: list[Task], tiny: SimpleNamespace) -> tuple[SimpleNamespace, ...]:
    """The same run, its last stage on images and on features."""
    return tuple(trained(tiny, tasks, cached, request.param) for cached in (False, True))


def test_the_loss_curve_is_that_of_the_images(both: tuple[SimpleNamespace, ...]) -> None:
    plain, cached = both
    assert cached.order == plain.order
    assert len(plain.losses) == EPOCHS * 4
    assert cached.losses == pytest.approx(plain.losses, abs=1e-5)
    for key, value in plain.network.state_dict().items():
        torch.testing.assert_close(cached.network.state_dict()[key], value, atol=1e-5, rtol=1e-4)


def test_an_epoch_sees_the_views_that_it_would_have_seen(both: tuple[SimpleNamespace, ...]) -> None:
    plain, cached = both
    with torch.no_grad():
        direct = plain.network.eval().backbone(torch.cat(plain.seen[:8]))
    torch.testing.assert_close(torch.cat(cached.seen[:8]), direct, atol=1e-5, rtol=1e-4)


def test_each_view_of_an_image_passes_once(both: tuple[SimpleNamespace, ...]) -> None:
    plain, cached = both
    # herding sees the task's 12 images; then 4 exemplars of each of 4 classes: 4 views, of the newest one is known
    assert plain.passes == 12 + EPOCHS * 16
    assert cached.passes == 12 + 4 * 16 - 8


def test_fewer_epochs_than_views_read_images(tasks: list[Task], tiny: SimpleNamespace) -> None:
    images = ImageDataset(tasks[0].train, augmentation(tiny), CACHE)
    features = StageFeatures(extractor(tiny, tiny.network()))
    assert features.of(images, epochs=4) is images
    assert features.of(images, epochs=5)[0]["image"].shape == (1, 1280)


def test_augmentation_without_end_gives_as_many_views_as_asked_for(tasks: list[Task], tiny: SimpleNamespace) -> None:
    noise = augmentation(tiny, [RandGaussianNoised("image", prob=1.0, std=0.1)])
    images = ImageDataset(tasks[0].train, noise, CACHE)
    features = extractor(tiny, tiny.network())
    assert StageFeatures(features).of(images, epochs=50) is images
    noise.set_random_state(3)
    found = StageFeatures(features, 3).of(images, epochs=50)
    seen = [{str(found[index]["image"].tolist()) for _ in range(40)} for index in range(4)]
    assert [len(views) for views in seen] == [3, 3, 3, 3]
    noise.set_random_state(3)
    again = StageFeatures(features, 3).of(images, epochs=50)
    assert torch.equal(found.features, again.features)  # type: ignore[attr-defined]


def test_a_stage_that_trains_more_than_the_head_reads_images(tasks: list[Task], tiny: SimpleNamespace) -> None:
    images = ImageDataset(tasks[0].train, augmentation(tiny), CACHE)
    own: dict[str, Any] = {"epochs": 9, "features": StageFeatures(extractor(tiny, tiny.network()))}
    assert tiny.stage(**own, trains=["backbone", "head"]).seen(images) is images
    assert isinstance(tiny.stage(**own).seen(images), FeatureDataset)


def test_a_flip_of_unnamed_axes_is_not_taken_for_finite(tasks: list[Task], tiny: SimpleNamespace) -> None:
    images = ImageDataset(tasks[0].train, Compose([*tiny.transform().transforms, RandFlipd("image", prob=0.5)]))
    assert StageFeatures(extractor(tiny, tiny.network())).of(images, epochs=50) is images
