"""Applications to talk to: one that stores what it is sent, and what calls a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from scripts.deploy.node.health import Health
from scripts.deploy.node.server import AssociationLimits
from scripts.deploy.queue import ImageQueue


class Archive:
    """Stores what it is sent, in memory.

    ``answers`` are the statuses of the next requests, 0 afterwards; ``associations`` counts those that were opened.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.stored: list[Dataset] = []
        self.answers: list[int] = []
        self.associations = 0
        self._entity = AE("ARCHIVE")

    def start(self, callers: Sequence[str] = ()) -> None:
        self._entity.require_calling_aet = list(callers)
        self._entity.supported_contexts = AllStoragePresentationContexts
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_ESTABLISHED, self._count)]
        self._entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        status = self.answers.pop(0) if self.answers else 0
        if status == 0 or status >> 12 == 0xB:
            self.stored.append(event.dataset)
        return status

    def _count(self, event: evt.Event) -> None:
        self.associations += 1


@pytest.fixture
def archive(free_port: Callable[[], int]) -> Iterator[Archive]:
    """An archive that runs."""
    made = Archive(free_port())
    made.start()
    yield made
    made.stop()


@pytest.fixture
def health() -> Health:
    """What says how a node fares, on a port of its own."""
    return Health("127.0.0.1", 0)


@pytest.fixture(scope="session")
def make_limits() -> Callable[..., AssociationLimits]:
    """Make limits that no good caller reaches, but for those given."""
    usual: dict[str, Any] = {"associations": 20, "per_address": 20, "max_bytes": 10**6, "max_held": 10**7}
    return lambda **given: AssociationLimits(**{**usual, "request_seconds": 5.0, "seconds": 10.0, **given})


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[ImageQueue]:
    """An empty queue."""
    made = ImageQueue(str(tmp_path / "queue"), lambda: "model")
    yield made
    made.close()


@pytest.fixture(scope="session")
def call() -> Callable[..., Any]:
    """Open an association with a node, for verification and for what the data sets need."""

    def associate(
        port: int,
        datasets: Sequence[Dataset] = (),
        calling: str = "CALLER",
        called: str = "NODE",
        source: str = "127.0.0.1",
    ) -> Any:
        entity = AE(calling)
        entity.add_requested_context("1.2.840.10008.1.1")
        for sop_class, syntax in sorted({(data.SOPClassUID, data.file_meta.TransferSyntaxUID) for data in datasets}):
            entity.add_requested_context(sop_class, syntax)
        return entity.associate("127.0.0.1", port, ae_title=called, bind_address=(source, 0))

    return associate
