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
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from records import Records

from scripts.commands.compare import REFERENCE, Run, plan_runs, runs_failed, train_unfinished
from scripts.commands.terminal import end_or_stop
from scripts.metrics.comparison import markdown
from scripts.utils.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundle"
CONFIGS = ROOT / "benchmarks" / "configs"
RESULTS = ROOT / "benchmarks" / "results"
TEST_DATA = Path(os.environ.get("CONTINUAL_TEST_DATA", ROOT.parent / "shared" / "data")).resolve()
OVERLAYS = {"skin8": "skin8", "blood": "medmnist", "chain": "medmnist", "histopath": "path16", "cifar10": "csv"}
ZIPS = {"skin8": "skin8_isic_180.zip", "cifar10": "cifar10_jpeg_subset.zip"}
HISTOPATH = {  # our names of the tasks, in order, and the classes of histopath_pack.zip that they hold
    "breast": "IDC50/",
    "oral": "ORAL/",
    "breakhis": "BREAKHIS400/",
    "bone": "OSTEO/",
    "colorectal": "CRC7K/",
    "lung": "LC25000/lung",
    "colon": "LC25000/colon",
}
METHODS = (  # those DynaMMo is measured against
    *("finetune+without_memory", "finetune", "icarl", "gem", "ucir", "bic", "podnet", "wa", "der", "derpp"),
    *("der_expandable", "acl", "dynammo", "dynammo_others", "joint"),
)


def dataset_folder(data: str) -> Path:
    """Return the folder with the images of ``data``; those in zips are unpacked once."""
    if data == "histopath":
        return pathology_tree()
    if data not in ZIPS:
        return TEST_DATA
    folder = BUNDLE / "data" / data
    if not (folder / "labels.csv").is_file():
        with zipfile.ZipFile(TEST_DATA / ZIPS[data]) as archive:
            archive.extractall(folder)
    return folder


def pathology_tree() -> Path:
    """Unpack ``histopath_pack.zip`` as PATH16's tree, one data set a task; its few validation images test too."""
    root = BUNDLE / "data" / "histopath"
    tree = root / "Pathology16"
    if tree.is_dir():
        return root
    with zipfile.ZipFile(TEST_DATA / "histopath_pack.zip") as archive:
        for row in csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")):
            for task, prefix in HISTOPATH.items():
                if row["label"].startswith(prefix):
                    split = "train" if row["split"] == "train" else "test"
                    path = Path(f"{tree}.partial", task, split, Path(row["label"]).name, Path(row["path"]).name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(row["path"]))
    Path(f"{tree}.partial").rename(tree)
    return root


def require_images() -> None:
    """End where there are no real images."""
    if not TEST_DATA.is_dir():
        sys.exit(f"no real images: {TEST_DATA} does not exist (set CONTINUAL_TEST_DATA)")


def output_folder(name: str) -> Path:
    """Return the folder of runs: their data's, or one of a name of their own."""
    return BUNDLE / "runs" / "benchmarks" / name


def arguments(data: str) -> tuple[str, list[str]]:
    """Return the configs of ``data`` and the keys that say where its images are, as the bundle's commands take them."""
    configs = [OVERLAYS[data], CONFIGS / "common.json", CONFIGS / f"{data}.json"]
    folders = ["--dataset_dir", str(dataset_folder(data)), "--test_data_dir", str(TEST_DATA)]
    return ",".join(map(str, configs)), folders


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
    failed = train_unfinished(missing, output, jobs, 1, lambda: records.add(missing)) if missing else {}
    records.add(missing)
    if failed:
        raise runs_failed(failed, len(runs), output)
    return records


def planned_runs(
    data: str, methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], name: str
) -> list[Run]:
    """Return the runs of a comparison on ``data``, in the folder called ``name``."""
    configs, folders = arguments(data)
    return plan_runs(configs, methods, seeds, [*overrides, *folders], output_folder(name))


def main() -> int:
    """Compare, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", choices=sorted(OVERLAYS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of a thread each; default: 1")
    parser.add_argument("--runs", help="name of the folder and the record of the runs; default: the data's")
    parser.add_argument("--table", help="its name in benchmarks/results; default: that of the runs")
    given, overrides = parser.parse_known_args()
    require_images()
    name = given.runs or given.data

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
