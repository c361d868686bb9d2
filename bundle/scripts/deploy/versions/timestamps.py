"""Time stamps of the head of an audit log, by an authority elsewhere (RFC 3161)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from rfc3161_client import (
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from scripts.utils.errors import UserError


def stamp_request(head: str) -> bytes:
    """Return the request for a time stamp of a head, as an authority takes it (``application/timestamp-query``)."""
    return TimestampRequestBuilder().data(head.encode()).build().as_bytes()


def stamped(answer: Path, authority: Path, heads: Sequence[str]) -> tuple[int, datetime]:
    """Say which head an authority has stamped, and when.

    Args:
        answer: the file of what the authority answered.
        authority: the certificate (PEM) that the authority's own is signed with.
        heads: the hashes of all events of the log.

    Returns:
        The number of events, from 1, that the log had, and the time.

    Raises:
        UserError: the log has no such head any more, or the stamp is not that authority's.
    """
    try:
        response = decode_timestamp_response(answer.read_bytes())
        root = x509.load_pem_x509_certificate(authority.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the time stamp {answer}, or the certificate {authority}: {error}") from error
    imprint = response.tst_info.message_imprint.message
    found = [number for number, head in enumerate(heads, 1) if hashlib.new("sha512", head.encode()).digest() == imprint]
    if not found:
        raise UserError(f"the log has no event that {answer} is a stamp of: it was cut or written anew")
    try:
        VerifierBuilder().add_root_certificate(root).build().verify_message(response, heads[found[0] - 1].encode())
    except (VerificationError, ValueError) as error:
        raise UserError(f"{answer} is no stamp of the authority in {authority} ({error}): ask it anew") from error
    return found[0], response.tst_info.gen_time
