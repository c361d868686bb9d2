"""Images that are fetched: new ones are searched for by QIDO-RS and retrieved by WADO-RS (DICOM PS3.18 10.6, 10.4)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType

from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from scripts.deploy.node.entity import find_uids
from scripts.deploy.queue import ImageQueue
from scripts.imaging.decoding.dicom import OWN_MANUFACTURER
from scripts.imaging.decoding.reasons import Reason
from scripts.utils.dicomweb import INSTANCE, TooLong, find_instances, http_status
from scripts.utils.errors import UserError

_CLASS, _STUDY, _SERIES = "00080016", "0020000D", "0020000E"
_MANUFACTURER = "00080070"


class Puller:
    """Asks a server again and again for images that the queue does not know, from ``with`` on until its end.

    What is known stays known: an image is fetched once, whatever became of it. Own results, which the server knows by
    their manufacturer, are left where they are.

    Args:
        queue: takes the images.
        client: of the server, see :func:`scripts.deploy.node.web.make_client`.
        filters: what is searched for: attribute and value, such as ``{"Modality": "CT"}``.
        days: images of studies of the last so many days, today included; ``None`` for all.
        sop_classes: which images are fetched: names such as ``CTImageStorage``, or UIDs.
        page: answers that are asked for at a time.
        interval: seconds from the end of a search to the next.

    Raises:
        UserError: for a value that means nothing.
    """

    def __init__(
        self,
        queue: ImageQueue,
        client: DICOMwebClient,
        filters: Mapping[str, str],
        days: int | None,
        sop_classes: str | Sequence[str],
        page: int,
        interval: float,
    ) -> None:
        for name, value in {"days": 1 if days is None else days, "page": page, "interval": interval}.items():
            if not value > 0:
                raise UserError(f"{name} is {value}: give a number above 0 (key 'puller#{name}')")
        self.queue = queue
        self.client = client
        self.filters = filters
        self.days = days
        self.sop_classes = frozenset(find_uids(sop_classes))
        self.page = page
        self.interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="puller", daemon=True)
        self._logger = logging.getLogger(__name__)

    def __enter__(self) -> Puller:
        self._thread.start()
        self._logger.info("Asking %s every %g seconds.", self.client.base_url, self.interval)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.pull()
            except OSError as error:  # as which requests raises all of its own
                answer = http_status(error) or type(error).__name__
                self._logger.warning("%s cannot be searched (%s).", self.client.base_url, answer)
            except UserError as error:
                self._logger.error("Not fetched: %s", error)
            self._stop.wait(self.interval)

    def pull(self) -> None:
        """Search once, and fetch what is new.

        Raises:
            OSError: the server is away, or does not answer a search as it should.
            UserError: the queue cannot be written.
        """
        for found in find_instances(self.client, self._filters(), self.page, ("SOPClassUID", "Manufacturer")):
            if self._stop.is_set():
                return
            uid = found[INSTANCE]
            wanted = found.get(_CLASS, "") in self.sop_classes and found.get(_MANUFACTURER, "") != OWN_MANUFACTURER
            if wanted and self.queue.state(uid) is None:
                self._fetch(uid, found)

    def _filters(self) -> dict[str, str]:
        if self.days is None:
            return dict(self.filters)
        today = date.today()
        return {**self.filters, "StudyDate": f"{today - timedelta(self.days - 1):%Y%m%d}-{today:%Y%m%d}"}

    def _fetch(self, uid: str, found: Mapping[str, str]) -> None:
        """Queue an instance, in the transfer syntax that it is stored in.

        One that the server does not hand out whole is asked for again at the next search.
        """
        name = self.queue.name(uid)
        try:
            file = self._written(self.client.retrieve_instance(found[_STUDY], found[_SERIES], uid))
        except TooLong as error:
            self._logger.warning("Refused %s, %s: %s (key 'web_client#max_bytes').", name, Reason.TOO_LARGE, error)
            self.queue.turned_away(uid, Reason.TOO_LARGE)
        except Exception as error:  # pydicom raises nearly everything on what is broken
            status = http_status(error)
            if isinstance(error, OSError) and status is None:
                raise
            self._logger.warning("Not fetched, %s: the server answers with %s.", name, status or "no DICOM file")
        else:
            self.queue.add(uid, file)
            self._logger.info("Fetched %s.", name)

    def _written(self, dataset: Dataset) -> Path:
        file = self.queue.new_file()
        try:
            dataset.save_as(file)
        except Exception:
            file.unlink()
            raise
        return file
