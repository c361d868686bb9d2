"""Tables as people export them: commas, semicolons or tabs between the cells, and only CR and LF ending a row."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator, Sequence

from scripts.utils.errors import UserError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_LONGEST = 2**31 - 1  # a cell's characters: all that the csv module can be told on every system

logger = logging.getLogger(__name__)


def read_table(
    file: str, columns: Sequence[str], advice: str = "", may_be_empty: Sequence[str] = ()
) -> dict[int, dict[str, str]]:
    """Read a CSV file with a header.

    What is between the cells is found out: that of commas, semicolons and tabs which gives the header most of the
    columns, and most cells.

    Args:
        file: the CSV file.
        columns: what every row must have.
        advice: what to do where a column is missing.
        may_be_empty: those of the columns whose cells need no value.

    Returns:
        The rows, each a dict, by the number of the line that it begins on.

    Raises:
        UserError: where the file, a column or a value is missing, or it is no table; it names the line.
    """
    header, *rows = read_cells(file, columns) or [(1, [])]
    names = header[1]
    for column in columns:
        if names.count(column) != 1:
            found = ", ".join(names) or "nothing"
            what = "two columns" if column in names else "no column"
            raise UserError(f"{file} has {what} {column!r}: it needs {', '.join(columns)}, and has {found}{advice}")
    table = {line: dict(zip(names, [*cells, *[""] * len(names)], strict=False)) for line, cells in rows}
    for line, cells in rows:
        if any(cells[len(names) :]):
            raise UserError(
                f"line {line} of {file} has {len(cells)} cells, its header {len(names)}: put what holds a comma (or "
                "whatever is between the cells) in quotes"
            )
        for column in columns:
            if column not in may_be_empty and not table[line][column].strip():
                raise UserError(f"line {line} of {file} has no {column}: every image needs one")
    return table


def read_cells(file: str, columns: Sequence[str] = ()) -> list[tuple[int, list[str]]]:
    """Read all rows of a CSV file that hold anything, the header first, each with the line that it begins on.

    Args:
        file: the CSV file, UTF-8, with or without a byte order mark.
        columns: names that the header should have; they tell what is between the cells.

    Raises:
        UserError: where the file is missing, is no text, or quotes are left open.
    """
    text = read_text(file, f"columns {','.join(columns)}" if columns else "columns of paths and labels")
    csv.field_size_limit(_LONGEST)  # of the process; a radiology report alone may be longer than the usual limit
    headers = {mark: _header(file, text, mark) for mark in DELIMITERS}
    mark = max(headers, key=lambda mark: (len(set(columns) & set(headers[mark])), len(headers[mark])))
    if mark != ",":
        logger.info("%s has %s between its cells", file, DELIMITERS[mark])
    return list(_rows(file, text, mark))


def read_text(path: str, layout: str) -> str:
    """Read a text file, its line ends as they are.

    Args:
        path: the file.
        layout: what an error says of how it should be.

    Raises:
        UserError: where it is missing or no UTF-8.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        wrong = "is a file" if os.path.isfile(folder) else "is missing"
        raise UserError(f"data folder {folder} {wrong}: it needs {os.path.basename(path)}, {layout}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"list {path} is missing: it needs {layout}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read ({error}): it must be UTF-8 text, {layout}") from error


def _header(file: str, text: str, mark: str) -> list[str]:
    """Return the first row as it would be; empty where it would be none."""
    try:
        return next(_rows(file, text, mark), (1, []))[1]
    except UserError:
        return []


def _rows(file: str, text: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    # str.splitlines would end rows at characters that reports hold; strict: or an open quote swallows all that follows
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"line {line} of {file} cannot be read ({error}): mend its quotes") from error
