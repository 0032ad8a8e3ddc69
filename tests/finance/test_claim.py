"""What leases, states and held capacity claim of an accelerator's time."""

from datetime import timedelta

import pytest

from baseai.finance.bucket import Bucket, Claim, Interval, spans_of
from baseai.finance.claim import (
    ACCELERATOR_CLAIMS,
    NODE_CLAIMS,
    SOLD_AS,
    LeaseFacts,
    Move,
    Setback,
    Terms,
    accelerator_claims,
    lease_claims,
    node_claims,
)
from baseai.fleet.node import NodeState
from baseai.truth.migrations.versions.v0001_first import MOVES
from baseai.workloads.reason import VERDICTS, Reason
from tests.finance.leased import HOUR_US, TEN, after

B = Bucket
STOOD = Interval(from_at=TEN - timedelta(days=30))


def told(*claims: Claim, hours: float = 4) -> list[tuple[Bucket, float]]:
    """(bucket, hours) in order, from ten o'clock on."""
    spans = spans_of(1, STOOD, claims, window=(TEN, after(hours)))
    return [(span.bucket, span.micro_seconds / HOUR_US) for span in spans]


def lease(
    *,
    terms: Terms = Terms.ON_DEMAND,
    seen: tuple[float, float] | None = (0.5, 3),
    until: float | None = 3.5,
    ended: Reason | None = None,
    saved: tuple[float, ...] = (),
    setbacks: tuple[Setback, ...] = (),
    research: tuple[Interval, ...] = (),
) -> LeaseFacts:
    """Granted at ten o'clock; hours after that."""
    return LeaseFacts(
        terms=terms,
        tenant_id="acme",
        project_id="main",
        granted_at=TEN,
        until_at=None if until is None else after(until),
        observed_from=None if seen is None else after(seen[0]),
        observed_until=None if seen is None else after(seen[1]),
        verdict=None if ended is None else VERDICTS[ended],
        saved_at=tuple(after(hours) for hours in saved),
        setbacks=setbacks,
        research=research,
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(
            lease(),
            [(B.START_UP, 0.5), (B.ON_DEMAND, 2.5), (B.START_UP, 0.5), (B.IDLE, 0.5)],
            id="sold while processes are seen, start-up before and behind",
        ),
        pytest.param(lease(seen=None, until=None), [(B.START_UP, 4)], id="nothing seen yet"),
        pytest.param(
            lease(terms=Terms.HOUSE), [(B.BURN_IN, 3.5), (B.IDLE, 0.5)], id="a test of our own is a burn-in"
        ),
        pytest.param(
            lease(ended=Reason.NODE_LOST, saved=(2,)),
            [(B.LOST, 3.5), (B.IDLE, 0.5)],
            id="a lost node is not billed, so all of the lease is lost",
        ),
        pytest.param(
            lease(ended=Reason.START_FAILED, seen=None), [(B.LOST, 3.5), (B.IDLE, 0.5)], id="it never started"
        ),
        pytest.param(
            lease(ended=Reason.PROCESS_LOST, saved=(1, 2)),
            [(B.START_UP, 0.5), (B.ON_DEMAND, 1.5), (B.LOST, 1), (B.START_UP, 0.5), (B.IDLE, 0.5)],
            id="what was done after the last checkpoint is done again",
        ),
        pytest.param(
            lease(ended=Reason.PROCESS_LOST),
            [(B.START_UP, 0.5), (B.LOST, 2.5), (B.START_UP, 0.5), (B.IDLE, 0.5)],
            id="without a checkpoint all of it",
        ),
        pytest.param(
            lease(ended=Reason.COMMAND_FAILED, saved=(1,)),
            [(B.START_UP, 0.5), (B.ON_DEMAND, 2.5), (B.START_UP, 0.5), (B.IDLE, 0.5)],
            id="a tenant's own error is no loss of ours",
        ),
        pytest.param(
            lease(terms=Terms.SPOT, ended=Reason.PREEMPTED),
            [(B.START_UP, 0.5), (B.SPOT, 2.5), (B.START_UP, 0.5), (B.IDLE, 0.5)],
            id="giving way is what spot is sold for",
        ),
        pytest.param(
            lease(
                seen=(0, 4),
                until=None,
                saved=(1, 2.5),
                setbacks=(Setback(at=after(1.5), resumed_at=after(1.75)),),
            ),
            [(B.ON_DEMAND, 1), (B.LOST, 0.75), (B.ON_DEMAND, 2.25)],
            id="workers were lost, and worked again",
        ),
        pytest.param(
            lease(seen=(0, 4), until=None, research=(Interval(from_at=after(1), until_at=after(2)),)),
            [(B.ON_DEMAND, 1), (B.RESEARCH, 1), (B.ON_DEMAND, 2)],
            id="on the research tariff while it holds",
        ),
        pytest.param(
            lease(seen=(-1, 9), until=2), [(B.ON_DEMAND, 2), (B.IDLE, 2)], id="nothing outside the lease"
        ),
    ],
)
def test_leases(facts: LeaseFacts, expected: list[tuple[Bucket, float]]) -> None:
    assert told(*lease_claims(facts)) == expected


