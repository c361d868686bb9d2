"""Every word of the page comes from a file a language, and each file has them all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts.deploy.service.access import NOBODY
from scripts.deploy.service.problems import Cause
from scripts.deploy.service.routes.page import FILES, FOLDER
from scripts.deploy.service.users import Role
from scripts.deploy.versions.gate import Measure
from scripts.imaging.decoding.reasons import Reason
from scripts.model.decisions.results import Doubt

WORDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (FOLDER / "words").glob("*.json")}
PARTS = re.compile(r"\{(\w+)\}")
CALLS = re.compile(r"""say\(\s*(?:[\w.!?&| ]+\?\s*)?"([\w .]+)"(?:\s*:\s*"([\w .]+)")?""")


@pytest.mark.parametrize("language", WORDS)
def test_each_language_says_all_with_the_same_parts(language: str) -> None:
    words, english = WORDS[language], WORDS["en"]
    assert list(words) == list(english)
    for key, text in english.items():
        assert set(PARTS.findall(words[key])) == set(PARTS.findall(text)), key
        assert words[key].strip()
        assert f"{key}.other" not in words, f"{key} would hide its plural"


def test_what_the_page_says_is_in_the_files() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    wanted = set(re.findall(r'data-(?:word|label)="([^"]+)"', page))
    for name, path in FILES.items():
        if name.endswith(".js"):
            wanted |= {key for keys in CALLS.findall(path.read_text(encoding="utf-8")) for key in keys if key}
    assert len(wanted) > 120
    assert [key for key in sorted(wanted) if key not in WORDS["en"] and f"{key}.other" not in WORDS["en"]] == []
    for doubt in Doubt:
        assert {f"doubt.{doubt}", f"answer.{doubt}", f"answer.{doubt}.do"} <= WORDS["en"].keys()
    assert {f"compare.{measure}" for measure in (Measure.MEAN_LOSS, Measure.MEAN_RECALL)} <= WORDS["en"].keys()
    assert {f"role.{role}" for role in Role} <= WORDS["en"].keys()


def test_whatever_a_person_may_be_refused_has_words() -> None:
    codes = [*Reason, *Cause]
    assert len(set(codes)) == len(codes), "one code means one thing"
    reasons = {key.removeprefix("reason.") for key in WORDS["en"] if key.startswith("reason.")}
    assert reasons == set(codes)


def test_who_sits_there_where_nobody_signs_in_has_words() -> None:
    assert WORDS["en"]["person.nobody"] == NOBODY.name
    assert f'NOBODY = "{NOBODY.name}"' in (FOLDER / "tools.js").read_text(encoding="utf-8")


def test_the_page_has_no_words_of_its_own() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    said = [text.strip() for text in re.findall(r">([^<]+)<", page.partition("<body>")[2]) if text.strip()]
    assert said == ["English", "Deutsch", "−", "+"]
    assert "Continual classifier" in page, "what a tab says before the script has run"


def test_every_file_of_the_page_is_served_as_what_it_is() -> None:
    assert {"page.css", "main.js", "words/en.json", "words/de.json"} <= FILES.keys()
    assert all(isinstance(path, Path) and path.is_file() for path in FILES.values())
