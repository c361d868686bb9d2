"""Properties of the repository: what is tracked, who imports whom, and what an installation may bring."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "bundle" / "scripts"
MEGABYTE = 1_000_000

# The rooms of the code, from the top down, and the rooms each may import besides itself and the modules that lie
# directly in `scripts` (docs/DESIGN.md). `transforms` stands above `tasks`: how one image is read (npz entries, RGB) is
# written once, there. Nothing imports `commands`.
MAY_IMPORT: dict[str, set[str]] = {
    "decoding": set(),
    "edge": {"decoding"},
    "transforms": {"decoding"},
    "tasks": {"decoding", "transforms"},
    "memory": {"decoding", "transforms", "tasks"},
    "networks": set(),
    "losses": {"networks"},
    "metrics": {"edge"},
    "engines": {"tasks", "memory", "networks", "losses", "metrics"},
    "handlers": {"edge", "transforms", "tasks", "memory", "networks", "losses", "metrics", "engines"},
    "versions": {"metrics"},
    "inference": {"decoding", "edge", "transforms", "networks", "metrics", "versions"},
    "node": {"decoding", "transforms", "inference"},
    "service": {"decoding", "edge", "transforms", "metrics", "versions", "inference"},
}
MAY_IMPORT["commands"] = set(MAY_IMPORT)

# What no tracked file may hold: a folder of somebody's machine, and where packages come from.
PERSONAL = {
    "a personal path": re.compile(rb"(?<![\w.~$}{*-])/(home|root|Users|work|workspace)/\w|[A-Z]:\\Users\\"),
    "a package source": re.compile(rb"--((extra-)?index-url|find-links|trusted-host)\b|/simple/?\s"),
    "an internal host": re.compile(rb"https?://([\w.-]+\.(internal|corp|lan|local)\b|10\.|192\.168\.)"),
}


def tracked_files() -> list[Path]:
    """Return the files that git tracks or, new, would be asked to track."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip(f"not a git checkout: {listing.stderr.strip()}")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def modules() -> list[Path]:
    return sorted(SCRIPTS.rglob("*.py"))


