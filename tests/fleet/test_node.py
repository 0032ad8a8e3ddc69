"""A node's lifecycle: the table in code is the table in the database, and every state leads somewhere."""

import pytest

from baseai.fleet.lease import TRANSITIONS as LEASE_MOVES
from baseai.fleet.lease import LeaseState
from baseai.fleet.node import TRANSITIONS, NodeEvent, NodeState, moved
from baseai.truth.session import Truth, fetch_all


@pytest.mark.parametrize(
    ("state", "event", "target"),
    [
        ("onboarding", "admit", "ready"), ("ready", "cordon", "cordoned"), ("cordoned", "uncordon", "ready"),
        ("ready", "drain", "draining"), ("draining", "repair", "repairing"), ("repairing", "verify", "verifying"),
        ("verifying", "admit", "ready"), ("quarantined", "return", "rma"), ("rma", "retire", "retired"),
        ("cordoned", "cordon", None), ("retired", "admit", None), ("repairing", "uncordon", None),
    ],
)  # fmt: skip
def test_moved(state: str, event: str, target: str | None) -> None:
    assert moved(NodeState(state), NodeEvent(event)) == target


def test_every_state_but_the_last_leads_to_retirement() -> None:
    onward = {
        state: {after for (before, _), after in TRANSITIONS.items() if before is state} for state in NodeState
    }
    for state in set(NodeState) - {NodeState.RETIRED}:
        reached, edge = set(), {state}
        while edge:
            reached |= edge
            edge = {after for before in edge for after in onward[before]} - reached
        assert NodeState.RETIRED in reached, state
    assert onward[NodeState.RETIRED] == set()


@pytest.mark.anyio
async def test_the_database_holds_the_same_moves(truth: Truth) -> None:
    async with truth.transaction() as session:
        for noun, table in (("node", TRANSITIONS), ("lease", LEASE_MOVES)):
            rows = await fetch_all(session, "SELECT from_state, to_state FROM moves WHERE noun = %s", (noun,))
            assert {(row["from_state"], row["to_state"]) for row in rows} == {
                (before.value, after.value) for (before, _), after in table.items()
            }


def test_a_released_lease_is_over() -> None:
    assert all(before is not LeaseState.RELEASED for before, _ in LEASE_MOVES)
