"""A record says the same through every door, to each reader what that reader may know."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

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
from baseai.scheduling.record import for_tenant, named, wait_of, wait_record, why_named, why_of, why_record

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ACME, ZETA, HOUSE = TenantId("ten_acme"), TenantId("ten_zeta"), TenantId("ten_house")


def estimate(**facts: Any) -> StartEstimate:
    return StartEstimate(
        asked_at=facts.pop("asked_at", NOON), earliest_at=NOON + timedelta(hours=2, minutes=10),
        likely_at=NOON + timedelta(hours=3, minutes=5), latest_at=NOON + timedelta(hours=4, minutes=40),
        held_ratio=facts.pop("held_ratio", 0.79), outcomes=facts.pop("outcomes", 412),
    )  # fmt: skip


def explanation(**facts: Any) -> Explanation:
    return replace(
        Explanation(
            nodes_failing=((Constraint.STATE, 1), (Constraint.ACCELERATORS, 2)), nodes_fitting=0, nodes_needed=2,
            change=Change(lever=Lever.ACCELERATORS, asked=8, instead=4), earliest_at=None, latest_at=None,
        ),
        **facts,
    )  # fmt: skip


def wait(kind: WaitKind = WaitKind.SHORT, **facts: Any) -> Wait:
    """The third in the queue, unless said otherwise."""
    known: dict[str, Any] = {"position": 3, "ahead": 2, "behind": None, "explanation": None} | facts
    return Wait(run_id=RunId("run_1"), kind=kind, **known)


def why(**facts: Any) -> Why:
    return replace(
        Why(
            kind=StartKind.IN_TURN, policy="lookahead", nodes_fitting=12, strands_milli=200.0,
            next_best=NodeId("nod_3"), next_best_strands_milli=1400.0, leaves=None, leaves_fewest=None,
        ),
        **facts,
    )  # fmt: skip


TURN = "Waiting, number 3 in the queue."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(
            wait(explanation=explanation()),
            f"{TURN} 0 nodes fit now, 2 are needed: 1 not ready, 2 with too few free accelerators."
            " It would start now with 4 accelerators on each node instead of 8.",
            id="short",
        ),
        pytest.param(
            wait(WaitKind.HELD, behind="run_head", behind_tenant=ZETA, explanation=explanation()),
            f"{TURN} It fits now, but would put off run_head, which was promised its start."
            " It would start now with 4 accelerators on each node instead of 8.",
            id="behind a run",
        ),
        pytest.param(
            wait(WaitKind.HELD, behind="launch", obstacle=Obstacle.RESERVATION, behind_tenant=ZETA),
            f"{TURN} It fits now, but would still run when the reservation launch begins.",
            id="behind a reservation",
        ),
        pytest.param(
            wait(WaitKind.HELD, behind="mnt_1", obstacle=Obstacle.MAINTENANCE),
            f"{TURN} It fits now, but would still run when the maintenance mnt_1 of a node begins.",
            id="behind a maintenance window",
        ),
        pytest.param(
            wait(WaitKind.LIMIT, behind="lab/vision", obstacle=Obstacle.QUEUE, explanation=explanation(change=None)),
            f"{TURN} The queue lab/vision holds all that it may; it starts when a run of that queue ends.",
            id="at its queue's limit: whether a node fits says nothing",
        ),
        pytest.param(
            wait(WaitKind.UNKNOWN_QUEUE),
            f"{TURN} Its queue is there no more: make it again, or submit the run in another.",
            id="in a queue that is gone",
        ),
        pytest.param(
            wait(WaitKind.CLEARING, position=1, ahead=0),
            "Waiting, first in the queue."
            " A test or a run that gives way is being stopped for it; it starts as soon as that is gone.",
            id="while others are stopped for it",
        ),
        pytest.param(
            wait(estimate=estimate()),
            f"{TURN} Probably between 14:10 and 16:40 UTC, most likely 15:05;"
            " 79 % of the last 412 such intervals held.",
            id="with an estimate",
        ),
        pytest.param(
            wait(estimate=estimate(held_ratio=1.0, outcomes=1)),
            f"{TURN} Probably between 14:10 and 16:40 UTC, most likely 15:05; the only such interval so far held.",
            id="with an estimate, once tested",
        ),
        pytest.param(
            wait(estimate=estimate(asked_at=NOON - timedelta(days=1), held_ratio=None, outcomes=0)),
            f"{TURN} Probably between 2026-03-01 14:10 and 2026-03-01 16:40 UTC, most likely 2026-03-01 15:05;"
            " none of these intervals has been tested yet.",
            id="with an estimate of another day, untested",
        ),
    ],
)  # fmt: skip
def test_a_wait_is_kept_as_it_was_and_says_why(given: Wait, said: str) -> None:
    record = json.loads(json.dumps(wait_record(given), sort_keys=True))  # as the database keeps it
    assert record["sentence"] == said
    assert wait_of("run_1", record) == given


@pytest.mark.parametrize(
    ("sure_h", "earliest_h"),
    [
        pytest.param(3, 2 + 10 / 60, id="it ends there"),
        pytest.param(1, 0, id="and where all of it would be later, it begins now"),
    ],
)
def test_an_estimate_is_no_later_than_what_is_sure(sure_h: float, earliest_h: float) -> None:
    sure_at = NOON + timedelta(hours=sure_h)
    record = wait_record(wait(explanation=explanation(latest_at=sure_at), estimate=estimate()))
    known = wait_of("run_1", record).estimate
    assert known is not None
    assert (known.earliest_at, known.likely_at, known.latest_at) == (
        NOON + timedelta(hours=earliest_h),
        sure_at,
        sure_at,
    )


@pytest.mark.parametrize("kind", [WaitKind.NEVER, WaitKind.LIMIT, WaitKind.UNKNOWN_QUEUE, WaitKind.OWN_NODE])
def test_who_waits_for_nothing_to_come_free_is_told_no_instant(kind: WaitKind) -> None:
    assert wait_record(wait(kind, estimate=estimate()))["estimate"] is None


@pytest.mark.parametrize(
    ("given", "behind", "said"),
    [
        pytest.param(
            wait(position=4, ahead=3, owners_ahead=((ZETA, 2), (ACME, 1))),
            None,
            "Waiting, number 4 in the queue. 1 own run and 2 runs of others are ahead of it.",
            id="own runs and those of others are counted, nobody is named",
        ),
        pytest.param(
            wait(position=2, ahead=1, owners_ahead=((ZETA, 1),)),
            None,
            "Waiting, number 2 in the queue. 1 run of others is ahead of it.",
            id="one of others",
        ),
        pytest.param(
            wait(WaitKind.HELD, owners_ahead=((ACME, 2),), behind="run_head", behind_tenant=ZETA),
            {"kind": "run", "name": None, "tenant_id": None},
            f"{TURN} 2 own runs are ahead of it."
            " It fits now, but would put off a run, which was promised its start.",
            id="a run of others has no name",
        ),
        pytest.param(
            wait(WaitKind.HELD, owners_ahead=((ACME, 2),), behind="run_head", behind_tenant=ACME),
            {"kind": "run", "name": "run_head", "tenant_id": None},
            f"{TURN} 2 own runs are ahead of it."
            " It fits now, but would put off run_head, which was promised its start.",
            id="an own run has",
        ),
        pytest.param(
            wait(WaitKind.HELD, ahead=0, behind="launch", behind_tenant=ZETA, obstacle=Obstacle.RESERVATION),
            {"kind": "reservation", "name": None, "tenant_id": None},
            "Waiting, first in the queue. It fits now, but would still run when a reservation begins.",
            id="nor has their reservation",
        ),
    ],
)
def test_a_tenant_reads_of_others_only_how_many_they_are(
    given: Wait, behind: dict[str, Any] | None, said: str
) -> None:
    record = for_tenant(wait_record(given), ACME)
    assert record["sentence"] == said
    assert record["behind"] == behind
    assert record["own_ahead"] + record["others_ahead"] == given.ahead
    for secret in ("zeta", "launch"):
        assert secret not in json.dumps(record)


def test_an_operator_reads_who_is_ahead() -> None:
    record = named(
        wait_record(wait(position=4, ahead=3, owners_ahead=((ZETA, 2), (HOUSE, 1)))), {"ten_zeta": "zeta"}
    )
    assert record["sentence"] == "Waiting, number 4 in the queue. Ahead of it: 2 of zeta, 1 of ten_house."
    assert record["owners_ahead"] == [
        {"tenant_id": "ten_zeta", "tenant": "zeta", "runs": 2},
        {"tenant_id": "ten_house", "tenant": "ten_house", "runs": 1},
    ]


NAMES = {"nod_3": "node-3"}


@pytest.mark.parametrize(
    ("given", "on", "said"),
    [
        pytest.param(
            why(), ["node-7"],
            "In its turn on node-7: of 12 nodes that fit it is the one on which least will stay unused: 1.2"
            " accelerators less than on node-3, the next best.",
            id="in its turn, where least is stranded",
        ),
        pytest.param(
            why(kind=StartKind.BACKFILL, strands_milli=-20.0, next_best=None, next_best_strands_milli=None),
            ["a", "b", "c", "d", "e"],
            "Before its turn, putting off nobody, on a, b, c and 2 more: of 12 nodes that fit they are those on which"
            " least will stay unused.",
            id="backfilled, on many",
        ),
        pytest.param(
            why(kind=StartKind.RESERVED, nodes_fitting=2), ["a", "b"],
            "On capacity that was reserved for it, on a, b: no others fit.",
            id="reserved, without a choice",
        ),
        pytest.param(
            why(kind=StartKind.SPOT, strands_milli=None, policy="best_fit", next_best=None), ["a"],
            "As spot, on what nobody else wanted, on a: of 12 nodes that fit it was chosen by best_fit.",
            id="spot, by a policy that does not reckon",
        ),
        pytest.param(
            why(nodes_fitting=2, leaves=2, leaves_fewest=1), ["a", "b"],
            "In its turn on a, b: no others fit."
            " It is spread over 2 leaves of the network; 1 is the fewest there can be.",
            id="over leaves",
        ),
    ],
)  # fmt: skip
def test_why_it_started_there_is_kept_as_it_was_and_said(given: Why, on: list[str], said: str) -> None:
    record = json.loads(json.dumps(why_record(given, on), sort_keys=True))
    assert why_of(record) == given
    assert why_named(record, on, NAMES, sees_fleet=True)["sentence"] == said


def test_who_may_not_see_the_fleet_learns_of_no_node_but_its_own() -> None:
    record = why_named(why_record(why(), ["nod_7"]), ["node-7"], NAMES, sees_fleet=False)
    assert record["next_best"] is None
    assert record["sentence"].endswith("unused: 1.2 accelerators less than on the next best.")
