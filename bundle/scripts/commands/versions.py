"""Keep versions of a trained model: ``dynammo versions STORE add RUN``, and what follows from it.

What tests or compares models is imported where it is needed: to go back to an earlier version must not wait for torch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from scripts import bundle_root
from scripts.commands.key_table import read_keys
from scripts.commands.terminal import end
from scripts.deploy.versions.store import CARD, PROMOTED, VersionStore
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically


def usual_gate() -> dict[str, float]:
    """Return what the service asks of a version, which holds where nothing else is said."""
    config = json.loads(Path(bundle_root(), "configs", "service.json").read_text())
    return {name: config[name] for name in config["gate"]}


class Refused(UserError):
    """The gate refuses a version."""

    exit_status = 3


def promote(store: VersionStore, number: int, asked: Mapping[str, float], reason: str | None = None) -> str:
    """Serve a version from now on, where the gate lets it pass, or a person answers for it.

    Args:
        store: where versions are kept, opened by that person.
        number: of the version.
        asked: where it is not as usual; see :class:`scripts.deploy.versions.gate.Gate`.
        reason: why it is served although too few test images are there to show that it may; it goes into the log. A
            version that is seen to be worse is refused all the same.

    Raises:
        Refused: says what the gate objects to; what is served stays.
    """
    from scripts.deploy.versions.gate import Gate, judge

    version, served = store.version(number), store.promoted()
    for compared in filter(None, (version, served)):
        store.check_version(compared)
    gate = Gate(**{**usual_gate(), **asked})
    found = judge(gate, version, served)
    objections = [objection.reason for objection in found]
    undecided = not any(objection.decided for objection in found)
    if found and not (reason and undecided):
        store.refuse(number, objections)
        stays = "nothing is served yet" if served is None else f"version {served.number} is served as before"
        help_with = "; whoever answers for it gives --reason" if undecided else ""
        raise Refused(f"version {number} is refused, {'; '.join(objections)}: {stays}{help_with}")
    answered = {"objections": objections, "reason": reason} if found else {}
    store.promote(number, asked=asdict(gate), **answered)
    return f"Version {number} is served now."


def served_folder(store: VersionStore, run: str | None = None, gate: Mapping[str, float] | None = None) -> str:
    """Return the folder of the model that is served: a link, which follows promotions.

    Args:
        store: where versions are kept; one that serves none yet takes those of a run in, and serves the last.
        run: that run's folder.
        gate: what its last version must pass; see :class:`scripts.deploy.versions.gate.Gate`.

    Raises:
        UserError: nothing is served and no run is given, its version does not pass, or the audit log was changed.
    """
    store.recover()
    if store.promoted() is None:
        if run is None:
            raise UserError(f"{store.folder} serves no version yet: give a finished run's folder (key 'run_dir')")
        take_in(store, Path(run))
        promote(store, store.versions()[-1].number, gate or {})
    return str(store.folder / PROMOTED)


def take_in(store: VersionStore, run: Path) -> str:
    """Take the models of a run in; see :func:`scripts.commands.examine.add`.

    Raises:
        UserError: as that function does, or when this bundle was packaged without it.
    """
    try:
        from scripts.commands.examine import add
    except ModuleNotFoundError as error:
        if error.name != "scripts.commands.examine":
            raise
        raise UserError(
            "this bundle was packaged for deployment alone and tests no model: use the whole one"
        ) from error
    return add(store, run)


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
            *map(_percent, (version.record["tested"][name] for name in ("mean_class_recall", "calibration_error"))),
        ]
        for version in store.versions()
    ]
    return tabulate(rows, headers=["version", "", "parent", "name", "tasks", "MCR (%)", "ECE (%)"])


def check(store: VersionStore, given: argparse.Namespace) -> str:
    """Compare everything with the hashes, and the log with heads that were kept elsewhere; change nothing."""
    store.check()
    heads = [event["hash"] for event in store.audit.events()]
    lines = [f"{len(store.versions())} versions and the audit log are as written. Its head: {store.audit.head}"]
    if given.head is not None and given.head not in heads:
        raise UserError(f"the log has no event {given.head}: it was cut or written anew. Restore it from a copy")
    if given.timestamp is not None:
        if given.authority is None:
            raise UserError("whose time stamp is it? Give the authority's certificate (--authority)")
        from scripts.deploy.versions.timestamps import stamped

        number, time = stamped(given.timestamp, given.authority, heads)
        lines.append(
            f"The first {number} of {len(heads)} events were there at {time.isoformat()}, says {given.timestamp}."
        )
    return "\n".join(lines)


def notes(store: VersionStore, number: int) -> str:
    """Return the release notes of a version; see :func:`scripts.deploy.versions.notes.release_notes`."""
    from scripts.deploy.versions.notes import release_notes

    version = store.version(number)
    before = None if version.parent is None else store.version(version.parent).record
    events = [event for event in store.audit.events() if event.get("version") == number]
    return release_notes(version.record, before, events).rstrip()


def recover(store: VersionStore, head: str | None) -> str:
    """Complete what was interrupted, once the log was verified."""
    if head is not None:
        store.audit.vouch(head)
    store.recover()
    served = store.promoted()
    return "Nothing is served yet." if served is None else f"Version {served.number} is served."


def _percent(share: float | None) -> str:
    return "not tested" if share is None else f"{100 * share:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = _parser().parse_args(arguments)

    def work() -> str:
        store = VersionStore(given.store, given.key, given.syslog, given.by)
        match given.action:
            case "key":
                store.audit.key.make()
                return f"{store.audit.key.path} signs the audit log from now on: keep a copy where the store is not."
            case "add":
                return take_in(store, given.run)
            case "rollback":
                return f"Version {store.rollback()} is served now."
            case "promote":
                asked = {name: value for name, value in vars(given).items() if name in usual_gate()}
                return promote(store, given.number, asked, given.reason)
            case "check":
                return check(store, given)
            case "recover":
                return recover(store, given.head)
            case "stamp":
                from scripts.deploy.versions.timestamps import stamp_request

                write_atomically(given.file, stamp_request(store.audit.head))
                return f"{given.file} asks for a time stamp of the head {store.audit.head}."
            case "card":
                return (store.version(given.number).folder / CARD).read_text()
            case "notes":
                return notes(store, given.number)
        return table(store)

    return end(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dynammo versions", description=__doc__, allow_abbrev=False)
    parser.add_argument("store", type=Path, help="folder of the versions; made where it is missing")
    parser.add_argument("--key", type=Path, help="what signs the audit log; default STORE.key, beside the folder")
    parser.add_argument("--syslog", help="socket or HOST:PORT that each new head of the log is told")
    parser.add_argument("--by", help="who does it, for the log; default who runs the command")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("key", help="make the key that signs the audit log")
    adding = actions.add_parser("add", help="take in the model of every task of a run")
    adding.add_argument("run", type=Path)
    promoting = actions.add_parser(
        "promote", help=f"serve a version, if the gate lets it pass; else exit {Refused.exit_status}"
    )
    promoting.add_argument("number", type=int)
    for name, number in usual_gate().items():
        text = f"{read_keys()[name].effect}; default {number}"
        promoting.add_argument(f"--{name}", type=float, default=argparse.SUPPRESS, help=text)
    promoting.add_argument("--reason", help="why it is served although there are too few test images to show it")
    actions.add_parser("rollback", help="serve the version that was served before")
    actions.add_parser("list", help="print all versions")
    checking = actions.add_parser("check", help="compare every file, and the audit log, with the hashes")
    checking.add_argument("--head", help="a hash of the log that was kept elsewhere")
    checking.add_argument("--timestamp", type=Path, help="what an authority has answered to a stamp's request")
    checking.add_argument("--authority", type=Path, help="its certificate (PEM)")
    recovering = actions.add_parser("recover", help="complete what a killed process has left")
    recovering.add_argument("--head", help="the head of the log, known from elsewhere, where its file was lost")
    actions.add_parser("stamp", help="write the request for a time stamp of the head").add_argument("file", type=Path)
    actions.add_parser("card", help="print the model card of a version").add_argument("number", type=int)
    noting = actions.add_parser("notes", help="print what changed since the version before, for those who sign")
    noting.add_argument("number", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