def test_everything_a_tenant_pays_for_is_sold_as_something() -> None:
    assert set(SOLD_AS) == set(Terms) - {Terms.HOUSE}


def move(hours: float, before: str, behind: str, *, by_fault: bool = False) -> Move:
    return Move(at=after(hours), from_state=before, to_state=behind, by_fault=by_fault)


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        pytest.param([], [(B.IDLE, 4)], id="ready all the time"),
        pytest.param(
            [move(1, "onboarding", "burn_in"), move(2, "burn_in", "ready")],
            [(B.NOT_LIVE, 1), (B.BURN_IN, 1), (B.IDLE, 2)],
            id="joining",
        ),
        pytest.param(
            [move(1, "ready", "cordoned"), move(2, "cordoned", "ready")],
            [(B.IDLE, 1), (B.MAINTENANCE, 1), (B.IDLE, 2)],
            id="a person takes it out and puts it back",
        ),
        pytest.param(
            [
                move(1, "ready", "draining", by_fault=True),
                move(2, "draining", "repairing"),
                move(3, "repairing", "verifying"),
                move(3.5, "verifying", "ready", by_fault=True),
            ],
            [(B.IDLE, 1), (B.FAILED, 2), (B.BURN_IN, 0.5), (B.IDLE, 0.5)],
            id="what a fault began stays failed, whoever works on it",
        ),
        pytest.param(
            [move(1, "ready", "draining"), move(2, "draining", "repairing", by_fault=True)],
            [(B.IDLE, 1), (B.MAINTENANCE, 3)],
            id="what a person began stays maintenance, whatever the platform does next",
        ),
        pytest.param(
            [move(1, "verifying", "repairing", by_fault=True), move(3, "repairing", "rma")],
            [(B.BURN_IN, 1), (B.FAILED, 2), (B.RMA, 1)],
            id="a failed test, and back to its maker",
        ),
    ],
)
def test_nodes(moves: list[Move], expected: list[tuple[Bucket, float]]) -> None:
    assert told(*node_claims(moves, now_in="ready", since=TEN)) == expected


def test_accelerators() -> None:
    moves = [move(1, "in_service", "failed"), move(2, "failed", "rma")]
    assert told(*accelerator_claims(moves, now_in="rma", since=TEN)) == [
        (B.IDLE, 1),
        (B.FAILED, 1),
        (B.RMA, 2),
    ]


def test_every_state_is_known() -> None:
    assert set(NODE_CLAIMS) == set(NodeState)
    assert set(ACCELERATOR_CLAIMS) == {state for pair in MOVES["accelerator"] for state in pair}
