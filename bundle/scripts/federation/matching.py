"""Which classes of several sites are one: by code, by name, or as a person says in a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.federation.contribution import Contribution
from scripts.utils.errors import UserError
from scripts.utils.files import write_csv

TABLE = "classes.csv"
COLUMNS = ("site", "class", "code", "images", "as")

Names = dict[tuple[str, str], str]
"""Of a site's class, what it is called in the federation."""


def match_classes(contributions: Sequence[Contribution], known: Mapping[str, str], table: Path) -> Names:
    """Find what each class of each site is called in the federation.

    A class is another's where their codes are the same, or their names, unless their codes differ. What only one site
    has may be a new class or another spelling: a person says which.

    Args:
        contributions: of all sites.
        known: the federation's classes so far, each with its code as text (empty: none); none yet: what two sites have.
        table: a CSV file that a person fills in; written with what is not known.

    Raises:
        UserError: when the table has to be filled in.
    """
    said = read_table(table)
    names = dict(known) or _common(contributions)
    by_code = {code: name for name, code in names.items() if code}
    found: Names = {}
    unknown: list[tuple[str, str]] = []
    rows = []
    for contribution in contributions:
        for own in contribution.classes:
            key, code = (contribution.site, own["name"]), code_text(own["code"])
            meant = said.get(key) or by_code.get(code) or (own["name"] if _same(names, own["name"], code) else "")
            rows.append([*key, code, "" if own["images"] is None else own["images"], meant])
            found[key] = meant
            if not meant:
                unknown.append(key)
    if unknown:
        write_csv(table, [COLUMNS, *rows])
        listed = ", ".join(f"{name} of {site}" for site, name in unknown)
        raise UserError(
            f"these classes have no like at the other sites, or another code: {listed}. Write into the column 'as' of "
            f"{table} which class each is (a new one: its own name; classes there are: {', '.join(names) or 'none'}), "
            "then run again"
        )
    return found


def read_table(table: Path) -> Names:
    """Read what a person has filled in; nothing where there is no table.

    Raises:
        UserError: when it has other columns.
    """
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"site", "class", "as"} <= set(reader.fieldnames or ()):
            raise UserError(f"{table} has not the columns {', '.join(COLUMNS)}: delete it and run again")
        return {(row["site"], row["class"]): (row["as"] or "").strip() for row in reader}


def code_text(code: Sequence[str] | None) -> str:
    """Return a public code as text, scheme and code: the meaning is for readers."""
    return "" if code is None else " ".join(code[:2])


def codes_of(contributions: Sequence[Contribution], names: Names) -> dict[str, str]:
    """Return the federation's classes in the order in which they came, each with its code as text."""
    found: dict[str, str] = {}
    for contribution in contributions:
        for own in contribution.classes:
            name = names[contribution.site, own["name"]]
            found[name] = found.get(name) or code_text(own["code"])
    return found


def _same(names: Mapping[str, str], name: str, code: str) -> bool:
    return name in names and not (code and names[name] and code != names[name])


def _common(contributions: Sequence[Contribution]) -> dict[str, str]:
    """Return the classes that two sites have by name, or the only one, with their codes."""
    codes: dict[str, list[str]] = {}
    for one in contributions:
        for own in one.classes:
            codes.setdefault(own["name"], []).append(code_text(own["code"]))
    least = min(2, len(contributions))
    return {name: next(filter(None, said), "") for name, said in codes.items() if len(said) >= least}
