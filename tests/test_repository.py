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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "bundle" / "scripts"
CONFIGS = sorted(path for kind in ("json", "yaml") for path in (ROOT / "bundle" / "configs").rglob(f"*.{kind}"))
MEGABYTE = 1_000_000

# The rooms of the code, from the top down, and the rooms each may import besides itself (the docs, How it works).
# Modules that lie directly in a wing are a room called like it. The wings `learning` and `deploy` never meet; nothing
# imports `commands`.
IMAGING = {"imaging", "imaging.decoding", "imaging.transforms"}
MODEL = {"model", "model.decisions", "model.networks"}
MAY_IMPORT: dict[str, set[str]] = {
    "utils": set(),
    "imaging": {"utils"},
    "imaging.decoding": {"utils"},
    "imaging.transforms": {"utils", "imaging", "imaging.decoding"},
    "model.decisions": {"utils", "imaging.decoding"},
    "model.networks": {"utils", "imaging"},
    "model": {"utils", "imaging", "model.decisions", "model.networks"},
    "metrics": {"utils"},
    "federation": {"utils", "imaging", *MODEL},
    "pictures": {"utils", "metrics"},
    "learning": {"utils"},
    "learning.sources": {"utils", *IMAGING},
    "learning.tasks": {"utils", *IMAGING, "learning.sources"},
    "learning.planning": {"utils", *IMAGING, "learning.sources", "learning.tasks"},
    "learning.features": {"utils", *IMAGING, *MODEL, "learning.sources", "learning.tasks"},
    "learning.memory": {"utils", *IMAGING, "learning.sources", "learning.tasks", "learning.features"},
    "learning.losses": {*MODEL},
    "deploy": {"utils", "imaging.decoding"},
    "deploy.dicom": {"utils", *IMAGING, "model.decisions"},
    "deploy.messages": {"utils", "imaging.decoding", "model.decisions", "deploy.dicom"},
    "deploy.edge": {"utils", "imaging", "imaging.decoding", "model.decisions"},
    "deploy.export": {"utils", "imaging", *MODEL, "metrics", "deploy.edge"},
    "deploy.versions": {"utils", *MODEL, "metrics"},
    "deploy.inference": {"utils", *IMAGING, *MODEL, "pictures", "deploy.dicom", "deploy.versions"},
    "deploy.node": {"utils", *IMAGING, "deploy", "deploy.dicom", "deploy.messages", "deploy.inference"},
    "deploy.service": {"utils", *IMAGING, *MODEL, "metrics", "deploy", "deploy.inference", "deploy.versions"},
}
_LEARNT_FROM = {room for room in MAY_IMPORT if room.startswith("learning")}
MAY_IMPORT["learning.engines"] = {"utils", *IMAGING, *MODEL, "metrics", "pictures"} | _LEARNT_FROM
MAY_IMPORT["learning.handlers"] = MAY_IMPORT["learning.engines"] | {"learning.engines"}
MAY_IMPORT["learning.evaluation"] = {"utils", *MODEL, "metrics", "pictures", "learning.sources", "learning.tasks"}
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


def room_of(name: str) -> str:
    """Return the room of a dotted name: ``scripts.learning.engines.stage`` is in ``learning.engines``; "": in none."""
    parts = name.split(".")[1:3]
    return next((room for room in (".".join(parts), parts[0] if parts else "") if room in MAY_IMPORT), "")


def rooms_of(names: set[str]) -> set[str]:
    """Return the rooms of imported names, those of other packages left out."""
    return {room for name in names if name.startswith("scripts.") and (room := room_of(name))}


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
        ("from scripts.learning.handlers import X", {"learning.handlers"}),
        ("from scripts.learning import handlers", {"learning.handlers"}),
        ("import scripts.learning.handlers.report", {"learning.handlers"}),
        ("def f():\n    from ..handlers.report import X", {"learning.handlers"}),
        ("from .. import handlers", {"learning.handlers"}),
        ("from . import stage", {"learning.engines"}),
        ("from scripts.utils.errors import UserError\nimport torch", {"utils"}),
    ],
)
def test_every_form_of_import_is_seen(source: str, rooms: set[str]) -> None:
    assert rooms_of(imported_modules(source, "scripts.learning.engines")) == rooms


def modules_by_room() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {room: [] for room in MAY_IMPORT}
    for path in modules():
        if path.parent != SCRIPTS:
            found[room_of(f"{package_of(path)}.{path.stem}")].append(path)
    return found


def test_every_folder_of_the_code_is_a_room() -> None:
    assert [room for room, paths in modules_by_room().items() if not paths] == []


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_stands_above_them(room: str) -> None:
    wrong = {
        str(path.relative_to(SCRIPTS)): sorted(foreign)
        for path in modules_by_room()[room]
        if (foreign := rooms_of(imported_modules(path.read_text(), package_of(path))) - MAY_IMPORT[room] - {room})
    }
    assert wrong == {}


def test_rooms_stand_one_above_the_other() -> None:
    waiting, order = dict(MAY_IMPORT), list[str]()
    while free := [room for room, above in waiting.items() if above <= {*order, room}]:
        order += free
        waiting = {room: above for room, above in waiting.items() if room not in free}
    assert waiting == {}


