"""The playbook says what is done next about each node that is not simply well: cordon, drain, repair, verify, or wait.

Invariant: it decides and does nothing; asked again after its moves were made it says nothing new. What runs on a node
is asked for a checkpoint before anything is repaired, for a node is repaired only once its leases are released. Of one
tenant's nodes, and of one site's, only so many are taken at once; a node that must wait says for what.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from baseai.fleet.health.repair import OPEN, Remedy, Repair, RepairState, Step, remedy_of
from baseai.fleet.health.rule import Action, Limits
from baseai.fleet.health.verdict import Sign, Verdict
from baseai.fleet.node import Health, NodeEvent, NodeState
from baseai.ground.identity import NodeId

RETURNS_MAX = 2  # times a node may come back from its tests to be repaired; then people decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One node, as far as its health goes."""

    node_id: NodeId
    site: str
    state: NodeState
    leases: int
    tenants: frozenset[str]  # who holds them
    verdict: Verdict
    ours: bool  # health itself made its last move
    since: datetime  # when it came into its state
    repairs: tuple[Repair, ...] = ()  # open
    history: tuple[Repair, ...] = ()  # ended
    able: frozenset[Step] = frozenset()  # what its agent may carry out
    shared_chassis: bool = False
    returns: int = 0  # from verifying to repairing since it last was ready

    @property
    def taking(self) -> tuple[Repair, ...]:
        """The open repairs for which the node is taken out."""
        return tuple(repair for repair in self.repairs if repair.drains)


