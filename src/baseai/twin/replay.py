"""A replay carries a policy's choices out on a virtual clock, and remembers what ran where and when.

Invariant: the same submissions, hall, policy and seed give the same segments; nothing reads a real clock. Each choice
is checked as it is made: what does not fit, or is not there to be started or stopped, ends the replay with the name
of run, node and resource. `pack` places arrivals for ever; `Replay` runs them in time.

What stopping costs: a gang that is preempted saves first and loses nothing but `restart_s` at its next start; one
that a failing node takes down goes back to its last checkpoint as well (`checkpoint_s` of work apart).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from baseai.ground.fault import Fault
from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall, Misplaced, Spot
from baseai.scheduling.policy.seam import Move, Packing, Running, Start, Stop, Timing, Wake
from baseai.twin.neutral import Outage, Segment, Submission

Tell = Callable[[int, int, float | None], None]
"""Told now and then: submissions that are done with, all of them, the virtual instant (None while packing)."""

TOLD_EVERY = 4096  # events


class BadMove(Fault):
    """A policy chose what cannot be done, beside not fitting."""

    def __init__(self, run_id: str, at_s: float, why: str) -> None:
        super().__init__(run_id, at_s, why)
        self.run_id = run_id
        self.at_s = at_s
        self.why = why

    def __str__(self) -> str:
        who = f"run {self.run_id}" if self.run_id else "the policy"
        return f"at {self.at_s:g} s {who} {self.why}"


class Stranded(Fault):
    """Nothing runs, nothing comes, and somebody still waits."""

    def __init__(self, run_id: str, waiting: int, at_s: float) -> None:
        super().__init__(run_id, waiting, at_s)
        self.run_id = run_id
        self.waiting = waiting
        self.at_s = at_s

    def __str__(self) -> str:
        return (
            f"at {self.at_s:g} s the policy leaves {self.waiting} waiting for ever, run {self.run_id} first"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What stopping and starting again costs."""

    restart_s: float = 0.0  # of every start after the first, before work goes on
    checkpoint_s: float = 600.0  # of work between two checkpoints; what a failure can lose at most

    def __post_init__(self) -> None:
        if not (self.restart_s >= 0 and self.checkpoint_s > 0):
            raise ValueError(f"{self} costs less than nothing")


def pack(
    submissions: Sequence[Submission], hall: Hall, policy: Packing, tell: Tell | None = None
) -> list[Segment]:
    """Place one after the other for ever; who finds no room is turned away.

    Raises Misplaced where the policy chooses what does not fit.
    """
    placed: list[Segment] = []
    for done, submission in enumerate(submissions):
        gang = submission.gang
        spots = policy.place(gang, hall)
        if spots is not None:
            hall.place(gang.run_id, gang.shape, spots)
            placed.append(Segment(gang.run_id, gang.submit_s, math.inf, tuple(spots)))
        if tell is not None and done % TOLD_EVERY == 0:
            tell(done, len(submissions), None)
    return placed


class _Life:
    """Where one gang stands."""

    __slots__ = ("base", "end_s", "gang", "segments", "served_s", "since_s", "spots", "submission", "work_s")

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.gang = submission.gang
        self.base = 0.0  # share of its work done when this segment began, or until now where it waits
        self.served_s = 0.0  # before this segment
        self.segments = 0  # before this one
        self.since_s = math.nan
        self.end_s = math.nan
        self.work_s = math.nan  # all of its work, on the model of this segment
        self.spots: tuple[Spot, ...] = ()


