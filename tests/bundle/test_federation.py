"""Three sites, each with runs of its own, end with the model of one hospital that has all images."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.models import mobilenet_v2

from scripts.commands.app import main
from scripts.deploy.versions import VersionStore
from scripts.model.folder import TrainedModel

ROOT = Path(__file__).resolve().parents[2]
COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200), "white": (220, 220, 220)}
IMAGES = {"a": {"red": 40, "green": 37, "blue": 70}, "b": {"green": 52, "red": 36}, "c": {"blue": 36, "white": 45}}
TESTED = 2
SHRINKAGE = 0.1
pytestmark = pytest.mark.slow  # ten trainings; tests/federation has the parts
METHOD = "frozen+levels+ridge+federated"
KEYS: dict[str, Any] = {
    "backbone": "mobilenet_v2",
    "network_def#levels": "['features.1']",  # 16 channels: 32 features, of which a class needs as many images
    "network_def#sites": "['features.3', 'features.5']",
    "image_size": 40,
    "batch_size": 16,
    "device": "cpu",
    "planned_tasks#validation_fraction": 0,
    "ridge#shrinkage": SHRINKAGE,
    "split": 1,
}


def draw(folder: Path, classes: Mapping[str, int], seed: int) -> Path:
    """Write images, some of them for testing, and their table."""
    generator, rows = np.random.default_rng(seed), [["path", "label", "split"]]
    folder.mkdir(parents=True)
    for name, count in classes.items():
        for number in range(count + TESTED):
            tone = np.array(COLOURS[name]) + generator.integers(-25, 25, 3)
            pixels = np.clip(tone + generator.normal(0, 25, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
            rows.append([f"{name}{number}.png", name, "train" if number < count else "test"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "labels.csv"


def join_tables(tables: Sequence[Path], target: Path) -> Path:
    """Write the table of all images, which stay where they are."""
    target.mkdir()
    lines = ["path,label,split"]
    for table in tables:
        for path, *rest in list(csv.reader(table.open()))[1:]:
            name = f"{table.parent.name}_{path}"
            shutil.copy(table.parent / path, target / name)
            lines.append(",".join([name, *rest]))
    (target / "labels.csv").write_text("\n".join(lines) + "\n")
    return target / "labels.csv"


class Network:
    """Three sites with finished runs, and one with the images of all; the same for all tests, to be read only."""

    def __init__(self, folder: Path, python: Callable[..., Any]) -> None:
        self.folder, self.python = folder, python
        torch.manual_seed(0)
        self.weights = folder / "weights.pth"
        torch.save(mobilenet_v2(weights=None).state_dict(), self.weights)
        tables = [draw(folder / "images" / site, own, seed) for seed, (site, own) in enumerate(IMAGES.items())]
        for site, table in zip(IMAGES, tables, strict=True):
            self.train(site, table)
            assert main(["join", site, "--folder", str(folder)]) == 0
        self.train("all", join_tables(tables, folder / "images" / "all"))

    def train(self, name: str, table: Path, method: str = METHOD, **keys: Any) -> None:
        given = {**KEYS, "weights": self.weights, "output_dir": self.folder / name, **keys}
        words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        done = self.python(["-m", "scripts.commands", "train", str(table), "--method", method, *words])
        assert done.returncode == 0, done.stderr[-2000:]

    def card(self, site: str) -> Path:
        return self.folder / f"{site}.site.json"

    def contribute(self, site: str, file: Path, *words: str, run: str = "") -> int:
        given = ["--site", str(self.card(site)), "--tolerance", "0", *words]
        return main(["contribute", str(self.folder / (run or site)), str(file), *given])

    def trust(self, out: Path, sites: str = "abc") -> None:
        (out / "sites").mkdir(parents=True, exist_ok=True)
        for site in sites:
            shutil.copy(self.card(site), out / "sites")

    def federate(self, files: Sequence[Path], out: Path, *words: str) -> int:
        given = ["--weights", str(self.weights), "--shrinkage", str(SHRINKAGE), *words]
        return main(["federate", *map(str, files), str(out), *given])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, python: Callable[..., Any]) -> Network:
    return Network(tmp_path_factory.mktemp("network"), python)


def fill_in(out: Path) -> None:
    """Say that a class of one site alone is new."""
    text = (out / "classes.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    with (out / "classes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "as": row["as"] or row["class"]} for row in rows)


def rows_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the head's row of each class of a model, [weights, bias], float64."""
    trained = TrainedModel.open(folder)
    head = trained.network.head.linear
    rows = torch.cat([head.weight, head.bias[:, None]], 1).detach().double()
    return dict(zip(trained.identity.classes, rows, strict=True))


