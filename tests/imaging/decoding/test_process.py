"""The child process: whatever happens to it, there is a picture or a reason, and the next picture comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from scripts.imaging.decoding.presentation import Presentation
from scripts.imaging.decoding.process import Decoder, decoder
from scripts.imaging.decoding.reasons import ImageRefused, Reason, Refusal
from scripts.imaging.decoding.scans import make_selection, read_scan

PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)
PLAIN = Presentation()


@pytest.fixture
def path(tmp_path: Path, scans: Any) -> str:
    return str(scans.dicom(tmp_path / "image", PIXELS))


def reason_of(reader: Decoder, path: str, presentation: Presentation = PLAIN) -> Reason:
    with pytest.raises(Refusal) as refusal:
        reader.read(path, "", presentation)
    return refusal.value.reason


def child_of(reader: Decoder) -> subprocess.Popen[bytes]:
    assert reader._child is not None
    return reader._child


def test_pictures_come_as_bytes_or_as_fractions(path: str) -> None:
    reader = decoder()
    np.testing.assert_array_equal(reader.read(path, "", PLAIN), PIXELS)
    np.testing.assert_allclose(reader.read(path, "", PLAIN, bits=32), PIXELS / 255, rtol=1e-6)
    assert reader.read(path, "", PLAIN, bits=32).dtype == np.float32


def test_a_header_comes_from_the_same_process(path: str) -> None:
    header = decoder().header(path, PLAIN)
    assert header["PatientID"] == "4711"
    with pytest.raises(Refusal) as refusal:
        decoder().header(f"{path}.none", PLAIN)
    assert refusal.value.reason is Reason.MISSING


def test_one_process_serves_one_picture_after_the_other(path: str) -> None:
    reader = decoder()
    reader.read(path, "", PLAIN)
    child = child_of(reader).pid
    assert reason_of(reader, "/nowhere/image") == Reason.MISSING
    assert reason_of(reader, __file__) == Reason.UNREADABLE
    reader.read(path, "", PLAIN)
    assert child_of(reader).pid == child


def test_a_process_that_died_is_replaced(path: str) -> None:
    reader = decoder()
    reader.read(path, "", PLAIN)
    child_of(reader).kill()
    child_of(reader).wait()
    np.testing.assert_array_equal(reader.read(path, "", PLAIN), PIXELS)


def test_a_process_that_dies_while_it_decodes_is_a_reason(path: str) -> None:
    reader = decoder()
    reader.read(path, "", PLAIN)
    os.kill(child_of(reader).pid, signal.SIGSTOP)  # it gets the request, and dies before it answers
    death = threading.Timer(0.3, child_of(reader).kill)
    death.start()
    assert reason_of(reader, path) == Reason.DECODER_DIED
    death.join()
    np.testing.assert_array_equal(reader.read(path, "", PLAIN), PIXELS)


def test_a_process_that_hangs_is_a_reason(path: str) -> None:
    reader = decoder()
    reader.read(path, "", PLAIN)
    child = child_of(reader)
    os.kill(child.pid, signal.SIGSTOP)
    assert reason_of(reader, path, Presentation(seconds=0.05)) == Reason.TOO_SLOW
    assert child.poll() is not None
    np.testing.assert_array_equal(reader.read(path, "", PLAIN), PIXELS)


def test_what_was_too_slow_is_not_tried_again(tmp_path: Path, scans: Any) -> None:
    bomb = scans.bomb(tmp_path / "bomb.dcm", 2**28)
    (reference,), found = make_selection({"seconds": 0.5}).references(bomb)
    assert not found
    with ThreadPoolExecutor(1) as pool:
        for read in (read_scan, lambda each: pool.submit(read_scan, each).result()):  # whichever thread asks
            with pytest.raises(ImageRefused) as refusal:
                read(reference)
            assert refusal.value.reason is Reason.TOO_SLOW
        assert pool.submit(decoder).result()._child is None  # nothing was started for it
    assert decoder()._child is None


def test_what_describing_took_is_not_there_for_the_picture(path: str) -> None:
    reader = decoder()
    reader.read(path, "", PLAIN)
    child = child_of(reader).pid
    os.kill(child, signal.SIGSTOP)
    waking = threading.Timer(0.5, os.kill, (child, signal.SIGCONT))
    waking.start()
    reader.describe(path, b"", PLAIN)
    waking.join()
    assert reason_of(reader, path, Presentation(seconds=0.4)) == Reason.TOO_SLOW
    for _ in range(2):  # the second is a picture of its own
        np.testing.assert_array_equal(reader.read(path, "", PLAIN), PIXELS)
    assert child_of(reader).pid == child


def test_a_deflated_file_is_as_large_as_what_it_inflates_to(tmp_path: Path, scans: Any) -> None:
    bomb = scans.bomb(tmp_path / "bomb.dcm", 2**20)
    assert os.path.getsize(bomb) < 2**14
    assert reason_of(decoder(), bomb, Presentation(max_bytes=2**19)) == Reason.TOO_LARGE
    assert reason_of(decoder(), bomb, Presentation(max_bytes=2**21)) == Reason.NO_PIXELS


def test_what_is_not_taken_takes_no_memory_and_what_a_large_file_took_is_given_back(tmp_path: Path, scans: Any) -> None:
    reader = Decoder()
    size, spare = 2**27, 2**25
    many = scans.make_dicom(np.zeros((8, 8), np.uint8), DeflatedExplicitVRLittleEndian)
    many.Rows, many.Columns, many.PixelData = 2**14, 2**13, bytes(size)
    pydicom.dcmwrite(tmp_path / "many.dcm", many, enforce_file_format=True)
    large = scans.make_dicom(np.zeros((8, 8), np.uint8))
    large.NumberOfFrames, large.PixelData = 2, bytes(64) + bytes(range(64)) + bytes(size)
    pydicom.dcmwrite(tmp_path / "large.dcm", large, enforce_file_format=True)
    small = scans.dicom(tmp_path / "small.dcm", np.arange(64, dtype=np.uint8).reshape(8, 8))
    reader.read(small, "", PLAIN)
    before, _ = memory(child_of(reader).pid)
    assert reason_of(reader, str(tmp_path / "many.dcm"), Presentation(max_pixels=2**26)) == Reason.TOO_LARGE
    now, most = memory(child_of(reader).pid)
    assert now < before + spare and most < before + spare
    np.testing.assert_array_equal(reader.read(str(tmp_path / "large.dcm"), "1", PLAIN), reader.read(small, "", PLAIN))
    now, most = memory(child_of(reader).pid)
    assert now < before + spare and most < before + spare


def memory(process: int) -> tuple[int, int]:
    """Return the bytes that a process holds, and the most that it has held."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return 1024 * int(said["VmRSS"].split()[0]), 1024 * int(said["VmHWM"].split()[0])


