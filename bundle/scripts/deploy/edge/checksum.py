"""An exported model holds the checksum of itself: of its bytes with zeros where the checksum stands."""

from __future__ import annotations

import re

from scripts.utils.sums import sha256

CHECKSUM = "sha256"
"""The key of an exported model's metadata that it stands under."""
NO_SUM = b"0" * 64
_ENTRY = re.compile(rb"\x0a\x06sha256\x12\x40([0-9a-f]{64})")
"""Key and value as ONNX writes them: two texts of 6 and 64 bytes."""


def with_checksum(content: bytes) -> bytes:
    """Return an exported model, in which the checksum is zeros, with its checksum."""
    (place,) = [match.span(1) for match in _ENTRY.finditer(content)]
    return content[: place[0]] + sha256(content).encode() + content[place[1] :]


def is_whole(content: bytes) -> bool:
    """Say whether an exported model is as it was written."""
    found = list(_ENTRY.finditer(content))
    if len(found) != 1:
        return False
    start, end = found[0].span(1)
    return sha256(content[:start] + NO_SUM + content[end:]).encode() == found[0][1]
