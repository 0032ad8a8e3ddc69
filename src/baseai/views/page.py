"""A page is a part of a list, with the cursor of the next: where it ended, over (instant, id).

Invariant: a walk over pages neither loses nor repeats a row while others arrive. Pure.
"""

from datetime import datetime
from typing import Any

from baseai.ground.fault import Refused

PAGE_MAX = 500
Row = dict[str, Any]


def limit_of(limit: int) -> int:
    """As many rows as a page may have; ask for one more to see whether there is a next."""
    return min(max(1, limit), PAGE_MAX)


def page_of(rows: list[Row], limit: int, at: str, key: str) -> tuple[list[Row], str | None]:
    """The page of rows that were asked for with one more than `limit_of`, and the cursor of the next."""
    shown = rows[: limit_of(limit)]
    if len(rows) == len(shown):
        return shown, None
    return shown, f"{shown[-1][at].isoformat()}|{shown[-1][key]}"


def cursor_of(text: str | None) -> tuple[datetime | None, str | None]:
    """Where the page before ended. Raises Refused for what is no cursor."""
    if text is None:
        return None, None
    at, _, key = text.partition("|")
    try:
        return datetime.fromisoformat(at), key
    except ValueError as wrong:
        raise Refused(f"{text[:80]!r} is not a cursor: take it from `next` of the page before") from wrong
