"""The tables of the reference, made when the site is built of what they speak of."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scripts.commands.key_table import TABLE, read_keys, reference

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundle"
CONFIGS = BUNDLE / "configs"
UP = "../../"
"""From the pages of the reference to the root of the repository."""
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def keys() -> str:
    """Return the keys, a table for each section of ``keys.yaml``."""
    sections: list[tuple[str, list[str]]] = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# --- "):
            sections.append((line.removeprefix("# --- "), []))
        elif found := re.match(r"(\S+):$", line):
            sections[-1][1].append(found[1].strip("'\""))
    known = read_keys()
    return "\n\n".join(
        f"## {title[0].upper()}{title[1:]}\n\n{reference(known[place] for place in places)}"
        for title, places in sections
    )


def events() -> str:
    """Return the events in the order in which they are declared, with the classes that act at each."""
    acting = _acting()
    rows = [(f"`{name}`", ", ".join(f"`{who}`" for who in sorted(acting.get(name, ())))) for name in _event_names()]
    return table(("event", "who acts"), rows)


def _event_names() -> list[str]:
    tree = ast.parse((BUNDLE / "scripts/learning/engines/events.py").read_text(encoding="utf-8"))
    (events,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return [node.targets[0].id for node in events.body if isinstance(node, ast.Assign)]  # type: ignore[attr-defined]


def _acting() -> dict[str, set[str]]:
    """Return the classes that name an event, by the event; who fires it, the trainer, is none of them."""
    found: dict[str, set[str]] = {}
    for path in (BUNDLE / "scripts/learning/handlers").glob("*.py"):
        for owner in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)):
            for node in ast.walk(owner):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ContinualEvents":
                    found.setdefault(node.attr, set()).add(owner.name)
    return found


def commands() -> str:
    """Return what each command takes and does, by its own help."""
    from typer.main import get_command

    from scripts.commands.app import everyone

    group = get_command(everyone)
    return "\n\n".join(_command(name, command) for name, command in group.commands.items())  # type: ignore[attr-defined]


def _command(name: str, command: Any) -> str:
    if command.context_settings.get("ignore_unknown_options"):  # it reads its words itself
        return f"## {name}\n\n{command.help}\n\n```\n{_own_help(name)}\n```"
    said = [f"## {name}", command.help.replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n")]
    examples = [line for line in (command.epilog or "").split("\n\n") if line.startswith("dynammo ")]
    said.append("```\n" + "\n".join(examples) + "\n```")
    rows = [_parameter(parameter) for parameter in command.params]
    if rows:
        said.append(table(("takes", "what it is", "default"), rows))
    if "Any key" in (command.epilog or ""):
        said.append("It takes any [key](keys.md), too.")
    return "\n\n".join(said)


def _parameter(parameter: Any) -> tuple[str, str, str]:
    is_option = parameter.param_type_name == "option"
    metavar = parameter.metavar or ("" if getattr(parameter, "is_flag", False) else "N")
    name = f"{parameter.opts[0]} {metavar}".strip() if is_option else metavar
    default = getattr(parameter, "default", None)
    shown = "" if default is None or default is False or callable(default) or "..." in str(default) else f"`{default}`"
    variables = parameter.envvar or []
    read = f"; else `{'`, `'.join([variables] if isinstance(variables, str) else variables)}`" if variables else ""
    return f"`{name}`", f"{parameter.help or ''}{read}", "needed" if parameter.required else shown


def _own_help(name: str) -> str:
    import importlib

    main = importlib.import_module(f"scripts.commands.{name}").main
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main(["--help"])
    return said.getvalue().strip()


def methods() -> str:
    """Return the methods, by their pages."""
    heads = ("method", "what it does", "source", "memory", "tests")
    return table(heads, [_method_row(path) for path in sorted((CONFIGS / "methods").glob("*.yaml"))])


def _method_row(path: Path) -> tuple[str, ...]:
    what, source = _said(path)
    memory = "none" if _content(path).get("memory_size") == 0 else "as given"
    return link(path.stem, path), what, source, memory, _tests(path)


def parts() -> str:
    """Return the parts, by their pages."""
    pages = sorted((CONFIGS / "parts").glob("*.yaml"))
    return table(("part", "what it does", "source"), [(link(path.stem, path), *_said(path)) for path in pages])


def data() -> str:
    """Return the data sets, by their pages."""
    pages = sorted((CONFIGS / "datasets").glob("*.yaml"))
    rows = []
    for path in pages:
        content, (what, source) = _content(path), _said(path)
        source_class = (content.get("source") or _content(CONFIGS / "train.json")["source"])["_target_"].rpartition(".")[2]
        numbers = [str(content.get(key, "")) for key in ("image_size", "memory_size", "adapter_epochs")]
        rows.append((link(path.stem, path), f"{what} {source}".strip(), f"`{source_class}`", *numbers))
    return table(("page", "what it is", "read by", "side (px)", "exemplars", "epochs"), rows)


def published() -> str:
    """Return what the paper's code base lists, and what stands for it here: ``published.yaml``, and the pages."""
    content = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))
    return "\n\n".join(
        f"### {kind}\n\n{table(('there', 'paper', 'here', 'tests'), [_published_row(row) for row in rows])}"
        for kind, rows in content.items()
    )


