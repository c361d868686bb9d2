"""Write the report of a run, or of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.commands.compare import REFERENCE, RESULTS
from scripts.utils.errors import UserError
from scripts.utils.files import CONFIG, require_folder, write_atomically

PAGE = "report.html"


def report(
    folder: str,
    output: Path | None = None,
    pictures: bool = False,
    scans: bool = False,
    store: Path | None = None,
    intended_use: str | None = None,
) -> str:
    """Write the page.

    Args:
        folder: of a run, or of a comparison.
        output: the file; ``None``: ``report.html`` in the folder.
        pictures: show images, and name them; of scans only where ``scans`` asks for it, too.
        scans: whether DICOM and NIfTI images may be shown.
        store: of versions, whose audit log is reported.
        intended_use: what the model is for, in a person's words.

    Returns:
        Where it is, in one line.

    Raises:
        UserError: when the folder holds neither, or the file cannot be written.
    """
    require_folder(folder, "run", "RUN")
    place, target = Path(folder), output or Path(folder) / PAGE
    if (place / RESULTS).is_file():
        page = _of_comparison(place)
    elif (place / CONFIG).is_file():
        page = _of_run(place, pictures, scans, store, intended_use)
    else:
        raise UserError(f"{folder} holds no run and no comparison: give a run's folder, or that of a comparison")
    write_atomically(target, page)
    return f"The report is in {target} ({len(page.encode()) / 2**20:.1f} MiB), to be opened in a browser."


def _of_run(run: Path, pictures: bool, scans: bool, store: Path | None, intended_use: str | None) -> str:
    from scripts.commands.reporting.gathered import gather  # takes seconds
    from scripts.commands.reporting.page import run_page
    from scripts.commands.reporting.representations import drawn_of

    found = gather(run, store)
    if pictures and found.holds_scans and not scans:
        raise UserError(
            f"the images of {run} are DICOM or NIfTI files, which name patients: leave --pictures out, or add --scans"
        )
    features = drawn_of(run, found.answers)
    return run_page(found, pictures, features, intended_use)


def _of_comparison(folder: Path) -> str:
    from scripts.commands.reporting.page import comparison_page

    content = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    results = {method: {int(seed): own for seed, own in runs.items()} for method, runs in content["results"].items()}
    return comparison_page(content["title"], results, REFERENCE, content["seeds"], content.get("tuned", ""))
