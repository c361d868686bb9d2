"""Look-up tables as they are written: signs, bits, bytes, words, and both ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from scripts.imaging.decoding.lookup import LookupTable, lookup_table
from scripts.imaging.decoding.reasons import Reason, Refusal

RISING = np.array([0, 40, 90, 255], np.uint8)
ALL = np.arange(65536).astype("<u2")


def table(
    descriptor: list[int], data: Any, kind: str = "OW", signed: bool = False, big_endian: bool = False
) -> LookupTable:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if min(descriptor) < 0 else "US", descriptor)
    item.add_new("LUTData", kind, data)
    return lookup_table(item, signed, big_endian)


def looked_up(found: LookupTable, *values: int) -> list[float]:
    entries = found(np.array(values, np.int64))
    assert entries.dtype == np.float32
    return list(entries.tolist())


@pytest.mark.parametrize("first", [-100, 65436], ids=["SS", "US"])
def test_the_first_number_is_read_by_the_sign_of_what_is_looked_up(first: int) -> None:
    data = np.array([7, 8, 255], "<u2").tobytes()
    assert table([3, first, 8], data, signed=True).first == -100
    assert table([3, first, 8], data).first == 65436


def test_numbers_outside_of_the_table_become_its_ends() -> None:
    found = table([4, 65534, 8], RISING.astype("<u2").tobytes(), signed=True)  # from -2 on
    assert looked_up(found, -(2**40), -3, -2, -1, 0, 1, 2, 2**40) == [0, 0, 0, 40, 90, 255, 255, 255]


@pytest.mark.parametrize("first", [-32768, 32768])
def test_a_table_of_65536_entries_says_0(first: int) -> None:
    found = table([0, first, 16], ALL.tobytes(), signed=True)
    assert looked_up(found, -32768, -1, 0, 32767) == [0, 32767, 32768, 65535]
    assert looked_up(table([0, 0, 16], ALL.tobytes()), 0, 40000, 65535) == [0, 40000, 65535]


@pytest.mark.parametrize(
    ("kind", "data", "big_endian"),
    [
        ("OW", RISING.tobytes(), False),
        ("OB", RISING.tobytes(), False),
        ("OB", RISING.tobytes(), True),
        ("OW", RISING.view("<u2").astype(">u2").tobytes(), True),
        ("US", RISING.view("<u2").tolist(), False),
        ("US", RISING.view("<u2").tolist(), True),
        ("OW", RISING.astype("<u2").tobytes(), False),
        ("OW", RISING.astype(">u2").tobytes(), True),
        ("US", RISING.tolist(), True),
    ],
)
def test_entries_of_8_bits_are_bytes_or_packed_or_words(kind: str, data: Any, big_endian: bool) -> None:
    assert looked_up(table([4, 0, 8], data, kind, big_endian=big_endian), 0, 1, 2, 3) == RISING.tolist()


def test_an_odd_number_of_bytes_is_filled_up() -> None:
    for data in (b"\1\2\xff", b"\1\2\xff\0"):
        assert looked_up(table([3, 0, 8], data, "OB"), 0, 1, 2, 3) == [1, 2, 255, 255]


@pytest.mark.parametrize("entry", [200, 40000])
def test_a_table_of_one_entry(entry: int) -> None:
    assert looked_up(table([1, 5, 16], entry, "US"), 0, 9) == [entry, entry]


@pytest.mark.parametrize("data", [[0, -1], [0, 65535]], ids=["SS", "US"])
def test_entries_have_no_sign(data: list[int]) -> None:
    assert looked_up(table([2, 0, 16], data, "SS" if min(data) < 0 else "US"), 0, 1) == [0, 65535]


@pytest.mark.parametrize(
    ("bits", "largest", "top"),
    [
        *((8, 255, 255), (8, 100, 255), (10, 1023, 1023), (12, 2048, 4095), (16, 65535, 65535), (16, 32768, 65535)),
        *((16, 4095, 4095), (16, 4000, 4000), (16, 1023, 1023), (12, 1000, 1000), (16, 0, 0)),  # hold less than said
        *((12, 65535, 65535), (8, 0xFFFF, 0xFFFF)),  # hold more
    ],
)
def test_white_is_what_the_bits_say_or_the_largest_entry(bits: int, largest: int, top: int) -> None:
    assert table([2, 0, bits], [0, largest], "US").top == top


@pytest.mark.parametrize(
    ("descriptor", "data"),
    [
        ([4, 0, 7], bytes(8)),
        ([4, 0, 17], bytes(8)),
        ([4, 0, 16], bytes(6)),
        ([4, 0, 12], bytes(4)),  # half of the entries: no bytes, they have 12 bits
        ([0, 0, 16], bytes(1000)),
        ([4, 0, 8], b""),
    ],
)
def test_what_is_no_table_is_refused(descriptor: list[int], data: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        table(descriptor, data)
    assert refusal.value.reason is Reason.CORRUPT_HEADER
