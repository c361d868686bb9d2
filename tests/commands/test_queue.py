"""What a node has done is said while it works, and by UID only where a UID was given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.commands.queue import describe, main
from scripts.errors import UserError
from scripts.node.queue import ImageQueue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[ImageQueue]:
    """A queue in use: one image refused, one waiting."""
    made = ImageQueue(str(tmp_path / "queue"), lambda: "model")
    made.add("1.1", b"broken")
    entry = made.next()
    assert entry is not None
    made.refused(entry, "corrupt_pixels")
    made.add("1.2", b"image")
    yield made
    made.close()


def test_states_are_counted_and_refused_images_listed(queue: ImageQueue) -> None:
    said = describe(str(queue.folder), [])
    assert said.startswith("Images: 1 received, 0 classified, 0 sent, 1 refused, 0 ignored.")
    assert f"{queue.name('1.1')} | corrupt_pixels" in said
    assert queue.name("1.2") not in said


def test_an_image_is_found_by_its_uid(queue: ImageQueue) -> None:
    rows = [line.split("|")[1:-1] for line in describe(str(queue.folder), ["1.2", "1.3"]).splitlines()[2:]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [queue.name("1.2"), "received", "1.2"],
        [queue.name("1.3"), "never received", "1.3"],
    ]


def test_a_folder_without_a_queue_is_named_and_stays_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no queue in .*: give the folder that the node was started with"):
        describe(str(tmp_path), [])
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("Error: no queue in ")
    assert list(tmp_path.iterdir()) == []
