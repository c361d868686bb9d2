"""The DICOMweb server (PS3.18) that this node talks to."""

from __future__ import annotations

from collections.abc import Mapping

import requests
from dicomweb_client import DICOMwebClient

from scripts.deploy.node.tls import Certificates
from scripts.utils.dicomweb import BoundedSession, client_of
from scripts.utils.errors import UserError


def make_session(max_bytes: int, tls: Certificates | None = None) -> requests.Session:
    """Make what requests are sent with; see :func:`make_client`."""
    session = BoundedSession(max_bytes)
    if tls is not None:
        session.cert, session.verify = (tls.certificate, tls.private_key), tls.authorities
        session.trust_env = False  # where REQUESTS_CA_BUNDLE would name other authorities
    return session


def make_client(
    url: str, headers: Mapping[str, str], seconds: float, max_bytes: int, tls: Certificates | None = None
) -> DICOMwebClient:
    """Make a client; see :func:`scripts.utils.dicomweb.client_of`.

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
        return client_of(url, make_session(max_bytes, tls), headers, seconds)
    except ValueError as error:
        raise UserError(f"'{url}' is no address of a DICOMweb server: give https://... (key 'web_url')") from error
