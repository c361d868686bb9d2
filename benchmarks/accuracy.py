"""Train methods on real images, several seeds each, and compare them.

    python benchmarks/accuracy.py skin8 --methods dynammo dynammo_others acl --seeds 1 2 3

What is compared on which images; runs are those of the bundle's command (``scripts.commands.compare``), and further
``--key value`` pairs go to each of them. A finished run is recorded in ``benchmarks/results/runs/<data>.json`` and is
not trained again, on another machine neither. The table is written to
``benchmarks/results/<data>.md``, or under the name of ``--table``; runs with other keys need a name of their own
(``--runs``) beside the data's, as those on a vision transformer have::

    python benchmarks/accuracy.py skin8 --methods frozen+levels+ridge dynammo+bottleneck acl+bottleneck
        dynammo+lora+levels+ridge --seeds 1 --runs skin8_deit --backbone timm:deit_tiny_patch16_224 --image_size 128
        --weights DEIT.pth --network_def#weights_sha256 efbfb9ec6f199d62

and those of prompts beside what they are measured against::

    python benchmarks/accuracy.py skin8 --methods l2p dualprompt coda_prompt l2p+one_pass dualprompt+one_pass
        coda_prompt+one_pass frozen+levels+ridge frozen+ridge frozen+ridge+ncm frozen+ridge+ranpac --seeds 1
        --runs skin8_prompts --backbone timm:deit_tiny_patch16_224 --image_size 128 --adapter_epochs 5
        --network_def#levels every --weights DEIT.pth --network_def#weights_sha256 efbfb9ec6f199d62

Adapters of more kinds, on a chain of modalities, with few epochs and images::

    python benchmarks/accuracy.py modalities --methods dynammo dynammo_others dynammo+attention dynammo+shared
        dynammo+hierarchical --seeds 1 --runs modalities_kinds --adapter_epochs 3 --finetune_epochs 30
        --planned_tasks#limit 60

Images come from the folder CONTINUAL_TEST_DATA
(default ``../shared/data``); without it there is nothing to run.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from monai.bundle import ConfigParser
from PIL import Image
from records import Records

from scripts.commands.compare import REFERENCE, Run, plan_runs, runs_failed, train_unfinished
from scripts.commands.configs import TRAIN, parse_config
from scripts.commands.found import find_data
from scripts.commands.launch import here
from scripts.commands.terminal import end_or_stop
from scripts.imaging.transforms.reader import read_picture
from scripts.learning.sources import MedMnist
from scripts.metrics.comparison import markdown
from scripts.utils.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundle"
CONFIGS = ROOT / "benchmarks" / "configs"
RESULTS = ROOT / "benchmarks" / "results"
TEST_DATA = Path(os.environ.get("CONTINUAL_TEST_DATA", ROOT.parent / "shared" / "data")).resolve()
OVERLAYS = {
    **{"skin8": "skin8", "blood": "medmnist", "chain": "medmnist", "again": "medmnist"},
    **{"histopath": "path16", "modalities": "path16", "cifar10": "csv", "mednist": "csv"},
}
ZIPS = {"skin8": "skin8_isic_180.zip", "cifar10": "cifar10_jpeg_subset.zip", "mednist": "mednist_subset_64.zip"}
PATHOLOGY = "histopath_pack.zip"
TREES: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "histopath": {
        "breast": (PATHOLOGY, ("IDC50/",)),
        "oral": (PATHOLOGY, ("ORAL/",)),
        "breakhis": (PATHOLOGY, ("BREAKHIS400/",)),
        "bone": (PATHOLOGY, ("OSTEO/",)),
        "colorectal": (PATHOLOGY, ("CRC7K/",)),
        "lung": (PATHOLOGY, ("LC25000/lung",)),
        "colon": (PATHOLOGY, ("LC25000/colon",)),
    },
    "modalities": {
        "blood": ("bloodmnist_rebuilt_28.npz", ("",)),
        "mednist": ("mednist_subset_64.zip", ("",)),
        "pathology": (PATHOLOGY, ("IDC50/", "ORAL/", "LC25000/lung")),
        "skin": ("skin8_isic_180.zip", ("",)),
    },
}
"""Data that are several sets, one a task, in order: the file of each, and how the classes begin that it gives."""
DATA_HELP = f"one of {', '.join(OVERLAYS)}, or a folder, a table or an npz file of your own"
OWN_IMAGE_SIZE, OWN_LIMIT, OWN_EXEMPLARS = 96, 200, 5
"""Of data of one's own: the side of an image, images a class, exemplars a class, as most of the benchmarks have."""
METHODS = (  # those DynaMMo is measured against
    *("finetune+without_memory", "finetune", "icarl", "gem", "ucir", "bic", "podnet", "wa", "der", "derpp"),
    *("der_expandable", "acl", "dynammo", "dynammo_others", "joint"),
)


def dataset_folder(data: str) -> Path:
    """Return the folder with the images of ``data``; those in zips are unpacked once."""
    if data in TREES:
        return tree(data)
    if data not in ZIPS:
        return TEST_DATA
    folder = BUNDLE / "data" / data
    if not (folder / "labels.csv").is_file():
        with zipfile.ZipFile(TEST_DATA / ZIPS[data]) as archive:
            archive.extractall(folder)
    return folder


