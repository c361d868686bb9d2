"""The data set overlays: they name what exists, and read what they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from PIL import Image

from scripts.tasks import ImageFolder, ListFiles, Task, make_tasks

FOLDER = Path(__file__).resolve().parents[2] / "bundle" / "configs" / "datasets"
KEYS = {
    *("data", "dataset_dir", "source", "list_source", "split", "backbone", "memory_size", "image_size"),
    *("batch_size", "adapter_epochs", "finetune_epochs", "mean", "std", "random_transforms"),
}


def _parser(name: str, **settings: str) -> ConfigParser:
    config = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return ConfigParser({"bundle_root": "/bundle", **config, **settings})


def _tasks(parser: ConfigParser) -> list[Task]:
    return make_tasks(parser.get_parsed_content("source"), parser.get_parsed_content("split"))


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_an_overlay_sets_a_few_known_keys(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert config.keys() <= KEYS
    assert config["data"] == name
    assert text == json.dumps(config, indent=4) + "\n"
    assert hasattr(_parser(name).get_parsed_content("source"), "groups")


def test_path16_learns_its_sets_in_the_published_order(tmp_path: Path) -> None:
    sets = ["MHIST", "breast", "oral", "Patch_Camelyon", "TCGA_STD", "lung", "colon"]
    for name in sets:
        for split in ("train", "test"):
            _image(tmp_path / "Pathology16" / name / split / "tumour" / "1.png")
    assert [task.name for task in _tasks(_parser("path16", dataset_dir=str(tmp_path)))] == sets


def test_skin8_reads_a_csv_or_list_files_in_the_published_order(tmp_path: Path) -> None:
    names = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"]
    for name in names:
        _image(tmp_path / f"{name}.png")
    rows = [f"{name}.png,{name},{split}\n" for name in names for split in ("train", "test")]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "".join(rows))
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_text("".join(f"{name}.png {names.index(name)}\n" for name in names))
    from_csv = _tasks(_parser("skin8", dataset_dir=str(tmp_path)))
    from_lists = _tasks(_parser("skin8", dataset_dir=str(tmp_path), source="@list_source"))
    assert [task.classes for task in from_csv] == [("BKL", "MEL"), ("DF", "NV"), ("SCC", "BCC"), ("AK", "VASC")]
    assert from_lists == from_csv
    assert isinstance(_parser("skin8", source="@list_source").get_parsed_content("source"), ListFiles)


def test_medmnist_takes_other_files_and_a_split(test_data: Path) -> None:
    parser = _parser("medmnist", dataset_dir=str(test_data))
    parser["source"]["files"] = "bloodmnist_rebuilt_28.npz"
    parser["split"] = 2
    assert [len(task.classes) for task in _tasks(parser)] == [2, 2, 2, 2]


def test_left_and_right_organs_are_not_flipped() -> None:
    assert _parser("medmnist3d")["random_transforms"] == []


def test_generated_volumes_are_three_tasks(tmp_path: Path) -> None:
    parser = _parser("generated_volumes", dataset_dir=str(tmp_path))
    parser["source"].update(train_per_class=2, test_per_class=1)
    assert [task.classes for task in _tasks(parser)] == [("ball", "rod"), ("cube", "ring"), ("shell", "plate")]


def test_image_folder_reads_one_folder_a_class(tmp_path: Path) -> None:
    for name in ("acne/1.png", "acne/2.png", "eczema/1.png", "eczema/2.png"):
        _image(tmp_path / name)
    parser = _parser("image_folder", dataset_dir=str(tmp_path))
    assert isinstance(parser.get_parsed_content("source"), ImageFolder)
    assert [task.classes for task in _tasks(parser)] == [("acne", "eczema")]