def test_more_memory_than_allowed_is_a_reason(tmp_path: Path) -> None:
    """A file that says to hold 4 GB, nearly all of it a hole, and limits that let it through."""
    header = bytearray(352)
    header[:4] = (348).to_bytes(4, "little")
    header[40:56] = np.array([3, 2000, 2000, 1000, 1, 1, 1, 1], "<i2").tobytes()
    header[70:74] = np.array([2, 8], "<i2").tobytes()  # uint8
    header[108:112] = np.float32(352).tobytes()
    header[254:256] = np.int16(1).tobytes()
    header[280:328] = np.eye(4, dtype="<f4")[:3].tobytes()
    header[344:348] = b"n+1\0"
    path = tmp_path / "large.nii"
    path.write_bytes(header)
    os.truncate(path, 352 + 4 * 10**9)
    with pytest.raises(Refusal) as refusal:
        decoder().read(str(path), "2/0", Presentation(max_bytes=2**40, seconds=60))
    assert refusal.value.reason == Reason.TOO_LARGE


def test_threads_do_not_share_a_process(path: str) -> None:
    def read(_: int) -> int:
        for _ in range(5):
            np.testing.assert_array_equal(decoder().read(path, "", PLAIN), PIXELS)
        return child_of(decoder()).pid

    own = read(0)
    with ThreadPoolExecutor(3) as pool:
        assert own not in set(pool.map(read, range(6)))


def test_a_forked_process_reads_with_a_child_of_its_own(path: str) -> None:
    decoder().read(path, "", PLAIN)
    child = child_of(decoder()).pid
    pid = os.fork()
    if pid == 0:
        done = np.array_equal(decoder().read(path, "", PLAIN), PIXELS) and child_of(decoder()).pid != child
        decoder().close()
        os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    np.testing.assert_array_equal(decoder().read(path, "", PLAIN), PIXELS)
    assert child_of(decoder()).pid == child


def test_a_dropped_decoder_ends_its_process(path: str) -> None:
    reader = Decoder()
    reader.read(path, "", PLAIN)
    child = child_of(reader)
    del reader
    assert child.poll() == -signal.SIGKILL


def test_the_process_starts_without_torch_and_monai() -> None:
    program = "import sys, scripts.imaging.decoding.worker; sys.exit(bool({'torch', 'monai'} & sys.modules.keys()))"
    root = Path(sys.modules["scripts.imaging.decoding"].__file__ or "").parents[3]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == 0
