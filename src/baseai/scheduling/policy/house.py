"""House: what the platform itself runs. Queues by their shares, gangs whole, none put off who was promised a start.

Once a turn it looks at who waits, in the order of the queues. Who fits starts where that is in nobody's way: neither in
that of the calendar nor in that of one who waits ahead and has claimed the instant at which enough will have ended. For
each accelerator model whose turn it is claims so, where nobody can be stopped or moved for him. How long a gang runs is
what its lease allows, or the truth where a replay tells it: nobody is trusted to end earlier.

Invariant: within one turn room only shrinks but for evictions, so what a shape could not get, no later gang of that
shape gets either, unless it may evict, or runs shorter than all that were held back.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import numpy as np

from baseai.scheduling.calendar import FutureClaim
from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import NOBODY, Hall, Spots
from baseai.scheduling.outlook import (
    Free,
    Outlook,
    alone,
    chosen,
    free_now,
    give,
    holds,
    installed,
    room,
    take,
)
from baseai.scheduling.plan import StartKind, WaitKind
from baseai.scheduling.policy.claim import Claim, claimed
from baseai.scheduling.policy.claims import Claims
from baseai.scheduling.policy.consolidate import WINDOW_S, Moves, budget_of, consolidate
from baseai.scheduling.policy.promise import Promise, promise_of
from baseai.scheduling.policy.reclaim import Entitlement, Reclaimed, reclaim
from baseai.scheduling.policy.seam import Moment, Move, Packing, Running, Start, Stop
from baseai.scheduling.policy.shares import Shares, queue_of
from baseai.scheduling.policy.stakes import Candidate, Stakes
from baseai.scheduling.queue_tree import QueueTree

MOVES_TRIED = 2  # gangs for which others may be moved aside, in one turn
CLAIMS_MOST = 16  # of those who wait, in one turn
FIRST_SOUGHT = 256  # that are looked at to find the first in line for each model
RECLAIMS_MOST = 8  # questions whom to stop, in one turn
INSTANT_S = 1e-6  # instants on record are rounded to it
_UNKNOWN = Free(np.zeros((0, 0), np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What was agreed about the fleet beside what runs on it."""

    tree: QueueTree = field(default_factory=QueueTree)
    calendar: tuple[FutureClaim, ...] = ()
    worth: Mapping[str, float] = field(
        default_factory=dict
    )  # of an accelerator of each model; 1 where it says nothing


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Why a gang does not start in this turn."""

    kind: WaitKind
    behind: Claim | None  # whom it would put off
    own: Claim | None  # the start it has claimed itself
    limit: str | None = None  # the queue that holds all it may


@dataclass(slots=True, eq=False)
class _Turn:
    """What one turn has found out so far."""

    everybody: bool
    short: set[tuple[Shape, ...]] = field(default_factory=set)  # found no room, whatever is claimed
    late: dict[tuple[object, ...], tuple[float, Claim]] = field(default_factory=dict)
    hopeless: set[Shape] = field(default_factory=set)
    vain: set[tuple[object, ...]] = field(default_factory=set)  # nobody can be stopped for them
    roomy: dict[tuple[int, ...], int] = field(
        default_factory=dict
    )  # rows by model and whole accelerators, at least
    booked: set[str] = field(default_factory=set)  # models for which somebody has claimed a start
    heads: int = 0
    reclaims: int = 0
    shortest_s: dict[Shape, float] = field(default_factory=dict)  # of those that wait, by shape
    moves: int = 0

    def forget(self) -> None:
        """Room has become free: what was in vain may not be any more."""
        for known in (self.short, self.late, self.hopeless, self.vain, self.roomy):
            known.clear()

    def late_for_all(self, gang: Gang, moment: Moment) -> bool:
        """Whether even the shortest that waits of a shape is in the way of a claim. O(waiting) once a turn."""
        if not self.shortest_s:
            for one in moment.waiting.values():
                terms = one.terms
                plain = not (terms.spot or terms.reservation or one.others or terms.lasts_most_s is None)
                lasts_s = terms.lasts_most_s if plain and terms.lasts_most_s is not None else 0.0
                self.shortest_s[one.shape] = min(lasts_s, self.shortest_s.get(one.shape, math.inf))
        known = self.late.get(_alike(gang, gang.shapes))
        return known is not None and known[0] <= self.shortest_s[gang.shape]

    def may_hold(self, shape: Shape, hall: Hall) -> bool:
        """False where too few rows of its models have so many whole accelerators: a glance before a closer look.

        Rows are counted once a turn, and more cannot become free within it but by evictions.
        """
        if shape.milli < WHOLE:
            return True
        if not self.roomy:
            self._count_rows(hall)
        models = [hall.models.index(name) for name in shape.models if name in hall.models]
        rows = [self.roomy.get((model, shape.devices), 0) for model in models or range(len(hall.models))]
        least = shape.pods if shape.apart else 1
        return max(rows, default=0) >= least if shape.one_model else sum(rows) >= least

    def _count_rows(self, hall: Hall) -> None:
        most = int(hall.whole.max(initial=0))
        counts = np.zeros((len(hall.models), most + 1), dtype=np.int64)
        np.add.at(counts, (hall.model[hall.ready], hall.whole[hall.ready]), 1)
        at_least = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
        self.roomy = {
            (model, devices): int(count)
            for model, row in enumerate(at_least.tolist())
            for devices, count in enumerate(row)
        }


class House:
    """See the head of this file. A turn costs the different shapes that wait × rows, and little for each who waits."""

    needs_durations = False

    def __init__(
        self, hall: Hall, rng: np.random.Generator, packing: Packing, agreed: Agreed | None = None
    ) -> None:
        self._hall = hall
        self.packing = packing
        self._agreed = agreed or Agreed()
        self.shares = Shares(self._agreed.tree, {}, {}, worth=self._agreed.worth)
        self.outlook = Outlook(hall)
        self.stakes = Stakes(hall)
        self._installed = installed(hall)
        self._ends_s: dict[str, float] = {}
        self._on: dict[str, str] = {}  # the model each runs on
        self._empty: Free | None = None
        self._ever: dict[tuple[Shape, ...], bool] = {}  # whether they would find room on empty nodes
        self._moved: list[tuple[float, str]] = []  # when who was moved aside
        self._priorities = set[int]()  # of all who ever came
        self._booked: dict[
            tuple[str, str], Claim
        ] = {}  # by tenant and name, reservations that have not begun
        self._used: dict[tuple[str, str], int] = {}  # pods of each reservation that started in this turn
        self.verdicts: dict[str, Verdict] = {}  # of the last turn, in the order in which they were looked at
        self.starts: dict[str, StartKind] = {}
        self.placed: dict[
            str, Candidate
        ] = {}  # who started in the last turn: nobody is stopped in the turn he starts in
        self.claims = Claims(hall)
        self._first: dict[str, Gang] = {}
        self.promised: dict[str, Promise] = {}  # of those who wait; who has it keeps it, turn by turn
        self._kept: dict[
            str, Claim
        ] = {}  # starts as they were promised, of those not yet looked at in this turn
        self._row_of = {
            (node_id, hall.models[model]): row
            for row, (node_id, model) in enumerate(zip(hall.node_ids, hall.model.tolist(), strict=True))
        }
        self.beside: Hall | None = (
            None  # the hall with those on it who give way and are still there; None: nobody is
        )

    # ------------------------------------------------------------------------------------------ what happened

    def agree(self, agreed: Agreed, shares: Shares) -> None:
        """What holds from the next turn on. `shares` know the tree, what is held, and everybody who waits."""
        self._agreed, self.shares = agreed, shares

    def comes(self, gang: Gang) -> None:
        """It waits from now on."""
        self.shares.join(gang)
        self._priorities.add(gang.terms.priority)

    def runs(
        self, running: Running, ends_s: float, *, saved_s: float | None = None, rate: float = 1.0
    ) -> None:
        """Somebody holds accelerators from now on. Whoever is spot goes when it is wanted, its minimum runtime over."""
        self._hold(running, ends_s)
        self._priorities.add(running.gang.terms.priority)
        self.stakes.put(
            Candidate(
                gang=running.gang,
                spots=tuple(running.spots),
                since_s=running.since_s,
                saved_s=saved_s,
                rate=rate,
            )
        )

    def _hold(self, running: Running, ends_s: float) -> None:
        gang = running.gang
        if gang.terms.spot:
            ends_s = min(ends_s, running.since_s + gang.terms.min_runtime_s)
        self.outlook.hold(gang.run_id, gang.shape, running.spots, ends_s)
        self._ends_s[gang.run_id], self._on[gang.run_id] = ends_s, running.model
        self.shares.started(gang, running.model)

    def ended(self, gang: Gang) -> None:
        """It holds nothing any more."""
        self.outlook.release(gang.run_id)
        if self.placed.pop(gang.run_id, None) is None:
            self.stakes.drop(gang.run_id)
        del self._ends_s[gang.run_id]
        self.shares.stopped(gang, self._on.pop(gang.run_id))

    # ------------------------------------------------------------------------------------------ one turn

    def turn(self, moment: Moment) -> Iterator[Move]:
        return self.moves(moment, everybody=False)

    def moves(self, moment: Moment, *, everybody: bool) -> Iterator[Move]:
        """The moves of this instant. everybody: each who waits gets a verdict, also where nobody can start any more."""
        self._take_in(moment)
        self.verdicts, self.starts, self._used = {}, {}, {}
        wanted = self._as_promised(moment)
        self.claims = Claims(self._hall, self._calendar(moment, wanted))
        self._booked = {
            (claim.future.tenant_id, claim.name): claim
            for claim in self.claims
            if claim.future is not None and claim.kind == "reservation" and claim.from_s > moment.now_s
        }
        if self._empty is None or not np.array_equal(self._empty.open, self._hall.ready):
            self._empty = None
            self._ever.clear()
        self._kept = {}
        for gang, wish in wanted:
            if self._still_holds(moment, gang, wish):
                self.claims.put(wish, gang)
                self._kept[gang.run_id] = wish
        turn = _Turn(everybody)
        seen = set[str]()
        for gang in chain(
            self._promised_first(moment), self._first_in_line(moment), self.shares.order(turn.hopeless)
        ):
            if (
                gang.run_id in seen or gang.run_id not in moment.waiting
            ):  # the latter is stopped, and is not gone yet
                continue
            kept = self._withdraw(gang, turn)
            shapes = self._within_limits(gang)
            if not shapes:
                continue  # its queue holds all it may: that is said at the end
            seen.add(gang.run_id)
            booked = self._booked.get((gang.terms.owner, gang.terms.reservation))
            if (
                booked is not None
            ):  # what it would take now it would take from others, beside what is kept for it
                self.verdicts[gang.run_id] = Verdict(WaitKind.BOOKED, booked, booked)
                self.shares.forgo(gang)
                continue
            behind: Claim | None = None
            if shapes not in turn.short:
                found = self._looked_for(moment, gang, shapes, turn, kept)
                if isinstance(found, Claim):
                    behind = found
                elif found is not None:
                    yield self._start(moment, gang, *found)
                    self._count_used(moment, gang)
                    continue
            freed = self._freed(moment, gang, shapes, turn)
            if freed is not None:
                shape, reclaimed = freed
                for victim in reclaimed.victims:
                    stopped = self.stakes[victim.run_id].gang
                    self._give_back(stopped)
                    self.ended(stopped)
                    self.shares.join(stopped)
                    yield Stop(victim.run_id)
                turn.forget()
                yield self._start(moment, gang, reclaimed.spots, shape)
                self._count_used(moment, gang)
                continue
            aside = self._moved_aside(moment, gang, shapes, turn) if shapes in turn.short else None
            if aside is not None:
                shape, moves = aside
                movers = [self.stakes[each.run_id].gang for each in moves.relocations]
                for mover in movers:
                    self._give_back(mover)
                    self.ended(mover)
                    self.shares.join(mover)
                    self._moved.append((moment.now_s, mover.run_id))
                    yield Stop(mover.run_id)
                turn.forget()
                yield self._start(moment, gang, moves.spots, shape)
                for mover, relocation in zip(movers, moves.relocations, strict=True):
                    yield self._start(moment, mover, relocation.spots, mover.shape)
                continue
            if not turn.everybody and self._nobody_will_go(turn):
                if shapes in turn.short:
                    turn.hopeless.update(shapes)
                elif behind is not None and turn.late_for_all(gang, moment):
                    turn.hopeless.add(gang.shape)
            if behind is not None:
                own = self._own_start(moment, gang, shapes, turn, kept)
                self.verdicts[gang.run_id] = Verdict(WaitKind.HELD, behind, own)
            else:
                self._wait(moment, gang, shapes, turn, kept)
        if everybody:
            self._wait_at_limits(moment, seen)
        known, self.promised = self.promised, {}
        for number, claim in enumerate(self.claims.of_runs()):
            since_s = known[claim.name].since_s if claim.name in known else moment.now_s + number / 1e6
            self.promised[claim.name] = promise_of(claim, since_s, self._hall)

    def _promised_first(self, moment: Moment) -> Iterator[Gang]:
        """Those who were told when they start, in that order, so that each finds room beside those before him."""
        waiting = [
            (promise.since_s, gang)
            for run_id, promise in self.promised.items()
            if (gang := moment.waiting.get(run_id))
        ]
        for _, gang in sorted(waiting, key=lambda each: (each[0], each[1].number)):
            yield gang

    def _first_in_line(self, moment: Moment) -> Iterator[Gang]:
        """Whose turn it is for each model and who finds no room now, so that he can claim before others fill it up."""
        self._first = self._seek_first()
        for gang in self._first.values():
            if all(self.packing.place(_as(gang, shape), moment.hall) is None for shape in gang.shapes):
                yield gang

    def _seek_first(self) -> dict[str, Gang]:
        """The first in line for each model, of the queue whose turn it is. By run."""
        found: dict[str, Gang] = {}
        covered = set[str]()
        for gang in islice(self.shares.firsts(), FIRST_SOUGHT):
            models = self._models(gang.shapes)
            is_booked = (gang.terms.owner, gang.terms.reservation) in self._booked
            if not models <= covered and not is_booked and self._could_ever(gang.shapes):
                covered |= models
                found[gang.run_id] = gang
        return found

    def _wait_at_limits(self, moment: Moment, seen: set[str]) -> None:
        """Whoever the order left out is in a queue that holds all it may."""
        left_out = [gang for run_id, gang in moment.waiting.items() if run_id not in seen]
        for gang in sorted(left_out, key=lambda gang: gang.number):
            models = [model for shape in gang.shapes for model in shape.models or self._hall.models]
            limit = next((queue for model in models if (queue := self.shares.limiting(gang, model))), None)
            self.verdicts[gang.run_id] = Verdict(WaitKind.LIMIT, None, None, limit)

    def _take_in(self, moment: Moment) -> None:
        self.shares.reckon(moment.now_s)  # with what was held until now
        for gang in moment.arrived:
            if gang.run_id in self._on:  # thrown off a node that failed
                self.ended(gang)
            self.comes(gang)
        for gang in moment.ended:
            self.ended(gang)
        for candidate in self.placed.values():
            self.stakes.put(candidate)
        self.placed = {}

    def _looked_for(
        self, moment: Moment, gang: Gang, shapes: tuple[Shape, ...], turn: _Turn, kept: Claim | None
    ) -> tuple[Spots, Shape] | Claim | None:
        """Where it goes and as which shape; else whom it would put off; None where it finds no room at all.

        kept: its start as it was promised: when that has come, it has its nodes, if it finds none as good.
        """
        alike = _alike(gang, shapes)
        lasts_s = self._lasts_s(moment, gang, shapes[0])
        known = turn.late.get(alike)
        if known is not None and lasts_s >= known[0]:
            return known[1]
        first: Claim | None = None
        for shape in shapes:
            if not turn.may_hold(shape, moment.hall):
                continue
            one = _as(gang, shape)
            spots = self.packing.place(one, moment.hall)
            if spots is None:
                continue
            outlived = self._outlived(moment, gang, self._lasts_s(moment, gang, shape))
            if not _lets(one, spots, outlived, moment.hall):
                spots = self._kept_clear(one, shape, outlived, moment.hall)
            if spots is None and kept is not None and kept.shape == shape and kept.from_s <= moment.now_s:
                spots = moment.hall.spots(shape, dict.fromkeys(kept.rows))
                spots = spots if spots is not None and _lets(one, spots, outlived, moment.hall) else None
            if spots is not None:
                return self._without_evicting(one, shape, spots, outlived, moment.hall), shape
            first = first or (
                self._in_whose_way(shape, outlived, moment.hall) if turn.everybody else outlived[0]
            )
        if first is not None:
            turn.late[alike] = (lasts_s, first)
            return first
        turn.short.add(shapes)
        return None

    def _kept_clear(self, gang: Gang, shape: Shape, outlived: list[Claim], hall: Hall) -> Spots | None:
        """Where it goes beside these claims."""
        open_rows = alone(shape, outlived[0].left, hall) > 0
        for claim in outlived[1:]:
            open_rows &= alone(shape, claim.left, hall) > 0
        if not open_rows.any():
            return None
        spots = self.packing.place(gang, hall.narrowed(open_rows))
        return spots if spots is not None and _lets(gang, spots, outlived, hall) else None

    def _without_evicting(
        self, gang: Gang, shape: Shape, spots: Spots, outlived: list[Claim], hall: Hall
    ) -> Spots:
        """These spots, or others as good where nobody who gives way has to go.

        As good means the same model and number on nodes that are as tight: neither this gang nor a later one gets less
        because a test was there first.
        """
        if self.beside is None or _fits_at(shape, spots, self.beside):
            return spots
        other = self.packing.place(gang, hall.narrowed(self.beside.fits(shape)))
        if other is None or not _fits_at(shape, other, self.beside) or not _as_tight(other, spots, hall):
            return spots
        return other if _lets(gang, other, outlived, hall) else spots

    def _in_whose_way(self, shape: Shape, outlived: list[Claim], hall: Hall) -> Claim:
        """The first claim without which it would find room, those before it kept clear."""
        frees = [free_now(hall)]
        for claim in outlived:
            frees.append(claim.left)
            if not holds(shape, frees, hall):
                return claim
        return outlived[-1]

    def _wait(
        self, moment: Moment, gang: Gang, shapes: tuple[Shape, ...], turn: _Turn, kept: Claim | None
    ) -> None:
        """It finds no room; the first to wait for a model claims its start."""
        if not self._could_ever(shapes):
            self.verdicts[gang.run_id] = Verdict(WaitKind.NEVER, None, None)
            self.shares.forgo(gang)  # its queue's quota is for those who can start
            return
        own = self._own_start(moment, gang, shapes, turn, kept)
        self.verdicts[gang.run_id] = Verdict(WaitKind.SHORT, None, own)

    def _own_start(
        self, moment: Moment, gang: Gang, shapes: tuple[Shape, ...], turn: _Turn, kept: Claim | None
    ) -> Claim | None:
        """What it claims; None for those who were promised nothing and are not the first for a model.

        kept: its start as it was promised, which it leaves for an earlier one alone.
        """
        if kept is not None and self._hall.models[self._hall.model[kept.rows[0]]] not in self._models(shapes):
            kept = None  # its queue may hold no more of that
        is_first = gang.run_id in self._first and turn.booked.isdisjoint(self._models(shapes))
        if kept is None and (turn.heads == CLAIMS_MOST or not (is_first or gang.run_id in self.promised)):
            return None
        own = self._claim(moment, gang, shapes, math.inf if kept is None else kept.from_s) or kept
        if own is not None:
            self.claims.put(own, gang)
            turn.booked.update(self._hall.models[self._hall.model[row]] for row in own.rows)
            turn.heads += 1
        return own

    def _start(self, moment: Moment, gang: Gang, spots: Spots, shape: Shape) -> Start:
        one = _as(gang, shape)
        model = self._hall.models[self._hall.model[spots[0].row]]
        ends_s = moment.now_s + self._lasts_s(moment, gang, shape)
        own = False
        for claim in self.claims:
            if ends_s <= claim.from_s or moment.now_s >= claim.until_s:
                continue
            if claim.concerns(gang, moment.now_s):
                claim.give(gang.run_id, shape, spots, self._hall)
            elif gang.terms.reservation:
                own = True
        if own:
            kind = StartKind.RESERVED
        elif gang.terms.spot:
            kind = StartKind.SPOT
        else:
            kind = StartKind.BACKFILL if self.verdicts else StartKind.IN_TURN
        self.starts[gang.run_id] = kind
        self.shares.leave(gang)
        self.placed[gang.run_id] = Candidate(gang=one, spots=tuple(spots), since_s=moment.now_s)
        self._hold(Running(one, moment.now_s, tuple(spots), model, 0), ends_s)
        return Start(gang.run_id, spots)

    # ------------------------------------------------------------------------------------------ claims

    def _calendar(self, moment: Moment, promised: Sequence[tuple[Gang, Claim]]) -> list[Claim]:
        """What the calendar claims, with what has started on it in this turn; beside those promised, where it can."""
        found: list[Claim] = []
        for entry in self._agreed.calendar:
            future = entry
            if entry.shape is not None:
                started = self._used.get((entry.tenant_id, entry.name), 0)
                if started >= entry.pods_left:
                    continue
                if started:
                    left = entry.pods_left - started
                    future = replace(entry, pods_left=left, shape=replace(entry.shape, pods=left))
            at_s = max(moment.now_s, entry.from_s)
            if at_s < entry.until_s:
                apart = [claim for gang, claim in promised if not future.lets_own_on(*_booking(gang), at_s)]
                found.append(claimed(future, at_s, self.outlook.free_at(at_s), found, self._hall, apart))
        return found

    def _count_used(self, moment: Moment, gang: Gang) -> None:
        """What started on a reservation is not claimed for it any more."""
        if self.starts[gang.run_id] is not StartKind.RESERVED:
            return
        key = (gang.terms.owner, gang.terms.reservation)
        self._used[key] = self._used.get(key, 0) + gang.shape.pods
        promised = [(moment.waiting[claim.name], claim) for claim in self.claims.of_runs()]
        self.claims = Claims(self._hall, self._calendar(moment, promised), promised)

    # ------------------------------------------------------------------------------------------ promises

    def _as_promised(self, moment: Moment) -> list[tuple[Gang, Claim]]:
        """Those who were told a start and on which nodes, in that order; what is left beside it is not known yet."""
        found: list[tuple[Gang, Claim]] = []
        if not self._agreed.calendar and _has_shares(moment.hall):
            return found  # sums say too little: they claim anew
        for gang in self._promised_first(moment):
            promise = self.promised[gang.run_id]
            told = promise.rows(gang.shapes, self._row_of)
            if promise.by_s is not None and told is not None:
                shape, rows = told
                at_s = max(moment.now_s, promise.by_s)
                until_s = at_s + self._lasts_s(moment, gang, shape)
                found.append((gang, Claim(gang.run_id, "run", at_s, until_s, shape, rows, _UNKNOWN)))
        return found

    def _still_holds(self, moment: Moment, gang: Gang, own: Claim) -> bool:
        """Whether those rows are free then beside all claims that stand; if so, what is left beside it is known."""
        assert own.shape is not None
        free = self.outlook.free_at(own.from_s + INSTANT_S)
        later = self.claims.beside(gang, own.from_s, own.until_s, free)
        alone_there = free.copy()
        alone_there.open[:] = False
        alone_there.open[own.rows] = free.open[own.rows]
        rows = chosen(own.shape, room(own.shape, alone_there, self._hall, later), alone_there, self._hall)
        if rows is None:
            return False
        own.rows, own.left = rows, free
        take(own.shape, rows, free, self._hall)
        return True

    def _withdraw(self, gang: Gang, turn: _Turn) -> Claim | None:
        """Its start as it was promised, which holds nobody up while it is looked at itself."""
        kept = self._kept.pop(gang.run_id, None)
        if kept is not None:
            self.claims.withdraw(kept, gang)
            turn.late.clear()
            turn.hopeless.clear()
        return kept

    def _claim(self, moment: Moment, gang: Gang, shapes: tuple[Shape, ...], before_s: float) -> Claim | None:
        """The earliest start that the ends of leases make sure, and what is left beside it then; None if not before."""
        if not self._agreed.calendar and (shapes[0].milli % WHOLE or _has_shares(moment.hall)):
            own = self._claim_of_share(moment, gang, shapes)
            return None if own is None or own.from_s >= before_s else own
        best: tuple[float, Free, list[int], Shape] | None = None
        for shape in shapes:
            lasts_s = self._lasts_s(moment, gang, shape)

            def rows_at(
                at_s: float, free: Free, shape: Shape = shape, lasts_s: float = lasts_s
            ) -> list[int] | None:
                later = self.claims.beside(gang, at_s, at_s + lasts_s, free)
                return chosen(shape, room(shape, free, self._hall, later), free, self._hall)

            also = [claim.until_s for claim in self.claims if math.isfinite(claim.until_s)]
            start = self.outlook.first_start(shape, moment.now_s, rows_at, also, before_s)
            if start is not None and (best is None or start[0] < best[0]):
                best = (*start, shape)
        if best is None:
            return None
        at_s, free, rows, shape = best
        take(shape, rows, free, self._hall)
        until_s = at_s + self._lasts_s(moment, gang, shape)
        return Claim(gang.run_id, "run", at_s, until_s, shape, rows, free)

    def _claim_of_share(self, moment: Moment, gang: Gang, shapes: tuple[Shape, ...]) -> Claim | None:
        """The same where shares of accelerators stand or are wanted, of which sums say too little: end by end."""
        then = moment.hall.copy()
        milli, least = int(then.spare.sum()), min(shape.milli_total for shape in shapes)
        ends = sorted((end_s, run_id) for run_id, end_s in self._ends_s.items() if end_s < math.inf)
        for number, (end_s, run_id) in enumerate(ends):
            milli += then.remove(run_id).shape.milli_total
            if milli < least or (number + 1 < len(ends) and ends[number + 1][0] == end_s):
                continue
            for shape in shapes:
                spots = self.packing.place(_as(gang, shape), then)
                if spots is not None:
                    then.place(gang.run_id, shape, spots)
                    rows, at_s = [spot.row for spot in spots], max(end_s, moment.now_s)
                    until_s = at_s + self._lasts_s(moment, gang, shape)
                    return Claim(gang.run_id, "run", at_s, until_s, shape, rows, free_now(then), then=then)
        return None

    def _outlived(self, moment: Moment, gang: Gang, lasts_s: float) -> list[Claim]:
        return self.claims.outlived(gang, moment.now_s, moment.now_s + lasts_s)

    # ------------------------------------------------------------------------------------------ evictions

    def _freed(
        self, moment: Moment, gang: Gang, shapes: tuple[Shape, ...], turn: _Turn
    ) -> tuple[Shape, Reclaimed] | None:
        """Whom to stop for it, and as which shape it then starts; None where it is entitled to nothing that helps."""
        terms = gang.terms
        if terms.spot or not len(self.stakes) or turn.reclaims >= RECLAIMS_MOST:
            return None
        alike = (
            shapes,
            queue_of(gang),
            terms.priority,
            terms.reservation,
            self._lasts_s(moment, gang, shapes[0]),
        )
        if alike in turn.vain:
            return None
        turn.reclaims += 1
        hall = moment.hall
        for shape in self._by_model(shapes):
            one = _as(gang, shape)
            outlived = self._outlived(moment, gang, self._lasts_s(moment, gang, shape))

            def places(trial: Hall, one: Gang = one, outlived: list[Claim] = outlived) -> Spots | None:
                spots = self.packing.place(one, trial)
                if spots is None or not outlived:
                    return spots
                left = self._left_without(outlived, trial, hall)
                return self._kept_clear(one, one.shape, left, trial)

            self.stakes.quotas = self._quotas(shape)
            left_milli = None
            if self.stakes.quotas:
                models = shape.models or hall.models
                left_milli = max(self.shares.left_milli(queue_of(gang), model) for model in models)
            found = reclaim(one, Entitlement(left_milli=left_milli), self.stakes, hall, places, moment.now_s)
            if found is not None:
                return shape, found
        turn.vain.add(alike)
        return None

    def _moved_aside(
        self, moment: Moment, gang: Gang, shapes: tuple[Shape, ...], turn: _Turn
    ) -> tuple[Shape, Moves] | None:
        """Who may be moved so that the first in line starts; None where that cannot be, or does not pay."""
        first = gang.run_id in self._first or gang.run_id in self.promised
        if not first or gang.terms.spot or turn.moves >= MOVES_TRIED or not self.stakes.has_saved.any():
            return None
        turn.moves += 1
        hall, now_s = moment.hall, moment.now_s
        self._moved = [each for each in self._moved if each[0] > now_s - WINDOW_S]
        budget = budget_of(self._moved, int(hall.devices.sum()), now_s)
        for shape in shapes:
            one = _as(gang, shape)

            def places(who: Gang, trial: Hall) -> Spots | None:
                outlived = self._outlived(moment, who, self._lasts_s(moment, who, who.shape))
                if not outlived:
                    return self.packing.place(who, trial)
                return self._kept_clear(who, who.shape, self._left_without(outlived, trial, hall), trial)

            moves = consolidate(
                one, self.stakes, hall, places, now_s, budget, lasts_s=self._lasts_s(moment, gang, shape),
                rate=max((self._agreed.worth.get(model, 1.0) for model in shape.models), default=1.0),
            )  # fmt: skip
            if moves is not None:
                return shape, moves
        return None

    def _by_model(self, shapes: tuple[Shape, ...]) -> list[Shape]:
        """Each shape for each of its models where quotas tell these apart: none entitles to anything of another."""
        if not any(queue.quota for queue in self._agreed.tree.queues):
            return list(shapes)
        return [
            replace(shape, models=(model,)) for shape in shapes for model in shape.models or self._hall.models
        ]

    def _quotas(self, shape: Shape) -> dict[tuple[str, str], int]:
        """What each queue may hold of the models in question before it borrows; empty where no quota names one."""
        tree = self._agreed.tree
        named = {model for queue in tree.queues for model in queue.quota}
        models = [model for model in shape.models or self._hall.models if model in named]
        found: dict[tuple[str, str], int] = {}
        if models:
            for queue in self.shares.queues:
                for model in models:
                    found[queue, model] = self.shares.guaranteed_milli(queue, model)
        return found

    def _left_without(self, outlived: list[Claim], trial: Hall, hall: Hall) -> list[Claim]:
        """The claims with what those leave who are gone from the trial."""
        gone = [
            self.stakes[run_id] for run_id in hall.held.keys() - trial.held.keys() if run_id in self.stakes
        ]
        found = []
        for claim in outlived:
            left = claim.left.copy()
            for each in gone:
                if self._ends_s[each.gang.run_id] > claim.from_s:
                    give(each.gang.shape, [spot.row for spot in each.spots], left, self._hall)
            found.append(replace(claim, left=left))
        return found

    def _give_back(self, gang: Gang) -> None:
        """Those who claim get what it would have held at that instant."""
        rows = [spot.row for spot in self.stakes[gang.run_id].spots]
        for claim in self.claims:
            if self._ends_s[gang.run_id] > claim.from_s:
                give(gang.shape, rows, claim.left, self._hall)

    # ------------------------------------------------------------------------------------------ what it knows

    def _within_limits(self, gang: Gang) -> tuple[Shape, ...]:
        """Its shapes with the models of which its queue may hold so many."""
        if not self._agreed.tree.is_bounded:
            return gang.shapes
        found = []
        for shape in gang.shapes:
            may = tuple(model for model in shape.models if self.shares.within_limit(gang, model))
            if may == shape.models:
                found.append(shape)
            elif may:
                found.append(replace(shape, models=may))
        return tuple(found)

    def _lasts_s(self, moment: Moment, gang: Gang, shape: Shape) -> float:
        """How long it holds what it is given, at most: the longest over the models it may be on."""
        left = [
            seconds
            for model in shape.models or (self._hall.models[0],)
            if model in self._hall.models
            and (seconds := moment.left_s(gang, model)) is not None
            and seconds < math.inf
        ]
        if left:
            return max(left) + (moment.restart_s if moment.served_s(gang) > 0 else 0.0)
        return math.inf if gang.terms.lasts_most_s is None else gang.terms.lasts_most_s

    def _nobody_will_go(self, turn: _Turn) -> bool:
        """Whether it is in vain to ask in this turn whom to stop."""
        if turn.reclaims >= RECLAIMS_MOST:
            return True
        return len(self._priorities) < 2 and not self.stakes.spot.any() and not self._agreed.tree.models

    def _models(self, shapes: tuple[Shape, ...]) -> set[str]:
        return {model for shape in shapes for model in shape.models or self._hall.models}

    def _could_ever(self, shapes: tuple[Shape, ...]) -> bool:
        """Whether one of them finds room where nothing stands on the nodes that take runs now."""
        if shapes not in self._ever:
            self._ever[shapes] = any(holds(shape, (self._when_empty(),), self._hall) for shape in shapes)
        return self._ever[shapes]

    def _when_empty(self) -> Free:
        """What those nodes have that take runs now, with nothing on them."""
        if self._empty is None:
            hall = self._hall
            self._empty = Free(self._installed, np.full(len(hall), NOBODY, dtype=np.int64), hall.ready.copy())
        return self._empty


def _as(gang: Gang, shape: Shape) -> Gang:
    return gang if shape is gang.shape and not gang.others else replace(gang, shape=shape, others=())


def _booking(gang: Gang) -> tuple[str, str]:
    return gang.terms.owner, gang.terms.reservation


def _alike(gang: Gang, shapes: tuple[Shape, ...]) -> tuple[object, ...]:
    """Gangs that the same claims concern, and that fit the same rows."""
    terms = gang.terms
    return shapes, terms.spot, terms.reservation and (terms.owner, terms.reservation)


def _pods(spots: Spots) -> dict[int, int]:
    """How many of them are on each row."""
    pods: dict[int, int] = {}
    for spot in spots:
        pods[spot.row] = pods.get(spot.row, 0) + 1
    return pods


def _has_shares(hall: Hall) -> bool:
    return bool((hall.spare != hall.whole * WHOLE).any())


def _fits_at(shape: Shape, spots: Spots, hall: Hall) -> bool:
    room_of = hall.room(shape)
    return all(room_of[row] >= count for row, count in _pods(spots).items())


def _as_tight(one: Spots, other: Spots, hall: Hall) -> bool:
    def of(spots: Spots) -> list[tuple[int, int]]:
        return sorted((int(hall.model[spot.row]), int(hall.spare[spot.row])) for spot in spots)

    return of(one) == of(other)


def _lets(gang: Gang, spots: Spots, outlived: list[Claim], hall: Hall) -> bool:
    """Whether these spots leave each claim alone."""
    return all(claim.lets(gang.run_id, gang.shape, spots, hall) for claim in outlived)