def far(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    largest = max(float(row.abs().max()) for row in a.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a) / largest


FLOAT = 3e-7  # a head's weights are kept as float32


@pytest.fixture(scope="module")
def given(network: Network, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("given")
    files = [folder / f"{site}.safetensors" for site in IMAGES]
    for site, file in zip(IMAGES, files, strict=True):
        assert network.contribute(site, file) == 0
    return files


@pytest.fixture(scope="module")
def federation(network: Network, given: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three sites added at once; to be read only."""
    out = tmp_path_factory.mktemp("federation") / "out"
    network.trust(out)
    assert network.federate(given, out) == 1, "one site alone has white"
    fill_in(out)
    assert network.federate(given, out) == 0
    return out


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    assert status == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1
    return said


def test_three_sites_equal_one_hospital_with_all_images(network: Network, federation: Path) -> None:
    version = federation / "versions" / "0001"
    assert far(rows_of(version), rows_of(network.folder / "all")) < FLOAT
    below = {name: tensor for name, tensor in TrainedModel.open(version).network.state_dict().items()}
    for name, tensor in TrainedModel.open(network.folder / "all").network.state_dict().items():
        assert name.startswith("head.") or torch.equal(tensor, below[name]), name


def test_the_version_names_what_is_in_it_and_no_image(network: Network, federation: Path) -> None:
    store = VersionStore(federation)
    store.check()
    (version,) = store.versions()
    listed = version.record["contributions"]
    counts = {one["site"]: {own["name"]: own["images"] for own in one["classes"]} for one in listed}
    assert counts == IMAGES
    assert version.record["images"] == {"red": 76, "green": 89, "blue": 106, "white": 45}
    events = store.audit.events()
    assert [(event["event"], event.get("site")) for event in events] == [
        ("added", None),
        *(("contributed", site) for site in "abc"),
    ]
    written = (version.folder / "version.json").read_text() + (federation / "audit.jsonl").read_text()
    assert str(network.folder) not in written, "no path of a site, or of an image"


def test_every_door_opens_it(
    network: Network, federation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = federation / "versions" / "0001"
    images = tmp_path / "images"
    images.mkdir()
    tested = {"red": "a/red40.png", "green": "a/green37.png", "blue": "c/blue36.png", "white": "c/white45.png"}
    for file in tested.values():
        shutil.copy(network.folder / "images" / file, images)
    done = network.python(["-m", "scripts.commands", "classify", str(version), str(images), "--output", tmp_path / "o"])
    assert done.returncode == 0, done.stderr
    rows = {row["image"]: row["predicted class"] for row in csv.DictReader((tmp_path / "o" / "predictions.csv").open())}
    assert rows == {Path(file).name: name for name, file in tested.items()}
    assert main(["versions", str(federation), "promote", "1"]) == 3, "nobody has tested it"
    assert "give" in capsys.readouterr().err
    assert main(["versions", str(federation), "promote", "1", "--reason", "tested at site b"]) == 0
    assert main(["versions", str(federation), "list"]) == 0
    assert "not tested" in capsys.readouterr().out


def test_a_site_a_year_later_and_one_withdrawn(
    network: Network, given: list[Path], federation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    network.trust(out)
    assert network.federate(given[:2], out) == 1  # blue is of one of both alone
    fill_in(out)
    assert network.federate(given[:2], out) == 0
    capsys.readouterr()
    two = rows_of(out / "versions" / "0001")
    assert "white of c" in refused(capsys, main(["federate", str(given[2]), str(out)]))
    fill_in(out)
    assert main(["federate", str(given[2]), str(out), "--shrinkage", str(SHRINKAGE)]) == 0
    all_three = rows_of(federation / "versions" / "0001")
    assert far(rows_of(out / "versions" / "0002"), all_three) == 0, "to the bit"
    assert main(["withdraw", "c", str(out)]) == 0
    assert far(rows_of(out / "versions" / "0003"), two) == 0, "to the bit"
    assert [event["event"] for event in VersionStore(out).audit.events()][-1] == "withdrawn"
    assert len(list((out / "contributions").iterdir())) == 2
    capsys.readouterr()
    assert "was added before" in refused(capsys, main(["federate", str(given[2]), str(out)])), "nor comes back"
    assert "is not in the newest version" in refused(capsys, main(["withdraw", "c", str(out)]))


def test_what_was_replayed_tampered_with_or_of_a_stranger_is_refused(
    network: Network, given: list[Path], federation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in federation.rglob("*"))
    capsys.readouterr()
    assert "was added before" in refused(capsys, network.federate(given[:1], federation))
    bad = tmp_path / "bad.safetensors"
    content = bytearray(given[0].read_bytes())
    content[-100] ^= 1
    bad.write_bytes(content)
    assert "not as site a signed it" in refused(capsys, network.federate([bad], federation))
    assert "is missing" in refused(capsys, network.federate([tmp_path / "no.safetensors"], federation))
    network.trust(tmp_path / "new", "bc")
    assert "put its card (a.site.json) into" in refused(capsys, network.federate(given, tmp_path / "new"))
    assert sorted(path.name for path in federation.rglob("*")) == before


def test_other_weights_are_refused(
    network: Network, given: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network.trust(tmp_path / "out")
    capsys.readouterr()
    words = ["federate", str(given[1]), str(tmp_path / "out"), "--shrinkage", "0.1"]
    assert "give the weights that the sites learnt with" in refused(capsys, main(words))


def test_sums_of_few_images_leave_masked_and_add_up(
    network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count, seed in (("d", 6, 5), ("e", 7, 6), ("f", 8, 7)):
        table = draw(tmp_path / "images" / name, {"red": count, "blue": count}, seed)
        network.train(name, table)
        assert main(["join", name, "--folder", str(network.folder)]) == 0
    tables = [tmp_path / "images" / name / "labels.csv" for name in "def"]
    network.train("def", join_tables(tables, tmp_path / "images" / "def"))
    capsys.readouterr()
    few = refused(capsys, network.contribute("d", tmp_path / "d.safetensors"))
    assert "tell single images: red has 6, blue has 6." in few or "blue has 6, red has 6." in few
    sites = [str(network.card(name)) for name in "def"]
    (tmp_path / "round.yaml").write_text(yaml.safe_dump({"round": "1", "sites": sites, "classes": ["red", "blue"]}))
    files = [tmp_path / f"{name}.safetensors" for name in "def"]
    for name, file in zip("def", files, strict=True):
        assert network.contribute(name, file, "--round", str(tmp_path / "round.yaml")) == 0
    out = tmp_path / "out"
    network.trust(out, "def")
    capsys.readouterr()
    assert "round 1 lacks f" in refused(capsys, network.federate(files[:2], out))
    assert network.federate(files, out) == 0
    assert far(rows_of(out / "versions" / "0001"), rows_of(network.folder / "def")) < FLOAT
    capsys.readouterr()
    assert "nobody can tell them from the others'" in refused(capsys, main(["withdraw", "e", str(out)]))
    assert main(["join", "i", "--folder", str(network.folder)]) == 0  # in the place of e
    sites[1] = str(network.card("i"))
    (tmp_path / "round.yaml").write_text(yaml.safe_dump({"round": "2", "sites": sites, "classes": ["red", "blue"]}))
    again = [tmp_path / f"{name}2.safetensors" for name in "dif"]
    for name, file in zip("dif", again, strict=True):
        words = ["--round", str(tmp_path / "round.yaml")]
        assert network.contribute(name, file, *words, run="e" if name == "i" else "") == 0
    network.trust(out, "i")
    assert network.federate(again, out) == 0
    assert far(rows_of(out / "versions" / "0002"), rows_of(out / "versions" / "0001")) == 0, "the same images"
    last = VersionStore(out).audit.events()[-1]
    assert (last["event"], last["site"]) == ("withdrawn", "e")
    assert len(list((out / "contributions").iterdir())) == 3


def test_noise_leaves_with_few_images_too(network: Network, tmp_path: Path) -> None:
    file, out = tmp_path / "b.safetensors", tmp_path / "out"
    assert network.contribute("b", file, "--epsilon", "8", "--delta", "1e-3", "--clip", "5") == 0
    network.trust(out, "b")
    assert network.federate([file], out) == 0
    record = json.loads((out / "versions" / "0001" / "version.json").read_text())
    assert record["contributions"][0]["noise"]["epsilon"] == 8
    assert set(rows_of(out / "versions" / "0001")) == {"red", "green"}


def test_tuned_adapters_are_averaged_and_sums_carried_there(
    network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method, keys = "dynammo+lora+levels+ridge+without_memory+federated", {"adapter_epochs": 1, "optimizer#lr": 0.002}
    levels = {"network_def#levels": "['features.3']", "ridge#drift_ridge": 0.001}  # behind the first adapter
    classes = {"red": 50, "blue": 52}
    for site, seed in (("g", 8), ("h", 9)):
        network.train(site, draw(tmp_path / site, classes, seed), method, **keys, **levels, split=2)
        assert main(["join", site, "--folder", str(network.folder)]) == 0
    files, out = [tmp_path / "g.safetensors", tmp_path / "h.safetensors"], tmp_path / "out"
    network.trust(out, "gh")
    assert [network.contribute(site, file) for site, file in zip("gh", files, strict=True)] == [0, 0]
    capsys.readouterr()
    assert network.federate(files, out, "--row", "samples") == 0
    assert "Each contributes again with --adapters FILE" in capsys.readouterr().out
    assert not (out / "versions").exists()
    carried = ["--adapters", str(out / "adapters.safetensors")]
    assert [network.contribute(site, file, *carried) for site, file in zip("gh", files, strict=True)] == [0, 0]
    assert network.federate(files, out) == 0
    version = out / "versions" / "0001"
    assert TrainedModel.open(version).description["adapter"] is None, "folded"
    images = tmp_path / "images"
    images.mkdir()
    for site in "gh":
        for name, count in classes.items():
            for number in range(count, count + TESTED):
                shutil.copy(tmp_path / site / f"{name}{number}.png", images / f"{name}_{site}{number}.png")
    done = network.python(["-m", "scripts.commands", "classify", str(version), str(images), "--output", tmp_path / "o"])
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "o" / "predictions.csv").open()))
    assert len(rows) == 8
    assert all(row["image"].startswith(row["predicted class"]) for row in rows)


def test_runs_that_keep_no_sums_apart_say_what_to_train(
    network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = draw(tmp_path / "images", {"red": 12, "blue": 12}, 3)
    network.train("plain", table, "frozen+levels+ridge")
    capsys.readouterr()
    assert "+federated" in refused(capsys, network.contribute("a", tmp_path / "x.safetensors", run="plain"))
    assert "no checkpoint.pt in" in refused(capsys, network.contribute("a", tmp_path / "x", run="nothing"))
    unknown = network.contribute("a", tmp_path / "x.safetensors", "--leave_out", "violet")
    assert "no class violet: choose among" in refused(capsys, unknown)


def test_nvflare_brings_the_same_files(
    network: Network, federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clients of its simulator; each calls the bundle that is installed at the site, with the site's settings."""
    from nvflare.recipe import SimEnv

    from scripts.federation import flare

    for site in IMAGES:
        own = {"run": str(network.folder / site), "site": str(network.card(site)), "words": ["--tolerance", "0"]}
        (tmp_path / f"{site}.json").write_text(json.dumps(own))
    monkeypatch.setenv(flare.SETTINGS, str(tmp_path / "{site}.json"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "bundle")]))
    job = flare.recipe(tmp_path / "received", len(IMAGES))
    job.execute(SimEnv(clients=list(IMAGES), workspace_root=str(tmp_path / "workspace")))
    received = sorted((tmp_path / "received").iterdir())
    out = tmp_path / "out"
    network.trust(out)
    assert network.federate(received, out) == 1, "one site alone has white"
    fill_in(out)
    assert network.federate(received, out) == 0
    assert far(rows_of(out / "versions" / "0001"), rows_of(federation / "versions" / "0001")) == 0, "to the bit"
    sent = [path for path in (tmp_path / "workspace").rglob("custom/**/*") if path.is_file()]
    assert {path.name for path in sent} == {"flare.py"}, "no config goes with the job"