@dataclass(slots=True, kw_only=True)
class Crowd:
    """How many nodes tenants and sites have, and how many of them health has taken already. Counts on as it allows."""

    tenant_nodes: Mapping[str, int]
    site_nodes: Mapping[str, int]
    tenant_taken: dict[str, int] = field(default_factory=dict)
    site_taken: dict[str, int] = field(default_factory=dict)

    def full_site(self, case: Case, limits: Limits) -> str | None:
        """Why no further node of the site may be held back, or None."""
        most = max(1, int(limits.site_share * self.site_nodes.get(case.site, 0)))
        taken = self.site_taken.get(case.site, 0)
        if taken < most:
            return None
        return (
            f"{taken} nodes of site {case.site} are held back already, {most} at once: look what they share"
        )

    def full_tenant(self, case: Case, limits: Limits) -> str | None:
        """Why no further node of a tenant on it may be drained, or None."""
        for tenant in sorted(case.tenants):
            most = max(1, int(limits.tenant_share * self.tenant_nodes.get(tenant, 0)))
            taken = self.tenant_taken.get(tenant, 0)
            if taken >= most:
                return f"{taken} nodes of one tenant are draining already, {most} at once"
        return None

    def hold_back(self, case: Case) -> None:
        self.site_taken[case.site] = self.site_taken.get(case.site, 0) + 1

    def drain(self, case: Case) -> None:
        for tenant in case.tenants:
            self.tenant_taken[tenant] = self.tenant_taken.get(tenant, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Steer:
    """Move the node through its life."""

    node_id: NodeId
    event: NodeEvent
    sentence: str
    evidence_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Open a repair."""

    node_id: NodeId
    remedy: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Order the agent to carry a repair out."""

    node_id: NodeId
    repair_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Count a repair that the agent was told of, and nobody heard from since, as failed."""

    node_id: NodeId
    repair_id: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Dismiss a repair that nothing calls for any more."""

    node_id: NodeId
    repair_id: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What is due waits, and why."""

    node_id: NodeId
    why: str


Move = Steer | Begin | Tell | GiveUp | Drop | Hold


def course(cases: Iterable[Case], crowd: Crowd, *, limits: Limits, now: datetime) -> tuple[Move, ...]:
    """What is done next, the gravest cases first; equal ones in the order of their ids."""
    ordered = sorted(cases, key=lambda case: (-_gravity(case), case.node_id))
    return tuple(move for case in ordered for move in _next(case, crowd, limits, now))


def _gravity(case: Case) -> int:
    return case.verdict.worst.action.rank if case.verdict.worst else -1


def _next(case: Case, crowd: Crowd, limits: Limits, now: datetime) -> list[Move]:
    match case.state:
        case NodeState.READY:
            return _of_ready(case, crowd, limits, now)
        case NodeState.CORDONED:
            return _of_cordoned(case, crowd, limits, now)
        case NodeState.DRAINING:
            return _of_draining(case, limits, now)
        case NodeState.REPAIRING:
            return _of_repairing(case, limits, now)
        case NodeState.VERIFYING | NodeState.BURN_IN:
            return _of_tested(case, limits, now)
        case _:
            return []


def _of_ready(case: Case, crowd: Crowd, limits: Limits, now: datetime) -> list[Move]:
    if case.verdict.health is Health.HEALTHY:
        return _tickets(case, limits, now)
    full = crowd.full_site(case, limits)
    if full is not None:
        return [Hold(node_id=case.node_id, why=full)]
    crowd.hold_back(case)
    if case.verdict.health is Health.SUSPECT:
        return [_steer(case, NodeEvent.CORDON), *_begin(case, limits, now)]
    full = crowd.full_tenant(case, limits)
    if full is not None:
        return [_steer(case, NodeEvent.CORDON), Hold(node_id=case.node_id, why=full)]
    crowd.drain(case)
    return [_steer(case, NodeEvent.DRAIN), *_begin(case, limits, now)]


def _of_cordoned(case: Case, crowd: Crowd, limits: Limits, now: datetime) -> list[Move]:
    worst = case.verdict.worst
    if case.verdict.health is Health.FAULTY:
        full = crowd.full_tenant(case, limits)
        if full is not None:
            return [Hold(node_id=case.node_id, why=full)]
        crowd.drain(case)
        return [_steer(case, NodeEvent.DRAIN), *_begin(case, limits, now)]
    if worst is not None and worst.action is Action.RESET_IDLE:
        if case.leases == 0:
            return [_steer(case, NodeEvent.DRAIN), *_begin(case, limits, now)]
        return _begin(case, limits, now)
    if case.verdict.health is Health.HEALTHY and case.ours:
        return [*_dropped(case), _steer(case, NodeEvent.UNCORDON)]
    return []


def _of_draining(case: Case, limits: Limits, now: datetime) -> list[Move]:
    wanted = _draining_signs(case)
    begun = _begin(case, limits, now) if wanted else []
    if not wanted and case.ours:
        # What called for it was cleared: the node goes back the way it came.
        return [*_dropped(case), _steer(case, NodeEvent.CORDON)]
    if case.leases == 0 and case.taking:
        return [_steer(case, NodeEvent.REPAIR)]
    return begun


def _of_repairing(case: Case, limits: Limits, now: datetime) -> list[Move]:
    moves: list[Move] = []
    for repair in case.taking:
        if repair.state is RepairState.APPROVED and repair.by_agent:
            moves.append(Tell(node_id=case.node_id, repair_id=repair.repair_id))
        elif (
            repair.state is RepairState.ORDERED
            and repair.ordered_at is not None
            and now - repair.ordered_at > timedelta(seconds=limits.repair_grace_s)
        ):
            why = f"the agent has not said within {limits.repair_grace_s:g} s what came of it"
            moves.append(GiveUp(node_id=case.node_id, repair_id=repair.repair_id, sentence=why))
    if case.taking:
        return moves
    if _draining_signs(case):
        return _begin(case, limits, now)
    return [_steer(case, NodeEvent.VERIFY)] if any(_served(repair, case) for repair in case.history) else []


def _served(repair: Repair, case: Case) -> bool:
    """Whether a repair of this stay was done, or a person said that it need not be."""
    ended = repair.ended_at is not None and repair.ended_at >= case.since
    return repair.drains and ended and repair.state is not RepairState.FAILED


def _of_tested(case: Case, limits: Limits, now: datetime) -> list[Move]:
    if case.verdict.health is not Health.FAULTY:
        return []
    if case.state is NodeState.VERIFYING and case.returns >= RETURNS_MAX:
        return [_steer(case, NodeEvent.QUARANTINE)]
    return [_steer(case, NodeEvent.REPAIR), *_begin(case, limits, now)]


def _draining_signs(case: Case) -> tuple[Sign, ...]:
    return tuple(
        sign for sign in case.verdict.signs if sign.action.drains or sign.action is Action.RESET_IDLE
    )


def _begin(case: Case, limits: Limits, now: datetime) -> list[Move]:
    """The repair that the node's signs call for, unless one is open already."""
    if case.taking:
        return []
    return _opened(case, _draining_signs(case), limits, now)


def _tickets(case: Case, limits: Limits, now: datetime) -> list[Move]:
    open_rules = {repair.rule_id for repair in case.repairs}
    wanted = [
        sign
        for sign in case.verdict.signs
        if sign.action is Action.TICKET
        and sign.rule_id not in open_rules
        and not _seen_to(sign, case.history)
    ]
    return _opened(case, wanted, limits, now)


def _seen_to(sign: Sign, history: Sequence[Repair]) -> bool:
    """Whether a person already closed the ticket about it."""
    return any(
        repair.rule_id == sign.rule_id and repair.ended_at is not None and repair.opened_at >= sign.since
        for repair in history
    )


def _opened(case: Case, signs: Sequence[Sign], limits: Limits, now: datetime) -> list[Move]:
    remedy = remedy_of(
        signs,
        case.history,
        limits=limits,
        able=case.able,
        shared_chassis=case.shared_chassis,
        now=now,
    )
    return [] if remedy is None else [Begin(node_id=case.node_id, remedy=remedy)]


def _dropped(case: Case) -> list[Move]:
    return [
        Drop(node_id=case.node_id, repair_id=repair.repair_id, sentence="nothing calls for it any more")
        for repair in case.taking
        if repair.state in OPEN - {RepairState.ORDERED}
    ]


def _steer(case: Case, event: NodeEvent) -> Steer:
    worst = case.verdict.worst
    if event in (NodeEvent.UNCORDON, NodeEvent.VERIFY) or worst is None:
        sentence = {
            NodeEvent.UNCORDON: "nothing stands against it any more",
            NodeEvent.VERIFY: "repaired: its tests decide",
            NodeEvent.CORDON: "what it was drained for no longer stands",
        }.get(event, "its leases are released")
        return Steer(node_id=case.node_id, event=event, sentence=sentence)
    return Steer(
        node_id=case.node_id,
        event=event,
        sentence=f"{worst.rule_id}: {worst.sentence}",
        evidence_ids=worst.evidence_ids,
    )
