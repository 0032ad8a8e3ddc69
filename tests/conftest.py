"""What every test may ask for. Builders of a room live beside the room's tests, not here."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of traces, fixtures and judging tools that is kept beside the checkout, not in it.

    `BASEAI_SHARED` names it; otherwise `../shared` is looked at. Without it the test is skipped.
    """
    folder = Path(os.environ.get("BASEAI_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs the shared folder: {folder} is not there, and BASEAI_SHARED names no other")
    return folder
