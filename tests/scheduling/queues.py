"""Builders of queues and of gangs that wait in them, and the slow way to say whose turn it is."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from baseai.scheduling.gang import WHOLE, Gang, Shape, Terms
from baseai.scheduling.policy.shares import standing_h
from baseai.scheduling.policy.turns import BAND_LEAST, BAND_RATIO
from baseai.scheduling.queue_tree import ROOT, Queue, QueueTree

MODELS = ("A", "B")
LEAVES = ("a", "b", "c", "d", "stranger")


def queue(name: str, parent: str = ROOT, **rest: object) -> Queue:
    return Queue(name=name, parent=parent, **rest)  # type: ignore[arg-type]


def tree(*queues: Queue) -> QueueTree:
    return QueueTree(queues)


def waiting(
    number: int, queue: str, count: int = 1, *, models: tuple[str, ...] = ("A",), **terms: object
) -> Gang:
    """A gang that wants so many accelerators of one node, and came as many seconds after the first as its number."""
    submit_s = float(terms.pop("submit_s", number))  # type: ignore[arg-type]
    return Gang(
        run_id=f"r{number}",
        number=number,
        submit_s=submit_s,
        shape=Shape(milli=count * WHOLE, models=models),
        terms=Terms(queue=queue, **terms),  # type: ignore[arg-type]
    )


class Fleet(NamedTuple):
    """Drawn: a tree, what its leaves hold and had, and who waits."""

    tree: QueueTree
    held: Mapping[str, Mapping[str, int]]
    usage_s: Mapping[str, float]
    gangs: Sequence[Gang]


_weight = st.sampled_from((0.5, 1.0, 2.0, 3.0))
_most = st.one_of(st.none(), st.integers(0, 8))
_leaf = st.tuples(_weight, _most, _most, st.integers(0, 9))
_gang = st.tuples(
    st.integers(0, len(LEAVES) - 1),
    st.integers(1, 6),
    st.sampled_from((("A",), ("B",), ("A", "B"), ("B", "A"))),
    st.sampled_from((10, 50, 90)),
    st.booleans(),
    st.sampled_from((0.0, 1.0, 2.0)),
)


@st.composite
def fleets(draw: st.DrawFn, gangs_most: int = 7) -> Fleet:
    """a and b below x, c below y, d below the root; a stranger that no operator knows. Quotas and limits on A."""
    leaves = {name: draw(_leaf) for name in "abcd"}
    above = {name: draw(_leaf) for name in "xy"}
    guaranteed = {name: quota or 0 for name, (_, quota, _, _) in leaves.items()}
    below = {"x": guaranteed["a"] + guaranteed["b"], "y": guaranteed["c"]}
    queues = []
    for name, (weight, quota, limit, _) in (above | leaves).items():
        quotas = {} if quota is None else {"A": quota + below.get(name, 0)}
        least = max(quotas.get("A", 0), below.get(name, 0))
        limits = {} if limit is None else {"A": limit + least}
        parent = "x" if name in "ab" else "y" if name == "c" else ROOT
        queues.append(queue(name, parent, weight=weight, quota=quotas, limit=limits))
    gangs = [
        waiting(number, LEAVES[leaf], count, models=models, priority=priority, spot=spot, margin=margin)
        for number, (leaf, count, models, priority, spot, margin) in enumerate(
            draw(st.lists(_gang, min_size=1, max_size=gangs_most))
        )
    ]
    held = {name: {"A": count} for name, (_, _, _, count) in leaves.items() if count}
    usage_s = {name: 86_400.0 * count for name, (_, _, _, count) in leaves.items() if count % 2}
    return Fleet(QueueTree(tuple(queues)), held, usage_s, gangs)


class SlowOrder:
    """The order of one cycle from its definition: at every step all that wait are looked at again."""

    def __init__(self, fleet: Fleet) -> None:
        self.tree = fleet.tree
        self.left = sorted(fleet.gangs, key=lambda gang: (gang.terms.spot, standing_h(gang), gang.number))
        names = {*fleet.held, *fleet.usage_s, *(gang.terms.queue for gang in fleet.gangs)}
        self.paths = {name: [ROOT, *(one.name for one in fleet.tree.path(name))] for name in names}
        self.queues = {one.name: one for name in names for one in fleet.tree.path(name)}
        self.held: dict[str, dict[str, int]] = {}
        self.claimed: dict[str, dict[str, int]] = {}
        self.mean: dict[str, float] = {}
        self.charged: dict[str, float] = {}
        self.bands: dict[str, float] = {}
        for name in names:
            for above in self.paths[name]:
                for model, count in fleet.held.get(name, {}).items():
                    _add(self.held, above, model, count)
                half_life_s = fleet.tree.half_life_s(name)
                mean = fleet.usage_s.get(name, 0.0) * math.log(2.0) / half_life_s
                self.mean[above] = self.mean.get(above, 0.0) + mean

    def all(self) -> list[tuple[int, str]]:
        """Rank and run of everybody, in order."""
        found = []
        for rank in range(3):
            self.bands = {name: self._band(name) for path in self.paths.values() for name in path[:-1]}
            while (one := self._next(rank)) is not None:
                gang, model = one
                self.left.remove(gang)
                found.append((rank, gang.run_id))
                for name in self.paths[gang.terms.queue]:
                    self.charged[name] = self.charged.get(name, 0.0) + _count(gang)
                    if rank == 0:
                        _add(self.claimed, name, model, _count(gang))
        return found

    def _next(self, rank: int) -> tuple[Gang, str] | None:
        heads: dict[str, tuple[Gang, str]] = {}
        for gang in self.left:
            model = self._model(gang, rank)
            if model is not None and self.paths[gang.terms.queue][-1] not in heads:
                heads[self.paths[gang.terms.queue][-1]] = gang, model
        return self._below(ROOT, heads)

    def _below(self, name: str, heads: Mapping[str, tuple[Gang, str]]) -> tuple[Gang, str] | None:
        if name in heads:
            return heads[name]
        found = []
        for one in self._children(name):
            head = self._below(one, heads)
            if head is not None:
                ratio = self._amount(one) / self.queues[one].weight
                found.append(
                    (
                        math.floor(ratio / self.bands[name] + 0.5),
                        -head[0].terms.margin,
                        ratio,
                        head[0].number,
                        head,
                    )
                )
        return min(found)[-1] if found else None

    def _children(self, name: str) -> list[str]:
        return sorted({path[path.index(name) + 1] for path in self.paths.values() if name in path[:-1]})

    def _band(self, name: str) -> float:
        below = self._children(name)
        total = math.fsum(self._amount(one) for one in below)
        return max(BAND_LEAST, BAND_RATIO * total) / sum(self.queues[one].weight for one in below)

    def _amount(self, name: str) -> float:
        return self.mean.get(name, 0.0) + sum(self.held.get(name, {}).values()) + self.charged.get(name, 0.0)

    def _model(self, gang: Gang, rank: int) -> str | None:
        """The model the gang would take if this were its rank."""
        if gang.terms.spot is not (rank == 2):
            return None
        return next((model for model in gang.shape.models if self._may(gang, model, rank)), None)

    def _may(self, gang: Gang, model: str, rank: int) -> bool:
        path = [self.queues[name] for name in self.paths[gang.terms.queue][:0:-1]]
        for one in path:
            held = self.held.get(one.name, {}).get(model, 0)
            if model in one.limit and held + _count(gang) > one.limit[model]:
                return False
        if rank:
            return True
        nearest = next((one for one in path if model in one.quota), None)
        if nearest is None:
            return False
        taken = self.held.get(nearest.name, {}).get(model, 0) + self.claimed.get(nearest.name, {}).get(
            model, 0
        )
        return taken + _count(gang) <= nearest.quota[model]


def _count(gang: Gang) -> int:
    return gang.shape.milli_total // WHOLE


def _add(amounts: dict[str, dict[str, int]], name: str, model: str, count: int) -> None:
    of = amounts.setdefault(name, {})
    of[model] = of.get(model, 0) + count
