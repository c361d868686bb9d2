"""The node's one loop: what waits is classified, and its result sent."""

from __future__ import annotations

import logging
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import FrameType

from scripts.deploy.node.destinations import Destination, Destinations, NotTaken, Unreachable
from scripts.deploy.node.health import Health
from scripts.deploy.node.metrics import Standing
from scripts.deploy.queue import WAITING, Entry, ImageQueue, State
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.utils.errors import UserError, fault

_SECONDS_BETWEEN_LOOKS = 0.1


class Node:
    """Classifies the images of a queue and sends the results, until it is stopped.

    Images are begun in their order, a few at a time, so that one that takes long holds up no other; results are sent as
    they come. A destination that is away holds up all results, a result that is not taken itself alone; images are
    classified meanwhile.

    Args:
        queue: holds the images.
        input: fills the queue from ``with`` on until its end.
        answer: makes the results of an image, DICOM files, of its file, in several threads; an :class:`ImageRefused`
            puts it on the list of refused images.
        destination: gets the results; of several each gets all.
        readers: images that are classified at a time.
        tries: after so many refusals by the destination a result is given up, and kept for `queue retry`.
        first_pause: seconds until a destination that is away, or a result that was not taken, is tried again; doubled
            each time.
        longest_pause: seconds, at most.
        linger: seconds without an image after which the destination's association is released and the queue tidied.
        health: says over HTTP how the node fares.

    Raises:
        UserError: for numbers that mean nothing.
    """

    def __init__(
        self,
        queue: ImageQueue,
        input: AbstractContextManager[object],
        answer: Callable[[Path], Sequence[bytes]],
        destination: Destination | Sequence[Destination],
        readers: int,
        tries: int,
        first_pause: float,
        longest_pause: float,
        linger: float,
        health: Health,
    ) -> None:
        for name, number in {"readers": readers, "tries": tries}.items():
            if number < 1:
                raise UserError(f"{name} is {number}: give a number from 1 (key '{name}')")
        if not 0 < first_pause <= longest_pause:
            raise UserError(
                f"the pauses are {first_pause} to {longest_pause} seconds: give numbers above 0, the longest last "
                "(keys 'first_pause', 'longest_pause')"
            )
        self.queue = queue
        self.input = input
        self.answer = answer
        self.destination: Destination = Destinations(destination) if isinstance(destination, Sequence) else destination
        self.readers = readers
        self.tries = tries
        self.first_pause = first_pause
        self.longest_pause = longest_pause
        self.linger = linger
        self.health = health
        self._readings: dict[str, tuple[Entry, Future[Sequence[bytes]]]] = {}
        self._away, self._away_until = 0, 0.0  # how often in a row, and when the destination is tried again
        self._stuck = 0
        self._trouble: str | None = None
        self._busy, self._worked = True, time.monotonic()
        self._stopped = False
        self._logger = logging.getLogger(__name__)

    def run(self) -> None:
        """Work until SIGTERM or Ctrl-C; the images at hand are finished first."""
        _silence_libraries()
        with closing(self.queue), self._until_a_signal():
            with self.input, closing(self.destination), self.health.answering(self.standing), self._reading() as pool:
                while not self._stopped:
                    self._look(pool)
            counts = self.queue.counts()
        waiting = sum(counts[state] for state in WAITING)
        self._logger.info(
            "Stopped. Results of %d images are sent, %d images are refused, %d results are given up, %d wait for the "
            "next start.",
            *(counts[State.SENT], counts[State.REFUSED], counts[State.FAILED], waiting),
        )

    def stop(self) -> None:
        """Let `run` end once the images at hand are finished."""
        self._stopped = True

    def standing(self) -> Standing:
        """Return how it stands.

        Raises:
            UserError: the queue cannot be read.
        """
        disk = shutil.disk_usage(self.queue.folder)
        return Standing(self._trouble, self.queue.counts(), self.queue.waiting_seconds(), disk.free, disk.total)

    @contextmanager
    def _reading(self) -> Iterator[ThreadPoolExecutor]:
        """Give threads to classify in; at the end, what they have at hand is kept."""
        with ThreadPoolExecutor(self.readers, "reader") as pool:
            yield pool
        self._advance(self._collect)

    def _look(self, pool: ThreadPoolExecutor) -> None:
        """Take images one step on, or wait for one that can be."""
        self.queue.arrived.clear()  # whatever happens from now on ends the waiting
        steps = [self._advance(self._send_next), self._hand_out(pool), self._advance(self._collect)]
        if any(steps):
            self._busy, self._worked = True, time.monotonic()
        else:
            if self._busy and not self._readings and time.monotonic() - self._worked > self.linger:
                self._busy = False
                self.destination.close()
                self.queue.tidy()
            self.queue.arrived.wait(_SECONDS_BETWEEN_LOOKS)

    def _advance(self, step: Callable[[], bool]) -> bool:
        """Take a step, and say whether there was one to take; where nothing can go on, wait."""
        try:
            taken = step()
        except UserError as error:  # the disk is full, the model cannot be loaded
            self._stuck += 1
            self._wait(str(error), self._pause(self._stuck))
            return True
        if taken:
            self._stuck = 0
            if not self._away:
                self._trouble = None
        return taken

    def _hand_out(self, pool: ThreadPoolExecutor) -> bool:
        """Let images be classified that wait."""
        before = len(self._readings)
        while len(self._readings) < self.readers:
            entry = self.queue.next([State.RECEIVED], self._readings)
            if entry is None:
                break
            future = pool.submit(self.answer, entry.image)
            future.add_done_callback(lambda _: self.queue.arrived.set())
            self._readings[entry.name] = entry, future
        return len(self._readings) > before

    def _collect(self) -> bool:
        """Keep what has come of images that were classified."""
        done = [name for name, (_, future) in self._readings.items() if future.done()]
        for name in done:
            self._classified(*self._readings.pop(name))
        return bool(done)

    def _classified(self, entry: Entry, answered: Future[Sequence[bytes]]) -> None:
        try:
            results = answered.result()
        except UserError as error:
            if not isinstance(error, ImageRefused):
                raise
            self._refuse(entry, error.reason)
        except Exception as error:  # a fault in the code must not hold up the other images
            self._logger.error(fault(error))
            self._refuse(entry, Reason.UNREADABLE)
        else:
            self.queue.classified(entry, results)

    def _refuse(self, entry: Entry, reason: Reason) -> None:
        if reason is Reason.OWN_RESULT:
            self._logger.info("Dropped %s: it is a result of this bundle.", entry.name)
            self.queue.ignored(entry, reason)
        else:
            self._logger.warning("Refused %s: %s.", entry.name, reason)
            self.queue.refused(entry, reason)

    def _send_next(self) -> bool:
        """Send the first results that wait."""
        away = time.monotonic() < self._away_until
        entry = None if away else self.queue.next([State.CLASSIFIED])
        if entry is not None:
            self._send(entry)
        return entry is not None

    def _send(self, entry: Entry) -> None:
        try:
            self.destination.send(entry.results)
        except Unreachable as error:
            self._away += 1
            pause = self._pause(self._away)
            self._away_until = time.monotonic() + pause
            self._trouble = str(error)
            self._logger.warning("%s. Next try in %g seconds.", error, pause)
        except NotTaken as error:
            self._put_off(entry, str(error))
        except Exception as error:  # an answer that makes no sense
            self._put_off(entry, fault(error))
        else:
            self._away = 0
            self.queue.sent(entry)
            self._logger.info("Sent the result of %s.", entry.name)

    def _put_off(self, entry: Entry, reason: str) -> None:
        """Try a result again later, while others go first, or give it up."""
        self._away = 0
        if entry.tries + 1 >= self.tries:
            self.queue.failed(entry, reason)
            self._logger.error("Given up the result of %s after %d tries: %s.", entry.name, self.tries, reason)
        else:
            pause = self._pause(entry.tries + 1)
            self.queue.postpone(entry, pause)
            self._logger.warning("%s to the result of %s. Its next try is in %g seconds.", reason, entry.name, pause)

    def _pause(self, times: int) -> float:
        """Return the seconds to wait after so many attempts in a row."""
        return min(self.first_pause * 2 ** min(times - 1, 30), self.longest_pause)

    def _wait(self, reason: str, seconds: float) -> None:
        """Do nothing for a while."""
        self._trouble = reason
        self._logger.warning("%s. Next try in %g seconds.", reason, seconds)
        end = time.monotonic() + seconds
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
