"""A file is written whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from scripts.utils.errors import UserError
from scripts.utils.files import last_line, require_apart, write_atomically, write_csv

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


@contextmanager
def unprivileged() -> Iterator[None]:
    """Take root's right to write anywhere away."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(BUNDLE)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("content", ["grün\n", "grün\n".encode(), lambda file: file.write("grün\n".encode())])
def test_text_bytes_and_a_function_are_written(content: object, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, content)  # type: ignore[arg-type]
    write_atomically(path, content)  # type: ignore[arg-type]
    assert path.read_bytes() == "grün\n".encode()
    assert os.listdir(path.parent) == ["file"]


def test_csv_has_empty_cells_for_none(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [["name", "value"], ["a, b", None], ['"c"', 0.1]])
    assert (tmp_path / "a.csv").read_text() == 'name,value\n"a, b",\n"""c""",0.1\n'


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with open(path) as reader:
        write_atomically(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError("not a full disk")

    with pytest.raises(RuntimeError, match="not a full disk"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


class Interrupted:
    """A file, the writing of which is interrupted once, when there is something in it."""

    def __init__(self, interruption: type[BaseException]) -> None:
        self.interruptions = [interruption]
        self.written = 0

    def write(self, content: bytes) -> int:
        if self.written and self.interruptions:
            raise self.interruptions.pop()
        self.written += len(content)
        return len(content)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_torch_does_not_hide_an_interruption(interruption: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(interruption):
        write_atomically(path, lambda file: torch.save({"a": torch.zeros(1000)}, Interrupted(interruption)))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_read_only_folder_is_named_and_the_old_file_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    tmp_path.chmod(0o555)
    monkeypatch.chdir(tmp_path)  # relative paths: the folders above are closed to other users
    try:
        with unprivileged(), pytest.raises(UserError, match="cannot write file: Permission denied; make its folder"):
            write_atomically("file", "new")
    finally:
        tmp_path.chmod(0o755)
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_in_place_of_the_folder_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/runs/metrics.json"):
        write_atomically(tmp_path / "runs" / "metrics.json", "{}")


WRITERS = {
    "text": "write_atomically(path, 'x' * 100000)",
    "torch": "import torch; write_atomically(path, lambda file: torch.save({'a': torch.zeros(100000)}, file))",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_no_space_is_said_and_the_old_file_kept(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = f"""
import resource, sys
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically
path = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    {WRITERS[writer]}
except UserError as error:
    print(error)
"""
    out, err = python(code, str(path)).communicate(timeout=60)
    assert out == f"cannot write {path}: File too large; free some space there and run again\n", err
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = """
import sys
from scripts.utils.files import write_atomically
for number in range(10**9):
    write_atomically(sys.argv[1], str(number % 10) * 1_000_000)
"""
    for delay in (0.0, 0.003, 0.007, 0.012, 0.02):
        path.unlink(missing_ok=True)
        process = python(code, str(path))
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        content = path.read_text()
        assert content == content[0] * 1_000_000
    write_atomically(path, "after")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("images", "results"), [("a", "a"), ("a", "a/out"), ("a/in", "a")])
def test_results_never_lie_among_the_images(tmp_path: Path, images: str, results: str) -> None:
    require_apart(str(tmp_path / "a"), str(tmp_path / "ab"))
    with pytest.raises(UserError, match="lie in each other: give one apart"):
        require_apart(str(tmp_path / images), str(tmp_path / results))


def test_a_file_is_no_folder_of_results(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="is a file: give a folder"):
        require_apart(str(tmp_path / "in"), str(tmp_path / "out"))


def test_the_last_line_of_a_log_is_what_progress_bars_left(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_bytes(b"start\n 10%\r 20%\rError: \xff no images\n\n")
    assert last_line(log) == "Error: � no images"
    log.write_bytes(b"\n")
    assert last_line(log) == "it printed nothing"
