"""Images that are sent here: a C-STORE and C-ECHO service (DICOM PS3.4 B and A)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from pynetdicom import evt
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when it is asked for

from scripts.decoding.dicom import readable_syntaxes
from scripts.errors import UserError
from scripts.listening import cannot_listen, is_this_machine
from scripts.node.classes import not_images
from scripts.node.entity import find_uids, listed, make_entity
from scripts.node.queue import LARGEST, ImageQueue

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
LONGEST_PDU = 2**18


class Receiver:
    """Takes images from other applications into the queue, from ``with`` on until its end.

    Success is answered once an image is on disk; where it cannot be written, "out of resources", after which senders
    try again. What belongs to a study and is no image is taken and dropped (`scripts.node.classes`). An association is
    rejected where the caller or the called AE title is another one, or too many are open; SOP classes and transfer
    syntaxes that are not listed are rejected when the association is negotiated.

    Args:
        queue: takes the images.
        host: address to listen on.
        port: 0 for any that is free; ``port`` says which, once it runs.
        ae_title: of this node; callers must use it.
        callers: AE titles that may call; empty for all, which is allowed on this machine alone.
        sop_classes: which images are taken: names such as ``CTImageStorage``, or UIDs.
        transfer_syntaxes: names or UIDs; empty for all that can be decoded here.
        associations: at a time, at most.
        max_bytes: of an object, at most; the association of a longer one is aborted before all of it has come.
        seconds: of silence, after which an association is ended.

    Raises:
        UserError: for a value that means nothing.
    """

    def __init__(
        self,
        queue: ImageQueue,
        host: str,
        port: int,
        ae_title: str,
        callers: str | Sequence[str],
        sop_classes: str | Sequence[str],
        transfer_syntaxes: str | Sequence[str],
        associations: int,
        max_bytes: int,
        seconds: float,
    ) -> None:
        if not callers and not is_this_machine(host):
            raise UserError(f"anybody could send to {host}: name the AE titles that may (key 'callers')")
        if not 0 < max_bytes <= LARGEST:
            raise UserError(f"max_bytes is {max_bytes}: give a number from 1 to {LARGEST} (key 'receiver#max_bytes')")
        self.queue = queue
        self.host = host
        self.port = port
        self.max_bytes = max_bytes
        self._dropped = not_images()
        self._entity = make_entity(ae_title, seconds)
        self._entity.require_called_aet = True
        self._entity.require_calling_aet = listed(callers)
        self._entity.maximum_associations = associations
        self._entity.maximum_pdu_size = LONGEST_PDU
        syntaxes = find_uids(transfer_syntaxes or readable_syntaxes())
        for sop_class in {*find_uids(sop_classes), *self._dropped, Verification}:
            self._entity.add_supported_context(sop_class, syntaxes)
        self._logger = logging.getLogger(__name__)

    def __enter__(self) -> Receiver:
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_PDU_RECV, self._limit),
            (evt.EVT_REJECTED, self._rejected),
        ]
        try:
            server = self._entity.start_server((self.host, self.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise cannot_listen(self.host, self.port, error) from error
        assert server is not None
        self.port = int(server.server_address[1])
        self._logger.info("Listening on %s, port %d, as %s.", self.host, self.port, self._entity.ae_title)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        """Answer a C-STORE request."""
        request: Any = event.request
        uid, caller = str(request.AffectedSOPInstanceUID), event.assoc.requestor.ae_title
        name = self.queue.name(uid)
        if request.AffectedSOPClassUID in self._dropped:
            self._logger.info("Dropped %s from %s: it is no image.", name, caller)
            return SUCCESS
        header = b"\0" * 128 + b"DICM" + encode_file_meta(event.file_meta)
        try:
            added = self.queue.add(uid, b"".join((header, request.DataSet.getbuffer())))
        except UserError as error:
            self._logger.error("Not taken, %s from %s: %s", name, caller, error)
            return OUT_OF_RESOURCES
        self._logger.info("Received %s from %s%s.", name, caller, "" if added else ": known before")
        return SUCCESS

    def _rejected(self, event: evt.Event) -> None:
        """Say who was not let in."""
        caller = event.assoc.requestor
        called = caller.primitive.called_ae_title if caller.primitive else ""
        self._logger.warning(
            "Rejected %r, who called %r: it is not among the AE titles that are allowed, or too many are connected "
            "(keys 'callers', 'ae_title', 'receiver#associations').",
            *(caller.ae_title, called),
        )

    def _limit(self, event: evt.Event) -> None:
        """End an association whose object is longer than allowed."""
        message = event.assoc.dimse.message
        if message is not None and message.data_set is not None and message.data_set.tell() > self.max_bytes:
            self._logger.warning(
                "Ended the association of %s: its object has more than %d bytes (key 'receiver#max_bytes').",
                event.assoc.requestor.ae_title,
                self.max_bytes,
            )
            event.assoc.abort()
