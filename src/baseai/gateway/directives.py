"""Directives are what a request or an answer says of keeping: the words of Cache-Control that a gateway heeds.

Invariant: what cannot be read is taken for the stricter: an age that is no number is 0. Read by `asked_by` and
`told_by`; nobody changes them. Source: RFC 9111, section 5.2.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedOf:
    """What a client asks of the cache."""

    keeps_out: bool = False  # no-store: neither look nor keep
    fresh_only: bool = False  # no-cache: ask anew, and keep that
    kept_only: bool = False  # only-if-cached
    max_age_s: int | None = None  # of an answer it takes


NOTHING_ASKED = AskedOf()


def asked_by(cache_control: bytes) -> AskedOf:
    """What a request's Cache-Control asks."""
    if not cache_control:
        return NOTHING_ASKED
    words = _words(cache_control)
    return AskedOf(
        keeps_out="no-store" in words,
        fresh_only="no-cache" in words,
        kept_only="only-if-cached" in words,
        max_age_s=_seconds(words["max-age"]) if "max-age" in words else None,
    )


def told_by(cache_control: bytes) -> int | None:
    """For how many seconds an answer's Cache-Control lets a cache for many keep it; None where it does not say."""
    words = _words(cache_control)
    if not words.keys().isdisjoint({"no-store", "no-cache", "private"}):
        return 0
    for name in ("s-maxage", "max-age"):
        if name in words:
            return _seconds(words[name])
    return None


def _words(cache_control: bytes) -> dict[str, str]:
    words: dict[str, str] = {}
    for part in cache_control.decode("latin-1").split(","):
        name, _, value = part.partition("=")
        words.setdefault(name.strip().lower(), value.strip().strip('"'))
    return words


def _seconds(value: str) -> int:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else 0
