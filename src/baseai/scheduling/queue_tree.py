"""A queue is a named share of the fleet in which runs wait; queues hang in a tree, and runs wait in its leaves.

Invariant: a tree that exists is sound: one root, no cycle, and below every queue no more is guaranteed than it has and
may hold itself. Operators change queues, each change as a whole new tree (`queues.postgres`); nothing else does.

What a queue does not say of a model is its parent's: a queue without a quota of its own draws on the nearest one above
it that names one, with its siblings. The quota of a queue says 0 where it shall draw on nobody's.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from baseai.workloads.spec import DEFAULT_QUEUE

ROOT = "root"
HALF_LIFE_S = 7 * 86_400.0  # of usage, where nobody says otherwise: a week's use counts half a week later
USAGE_HALF_LIVES = 10  # what is longer ago counts less than a thousandth, and is not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One queue, as an operator set it. Accelerators are counted by model."""

    name: str
    parent: str | None = ROOT  # None for the root alone
    weight: float = 1.0  # of what is left over, against its siblings'
    quota: Mapping[str, int] = field(default_factory=dict)  # guaranteed: who borrows it makes way
    limit: Mapping[str, int] = field(default_factory=dict)  # never exceeded, however empty the fleet is
    half_life_s: float | None = None  # of its past usage; None for its parent's
    tenant: str | None = None  # whose runs alone may wait in it, by id; None for everybody's
    project: str | None = None  # of the tenant, whose runs alone; None for all of them

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"queue {self.name} has weight {self.weight:g}: give it one above 0")
        if self.half_life_s is not None and not (math.isfinite(self.half_life_s) and self.half_life_s > 0):
            raise ValueError(
                f"queue {self.name} forgets its usage by half in {self.half_life_s:g} s: say more than 0"
            )
        if self.project is not None and self.tenant is None:
            raise ValueError(f"queue {self.name} is kept to a project: say of which tenant")
        for what, amounts in (("quota", self.quota), ("limit", self.limit)):
            for model, count in amounts.items():
                if count < 0:
                    raise ValueError(f"queue {self.name} has a {what} of {count} {model}: say 0 or more")
        for model, count in self.limit.items():
            if self.quota.get(model, 0) > count:
                raise ValueError(
                    f"queue {self.name} is guaranteed {self.quota[model]} {model} and may hold {count} at most:"
                    " raise its limit or lower its quota"
                )


