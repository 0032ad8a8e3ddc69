"""What a node does next follows from what it shall run and what runs on it."""

from datetime import UTC, datetime

import pytest

from baseai.agent.reconcile import (
    Action,
    Ask,
    Decline,
    Extend,
    Kill,
    Phase,
    Process,
    Start,
    Tidy,
    Wanted,
    notice_of,
    reconcile,
)
from baseai.api.schemas import Launch, LeasedDevice
from baseai.ground.identity import LeaseId
from baseai.workloads.reason import Reason

NOW_S = 1000.0


def wanted(
    lease: str = "a",
    *,
    device: str = "acc_1",
    ends_s: float = 2000.0,
    stop: bool = False,
    reason: str | None = None,
) -> Wanted:
    launch = Launch(
        lease_id=lease,
        run_id="run",
        run_name="run",
        tenant_id="tenant",
        attempt_no=1,
        kind="task",
        devices=[LeasedDevice(accelerator_id=device, model="cpu-slot", index=0)],
        node_rank=0,
        nodes=1,
        addresses=["127.0.0.1"],
        rendezvous_port=1,
        checkpoint_folder="c",
        output_folder="o",
        ends_at=datetime(2026, 1, 1, tzinfo=UTC),
        ends_in_s=0.0,
        stop=stop,
        stop_reason=reason,
    )
    return Wanted(launch=launch, ends_s=ends_s)


def running(
    lease: str = "a",
    *,
    phase: Phase = Phase.ALIVE,
    device: str = "acc_1",
    ends_s: float = 2000.0,
    asked_s: float | None = None,
    killed_s: float | None = None,
    settled: bool = False,
) -> Process:
    return Process(
        lease_id=LeaseId(lease),
        attempt_no=1,
        phase=phase,
        devices=frozenset({device}),
        ends_s=ends_s,
        notice_s=10.0,
        stop_grace_s=20.0,
        asked_s=asked_s,
        killed_s=killed_s,
        settled=settled,
    )


def in_short(action: Action) -> str:
    match action:
        case Start(lease_id=lease):
            return f"start {lease}"
        case Decline(lease_id=lease, reason=reason):
            return f"decline {lease} {reason.value}"
        case Extend(lease_id=lease, ends_s=ends_s):
            return f"extend {lease} {ends_s:g}"
        case Ask(lease_id=lease, reason=reason):
            return f"ask {lease} {reason.value}"
        case Kill(lease_id=lease, reason=reason):
            return f"kill {lease} {reason.value}"
        case Tidy(lease_id=lease):
            return f"tidy {lease}"


