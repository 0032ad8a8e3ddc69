"""The clock is where shells learn the time; cores get `now` as an argument.

Invariant: an instant is an aware datetime in UTC. A naive one is a bug and is refused.
"""

from datetime import UTC, datetime


def now_utc() -> datetime:
    """The machine's clock, in UTC: for shells only."""
    return datetime.now(UTC)


def instant(text: str) -> datetime:
    """An RFC 3339 text as a UTC instant. Raises ValueError when it names no zone."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"{text!r} names no zone")
    return parsed.astimezone(UTC)


def hour_of(at: datetime) -> datetime:
    """The start of the UTC hour that contains `at`."""
    if at.tzinfo is None:
        raise ValueError(f"{at} names no zone")
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
