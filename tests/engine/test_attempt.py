"""What becomes of an attempt, by what was observed of its leases."""

import pytest

from baseai.engine.attempt import Judgement, Part, Retry, judge
from baseai.workloads.reason import Reason
from baseai.workloads.run import RunEvent, RunState, moved

RETRY = Retry(errors_max=1, interruptions_max=3)


def part(
    rank: int = 0,
    *,
    started: bool = True,
    ended: Reason | None = None,
    released: bool = False,
    said: str | None = None,
) -> Part:
    return Part(node_rank=rank, started=started, exit_reason=ended, exit_sentence=said, released=released)


def judged(
    state: RunState,
    *parts: Part,
    stop: Reason | None = None,
    halted: bool = False,
    drained: bool = False,
    errors: int = 0,
    interruptions: int = 0,
) -> Judgement:
    return judge(
        state, parts, stop=stop, halted=halted, drained=drained, retry=RETRY, errors=errors,
        interruptions=interruptions,
    )  # fmt: skip


def test_a_gang_has_begun_only_when_every_node_has() -> None:
    assert judged(RunState.STARTING, part(0), part(1, started=False)).idle
    assert judged(RunState.STARTING, part(0), part(1)).moves == (RunEvent.BEGIN,)


def test_one_lost_node_halts_the_others_and_the_run_recovers() -> None:
    found = judged(RunState.RUNNING, part(0), part(1, ended=Reason.PROCESS_LOST))
    assert found.moves == (RunEvent.RECOVER,)
    assert found.halt is Reason.PEER_FAILED
    assert not found.over


def test_an_attempt_is_not_over_before_its_last_lease_is_released() -> None:
    parts = (part(0, ended=Reason.PROCESS_LOST, released=True), part(1, ended=Reason.PEER_FAILED))
    assert judged(RunState.RECOVERING, *parts, halted=True).idle


@pytest.mark.parametrize(
    ("state", "ended", "stop", "errors", "expected"),
    [
        pytest.param("running", "finished", None, 0, ("stop", "succeed"), id="done"),
        pytest.param(
            "starting", "finished", None, 0, ("begin", "stop", "succeed"), id="done before anybody looked"
        ),
        pytest.param("running", "process_lost", None, 0, ("recover", "requeue"), id="lost: again"),
        pytest.param(
            "running",
            "command_failed",
            None,
            0,
            ("recover", "requeue"),
            id="an error within the budget: again",
        ),
        pytest.param(
            "running", "command_failed", None, 1, ("recover", "fail"), id="an error beyond the budget"
        ),
        pytest.param(
            "running", "out_of_memory", None, 0, ("recover", "fail"), id="memory is never tried again"
        ),
        pytest.param("running", "stopped_by_user", "stopped_by_user", 0, ("stop", "cancel"), id="stopped"),
        pytest.param(
            "stopping", "finished", "stopped_by_user", 0, ("succeed",), id="it finished before the stop came"
        ),
        pytest.param("running", "lease_ended", None, 0, ("recover", "fail"), id="the lease is over"),
    ],
)
def test_the_end_of_an_attempt(
    state: str, ended: str, stop: str | None, errors: int, expected: tuple[str, ...]
) -> None:
    found = judged(
        RunState(state),
        part(ended=Reason(ended), released=True),
        stop=Reason(stop) if stop else None,
        errors=errors,
    )
    assert found.over
    assert tuple(event.value for event in found.moves) == expected
    now: RunState | None = RunState(state)
    for event in found.moves:
        assert now is not None
        now = moved(now, event)
    assert now is not None, "the moves must follow the table"


def test_the_reason_is_the_part_that_failed_by_itself() -> None:
    found = judged(
        RunState.RECOVERING,
        part(0, ended=Reason.PEER_FAILED, released=True),
        part(1, ended=Reason.OUT_OF_MEMORY, released=True, said="12 GiB used of 8 GiB"),
    )
    assert (found.reason, found.sentence) == (Reason.OUT_OF_MEMORY, "12 GiB used of 8 GiB")


def test_a_node_that_never_spoke_again_counts_as_an_interruption() -> None:
    found = judged(RunState.RUNNING, part(released=True))
    assert (found.reason, found.counts) == (Reason.NODE_LOST, "interruption")
    assert judged(RunState.RUNNING, part(released=True), interruptions=3).moves[-1] is RunEvent.FAIL


def test_what_was_carried_out_is_not_asked_again() -> None:
    lost = (part(0), part(1, ended=Reason.PROCESS_LOST))
    assert judged(RunState.RECOVERING, *lost, halted=True).idle


def test_what_runs_on_a_drained_node_is_asked_once_and_goes_on_elsewhere() -> None:
    found = judged(RunState.RUNNING, part(0), part(1), drained=True)
    assert (found.moves, found.halt, found.over) == ((), Reason.DRAINED, False)
    assert judged(RunState.RUNNING, part(0), part(1), halted=True, drained=True).idle
    gone = (part(0, ended=Reason.DRAINED, released=True), part(1, ended=Reason.DRAINED, released=True))
    found = judged(RunState.RUNNING, *gone, halted=True, drained=True)
    assert found.moves == (RunEvent.RECOVER, RunEvent.REQUEUE)
    assert (found.reason, found.counts) == (Reason.DRAINED, "interruption"), "no error of the tenant"


def test_a_run_that_finishes_while_its_node_is_drained_has_succeeded() -> None:
    found = judged(RunState.RUNNING, part(ended=Reason.FINISHED, released=True), halted=True, drained=True)
    assert found.moves == (RunEvent.STOP, RunEvent.SUCCEED)


def test_what_gave_way_is_queued_again_however_often_it_did() -> None:
    asked = judged(RunState.RUNNING, part(ended=Reason.PREEMPTED), halted=True)
    assert (asked.moves, asked.over) == ((RunEvent.PREEMPT,), False)
    gone = part(ended=Reason.PREEMPTED, released=True)
    for state in (RunState.PREEMPTED, RunState.STARTING, RunState.RECOVERING):
        found = judged(state, gone, halted=True, interruptions=99)
        assert (found.moves[-1], found.counts) == (RunEvent.REQUEUE, None)
        assert moved(state, RunEvent.REQUEUE) is RunState.QUEUED


def test_a_node_lost_while_its_run_gives_way_changes_nothing() -> None:
    found = judged(RunState.PREEMPTED, part(ended=Reason.NODE_LOST, released=True), interruptions=99)
    assert found.moves == (RunEvent.REQUEUE,)


def test_a_run_that_makes_room_and_is_unwanted_meanwhile_does_not_wait_again() -> None:
    gone = part(ended=Reason.PREEMPTED, released=True)
    found = judged(RunState.PREEMPTED, gone, stop=Reason.STOPPED_BY_USER)
    assert (found.moves, found.over) == ((RunEvent.REQUEUE, RunEvent.CANCEL), True)
    assert found.reason is Reason.STOPPED_BY_USER
