"""What tests of every room may ask for: a real PostgreSQL, and the folder of real recorded data."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from baseai.ground.identity import mint
from baseai.truth.embedded import Embedded
from baseai.truth.session import Truth
from tests.postgres import database, server


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def embedded() -> Iterator[Embedded]:
    with server() as running:
        yield running


@pytest.fixture
def dsn(embedded: Embedded) -> Iterator[str]:
    """A fresh, migrated database of its own."""
    with database(embedded, mint("db").lower()) as fresh:
        yield fresh


@pytest.fixture
async def truth(dsn: str) -> AsyncIterator[Truth]:
    """The truth over a fresh database; use with `@pytest.mark.anyio`."""
    opened = Truth(dsn, connections_max=6)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded data and judging tools kept beside the checkout, not in it.

    `BASEAI_SHARED` names it; otherwise `../shared` is looked at. Without it the test is skipped.
    """
    folder = Path(os.environ.get("BASEAI_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not (folder / "fixtures").is_dir():
        pytest.skip("the recorded data are not here: put them into ../shared or set BASEAI_SHARED")
    return folder
