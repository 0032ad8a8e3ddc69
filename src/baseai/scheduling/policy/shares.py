"""Shares are the order in which waiting gangs are looked at: whose turn it is, by quota, use and age.

Invariant: in one cycle every gang comes at most once, whom a quota covers before who borrows and before spot; among
queues the one that has had the least for its weight goes first, and whoever was looked at counts as if it had started
until the cycle ends. The caller says who joins, leaves, starts and stops; nobody else changes it.

Within a queue, age and priority are one key that no time changes: a fresh run of priority 100 stands beside one of
priority 50 that came 25 hours before, so that nobody waits for ever behind those who shout louder.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.policy.line import Line
from baseai.scheduling.policy.portion import Portion
from baseai.scheduling.policy.turns import Candidate, Grade, Option, Turn
from baseai.scheduling.queue_tree import ROOT, QueueTree

AGEING_POINTS_PER_H = 2.0  # points of priority that an hour of waiting is worth
DEADLINE_PRIORITY = 100  # of a gang whose deadline is near
DEADLINE_AHEAD_S = 3600.0  # before its latest start it counts as having just come with that priority

_LN_2 = math.log(2.0)
_NONE: Mapping[str, Mapping[str, float]] = MappingProxyType({})
_EVEN: Mapping[str, float] = MappingProxyType({})


class Shares:
    """The queues with who waits in them, what they hold and had. Queues go by the name that gangs give."""

    def __init__(
        self,
        tree: QueueTree,
        held: Mapping[str, Mapping[str, float]] = _NONE,
        usage_s: Mapping[str, float] = _EVEN,
        *,
        spot: Mapping[str, Mapping[str, float]] = _NONE,
        worth: Mapping[str, float] = _EVEN,
        now_s: float = 0.0,
    ) -> None:
        """held, spot: accelerators by model that runs hold now which are not spot, and which are.

        usage_s: decayed accelerator-seconds at `now_s`, each weighed by `worth` (`queue_tree.weighed`), without spot.
        worth: what an accelerator of a model counts for, its list price for example; 1 where it says nothing.
        """
        self.tree = tree
        self._worth = worth
        self._now_s = now_s
        self._portions: dict[str, Portion] = {}  # by name; those above stand before those below
        self._leaves: dict[str, Portion] = {}  # by the name that gangs give
        self._lines: dict[str, tuple[Line, Line]] = {}  # by leaf: those that are not spot, and those that are
        self._options: dict[tuple[Shape, ...], tuple[Option, ...]] = {}
        self._charges: dict[str, tuple[Portion, Option, Grade]] = {}  # of this cycle, by run
        self._cycle = 0
        for name in sorted({*held, *spot}):
            for is_spot, amounts in ((False, held.get(name, _EVEN)), (True, spot.get(name, _EVEN))):
                for model, count in amounts.items():
                    self._leaf(name).add(model, round(count * WHOLE), spot=is_spot, worth=worth)
        for name, amount in sorted(usage_s.items()):
            leaf = self._leaf(name)
            leaf.mean_worth = amount * _LN_2 / leaf.half_life_s
        self.reckon(now_s)

    # ------------------------------------------------------------------------------------ who waits, who holds

    def join(self, gang: Gang) -> None:
        """It waits from now on."""
        leaf = self._leaf(queue_of(gang))
        lines = self._lines.setdefault(leaf.name, (Line(), Line()))
        lines[gang.terms.spot].join(gang, standing_h(gang))

    def leave(self, gang: Gang) -> None:
        """It waits no more: it starts, or was withdrawn."""
        self._lines[self._leaf(queue_of(gang)).name][gang.terms.spot].leave(gang)

    def started(self, gang: Gang, model: str) -> None:
        """It holds accelerators of this model from now on. Whoever waited leaves as well."""
        self._uncharge(gang)
        self._add(gang, model, 1)

    def stopped(self, gang: Gang, model: str) -> None:
        """It holds nothing any more, ended or preempted; in the order it counts from the next cycle on."""
        self._add(gang, model, -1)

    def reckon(self, now_s: float) -> None:
        """Let usage run up to now, with what is held since the last time. O(queues); once a cycle, before `order`.

        What ended or started since is told after this.
        """
        elapsed_s = max(0.0, now_s - self._now_s)
        self._now_s = max(now_s, self._now_s)
        for portion in reversed(self._portions.values()):
            portion.age(elapsed_s)

    # ------------------------------------------------------------------------------------ what it may

    def within_limit(self, gang: Gang, model: str) -> bool:
        """Whether its queue and all above it may hold the gang as well, on this model."""
        return self.limiting(gang, model) is None

    def limiting(self, gang: Gang, model: str) -> str | None:
        """The queue whose limit forbids it now; None where none does."""
        found = self._leaf(queue_of(gang)).limiting(model, _milli(gang, model))
        return None if found is None else found.name

    def in_quota(self, gang: Gang, model: str) -> bool:
        """Whether the gang stays within what its queue is guaranteed, with all that came before it in this cycle.

        Spot never does: it takes no part of a quota.
        """
        if gang.terms.spot:
            return False
        leaf, milli = self._leaf(queue_of(gang)), _milli(gang, model)
        mine = self._charges.get(gang.run_id)
        if mine is not None and mine[2] is Grade.QUOTA and mine[1][0] == model:
            milli -= mine[1][1]  # what it claims itself is counted already
        return leaf.keeps_quota(model, milli)

    @property
    def queues(self) -> Collection[str]:
        """All that somebody waits in, holds or had something in, as gangs name them."""
        return self._leaves.keys()

    def guaranteed_milli(self, queue: str, model: str) -> int:
        """What of a model the queue may hold now before it borrows; what siblings hold of a shared quota taken off."""
        leaf = self._leaf(queue)
        for one in leaf.upwards():
            if model in one.quota:
                others = 0 if one is leaf else one.firm.get(model, 0) - leaf.firm.get(model, 0)
                return max(0, one.quota[model] - others)
        return 0

    def left_milli(self, queue: str, model: str) -> int:
        """What of a model the queue may still hold before it borrows; below 0 where it does."""
        return self.guaranteed_milli(queue, model) - self._leaf(queue).firm.get(model, 0)

    def ratio_of(self, queue: str) -> float:
        """What a leaf holds and lately had, in accelerators' worth for each unit of its weight."""
        leaf = self._leaf(queue)
        return leaf.worth(with_spot=False) / leaf.weight

    # ------------------------------------------------------------------------------------ whose turn it is

    def order(self, hopeless: set[Shape]) -> Iterator[Gang]:
        """The next gang to look at, then the next, until all were or every shape that waits is hopeless.

        `hopeless` is the caller's and may grow meanwhile: of the shapes in it nobody comes any more. Nor does anybody
        whom a limit forbids every model that would do. Gangs may leave, start and stop between two; who joins is seen
        in the next cycle.
        """
        self._give_back()
        self._cycle += 1
        cycle, seen = self._cycle, set[str]()
        try:
            for grade in Grade:
                yield from self._graded(grade, hopeless, seen)
        finally:
            if cycle == self._cycle:
                self._give_back()

    def firsts(self) -> Iterator[Gang]:
        """All that wait and are not spot, in the order of a cycle of its own: who may claim before others fill up."""
        return (gang for gang in self.order(set()) if not gang.terms.spot)

    def forgo(self, gang: Gang) -> None:
        """It can neither start nor be made room for: what it was charged goes to those behind it in this cycle."""
        self._uncharge(gang)

    def _graded(self, grade: Grade, hopeless: set[Shape], seen: set[str]) -> Iterator[Gang]:
        top = self._turns(grade, hopeless, seen)
        while top is not None and top.head is not None:
            (gang, _), leaf = top.head, top.path()[-1].portion
            option = self._still(gang, leaf, grade, hopeless)
            if option is not None:
                seen.add(gang.run_id)
                leaf.charge(*option, claims=grade is Grade.QUOTA)
                self._charges[gang.run_id] = leaf, option, grade
                yield gang
            top.advance()

    def _turns(self, grade: Grade, hopeless: set[Shape], seen: set[str]) -> Turn | None:
        """The root of those queues in which somebody of this grade waits."""
        turns: dict[str, Turn] = {}
        for name, (firm, spot) in self._lines.items():
            leaf = self._portions[name]
            line = spot if grade is Grade.SPOT else firm
            if not line or (grade is Grade.QUOTA and not leaf.is_guaranteed):
                continue
            turns[name] = Turn(leaf, grade, self._candidates(leaf, line, grade, hopeless, seen))
            for above in leaf.upwards():
                if above.name not in turns:
                    turns[above.name] = Turn(above, grade)
        for name in reversed(self._portions):  # those below before those above
            if name in turns:
                turns[name].begin()
                parent = turns[name].portion.above
                if turns[name].head is not None and parent is not None:
                    turns[parent.name].waiting.append(turns[name])
        return turns.get(ROOT)

    def _candidates(
        self, leaf: Portion, line: Line, grade: Grade, hopeless: set[Shape], seen: set[str]
    ) -> Iterator[Candidate]:
        out = set(line.shapes & hopeless)  # nobody of these comes any more in this line and grade
        for _, gang in line.but(out):
            if gang.shape in hopeless:
                out.add(gang.shape)
            elif gang.run_id not in seen:
                option = self._option(gang, leaf, grade)
                if option is not None:
                    yield gang, option
                elif not gang.others:  # within a cycle quotas and limits only fill
                    out.add(gang.shape)

    def _option(self, gang: Gang, leaf: Portion, grade: Grade) -> Option | None:
        """What the gang would take first at this grade; None where nothing."""
        return next((option for option in self._options_of(gang) if _may(leaf, option, grade)), None)

    def _still(self, gang: Gang, leaf: Portion, grade: Grade, hopeless: set[Shape]) -> Option | None:
        """What a gang that was next would take, after all that came since."""
        if gang.shape in hopeless or gang not in self._lines[leaf.name][gang.terms.spot]:
            return None
        return self._option(gang, leaf, grade)

    # ------------------------------------------------------------------------------------ keeping count

    def _leaf(self, queue: str) -> Portion:
        found = self._leaves.get(queue)
        if found is None:
            above = self._portions.get(ROOT)
            if above is None:
                above = self._portions[ROOT] = Portion(self.tree.by_name[ROOT], None, 1.0)
            for each in self.tree.path(queue):
                if each.name not in self._portions:
                    self._portions[each.name] = Portion(each, above, self.tree.half_life_s(queue))
                above = self._portions[each.name]
            found = self._leaves[queue] = above
        return found

    def _options_of(self, gang: Gang) -> tuple[Option, ...]:
        shapes = gang.shapes
        found = self._options.get(shapes)
        if found is None:
            any_model = (*self.tree.models, "")  # those that are counted, and one that is not
            found = self._options[shapes] = tuple(
                (model, shape.milli_total, shape.milli_total / WHOLE * self._worth.get(model, 1.0))
                for shape in shapes
                for model in shape.models or any_model
            )
        return found

    def _add(self, gang: Gang, model: str, sign: int) -> None:
        leaf = self._leaf(queue_of(gang))
        leaf.add(model, sign * _milli(gang, model), spot=gang.terms.spot, worth=self._worth)

    def _uncharge(self, gang: Gang) -> None:
        charged = self._charges.pop(gang.run_id, None)
        if charged is not None:
            leaf, (model, milli, amount), grade = charged
            leaf.charge(model, -milli, -amount, claims=grade is Grade.QUOTA)

    def _give_back(self) -> None:
        self._charges.clear()
        for portion in self._portions.values():
            portion.give_back()


