"""What the site adds to the pages of ``docs``: tables made of the code, and files of the repository that pages link to.

A page is read in two places: in the repository, where ``../README.md`` is a file, and on the site, which knows the
folder ``docs`` alone. So a link that leads out of ``docs`` brings its file along, and is turned to where it lies there.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "bundle")]

from tables import TABLES  # noqa: E402

HOME = {"README.md": "index.md"}
"""Files of the repository with a name of their own on the site."""
NAMED = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bundle/docs/CONFORMANCE.md")
"""Files that the navigation names, whether or not a page links to them."""
_LINK = re.compile(r"```.*?```|(?P<text>!?\[[^\]]*\]\()(?P<path>[^)\s#]+)(?P<rest>(?:#[^)\s]*)?\))|`[^`\n]*`", re.S)
"""A link, or code, in which nothing is one."""
_TABLE = re.compile(r"<!-- table: (\w+) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring in what pages link to outside of ``docs``, and what those link to."""
    waiting = [*HOME, *NAMED]
    for file in files.documentation_pages():
        if file.src_uri.endswith(".md"):
            waiting += _outside(f"docs/{file.src_uri}")
    seen = set[str]()
    while waiting:
        path = waiting.pop()
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        files.append(File.generated(config, _uri(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting += _outside(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the tables, and turn links to where files lie on the site."""
    source = _source(page.file.src_uri)
    if not source.endswith(".md"):
        return markdown
    own = posixpath.dirname(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        target = _target(source, match["path"])
        if target is None:
            return match[0]
        return f"{match['text']}{posixpath.relpath(_uri(target), own or '.')}{match['rest']}"

    return _LINK.sub(turned, _filled(markdown))


def _filled(markdown: str) -> str:
    return _TABLE.sub(lambda match: TABLES[match[1]](), markdown)


def _outside(path: str) -> list[str]:
    """Return the files outside of ``docs`` that a page of the repository links to."""
    text = _filled((ROOT / path).read_text(encoding="utf-8"))
    targets = [_target(path, match["path"]) for match in _LINK.finditer(text)]
    return [target for target in targets if target is not None and not target.startswith("docs/")]


def _target(source: str, link: str | None) -> str | None:
    """Return the file of the repository that a relative link leads to; ``None``: it is none."""
    if link is None or re.match(r"[a-z]+:|/", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _uri(path: str) -> str:
    return HOME.get(path, path.removeprefix("docs/") if path.startswith("docs/") else path)


def _source(uri: str) -> str:
    """Return the file of the repository that a page of the site is."""
    known = {site: path for path, site in HOME.items()}
    inside = ROOT / "docs" / uri
    return known.get(uri) or (f"docs/{uri}" if inside.is_file() else uri)
