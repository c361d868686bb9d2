"""What a node has done is said while it works, and by UID only where a UID was given; what was given up goes again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.queue import main
from scripts.deploy.queue import ImageQueue, State


@pytest.fixture
def queue(tmp_path: Path, put: Any) -> Iterator[ImageQueue]:
    """A queue in use: one image refused, the results of two given up, one waiting."""
    made = ImageQueue(str(tmp_path / "queue"), lambda: "model")
    for number in range(3):
        put(made, f"1.{number}", b"image")
        entry = made.next()
        assert entry is not None
        if number == 0:
            made.refused(entry, "corrupt_pixels")
        else:
            made.failed(made.classified(entry, [b"result"]), f"ARCHIVE answers with status C00{number}")
    put(made, "1.3", b"image")
    yield made
    made.close()


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_states_are_counted_and_refused_images_listed(queue: ImageQueue, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "list", str(queue.folder))
    assert said.startswith("Images: 1 received, 0 classified, 0 sent, 2 failed, 1 refused, 0 ignored.")
    assert f"{queue.name('1.0')} | corrupt_pixels" in said
    assert queue.name("1.3") not in said


def test_an_image_is_found_by_its_uid(queue: ImageQueue, capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(say(capsys, "list", str(queue.folder), "1.3", "1.4")) == [
        [queue.name("1.3"), "received", "1.3"],
        [queue.name("1.4"), "never received", "1.4"],
    ]


def test_what_was_given_up_is_listed_and_goes_again(queue: ImageQueue, capsys: pytest.CaptureFixture[str]) -> None:
    folder, names = str(queue.folder), [queue.name(uid) for uid in ("1.1", "1.2")]
    assert [row[1:] for row in rows(say(capsys, "failed", folder))] == [
        [name, f"ARCHIVE answers with status C00{number}"] for number, name in enumerate(names, 1)
    ]
    assert say(capsys, "retry", folder, names[1]).startswith("1 results are sent again")
    entry = queue.next([State.CLASSIFIED])
    assert entry is not None and (entry.name, entry.results, entry.tries) == (names[1], (b"result",), 0)
    assert say(capsys, "retry", folder).startswith("1 results")
    assert say(capsys, "failed", folder) == "No result was given up.\n"


def test_an_image_that_was_not_given_up_is_named(queue: ImageQueue, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retry", str(queue.folder), queue.name("1.1"), "0123"]) == 1
    assert capsys.readouterr().err.startswith("Error: the results of 0123 were not given up: `queue failed` lists")
    assert queue.counts()[State.FAILED] == 2


def test_a_folder_without_a_queue_is_named_and_stays_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(
        f"Error: no queue in {tmp_path}: give the folder that the node was started with"
    )
    assert list(tmp_path.iterdir()) == []
