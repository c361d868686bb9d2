"""Keep versions of a trained model: ``python -m scripts.commands.versions STORE add RUN``, and what follows from it.

What tests or compares models is imported where it is needed: to go back to an earlier version must not wait for torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from scripts.commands.terminal import end
from scripts.errors import UserError
from scripts.versions.store import CARD, PROMOTED, VersionStore


class Refused(UserError):
    """The gate refuses a version."""

    exit_status = 3


def promote(store: VersionStore, number: int, margin: float, floor: float) -> str:
    """Serve a version from now on, where the gate lets it pass.

    Args:
        store: where versions are kept.
        number: of the version.
        margin: see :class:`scripts.versions.gate.Gate`.
        floor: as the margin.

    Raises:
        Refused: says what the gate objects to; what is served stays.
    """
    from scripts.versions.gate import Gate, answers_of

    version, served = store.version(number), store.promoted()
    for compared in filter(None, (version, served)):
        store.check_version(compared)
    objections = Gate(margin, floor).objections(answers_of(version), None if served is None else answers_of(served))
    if objections:
        store.refuse(number, objections)
        stays = "nothing is served yet" if served is None else f"version {served.number} is served as before"
        raise Refused(f"version {number} is refused, {'; '.join(objections)}: {stays}")
    store.promote(number)
    return f"Version {number} is served now."


def served_folder(store: VersionStore, run: str | None = None) -> str:
    """Return the folder of the model that is served: a link, which follows promotions.

    Args:
        store: where versions are kept; one that serves none yet takes those of a run in, and serves the last.
        run: that run's folder.

    Raises:
        UserError: nothing is served, and no run is given.
    """
    store.settle()
    if store.promoted() is None:
        if run is None:
            raise UserError(f"{store.folder} serves no version yet: give a finished run's folder (key 'run_dir')")
        from scripts.commands.examine import add

        add(store, Path(run))
        store.promote(store.versions()[-1].number)
    return str(store.folder / PROMOTED)


def table(store: VersionStore) -> str:
    """Return all versions as a table."""
    served = store.promoted()
    rows = [
        [
            version.number,
            "served" if served is not None and served.number == version.number else "",
            "" if version.parent is None else version.parent,
            version.record["name"],
            len(version.record["tasks"]),
            f"{100 * version.record['tested']['mean_class_recall']:.1f}",
            f"{100 * version.record['tested']['calibration_error']:.1f}",
        ]
        for version in store.versions()
    ]
    return tabulate(rows, headers=["version", "", "parent", "name", "tasks", "MCR (%)", "ECE (%)"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = _parser().parse_args(arguments)
    store = VersionStore(given.store)

    def work() -> str:
        store.settle()
        match given.action:
            case "add":
                from scripts.commands.examine import add

                return add(store, given.run)
            case "rollback":
                return f"Version {store.rollback()} is served now."
            case "promote":
                return promote(store, given.number, given.margin, given.floor)
            case "check":
                store.check()
                return (
                    f"{len(store.versions())} versions and the audit log are as written. Its head: {store.audit.head}"
                )
            case "card":
                return (store.version(given.number).folder / CARD).read_text()
        return table(store)

    return end(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.commands.versions", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("store", type=Path, help="folder of the versions; made where it is missing")
    actions = parser.add_subparsers(dest="action", required=True)
    adding = actions.add_parser("add", help="take in the model of every task of a run")
    adding.add_argument("run", type=Path)
    promoting = actions.add_parser(
        "promote", help=f"serve a version, if the gate lets it pass; else exit {Refused.exit_status}"
    )
    promoting.add_argument("number", type=int)
    promoting.add_argument("--margin", type=float, default=0.02, help="recall that old classes may lose; default 0.02")
    promoting.add_argument("--floor", type=float, default=0.0, help="mean class recall to reach; default 0")
    actions.add_parser("rollback", help="serve the version that was served before")
    actions.add_parser("list", help="print all versions")
    actions.add_parser("check", help="compare every file, and the audit log, with the hashes")
    actions.add_parser("card", help="print the model card of a version").add_argument("number", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
