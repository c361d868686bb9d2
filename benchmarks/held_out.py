"""The frozen rule, and any methods, on data that had no part in building them, beside ACL.

    python benchmarks/held_out.py FOLDER_OR_CSV --methods METHOD ... --seeds 1 2 3

``frozen+levels+ridge`` and ACL are always in the table, which has the paired differences to both and the distance to
the best bound: see ``beyond.py``. The data may be a folder with a folder a class, a table of images, npz files, or one
of the names in ``accuracy.py``. One's own data are learnt two classes a task (a file a task where there are several),
at 96 px, 200 images a class at most, with 5 exemplars a class where a method keeps any; ``--split``, ``--image_size``
and all other keys say otherwise, for all methods alike. MobileNetV2 with the ImageNet weights of the test data
(``CONTINUAL_TEST_DATA``), or ``--weights FILE --network_def#weights_sha256 HASH``. Written to
``benchmarks/results/<name>_held_out.md``.
"""

from __future__ import annotations

import argparse
import sys

from accuracy import DATA_HELP, finish, planned_runs, require_images, runs_name
from beyond import REFERENCES, find_bounds, write_table

from scripts.commands.terminal import end_or_stop


def main() -> int:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", help=DATA_HELP)
    parser.add_argument("--methods", nargs="+", default=[], help="beside the references; default: none")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of a thread each; default: 1")
    parser.add_argument("--runs", help="name of the folder and the record of the runs; default: the data's")
    given, overrides = parser.parse_known_args()
    if "--weights" not in overrides:
        require_images()

    def work() -> str:
        name = given.runs or runs_name(given.data)
        methods = list(dict.fromkeys([*REFERENCES, *given.methods]))
        runs = planned_runs(given.data, methods, given.seeds, overrides, name)
        records = finish(runs, name, given.jobs)
        find_bounds(runs, records)
        return write_table(f"{name}_held_out", records.results(runs), records.remark(runs))

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
