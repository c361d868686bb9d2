"""Pretrained weights are loaded whole or refused, by what is wrong with them."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import get_model

from scripts.model.networks import AdaptedBackbone
from scripts.utils.errors import UserError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def mobilenet() -> State:
    """A torchvision state dict whose every entry is its own."""
    generator = torch.Generator().manual_seed(0)
    state = get_model("mobilenet_v2", weights=None).state_dict()
    return {
        key: (value if "num_batches" in key else torch.rand(value.shape, generator=generator) * 0.1 + 0.05)
        for key, value in state.items()
    }


def loaded(state: State | str, folder: Path, name: str = "weights.pth", sha256: str | None = None) -> State:
    path = folder / name
    if isinstance(state, dict):
        torch.save(state, path)
    backbone = AdaptedBackbone("mobilenet_v2")
    backbone.load_pretrained(str(path), sha256)
    return torchvision_names(backbone)


def torchvision_names(backbone: AdaptedBackbone) -> State:
    """The backbone's state under torchvision's names."""
    segments = [backbone.stem, *(block.block for block in backbone.blocks.values())]
    return {
        f"{name.replace('features_', 'features.')}.{key}": value
        for segment in segments
        for name, module in segment.named_children()
        for key, value in module.state_dict().items()
    }


def assert_same(state: State, reference: State) -> None:
    expected = {key: value for key, value in reference.items() if not key.startswith("classifier")}
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.th"])
def test_weights_are_loaded_by_path(name: str, mobilenet: State, tmp_path: Path) -> None:
    assert_same(loaded(mobilenet, tmp_path, name), mobilenet)


def test_safetensors_are_loaded(mobilenet: State, tmp_path: Path) -> None:
    save_file(mobilenet, tmp_path / "a.safetensors")
    assert_same(loaded("saved", tmp_path, "a.safetensors"), mobilenet)


def test_a_data_parallel_training_checkpoint_is_loaded(mobilenet: State, tmp_path: Path) -> None:
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in mobilenet.items()}}
    torch.save(wrapped, tmp_path / "a.pth")
    assert_same(loaded("saved", tmp_path, "a.pth"), mobilenet)


def test_files_without_batchnorms_counters_are_loaded(mobilenet: State, tmp_path: Path) -> None:
    old = {key: value for key, value in mobilenet.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(mobilenet)
    assert_same(loaded(old, tmp_path), mobilenet)


def test_the_right_digest_passes_whole_or_in_part(mobilenet: State, tmp_path: Path) -> None:
    torch.save(mobilenet, tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    for expected in (digest, digest[:8], digest.upper()):
        assert_same(loaded("saved", tmp_path, sha256=expected), mobilenet)


def test_a_wrong_digest_is_refused_with_both(mobilenet: State, tmp_path: Path) -> None:
    torch.save(mobilenet, tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"weights.pth have sha256 {digest}, expected 0123abcd"):
        loaded("saved", tmp_path, sha256="0123abcd")


KEY = "features.4.conv.0.0.weight"
CHANGES: dict[str, tuple[Callable[[State], State], str]] = {
    "shape": (lambda s: {**s, KEY: s[KEY][1:]}, rf"'{KEY}' has shape \(143, 24, 1, 1\), expected \(144, 24, 1, 1\)"),
    "missing": (lambda s: {key: value for key, value in s.items() if key != KEY}, f"'{KEY}' is missing .1 missing, 0"),
    "left over": (lambda s: {**s, "features.99.bias": s[KEY]}, "'features.99.bias' is left over .0 missing, 1 left"),
    "other": (lambda s: {"conv1.weight": s[KEY]}, "do not fit backbone mobilenet_v2: .* is missing"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_do_not_fit_are_refused_by_entry(change: str, mobilenet: State, tmp_path: Path) -> None:
    alter, message = CHANGES[change]
    with pytest.raises(UserError, match=message):
        loaded(alter(mobilenet), tmp_path)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}, {"a": {"b": torch.zeros(2)}}, torch.zeros(2)])
def test_a_file_that_holds_no_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="weights.pth hold no state dict of tensors"):
        loaded("saved", tmp_path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_broken_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x00broken" * 100)
    with pytest.raises(UserError, match=f"{name} cannot be read as a plain state dict") as caught:
        loaded("saved", tmp_path, name)
    assert "\n" not in str(caught.value)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_code_in_a_weights_file_is_not_run(write: str, tmp_path: Path) -> None:
    content, path = {"a": Malicious(tmp_path / "ran")}, tmp_path / "weights.pth"
    torch.save(content, path) if write == "torch" else path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="weights.pth cannot be read as a plain state dict"):
        loaded("saved", tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False) if write == "torch" else pickle.loads(path.read_bytes())
    assert (tmp_path / "ran").exists(), "the file would have run code"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no weights file at {tmp_path}/gone.pth"):
        AdaptedBackbone("mobilenet_v2").load_pretrained(str(tmp_path / "gone.pth"))


def test_an_unknown_torchvision_name_is_refused_with_the_choice() -> None:
    with pytest.raises(
        UserError, match="unknown weights 'IMAGENET' for mobilenet_v2: .*path,? or one of IMAGENET1K_V1"
    ):
        AdaptedBackbone("mobilenet_v2").load_pretrained("IMAGENET")


def test_offline_a_download_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    message = r"cannot download https://.*/mobilenet_v2-\w+.pth .*fetch it on another machine .*--weights FILE"
    with pytest.raises(UserError, match=message):
        AdaptedBackbone("mobilenet_v2").load_pretrained("IMAGENET1K_V1")


def test_weights_in_torchs_hub_folder_need_no_network(
    mobilenet: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(mobilenet, folder / "mobilenet_v2-b0353104.pth")
    backbone = AdaptedBackbone("mobilenet_v2")
    backbone.load_pretrained("IMAGENET1K_V1")
    assert_same(torchvision_names(backbone), mobilenet)


def test_a_classifier_in_the_file_is_left_out(mobilenet: State, tmp_path: Path) -> None:
    for name in ("fc.weight", "head.weight", "head_dist.bias", "heads.head.bias"):
        assert_same(loaded({**mobilenet, name: torch.ones(3)}, tmp_path), mobilenet)
