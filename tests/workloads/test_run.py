"""A run's life: the table in code is the table in the database, and every state leads to an end."""

import pytest

from baseai.truth.session import Truth, fetch_all
from baseai.workloads.run import ENDED, TRANSITIONS, RunEvent, RunState, moved


@pytest.mark.parametrize(
    ("state", "event", "target"),
    [
        ("queued", "grant", "starting"), ("queued", "cancel", "cancelled"), ("starting", "begin", "running"),
        ("starting", "requeue", "queued"), ("running", "recover", "recovering"), ("recovering", "begin", "running"),
        ("recovering", "requeue", "queued"), ("running", "preempt", "preempted"), ("preempted", "requeue", "queued"),
        ("running", "stop", "stopping"), ("stopping", "succeed", "succeeded"), ("stopping", "fail", "failed"),
        ("stopping", "cancel", "cancelled"),
    ],
)  # fmt: skip
def test_moved(state: str, event: str, target: str) -> None:
    assert moved(RunState(state), RunEvent(event)) == target


@pytest.mark.parametrize(
    ("state", "event"),
    [
        pytest.param("queued", "begin", id="nothing begins without a lease"),
        pytest.param("running", "grant", id="what runs is not granted again"),
        pytest.param("running", "succeed", id="its processes go first"),
        pytest.param("running", "requeue", id="it is lost or preempted first"),
        pytest.param("cancelled", "grant", id="what was cancelled stays so"),
    ],
)
def test_a_late_event_leads_nowhere(state: str, event: str) -> None:
    assert moved(RunState(state), RunEvent(event)) is None


def test_an_end_is_an_end_and_every_other_state_reaches_one() -> None:
    for state in RunState:
        onward = {after for (before, _), after in TRANSITIONS.items() if before is state}
        assert (onward == set()) is (state in ENDED), state
    edge = set(ENDED)
    while True:
        before = {state for (state, _), after in TRANSITIONS.items() if after in edge} - edge
        if not before:
            break
        edge |= before
    assert edge == set(RunState)


@pytest.mark.anyio
async def test_the_database_holds_the_same_moves(truth: Truth) -> None:
    async with truth.transaction() as session:
        rows = await fetch_all(session, "SELECT from_state, to_state FROM moves WHERE noun = 'run'")
    assert {(row["from_state"], row["to_state"]) for row in rows} == {
        (before.value, after.value) for (before, _), after in TRANSITIONS.items()
    }
