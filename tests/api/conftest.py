"""The REST door over the real rooms, a real PostgreSQL and a folder that is thrown away."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from baseai.truth.session import Truth
from tests.api.platform import Platform


@pytest.fixture
async def platform(truth: Truth, tmp_path: Path) -> AsyncIterator[Platform]:
    """Two tenants, a key of each role, and one ready node with four CPU slots."""
    made = Platform(truth, tmp_path)
    await made.furnish()
    yield made
    await made.close()
