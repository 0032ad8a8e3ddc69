"""A record is why a run waits, or why it started where it did, as codes and figures: one for CLI, API and page.

It is what the truth keeps with the run and the attempt, and what every door shows, after `for_tenant` or `named`.
Codes are the values of the enums of `plan`; instants are ISO 8601; an English sentence stands beside, for terminals
and logs, and is said anew from what the reader may know. Pages render the codes in their language.

Invariant: `wait_of` gives back what `wait_record` was given, and `why_of` likewise. A tenant's record names no other
tenant and nothing of theirs. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypedDict

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.constraint import Constraint
from baseai.scheduling.plan import (
    Change,
    Explanation,
    Lever,
    Obstacle,
    StartEstimate,
    StartKind,
    Wait,
    WaitKind,
    Why,
)
from baseai.scheduling.sentence import (
    change_phrase,
    estimate_sentence,
    own_and_others_sentence,
    owners_sentence,
    sentence,
    why_sentence,
)

Record = dict[str, Any]


class Promised(TypedDict):
    """What a run was promised: since when, by when it starts, and where: node, model, accelerators of each pod."""

    promised_since: datetime | None
    promised_at: datetime | None
    promised_on: tuple[tuple[str, str, int], ...]


# Whoever waits so waits for no accelerators to come free, which is all that an estimate goes by.
UNTIMED = frozenset(
    {WaitKind.NEVER, WaitKind.LIMIT, WaitKind.UNKNOWN_QUEUE, WaitKind.OWN_NODE, WaitKind.BOOKED}
)

# ---- why a run waits


def wait_record(wait: Wait) -> Record:
    """The whole of it, as the platform sees it."""
    why = wait.explanation
    estimate = None if wait.kind in UNTIMED else _within(wait.estimate, why)
    wait = replace(wait, estimate=estimate)
    return {
        "position": wait.position,
        "ahead": wait.ahead,
        "code": wait.kind.value,
        "behind": None
        if wait.behind is None
        else {"kind": wait.obstacle.value, "name": wait.behind, "tenant_id": wait.behind_tenant},
        "failing": {}
        if why is None
        else {constraint.value: count for constraint, count in why.nodes_failing},
        "fitting": None if why is None else why.nodes_fitting,
        "needed": None if why is None else why.nodes_needed,
        "change": None if why is None or why.change is None else _change_record(why.change),
        "earliest_at": _text(None if why is None else why.earliest_at),
        "latest_at": _text(None if why is None else why.latest_at),
        "promised_at": _text(wait.promised_at),
        "promised_since": _text(wait.promised_since),
        "promised_on": [list(place) for place in wait.promised_on],
        "owners_ahead": [{"tenant_id": tenant_id, "runs": runs} for tenant_id, runs in wait.owners_ahead],
        "estimate": None if estimate is None else _estimate_record(estimate),
        "sentence": sentence(wait),
    }


def wait_of(run_id: str, record: Mapping[str, Any]) -> Wait:
    """The wait that a record tells of. Raises KeyError or ValueError for one that is none."""
    record = _as_now(record)
    behind = record["behind"] or {}
    return Wait(
        run_id=RunId(run_id),
        position=record["position"],
        ahead=record["ahead"],
        kind=WaitKind(record["code"]),
        behind=behind.get("name"),
        obstacle=Obstacle(behind.get("kind", Obstacle.RUN)),
        behind_tenant=behind.get("tenant_id"),
        explanation=_explanation_of(record),
        owners_ahead=tuple((TenantId(each["tenant_id"]), each["runs"]) for each in record["owners_ahead"]),
        estimate=None if record["estimate"] is None else _estimate_of(record["estimate"]),
        **promised_in(record),
    )


def promised_in(record: Mapping[str, Any]) -> Promised:
    """What a run was promised by the record of its wait: as a WaitingRun takes it."""
    return {
        "promised_since": _instant(record.get("promised_since")),
        "promised_at": _instant(record.get("promised_at")),
        "promised_on": tuple(
            (node_id, model, count) for node_id, model, count in record.get("promised_on", ())
        ),
    }


def for_tenant(record: Mapping[str, Any], tenant_id: str, run_id: str = "") -> Record:
    """The record as that tenant may read it: own runs are told from those of others, and nobody else is named."""
    record = _as_now(record)
    wait = wait_of(run_id, record)
    own = sum(runs for owner, runs in wait.owners_ahead if owner == tenant_id)
    others = max(0, wait.ahead - own)
    ours = wait.behind_tenant == tenant_id or wait.obstacle is Obstacle.QUEUE
    reduced = replace(wait, owners_ahead=(), behind=wait.behind if ours else None, behind_tenant=None)
    behind = record["behind"]
    return {
        **record,
        "promised_on": [],
        "owners_ahead": [],
        "own_ahead": own,
        "others_ahead": others,
        "behind": behind and {"kind": behind["kind"], "name": reduced.behind, "tenant_id": None},
        "sentence": sentence(reduced, ahead=own_and_others_sentence(own, others)),
    }


def named(record: Mapping[str, Any], tenants: Mapping[str, str], run_id: str = "") -> Record:
    """The record as an operator reads it: whoever is ahead, by the names of `tenants`, which are by id."""
    record = _as_now(record)
    wait = wait_of(run_id, record)
    owners = [(tenants.get(tenant_id, tenant_id), runs) for tenant_id, runs in wait.owners_ahead]
    return {
        **record,
        "owners_ahead": [
            {"tenant_id": tenant_id, "tenant": name, "runs": runs}
            for (tenant_id, _), (name, runs) in zip(wait.owners_ahead, owners, strict=True)
        ],
        "own_ahead": None,
        "others_ahead": None,
        "sentence": sentence(wait, ahead=owners_sentence(owners)),
    }


def _as_now(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record in the form of today. Until the first cycle after an upgrade it may lack what was not known then."""
    if "owners_ahead" in record:
        return record
    behind = record["behind"]
    return {
        **record,
        "behind": behind and {"kind": Obstacle.RUN.value, "name": behind, "tenant_id": None},
        "fitting": None,
        "needed": None,
        "change": None,
        "owners_ahead": [],
        "estimate": None,
    }