class Replay:
    """One replay in time; it is the `Moment` its policy sees. Call `run` once."""

    def __init__(
        self,
        submissions: Sequence[Submission],
        hall: Hall,
        policy: Timing,
        *,
        costs: Costs | None = None,
        outages: Sequence[Outage] = (),
        durations_known: bool = True,
        tell: Tell | None = None,
    ) -> None:
        self._submissions = submissions
        self._hall = hall
        self._policy = policy
        self._costs = costs or Costs()
        self._outages = outages
        self._durations_known = durations_known
        self._tell = tell
        self._lives = {submission.gang.run_id: _Life(submission) for submission in submissions}
        self._waiting: dict[str, Gang] = {}
        self._running: dict[str, Running] = {}
        self._arrived: list[Gang] = []
        self._ended: list[Gang] = []
        self._ends: list[tuple[float, int, str]] = []
        self._now_s = 0.0
        self._wake_s = math.inf
        self.segments: list[Segment] = []
        self.events = 0  # arrivals, ends, preemptions and failures carried out
        self.preemptions = 0
        self.work_lost_s = 0.0  # by failures, on the model it ran on

    # -------------------------------------------------------------------------------- what a policy sees

    @property
    def now_s(self) -> float:
        return self._now_s

    @property
    def hall(self) -> Hall:
        return self._hall

    @property
    def arrived(self) -> Sequence[Gang]:
        return self._arrived

    @property
    def ended(self) -> Sequence[Gang]:
        return self._ended

    @property
    def waiting(self) -> Mapping[str, Gang]:
        return self._waiting

    @property
    def running(self) -> Mapping[str, Running]:
        return self._running

    @property
    def restart_s(self) -> float:
        return self._costs.restart_s

    def work_s(self, gang: Gang, model: str) -> float | None:
        submission = self._lives[gang.run_id].submission
        if self._durations_known:
            return submission.work_s(model)
        return math.inf if submission.by_model and model not in submission.by_model else None

    def left_s(self, gang: Gang, model: str) -> float | None:
        life = self._lives[gang.run_id]
        running = self._running.get(gang.run_id)
        if not self._durations_known:
            return self.work_s(gang, model)
        if running is not None and running.model == model:
            return life.end_s - self._now_s
        work_s = life.submission.work_s(model)
        if math.isinf(work_s):
            return work_s
        return (1.0 - self._done(life)) * work_s

    def served_s(self, gang: Gang) -> float:
        life = self._lives[gang.run_id]
        return life.served_s + (self._now_s - life.since_s if gang.run_id in self._running else 0.0)

    # -------------------------------------------------------------------------------------- the clock

    def run(self) -> list[Segment]:
        """Until everybody has ended. The segments, in the order in which they ended.

        Raises Misplaced, BadMove or Stranded where the policy chooses what cannot be.
        """
        arrivals, comes = self._submissions, 0
        changes = self._changes()
        change = next(changes, None)
        told = done = 0
        while True:
            next_s = min(
                arrivals[comes].gang.submit_s if comes < len(arrivals) else math.inf,
                self._next_end_s(),
                self._wake_s,
            )
            if change is not None and change[0] <= next_s and (self._waiting or next_s < math.inf):
                next_s = change[0]
            if next_s == math.inf:
                break
            self._now_s = next_s
            if self._wake_s <= next_s:
                self._wake_s = math.inf
            while self._next_end_s() <= next_s:
                self._end(heappop(self._ends))
            while change is not None and change[0] <= next_s:
                self._turn_node(change[1], change[2])
                change = next(changes, None)
            while comes < len(arrivals) and arrivals[comes].gang.submit_s <= next_s:
                gang = arrivals[comes].gang
                self._waiting[gang.run_id] = gang
                self._arrived.append(gang)
                self.events += 1
                comes += 1
            done += len(self._ended)
            self._take_turn()
            if self._tell is not None and self.events - told >= TOLD_EVERY:
                told = self.events
                self._tell(done, len(arrivals), next_s)
        if self._waiting:
            first = min(self._waiting.values(), key=lambda gang: gang.number)
            raise Stranded(first.run_id, len(self._waiting), self._now_s)
        return self.segments

    def _next_end_s(self) -> float:
        """The first end of a segment that still runs; ends of what was stopped before are dropped on the way."""
        ends = self._ends
        while ends and ends[0][0] != self._lives[ends[0][2]].end_s:
            heappop(ends)
        return ends[0][0] if ends else math.inf

    def _changes(self) -> Iterator[tuple[float, bool, str]]:
        """Nodes coming back and failing, in order; who comes back does so first."""
        moves = [(outage.up_s, False, outage.node_id) for outage in self._outages]
        moves += [(outage.down_s, True, outage.node_id) for outage in self._outages]
        yield from sorted(moves)

    def _take_turn(self) -> None:
        self._arrived.sort(key=lambda gang: gang.number)
        most = 1000 + 10 * (len(self._waiting) + len(self._running))
        for number, move in enumerate(self._policy.turn(self)):
            self._carry_out(move)
            if number >= most:
                raise BadMove("", self._now_s, f"makes more than {most} moves in one turn")
        self._arrived.clear()
        self._ended.clear()

    def _carry_out(self, move: Move) -> None:
        if isinstance(move, Start):
            self._start(move)
        elif isinstance(move, Stop):
            if move.run_id not in self._running:
                raise BadMove(move.run_id, self._now_s, "is to be stopped and does not run")
            self._stop(move.run_id, failed=False)
        elif isinstance(move, Wake):
            if not move.at_s > self._now_s:
                raise BadMove("", self._now_s, f"wants to be woken at {move.at_s:g} s, which is not later")
            self._wake_s = move.at_s
        else:
            raise BadMove("", self._now_s, f"answers {move!r}, which is no move")

    def _start(self, move: Start) -> None:
        run_id = move.run_id
        gang = self._waiting.get(run_id)
        if gang is None:
            raise BadMove(run_id, self._now_s, "is to be started and does not wait")
        hall, life = self._hall, self._lives[run_id]
        hall.place(run_id, gang.shape, move.spots)
        first = move.spots[0].row
        model = hall.models[hall.model[first]]
        work_s = life.submission.work_s(model)
        if math.isinf(work_s):
            hall.remove(run_id)
            raise Misplaced(
                run_id, hall.node_ids[first], "duration_by_model", f"it cannot run on {model or 'no model'}"
            )
        del self._waiting[run_id]
        life.since_s, life.work_s, life.spots = self._now_s, work_s, tuple(move.spots)
        life.end_s = (
            self._now_s + (self._costs.restart_s if life.segments else 0.0) + (1.0 - life.base) * work_s
        )
        self._running[run_id] = Running(gang, self._now_s, life.spots, model, life.segments)
        heappush(self._ends, (life.end_s, gang.number, run_id))

    def _end(self, end: tuple[float, int, str]) -> None:
        end_s, _, run_id = end
        life = self._lives[run_id]
        del self._running[run_id]
        self._hall.remove(run_id)
        life.served_s += end_s - life.since_s
        life.base = 1.0
        life.end_s = math.nan  # stopped and started again in one instant, it stands among the ends twice
        self.segments.append(Segment(run_id, life.since_s, end_s, life.spots))
        self._ended.append(life.gang)
        self.events += 1

    def _stop(self, run_id: str, *, failed: bool) -> None:
        life = self._lives[run_id]
        done = self._done(life)
        if failed and life.work_s > 0:
            kept_s = math.floor(done * life.work_s / self._costs.checkpoint_s) * self._costs.checkpoint_s
            kept = max(life.base, kept_s / life.work_s)
            self.work_lost_s += (done - kept) * life.work_s
            done = kept
        del self._running[run_id]
        self._hall.remove(run_id)
        life.end_s = math.nan  # so that its place among the ends is known to be stale
        if self._now_s > life.since_s:
            self.segments.append(Segment(run_id, life.since_s, self._now_s, life.spots))
            life.segments += 1
            life.served_s += self._now_s - life.since_s
            self.preemptions += 1
        life.base = done
        self._waiting[run_id] = life.gang
        self.events += 1

    def _turn_node(self, down: bool, node_id: str) -> None:
        self._hall.set_ready(node_id, not down)
        if not down:
            return
        rows = {row for row, name in enumerate(self._hall.node_ids) if name == node_id}
        hit = [
            run_id
            for run_id, running in self._running.items()
            if any(spot.row in rows for spot in running.spots)
        ]
        for run_id in hit:
            self._stop(run_id, failed=True)
            self._arrived.append(self._lives[run_id].gang)

    def _done(self, life: _Life) -> float:
        """Share of its work done until now."""
        if life.gang.run_id not in self._running or life.work_s <= 0:
            return life.base
        working_s = self._now_s - life.since_s - (self._costs.restart_s if life.segments else 0.0)
        return min(1.0, life.base + max(0.0, working_s) / life.work_s)