@dataclass(frozen=True)
class QueueTree:
    """All queues; the root is there unsaid. Raises ValueError, naming the queues that do not go together."""

    queues: tuple[Queue, ...] = ()

    def __post_init__(self) -> None:
        names = [queue.name for queue in self.queues]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"there are two queues named {name}")
        tops = sorted(queue.name for queue in self.queues if queue.parent is None)
        if tops and tops != [ROOT]:
            raise ValueError(f"a tree has one root, named {ROOT}: {' and '.join(tops)} cannot be it")
        for queue in self.by_name.values():
            self._must_reach_the_root(queue)
        for queue in self.by_name.values():
            self._must_cover_what_is_below(queue)

    def _must_reach_the_root(self, queue: Queue) -> None:
        passed = [queue.name]
        above = queue
        while above.parent is not None:
            if above.parent not in self.by_name:
                raise ValueError(f"queue {above.name} hangs below {above.parent}, and there is no such queue")
            if above.parent in passed:
                raise ValueError(f"queues hang in a circle: {' below '.join([*passed, above.parent])}")
            below, above = above, self.by_name[above.parent]
            passed.append(above.name)
            if above.tenant not in (None, below.tenant) or above.project not in (None, below.project):
                raise ValueError(
                    f"queue {below.name} hangs below {above.name}, where not all who may wait in {below.name} may:"
                    f" give it the same tenant and project, or hang it elsewhere"
                )

    def _must_cover_what_is_below(self, queue: Queue) -> None:
        for model in sorted({*queue.quota, *queue.limit}):
            parts = [(below.name, self._guaranteed(below, model)) for below in self.below(queue.name)]
            parts = [(name, count) for name, count in parts if count]
            total = sum(count for _, count in parts)
            listed = " and ".join(f"{name} ({count})" for name, count in parts)
            verb = "come" if len(parts) == 1 else "add up"
            for what, most in (("is guaranteed", queue.quota), ("may hold", queue.limit)):
                if total > most.get(model, total):
                    raise ValueError(
                        f"the quotas of {listed} {verb} to {total} {model}, and {queue.name} above"
                        f" {what} {most[model]}: raise that of {queue.name}, or lower theirs"
                    )

    def _guaranteed(self, queue: Queue, model: str) -> int:
        """What it claims of those above: its quota, or the quotas below it where it names none."""
        if model in queue.quota:
            return queue.quota[model]
        return sum(self._guaranteed(below, model) for below in self.below(queue.name))

    def guaranteed(self, model: str) -> int:
        """What all quotas together promise of a model. More than there is can be promised, and is worth a word."""
        return self._guaranteed(self.by_name[ROOT], model)

    @cached_property
    def by_name(self) -> Mapping[str, Queue]:
        return {ROOT: Queue(name=ROOT, parent=None)} | {queue.name: queue for queue in self.queues}

    @cached_property
    def _below(self) -> Mapping[str, tuple[Queue, ...]]:
        found: dict[str, list[Queue]] = {name: [] for name in self.by_name}
        for queue in sorted(self.queues, key=lambda queue: queue.name):
            if queue.parent is not None:
                found[queue.parent].append(queue)
        return {name: tuple(queues) for name, queues in found.items()}

    def below(self, name: str) -> tuple[Queue, ...]:
        """Those that hang directly below a queue, by name."""
        return self._below.get(name, ())

    @cached_property
    def is_bounded(self) -> bool:
        """Whether any queue has a limit."""
        return any(queue.limit for queue in self.queues)

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every model that some quota or limit names."""
        return tuple(sorted({model for queue in self.queues for model in (*queue.quota, *queue.limit)}))

    def path(self, name: str) -> tuple[Queue, ...]:
        """From the queue below the root to the leaf in which a run waits that names `name`.

        A name that is not in the tree is a leaf of weight 1 below the root. So is, below it, what waits in a queue
        that has others below: it shares with them as one more child.
        """
        found = self.by_name.get(name)
        if found is None:
            return (Queue(name=name),)
        path: list[Queue] = []
        above = found
        while above.parent is not None:
            path.insert(0, above)
            above = self.by_name[above.parent]
        if not path or self.below(name):
            path.append(Queue(name=f"{name}/", parent=name))
        return tuple(path)

    def half_life_s(self, name: str) -> float:
        """Of the usage of a leaf: its own, or that of the nearest queue above which says one."""
        for queue in (*reversed(self.path(name)), self.by_name[ROOT]):
            if queue.half_life_s is not None:
                return queue.half_life_s
        return HALF_LIFE_S


def leaf_of(tenant_id: str, queue: str) -> str:
    """Where a run of a tenant waits: every tenant has a `default` of its own, below the root, without an entry."""
    return f"{DEFAULT_QUEUE}/{tenant_id}" if queue == DEFAULT_QUEUE else queue


class Spell(NamedTuple):
    """So many accelerators over a time."""

    from_s: float
    until_s: float
    accelerators: float


def decayed_accelerator_s(spells: Iterable[Spell], now_s: float, half_life_s: float) -> float:
    """Accelerator-seconds held before `now_s`, each second counted by half for every half-life it is ago.

    The integral of accelerators * 2^-((now - t) / half_life) in closed form, so that it costs the spells, not the time.
    Holding c for ever comes to c * half_life / ln 2.
    """
    terms = []
    for spell in spells:
        end_s = min(spell.until_s, now_s)
        if end_s > spell.from_s:
            left = 2.0 ** ((end_s - now_s) / half_life_s) - 2.0 ** ((spell.from_s - now_s) / half_life_s)
            terms.append(spell.accelerators * left)
    return math.fsum(terms) * half_life_s / math.log(2.0)


def weighed(amounts: Mapping[str, float], worth: Mapping[str, float]) -> float:
    """Amounts of several models as one, each by what its accelerator is worth; a model without a worth counts 1."""
    return math.fsum(amount * worth.get(model, 1.0) for model, amount in amounts.items())