def _published_row(row: Mapping[str, str]) -> tuple[str, ...]:
    pages = [CONFIGS / f"{name}.yaml" for name in row.get("pages", "").split()]
    there = [path for path in pages if path.is_file()]
    here = ", ".join(link(path.stem, path) for path in there) or row.get("here") or "not yet"
    tests = row.get("tests", "").split()
    tested = ", ".join(link(Path(name).name, ROOT / name) for name in tests) if tests else ""
    found = [_tests(path) for path in there if path.parent.name == "methods"]
    return row["name"], row.get("paper", ""), here, tested or ", ".join(dict.fromkeys(found))


def _said(path: Path) -> tuple[str, str]:
    """Return what a page says of itself in the comments that it begins with, and its source."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in _leading(lines))
    what, _, source = comment.partition("Source: ")
    return what.strip(), _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", source.strip())


def _leading(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("#"):
            return
        yield line


@cache
def _content(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (own for key, own in value.items() if key == "_target_")
        value = list(value.values())
    if isinstance(value, list):
        yield from (name for own in value for name in _targets(own))


def _tests(page: Path) -> str:
    """Return the tests of what a page brings beside the main job: those that mirror its modules."""
    own = set(_targets(_content(page))) - set(_targets(_content(CONFIGS / "train.json")))
    files = {test for name in own if (test := _test_of(name)) is not None}
    shown = [link(path.name, path) for path in sorted(files)]
    return ", ".join([*shown, link("test_method_lifecycle.py", ROOT / "tests/bundle/test_method_lifecycle.py")])


def _test_of(name: str) -> Path | None:
    """Return the test of the module that ``scripts.learning.losses.lwf_loss``, say, comes from."""
    package, _, attribute = name.rpartition(".")
    folder = BUNDLE / package.replace(".", "/")
    if not package.startswith("scripts") or not (folder / "__init__.py").is_file():
        return None
    for node in ast.parse((folder / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom) and attribute in {alias.name for alias in node.names}:
            if (BUNDLE / str(node.module).replace(".", "/")).is_dir():
                return _test_of(f"{node.module}.{attribute}")
            module = Path(*str(node.module).split(".")[1:])
            test = ROOT / "tests" / module.parent / f"test_{module.name}.py"
            return test if test.is_file() else None
    return None


def link(text: str, path: Path) -> str:
    """Return a link from a page of the reference to a file of the repository."""
    return f"[`{text}`]({UP}{path.relative_to(ROOT).as_posix()})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (keys, events, commands, methods, parts, data, published)
}
"""By the names that pages have them by: ``<!-- table: keys -->``."""
