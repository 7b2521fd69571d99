"""Fixtures that several test files use."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photos, weights and word vectors; tests that need it skip where it is absent."""
    if not (SHARED / "data" / "flickr8k").is_dir():
        pytest.skip("the shared photos, weights and vectors are not on this machine (../shared)")
    return SHARED
