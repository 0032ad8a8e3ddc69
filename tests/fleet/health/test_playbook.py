"""What is done next about a node: step by step, within limits, and never round in circles."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.fleet.health.playbook import Begin, Case, Crowd, Drop, GiveUp, Hold, Move, Steer, Tell, course
from baseai.fleet.health.repair import OPEN, Repair, RepairState, Step, instructions, remedy_of
from baseai.fleet.health.rule import Action, Limits
from baseai.fleet.node import NodeEvent, NodeState, moved
from tests.fleet.health.ward import case, crowd, finding, later, repair

LIMITS = Limits()
ABLE = frozenset({Step.RESET, Step.REBOOT, Step.FABRIC})


def said(*cases: Case, of: Crowd | None = None, at_s: float = 60.0) -> list[str]:
    """The moves in short."""
    return [short(move) for move in course(cases, of or crowd(), limits=LIMITS, now=later(at_s))]


def short(move: Move) -> str:
    match move:
        case Steer(event=event):
            return event.value
        case Begin(remedy=remedy):
            asked = "?" if remedy.needs_approval else ""
            return f"{'agent' if remedy.by_agent else 'person'} {remedy.step.value}{asked}"
        case Hold(why=why):
            return f"held: {why}"
        case Tell() | GiveUp() | Drop():
            return type(move).__name__.lower()


UE, GONE, CONTAINED = finding("xid.95"), finding("xid.79"), (finding("xid.48"), finding("xid.63", 1))


@pytest.mark.parametrize(
    ("state", "found", "differing", "expected"),
    [
        pytest.param("ready", (), {}, [], id="well"),
        pytest.param("ready", (finding("xid.13", tenant="a"),), {}, [], id="the run's own error"),
        pytest.param(
            "ready",
            (finding("bmc.psu", serial=None),),
            {},
            ["person inspect"],
            id="a ticket, and it works on",
        ),
        pytest.param("ready", (finding("xid.74"),), {}, ["cordon"], id="suspect: no new leases"),
        pytest.param("ready", (UE,), {}, ["drain", "person reset"], id="faulty: drained"),
        pytest.param(
            "ready", (UE,), {"able": ABLE}, ["drain", "agent reset"], id="faulty, and its agent may reset"
        ),
        pytest.param("ready", (GONE,), {"able": ABLE}, ["drain", "agent reboot"], id="off the bus"),
        pytest.param(
            "ready", (finding("xid.64"),), {"able": ABLE}, ["drain", "person rma"], id="back to its maker"
        ),
        pytest.param(
            "ready", CONTAINED, {"leases": 1}, ["cordon", "person reset"], id="contained: what runs goes on"
        ),
        pytest.param("cordoned", (), {}, ["uncordon"], id="well again"),
        pytest.param("cordoned", (), {"ours": False}, [], id="an operator's cordon stays"),
        pytest.param("cordoned", CONTAINED, {"leases": 1}, ["person reset"], id="contained, still busy"),
        pytest.param(
            "cordoned", CONTAINED, {"leases": 0}, ["drain", "person reset"], id="contained, and empty now"
        ),
        pytest.param("cordoned", (UE,), {"ours": False}, ["drain", "person reset"], id="it got worse"),
        pytest.param(
            "draining",
            (UE,),
            {"leases": 2, "repairs": (repair("reset", "approved", ended_s=None),)},
            [],
            id="waits for its leases",
        ),
        pytest.param(
            "draining",
            (UE,),
            {"repairs": (repair("reset", "approved", ended_s=None),)},
            ["repair"],
            id="empty",
        ),
        pytest.param("draining", (), {"ours": False}, [], id="an operator's drain stays"),
        pytest.param(
            "draining",
            (),
            {"repairs": (repair("reset", "approved", ended_s=None),)},
            ["drop", "cordon"],
            id="cleared while it drained",
        ),
        pytest.param(
            "repairing",
            (UE,),
            {"repairs": (repair("reset", "approved", ended_s=None),)},
            ["tell"],
            id="the agent is told once it is empty",
        ),
        pytest.param(
            "repairing",
            (UE,),
            {"repairs": (repair("reset", "proposed", ended_s=None),)},
            [],
            id="waits for a word",
        ),
        pytest.param(
            "repairing",
            (UE,),
            {"repairs": (repair("reset", "approved", ended_s=None, by_agent=False),)},
            [],
            id="waits for hands",
        ),
        pytest.param("repairing", (), {"history": (repair("reset"),)}, ["verify"], id="repaired"),
        pytest.param(
            "repairing",
            (),
            {"history": (repair("reset", ended_s=-5),)},
            [],
            id="an older repair says nothing",
        ),
        pytest.param(
            "repairing",
            (UE,),
            {"history": (repair("reset", "failed"),)},
            ["person reboot"],
            id="the next step",
        ),
        pytest.param("verifying", (), {}, [], id="its tests decide"),
        pytest.param("verifying", (UE,), {}, ["repair", "person reset"], id="ill again"),
        pytest.param("verifying", (UE,), {"returns": 2}, ["quarantine"], id="ill again and again"),
        pytest.param("burn_in", (UE,), {}, ["repair", "person reset"], id="ill from the start"),
        pytest.param("quarantined", (UE,), {}, [], id="people decide"),
        pytest.param("retired", (UE,), {}, [], id="gone"),
    ],
)
def test_the_next_move(
    state: str, found: tuple[Any, ...], differing: dict[str, Any], expected: list[str]
) -> None:
    assert said(case(state, *found, **differing)) == expected


def test_an_agent_that_says_nothing_is_given_up() -> None:
    told = repair("reset", "ordered", ended_s=None, ordered_at=later(0))
    assert said(case("repairing", UE, repairs=(told,)), at_s=600) == []
    assert said(case("repairing", UE, repairs=(told,)), at_s=901) == ["giveup"]


@pytest.mark.parametrize(
    ("history", "step"),
    [
        ((), "agent reset"),
        ((repair("reset"),), "agent reboot"),
        ((repair("reset"), repair("reboot", serials=())), "agent reboot"),
        ((repair("reset"), repair("reboot", opened_s=1), repair("reboot", opened_s=2)), "person rma"),
        ((repair("reset", serials=("gpu-7",)),), "agent reset"),
        ((repair("reset", ended_s=-40 * 86_400.0),), "agent reset"),
        ((repair("reset", "dismissed"),), "agent reset"),
    ],
)
def test_the_ladder(history: tuple[Repair, ...], step: str) -> None:
    """A reset that did not hold is followed by a reboot, two reboots by a return; another device climbs its own."""
    assert said(case("ready", UE, history=history, able=ABLE)) == ["drain", step]


def test_the_third_reboot_within_a_week_wants_a_persons_word() -> None:
    others = tuple(repair("reboot", serials=(f"gpu-{n}",), opened_s=n) for n in (5, 6))
    assert said(case("ready", GONE, history=others, able=ABLE)) == ["drain", "agent reboot?"]
    old = tuple(replace(each, ended_at=later(-8 * 86_400)) for each in others)
    assert said(case("ready", GONE, history=old, able=ABLE)) == ["drain", "agent reboot"]


def test_of_a_tenants_nodes_two_in_a_hundred_are_drained_at_once() -> None:
    ill = [case("ready", UE, node_id=f"nod_{n}", tenants=frozenset({"acme"}), leases=1) for n in range(4)]
    moves = said(*ill)
    assert moves.count("drain") == 2
    assert moves.count("cordon") == 2, "no new leases meanwhile"
    assert [move for move in moves if move.startswith("held")] == [
        "held: 2 nodes of one tenant are draining already, 2 at once"
    ] * 2
    assert said(ill[0], of=crowd(tenant_nodes={"acme": 3})) == ["drain", "person reset"], "one always may"
    assert "held" in said(ill[0], of=crowd(tenant_taken={"acme": 2}))[-1]


def test_of_a_sites_nodes_a_tenth_is_held_back_at_once() -> None:
    ill = [case("ready", finding("xid.74"), node_id=f"nod_{n:03d}") for n in range(30)]
    moves = said(*ill)
    assert moves.count("cordon") == 10
    assert moves[-1] == "held: 10 nodes of site local are held back already, 10 at once: look what they share"


def test_the_gravest_comes_first_and_equal_ones_by_id() -> None:
    cases = [case("ready", finding("xid.74"), node_id="nod_a"), case("ready", UE, node_id="nod_c"),
             case("ready", UE, node_id="nod_b")]  # fmt: skip
    moves = course(cases, crowd(site_nodes={"local": 10}), limits=LIMITS, now=later(60))
    assert [move.node_id for move in moves] == ["nod_b", "nod_b", "nod_c", "nod_a"]
    assert [type(move) for move in moves] == [Steer, Begin, Hold, Hold]


def test_the_power_of_a_chassis_that_others_share_is_cut_at_a_persons_word() -> None:
    [sign] = case("ready", GONE).verdict.signs
    for shared in (True, False):
        remedy = remedy_of(
            [replace(sign, action=Action.POWER_CYCLE)],
            (),
            limits=LIMITS,
            able=ABLE,
            shared_chassis=shared,
            now=later(60),
        )
        assert remedy is not None
        assert remedy.needs_approval is shared


@pytest.mark.parametrize("step", list(Step))
def test_every_step_says_what_exactly_to_do(step: Step) -> None:
    text = instructions(step, node="gpu-07", devices=["device 3 (serial 1654)"], says="it smells")
    assert "gpu-07" in text
    assert text.endswith("the node is tested before it takes leases again.")


@given(
    st.lists(st.sampled_from(["xid.95", "xid.79", "xid.119"]), min_size=1, max_size=30),
    st.integers(600, 86_400),
)
def test_a_node_that_falls_ill_again_and_again_is_not_rebooted_round_in_circles(
    codes: list[str], every_s: int
) -> None:
    """However often it comes back: at most two reboots by itself within 7 days, and it ends with its maker."""
    history: tuple[Repair, ...] = ()
    at_s = 0.0
    for number, code in enumerate(codes):
        at_s += every_s
        state, repairs = NodeState.READY, ()
        for _ in range(12):  # as many ticks as it may take
            ill = case(
                state, finding(code, at_s), at_s=at_s + 60, history=history, able=ABLE, repairs=repairs
            )
            for move in course([ill], crowd(), limits=LIMITS, now=later(at_s + 60)):
                if isinstance(move, Steer):
                    after = moved(state, move.event)
                    assert after is not None
                    state = after
                elif isinstance(move, Begin):
                    began = RepairState.PROPOSED if move.remedy.needs_approval else RepairState.APPROVED
                    repairs = (
                        repair(move.remedy.step, began, opened_s=at_s, ended_s=None, by_agent=move.remedy.by_agent,
                               serials=move.remedy.serials, repair_id=f"rep_{number}"),
                    )  # fmt: skip
                elif isinstance(move, Tell):
                    done = replace(repairs[0], state=RepairState.DONE, ended_at=later(at_s + 120))
                    history, repairs = (*history, done), ()
                    break
            if not repairs or repairs[0].state not in OPEN or repairs[0].step is Step.RMA:
                break
        if repairs:
            assert repairs[0].step is Step.RMA or repairs[0].state is RepairState.PROPOSED
            return
    reboots = sorted(each.ended_at for each in history if each.step is Step.REBOOT and each.ended_at)
    for first, third in zip(reboots, reboots[2:], strict=False):
        assert third - first > timedelta(days=7)


@given(
    st.sampled_from(["ready", "cordoned", "draining", "repairing", "verifying", "burn_in"]),
    st.lists(
        st.sampled_from([UE, GONE, *CONTAINED, finding("xid.74"), finding("bmc.psu", serial=None)]),
        max_size=4,
    ),
    st.booleans(),
    st.integers(0, 3),
)
def test_every_move_of_a_node_is_in_its_table(state: str, found: list[Any], ours: bool, leases: int) -> None:
    for move in course(
        [case(state, *found, ours=ours, leases=leases)], crowd(), limits=LIMITS, now=later(60)
    ):
        if isinstance(move, Steer):
            assert moved(NodeState(state), move.event) is not None
            assert move.sentence
            assert move.event in NodeEvent
