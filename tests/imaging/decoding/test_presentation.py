"""References: they say all that decides how a picture is read, and come back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.imaging.decoding.presentation import Presentation, make_presentation, make_reference, split_reference
from scripts.imaging.decoding.reasons import EXPLANATIONS, WAIVABLE, ImageRefused, Reason
from scripts.utils.errors import UserError


@pytest.mark.parametrize("path", ["/a/scan.dcm", "/a/b#c/scan", "/a/b?c/scan.nii.gz"])
@pytest.mark.parametrize("picture", ["", "3", "middle", "2/12", "0/mean/4"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"window": [40, 400]},
        {"window": "-600.5,1500", "accept": ["derived", "burned_in"], "seconds": 2.5},
        {"axcodes": "RAS", "max_pixels": 100, "max_bytes": 2000},
    ],
    ids=str,
)
def test_a_reference_comes_back_as_it_was(path: str, picture: str, settings: dict[str, Any]) -> None:
    presentation = make_presentation(settings)
    reference = make_reference(path, picture, presentation)
    if picture or settings:
        assert split_reference(reference) == (path, picture, presentation)
    else:
        assert reference == path


def test_a_file_whose_name_holds_the_mark_is_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "odd#name").touch()
    path = str(tmp_path / "odd#name")
    assert split_reference(path) == (path, "", Presentation())
    assert split_reference(f"{path}#3") == (path, "3", Presentation())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": "bone"}, "window is 'bone'"),
        ({"window": [40, 0]}, "window is '40,0'"),
        ({"window": "nan,1"}, "window is 'nan,1'"),
        ({"window": [1, 2, 3]}, "window is '1,2,3'"),
        ({"accept": ["corrupt_pixels"]}, "unknown reason 'corrupt_pixels' to accept"),
        ({"axcodes": "LRS"}, "axcodes is 'LRS'"),
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"seconds": "soon"}, "seconds is 'soon'"),
        ({"seconds": "inf"}, "seconds is inf"),
        ({"windows": "file"}, "unknown setting 'windows'"),
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_presentation(settings)


def test_every_reason_is_explained_and_says_how_it_is_accepted() -> None:
    assert EXPLANATIONS.keys() == set(Reason)
    assert {reason for reason, words in EXPLANATIONS.items() if "presentation#accept" in words} == set(WAIVABLE)


def test_an_error_made_of_its_message_alone_is_still_one() -> None:
    """A process that loads data makes errors of other processes anew like this."""
    assert ImageRefused("broken").reason == Reason.UNREADABLE