def tree(data: str) -> Path:
    """Unpack sets as PATH16's tree, one a task; validation images test too."""
    root = BUNDLE / "data" / data
    whole = root / "Pathology16"
    if whole.is_dir():
        return root
    for task, (file, beginnings) in TREES[data].items():
        for label, split, name, content in packed(TEST_DATA / file):
            if label.startswith(beginnings):
                part = "train" if split == "train" else "test"
                path = Path(f"{whole}.partial", task, part, Path(label).name, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    Path(f"{whole}.partial").rename(whole)
    return root


def packed(file: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield class, split, name and content of each picture in a zip with ``labels.csv``, or in an npz file."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            for row in csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")):
                yield row["label"], row["split"], Path(row["path"]).name, archive.read(row["path"])
        return
    for group in MedMnist(str(file.parent), file.name).groups():
        for split, part in (("train", group.train), ("test", group.test)):
            for label, items in part.items():
                for item in items:
                    png = io.BytesIO()
                    Image.fromarray(read_picture(item["image"])).save(png, "PNG")
                    yield label, split, f"{Path(item['image']).name}.png", png.getvalue()


def require_images() -> None:
    """End where there are no real images."""
    if not TEST_DATA.is_dir():
        sys.exit(f"no real images: {TEST_DATA} does not exist (set CONTINUAL_TEST_DATA)")


def runs_name(data: str) -> str:
    """Return what the runs on ``data`` are called."""
    return data if data in OVERLAYS else f"own_{Path(data).stem}"


def output_folder(name: str) -> Path:
    """Return the folder of runs: their data's, or one of a name of their own."""
    return BUNDLE / "runs" / "benchmarks" / name


def arguments(data: str, overrides: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return the configs of ``data`` and the keys that say where its images are, as the bundle's commands take them.

    Args:
        data: one of :data:`OVERLAYS`, or data of one's own, as :func:`scripts.commands.found.find_data` takes them.
        overrides: keys that are given besides; of one's own data they may say what else follows from a rule.

    Raises:
        UserError: where there are no such data.
    """
    weights = ["--test_data_dir", str(TEST_DATA)]
    if data in OVERLAYS:
        configs = [OVERLAYS[data], CONFIGS / "common.json", CONFIGS / f"{data}.json"]
        return ",".join(map(str, configs)), ["--dataset_dir", str(dataset_folder(data)), *weights]
    found = find_data(data)
    files = [*found.files, CONFIGS / "common.json"]
    rule = own_rule(parse_config([TRAIN, *files], [*found.keys, *weights, *overrides]))
    said = {word.partition("=")[0] for word in overrides}
    ruled = [word for key, value in rule.items() if f"--{key}" not in said for word in (f"--{key}", str(value))]
    return ",".join(map(str, files)), [*found.keys, *weights, *ruled]


def own_rule(parser: ConfigParser) -> dict[str, Any]:
    """Return what is not asked of those who bring data: two classes a task where all are one set, and sizes."""
    groups = parser.get_parsed_content("source").groups()
    count = sum(len(group.classes) for group in groups)
    split = None if len(groups) > 1 else [2] * (count // 2) + [1] * (count % 2)
    rule = {"image_size": OWN_IMAGE_SIZE, "planned_tasks#limit": OWN_LIMIT, "memory_size": OWN_EXEMPLARS * count}
    return {**rule, **({} if split is None else {"split": split}), "planned_tasks#validation_fraction": 0}


def finish(runs: Sequence[Run], name: str, jobs: int) -> Records:
    """Train what is neither recorded nor finished, on one thread each, and record it.

    Args:
        runs: from :func:`planned_runs`.
        name: of their record, which is the data's unless they have other keys.
        jobs: runs at a time.

    Raises:
        UserError: where runs failed; the others are recorded.
    """
    records = Records(RESULTS / "runs" / f"{name}.json")
    missing = [run for run in runs if records.find(run) is None]
    output = output_folder(name)
    failed = train_unfinished(missing, output, jobs, here(1), lambda: records.add(missing)) if missing else {}
    records.add(missing)
    if failed:
        raise runs_failed(failed, len(runs), output)
    return records


def planned_runs(
    data: str, methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], name: str
) -> list[Run]:
    """Return the runs of a comparison on ``data``, in the folder called ``name``."""
    configs, folders = arguments(data, overrides)
    return plan_runs(configs, methods, seeds, [*overrides, *folders], output_folder(name))


def main() -> int:
    """Compare, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", help=DATA_HELP)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of a thread each; default: 1")
    parser.add_argument("--runs", help="name of the folder and the record of the runs; default: the data's")
    parser.add_argument("--table", help="its name in benchmarks/results; default: that of the runs")
    given, overrides = parser.parse_known_args()
    require_images()
    name = given.runs or runs_name(given.data)

    def work() -> str:
        runs = planned_runs(given.data, given.methods, given.seeds, overrides, name)
        records = finish(runs, name, given.jobs)
        text = markdown(name, records.results(runs), given.seeds, REFERENCE)
        text = "\n\n".join(filter(None, (text.rstrip(), records.remark(runs)))) + "\n"
        write_atomically(RESULTS / f"{given.table or name}.md", text)
        return text

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
