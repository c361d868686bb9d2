"""A DICOMweb server (PS3.18), asked for no more than fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import requests
from dicomweb_client import DICOMwebClient

_CHUNK = 2**20
INSTANCE = "00080018"
"""The attribute that names an instance: SOPInstanceUID."""


class TooLong(OSError):
    """A server's answer is longer than allowed."""


class BoundedSession(requests.Session):
    """Takes no answer into memory that is longer than allowed.

    Args:
        max_bytes: of an answer.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self.max_bytes = max_bytes

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        """Return an answer, whole unless it is to be streamed.

        Raises:
            TooLong: it is longer than allowed.
        """
        response = super().send(request, **{**settings, "stream": True})
        if not settings.get("stream"):
            content = bytearray()
            for chunk in response.iter_content(_CHUNK):
                content += chunk
                if len(content) > self.max_bytes:
                    response.close()
                    raise TooLong(f"it has more than {self.max_bytes} bytes")
            response._content = bytes(content)
        return response


def client_of(url: str, session: requests.Session, headers: Mapping[str, str], seconds: float) -> DICOMwebClient:
    """Make a client that tries once: who uses it knows when to try again.

    Args:
        url: of the server's DICOMweb service, such as ``https://pacs/dicom-web``.
        session: sends the requests.
        headers: of each request, such as ``Authorization``.
        seconds: that connecting or an answer may take.

    Raises:
        ValueError: for an address that is none.
    """
    try:
        client = DICOMwebClient(url.rstrip("/"), session, headers=dict(headers), timeout=seconds)
    except AttributeError as error:
        raise ValueError(f"{url} is no address") from error
    client.set_http_retry_params(retry=False)
    return client


def find_instances(
    client: DICOMwebClient, filters: Mapping[str, str], page: int, fields: Sequence[str] = ()
) -> Iterator[dict[str, str]]:
    """Yield the instances that match (QIDO-RS, PS3.18 10.6), each once, as first values by tag.

    It ends at a page without any that were not on an earlier one.

    Args:
        client: of the server.
        filters: attribute and value, such as ``{"Modality": "CT"}``.
        page: answers that are asked for at a time.
        fields: attributes that are wanted beside those that a server tells anyway.

    Raises:
        OSError: the server is away, or does not answer as it should.
    """
    seen: set[str] = set()
    while True:
        answers = client.search_for_instances(
            fields=list(fields), limit=page, offset=len(seen), search_filters=dict(filters)
        )
        new = {found[INSTANCE]: found for found in map(_values, answers) if found[INSTANCE] not in seen}
        yield from new.values()
        seen |= new.keys()
        if not new or len(answers) < page:
            return


def http_status(error: Exception) -> int | None:
    """Return the status that a server answered with, ``None`` where it did not answer."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _values(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the first value of each attribute in an answer."""
    return {tag: str((element.get("Value") or [""])[0]) for tag, element in answer.items()}