def _within(estimate: StartEstimate | None, why: Explanation | None) -> StartEstimate | None:
    """The estimate, no later than what is sure; all that is known where it lies beyond that altogether."""
    latest_at = None if why is None else why.latest_at
    if estimate is None or latest_at is None or latest_at >= estimate.latest_at:
        return estimate
    return replace(
        estimate,
        earliest_at=estimate.earliest_at if estimate.earliest_at < latest_at else estimate.asked_at,
        likely_at=min(estimate.likely_at, latest_at),
        latest_at=latest_at,
    )


def _explanation_of(record: Mapping[str, Any]) -> Explanation | None:
    if record["needed"] is None:
        return None
    return Explanation(
        nodes_failing=tuple(
            (each, record["failing"][each]) for each in Constraint if each in record["failing"]
        ),
        nodes_fitting=record["fitting"],
        nodes_needed=record["needed"],
        change=None
        if record["change"] is None
        else Change(
            lever=Lever(record["change"]["lever"]),
            asked=record["change"]["asked"],
            instead=record["change"]["instead"],
        ),
        earliest_at=_instant(record["earliest_at"]),
        latest_at=_instant(record["latest_at"]),
    )


def _change_record(change: Change) -> Record:
    return {
        "lever": change.lever.value,
        "asked": change.asked,
        "instead": change.instead,
        "sentence": change_phrase(change),
    }


def _estimate_record(estimate: StartEstimate) -> Record:
    return {
        "asked_at": estimate.asked_at.isoformat(),
        "earliest_at": estimate.earliest_at.isoformat(),
        "likely_at": estimate.likely_at.isoformat(),
        "latest_at": estimate.latest_at.isoformat(),
        "held_ratio": estimate.held_ratio,
        "outcomes": estimate.outcomes,
        "sentence": estimate_sentence(estimate),
    }


def _estimate_of(record: Mapping[str, Any]) -> StartEstimate:
    return StartEstimate(
        asked_at=datetime.fromisoformat(record["asked_at"]),
        earliest_at=datetime.fromisoformat(record["earliest_at"]),
        likely_at=datetime.fromisoformat(record["likely_at"]),
        latest_at=datetime.fromisoformat(record["latest_at"]),
        held_ratio=record["held_ratio"],
        outcomes=record["outcomes"],
    )


# ---- why a run started where it did


def why_record(why: Why, on: Sequence[str]) -> Record:
    """Why an attempt started then and there. on: the ids of its nodes, by rank."""
    return {
        "kind": why.kind.value,
        "policy": why.policy,
        "fitting": why.nodes_fitting,
        "strands_milli": why.strands_milli,
        "next_best": why.next_best,
        "next_best_strands_milli": why.next_best_strands_milli,
        "leaves": why.leaves,
        "leaves_fewest": why.leaves_fewest,
        "sentence": why_sentence(why, on),
    }


def why_of(record: Mapping[str, Any]) -> Why:
    """The reasons that a record tells of. Raises KeyError or ValueError for one that is none."""
    next_best = record["next_best"]
    return Why(
        kind=StartKind(record["kind"]),
        policy=record["policy"],
        nodes_fitting=record["fitting"],
        strands_milli=record["strands_milli"],
        next_best=None if next_best is None else NodeId(next_best),
        next_best_strands_milli=record["next_best_strands_milli"],
        leaves=record["leaves"],
        leaves_fewest=record["leaves_fewest"],
    )


def why_named(
    record: Mapping[str, Any], on: Sequence[str], nodes: Mapping[str, str], *, sees_fleet: bool
) -> Record:
    """The record for people: nodes by name. Who may not see the fleet learns of no node but its own.

    on: the names of its nodes, by rank. nodes: names by id.
    """
    why = why_of(record)
    if not sees_fleet:
        why = replace(why, next_best=None)
    return {
        **record,
        "next_best": why.next_best and nodes.get(why.next_best, why.next_best),
        "sentence": why_sentence(why, on, nodes),
    }


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
