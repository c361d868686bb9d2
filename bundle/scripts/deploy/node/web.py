"""A DICOMweb server (PS3.18) as this node sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from dicomweb_client import DICOMwebClient

from scripts.deploy.node.tls import Certificates
from scripts.utils.errors import UserError

_CHUNK = 2**20


class TooLong(OSError):
    """A server's answer is longer than allowed."""


class _Session(requests.Session):
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
                    raise TooLong(f"it has more than {self.max_bytes} bytes (key 'web_client#max_bytes')")
            response._content = bytes(content)
        return response


def make_session(max_bytes: int, tls: Certificates | None = None) -> requests.Session:
    """Make what requests are sent with; see :func:`make_client`."""
    session = _Session(max_bytes)
    if tls is not None:
        session.cert, session.verify = (tls.certificate, tls.private_key), tls.authorities
        session.trust_env = False  # where REQUESTS_CA_BUNDLE would name other authorities
    return session


def make_client(
    url: str, headers: Mapping[str, str], seconds: float, max_bytes: int, tls: Certificates | None = None
) -> DICOMwebClient:
    """Make a client that tries once: who uses it knows when to try again.

    Args:
        url: of the server's DICOMweb service, such as ``https://pacs/dicom-web``.
        headers: of each request, such as ``Authorization``.
        seconds: that connecting or an answer may take.
        max_bytes: of an answer, at most; it takes some four times as much memory.
        tls: shown to the server, and asked of it; ``None``: the authorities that the system trusts.

    Raises:
        UserError: for an address that is none, or a limit that means nothing.
    """
    if not max_bytes > 0:
        raise UserError(f"max_bytes is {max_bytes}: give a number above 0 (key 'web_client#max_bytes')")
    try:
        client = DICOMwebClient(url.rstrip("/"), make_session(max_bytes, tls), headers=dict(headers), timeout=seconds)
    except (ValueError, AttributeError) as error:
        raise UserError(f"'{url}' is no address of a DICOMweb server: give https://... (key 'web_url')") from error
    client.set_http_retry_params(retry=False)
    return client


def http_status(error: Exception) -> int | None:
    """Return the status that a server answered with, ``None`` where it did not answer."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)
