"""A source says where a fact stands: a document, its date, and how closely it was read.

Invariant: a fact without a source does not enter the catalogue, and a value whose mark is C is never shown
without its mark. Sources live beside the facts in the data files; only a change to those files adds one.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

__all__ = ["Evidence", "Mark", "Source", "source_in"]


class Mark(StrEnum):
    """How closely a source was read; later letters are weaker."""

    PRIMARY = "A"  # the maker's own document, or the measurement itself, was read
    SECONDARY = "B"  # somebody else's account of it was read
    UNREAD = "C"  # known to the trade or assumed by us, not read again for this catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One document or page that facts rest on."""

    source_id: str  # unique within its data file
    title: str
    read_on: date  # the day the fact was taken from it
    mark: Mark
    dated: str | None = None  # the date the document itself bears, as it bears it
    url: str | None = None


Evidence = tuple[tuple[str, Source], ...]  # (name of the fact, where it stands)


def source_in(evidence: Evidence, fact: str) -> Source:
    """Where one fact stands. Raises KeyError for a name that is no sourced fact of this value."""
    for name, source in evidence:
        if name == fact:
            return source
    raise KeyError(fact)
