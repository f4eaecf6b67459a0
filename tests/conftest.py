"""Fixtures that every room's tests may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No example has a deadline: on a busy machine any of them may take long, which says nothing of the code.
settings.register_profile("beagle", deadline=None)
settings.load_profile("beagle")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and golden files, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("BEAGLE_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"real data sets are not at {folder} (set BEAGLE_SHARED)")
    return folder.resolve()
