"""Objects on their way in: each is written to a file of the queue as it comes, and none is held in memory."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from scripts.deploy.node.server import AssociationLimits
from scripts.deploy.queue import ImageQueue
from scripts.imaging.decoding.reasons import Reason

PREAMBLE = b"\0" * 128 + b"DICM"
LONGEST_COMMAND = 2**16
"""Bytes of what a message asks for; a real one has a few hundred."""


class Arriving:
    """The data set of a message, which pynetdicom writes as it comes: to a DICOM file, of any other request to nowhere.

    Args:
        message: that it belongs to.
        association: over which it comes.
        arrivals: where it is counted.
    """

    def __init__(self, message: Any, association: Association, arrivals: Arrivals) -> None:
        self.size = 0
        self.error: OSError | None = None
        self._message = message
        self._association = association
        self._arrivals = arrivals
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._is_wanted = True

    @property
    def file(self) -> Arriving:
        """What pynetdicom flushes."""
        return self

    def flush(self) -> None:
        """Do nothing: the whole is flushed once it is there."""

    def write(self, data: bytes) -> None:
        """Take the next part; of one that is too large, or cannot be written, the rest is dropped."""
        if not data or not self._is_wanted or not isinstance(self._message, C_STORE_RQ):
            return
        self.size += len(data)
        try:
            self._begun().write(data)
        except (OSError, ValueError) as error:  # a ValueError for a file that was closed meanwhile
            self.error = error if isinstance(error, OSError) else None
            self.discard()
        else:
            self._arrivals.check(self._association, self._message, self.size)

    def finish(self) -> Path | None:
        """Return the file, whole; ``None`` where it was dropped."""
        if not self._is_wanted:
            return None
        try:
            self._begun().close()
        except OSError as error:
            self.error = error
            self.discard()
            return None
        self._is_wanted = False
        return self._path

    def discard(self) -> None:
        """Drop what has come, and what comes still."""
        self._is_wanted = False
        if self._file is not None and self._path is not None:
            with suppress(OSError):  # on a full disk what is still to be written cannot be
                self._file.close()
            self._path.unlink(missing_ok=True)

    def _begun(self) -> BinaryIO:
        if self._file is None:
            command: Any = self._message.command_set
            syntax = self._association._accepted_cx[self._message.context_id].transfer_syntax[0]
            about = create_file_meta(
                sop_class_uid=command.AffectedSOPClassUID,
                sop_instance_uid=command.AffectedSOPInstanceUID,
                transfer_syntax=syntax,
            )
            self._arrivals.begin(self._association, self)
            self._path = self._arrivals.queue.new_file()
            self._file = self._path.open("wb")
            self._file.write(PREAMBLE + encode_file_meta(about))
        return self._file


class Arrivals:
    """All objects that are being received.

    Args:
        queue: on whose disk they are.
        limits: of each, and of all.
    """

    def __init__(self, queue: ImageQueue, limits: AssociationLimits) -> None:
        self.queue = queue
        self.limits = limits
        self._open: dict[Association, list[Arriving]] = defaultdict(list)
        self._access = threading.Lock()
        self._logger = logging.getLogger(__name__)

    def begin(self, association: Association, arriving: Arriving) -> None:
        """Count an object from now on."""
        with self._access:
            self._open[association].append(arriving)

    def end(self, association: Association, arriving: Arriving) -> Path | None:
        """Count an object no longer, and return its file; ``None`` where it was dropped."""
        with self._access:
            own = self._open.get(association, [])
            if arriving not in own:
                return None
            own.remove(arriving)
        return arriving.finish()

    def hang_up(self, association: Association) -> None:
        """Drop what an association has sent and nobody has taken."""
        with self._access:
            left = self._open.pop(association, [])
        for arriving in left:
            arriving.discard()

    def check(self, association: Association, message: Any, size: int) -> None:
        """End an association whose object is longer than allowed, or one too much."""
        with self._access:
            held = sum(arriving.size for own in self._open.values() for arriving in own)
        caller = association.requestor.ae_title
        if size > self.limits.max_bytes:
            uid = str(message.command_set.AffectedSOPInstanceUID)
            self._logger.warning(
                "Refused %s from %s, %s: it has more than %d bytes (key 'limits#max_bytes').",
                *(self.queue.name(uid), caller, Reason.TOO_LARGE, self.limits.max_bytes),
            )
            self.let_go(association)
            self.queue.turned_away(uid, Reason.TOO_LARGE)
        elif held > self.limits.max_held:
            self._logger.warning(
                "Ended the association of %s: more than %d bytes are being received (key 'limits#max_held').",
                *(caller, self.limits.max_held),
            )
            self.let_go(association)

    def let_go(self, association: Association) -> None:
        """End an association, and drop what it has sent."""
        self.hang_up(association)
        association.abort(block=False)


class Dimse(DIMSEServiceProvider):
    """Writes data sets to files as they come.

    Args:
        association: whose messages they belong to.
        arrivals: where they are.
    """

    def __init__(self, association: Association, arrivals: Arrivals) -> None:
        super().__init__(association)
        self._arrivals = arrivals

    def receive_primitive(self, primitive: Any) -> None:
        """Take a part of a message."""
        if self.message is None:
            self.message = DIMSEMessage()
            arriving = Arriving(self.message, self.assoc, self._arrivals)
            self.message._data_set_file = arriving  # type: ignore[assignment]
        super().receive_primitive(primitive)
        message: Any = self.message
        if message is not None and message.encoded_command_set.tell() > LONGEST_COMMAND:
            message.encoded_command_set = BytesIO()
            self._arrivals.let_go(self.assoc)
