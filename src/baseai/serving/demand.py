"""Demand is what was asked of a service in one second, as one gateway process saw it.

Invariant: seconds of several gateways add up: each counts what it holds itself. Gateways write it, `autoscale`
reads it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandSecond:
    """One second of one gateway process, or the sum of all of them."""

    at_s: float  # on the clock of seconds since 1970: when the second began
    concurrency: float  # mean of requests under way or held in it, so 0.5 for one that took half a second
    held: int  # of these, waiting for a replica at its end
    arrivals: int
