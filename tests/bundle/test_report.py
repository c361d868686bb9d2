"""The report of a run and of a comparison, and what a network has learnt, whole commands on one small run."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.commands.app import main
from scripts.commands.compare import RESULTS
from scripts.commands.report import report
from scripts.deploy.versions.store import VersionStore
from scripts.utils.errors import UserError

HEADINGS = ("Intended use", "Description of modifications", "Modification protocol", "Impact assessment", "Annex IV")
PICTURES = ("accuracy", "matrix", "recall", "confusion", "reliability", "retention", "curves")


class Page(HTMLParser):
    """What of a page matters: its elements, what it would fetch, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.identifiers: list[str] = []
        self.marked = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.marked += found.get("class") == "person"
        self.identifiers += [found["id"] or ""] if "id" in found else []
        for name in ("src", "href", "xlink:href", "data", "action"):
            value = found.get(name) or ""
            if value.startswith("#"):
                self.links.append(value[1:])
            elif value and not value.startswith("data:"):
                self.fetched.append(value)


@pytest.fixture(scope="module")
def run(
    uninterrupted: Any, linked_copy: Callable[[Path, Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that may be written beside, with one of fine-tuning there."""
    folder = tmp_path_factory.mktemp("reported")
    copy = linked_copy(uninterrupted.output, folder / "run")
    other = linked_copy(uninterrupted.output, folder / "finetuned")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").unlink()  # a link: the run's own stays
    (other / "config.json").write_text(json.dumps({**config, "method": "finetune", "parts": ["without_memory"]}))
    return copy


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    """The report of the run, as it is without any option."""
    said = report(str(run))
    assert said.startswith(f"The report is in {run / 'report.html'} (")
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_holds_all_of_it_and_fetches_nothing(text: str) -> None:
    page = Page(text)
    assert page.fetched == [] and "script" not in page.tags
    assert not re.search(r"https?:", re.sub(r'xmlns\S*="[^"]*"', "", text))
    assert [name for name, count in Counter(page.identifiers).items() if count > 1] == []
    assert set(page.links) <= set(page.identifiers)
    for name in PICTURES:
        assert f'id="{name}-' in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert len(text.encode()) < 8 * 2**20


def test_it_says_what_the_run_measured(text: str, run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("final_accuracy", "final_mean_class_recall", "average_accuracy", "forgetting"):
        assert f"<b>{100 * metrics[name]:.1f} %</b>" in text
    assert all(name in text for name in metrics["classes"])
    assert "finetune+without_memory, run on the same tasks" in text
    assert "before the merge" in text and "Linear CKA" in text
    assert "optimizer#lr" in text and json.loads((run / "config.json").read_text())["recorded"]["code"] in text


def test_a_regulators_headings_are_there_and_what_a_person_has_to_write_is_marked(text: str) -> None:
    assert all(heading in text for heading in HEADINGS)
    assert all(f"<b>{number}. " in text for number in range(1, 10))
    assert Page(text).marked >= 12


def test_no_image_and_no_name_of_one_is_shown_unless_asked_for(text: str, run: Path) -> None:
    images = [item["image"] for task in json.loads((run / "tasks.json").read_text()) for item in task["test"]]
    assert not [image for image in images if image in text] and 'src="data:' not in text
    report(str(run), run / "shown.html", pictures=True, intended_use="To tell <drawn> tissue apart.")
    shown = (run / "shown.html").read_text(encoding="utf-8")
    assert [image for image in images if image in shown]
    assert shown.count('src="data:image/png') >= 4
    assert "To tell &lt;drawn&gt; tissue apart." in shown and Page(shown).marked == Page(text).marked - 1


def test_of_scans_nothing_is_shown_by_one_key_alone(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    config["image"]["presentation"] = {"window": "40,400"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="which name patients: leave --pictures out, or add --scans"):
        report(str(copy), pictures=True)


def test_what_is_gone_is_said(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    tasks = json.loads((copy / "tasks.json").read_text())
    for task in tasks:
        for item in task["test"]:
            item["image"] += ".gone"
    (copy / "tasks.json").write_text(json.dumps(tasks))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "dataset_dir": str(tmp_path / "gone")}))
    report(str(copy))
    text = (copy / "report.html").read_text(encoding="utf-8")
    assert text.count("the test images of all tasks are gone") == 3
    assert f"the data are not in {tmp_path / 'gone'}" in text


def test_the_audit_log_fills_the_update_procedure(run: Path, tmp_path: Path) -> None:
    assert main(["versions", str(tmp_path / "store"), "--by", "Dr. Example", "add", str(run)]) == 0
    report(str(run), tmp_path / "report.html", store=tmp_path / "store")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    events = VersionStore(tmp_path / "store").audit.events()
    assert events and all(event["hash"][:12] in text for event in events)
    assert "Dr. Example" in text


def test_a_comparison_has_its_report(run: Path, tmp_path: Path) -> None:
    metrics = {**json.loads((run / "metrics.json").read_text()), "seconds": 1.0}
    results = {"dynammo": {"1": metrics, "2": metrics}, "acl": {"1": metrics}}
    content = {"title": "generated", "seeds": [1, 2], "results": results, "tuned": "Tuned on one order."}
    (tmp_path / RESULTS).write_text(json.dumps(content))
    report(str(tmp_path))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == [] and "script" not in page.tags
    assert "Not finished, and not in the table: acl (seed 2)." in text and "Tuned on one order." in text
    assert text.count("<svg") == 3 and "paired, Student" in text


def test_a_folder_of_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run and no comparison"):
        report(str(tmp_path))


def test_what_a_network_has_learnt_is_drawn(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = json.loads((run / "tasks.json").read_text())[0]["test"][0]["image"]
    assert main(["pictures", str(run), "--image", image, "--output", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *(f"features_{number}.png" for number in (1, 2, 3)),
        *("alignment.png", "confusion_between_tasks.png", "feature_maps.png", "first_filters.png"),
    }
    for name in names:
        with Image.open(tmp_path / "out" / name) as picture:
            picture.load()
    assert main(["pictures", str(run), "--image", str(tmp_path / "gone.png")]) == 1
    assert "is missing: give the file whose feature maps are to be drawn (--image)" in capsys.readouterr().err
