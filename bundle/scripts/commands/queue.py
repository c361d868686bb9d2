"""Say what a DICOM node has done: ``python -m scripts.commands.queue QUEUE_DIR [SOP_INSTANCE_UID ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing

from tabulate import tabulate

from scripts.commands.terminal import end
from scripts.node.queue import QueueRecord

EPILOG = (
    "Without images: how many are in which state, and the refused ones with the code of the reason. Images are called "
    "by an HMAC of their SOP Instance UID, as in the node's log; ask for an image by its UID. The node may be at work."
)


def describe(folder: str, uids: Sequence[str]) -> str:
    """Say what has become of images, of all where none is named.

    Args:
        folder: of the queue.
        uids: SOP Instance UIDs.

    Raises:
        UserError: there is no queue, or it cannot be read.
    """
    with closing(QueueRecord(folder)) as record:
        if uids:
            rows = [(record.name(uid), record.state(uid) or "never received", uid) for uid in uids]
            return tabulate(rows, ("image", "state", "SOP Instance UID"), "github")
        counts = ", ".join(f"{count} {state}" for state, count in record.counts().items())
        refusals = record.refusals()
    table = tabulate(refusals, ("refused (UTC)", "image", "reason"), "github") if refusals else ""
    return "\n".join(filter(None, (f"Images: {counts}.", table)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.commands.queue", description=__doc__, epilog=EPILOG)
    parser.add_argument("folder", metavar="QUEUE_DIR", help="the node's folder (key queue_dir)")
    parser.add_argument("uids", metavar="SOP_INSTANCE_UID", nargs="*", help="images to ask for")
    given = parser.parse_args(arguments)
    return end(lambda: describe(given.folder, given.uids))


if __name__ == "__main__":
    sys.exit(main())
