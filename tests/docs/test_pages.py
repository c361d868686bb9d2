"""The pages: README within its bounds, tables that lack nothing, names and links that lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from scripts.commands.app import everyone
from scripts.commands.configs import known_configs
from scripts.commands.key_table import read_keys
from scripts.learning.engines import ContinualEvents

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "bundle/docs/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def module(path: Path) -> ModuleType:
    """Import a module of the build by its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found  # for its dataclasses
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def tables() -> Iterator[ModuleType]:
    yield module(ROOT / "docs/_build/tables.py")
    del sys.modules["tables"]


def test_readme_is_one_page() -> None:
    prose = module(ROOT / "tools/prose.py").measure((ROOT / "README.md").read_text(encoding="utf-8"))
    assert prose.lines <= 150 and prose.size <= 10 * 1024 and prose.sentence < 18


def test_prose_counts_running_text_alone() -> None:
    text = "# Title\n\nOne two three. Four five six!\n\n```\nnot\n```\n\n| nor | this |\n\n- seven [eight](p.md) `x`\n"
    assert module(ROOT / "tools/prose.py").measure(text).sentence == 3


def test_each_key_event_command_method_part_and_data_set_is_in_its_table(tables: ModuleType) -> None:
    from typer.main import get_command

    expected = {
        "keys": list(read_keys()),
        "events": [event.name for event in ContinualEvents],
        "methods": list(known_configs("methods")),
        "parts": list(known_configs("parts")),
        "data": list(known_configs("datasets")),
    }
    missing = {
        name: [word for word in words if f"`{word}`" not in tables.TABLES[name]()] for name, words in expected.items()
    }
    commands = tables.TABLES["commands"]()
    missing["commands"] = [name for name in get_command(everyone).commands if f"\n## {name}\n" not in f"\n{commands}\n"]  # type: ignore[attr-defined]
    assert missing == dict.fromkeys(missing, [])


def test_each_method_names_its_source_and_a_test_that_is_there(tables: ModuleType) -> None:
    rows = tables.TABLES["methods"]().splitlines()[2:]
    without = [row.split("`")[1] for row in rows if not row.split("|")[3].strip()]
    assert without == ["dynammo_others", "finetune", "joint", "joint_til"], "baselines, and a head of DynaMMo's paper"
    links = re.findall(r"\]\(\.\./\.\./(tests/[^)]*)\)", "\n".join(rows))
    assert links and [link for link in links if not (ROOT / link).is_file()] == []


def test_what_the_published_code_base_lists_has_tests_that_are_there() -> None:
    content = yaml.safe_load((ROOT / "docs/_build/published.yaml").read_text(encoding="utf-8"))
    tests = [name for rows in content.values() for row in rows for name in row.get("tests", "").split()]
    assert tests and [name for name in tests if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_configs_that_a_page_names_exist(page: Path) -> None:
    from typer.main import get_command

    text = page.read_text(encoding="utf-8")
    known = set(get_command(everyone).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"^dynammo ([a-z]+)", text, re.M)) | set(re.findall(r"`dynammo ([a-z]+)", text))
    assert named <= known
    configs = set(re.findall(r"'(configs/[\w/+]+\.(?:json|yaml))'", text)) - {"configs/torchscript.json"}
    assert [name for name in configs if not (ROOT / "bundle" / name).is_file()] == []
    modules = set(re.findall(r"python -m (scripts[\w.]*)", text))
    files = [ROOT / "bundle" / name.replace(".", "/") for name in modules]
    assert [file for file in files if not (file.is_dir() or file.with_suffix(".py").is_file())] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if not (page.parent / link).is_file()] == []