def test_the_wings_never_meet() -> None:
    wings = [{room for room in MAY_IMPORT if room.split(".")[0] == wing} for wing in ("learning", "deploy")]
    for own, other in (wings, wings[::-1]):
        assert {room for room in own if MAY_IMPORT[room] & other} == set()
    assert {room for room, above in MAY_IMPORT.items() if "commands" in above} == set()


def test_no_any_hides_an_import() -> None:
    """A parameter is not typed ``Any`` where its description names a class of the bundle."""
    hidden = []
    for path in modules():
        for node in ast.walk(tree := ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            owner = next((one for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and node in one.body), node)
            said = f"{ast.get_docstring(owner) or ''}\n{ast.get_docstring(node) or ''}"
            for argument in (*node.args.args, *node.args.kwonlyargs):
                is_any = isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Any"
                if is_any and re.search(rf"^\s*{argument.arg}: .*:class:`scripts", said, re.M):
                    hidden.append(f"{path.relative_to(SCRIPTS)}: {argument.arg}")
    assert hidden == []


@pytest.mark.parametrize("package", ["imaging", "model", "utils", "learning", "deploy"])
def test_packages_that_start_processes_import_nothing(package: str) -> None:
    path = SCRIPTS / package / "__init__.py"
    assert imported_modules(path.read_text(), f"scripts.{package}") == set()


@pytest.mark.parametrize(
    "module", ["imaging.decoding.worker", "deploy.edge.classifier", "deploy.versions", "commands.backup"]
)
def test_what_must_start_soon_loads_no_torch(module: str) -> None:
    loaded = f"import sys, scripts.{module}; print([name for name in ('torch', 'monai') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=SCRIPTS.parent, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def targets(value: Any) -> Iterator[str]:
    """Yield the names of the objects in a config."""
    if isinstance(value, dict):
        yield from (own for key, own in value.items() if key == "_target_")
        yield from (name for own in value.values() for name in targets(own))
    elif isinstance(value, list):
        yield from (name for own in value for name in targets(own))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_names_in_configs_are_short(path: Path) -> None:
    """A name is at most as deep as ``scripts.learning.handlers.X``; a class may name one of its own constructors."""
    deep = [
        name for name in targets(ConfigParser.load_config_file(path)) if re.match(r"scripts(\.[a-z_0-9]+){4}", name)
    ]
    assert deep == []


def code_lines(path: Path) -> list[str]:
    """Return the lines of a module without indentation, imports, comments and lone brackets."""
    stripped = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in stripped if len(line) > 3 and not line.startswith(("#", "import ", "from "))]


def test_methods_share_the_engine_instead_of_repeating_each_other() -> None:
    run = 3  # so many equal lines in a row count as written twice
    lines = {path: code_lines(path) for path in SCRIPTS.rglob("*.py") if path.name != "__init__.py"}
    places = Counter(tuple(code[at : at + run]) for code in lines.values() for at in range(len(code) - run + 1))
    own = {path: code for path, code in lines.items() if path.parent.name in ("handlers", "losses")}
    own |= {path: lines[path] for path in (SCRIPTS / "model" / "networks").glob("heads*.py")}
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
        path.relative_to(SCRIPTS).as_posix()
        for path in modules()
        if path.relative_to(SCRIPTS).parts[0] != "commands"
        if any(name.startswith("monai.bundle") for name in imported_modules(path.read_text(), package_of(path)))
    }
    assert readers <= {"learning/run_config.py", "utils/running.py"}


def test_no_package_called_scripts_is_installed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in ("dynammo", "bundle/scripts", "bundle/configs"):
        shutil.copytree(ROOT / folder, source / folder)
    for written in ("runs", "data"):
        (source / "bundle" / written).mkdir()
        (source / "bundle" / written / "file.json").touch()
    shutil.copytree(source / "bundle" / "scripts", source / "scripts")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].rpartition(".")[2] for name in names} == {"dynammo", "dist-info"}
    assert {"dynammo/bundle/configs/keys.yaml", "dynammo/bundle/scripts/commands/app.py"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "/runs/" in name or "/data/" in name]
    assert "scripts" not in importlib.metadata.packages_distributions()


def test_every_imported_package_is_a_direct_dependency() -> None:
    given = requirements("options", "install_requires") + [
        requirement
        for extra in ("timm", "mlflow", "search", "cluster", "fhir", "hl7", "deidentify", "privacy", "nvflare")
        for requirement in requirements("options.extras_require", extra)
    ]
    direct = {canonicalize_name(requirement.name) for requirement in given}
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
    pins = pinned()
    assert {name: importlib.metadata.version(name) for name in needed} == {name: pins.get(name) for name in needed}


def test_every_extra_is_pinned_within_its_range() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    pins = pinned()
    for extra in settings["options.extras_require"]:
        for requirement in requirements("options.extras_require", extra):
            if requirement.name != settings["metadata"]["name"]:
                assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def pinned() -> dict[NormalizedName, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
