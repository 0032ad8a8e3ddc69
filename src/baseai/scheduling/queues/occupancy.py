"""Occupancy is what a queue and those below it hold, lately held, and how many wait there.

Invariant: a queue's is the sum over its leaves, and no leaf is counted twice. Made from what stands of each leaf.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from baseai.scheduling.queue_tree import ROOT, QueueTree

Amounts = Mapping[str, Mapping[str, float]]  # by queue as runs name it, then by model


class Live(NamedTuple):
    """Runs of one leaf that have not ended."""

    waiting: int
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """Of one queue, by model where it is accelerators."""

    held: Mapping[str, float]  # by runs that are not spot
    spot: Mapping[str, float]
    usage_s: Mapping[str, float]  # decayed accelerator-seconds, without spot
    live: Live

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted({*self.held, *self.spot, *self.usage_s}))


NOTHING = Occupancy(held={}, spot={}, usage_s={}, live=Live(0, 0))


def occupancies(
    tree: QueueTree, held: Amounts, spot: Amounts, usage_s: Amounts, live: Mapping[str, Live]
) -> Mapping[str, Occupancy]:
    """Of every queue in which something is, by the name runs give, and of all above them."""
    names = sorted({*held, *spot, *usage_s, *live})
    leaves: dict[str, list[str]] = {}
    for name in names:
        for above in _upwards(tree, name):
            leaves.setdefault(above, []).append(name)
    return {
        queue: Occupancy(
            held=_summed(held, own),
            spot=_summed(spot, own),
            usage_s=_summed(usage_s, own),
            live=Live(
                sum(live[name].waiting for name in own if name in live),
                sum(live[name].running for name in own if name in live),
            ),
        )
        for queue, own in leaves.items()
    }


def _upwards(tree: QueueTree, name: str) -> Iterable[str]:
    """The queue that runs name, and those above it."""
    return {ROOT, name, *(queue.name for queue in tree.path(name) if queue.name in tree.by_name)}


def _summed(amounts: Amounts, names: Sequence[str]) -> Mapping[str, float]:
    total: dict[str, float] = {}
    for name in names:
        for model, amount in amounts.get(name, {}).items():
            total[model] = total.get(model, 0.0) + amount
    return total
