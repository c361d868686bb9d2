"""Say what a DICOM node has done, and let it try again: ``dynammo queue ACTION QUEUE_DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing

from tabulate import tabulate

from scripts.commands.terminal import end
from scripts.deploy.queue import QueueRecord

EPILOG = (
    "Images are called by an HMAC of their SOP Instance UID, as in the node's log; ask for an image by its UID. "
    "The node may be at work."
)


def describe(record: QueueRecord, uids: Sequence[str]) -> str:
    """Say what has become of images, by SOP Instance UID; of all where none is named."""
    if uids:
        rows = [(record.name(uid), record.state(uid) or "never received", uid) for uid in uids]
        return tabulate(rows, ("image", "state", "SOP Instance UID"), "github")
    counts = ", ".join(f"{count} {state}" for state, count in record.counts().items())
    refusals = record.refusals()
    table = tabulate(refusals, ("refused (UTC)", "image", "reason"), "github") if refusals else ""
    return "\n".join(filter(None, (f"Images: {counts}.", table)))


def failed(record: QueueRecord) -> str:
    """List the images whose results were given up, with the last answer of the destination."""
    failures = record.failures()
    table = tabulate(failures, ("given up (UTC)", "image", "last answer"), "github")
    return table if failures else "No result was given up."


def retry(record: QueueRecord, names: Sequence[str]) -> str:
    """Let results that were given up be sent again, all where none is named."""
    return f"{record.retry(names)} results are sent again, as soon as the node is at work."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = _parser().parse_args(arguments)

    def work() -> str:
        with closing(QueueRecord(given.folder)) as record:
            match given.action:
                case "failed":
                    return failed(record)
                case "retry":
                    return retry(record, given.images)
            return describe(record, given.uids)

    return end(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dynammo queue", description=__doc__, epilog=EPILOG, allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="how many images are in which state, and why which are refused")
    failing = actions.add_parser("failed", help="images whose results the destination refused until they were given up")
    retrying = actions.add_parser("retry", help="send such results again")
    for action in (listing, failing, retrying):
        action.add_argument("folder", metavar="QUEUE_DIR", help="the node's folder (key queue_dir)")
    listing.add_argument("uids", metavar="SOP_INSTANCE_UID", nargs="*", help="say what has become of these images")
    retrying.add_argument("images", metavar="IMAGE", nargs="*", help="as `failed` calls them; all where none is named")
    return parser


if __name__ == "__main__":
    sys.exit(main())
