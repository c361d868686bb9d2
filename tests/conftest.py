"""Shared by all tests: where the real images are, and small networks and images made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real images (CONTINUAL_TEST_DATA, default ../shared/data); the test is skipped without it."""
    folder = Path(os.environ.get("CONTINUAL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} does not exist (set CONTINUAL_TEST_DATA)")
    return folder
