"""The conformance statement: the page is what the command prints, and the node takes what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pynetdicom import AE

from scripts.commands.app import main
from scripts.commands.conformance import conformance_statement
from scripts.deploy.node.receiver import Receiver
from scripts.deploy.node.server import AssociationLimits
from scripts.deploy.queue import ImageQueue

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
LIMITS = AssociationLimits(
    associations=5, per_address=5, max_bytes=10**6, max_held=10**7, request_seconds=5.0, seconds=10.0
)


def uids(section: str) -> list[str]:
    """The UIDs of the tables of a section."""
    text = conformance_statement().split(f"\n## {section}")[1].split("\n## ")[0]
    return re.findall(r"\| (1\.2\.840\.10008\.[\d.]+) +\|", text)


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance"]) == 0
    assert (BUNDLE / "docs" / "CONFORMANCE.md").read_text() == capsys.readouterr().out


def test_the_node_takes_each_sop_class_that_is_stated(tmp_path: Path, free_port: Callable[[], int]) -> None:
    stated = [uid for uid in uids("DICOM: as a provider") if not uid.startswith("1.2.840.10008.1.2")]
    taken = json.loads((BUNDLE / "configs" / "node.json").read_text())["sop_classes"]
    queue, port, entity = ImageQueue(str(tmp_path / "queue"), lambda: "model"), free_port(), AE("CALLER")
    for uid in stated:
        entity.add_requested_context(uid)
    try:
        with Receiver(queue, "127.0.0.1", port, "NODE", [], taken, [], LIMITS):
            association = entity.associate("127.0.0.1", port, ae_title="NODE")
            accepted = {context.abstract_syntax for context in association.accepted_contexts}
            association.release()
    finally:
        queue.close()
    assert accepted == set(stated) and len(stated) > len(taken)


def test_what_is_sent_is_stated() -> None:
    assert uids("DICOM: as a user") == [f"1.2.840.10008.5.1.4.1.1.{last}" for last in ("88.34", "7", "66.4")]


def test_nobody_is_named() -> None:
    assert not re.search(r"/work|/home|/tmp", conformance_statement())
