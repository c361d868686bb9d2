"""The data set overlays: each names what exists, and reads a small tree of the real layout as the protocol has it."""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from medmnist.info import INFO
from monai.bundle import ConfigParser
from PIL import Image

from scripts.commands.configs import known_configs, read_config
from scripts.learning.sources import IsicChallenge
from scripts.learning.tasks import Task, make_tasks

FOLDER = Path(__file__).resolve().parents[3] / "bundle" / "configs" / "datasets"
NAMES = list(known_configs("datasets"))
KEYS = {
    *("data", "output_dir#data", "dataset_dir", "source", "csv_source", "list_source", "challenge_source"),
    *("datalist_source", "split", "planned_tasks#order", "planned_tasks#validation_fraction", "tasks#check"),
    *("backbone", "memory_size", "image_size", "batch_size", "backbone_epochs", "adapter_epochs", "finetune_epochs"),
    *("optimizer#lr", "balanced_finetuning#scheduler#fractions", "random_transforms"),
    *("image#mean", "image#std", "image#presentation"),
    *("source#sets", "source#train_per_class", "source#val_per_class", "source#test_per_class"),
}
SKIN8 = [("BKL", "MEL"), ("DF", "NV"), ("SCC", "BCC"), ("AK", "VASC")]
# memory, classes a task, epochs of balanced fine-tuning (METHODS: protocols); None: a task for each data set
PROTOCOL = {
    "path16": (80, None, 100),
    "skin8": (40, [list(classes) for classes in SKIN8], 100),
    "medmnist": (200, None, 50),
    "cifar10": (2000, 2, 50),
    "cifar100": (2000, 10, 50),
    "imagenet100": (2000, 10, 50),
    "imagenet1000": (20000, 100, 50),
    "imagenet_r": (2000, 20, 50),
    "tinyimagenet": (2000, 20, 50),
    "cub200": (2000, 20, 50),
}


def _parser(name: str, **settings: Any) -> ConfigParser:
    image = {"_target_": "scripts.model.networks.image_spec", "backbone": "resnet18", "size": 64}
    names = ("planned_tasks", "tasks", "output_dir", "source", "balanced_finetuning")
    nested = {"image": image, **{name: dict[str, Any]() for name in names}}
    parser = ConfigParser(
        {"bundle_root": "/bundle", **{key: dict(value) for key, value in nested.items()}, "optimizer": {}}
    )
    parser["balanced_finetuning"]["scheduler"] = {}
    for key, value in {**read_config(FOLDER / f"{name}.yaml"), **settings}.items():
        parser[key] = value
    return parser


