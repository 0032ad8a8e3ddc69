"""A lease bounds what is billable."""

from datetime import UTC, datetime, timedelta

import pytest

from baseai.fleet.lease import clipped

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        pytest.param(-1, 0, id="nothing before its grant"),
        pytest.param(0, 0, id="its first instant"),
        pytest.param(30, 30, id="within"),
        pytest.param(60, 60, id="its end"),
        pytest.param(61, 60, id="nothing after its end"),
    ],
)
def test_clipped(minutes: int, expected: int) -> None:
    at = clipped(NOON + timedelta(minutes=minutes), granted_at=NOON, ends_at=NOON + timedelta(hours=1))
    assert at == NOON + timedelta(minutes=expected)
