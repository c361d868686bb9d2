"""Small pictures for the list are as the image is: never larger, and as high for their width as its pixels say."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from scripts.deploy.service.views import Thumbnails


@pytest.mark.parametrize(
    ("size", "aspect", "expected"),
    [
        ((200, 100), 1.0, (96, 48)),
        ((200, 100), 2.0, (96, 96)),
        ((200, 100), 4.0, (48, 96)),
        ((100, 200), 0.5, (96, 96)),
        ((40, 20), 1.0, (40, 20)),
        ((2000, 1), 1.0, (96, 1)),
    ],
)
def test_a_thumbnail_is_as_high_for_its_width_as_the_image(
    tmp_path: Path, size: tuple[int, int], aspect: float, expected: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    thumbnails = Thumbnails()
    content = thumbnails.get(tmp_path / "a.png", 96, aspect)
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", expected)
    (tmp_path / "a.png").unlink()
    assert thumbnails.get(tmp_path / "a.png", 96, aspect) is content, "what was drawn is kept"
    thumbnails.close()


def test_no_more_is_kept_than_may_be(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (50, 50)).save(tmp_path / f"{name}.png")
    thumbnails = Thumbnails(kept_bytes=1)
    assert thumbnails.get(tmp_path / "a.png", 16) and thumbnails.get(tmp_path / "b.png", 16)
    (tmp_path / "a.png").unlink()
    with pytest.raises(Exception, match="missing"):
        thumbnails.get(tmp_path / "a.png", 16)
    thumbnails.close()
