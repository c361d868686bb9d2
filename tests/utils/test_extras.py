"""A missing extra is said with what installs it."""

from __future__ import annotations

import pytest

from scripts.utils.errors import UserError
from scripts.utils.extras import of_extra


def test_what_is_missing_is_said_with_what_installs_it() -> None:
    with (
        pytest.raises(UserError, match=r"^moons need no_such_moon: pip install 'dynammo-bundle\[moon\]'"),
        of_extra("moon", "moons need no_such_moon"),
    ):
        import no_such_moon  # type: ignore[import-not-found]  # noqa: F401
