"""A DICOMweb server (PS3.18) as this node sees it."""

from __future__ import annotations

from collections.abc import Mapping

from dicomweb_client import DICOMwebClient

from scripts.errors import UserError


def make_client(url: str, headers: Mapping[str, str], seconds: float) -> DICOMwebClient:
    """Make a client that tries once: who uses it knows when to try again.

    Args:
        url: of the server's DICOMweb service, such as ``https://pacs/dicom-web``.
        headers: of each request, such as ``Authorization``.
        seconds: that connecting or an answer may take.

    Raises:
        UserError: for an address that is none.
    """
    try:
        client = DICOMwebClient(url.rstrip("/"), headers=dict(headers), timeout=seconds)
    except (ValueError, AttributeError) as error:
        raise UserError(f"'{url}' is no address of a DICOMweb server: give https://... (key 'web_url')") from error
    client.set_http_retry_params(retry=False)
    return client


def http_status(error: Exception) -> int | None:
    """Return the status that a server answered with, ``None`` where it did not answer."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)
