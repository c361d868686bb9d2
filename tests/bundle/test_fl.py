"""MONAI's client for federated learning loads the bundle, trains it in rounds and evaluates what came out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai.data
import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.utils import set_determinism

from scripts.federation.rounds import Update, average, for_client

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


@pytest.fixture
def clean_process() -> Iterator[None]:
    """Undo what the configs set for the whole process."""
    tracks = monai.data.get_track_meta()
    yield
    monai.data.set_track_meta(tracks)
    set_determinism(None)


@pytest.mark.usefixtures("clean_process")
def test_a_client_trains_and_evaluates(tmp_path: Path, small_run: Any) -> None:
    settings = {
        **small_run.overrides,
        "dataset_dir": str(small_run.dataset),
        "source#sets": ["clusters", "fibres"],
        "output_dir": str(tmp_path / "run"),
    }
    del settings["adapter_epochs"]  # the client sets the epochs
    client = MonaiAlgo(
        str(BUNDLE), local_epochs=2, send_weight_diff=False, train_kwargs=settings, config_evaluate_filename=None
    )
    client.initialize()
    start = {key: value.clone() for key, value in client.trainer.network.state_dict().items()}  # type: ignore[union-attr]
    client.train(ExchangeObject(weights=start))
    trained = client.get_weights()
    assert trained.weight_type == WeightType.WEIGHTS
    assert trained.weights["head.linear.weight"].shape[0] == 4
    # 24 images, 16 a step: two epochs of the client make 4 steps
    assert trained.weights["backbone.blocks.layer1.adapters.task0.layers.1.num_batches_tracked"] == 4
    client.finalize()

    evaluating = MonaiAlgo(
        str(BUNDLE), config_train_filename=None, eval_kwargs={**settings, "model": settings["output_dir"]}
    )
    evaluating.initialize()
    # the client must take the server's weights: with a head of zeros every image is of the first of 4 classes
    blank = {**trained.weights, "head.linear.weight": torch.zeros(4, 512), "head.linear.bias": torch.zeros(4)}
    assert evaluating.evaluate(ExchangeObject(weights=blank)).metrics["accuracy"] == 0.25
    own = evaluating.evaluate(ExchangeObject(weights=trained.weights)).metrics["accuracy"]
    matrix = (tmp_path / "run" / "accuracy_matrix.csv").read_text().splitlines()[-1].split(",")
    assert own == pytest.approx((float(matrix[1]) + float(matrix[2])) / 2)
    evaluating.finalize()


@pytest.mark.slow
@pytest.mark.usefixtures("clean_process")
def test_two_clients_with_different_classes_learn_in_rounds(tmp_path: Path, small_run: Any) -> None:
    """Each round starts from the mean: adapters of both, and the rows of the client's own classes."""
    clients = []
    for number, sets in enumerate((["clusters", "fibres"], ["fibres", "cells"])):
        settings = {
            **small_run.overrides,
            "dataset_dir": str(small_run.dataset),
            "source#sets": sets,
            "split": 4,
            "output_dir": str(tmp_path / str(number)),
        }
        del settings["adapter_epochs"]
        client = MonaiAlgo(
            str(BUNDLE), local_epochs=1, send_weight_diff=False, train_kwargs=settings, config_evaluate_filename=None
        )
        client.initialize()
        clients.append(client)
    sent = {key: value.clone() for key, value in clients[0].trainer.network.state_dict().items()}  # type: ignore[union-attr]
    for client in clients:
        client.train(ExchangeObject(weights=sent))
    steps = "backbone.blocks.layer1.adapters.task0.layers.1.num_batches_tracked"
    for _ in range(2):
        updates = [update_of(client.get_weights()) for client in clients]
        mean = average(updates)
        assert len(mean.classes) == 6
        for client, update in zip(clients, updates, strict=True):
            given = for_client(mean, update.classes)
            client.train(ExchangeObject(weights=given))
            trained = client.get_weights().weights
            assert trained[steps] > update.weights[steps], "a second round trains"
            assert not torch.equal(trained["head.linear.weight"], given["head.linear.weight"])
    for client in clients:
        client.finalize()


def update_of(exchange: ExchangeObject) -> Update:
    weights = {key: value.clone() for key, value in exchange.weights.items()}  # MONAI gives the network's own tensors
    return Update(weights, exchange.statistics["classes"], exchange.statistics["images"])