ENDED = Phase.ENDED


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        pytest.param([], [], [], id="an empty node stays empty"),
        pytest.param([wanted()], [], ["start a"], id="what is missing starts"),
        pytest.param([wanted()], [running()], [], id="what runs goes on"),
        pytest.param([wanted()], [running(phase=Phase.PREPARING)], [], id="it is started once"),
        pytest.param([wanted()], [running(phase=ENDED)], [], id="an attempt is never started twice"),
        pytest.param(
            [wanted()], [running(phase=ENDED, settled=True)], [], id="nor while the server lists it still"
        ),
        pytest.param(None, [running()], [], id="before the server is heard everything is kept"),
        pytest.param(None, [running(ends_s=NOW_S)], ["kill a lease_ended"], id="but only to the lease's end"),
        pytest.param([], [running()], ["ask a grant_stale"], id="what is not listed shall not run"),
        pytest.param([wanted(stop=True)], [running()], ["ask a stopped_by_user"], id="a stop asks first"),
        pytest.param(
            [wanted(stop=True, reason="preempted")], [running()], ["ask a preempted"], id="with its reason"
        ),
        pytest.param(
            [wanted(stop=True, reason="of tomorrow")],
            [running()],
            ["ask a stopped_by_operator"],
            id="an unknown one",
        ),
        pytest.param(
            [wanted(stop=True)], [running(asked_s=NOW_S - 19)], [], id="within its grace it may end"
        ),
        pytest.param(
            [wanted(stop=True)],
            [running(asked_s=NOW_S - 20)],
            ["kill a stopped_by_user"],
            id="then it is killed",
        ),
        pytest.param(
            [wanted(stop=True)],
            [running(asked_s=NOW_S - 30, killed_s=NOW_S - 1)],
            [],
            id="and given time to die",
        ),
        pytest.param(
            [wanted(stop=True)],
            [running(asked_s=NOW_S - 30, killed_s=NOW_S - 3)],
            ["kill a stopped_by_user"],
            id="and killed again",
        ),
        pytest.param(
            [wanted(ends_s=NOW_S + 5)],
            [running(ends_s=NOW_S + 5)],
            ["ask a lease_ended"],
            id="shortly before its end it is asked",
        ),
        pytest.param(
            [wanted(ends_s=5000)], [running(ends_s=NOW_S - 1)], ["extend a 5000"], id="an extension saves it"
        ),
        pytest.param(
            [wanted(ends_s=NOW_S - 1)],
            [running()],
            ["extend a 999", "kill a lease_ended"],
            id="a lease can be cut short",
        ),
        pytest.param(
            [wanted(ends_s=NOW_S)], [], ["decline a lease_ended"], id="a lease that is over starts nothing"
        ),
        pytest.param([wanted(stop=True)], [], ["decline a stopped_by_user"], id="nor one that shall stop"),
        pytest.param(
            [], [running(phase=ENDED, settled=True)], ["tidy a"], id="what is known to be over is tidied"
        ),
        pytest.param([], [running(phase=ENDED)], [], id="not before its end and log are delivered"),
        pytest.param(
            [wanted("b")],
            [running("a")],
            ["ask a grant_stale"],
            id="a device is given on only when it is free",
        ),
        pytest.param(
            [wanted("b")], [running("a", phase=ENDED)], ["start b"], id="and an ended process holds none"
        ),
        pytest.param([wanted("a"), wanted("b")], [], ["start a"], id="one device, one start"),
        pytest.param(
            [wanted("b", device="acc_2"), wanted("a")],
            [],
            ["start a", "start b"],
            id="in the order of lease ids",
        ),
    ],
)
def test_reconcile(desired: list[Wanted] | None, observed: list[Process], expected: list[str]) -> None:
    wishes = None if desired is None else {LeaseId(each.launch.lease_id): each for each in desired}
    processes = {each.lease_id: each for each in observed}
    assert [in_short(action) for action in reconcile(wishes, processes, now_s=NOW_S)] == expected


def test_a_node_that_goes_down_starts_nothing_and_stops_all() -> None:
    desired = {LeaseId("a"): wanted("a"), LeaseId("b"): wanted("b", device="acc_2")}
    actions = reconcile(desired, {LeaseId("a"): running("a")}, now_s=NOW_S, shutdown=True)
    assert [in_short(action) for action in actions] == ["ask a node_shutdown"]


def test_a_released_lease_is_tidied_though_the_server_was_not_heard_of_it_otherwise() -> None:
    ended = {LeaseId("a"): running(phase=ENDED, settled=True)}
    assert reconcile(None, ended, now_s=NOW_S) == ()
    assert reconcile(None, ended, now_s=NOW_S, released=frozenset({"a"})) == (Tidy(lease_id=LeaseId("a")),)


def test_the_notice_takes_little_of_a_short_lease() -> None:
    assert notice_of(20.0, 86_400.0) == 20.0
    assert notice_of(20.0, 30.0) == 3.0


def test_the_first_reason_of_a_stop_stands_when_it_must_kill() -> None:
    (action,) = reconcile(
        {LeaseId("a"): wanted(stop=True, reason="preempted")},
        {LeaseId("a"): running(asked_s=NOW_S - 20)},
        now_s=NOW_S,
    )
    assert isinstance(action, Kill)
    assert action.reason == Reason.PREEMPTED
