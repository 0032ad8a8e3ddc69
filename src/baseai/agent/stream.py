"""A stream is the output of one attempt as the server shall have it: one run of bytes with offsets that only grow.

Invariant: the byte at an offset never changes. Where the oldest segments went before they were delivered, a notice
takes their place; the splice that says so is written down before its first byte is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """At `at` of the stream stands a notice; behind it the log goes on from its own offset `log_from`."""

    at: int
    notice: str
    log_from: int

    @property
    def resumes_at(self) -> int:
        return self.at + len(self.notice.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What to send next: bytes of a notice, or a place in the log."""

    notice: bytes
    log_offset: int


def piece_at(offset: int, splices: Sequence[Splice]) -> Piece:
    """Where the stream's byte `offset` comes from. `splices` rise in `at`."""
    for splice in reversed(splices):
        if offset >= splice.resumes_at:
            return Piece(notice=b"", log_offset=splice.log_from + offset - splice.resumes_at)
        if offset >= splice.at:
            return Piece(notice=splice.notice.encode()[offset - splice.at :], log_offset=splice.log_from)
    return Piece(notice=b"", log_offset=offset)


def splice_over(offset: int, splices: Sequence[Splice], *, log_begins: int) -> Splice | None:
    """The splice needed because the log now begins behind the byte due at `offset`, or None."""
    piece = piece_at(offset, splices)
    if piece.notice or piece.log_offset >= log_begins:
        return None
    lost_bytes = log_begins - piece.log_offset
    notice = f"\n[baseai] {lost_bytes} bytes of output were dropped here: the log is bounded\n"
    return Splice(at=offset, notice=notice, log_from=log_begins)
