"""Look-up tables of DICOM, of the modality and of the values of interest: PS3.3 C.11.1.1 and C.11.2.1.1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from scripts.imaging.decoding.reasons import Reason, Refusal


@dataclass(frozen=True)
class LookupTable:
    """Says what becomes of whole numbers.

    Args:
        first: the number that the first entry is for; what lies outside of the table becomes its nearest end.
        entries: float32 ``[n]``, 0 to 65535.
        top: the entry that is white.
    """

    first: int
    entries: np.ndarray
    top: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the entries for int64 values, which are overwritten; float32 of the same shape."""
        np.clip(values, self.first, self.first + len(self.entries) - 1, out=values)
        values -= self.first
        return self.entries[values]


def lookup_table(item: Dataset, signed: bool, big_endian: bool) -> LookupTable:
    """Read a table.

    The descriptor's three words (entries, 0 for 65536; first number; bits an entry) mean the same whether they were
    written as US or as SS. White is the highest entry of so many bits, but the largest that there is where the table
    holds fewer bits, or more, than it says: 12 in what says 16 would be a sixteenth as bright.

    Args:
        item: of a ModalityLUTSequence or VOILUTSequence.
        signed: whether what is looked up may be negative, which says how the first number is read.
        big_endian: how the file orders the bytes of a word.

    Raises:
        Refusal: for other than 8 to 16 bits an entry, or fewer entries than are said.
    """
    count, first, bits = (int(word) & 0xFFFF for word in item.LUTDescriptor)
    if not 8 <= bits <= 16:
        raise Refusal(Reason.CORRUPT_HEADER)
    entries = _entries(_words(item["LUTData"], big_endian), count or 65536, bits)
    largest = int(entries.max())
    held = max(8, largest.bit_length())
    first -= 65536 if signed and first >= 32768 else 0
    return LookupTable(first, entries.astype(np.float32), float(2**bits - 1 if held == bits else largest))


def _words(data: DataElement, big_endian: bool) -> np.ndarray:
    """Return the 16-bit words of an element, which may hold numbers (US, SS), words (OW) or bytes (OB)."""
    if not isinstance(data.value, bytes):
        return (np.atleast_1d(data.value).astype(np.int64) & 0xFFFF).astype("<u2")
    order = ">u2" if big_endian and data.VR != "OB" else "<u2"
    return np.frombuffer(data.value + b"\0" * (len(data.value) % 2), order).astype("<u2")


def _entries(words: np.ndarray, count: int, bits: int) -> np.ndarray:
    """Return as many entries as are said: a word each, or for 8 bits a byte each, the low one of a word first."""
    if bits == 8 and len(words) == (count + 1) // 2 < count:
        words = words.view(np.uint8)
    if len(words) < count:
        raise Refusal(Reason.CORRUPT_HEADER)
    return words[:count]