def imported_modules(source: str, package: str) -> set[str]:
    """Return the dotted names that ``source``, a module of ``package``, imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def rooms_of(names: set[str]) -> set[str]:
    """Return the rooms among imported names: ``scripts.engines.stage`` and ``scripts.engines`` are in ``engines``."""
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "scripts" and len(part) > 1 and part[1] in MAY_IMPORT}


def package_of(path: Path) -> str:
    return ".".join(["scripts", *path.relative_to(SCRIPTS).parent.parts])


def requirements(section: str, option: str) -> list[Requirement]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings[section][option].splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def dependencies(name: str) -> set[NormalizedName]:
    """Return the canonical names of all that an installed distribution needs on this machine."""
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    waiting: list[tuple[NormalizedName, frozenset[str]]] = [(canonicalize_name(name), frozenset())]
    while waiting:
        item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        for requirement in map(Requirement, importlib.metadata.requires(item[0]) or []):
            environments = [{"extra": extra} for extra in item[1] | {""}]
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return {found for found, _ in seen} - {canonicalize_name(name)}


def test_tracked_files_are_small() -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked_files()}
    assert {name: size for name, size in large.items() if size >= MEGABYTE} == {}


def test_tracked_files_name_nobodys_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {what}: {match.group().decode()}"
        for path in tracked_files()
        for what, pattern in PERSONAL.items()
        for match in pattern.finditer(path.read_bytes())
    ]
    assert found == []


PARTS = [("/home", "/jo"), ("C:", "\\Users\\jo"), ("http://", "10.1.2.3/"), ("--index", "-url")]


@pytest.mark.parametrize("parts", PARTS, ids="".join)
def test_personal_things_are_found(parts: tuple[str, str]) -> None:
    assert any(pattern.search("".join(parts).encode()) for pattern in PERSONAL.values())


@pytest.mark.parametrize("path", sorted((ROOT / "bundle" / "configs").rglob("*.json")), ids=lambda path: path.name)
def test_configs_are_json_with_indent_4(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert isinstance(json.loads(text), dict)
    odd = [line for line in text.splitlines() if (len(line) - len(line.lstrip(" "))) % 4 or line.startswith("\t")]
    assert odd == []
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from scripts.handlers import X", {"handlers"}),
        ("from scripts import handlers", {"handlers"}),
        ("import scripts.handlers.report", {"handlers"}),
        ("def f():\n    from ..handlers.report import X", {"handlers"}),
        ("from .. import handlers", {"handlers"}),
        ("from . import stage", {"engines"}),
        ("from scripts.errors import UserError\nimport torch", set()),
    ],
)
def test_every_form_of_import_is_seen(source: str, rooms: set[str]) -> None:
    assert rooms_of(imported_modules(source, "scripts.engines")) == rooms


def test_every_folder_of_the_code_is_a_room() -> None:
    assert {path.relative_to(SCRIPTS).parts[0] for path in modules() if path.parent != SCRIPTS} <= set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_stands_above_them(room: str) -> None:
    wrong = {
        str(path.relative_to(SCRIPTS)): sorted(foreign)
        for path in (SCRIPTS / room).rglob("*.py")
        if (foreign := rooms_of(imported_modules(path.read_text(), package_of(path))) - MAY_IMPORT[room] - {room})
    }
    assert wrong == {}


def test_the_modules_beside_the_rooms_import_no_room() -> None:
    wrong = {
        path.name: sorted(rooms)
        for path in SCRIPTS.glob("*.py")
        if (rooms := rooms_of(imported_modules(path.read_text(), "scripts")))
    }
    assert wrong == {}


def code_lines(path: Path) -> list[str]:
    """Return the lines of a module without indentation, imports, comments and lone brackets."""
    stripped = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in stripped if len(line) > 3 and not line.startswith(("#", "import ", "from "))]


def test_methods_share_the_engine_instead_of_repeating_each_other() -> None:
    run = 3  # so many equal lines in a row count as written twice
    lines = {path: code_lines(path) for path in SCRIPTS.rglob("*.py") if path.name != "__init__.py"}
    places = Counter(tuple(code[at : at + run]) for code in lines.values() for at in range(len(code) - run + 1))
    own = {path: code for path, code in lines.items() if path.parent.name in ("handlers", "losses")}
    own |= {path: lines[path] for path in (SCRIPTS / "networks").glob("heads*.py")}
    repeated = {
        (path, line)
        for path, code in own.items()
        for at in range(len(code) - run + 1)
        if places[tuple(code[at : at + run])] > 1
        for line in range(at, at + run)
    }
    assert len(repeated) < 0.1 * sum(map(len, own.values()))


def test_only_commands_read_configs() -> None:
    readers = {
        path.relative_to(SCRIPTS).parts[0]
        for path in modules()
        if any(name.startswith("monai.bundle") for name in imported_modules(path.read_text(), package_of(path)))
    }
    assert readers <= {"commands", "run_config.py"}


def test_no_package_called_scripts_is_installed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(SCRIPTS, source / "bundle" / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source / "bundle" / "scripts", source / "scripts")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert {name.split("/")[0].rpartition(".")[2] for name in zipfile.ZipFile(wheel).namelist()} == {"dist-info"}
    assert "scripts" not in importlib.metadata.packages_distributions()


def test_every_imported_package_is_a_direct_dependency() -> None:
    direct = {canonicalize_name(requirement.name) for requirement in requirements("options", "install_requires")}
    providers = importlib.metadata.packages_distributions()
    imported = {
        name.split(".")[0] for path in modules() for name in imported_modules(path.read_text(), package_of(path))
    }
    foreign = imported - set(sys.stdlib_module_names) - {"scripts"}
    assert {name for name in foreign if not direct & set(map(canonicalize_name, providers.get(name, [])))} == set()


def test_every_dependency_is_pinned_at_the_installed_version() -> None:
    direct = requirements("options", "install_requires") + requirements("options.extras_require", "dev")
    needed = {canonicalize_name(requirement.name) for requirement in direct}
    needed |= {name for requirement in direct for name in dependencies(requirement.name)}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert {name: importlib.metadata.version(name) for name in needed} == {name: pins.get(name) for name in needed}
