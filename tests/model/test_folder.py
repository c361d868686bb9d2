"""A trained model is read once, and is what was written, whichever folder holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scripts.deploy.inference import load_image_classifier
from scripts.model.folder import TrainedModel, model_folder, write_model
from scripts.model.networks import classifier_from
from scripts.utils.errors import UserError
from scripts.utils.sums import SUMS

FILES = ("model.pt", "network.json")


def negate_head(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    torch.save({key: -value if key.startswith("head") else value for key, value in state.items()}, file)


def test_a_model_comes_back_as_it_was_written(trained_model: Path, tmp_path: Path) -> None:
    trained = TrainedModel.open(trained_model)
    network = classifier_from(trained.description).eval()
    write_model(tmp_path, network.state_dict(), trained.description)
    again = TrainedModel.open(tmp_path)
    images = torch.rand(2, *trained.image.shape)
    assert not again.network.training
    assert torch.equal(again.network(images), network(images))
    assert (again.description, again.image) == (trained.description, trained.image)
    assert again.image.record() == json.loads((tmp_path / "network.json").read_text())["image"]


def test_a_model_is_known_by_its_files(trained_model: Path) -> None:
    found = TrainedModel.open(trained_model).identity
    assert (found.name, found.version) == ("skin-dynammo-mobilenet_v2", "task_1")
    assert found.weights_sha256 == hashlib.sha256((trained_model / "model.pt").read_bytes()).hexdigest()
    assert found.classes == ("benign", "skin/naevus", "odd, very")
    assert TrainedModel.open(trained_model).identity == found


def test_what_the_model_brings_along_is_taken_unless_another_is_given(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    folder = make_model(tmp_path, temperature=1.5, threshold=0.7)
    assert (TrainedModel.open(folder).identity.temperature, TrainedModel.open(folder).identity.threshold) == (1.5, 0.7)
    assert TrainedModel.open(folder, threshold=0.9).identity.threshold == 0.9
    assert json.dumps(TrainedModel.open(folder).identity.record())


def test_each_file_is_read_once(trained_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    plain_open = Path.open

    def noted(path: Path, *mode: Any, **more: Any) -> Any:
        opened.append(path.name)
        return plain_open(path, *mode, **more)

    monkeypatch.setattr(Path, "open", noted)
    load_image_classifier(trained_model)
    assert sorted(name for name in opened if name in (*FILES, SUMS)) == sorted((*FILES, SUMS))


def test_checksums_are_those_of_sha256sum(trained_model: Path) -> None:
    lines = [f"{hashlib.sha256((trained_model / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES]
    assert (trained_model / SUMS).read_text() == "".join(lines)


def test_a_head_that_was_negated_is_refused(make_model: Callable[..., Path], tmp_path: Path) -> None:
    negate_head(make_model(tmp_path) / "model.pt")
    with pytest.raises(UserError, match=r"model\.pt is not as it was written, its checksum differs: restore it"):
        TrainedModel.open(tmp_path)


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_file_that_is_missing_or_was_changed_is_named(
    name: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    file = make_model(tmp_path) / name
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(UserError, match=SUMS if name == SUMS else f"{name} is not as it was written"):
        TrainedModel.open(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="no trained model in" if name == "network.json" else name):
        TrainedModel.open(tmp_path)


@pytest.mark.parametrize("text", ["", "no checksums", "../../etc/passwd", f"{'0' * 64}  ../model.pt", "\xff"])
def test_a_list_that_is_none_is_refused(text: str, make_model: Callable[..., Path], tmp_path: Path) -> None:
    (make_model(tmp_path) / SUMS).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=SUMS):
        TrainedModel.open(tmp_path)


def test_a_missing_model_says_train_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model in .*: give a run"):
        TrainedModel.open(tmp_path)


def test_a_broken_model_is_named(make_model: Callable[..., Path], vouch: Any, tmp_path: Path) -> None:
    (make_model(tmp_path) / "model.pt").write_bytes(b"PK not a model")
    vouch(tmp_path)
    with pytest.raises(UserError, match=r"model.pt cannot be read as a model \(.*\): restore it"):
        TrainedModel.open(tmp_path)


def test_a_file_that_would_run_code_is_refused(make_model: Callable[..., Path], vouch: Any, tmp_path: Path) -> None:
    torch.save({"weight": Path("anything")}, make_model(tmp_path) / "model.pt")
    vouch(tmp_path)
    with pytest.raises(UserError, match="cannot be read as a model"):
        TrainedModel.open(tmp_path)


def test_weights_of_another_network_are_refused(make_model: Callable[..., Path], vouch: Any, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 4).state_dict(), make_model(tmp_path) / "model.pt")
    vouch(tmp_path)
    with pytest.raises(UserError, match="not those of the network that network.json describes"):
        TrainedModel.open(tmp_path)


def test_a_run_a_task_and_a_folder_are_found_by_what_lies_there(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        (tmp_path / f"task_{number}").mkdir()
        (tmp_path / f"task_{number}" / "model.pt").touch()
        (tmp_path / f"task_{number}" / "network.json").touch()
    (tmp_path / "network.json").touch()
    assert model_folder(str(tmp_path)) == str(tmp_path)
    assert model_folder(str(tmp_path / "task_2")) == str(tmp_path / "task_2")
    assert model_folder(str(tmp_path), 2) == str(tmp_path / "task_2")
    with pytest.raises(UserError, match=r"no model of task 3: choose among 0, 2, 10 \(key 'task'\)"):
        model_folder(str(tmp_path), 3)


def test_a_folder_with_one_model_in_it_is_taken_with_several_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model in .*: give a run or a model's folder"):
        model_folder(str(tmp_path))
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "network.json").touch()
    assert model_folder(str(tmp_path)) == str(tmp_path / "first")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "network.json").touch()
    with pytest.raises(UserError, match="holds several models: give one of first, second with its folder"):
        model_folder(str(tmp_path))