def _tasks(parser: ConfigParser) -> list[Task]:
    order = parser["planned_tasks"].get("order")
    return make_tasks(parser.get_parsed_content("source").groups(), parser.get_parsed_content("split"), order=order)


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize("name", NAMES)
def test_an_overlay_sets_a_few_known_keys(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config.keys() <= KEYS
    assert config["data"] == name
    assert text.startswith("# ")
    if name != "generated_small":  # which keeps the source of train.json
        assert hasattr(_parser(name).get_parsed_content("source"), "groups")


@pytest.mark.parametrize("name", PROTOCOL)
def test_an_overlay_has_the_protocols_numbers(name: str) -> None:
    memory, split, epochs = PROTOCOL[name]
    config = read_config(FOLDER / f"{name}.yaml")
    assert (config["memory_size"], config["split"], config["finetune_epochs"]) == (memory, split, epochs)
    milestones = [
        round(epochs * fraction) for fraction in config.get("balanced_finetuning#scheduler#fractions", [0.55, 0.8])
    ]
    assert milestones == ([55, 80] if epochs == 100 else [15, 35])


def test_path16_learns_its_sets_in_the_published_order(tmp_path: Path) -> None:
    sets = ["MHIST", "breast", "oral", "Patch_Camelyon", "TCGA_STD", "lung", "colon"]
    for name in sets:
        for split in ("train", "test"):
            _image(tmp_path / "Pathology16" / name / split / "tumour" / "1.png")
    assert [task.name for task in _tasks(_parser("path16", dataset_dir=str(tmp_path)))] == sets


def test_skin8_reads_list_files_a_csv_or_the_challenge_in_the_published_order(tmp_path: Path) -> None:
    names = [name for classes in SKIN8 for name in classes]
    for name in names:
        _image(tmp_path / f"Data/{name}/ISIC_{name}.jpg")
        _image(tmp_path / f"ISIC_2019_Training_Input/ISIC_{name}.jpg")
    for split in ("train", "test"):
        lines = [f"Data/{name}/ISIC_{name}.jpg {label}\n" for label, name in enumerate(names)]
        (tmp_path / f"skin8_{split}_500.txt").write_text("".join(lines))
    rows = [f"Data/{name}/ISIC_{name}.jpg,{name},{split}\n" for name in names for split in ("train", "test")]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "".join(rows))
    truth = ["image," + ",".join([*sorted(names), "UNK"])]
    truth += [
        f"ISIC_{name}," + ",".join(f"{float(name == other)}" for other in [*sorted(names), "UNK"]) for name in names
    ]
    (tmp_path / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text("image,age_approx,anatom_site_general,lesion_id,sex\n")
    from_lists = _tasks(_parser("skin8", dataset_dir=str(tmp_path)))
    assert [task.classes for task in from_lists] == SKIN8
    assert _tasks(_parser("skin8", dataset_dir=str(tmp_path), source="@csv_source")) == from_lists
    (group,) = (
        _parser("skin8", dataset_dir=str(tmp_path), source="@challenge_source").get_parsed_content("source").groups()
    )
    assert {name: len(items) for name, items in group.train.items()} == dict.fromkeys(sorted(names), 1)


def test_skin7_reads_the_challenge_or_the_published_lists(tmp_path: Path) -> None:
    names = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    for name in names:
        _image(tmp_path / f"ISIC2018_Task3_Training_Input/ISIC_{name}.jpg")
    truth = ["image," + ",".join(names)]
    truth += [f"ISIC_{name}," + ",".join(f"{float(name == other)}" for other in names) for name in names]
    folder = tmp_path / "ISIC2018_Task3_Training_GroundTruth"
    folder.mkdir()
    (folder / "ISIC2018_Task3_Training_GroundTruth.csv").write_text("\n".join(truth))
    lesions = [f"ISIC_{name},HAM_{name},histopathology" for name in names]
    header = "image,lesion_id,diagnosis_confirm_type"
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text("\n".join([header, *lesions]))
    parser = _parser("skin7", dataset_dir=str(tmp_path))
    assert isinstance(parser.get_parsed_content("source"), IsicChallenge)
    (group,) = parser.get_parsed_content("source").groups()
    assert group.classes == tuple(names)
    assert group.train["DF"][0]["group"] == "HAM_DF"
    for split in ("train", "test"):
        listed = tmp_path / f"split_data/split_data_1_fold_{split}.csv"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text("path,label\n" + "".join(f"ISIC_{name}.jpg,{label}\n" for label, name in enumerate(names)))
    tasks = _tasks(_parser("skin7", dataset_dir=str(tmp_path), source="@list_source"))
    assert [task.classes for task in tasks] == [("MEL", "NV", "BCC"), ("AKIEC", "BKL"), ("DF", "VASC")]


def test_skin40_names_its_classes_after_their_folders(tmp_path: Path) -> None:
    for label in range(40):
        _image(tmp_path / f"images/Disease_{label}/{label}VB.jpg")
    for file in ("train_1", "val_1"):
        path = tmp_path / f"main_classes_split/{file}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"Disease_{label}/{label}VB.jpg {label}\n" for label in range(40)))
    tasks = _tasks(_parser("skin40", dataset_dir=str(tmp_path)))
    assert [task.classes[0] for task in tasks] == ["Disease_0", "Disease_10", "Disease_20", "Disease_30"]


CHAINS = {
    "medmnist": {"bloodmnist": 8, "organamnist": 11, "pathmnist": 9, "tissuemnist": 8},
    "medmnist3d": {
        **{"organmnist3d": 11, "nodulemnist3d": 2, "adrenalmnist3d": 2},
        **{"fracturemnist3d": 3, "vesselmnist3d": 2, "synapsemnist3d": 2},
    },
}


@pytest.mark.parametrize(("overlay", "sides"), [("medmnist", (8, 8)), ("medmnist3d", (8, 8, 8))])
def test_medmnist_is_a_chain_of_sets_by_name(
    overlay: str, sides: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, classes in CHAINS[overlay].items():
        arrays = {f"{split}_images": np.zeros((classes, *sides), np.uint8) for split in ("train", "val", "test")}
        labels = {f"{split}_labels": np.arange(classes)[:, None] for split in ("train", "val", "test")}
        np.savez_compressed(tmp_path / f"{name}.npz", **arrays, **labels)
        monkeypatch.setitem(INFO[name], "MD5", hashlib.md5((tmp_path / f"{name}.npz").read_bytes()).hexdigest())
    tasks = _tasks(_parser(overlay, dataset_dir=str(tmp_path)))
    assert {task.name: len(task.classes) for task in tasks} == CHAINS[overlay]


def test_left_and_right_organs_are_not_flipped() -> None:
    assert _parser("medmnist3d")["random_transforms"] == []


def test_generated_volumes_are_three_tasks(tmp_path: Path) -> None:
    parser = _parser("generated_volumes", dataset_dir=str(tmp_path))
    parser["source"].update(train_per_class=2, test_per_class=1)
    assert [task.classes for task in _tasks(parser)] == [("ball", "rod"), ("cube", "ring"), ("shell", "plate")]


@pytest.mark.parametrize("name", ["imagenet100", "imagenet1000"])
def test_imagenet_is_learnt_in_the_shuffled_order(tmp_path: Path, name: str) -> None:
    count = 100 if name == "imagenet100" else 1000
    for split in ("train", "val"):
        for number in range(count):
            folder = tmp_path / split / f"n{number:08d}"
            folder.mkdir(parents=True)
            (folder / "1.JPEG").touch()
    tasks = _tasks(_parser(name, dataset_dir=str(tmp_path)))
    learnt = [int(name[1:]) for task in tasks for name in task.classes]
    assert learnt == np.random.RandomState(1993).permutation(count).tolist()
    assert len(tasks) == 10


def test_imagenet_r_has_two_hundred_folders_and_no_split(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"n{number:08d}").mkdir()
        (tmp_path / f"n{number:08d}/art_0.jpg").touch()
    (tmp_path / "README.txt").touch()
    (group,) = _parser("imagenet_r", dataset_dir=str(tmp_path)).get_parsed_content("source").groups()
    assert len(group.classes) == 200
    assert not any(group.test.values())


def test_forms_of_storage_are_read_by_name(tmp_path: Path) -> None:
    for name in ("acne/1.png", "acne/2.png", "eczema/1.png", "eczema/2.png"):
        _image(tmp_path / name)
    rows = [f"{name}/{number}.png,{name},{split}" for name in ("acne", "eczema") for number, split in SPLITS]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    for number, split in SPLITS:
        (tmp_path / f"{split}.txt").write_text(f"acne/{number}.png 0\neczema/{number}.png 1\n")
    entries = {
        key: [{"image": f"{name}/{number}.png", "label": name} for name in ("acne", "eczema")]
        for key, number in (("training", 1), ("test", 2))
    }
    (tmp_path / "datalist.json").write_text(json.dumps(entries))
    found = [_tasks(_parser(name, dataset_dir=str(tmp_path))) for name in ("csv", "list", "datalist")]
    assert found[0] == found[1] == found[2]
    assert found[0][0].classes == ("acne", "eczema")
    parser = _parser("image_folder", dataset_dir=str(tmp_path))
    (group,) = parser.get_parsed_content("source").groups()
    assert group.classes == ("acne", "eczema")


SPLITS = ((1, "train"), (2, "test"))


def test_every_real_array_file_is_read(test_data: Path) -> None:
    for path in sorted(test_data.glob("*.npz")):
        parser = _parser("medmnist", dataset_dir=str(test_data))
        parser["source"]["sets"] = path.name
        (task,) = _tasks(parser)
        with np.load(path) as arrays:
            assert (len(task.train), len(task.test)) == (len(arrays["train_labels"]), len(arrays["test_labels"]))
            assert len(task.classes) == len(np.unique(arrays["train_labels"]))


@pytest.mark.parametrize(
    ("archive", "overlay", "split"),
    [
        ("skin8_isic_180.zip", "skin8", None),
        ("cifar10_jpeg_subset.zip", "csv", 2),
        ("mednist_subset_64.zip", "csv", 3),
    ],
)
def test_every_real_archive_is_read(test_data: Path, tmp_path: Path, archive: str, overlay: str, split: Any) -> None:
    with zipfile.ZipFile(test_data / archive) as file:
        file.extractall(tmp_path)
    settings = {"source": "@csv_source"} if split is None else {"split": split}
    tasks = _tasks(_parser(overlay, dataset_dir=str(tmp_path), **settings))
    with open(tmp_path / "labels.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for part in ("train", "test"):
        found = sum(len(getattr(task, part)) for task in tasks)
        assert found == sum(row["split"] == part for row in rows)


def test_the_real_pathology_images_form_a_sequence_of_data_sets(test_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(test_data / "histopath_pack.zip") as file:
        file.extractall(tmp_path)
    with open(tmp_path / "labels.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["label"].startswith("KATHER2016")]  # no test images
    sets = sorted({row["label"].split("/")[0] for row in rows})
    split = [sorted({row["label"] for row in rows if row["label"].startswith(f"{name}/")}) for name in sets]
    tasks = _tasks(_parser("csv", dataset_dir=str(tmp_path), split=split))
    assert [len(task.classes) for task in tasks] == [2, 9, 2, 5, 2, 3]
    assert sum(len(task.test) for task in tasks) == sum(row["split"] == "test" for row in rows)


@pytest.mark.parametrize("archive", ["mednist_subset_64.zip", "cifar10_jpeg_subset.zip"])
def test_real_class_folders_are_read(test_data: Path, tmp_path: Path, archive: str) -> None:
    root = tmp_path if archive.startswith("cifar") else tmp_path / "MedNIST"
    with zipfile.ZipFile(test_data / archive) as file:
        file.extractall(root)
    name = "image_folder" if archive.startswith("cifar") else "mednist"
    (group,) = _parser(name, dataset_dir=str(tmp_path)).get_parsed_content("source").groups()
    assert len(group.classes) == (10 if archive.startswith("cifar") else 6)
