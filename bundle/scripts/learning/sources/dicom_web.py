"""Data sets in an archive: found by QIDO-RS, a query a class, and fetched once by WADO-RS (DICOM PS3.18 10.6, 10.4)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from dicomweb_client import DICOMwebClient

from scripts.learning.sources.source import Group, Item
from scripts.utils.dicomweb import INSTANCE, BoundedSession, TooLong, client_of, find_instances, http_status
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically

_STUDY, _SERIES = "0020000D", "0020000E"
_UID = re.compile(r"[0-9.]{1,64}")


class DicomWeb:
    """Fetches the instances of an archive that queries find, each into a file below ``root`` that stays there.

    What is there is not fetched again, and once all is there the archive is asked for the lists alone. The files are
    those of patients: the folder is for the eyes of its owner.

    Args:
        url: of the archive's DICOMweb service, such as ``https://pacs/dicom-web``.
        queries: by class name, what its instances have: attributes and values of QIDO-RS, such as
            ``{"StudyDescription": "MELANOMA", "Modality": "XC"}``.
        root: the folder of the files.
        max_bytes: of all files in it.
        page: answers that are asked for at a time.
        seconds: that connecting or an answer may take.
        max_answer: bytes of an answer, which may be an image or a page of a list.
        token: the environment variable that holds a bearer token, where the archive asks for one.
    """

    def __init__(
        self,
        url: str,
        queries: Mapping[str, Mapping[str, str]],
        root: str,
        max_bytes: int,
        page: int = 1000,
        seconds: float = 30,
        max_answer: int = 2**27,
        token: str = "DICOMWEB_TOKEN",
    ) -> None:
        self.url = url
        self.queries = queries
        self.root = Path(root).absolute()
        self.max_bytes = max_bytes
        self.page = page
        self.seconds = seconds
        self.max_answer = max_answer
        self.token = token
        self.held = 0

    def groups(self) -> list[Group]:
        """Return the one group, whose classes are in the order of the queries; what is missing is fetched first.

        Raises:
            UserError: for queries that find nothing or the same instance, an archive that does not answer as it
                should, or more bytes than the folder may hold.
        """
        if len(self.queries) < 2:
            raise UserError(
                "the archive's images need a query a class, two classes at least: give "
                "source#files#queries, such as {nevus: {StudyDescription: NEVUS}, wart: {StudyDescription: WART}}"
            )
        headers = {"Authorization": f"Bearer {os.environ[self.token]}"} if self.token in os.environ else {}
        try:
            client = client_of(self.url, BoundedSession(self.max_answer), headers, self.seconds)
        except ValueError as error:
            raise UserError(
                f"'{self.url}' is no address of a DICOMweb server: give https://... (--source#files#url)"
            ) from error
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.held = sum(entry.stat().st_size for entry in os.scandir(self.root))
        owner: dict[str, str] = {}
        train = {name: self._items(client, name, filters, owner) for name, filters in self.queries.items()}
        return [Group(self.root.name, tuple(train), train, {name: [] for name in train})]

    def _items(
        self, client: DICOMwebClient, name: str, filters: Mapping[str, str], owner: dict[str, str]
    ) -> list[Item]:
        try:
            found = sorted(find_instances(client, filters, self.page), key=lambda one: one[INSTANCE])
        except OSError as error:  # as which requests raises all of its own
            raise self._no_answer(error) from error
        if not found:
            raise UserError(f"the query of class {name} finds nothing in {self.url}: {dict(filters)}")
        for one in found:
            other = owner.setdefault(one[INSTANCE], name)
            if other != name:
                raise UserError(f"the queries of classes {other} and {name} find the same images: make them differ")
        return [{"image": str(self._file(client, one))} for one in found]

    def _file(self, client: DICOMwebClient, one: Mapping[str, str]) -> Path:
        """Return where an instance lies, in the transfer syntax that it is stored in."""
        if not _UID.fullmatch(one[INSTANCE]):
            raise UserError(f"{self.url} names an image {ascii(one[INSTANCE])}, which is no UID")
        file = self.root / f"{one[INSTANCE]}.dcm"
        if file.is_file():
            return file
        try:
            dataset = client.retrieve_instance(one[_STUDY], one[_SERIES], one[INSTANCE])
        except OSError as error:
            raise self._no_answer(error) from error
        content = BytesIO()
        dataset.save_as(content)
        self.held += content.tell()
        if self.held > self.max_bytes:
            raise UserError(
                f"the images that the queries find are more than the {self.max_bytes} bytes that {self.root} may hold: "
                "narrow them, or allow more (--source#files#max_bytes)"
            )
        write_atomically(file, content.getvalue(), 0o600)
        return file

    def _no_answer(self, error: OSError) -> UserError:
        answer = error if isinstance(error, TooLong) else http_status(error) or type(error).__name__
        return UserError(
            f"{self.url} does not answer as a DICOMweb server should ({answer}): check --source#files#url and, where "
            f"it asks for a token, the variable {self.token}"
        )
