"""A contribution is as its site signed it, to the byte, and tells of no single image by having too few."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import safe_open

from scripts.federation.contribution import read_contribution
from scripts.federation.site import Card, Site
from scripts.utils.errors import UserError


@pytest.fixture
def given(fed: SimpleNamespace, tmp_path: Path) -> Path:
    return fed.give(tmp_path, "a", {"s": fed.vectors(30, 0), "t": fed.vectors(12, 1)}, {0.1: 2.0, 1.0: 3.0}).path


def test_a_tampered_byte_is_refused_wherever_it_is(given: Path, tmp_path: Path) -> None:
    card, content = Card.read(tmp_path / "a.site.json"), given.read_bytes()
    assert read_contribution(given, card).site == "a"
    for place in [*range(0, 40), *range(40, len(content), 13)]:
        given.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError):
            read_contribution(given, card)
    for other in (content[:-1], content + b"\0", b"", content[:20]):
        given.write_bytes(other)
        with pytest.raises(UserError):
            read_contribution(given, card)


def test_a_file_of_another_site_is_refused(given: Path, tmp_path: Path) -> None:
    stranger = Site.make("b", tmp_path).card
    with pytest.raises(UserError, match="is of site a, not of b"):
        read_contribution(given, stranger)
    with pytest.raises(UserError, match="not as site a signed it"):
        read_contribution(given, Card("a", stranger.signs, stranger.masks))


def test_it_holds_sums_counts_and_hashes_and_nothing_else(given: Path, tmp_path: Path) -> None:
    one = read_contribution(given, Card.read(tmp_path / "a.site.json"))
    with safe_open(given, "np") as file:
        assert sorted(file.keys()) == ["class.0", "class.1", "errors"]
        assert sorted(file.metadata()) == ["contribution", "signature"]
    assert str(tmp_path) not in given.read_bytes().decode("latin-1")
    assert [own["images"] for own in one.classes] == [30, 12]
    assert one.width() == 10


def test_sums_of_fewer_images_than_features_leave_only_hidden(fed: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tell single images: few has 2\. Mask them"):
        fed.give(tmp_path, "a", {"s": fed.vectors(30, 0), "few": fed.vectors(2, 1)})
    assert not (tmp_path / "a.safetensors").exists()


def test_a_changed_card_is_refused(tmp_path: Path) -> None:
    Site.make("a", tmp_path)
    other = Site.make("b", tmp_path).card
    text = (tmp_path / "a.site.json").read_text()
    (tmp_path / "a.site.json").write_text(text.replace(Card.read(tmp_path / "a.site.json").masks, other.masks))
    with pytest.raises(UserError, match="signature does not fit"):
        Card.read(tmp_path / "a.site.json")
    with pytest.raises(UserError, match="is there already"):
        Site.make("b", tmp_path)
    with pytest.raises(UserError, match="other signs"):
        Site.make("../b", tmp_path)
    assert (tmp_path / "b.key").stat().st_mode & 0o077 == (tmp_path / "b.mask.key").stat().st_mode & 0o077 == 0
