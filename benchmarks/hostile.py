"""Send 10,000 damaged files through every door, and write what came of them to benchmarks/results/hostile.md.

Runs the tests in tests/hostile, which do the work and hold the limits: an answer or a named error for every file,
within 10 seconds and 2 GiB. Real images are damaged too where CONTINUAL_TEST_DATA names them.
Some 15 minutes of one core.

python benchmarks/hostile.py
python benchmarks/hostile.py test_readers   # one part (see PARTS): its table is printed, and nothing is written
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "hostile.md"
MALICE = "test_malice"
PARTS = (
    "thousands_of_damaged_state",
    "folders_of",
    "service_answers_a_thousand",
    "test_decoding and thousands",
    "edge",
    "judges_a_thousand",
    "test_readers",
    MALICE,
)
"""Which tests, as pytest chooses them (-k)."""
ANSWERED = ("image", "answered")
INTRODUCTION = """# Hostile input

`python benchmarks/hostile.py` (the tests in `tests/hostile`): good files of every kind, drawn ones and the real ones of
the test data, each damaged once: bytes changed, cut, moved, words and lengths near the head set to extremes, sides and
frames that are huge with checksums that are right; values of JSON left out or made odd (null, 10^400, NaN, nested 900
deep, `$...`, `_target_`, `../..`); odd file names. Always the same ones. *Seconds* is the slowest,
*MiB* the most that the process of the door, or its decoder, has held, torch included.
"""


def run(part: str, figures: Path, report: Path) -> int:
    """Run the tests of a part in a process of its own, whose memory is that of its doors; return its status."""
    command = [sys.executable, "-m", "pytest", "tests/hostile", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {**os.environ, "HOSTILE_FIGURES": str(figures)}
    return subprocess.run([*command, "-k", part], cwd=ROOT, env=environment).returncode


def door_table(records: list[dict[str, Any]]) -> str:
    """Return the table of doors."""
    rows = []
    for record in records:
        outcomes = dict(record["outcomes"])
        answered, faults = (sum(outcomes.pop(key, 0) for key in keys) for keys in (ANSWERED, ("fault",)))
        total = answered + faults + sum(outcomes.values())
        said = ", ".join(f"{code} {count}" for code, count in outcomes.items() if count)
        rows.append([record["door"], total, answered, said, faults, record["slowest"], record["memory"] // 2**20])
    rows.append(["all", *(sum(row[column] for row in rows) for column in (1, 2)), "", sum(row[4] for row in rows)])
    headers = ["door", "files", "answered", "refused, by code", "crashes and faults", "seconds", "MiB"]
    return tabulate(rows, headers, "github", floatfmt=".1f", missingval="")


def malice_table(report: Path) -> str:
    """Return what became of the files made to do harm."""
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314
        if case.get("classname", "").endswith(MALICE):
            held = case.find("failure") is None and case.find("error") is None
            rows.append([case.get("name", "").removeprefix("test_").replace("_", " "), "held" if held else "BROKEN"])
    return tabulate(rows, ["made to do harm", ""], "github")


def main() -> int:
    """Run, print and, where no part is chosen, write."""
    chosen = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        figures, report = Path(folder, "figures.jsonl"), Path(folder, "report.xml")
        status = max(run(part, figures, report) for part in chosen or PARTS)
        records = [json.loads(line) for line in figures.read_text().splitlines()]
        text = f"{INTRODUCTION}\n{door_table(records)}\n\n{malice_table(report)}\n"
    print(text)
    if not chosen:
        RESULT.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
