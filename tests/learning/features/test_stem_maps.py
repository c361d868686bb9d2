"""Trained on the maps before the first adapter instead of images, adapters end as they would have ended."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from scripts.learning.engines import ContinualTrainer
from scripts.learning.features import FeatureExtractor, StemMapDataset, StemMaps
from scripts.learning.handlers import AdapterAveragingHandler, AdapterTuningHandler, MemoryHandler
from scripts.learning.memory import ExemplarMemory
from scripts.learning.tasks import ImageCache, ImageDataset, Task
from scripts.model.networks import ContinualNet, Convolutions, LowRank, Merging
from scripts.model.networks.adapters import Adapter
from scripts.utils.errors import UserError

EPOCHS = 5
CACHE = ImageCache(2**25)
VIEWS = ((), (2,), (3,), (2, 3))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> list[Task]:
    return tiny.tasks(tmp_path_factory.mktemp("stem_maps"))


def augmentation(tiny: SimpleNamespace, more: Sequence[Any] = ()) -> Compose:
    both = [RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in (0, 1)]
    return Compose([*tiny.transform().transforms, *both, *more])


def extractor(tiny: SimpleNamespace, network: Any) -> FeatureExtractor:
    return FeatureExtractor(network, tiny.transform(), 4, CACHE)


def trained(tiny: SimpleNamespace, tasks: Sequence[Task], cached: bool, adapter: Adapter) -> SimpleNamespace:
    """DynaMMo, whose adapters are tuned on images, or on maps."""
    network, memory = tiny.network(seed=2, adapter=adapter), ExemplarMemory(8)
    features = extractor(tiny, network)
    maps = StemMaps(features, least_share=0.0) if cached else None
    parts = {"data": "task_and_memory", "trains": ["adapter", "auxiliary"]}
    _, tuning, _ = tiny.stages(epochs=1)
    stage = tiny.stage("adapter_tuning", epochs=EPOCHS, loss=tuning.loss, stem_maps=maps, **parts)
    handlers = [
        AdapterTuningHandler(network),
        AdapterAveragingHandler(network, Merging()),
        MemoryHandler(memory, network, features),
    ]
    trainer = tiny.trainer(network, tasks, [stage], handlers, memory)
    trainer.dataset = ImageDataset([], augmentation(tiny), CACHE)
    found = SimpleNamespace(network=network, losses=[], order=[], passes=0)

    def keep(engine: ContinualTrainer) -> None:
        batch: Any = engine.state.batch
        found.losses.append(engine.state.output["loss"].item())
        found.order.append(batch["index"].tolist())

    def count(module: Any, inputs: Any, output: Any) -> None:
        found.passes += len(inputs[0])

    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep)
    with network.backbone.stem.register_forward_hook(count):
        trainer.run()
    return found


@pytest.fixture(scope="module", params=[Convolutions(), LowRank()], ids=["conv", "lora"])
def both(request: pytest.FixtureRequest, tasks: list[Task], tiny: SimpleNamespace) -> tuple[SimpleNamespace, ...]:
    """The same run on images and on maps."""
    return tuple(trained(tiny, tasks, cached, request.param) for cached in (False, True))


def test_losses_and_weights_are_those_of_the_images(both: tuple[SimpleNamespace, ...]) -> None:
    plain, cached = both
    assert cached.order == plain.order
    assert cached.losses == pytest.approx(plain.losses, abs=1e-5)
    for key, value in plain.network.state_dict().items():
        torch.testing.assert_close(cached.network.state_dict()[key], value, atol=1e-5, rtol=1e-4)


def test_each_view_passes_the_stem_once_a_task(both: tuple[SimpleNamespace, ...]) -> None:
    plain, cached = both
    # two tasks of 12 images, 8 exemplars beside the second; herding looks at each task's images once; the share of
    # the FLOPs is counted on one image, twice a task
    assert plain.passes == EPOCHS * (12 + 20) + 2 * 12
    assert cached.passes == len(VIEWS) * (12 + 20) + 2 * 12 + 2 * 2


def test_maps_on_disk_are_those_in_memory(tasks: list[Task], tiny: SimpleNamespace) -> None:
    features = extractor(tiny, tiny.network())
    in_memory = StemMaps(features).maps(tasks[0].train, VIEWS)
    on_disk = StemMaps(features, max_bytes=0).maps(tasks[0].train, VIEWS)
    assert in_memory.shape[:2] == (12, 4)
    assert torch.equal(on_disk, in_memory)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_grow_is_named(tasks: list[Task], tiny: SimpleNamespace) -> None:
    maps = StemMaps(extractor(tiny, tiny.network()), max_bytes=0)
    with files_of_at_most(1000), pytest.raises(UserError, match="cannot write"):
        maps.maps(tasks[0].train, VIEWS)


def test_images_pass_where_maps_save_nothing(tasks: list[Task], tiny: SimpleNamespace) -> None:
    images = ImageDataset(tasks[0].train, augmentation(tiny), CACHE)
    maps = StemMaps(extractor(tiny, tiny.network()), least_share=0.0)
    assert maps.of(images, epochs=len(VIEWS)) is images
    assert isinstance(maps.of(images, epochs=len(VIEWS) + 1), StemMapDataset)
    endless = ImageDataset(tasks[0].train, augmentation(tiny, [RandGaussianNoised("image")]), CACHE)
    assert maps.of(endless, epochs=50) is endless
    assert tiny.stage(epochs=50, trains=["backbone", "head"], stem_maps=maps).seen(images) is images


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_published_sites_leave_little_before_them_and_late_ones_much(
    backbone: str, tasks: list[Task], tiny: SimpleNamespace
) -> None:
    def share(sites: list[str] | None) -> float:
        network = ContinualNet(backbone, sites=sites, adapter=None)
        network.grow(2)
        return StemMaps(extractor(tiny, network)).share(tasks[0].train[0])

    last = {"resnet18": ["layer4"], "mobilenet_v2": ["features.15"]}[backbone]
    assert 0 < share(None) < StemMaps(extractor(tiny, tiny.network())).least_share < share(last) < 1
