"""The node's one loop: what waits is classified, and its result sent."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from types import FrameType
from typing import Any

from scripts.decoding.reasons import ImageRefused, Reason
from scripts.errors import UserError, fault
from scripts.node.destinations import Destination, NotTaken, Unreachable
from scripts.node.queue import Entry, ImageQueue, State

_SECONDS_BETWEEN_LOOKS = 0.1


class Node:
    """Classifies the images of a queue in their order and sends the results, until it is stopped.

    Args:
        queue: holds the images.
        source: fills the queue from ``with`` on until its end.
        answer: makes the results of an image, DICOM files, of its bytes; an :class:`ImageRefused` puts it on the list
            of refused images.
        destination: gets the results.
        first_pause: seconds until the destination is tried again; doubled each time.
        longest_pause: seconds, at most.
        linger: seconds without an image after which the destination's association is released and the queue tidied.

    Raises:
        UserError: for pauses that mean nothing.
    """

    def __init__(
        self,
        queue: ImageQueue,
        source: AbstractContextManager[Any],
        answer: Callable[[bytes], Sequence[bytes]],
        destination: Destination,
        first_pause: float,
        longest_pause: float,
        linger: float,
    ) -> None:
        if not 0 < first_pause <= longest_pause:
            raise UserError(
                f"the pauses are {first_pause} to {longest_pause} seconds: give numbers above 0, the longest last "
                "(keys 'first_pause', 'longest_pause')"
            )
        self.queue = queue
        self.source = source
        self.answer = answer
        self.destination = destination
        self.first_pause = first_pause
        self.longest_pause = longest_pause
        self.linger = linger
        self._pause = first_pause
        self._busy, self._worked = True, time.monotonic()
        self._stopped = False
        self._logger = logging.getLogger(__name__)

    def run(self) -> None:
        """Work until SIGTERM or Ctrl-C; the image at hand is finished first."""
        _silence_libraries()
        with closing(self.queue), self._until_a_signal():
            with self.source, closing(self.destination):
                while not self._stopped:
                    self._look()
            counts = self.queue.counts()
        waiting = counts[State.RECEIVED] + counts[State.CLASSIFIED]
        self._logger.info(
            "Stopped. Results of %d images are sent, %d images are refused, %d wait for the next start.",
            *(counts[State.SENT], counts[State.REFUSED], waiting),
        )

    def stop(self) -> None:
        """Let `run` end once the image at hand is finished."""
        self._stopped = True

    def _look(self) -> None:
        """Take the first image that waits one step on, or wait for one."""
        entry = self.queue.next()
        if entry is None:
            if self._busy and time.monotonic() - self._worked > self.linger:
                self._busy = False
                self.destination.close()
                self.queue.tidy()
            self.queue.arrived.wait(_SECONDS_BETWEEN_LOOKS)
        else:
            self._advance(entry)
            self._busy, self._worked = True, time.monotonic()

    def _advance(self, entry: Entry) -> None:
        """Take an image one step on; a step that fails is tried again after a pause."""
        try:
            if entry.state is State.RECEIVED:
                self._classify(entry)
            else:
                self._send(entry)
        except UserError as error:  # the disk is full
            self._wait(str(error))

    def _classify(self, entry: Entry) -> None:
        try:
            results = self.answer(entry.files[0])
        except UserError as error:
            if not isinstance(error, ImageRefused):
                raise
            self._refuse(entry, error.reason)
        except Exception as error:  # a fault in the code must not hold up the other images
            self._logger.error(fault(error))
            self._refuse(entry, Reason.UNREADABLE)
        else:
            self._send(self.queue.classified(entry, results))

    def _refuse(self, entry: Entry, reason: Reason) -> None:
        if reason is Reason.OWN_RESULT:
            self._logger.info("Dropped %s: it is a result of this bundle.", entry.name)
            self.queue.ignored(entry, reason)
        else:
            self._logger.warning("Refused %s: %s.", entry.name, reason)
            self.queue.refused(entry, reason)

    def _send(self, entry: Entry) -> None:
        try:
            self.destination.send(entry.files)
        except Unreachable as error:
            self._wait(str(error))
        except NotTaken as error:
            self.queue.postpone(entry)
            self._wait(f"{error} to the result of {entry.name}, which others overtake")
        except Exception as error:  # an answer that makes no sense
            self._wait(fault(error))
        else:
            self.queue.sent(entry)
            self._pause = self.first_pause
            self._logger.info("Sent the result of %s.", entry.name)

    def _wait(self, reason: str) -> None:
        """Pause, longer each time until something is sent."""
        self._logger.warning("%s. Next try in %g seconds.", reason, self._pause)
        end = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, self.longest_pause)
        while not self._stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SECONDS_BETWEEN_LOOKS))

    @contextmanager
    def _until_a_signal(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _silence_libraries() -> None:
    """Let nothing be said that may quote a file: what libraries find odd in a header can be a name."""
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pynetdicom", "highdicom", "dicomweb_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
