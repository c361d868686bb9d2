"""Images that are sent here: a C-STORE and C-ECHO service (DICOM PS3.4 B and A)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from pynetdicom import evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when it is asked for

from scripts.deploy.listening import cannot_listen, is_this_machine
from scripts.deploy.logs import begin_request
from scripts.deploy.node.arrivals import Arrivals, Arriving, Dimse
from scripts.deploy.node.classes import not_images
from scripts.deploy.node.entity import find_uids, listed, make_entity
from scripts.deploy.node.server import LONGEST_PDU, AssociationLimits, Server, serving
from scripts.deploy.node.tls import Certificates
from scripts.deploy.queue import ImageQueue
from scripts.imaging.decoding.dicom import readable_syntaxes
from scripts.imaging.decoding.reasons import ImageRefused
from scripts.utils.errors import UserError
from scripts.utils.files import cannot_write

SUCCESS, DUPLICATE_INSTANCE, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0x0111, 0xA700, 0xC000
"""PS3.7 C.5, PS3.4 B.2.3"""


class Receiver:
    """Takes images from other applications into the queue, from ``with`` on until its end.

    Success is answered once an image is on disk; where it cannot be written, "out of resources", after which senders
    try again; "duplicate SOP instance" to another file under the UID of one that is known, which is listed as refused.
    What belongs to a study and is no image is taken and dropped (`scripts.deploy.node.classes`). An association is
    rejected where the caller or the called AE title is another one, or too many are open; SOP classes and transfer
    syntaxes that are not listed are rejected when the association is negotiated.

    Args:
        queue: takes the images.
        host: address to listen on.
        port: 0 for any that is free; ``port`` says which, once it runs.
        ae_title: of this node; callers must use it.
        callers: AE titles that may call; empty for all, which is allowed on this machine and with TLS.
        sop_classes: which images are taken: names such as ``CTImageStorage``, or UIDs.
        transfer_syntaxes: names or UIDs; empty for all that can be decoded here.
        limits: of what comes in.
        tls: asked of callers; ``None``: nothing is encrypted.

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
        limits: AssociationLimits,
        tls: Certificates | None = None,
    ) -> None:
        if not callers and tls is None and not is_this_machine(host):
            raise UserError(
                f"anybody could send to {host}: name the AE titles that may (key 'callers'), or ask for certificates "
                "(key 'tls_certificate')"
            )
        self.queue = queue
        self.host = host
        self.port = port
        self.limits = limits
        self._arrivals = Arrivals(queue, limits)
        self._tls = None if tls is None else tls.of_server()
        self._running = ExitStack()
        self._dropped = not_images()
        self._entity = make_entity(ae_title, limits.seconds)
        self._entity.acse_timeout = limits.request_seconds
        self._entity.require_called_aet = True
        self._entity.require_calling_aet = listed(callers)
        self._entity.maximum_associations = limits.associations
        self._entity.maximum_pdu_size = LONGEST_PDU
        syntaxes = find_uids(transfer_syntaxes or readable_syntaxes())
        for sop_class in {*find_uids(sop_classes), *self._dropped, Verification}:
            self._entity.add_supported_context(sop_class, syntaxes)
        self._logger = logging.getLogger(__name__)

    def __enter__(self) -> Receiver:
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, lambda event: begin_request()),  # in the association's thread
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_CONN_CLOSE, lambda event: self._arrivals.hang_up(event.assoc)),
            (evt.EVT_REJECTED, self._rejected),
        ]
        try:
            server = Server(
                *(self._entity, (self.host, self.port), self._entity.ae_title, self._entity.supported_contexts),
                limits=self.limits,
                dimse=lambda association: Dimse(association, self._arrivals),
                ssl_context=self._tls,
                evt_handlers=handlers,
            )
        except OSError as error:
            raise cannot_listen(self.host, self.port, error) from error
        self._running.enter_context(serving(server))
        self.port = int(server.server_address[1])
        how = "" if self._tls is None else ", with TLS"
        self._logger.info("Listening on %s, port %d, as %s%s.", self.host, self.port, self._entity.ae_title, how)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.close()

    def _store(self, event: evt.Event) -> int:
        """Answer a C-STORE request."""
        request: Any = event.request
        uid, caller = str(request.AffectedSOPInstanceUID), event.assoc.requestor.ae_title
        name = self.queue.name(uid)
        arriving: Arriving = request._dataset_file
        request._dataset_file = None  # or the library would delete it
        file = self._arrivals.end(event.assoc, arriving)
        if request.AffectedSOPClassUID in self._dropped:
            arriving.discard()
            self._logger.info("Dropped %s from %s: it is no image.", name, caller)
            return SUCCESS
        if not arriving.size:
            self._logger.warning("Not taken, %s from %s: it comes without a data set.", name, caller)
            return CANNOT_UNDERSTAND
        try:
            if file is None:
                raise cannot_write(self.queue.folder, arriving.error or OSError("it is no longer expected"))
            added = self.queue.add(uid, file)
        except ImageRefused as refusal:
            self._logger.warning("Refused %s from %s: %s.", refusal.reason, caller, refusal)
            return DUPLICATE_INSTANCE
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
            "(keys 'callers', 'ae_title', 'limits#associations').",
            *(caller.ae_title, called),
        )
