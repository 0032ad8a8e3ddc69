"""Power is what a breaker lets runs draw together, and what each run takes of it.

Invariant: a rack whose runs draw what they may, or more, has nothing left, and never less than nothing; a run takes
the rated draw of every accelerator it holds, whatever it uses at the moment, because it may use it the next. Pure:
racks, leases and rated draws in, watts out. A `Hall` keeps the same sums as runs come and go: its rows start with what
runs may draw in their rack, and share it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from baseai.ground.identity import NodeId

Rated = Mapping[str, int]
"""Watts of one accelerator of each model with its share of the host, both at work. A model not in it draws nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One node under one breaker."""

    node_id: NodeId
    rack: str
    load_watts: int  # what runs may draw under the breaker; equal for all nodes of a rack


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What runs draw under one breaker, and may."""

    load_watts: int
    drawn_watts: int  # rated, by what is leased

    @property
    def spare_watts(self) -> int:
        return max(0, self.load_watts - self.drawn_watts)


def watts_of(models: Iterable[str], devices: int, rated: Rated) -> int:
    """What a pod takes that may come to stand on any of these models: the hungriest counts."""
    return devices * max((rated.get(model, 0) for model in models), default=0)


def power_of(
    feeds: Iterable[Feed], leases: Iterable[tuple[NodeId, str, int]], rated: Rated
) -> Mapping[str, Power]:
    """Of each rack. leases: (node, model, accelerators); those on nodes without a rack draw under no breaker."""
    feed_of = {feed.node_id: feed for feed in feeds}
    drawn = {feed.rack: 0 for feed in feed_of.values()}
    for node_id, model, count in leases:
        if node_id in feed_of:
            drawn[feed_of[node_id].rack] += count * rated.get(model, 0)
    load = {feed.rack: feed.load_watts for feed in feed_of.values()}
    return {rack: Power(load_watts=load[rack], drawn_watts=drawn[rack]) for rack in sorted(load)}


def spare_watts(
    feeds: Iterable[Feed], leases: Iterable[tuple[NodeId, str, int]], rated: Rated
) -> Mapping[NodeId, int]:
    """What one more run may draw on each node that has a rack: the same on all nodes of a rack.

    A grant of so many watts on one of them leaves so many watts less on every other one of that rack.
    """
    known = tuple(feeds)
    power = power_of(known, leases, rated)
    return {feed.node_id: power[feed.rack].spare_watts for feed in known}
