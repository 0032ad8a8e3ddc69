"""A tally is uses added up: what a run, a tenant, a round, a node or nobody had over a time.

Invariant: adding is exact for time and energy and does not depend on order; a mean is weighted by the time it was seen
over; energy is as well founded as the weakest of its parts. What no part tells stays unknown.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from baseai.telemetry.field import Origin
from baseai.telemetry.use import MJ_A_WH, Use

Value = TypeVar("Value", float, Origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Sums over uses of any number of accelerators."""

    ms: int = 0
    held_ms: int = 0  # of it by customers: the platform's own tests are nobody's use
    seen_ms: int = 0
    util_seen_ms: int = 0  # over which utilisation is known
    util_pct_ms: float = 0.0  # utilisation × that time
    mem_used_max_b: float | None = None  # on one accelerator
    energy_mj: int | None = None
    energy_origin: Origin | None = None
    throttled_ms: int | None = None
    methods: frozenset[str] = frozenset()

    def plus(self, other: "Tally") -> "Tally":
        return Tally(
            ms=self.ms + other.ms,
            held_ms=self.held_ms + other.held_ms,
            seen_ms=self.seen_ms + other.seen_ms,
            util_seen_ms=self.util_seen_ms + other.util_seen_ms,
            util_pct_ms=self.util_pct_ms + other.util_pct_ms,
            mem_used_max_b=max(_told(self.mem_used_max_b, other.mem_used_max_b), default=None),
            energy_mj=_sum(self.energy_mj, other.energy_mj),
            energy_origin=max(_told(self.energy_origin, other.energy_origin), default=None),
            throttled_ms=_sum(self.throttled_ms, other.throttled_ms),
            methods=self.methods | other.methods,
        )

    @property
    def util_pct(self) -> float | None:
        return self.util_pct_ms / self.util_seen_ms if self.util_seen_ms else None

    @property
    def energy_wh(self) -> float | None:
        return None if self.energy_mj is None else self.energy_mj / MJ_A_WH


def tally_of(use: Use, *, held: bool) -> Tally:
    """One use; `held`: whether it counts as somebody's. Its utilisation counts for the time that samples cover."""
    ms = use.until_ms - use.from_ms
    return Tally(
        ms=ms,
        held_ms=ms if held else 0,
        seen_ms=use.seen_ms,
        util_seen_ms=use.seen_ms if use.util_pct is not None else 0,
        util_pct_ms=use.util_pct * use.seen_ms if use.util_pct is not None else 0.0,
        mem_used_max_b=use.mem_used_max_b,
        energy_mj=use.energy_mj,
        energy_origin=use.energy_origin if use.energy_mj is not None else None,
        throttled_ms=use.throttled_ms,
        methods=frozenset({use.method.value}),
    )


def tallied(parts: Iterable[Tally]) -> Tally:
    return functools.reduce(Tally.plus, parts, Tally())


def _told(*values: "Value | None") -> "list[Value]":
    return [value for value in values if value is not None]


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)
