"""Tables as people export them, read as an independent reader reads them; what is none is refused by its line."""

from __future__ import annotations

import csv
import importlib.util
import logging
from pathlib import Path

import pytest

from scripts.utils.errors import UserError
from scripts.utils.tables import read_table

COLUMNS = ["path", "label"]


def truth(path: Path, mark: str) -> list[dict[str, str]]:
    """Return what pandas reads, or else the csv module on its own."""
    if importlib.util.find_spec("pandas"):
        import pandas

        rows: list[dict[str, str]] = pandas.read_csv(path, sep=mark, dtype=str, keep_default_na=False).to_dict(
            "records"
        )
        return rows
    csv.field_size_limit(2**31 - 1)
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter=mark))


def table(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "mark"])
@pytest.mark.parametrize(
    "report",
    [
        "Findings: none",
        '"a; b, c\td"',
        '"two\nlines"',
        '"two\r\nlines"',
        '"5"" wide"',
        '5" wide',
        *(f"Findings:{odd}none" for odd in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\xa0"),
        "x" * 140_000,
        "",
    ],
    ids=lambda report: ascii(report)[:20],
)
def test_a_table_is_read_as_others_read_it(tmp_path: Path, mark: str, end: str, start: str, report: str) -> None:
    rows = [["path", "label", "report"], *([f"{number}.png", "a", report] for number in range(3))]
    path = table(tmp_path / "t.csv", start + end.join(mark.join(row) for row in rows) + end)
    read = list(read_table(str(path), COLUMNS).values())
    assert read == truth(path, mark)
    assert [row["path"] for row in read] == ["0.png", "1.png", "2.png"]


def test_what_is_between_the_cells_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read_table(str(table(tmp_path / "a.csv", "path,label\n1.png,a\n")), COLUMNS)
    assert not caplog.messages
    read_table(str(table(tmp_path / "b.csv", "path;label\n1.png;a\n")), COLUMNS)
    read_table(str(table(tmp_path / "c.csv", "path\tlabel\n1.png\ta\n")), COLUMNS)
    assert caplog.messages == [
        f"{tmp_path}/b.csv has semicolons between its cells",
        f"{tmp_path}/c.csv has tabs between its cells",
    ]


def test_the_columns_that_are_asked_for_tell_what_is_between_the_cells(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "path;label;age, sex, site, side, size\n1.png;a;1, f, x, y, z\n")
    assert read_table(str(path), COLUMNS) == {
        2: {"path": "1.png", "label": "a", "age, sex, site, side, size": "1, f, x, y, z"}
    }


def test_a_row_is_known_by_the_line_that_it_begins_on(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", 'path,label\n1.png,"a\nb"\n\n2.png,c\n')
    assert list(read_table(str(path), COLUMNS)) == [2, 5]
    with pytest.raises(UserError, match="^line 5 of .*t.csv has no label: every image needs one$"):
        read_table(str(table(path, 'path,label\n1.png,"a\nb"\n\n2.png, \n')), COLUMNS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "t.csv has no column 'path': it needs path, label, and has nothing; ask$"),
        ("path,dx\n", "t.csv has no column 'label': it needs path, label, and has path, dx; ask$"),
        ("path,label,label\n", "t.csv has two columns 'label'"),
        ("path,label\n1.png,a,b\n", "^line 2 of .*t.csv has 3 cells, its header 2: put what holds a comma"),
        ('path,label\n1.png,a\n2.png,"a\n3.png,b\n', "^line 3 of .*t.csv cannot be read .*: mend its quotes$"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_table(str(table(tmp_path / "t.csv", content)), COLUMNS, "; ask")


def test_a_row_may_end_in_empty_cells_or_lack_those_that_nobody_needs(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "path,label,report\n1.png,a,x,,\n2.png,b\n")
    assert [row["report"] for row in read_table(str(path), COLUMNS).values()] == ["x", ""]
