"""The calendar on a real PostgreSQL: turns at booking, who sees what, and what time does to what is booked."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from baseai.catalog.catalog import load_catalog
from baseai.fleet.node import NodeEvent
from baseai.ground.clock import now_utc
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import RunId
from baseai.scheduling.decide import decide
from baseai.scheduling.gang import WHOLE
from baseai.scheduling.postgres import PostgresQueue
from baseai.truth.session import Scope, Truth
from baseai.workloads.demand import demand_of
from baseai.workloads.spec import spec_of
from tests.scheduling.land import HOUR, OPERATOR, SITE, Land, unchecked

pytestmark = pytest.mark.anyio
SPOT = "spot: true"


@pytest.fixture
async def land(truth: Truth, tmp_path: Path) -> Land:
    return Land(truth, tmp_path)


# ---- booking


async def test_those_who_ask_at_once_never_get_more_than_there_is(land: Land) -> None:
    project = await land.tenant("acme")
    for number in range(3):
        await land.join(f"n{number}", slots=2)
    asked = [land.reserve(project, f"r{number}", 1, 2) for number in range(8)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, dict) for one in found) == 3
    assert all("2 cpu-slot too few" in str(one) for one in found if isinstance(one, Refused))
    [promised] = await land.rows("SELECT sum(nodes * accelerators) AS slots FROM reservations")
    assert promised["slots"] == 6


async def test_a_window_and_a_reservation_asked_for_at_once_do_not_both_get_the_node(land: Land) -> None:
    project = await land.tenant("acme")
    await land.join("one")
    found = await asyncio.gather(land.reserve(project, "r"), land.plan("one"), return_exceptions=True)
    assert sum(isinstance(one, dict) for one in found) == 1


async def test_a_tenant_sees_and_names_its_own_alone(land: Land) -> None:
    acme, rival = await land.tenant("acme"), await land.tenant("rival")
    await land.join("one")
    await land.join("two")
    mine = await land.reserve(acme, "exam")
    await land.reserve(rival, "exam")
    with pytest.raises(Conflict, match="already"):
        await land.reserve(acme, "exam", in_h=100)
    scope = Scope(tenant_id=rival[0], actor="test")
    [seen], _ = await land.reservations.all(scope)
    assert (seen["tenant"], seen["name"], seen["in_use"]) == ("rival", "exam", 0)
    with pytest.raises(NotFound):
        await land.reservations.cancel(scope, mine["reservation_id"])
    first, cursor = await land.reservations.all(OPERATOR, limit=1)
    second, end = await land.reservations.all(OPERATOR, limit=1, cursor=cursor)
    assert ([one["tenant"] for one in (*first, *second)], end) == (["acme", "rival"], None)


async def test_a_name_is_free_again_once_its_reservation_is_over(land: Land) -> None:
    project = await land.tenant("acme")
    await land.join("one")
    first = await land.reserve(project, "exam")
    scope = Scope(tenant_id=project[0], actor="test")
    assert (await land.reservations.cancel(scope, "exam"))["state"] == "cancelled"
    with pytest.raises(Conflict, match="cancelled already"):
        await land.reservations.cancel(scope, "exam")
    second = await land.reserve(project, "exam")
    assert (await land.reservations.find(scope, "exam"))["reservation_id"] == second["reservation_id"]
    newest, cursor = await land.reservations.all(scope, everything=True, limit=1)
    oldest, _ = await land.reservations.all(scope, everything=True, cursor=cursor)
    assert [one["state"] for one in (*newest, *oldest)] == ["held", "cancelled"]
    assert await land.events(first["reservation_id"]) == ["reserve", "cancel"]


async def test_a_refusal_says_what_would_do(land: Land) -> None:
    project = await land.tenant("acme")
    await land.join("one", slots=4)
    await land.join("two", slots=4)
    await land.reserve(project, "first", 1, 4, in_h=48, for_h=2)
    with pytest.raises(Refused) as refused:
        await land.reserve(project, "second", 2, 4, in_h=49, for_h=2)
    said = str(refused.value)
    assert "4 cpu-slot too few can be promised at local" in said
    assert "ask for 1 node, or begin at" in said


@pytest.mark.parametrize(
    ("gpu", "site", "says"),
    [
        pytest.param("cpu-slot:9", SITE, "too few", id="more than a node has"),
        pytest.param(
            "H100:8", SITE, "no H100:8 is installed at local, which has cpu-slot", id="another model"
        ),
        pytest.param(
            "cpu-slot:1", "SP9", "nothing is installed at SP9; there are nodes at local", id="no such site"
        ),
        pytest.param("cpu-slot:1..2", SITE, "is a range", id="a range"),
        pytest.param("??", SITE, "is not understood", id="no accelerator at all"),
    ],
)
async def test_what_cannot_be_reserved_is_refused(land: Land, gpu: str, site: str, says: str) -> None:
    project = await land.tenant("acme")
    await land.join("one")
    at = now_utc() + HOUR
    with pytest.raises(Refused, match=says.replace("?", r"\?")):
        await land.reservations.reserve(
            OPERATOR,
            project,
            name="x",
            gpu=gpu,
            nodes=1,
            site=site,
            from_at=at,
            until_at=at + HOUR,
            take_or_pay=True,
        )


async def test_a_run_that_need_not_go_keeps_its_node_from_being_promised(land: Land) -> None:
    project = await land.tenant("acme")
    node = await land.join("one")
    await land.run(project, [node], lasts=24 * HOUR)
    with pytest.raises(Refused, match="too few"):
        await land.reserve(project, "soon", in_h=1)
    await land.reserve(project, "later", in_h=24.1)


@pytest.mark.parametrize(
    ("name", "spec", "says"),
    [
        pytest.param("exam", "", None, id="its own, and it fits"),
        pytest.param("exan", "", "did you mean exam", id="misspelt"),
        pytest.param("exam", "nodes: 3", "the run asks for 3 x 1", id="larger than it is"),
        pytest.param(
            "exam", "resources: {gpu: H100}", "is of cpu-slot, and the run asks for H100", id="another model"
        ),
        pytest.param("exam", "site: SP4", "is at local", id="another site"),
    ],
)
async def test_a_spec_names_a_reservation_that_it_fits(
    land: Land, name: str, spec: str, says: str | None
) -> None:
    project = await land.tenant("acme")
    await land.join("one")
    await land.join("two")
    await land.reserve(project, "exam", 2, 1)
    text = f"type: task\nname: job\ncommands: [sleep 1]\nreservation: {name}\n{spec}"
    read = spec_of(text, "job.yaml", unchecked)  # type: ignore[arg-type]
    demand = demand_of(read, RunId("r"), project[0], load_catalog().models_matching)
    if says is None:
        await land.reservations.check(project[0], name, demand)
    else:
        with pytest.raises(Refused, match=says):
            await land.reservations.check(project[0], name, demand)


# ---- time


async def test_a_hold_that_nobody_uses_is_forfeited_and_frees_all(land: Land) -> None:
    project = await land.tenant("acme")
    await land.join("one")
    made = await land.reserve(project, "exam", take_or_pay=False)
    assert [claim.name for claim in await land.claims()] == ["exam"]
    await land.pass_time(48 * HOUR + timedelta(minutes=1))
    await land.upkeep.step()
    assert (await land.reservations.find(OPERATOR, "exam"))["state"] == "active"
    await land.pass_time(timedelta(minutes=30))
    assert await land.claims() == ()  # before anybody wrote it down
    await land.upkeep.step()
    assert (await land.reservations.find(OPERATOR, "exam"))["state"] == "forfeited"
    assert await land.events(made["reservation_id"]) == ["reserve", "begin", "forfeit"]
    await land.reserve(project, "again", in_h=0)


async def test_a_hold_that_a_run_of_it_has_used_stands_to_its_end(land: Land) -> None:
    project = await land.tenant("acme")
    node = await land.join("one", slots=4)
    await land.join("two", slots=4)
    await land.reserve(project, "exam", 2, 4, take_or_pay=False)
    await land.pass_time(48 * HOUR + timedelta(minutes=1))
    run = await land.run(project, [node], slots=3, spec="reservation: exam")
    await land.upkeep.step()
    await land.upkeep.step()
    shapes = [
        (claim.pods_left, claim.shape.milli // WHOLE, claim.node_ids)
        for claim in await land.claims()
        if claim.shape
    ]
    assert shapes == [(1, 4, ()), (1, 1, (node,))]
    assert (await land.reservations.find(OPERATOR, "exam"))["in_use"] == 3
    await land.release(run)
    await land.pass_time(HOUR)
    await land.upkeep.step()
    assert (await land.reservations.find(OPERATOR, "exam"))["state"] == "active"
    await land.pass_time(HOUR)
    await land.upkeep.step()
    assert (await land.reservations.find(OPERATOR, "exam"))["state"] == "completed"


async def test_a_promise_that_a_failed_node_breaks_is_told_once(land: Land) -> None:
    project = await land.tenant("acme")
    await land.join("one")
    made = await land.reserve(project, "exam")
    await land.pass_time(48 * HOUR - timedelta(minutes=10))
    await land.upkeep.step()
    assert await land.events(made["reservation_id"]) == ["reserve"]
    await land.write("UPDATE accelerators SET state = 'failed'")
    await land.upkeep.step()
    await land.upkeep.step()
    assert await land.events(made["reservation_id"]) == ["reserve", "short"]


async def test_spot_makes_way_in_time_and_nobody_else(land: Land) -> None:
    acme, rival = await land.tenant("acme"), await land.tenant("rival")
    one, two, _ = [await land.join(name) for name in ("one", "two", "three")]
    firm, spot = await land.run(rival, [one]), await land.run(rival, [two], spec=SPOT)
    await land.reserve(acme, "exam", 2, 1, in_h=24.5)
    await land.write("UPDATE leases SET ends_at = ends_at + interval '1 day'")
    await land.pass_time(24.5 * HOUR - timedelta(minutes=5))
    assert (await land.upkeep.step()).asked == 0  # it needs half a minute, not five
    await land.pass_time(timedelta(minutes=4, seconds=40))
    assert (await land.upkeep.step()).asked == 1
    assert await land.stopping(spot)
    assert not await land.stopping(firm)
    assert (await land.upkeep.step()).asked == 0
    [event] = await land.rows("SELECT sentence FROM events WHERE subject_id = %s AND event = 'evict'", spot)
    assert "exam" not in event["sentence"]  # the other tenant's own word


async def test_what_is_not_used_is_resold_until_a_run_of_its_own_waits(land: Land) -> None:
    acme, rival = await land.tenant("acme"), await land.tenant("rival")
    one, two = await land.join("one"), await land.join("two")
    await land.reserve(acme, "exam", 2, 1)
    await land.pass_time(48.5 * HOUR)
    spots = [await land.run(rival, [node], spec=SPOT) for node in (one, two)]
    await land.upkeep.step()
    assert [await land.stopping(run) for run in spots] == [False, False]
    await land.queue(acme, "reservation: exam")
    assert (await land.upkeep.step()).asked == 1
    assert sorted([await land.stopping(run) for run in spots]) == [False, True]


# ---- maintenance


async def test_a_window_drains_takes_down_and_brings_back(land: Land) -> None:
    project = await land.tenant("acme")
    node, other = await land.join("one"), await land.join("two")
    run = await land.run(project, [node], lasts=100 * HOUR)
    made = await land.plan("one")
    window = made["maintenance_id"]
    assert await land.claims() == ()  # its notice has not come
    await land.pass_time(30 * HOUR)
    assert [claim.node_ids for claim in await land.claims()] == [(node,)]
    await land.upkeep.step()
    assert await land.node_state(node) == "ready"
    await land.pass_time(18 * HOUR - timedelta(seconds=20))
    await land.upkeep.step()
    assert await land.node_state(node) == "draining"
    await land.engine.settle()
    assert await land.stopping(run)
    await land.pass_time(timedelta(minutes=1))
    await land.upkeep.step()
    assert (await land.windows.find(window))["state"] == "in_progress"
    assert await land.node_state(node) == "draining"  # somebody is still on it
    await land.release(run)
    await land.upkeep.step()
    assert await land.node_state(node) == "repairing"
    await land.pass_time(2 * HOUR)
    await land.upkeep.step()
    await land.upkeep.step()
    assert await land.node_state(node) == "verifying"
    await land.upkeep.step()
    assert (await land.windows.find(window))["state"] == "verifying"
    await land.move(node, NodeEvent.ADMIT)
    await land.upkeep.step()
    assert (await land.windows.find(window))["state"] == "completed"
    assert await land.events(window) == ["plan", "begin", "verify", "complete"]
    assert await land.node_state(other) == "ready"
    before = await land.events(node)
    await land.upkeep.step()
    assert await land.events(node) == before


async def test_a_window_that_is_called_off_gives_back_what_it_drained(land: Land) -> None:
    node, closed = await land.join("one"), await land.join("two")
    await land.move(closed, NodeEvent.CORDON)
    project = await land.tenant("acme")
    await land.run(project, [node])
    await land.run(project, [closed])
    made = await land.plan("one", "two", in_h=10 / 3600)  # less than the runs need to leave
    await land.upkeep.step()
    assert [await land.node_state(each) for each in (node, closed)] == ["draining", "draining"]
    await land.windows.cancel(made["maintenance_id"], actor="test")
    await land.upkeep.step()
    await land.upkeep.step()
    assert [await land.node_state(each) for each in (node, closed)] == ["ready", "cordoned"]
    await land.move(node, NodeEvent.CORDON)
    await land.upkeep.step()
    assert await land.node_state(node) == "cordoned"  # an operator's word, later


async def test_a_whole_site_goes_down_with_what_joins_it_meanwhile(land: Land) -> None:
    one = await land.join("one")
    at = now_utc() + 25 * HOUR
    made = await land.windows.plan(
        nodes=(), site=SITE, from_at=at, until_at=at + HOUR, why="power", notice_s=3600, actor="test"
    )
    two = await land.join("two")
    await land.pass_time(25.1 * HOUR)
    await land.upkeep.step()
    await land.upkeep.step()
    assert [await land.node_state(node) for node in (one, two)] == ["repairing", "repairing"]
    shown = await land.windows.find(made["maintenance_id"])
    assert [(node["node"], node["state"]) for node in shown["nodes"]] == [
        ("one", "repairing"),
        ("two", "repairing"),
    ]
    with pytest.raises(Conflict, match="maintenance end"):
        await land.windows.cancel(made["maintenance_id"], actor="test")
    await land.windows.end(made["maintenance_id"], actor="test")
    await land.upkeep.step()
    await land.upkeep.step()
    assert [await land.node_state(node) for node in (one, two)] == ["verifying", "verifying"]


@pytest.mark.parametrize(
    ("nodes", "site", "in_h", "for_h", "why", "notice_s", "says"),
    [
        pytest.param(("on",), None, 1, 1, "x", None, "did you mean one", id="misspelt"),
        pytest.param((), None, 1, 1, "x", None, "one or the other", id="nothing"),
        pytest.param(("one",), SITE, 1, 1, "x", None, "one or the other", id="both"),
        pytest.param(
            (), "SP9", 1, 1, "x", None, "no nodes at SP9; there are some at local", id="no such site"
        ),
        pytest.param(("one",), None, -1, 3, "x", None, "choose a later start", id="in the past"),
        pytest.param(("one",), None, 1, -1, "x", None, "ends before it begins", id="the wrong way round"),
        pytest.param(("one",), None, 1, 1, "", None, "say why", id="no reason"),
        pytest.param(("one",), None, 1, 1, "x", 60, "10 min", id="no time to save"),
    ],
)
async def test_a_window_that_makes_no_sense_is_refused(
    land: Land, nodes: tuple[str, ...], site: str | None, in_h: float, for_h: float, why: str, notice_s: int | None,
    says: str,
) -> None:  # fmt: skip
    await land.join("one")
    at = now_utc() + in_h * HOUR
    with pytest.raises(Refused, match=says):
        await land.windows.plan(
            nodes=nodes,
            site=site,
            from_at=at,
            until_at=at + for_h * HOUR,
            why=why,
            notice_s=notice_s,
            actor="test",
        )


# ---- extension


async def test_a_lease_is_extended_with_all_that_knows_its_end(land: Land) -> None:
    project = await land.tenant("acme")
    nodes = [await land.join("one"), await land.join("two")]
    run = await land.run(project, nodes)
    before = await land.ends_at(run)
    version = await land.engine.desired_version(nodes[0])
    until = await land.extensions.extend(OPERATOR, run, 6 * 3600)
    assert until == before + 6 * HOUR == await land.ends_at(run)
    spans = await land.rows("SELECT upper(during) AS ends_at FROM lease_accelerators")
    assert [row["ends_at"] for row in spans] == [until, until]
    assert await land.engine.desired_version(nodes[0]) > version
    [order] = (await land.engine.orders(nodes[0])).orders
    assert order.ends_at == until
    assert "extend" in await land.events(run)


async def test_added_time_makes_way_and_the_first_time_does_not(land: Land) -> None:
    acme, rival = await land.tenant("acme"), await land.tenant("rival")
    node = await land.join("one")
    run = await land.run(acme, [node], lasts=2 * HOUR)
    await land.extensions.extend(OPERATOR, run, 6 * 3600)
    with pytest.raises(Refused, match="too few"):
        await land.reserve(rival, "early", in_h=1)
    await land.reserve(rival, "exam", in_h=3)
    await land.write(
        "UPDATE leases SET firm_until = firm_until - interval '3 hours', granted_at = granted_at - interval '3 hours'"
    )
    await land.pass_time(3 * HOUR - timedelta(seconds=20))
    assert (await land.upkeep.step()).asked == 1
    assert await land.stopping(run)
    with pytest.raises(Conflict, match="being stopped"):
        await land.extensions.extend(OPERATOR, run, 3600)


async def test_nobody_is_extended_into_what_is_booked(land: Land) -> None:
    acme, rival = await land.tenant("acme"), await land.tenant("rival")
    node, other = await land.join("one"), await land.join("two")
    run, free = await land.run(acme, [node]), await land.run(acme, [other])
    await land.plan("one", in_h=30)
    with pytest.raises(
        Refused, match=r"maintenance mnt_\w+ needs its place from .*; until then 6h more can be added"
    ):
        await land.extensions.extend(OPERATOR, run, 8 * 3600)
    await land.reserve(rival, "exam", in_h=28, for_h=1)
    await land.extensions.extend(OPERATOR, free, 3600)
    await land.reserve(rival, "more", in_h=28, for_h=1)
    with pytest.raises(Refused, match="the reservation more needs its place"):
        await land.extensions.extend(OPERATOR, free, 6 * 3600)
    with pytest.raises(Refused, match="what another tenant has reserved needs its place"):
        await land.extensions.extend(Scope(tenant_id=acme[0], actor="test"), free, 6 * 3600)


async def test_only_a_run_under_way_is_extended_and_only_ones_own(land: Land) -> None:
    acme, rival = await land.tenant("acme"), await land.tenant("rival")
    node = await land.join("one")
    waiting = await land.queue(acme)
    with pytest.raises(Conflict, match="is queued"):
        await land.extensions.extend(OPERATOR, waiting, 3600)
    run = await land.run(acme, [node])
    with pytest.raises(NotFound):
        await land.extensions.extend(Scope(tenant_id=rival[0], actor="test"), run, 3600)
    with pytest.raises(Refused, match="more than a year"):
        await land.extensions.extend(OPERATOR, run, 366 * 86_400)


async def test_what_was_decided_before_a_promise_is_not_written_after_it(land: Land) -> None:
    acme, rival = await land.tenant("acme"), await land.tenant("rival")
    await land.join("one")
    run = await land.queue(acme)
    queue = PostgresQueue(
        land.truth, load_catalog().models_matching, lambda _: "BR", watts={}, worth=lambda: {"cpu-slot": 1.0}
    )
    snapshot, now = await queue.snapshot()
    plan = decide(snapshot, now)
    assert [grant.run_id for grant in plan.grants] == [run]
    await land.reserve(rival, "exam", in_h=2)
    [refused] = await queue.commit(plan)
    assert refused.why == "more was booked of the future meanwhile"
    snapshot, now = await queue.snapshot()
    assert decide(snapshot, now).grants == ()  # a day long, it would stand on what is promised