def _may(leaf: Portion, option: Option, grade: Grade) -> bool:
    model, milli, _ = option
    if grade is Grade.QUOTA and not leaf.keeps_quota(model, milli):
        return False
    return not leaf.is_bounded or leaf.limiting(model, milli) is None


def _milli(gang: Gang, model: str) -> int:
    """What the gang takes of this model: the first of its shapes that may stand on it says."""
    shapes = gang.shapes
    taken = (shape for shape in shapes if not shape.models or model in shape.models)
    return next(taken, shapes[0]).milli_total


def queue_of(gang: Gang) -> str:
    """Where it waits: the queue of its terms, or in a replay whose it is."""
    return gang.terms.queue or gang.group


def standing_h(gang: Gang) -> float:
    """Where a gang stands within its queue, in hours on the clock of `submit_s`: the least is first, for good.

    One with a deadline stands, an hour before it must start, at latest beside those that come then with priority 100.
    """
    terms = gang.terms
    key = gang.submit_s / 3600.0 - terms.priority / AGEING_POINTS_PER_H
    if terms.deadline_s is None:
        return key
    urgent_s = terms.deadline_s - (terms.lasts_most_s or 0.0) - DEADLINE_AHEAD_S
    return min(key, urgent_s / 3600.0 - DEADLINE_PRIORITY / AGEING_POINTS_PER_H)
