"""The REST door over the real rooms, a real PostgreSQL and a folder that is thrown away."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from baseai.telemetry.memory import MemoryStore
from baseai.telemetry.served import served
from baseai.truth.session import Truth
from tests.api.platform import Platform


@pytest.fixture
async def platform(truth: Truth, tmp_path: Path) -> AsyncIterator[Platform]:
    """Two tenants, a key of each role, and one ready node with four CPU slots. Nobody keeps samples."""
    made = Platform(truth, tmp_path)
    await made.furnish()
    yield made
    await made.close()


@pytest.fixture
async def measured(truth: Truth, tmp_path: Path) -> AsyncIterator[Platform]:
    """The same with a metric store, asked over its socket as in a real platform."""
    folder = Path(tempfile.mkdtemp(prefix="baseai-a-", dir="/tmp"))
    async with served(MemoryStore(), folder / "metrics.sock"):
        made = Platform(truth, tmp_path, folder / "metrics.sock")
        await made.furnish()
        yield made
        await made.close()
    shutil.rmtree(folder)
