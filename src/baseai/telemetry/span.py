"""A span is the time over which one owner had one accelerator, or a part of it.

Invariant: spans of whole devices do not overlap, and shares of those that do add up to one at most: a lease is refused
otherwise. Leases are turned into spans; nothing here knows what a lease is.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from baseai.telemetry.use import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """[from_ms, until_ms) of one owner on one accelerator."""

    owner: str  # a lease's id
    from_ms: int
    until_ms: int
    method: Method = Method.WHOLE_DEVICE
    size: float = (
        1.0  # which part of the device it is: 3/7 of a MIG device, 1/8 in CPX mode, 1/n of n time slices
    )
    activity: float | None = None  # 0..1: how busy this part was over the span, where its own figures say so
    mem_used_max_b: float | None = None  # of this part, where its own figures say so

    def __post_init__(self) -> None:
        if not self.from_ms < self.until_ms or not 0 < self.size <= 1:
            raise ValueError(f"{self.owner}: [{self.from_ms}, {self.until_ms}) of {self.size} of a device")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A time over which nothing changes hands."""

    from_ms: int
    until_ms: int
    spans: tuple[Span, ...]  # by owner


def pieces(spans: Sequence[Span], from_ms: int, until_ms: int) -> tuple[Piece, ...]:
    """[from_ms, until_ms) cut at every border of a span, in order and without holes. O(spans²), and they are few."""
    borders = {from_ms, until_ms}
    for span in spans:
        borders |= {at for at in (span.from_ms, span.until_ms) if from_ms < at < until_ms}
    cuts = sorted(borders)
    return tuple(
        Piece(
            from_ms=begin,
            until_ms=end,
            spans=tuple(
                sorted(
                    (span for span in spans if span.from_ms <= begin and end <= span.until_ms),
                    key=lambda span: (span.owner, span.from_ms),
                )
            ),
        )
        for begin, end in itertools.pairwise(cuts)
    )


def parted(amount: int, weights: Sequence[float]) -> tuple[int, ...]:
    """`amount` in whole parts by `weights` (not all zero): they add up to it exactly, the largest remainder first."""
    total = sum(weights)
    exact = [amount * weight / total for weight in weights]
    parts = [int(part) for part in exact]
    by_rest = sorted(range(len(parts)), key=lambda place: (parts[place] - exact[place], place))
    for place in by_rest[: amount - sum(parts)]:
        parts[place] += 1
    return tuple(parts)


def weights_of(piece: Piece) -> tuple[float, ...]:
    """By what a device's energy is divided over a piece: one weight for each of its spans, and last that of nobody.

    The owner of a whole device has all of it. Parts weigh by how busy they were times their size, so that what the
    device draws goes to who made it draw; what it draws at rest goes with that. Where a part's activity is not known,
    or nobody was busy, they weigh by size alone, and the part that nobody holds weighs with them.
    """
    if not piece.spans:
        return (1.0,)
    sizes = [span.size for span in piece.spans]
    busy = [(span.activity or 0.0) * span.size for span in piece.spans]
    if all(span.activity is not None for span in piece.spans) and sum(busy) > 0:
        return (*busy, 0.0)
    return (*sizes, max(0.0, 1.0 - sum(sizes)))
