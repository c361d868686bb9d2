"""FHIR over HTTP: the transaction of a report goes to the base of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from scripts.deploy.dicom.reported import read_reports
from scripts.deploy.messages.fhir import fhir_bundle, require_fhir
from scripts.deploy.node.destinations import web_refusal
from scripts.deploy.node.tls import Certificates
from scripts.deploy.node.web import make_session
from scripts.utils.errors import UserError

_MAX_BYTES = 2**22  # of an answer
_TYPE = "application/fhir+json"


class FhirDestination:
    """Tells a FHIR R4B server what reports say; see :func:`scripts.deploy.messages.fhir.fhir_bundle`.

    Args:
        url: base of the server, such as ``https://server/fhir``.
        headers: of each request, such as ``Authorization``.
        seconds: that connecting or an answer may take.
        tls: shown to the server, and asked of it; ``None``: the authorities that the system trusts.

    Raises:
        UserError: fhir.resources is not installed, or the address is none.
    """

    def __init__(self, url: str, headers: Mapping[str, str], seconds: float, tls: Certificates | None = None) -> None:
        require_fhir()
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise UserError(f"'{url}' is no address of a FHIR server: give https://... (key 'fhir_url')")
        self.url = url
        self.seconds = seconds
        self._session = make_session(_MAX_BYTES, tls)
        self._session.headers.update({**headers, "Content-Type": _TYPE, "Accept": _TYPE})

    def send(self, results: Sequence[bytes]) -> None:
        """Deliver the reports among DICOM files; see `Destination`."""
        for reported in read_reports(results):
            try:
                content = fhir_bundle(reported).encode()
                self._session.post(self.url, content, timeout=self.seconds, allow_redirects=False).raise_for_status()
            except OSError as error:  # as which requests raises all of its own
                raise web_refusal(self, error) from None

    def close(self) -> None:
        """Do nothing: HTTP's connections are kept by the session."""

    def __str__(self) -> str:
        return self.url
