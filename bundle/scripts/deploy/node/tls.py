"""TLS with a certificate on either side (DICOM PS3.15 B.12, BCP 195)."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from scripts.utils.errors import UserError


@dataclass(frozen=True)
class Certificates:
    """The node's own certificate, and whose certificates it trusts; PEM files.

    Who calls the node shows a certificate of these authorities, and so does whom it calls, under the name that it is
    called by.

    Args:
        certificate: of this node, with those between it and its authority.
        private_key: of the certificate, without a password.
        authorities: whose certificates are trusted.
    """

    certificate: str
    private_key: str
    authorities: str

    def of_server(self) -> ssl.SSLContext:
        """Return what listens with.

        Raises:
            UserError: a file is missing, or is not what it should be.
        """
        context = self._read(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def of_client(self) -> ssl.SSLContext:
        """Return what calls with.

        Raises:
            UserError: a file is missing, or is not what it should be.
        """
        return self._read(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _read(self, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = make()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.private_key, password=lambda: "")  # or it would ask
            context.load_verify_locations(self.authorities)
        except (OSError, ValueError) as error:  # a ValueError for a password that is empty
            raise UserError(
                f"the certificates of TLS cannot be read ({getattr(error, 'strerror', None) or error}): give PEM files "
                "(keys 'tls_certificate', 'tls_key', 'tls_authorities')"
            ) from error
        return context


def certificates(certificate: str | None, private_key: str | None, authorities: str | None) -> Certificates | None:
    """Return the certificates of a config; ``None`` where none is given, and nothing is encrypted.

    Raises:
        UserError: some are given and some are not, or one cannot be read.
    """
    if certificate is private_key is authorities is None:
        return None
    if certificate is None or private_key is None or authorities is None:
        raise UserError(
            "TLS needs a certificate, its key, and the authorities that are trusted: give all three (keys "
            "'tls_certificate', 'tls_key', 'tls_authorities')"
        )
    found = Certificates(certificate, private_key, authorities)
    found.of_client()
    return found
