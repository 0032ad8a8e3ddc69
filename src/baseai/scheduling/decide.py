"""The decision: one cycle of the policy of the house over the queue, and why each of those waits who does not start.

Invariant: pure, and its plan grants no accelerator twice, no part of a gang, and nothing that would put off whoever was
promised a start. The choices are those of `policy/house.py`, which a replay runs as well; here they become grants and
waits, and what is physically still there is told from what counts as free.

Runs that yield (tests of nodes) do not exist for all this: everybody else is placed, booked and explained as if they
held nothing. Where such a placement stands on what they hold and no like one stands beside it, they are evicted, and
the run starts in the cycle after their processes are gone. So it is with whoever was asked to give way. They themselves
get what is left over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.explain import Advisor, at
from baseai.scheduling.fragmentation import Pool, fragmented_pools
from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import Hall, Misplaced, Spot, Spots
from baseai.scheduling.outlook import needs
from baseai.scheduling.plan import Eviction, Explanation, Grant, Obstacle, Plan, Wait, WaitKind, Why
from baseai.scheduling.policy.house import Verdict
from baseai.scheduling.policy.seam import Running, Start, Stop
from baseai.scheduling.policy.why import why_there
from baseai.scheduling.snapshot import UNTRIED, Snapshot, WaitingRun, seconds
from baseai.scheduling.standing import Standing

EXPLAINED_MOST = 100  # different explanations worked out in one cycle; `explain` gives the others when asked
OWNERS_MOST = 8  # tenants that are named among those ahead
UNEXPLAINED = (WaitKind.CLEARING, WaitKind.OWN_NODE, WaitKind.LIMIT, WaitKind.BOOKED)  # the kind says it all


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instant:
    """What the policy sees of the live platform: nobody knows how long anything runs."""

    now_s: float
    hall: Hall
    waiting: Mapping[str, Gang]
    arrived: Sequence[Gang] = ()
    ended: Sequence[Gang] = ()
    running: Mapping[str, Running] = field(default_factory=dict)
    restart_s: float = 0.0

    def work_s(self, gang: Gang, model: str) -> float | None:
        return None

    def left_s(self, gang: Gang, model: str) -> float | None:
        return None

    def served_s(self, gang: Gang) -> float:
        return 0.0


@dataclass(slots=True, eq=False)
class _Cycle:
    """What a cycle has come to so far. Undone when it ends."""

    beside: Hall  # with everything that is physically there
    clearing: set[int]  # numbers of nodes on which somebody has to go first
    grants: list[Grant] = field(default_factory=list)
    stood_aside: list[tuple[int, Gang, Spots]] = field(
        default_factory=list
    )  # who starts there once that is clear; how many waited
    evictions: dict[RunId, Eviction] = field(default_factory=dict)
    started: list[Gang] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    named: int = 0  # of these: for whom they go is said
    moved: list[Gang] = field(default_factory=list)  # of those who were stopped, who has a place elsewhere


def decide(
    snapshot: Snapshot, now: datetime, *, explained_most: int = EXPLAINED_MOST, packing: str = "best_fit"
) -> Plan:
    """Who starts now, and why each of the others waits. `now` is an aware instant.

    All columns are built for this one answer; `decide_on` keeps them.
    """
    standing = Standing(packing)
    standing.take_in(snapshot, seconds(now))
    return decide_on(standing, now, explained_most=explained_most)


def explain(
    snapshot: Snapshot, now: datetime, run_id: RunId, *, packing: str = "best_fit"
) -> Wait | Grant | None:
    """The wait of one run with its explanation, whatever the bound; its grant if it starts; None if not queued."""
    standing = Standing(packing)
    standing.take_in(snapshot, seconds(now))
    plan = decide_on(standing, now, only=run_id)
    grant = next((grant for grant in plan.grants if grant.run_id == run_id), None)
    return grant or next((wait for wait in plan.waits if wait.run_id == run_id), None)


def decide_on(
    standing: Standing,
    now: datetime,
    *,
    explained_most: int = EXPLAINED_MOST,
    only: RunId | None = None,
    everybody: bool = True,
) -> Plan:
    """The same on columns that are kept, which are afterwards as they were. only: the one run to explain.

    everybody: False where it is enough to know who starts and who is to go; then nobody is told why he waits.
    Runs with equal needs fail together, so the cost is O(different needs x rows), not O(queue x rows), plus O(rows) per
    grant.
    """
    now_s = seconds(now)
    hall, house = standing.hall, standing.house
    beside, full = standing.beside()
    cycle = _Cycle(beside, full)
    house.beside = None if beside is hall else beside
    instant = _Instant(now_s=now_s, hall=hall, waiting=standing.waiting)
    try:
        for move in house.moves(instant, everybody=everybody):
            if isinstance(move, Stop):
                _stop(move.run_id, standing, cycle)
            elif isinstance(move, Start):
                _start(move.run_id, move.spots, standing, cycle, now)
        waits = _waits(standing, cycle, now_s, explained_most, only) if everybody else []
        fragmented = _fragmented(standing) if everybody else None
        _serve_pinned(standing, cycle, waits, now)
    finally:
        _undo(standing, cycle)
    return Plan(
        grants=tuple(cycle.grants),
        waits=tuple(waits),
        evictions=tuple(cycle.evictions.values()),
        fragmented=fragmented,
    )


# ---- what the policy chose


def _stop(key: str, standing: Standing, cycle: _Cycle) -> None:
    """Somebody must make way: it holds nothing any more, and is still there."""
    hall, part = standing.hall, standing.parts[key]
    if cycle.beside is hall:
        cycle.beside = standing.house.beside = hall.copy()
    hall.remove(key)
    cycle.stopped.append(key)
    standing.giving_way[key] = part


def _start(run_id: str, spots: Spots, standing: Standing, cycle: _Cycle, now: datetime) -> None:
    hall, house = standing.hall, standing.house
    gang = house.placed[run_id].gang
    if run_id in cycle.stopped:  # moved aside: it comes back there once it is gone
        hall.place(run_id, gang.shape, spots)
        cycle.moved.append(gang)
        return
    reasons = why_there(gang, spots, hall, house.packing)
    next_best = None if reasons.next_best is None else NodeId(reasons.next_best)
    why = Why(kind=house.starts[run_id], **(reasons._asdict() | {"next_best": next_best}))
    hall.place(run_id, gang.shape, spots)
    cycle.started.append(gang)
    nodes = {int(hall.node[spot.row]) for spot in spots}
    for_it, cycle.named = cycle.stopped[cycle.named :], len(cycle.stopped)
    if cycle.beside is hall or (
        not for_it and cycle.clearing.isdisjoint(nodes) and _stands_beside(run_id, gang.shape, spots, cycle)
    ):
        cycle.grants.append(_grant(gang, spots, standing, now, why))
        return
    leaving = []
    for key, part in standing.giving_way.items():
        theirs = {int(hall.node[spot.row]) for spot in part.running.spots}
        if theirs.isdisjoint(nodes) and key not in for_it:
            continue
        if key in cycle.beside.held:
            leaving.append((key, cycle.beside.remove(key)))
        cycle.clearing.update(theirs)
        lost = part.lost_accelerator_s(seconds(now)) if key in cycle.stopped else None
        cycle.evictions.setdefault(
            part.run_id, Eviction(run_id=part.run_id, for_run=RunId(run_id), lost_accelerator_s=lost)
        )
    # It takes its place, and does not draw yet; what they draw still, nobody else under their breaker can.
    _stands_beside(run_id, replace(gang.shape, watts=0), spots, cycle)
    for key, held in leaving:
        draws = Shape(pods=len(held.spots), watts=held.shape.watts)
        cycle.beside.place(f"{key} draws", draws, tuple(Spot(spot.row) for spot in held.spots), stands=True)
    cycle.stood_aside.append((len(house.verdicts), gang, spots))


def _stands_beside(run_id: str, shape: Shape, spots: Spots, cycle: _Cycle) -> bool:
    """Put the gang where it is physically clear, on whichever accelerators are; False where it is not."""
    taken: dict[int, int] = {}
    free = []
    for spot in spots:
        skip = taken.get(spot.row, 0)
        whole = [
            device for device, milli in enumerate(cycle.beside.free[spot.row].tolist()) if milli == WHOLE
        ]
        free.append(Spot(spot.row, tuple(whole[skip : skip + shape.devices])))
        taken[spot.row] = skip + shape.devices
    try:
        cycle.beside.place(run_id, shape, free)
    except Misplaced:
        return False
    return True


def _fragmented(standing: Standing) -> frozenset[Pool]:
    """Where accelerators are free that somebody would have whom no choice of nodes can serve."""
    short = {
        standing.waiting[RunId(run_id)].shapes: None
        for run_id, verdict in standing.house.verdicts.items()
        if verdict.kind is WaitKind.SHORT
    }
    return fragmented_pools(short, standing.hall)


def _undo(standing: Standing, cycle: _Cycle) -> None:
    """Everything stands again as the record says."""
    house = standing.house
    for gang in cycle.started:
        standing.hall.remove(gang.run_id)
        house.ended(gang)
        house.shares.join(standing.waiting[RunId(gang.run_id)])
    for gang in cycle.moved:
        standing.hall.remove(gang.run_id)
        house.ended(gang)
        house.shares.join(gang)
    for key in reversed(cycle.stopped):
        part = standing.giving_way.pop(key)
        house.shares.leave(part.running.gang)
        standing.hall.place(key, part.running.gang.shape, part.running.spots, stands=True)
        house.runs(part.running, part.ends_s, saved_s=part.saved_s, rate=part.rate)
    house.beside = None


# ---- tests of nodes


def _serve_pinned(standing: Standing, cycle: _Cycle, waits: list[Wait], now: datetime) -> None:
    """Give what nobody else starts on to the runs that yield, each on its own node."""
    if not standing.pinned:
        return
    over = cycle.beside.copy()  # a copy, for nobody's wait is explained by what yields
    testable = {node.node_id for node in standing.fleet.nodes if node.state in ("ready", *UNTRIED)}
    for run in standing.pinned:
        spot = _own_spot(run, testable, standing, over)
        if spot is None:
            ahead = len(waits)
            waits.append(
                Wait(
                    run_id=run.demand.run_id, position=ahead + 1, ahead=ahead, kind=WaitKind.OWN_NODE, behind=None,
                    explanation=None,
                )
            )  # fmt: skip
            continue
        row, shape = spot
        gang = Gang(run_id=run.demand.run_id, number=0, shape=shape)
        spots = (over.spot(row, shape),)
        over.place(gang.run_id, shape, spots, stands=True)
        cycle.grants.append(_grant(gang, spots, standing, now, None, lasts_s=run.demand.max_duration_s))


def _own_spot(
    run: WaitingRun, testable: set[NodeId], standing: Standing, over: Hall
) -> tuple[int, Shape] | None:
    """Row and shape of a test on its own node, whether that is ready or not; None where it is not free."""
    demand = run.demand
    if demand.pinned not in testable:
        return None
    for shape in standing.fleet.shapes_of(demand):
        for model in shape.models:
            row = standing.fleet.row_of.get((demand.pinned, model))
            if row is None or (shape.tenant and not over.joined_by(shape.tenant)[row]):
                continue
            have = (over.whole[row] * WHOLE, over.cpu_milli[row], over.memory_mib[row], over.disk_mib[row])
            if all(left >= need for left, need in zip(have, needs(shape), strict=False)):
                return row, shape
    return None


# ---- as the plan says it


def _grant(
    gang: Gang,
    spots: Spots,
    standing: Standing,
    now: datetime,
    why: Why | None,
    *,
    lasts_s: float | None = None,
) -> Grant:
    hall = standing.hall
    places = sorted((NodeId(hall.node_ids[spot.row]), hall.models[hall.model[spot.row]]) for spot in spots)
    lasts = lasts_s if lasts_s is not None else gang.terms.lasts_most_s
    assert lasts is not None
    return Grant(
        run_id=RunId(gang.run_id),
        places=tuple((node_id, model, gang.shape.devices) for node_id, model in places),
        ends_at=now.astimezone(UTC) + timedelta(seconds=lasts),
        why=why,
    )


def _waits(
    standing: Standing, cycle: _Cycle, now_s: float, explained_most: int, only: RunId | None
) -> list[Wait]:
    """Everybody who does not start, in the order in which they were looked at, explained as far as the bound goes."""
    advisor = Advisor(standing, now_s)
    waits: list[Wait] = []
    owners = _Owners()
    verdicts = list(standing.house.verdicts.items())
    explained: dict[tuple[object, ...], Explanation] = {}
    aside = 0
    for number in range(len(verdicts) + 1):
        while aside < len(cycle.stood_aside) and cycle.stood_aside[aside][0] <= number:
            _, gang, spots = cycle.stood_aside[aside]
            waits.append(_clearing(gang, spots, standing.hall, len(waits), owners.ahead(), at(now_s)))
            owners.add(standing.runs[RunId(gang.run_id)].demand.tenant_id)
            aside += 1
        if number == len(verdicts):
            break
        run_id, verdict = RunId(verdicts[number][0]), verdicts[number][1]
        demand = standing.runs[run_id].demand
        explanation = None
        if verdict.kind not in UNEXPLAINED and (only is None or only == run_id):
            gang = standing.waiting[run_id]
            alike = _alike(gang, verdict)
            explanation = explained.get(alike) or standing.explained_before(alike, now_s)
            if explanation is None and len(explained) < explained_most:
                explanation = explained[alike] = advisor.explanation_of(demand, gang, verdict)
                standing.keep_explained(alike, explanation, now_s)
        waits.append(_wait(run_id, verdict, standing, explanation, len(waits), owners.ahead()))
        owners.add(demand.tenant_id)
    return waits


def _alike(gang: Gang, verdict: Verdict) -> tuple[object, ...]:
    """What explanations depend on, as long as nothing else moves."""
    own, behind = verdict.own, verdict.behind
    return (
        gang.shapes, gang.terms.lasts_most_s, gang.terms.spot, gang.terms.reservation,
        None if own is None else own.from_s, None if behind is None else (behind.name, behind.from_s),
    )  # fmt: skip


class _Owners:
    """Whose runs are ahead, counted as one goes down the queue."""

    def __init__(self) -> None:
        self._counts: dict[TenantId, int] = {}
        self._order: list[TenantId] = []  # the most first, then by name
        self._places: dict[TenantId, int] = {}
        self._shown: tuple[tuple[TenantId, int], ...] | None = ()

    def add(self, owner: TenantId) -> None:
        if owner not in self._counts:
            self._counts[owner] = 0
            self._places[owner] = len(self._order)
            self._order.append(owner)
        self._counts[owner] += 1
        place, mine = self._places[owner], (-self._counts[owner], owner)
        while place and mine < (-self._counts[self._order[place - 1]], self._order[place - 1]):
            other = self._order[place - 1]
            self._order[place], self._order[place - 1] = other, owner
            self._places[other], place = place, place - 1
        self._places[owner] = place
        self._shown = None

    def ahead(self) -> tuple[tuple[TenantId, int], ...]:
        """Those who have the most ahead, and how many each."""
        if self._shown is None:
            self._shown = tuple((owner, self._counts[owner]) for owner in self._order[:OWNERS_MOST])
        return self._shown


def _clearing(
    gang: Gang, spots: Spots, hall: Hall, ahead: int, owners: tuple[tuple[TenantId, int], ...], now: datetime
) -> Wait:
    """It comes first once they are gone, and there: else they would take again what they left for it."""
    places = [
        (hall.node_ids[spot.row], hall.models[hall.model[spot.row]], gang.shape.devices) for spot in spots
    ]
    return Wait(
        run_id=RunId(gang.run_id),
        position=ahead + 1,
        ahead=ahead,
        kind=WaitKind.CLEARING,
        behind=None,
        explanation=None,
        promised_at=now,
        promised_since=at(0.0),
        promised_on=tuple(places),
        owners_ahead=owners,
    )


def _wait(
    run_id: RunId,
    verdict: Verdict,
    standing: Standing,
    explanation: Explanation | None,
    ahead: int,
    owners: tuple[tuple[TenantId, int], ...],
) -> Wait:
    behind, obstacle, whose = None, Obstacle.RUN, None
    if verdict.limit is not None:
        behind, obstacle = verdict.limit, Obstacle.QUEUE
    elif verdict.behind is not None:
        behind, obstacle = verdict.behind.name, Obstacle(verdict.behind.kind)
        blocking = standing.runs.get(RunId(behind)) if obstacle is Obstacle.RUN else None
        if blocking is not None:
            whose = blocking.demand.tenant_id
        elif verdict.behind.future is not None and verdict.behind.future.tenant_id:
            whose = TenantId(verdict.behind.future.tenant_id)
    promise = standing.house.promised.get(run_id)
    return Wait(
        run_id=run_id,
        position=ahead + 1,
        ahead=ahead,
        kind=verdict.kind,
        behind=behind,
        explanation=explanation,
        obstacle=obstacle,
        behind_tenant=whose,
        promised_at=None if verdict.own is None else at(verdict.own.from_s),
        promised_since=None if promise is None else at(promise.since_s),
        promised_on=() if promise is None else promise.on,
        owners_ahead=owners,
    )
