"""Print how long and how hard to read pages are: ``python tools/prose.py README.md docs/tutorials/*.md``.

The grade is the Automated Readability Index (Senter and Smith 1967): years of school, of the letters a word and the
words a sentence. Only running text counts: no code, tables, headings and pictures.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate


@dataclass(frozen=True)
class Prose:
    """What was counted of a page.

    Attributes:
        lines: all of them.
        size: bytes.
        words: all of them, code and tables included.
        sentence: words of the mean sentence.
        grade: years of school.
    """

    lines: int
    size: int
    words: int
    sentence: float
    grade: float


def measure(text: str) -> Prose:
    """Measure a page in Markdown."""
    sentences = [words for sentence in _sentences(text) if (words := re.findall(r"[\w'-]+", sentence))]
    words = [word for sentence in sentences for word in sentence]
    mean = len(words) / max(len(sentences), 1)
    grade = 4.71 * sum(map(len, words)) / max(len(words), 1) + 0.5 * mean - 21.43
    return Prose(len(text.splitlines()), len(text.encode()), len(text.split()), mean, grade)


def _sentences(text: str) -> list[str]:
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    kept = [line for line in text.splitlines() if not re.match(r"\s*(#|\||!\[|:::|<)", line)]
    text = re.sub(r"^\s*([-*]|\d+\.) ", "\n\n", "\n".join(kept), flags=re.M)  # an item of a list is a sentence
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`\n]*`", "code", text)
    return re.split(r"(?<=[.!?])\s+|\n\s*\n", text)


def main(files: Sequence[str]) -> None:
    """Print a table of pages, and of all of them together."""
    texts = {name: Path(name).read_text(encoding="utf-8") for name in files}
    if len(texts) > 1:
        texts["all"] = "\n\n".join(texts.values())
    rows = [[name, *vars(measure(text)).values()] for name, text in texts.items()]
    heads = ("page", "lines", "bytes", "words", "words a sentence", "grade")
    print(tabulate(rows, heads, "github", floatfmt=".1f"))


if __name__ == "__main__":
    main(sys.argv[1:])
