"""Who waits, and why, as people and scripts read it."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from baseai.api.schemas import (
    AccuracyView,
    BehindView,
    ChangeView,
    OwnerAheadView,
    QueueView,
    RoomView,
    RunView,
    StartEstimateView,
    WaitView,
    WhyView,
)
from baseai.cli.waiting import explain_lines, queue_lines, starts_text
from tests.cli.conftest import Baseai
from tests.cli.loopback import Loopback, run_of

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BRASILIA = timezone(timedelta(hours=-3), "-03")
ESTIMATE = StartEstimateView(
    asked_at=NOON, earliest_at=NOON + timedelta(hours=2, minutes=10), likely_at=NOON + timedelta(hours=3, minutes=5),
    latest_at=NOON + timedelta(hours=4, minutes=40), held_ratio=0.79, outcomes=412, sentence="Probably.",
)  # fmt: skip
WAIT = WaitView(
    position=3, ahead=2, sentence="Waiting, number 3 in the queue.", code="held", failing={"accelerators": 2},
    behind=BehindView(kind="run", name="run_head"), fitting=0, needed=2,
    change=ChangeView(lever="nodes", asked=2, instead=1, sentence="1 node instead of 2"), estimate=ESTIMATE,
    owners_ahead=[OwnerAheadView(tenant_id="ten_z", tenant="zeta", runs=2)],
    latest_at=NOON + timedelta(days=1),
)  # fmt: skip


def waiting(wait: WaitView = WAIT) -> RunView:
    return run_of("big", run_id="run_1", state="queued", submitted_at=NOON - timedelta(minutes=5), wait=wait)


def test_an_operator_is_told_all_that_is_known_of_a_wait() -> None:
    assert explain_lines(waiting(), NOON, BRASILIA) == [
        "big (run_1): queued",
        "waits            Waiting, number 3 in the queue.",
        "position         3, 2 ahead",
        "ahead of it      2 of zeta",
        "held up by       run run_head",
        "nodes that fit   0 of 2 needed",
        "nodes ruled out  2 by accelerators",
        "would start now  with 1 node instead of 2",
        "starts between   11:10 to 13:40 -03, most likely 12:05",
        "which held       79% of 412 intervals held",
        "at the latest    03-02 09:00, if no node is lost",
    ]


def test_a_tenant_is_told_how_many_of_its_own_are_ahead() -> None:
    own = WAIT.model_copy(
        update={
            "owners_ahead": [],
            "own_ahead": 0,
            "others_ahead": 2,
            "behind": BehindView(kind="reservation"),
        }
    )
    lines = explain_lines(waiting(own), NOON, UTC)
    assert "ahead of it      0 own, 2 of others" in lines
    assert "held up by       reservation of another tenant" in lines


def test_why_a_run_is_where_it_is() -> None:
    why = WhyView(
        kind="in_turn", policy="lookahead", sentence="In its turn on n1: …", fitting=12, strands_milli=200,
        next_best="n3", next_best_strands_milli=1400, leaves=2, leaves_fewest=1,
    )  # fmt: skip
    assert explain_lines(run_of("big", run_id="run_1", why=why), NOON)[1:] == [
        "placed          In its turn on n1: …",
        "nodes that fit  12",
        "next best       n3",
        "leaves          2, at least 1",
        "by policy       lookahead",
    ]


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        pytest.param(0, "no. 3, 14:10 to 16:40", id="today"),
        pytest.param(20, "no. 3, 03-02 10:10 to 12:40", id="another day"),
        pytest.param(9, "no. 3, 23:10 to 03-02 01:40", id="over midnight"),
    ],
)
def test_place_and_interval_in_one_cell(hours: int, text: str) -> None:
    moved = ESTIMATE.model_copy(
        update={
            name: getattr(ESTIMATE, name) + timedelta(hours=hours) for name in ("earliest_at", "latest_at")
        }
    )
    run = waiting(WAIT.model_copy(update={"estimate": moved}))
    assert starts_text(run, NOON, UTC) == text


def test_the_queue_with_what_is_free_and_how_good_the_intervals_are() -> None:
    accuracy = AccuracyView(
        models=["H100-SXM"], outcomes=412, held_ratio=0.79, median_error_s=750.0, from_at=NOON
    )
    view = QueueView(
        items=[waiting()],
        waiting=7,
        accuracy=[accuracy],
        models=[RoomView(model="H100-SXM", total=16, free=3)],
    )
    assert queue_lines(view, NOON, zone=UTC) == [
        "NO.  NAME  PROJECT       GPU           FOR  STARTS UTC      WHY",
        "  3  big   acme/default  cpu-slot:2  5m00s  14:10 to 16:40  Waiting, number 3 in the queue.",
        "",
        "7 wait",
        "free: 3 of 16 H100-SXM",
        "estimates for H100-SXM: 79% of 412 intervals held; median error 12 min 30 s",
    ]


def test_waiting_is_paged_and_explain_gives_the_record(platform: Loopback, baseai: Baseai) -> None:
    for name in ("one", "two"):
        platform.state.add(run_of(name, state="queued", wait=WAIT))
    done = baseai("waiting", "--limit", "1")
    assert (done.status, done.err) == (0, "there is more: --cursor 1\n")
    assert [row["name"] for row in json.loads(baseai("waiting", "--json").out)["items"]] == ["one", "two"]
    record = json.loads(baseai("explain", "two", "--json").out)
    assert WaitView(**record["wait"]) == WAIT
    assert baseai("explain", "two").out.startswith("two (")
    assert "no. 3, " in baseai("ps").out


def test_nothing_waits(baseai: Baseai) -> None:
    assert baseai("waiting").out.splitlines() == [
        "nothing waits",
        "free: 3 of 16 H100-SXM",
        "estimates for H100-SXM: 79% of 412 intervals held; median error 12 min 30 s",
    ]
