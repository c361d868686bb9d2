"""Wrong labels planted in training images, and how many of them ``dynammo suspects`` finds.

    python benchmarks/suspects.py blood skin8 --share 0.1 --seeds 1

A share of the training images of each class gets the label of another class of its task; ``frozen+levels+ridge`` learns
from them, and its suspects are listed, the surest first. Precision at k: the share of the first k that were planted;
chance is the share of all. The table goes to ``benchmarks/results/suspects.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from accuracy import OVERLAYS, RESULTS, output_folder, planned_runs, require_images
from tabulate import tabulate

from scripts.commands.compare import Run, runs_failed, train_unfinished
from scripts.commands.configs import parse_config
from scripts.commands.joint_ridge import joint_ridge
from scripts.commands.launch import here
from scripts.commands.suspects import find_suspects
from scripts.commands.terminal import end_or_stop
from scripts.learning.tasks import PlannedTasks, Task
from scripts.utils.files import write_atomically

METHOD = "frozen+levels+ridge"
WRONG = "--planned_tasks#wrong_labels"
FIRST = (10, 20, 50, 100)


def planted(run: Run) -> set[str]:
    """Return the images of a run that have another label than without the share."""
    given, without = (
        {item["image"]: item["label"] for task in tasks(run, share) for item in task.train}
        for share in ([], [WRONG, "0"])
    )
    return {image for image, label in given.items() if label != without[image]}


def tasks(run: Run, keys: Sequence[str]) -> Sequence[Task]:
    """Return the tasks of a run, with other keys."""
    planned: PlannedTasks = parse_config(run.configs, [*run.keys, *keys]).get_parsed_content("planned_tasks")
    return planned.tasks


def row(data: str, run: Run) -> list[str]:
    """Return how many of the planted ones are among the first suspects."""
    wrong = planted(run)
    joint, learnt = joint_ridge(run.folder)
    found = [one.image in wrong for one in find_suspects(joint, [name for task in learnt for name in task.classes])]
    chance = len(wrong) / len(joint.items)
    precisions = [f"{100 * sum(found[:count]) / count:.0f}" if count <= len(found) else "" for count in FIRST]
    at_all = f"{100 * sum(found[: len(wrong)]) / len(wrong):.0f}"
    return [
        *(data, str(run.seed), f"{len(wrong)} of {len(joint.items)}", f"{100 * chance:.1f}", *precisions, at_all),
        *(str(len(found)), f"{100 * sum(found) / len(wrong):.0f}"),
    ]


def main() -> int:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", nargs="+", choices=sorted(OVERLAYS))
    parser.add_argument("--share", type=float, default=0.1, help="of the labels that are wrong; default: 0.1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="default: 1")
    given = parser.parse_args()
    require_images()
    torch.set_num_threads(1)

    def work() -> str:
        rows = []
        for data in given.data:
            name = f"{data}_planted_{given.share:g}"
            runs = planned_runs(data, [METHOD], given.seeds, [WRONG, str(given.share)], name)
            if failed := train_unfinished(runs, output_folder(name), 1, here(1), lambda: None):
                raise runs_failed(failed, len(runs), output_folder(name))
            rows += [row(data, run) for run in runs]
        at = [f"at {count}" for count in FIRST]
        headers = ["data", "seed", "planted", "chance", *at, "at all planted", "suspects", "planted found"]
        text = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
        head = f"# Planted wrong labels ({given.share:.0%}) among the suspects: precision at k, in per cent"
        write_atomically(RESULTS / "suspects.md", f"{head}\n\n{text}\n")
        return text

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
