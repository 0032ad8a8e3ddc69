"""Samples joined to leases on a real PostgreSQL: hours closed once, corrected by revision, seen by their owners."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from baseai.ground.fault import NotFound
from baseai.ground.identity import NodeId
from baseai.telemetry.field import ACCELERATOR, NODE
from baseai.telemetry.intake import CollectorState, Measurement
from baseai.telemetry.postgres import Attributed, Intake, Uses
from baseai.telemetry.remote import RemoteStore
from baseai.truth.session import PLATFORM, Scope, Truth, fetch_all
from tests.finance.site import lease, over, seeded
from tests.telemetry.near import remote, ticks

pytestmark = pytest.mark.anyio

NODE_1 = NodeId("nod_1")
ONE, TWO = (Scope(tenant_id=f"ten_{number}", actor="test") for number in (1, 2))
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
async def store() -> AsyncIterator[RemoteStore]:
    async with remote() as asked:
        yield asked


class Yard:
    """One node with four slots, whose samples are told by hand: slot s1 draws 100 W."""

    def __init__(self, truth: Truth, store: RemoteStore, start: datetime) -> None:
        self.truth = truth
        self.store = store
        self.start = start  # six hours before the present hour
        self.intake = Intake(truth, store)
        self.uses = Uses(truth, store)

    async def told(
        self, from_at: datetime, until_at: datetime, serial: str = "s1", watts: float = 100.0
    ) -> None:
        offset_s = (from_at - self.start).total_seconds()
        sent = ticks(
            serial,
            from_at,
            until_at,
            {"energy_j": lambda second: watts * (offset_s + second), "util_pct": lambda _: 50.0},
        )
        taken = await self.intake.take(NODE_1, Measurement(sent_at=await self.now(), batches=[sent]))
        assert taken.accepted == [sent.batch_id], taken

    async def now(self) -> datetime:
        [row] = await self.rows("SELECT clock_timestamp() AS at")
        at: datetime = row["at"]
        return at

    async def attribute(self, at: datetime) -> Attributed:
        return await self.uses.attribute(now=at)

    async def rows(self, query: str, scope: Scope = PLATFORM) -> list[dict[str, Any]]:
        async with self.truth.transaction(scope) as session:
            return await fetch_all(session, query)

    async def used(self, hour: datetime) -> list[tuple[str | None, int, int | None]]:
        """(run, seconds, mJ) of slot s1 in the revision that holds."""
        found = await self.rows(
            "SELECT run_id, extract(epoch FROM to_at - from_at)::int AS s, energy_mj FROM uses JOIN use_hours"
            " USING (accelerator_no, hour, revision) WHERE accelerator_no = 1 AND hour = "
            f"'{hour.isoformat()}' ORDER BY from_at"
        )
        return [(row["run_id"], row["s"], row["energy_mj"]) for row in found]


@pytest.fixture
async def yard(truth: Truth, store: RemoteStore) -> Yard:
    start = await seeded(truth)
    async with truth.transaction() as session:
        await session.execute("DELETE FROM accelerators WHERE accelerator_no > 1")
        await session.execute("UPDATE accelerators SET installed_at = %s, round_id = 'rnd_1'", (start,))
    return Yard(truth, store, start)


async def test_an_hour_is_closed_once_its_samples_are_in(yard: Yard) -> None:
    begin, end = yard.start, yard.start + HOUR
    await lease(yard.truth, "run_a", (begin + 10 * MINUTE, begin + 30 * MINUTE), ended="finished")
    await yard.told(begin, end - MINUTE)
    assert (await yard.attribute(end + 2 * MINUTE)).waiting == 1, "no sample after the hour's end yet"
    assert await yard.used(begin) == []
    await yard.told(end, end + MINUTE)
    assert (await yard.attribute(end + 3 * MINUTE)).closed == 1
    assert await yard.used(begin) == [
        (None, 600, 60_000_000),
        ("run_a", 1200, 120_000_000),
        (None, 1800, 180_000_000),
    ]
    assert await yard.attribute(end + 4 * MINUTE) == Attributed(), "closing twice is the same as once"


async def test_a_closed_hour_is_held_against_the_store_s_own_sum(yard: Yard) -> None:
    """Which is made another way, of buckets, and gives a difference to the later of its two samples."""
    begin, end = yard.start, yard.start + HOUR
    await lease(yard.truth, "run_a", (begin + 10 * MINUTE, begin + 30 * MINUTE), ended="finished")
    await yard.told(begin, end + MINUTE)
    assert (await yard.attribute(end + 2 * MINUTE)).apart == ()
    [hour] = await yard.rows("SELECT * FROM use_hours WHERE revision > 0")
    assert hour["counter_mj"] == hour["attributed_mj"] == 360_000_000
    assert hour["store_mj"] == 354_000_000, "the last minute belongs to the sample that begins the next hour"
    said = await yard.uses.reckoning(PLATFORM)
    assert said == {"hours": 1, "checked": 1, "astray": 0, "apart": 0, "serials": []}


async def test_a_store_whose_sum_contradicts_the_samples_is_told(yard: Yard) -> None:
    """A counter leaps further than any accelerator can draw: samples tell nothing of that time, the sum counts it."""
    begin, end = yard.start, yard.start + HOUR
    sent = ticks(
        "s1", begin, end + MINUTE, {"energy_j": lambda second: second if second < 1800 else second + 1e9}
    )
    await yard.intake.take(NODE_1, Measurement(sent_at=await yard.now(), batches=[sent]))
    done = await yard.attribute(end + 2 * MINUTE)
    assert done.apart == (f"s1 {begin.isoformat()}",)
    assert done.astray == ()
    said = await yard.uses.reckoning(PLATFORM)
    assert (said["apart"], said["serials"]) == (1, ["s1"])


async def test_an_hour_without_samples_is_closed_late_and_says_that_nothing_is_known(yard: Yard) -> None:
    end = yard.start + HOUR
    assert (await yard.attribute(end + 14 * MINUTE)).closed == 0
    assert (await yard.attribute(end + 16 * MINUTE)).closed == 1
    assert await yard.used(yard.start) == [(None, 3600, None)]


async def test_late_samples_make_a_new_revision_and_edit_nothing(yard: Yard) -> None:
    begin, end = yard.start, yard.start + HOUR
    await lease(yard.truth, "run_a", (begin, begin + 30 * MINUTE), ended="finished")
    await yard.told(begin, begin + 10 * MINUTE)
    await yard.attribute(end + 16 * MINUTE)
    assert await yard.used(begin) == [("run_a", 1800, 60_000_000), (None, 1800, None)]
    await yard.told(begin + 11 * MINUTE, end + MINUTE)
    done = await yard.attribute(await yard.now() + 2 * MINUTE)
    assert done.corrected == 1
    assert await yard.used(begin) == [("run_a", 1800, 180_000_000), (None, 1800, 180_000_000)]
    revisions = await yard.rows(f"SELECT revision FROM uses WHERE hour = '{begin.isoformat()}' ORDER BY 1")
    assert [row["revision"] for row in revisions] == [1, 1, 2, 2]


async def test_a_batch_that_comes_again_corrects_nothing(yard: Yard) -> None:
    end = yard.start + HOUR
    sent = ticks("s1", yard.start, end + MINUTE, {"energy_j": lambda second: second})
    measurement = Measurement(sent_at=await yard.now(), batches=[sent])
    await yard.intake.take(NODE_1, measurement)
    await yard.attribute(end + 2 * MINUTE)
    assert (await yard.intake.take(NODE_1, measurement)).accepted == [sent.batch_id]
    assert (await yard.attribute(await yard.now() + 2 * MINUTE)).corrected == 0


async def test_a_lease_that_was_silent_over_the_hour_s_end_is_counted_anew(yard: Yard) -> None:
    begin, end = yard.start, yard.start + HOUR
    lease_id = await lease(yard.truth, "run_a", (begin, begin + 20 * MINUTE))
    await yard.told(begin, end + 20 * MINUTE)
    await yard.attribute(end + 16 * MINUTE)
    assert (await yard.used(begin))[0] == ("run_a", 1200, 120_000_000)
    await over(yard.truth, lease_id, begin + 50 * MINUTE, "finished")
    assert (await yard.attribute(end + 30 * MINUTE)).corrected == 1
    assert (await yard.used(begin))[0] == ("run_a", 3000, 300_000_000)


async def test_two_who_close_at_once_close_it_once(yard: Yard) -> None:
    import asyncio

    await yard.told(yard.start, yard.start + HOUR + MINUTE)
    at = yard.start + HOUR + 2 * MINUTE
    await asyncio.gather(yard.attribute(at), Uses(yard.truth, yard.store).attribute(now=at))
    assert await yard.used(yard.start) == [(None, 3600, 360_000_000)]
    assert len(await yard.rows("SELECT FROM uses WHERE accelerator_no = 1")) == 1


async def test_runs_and_nobody_add_up_to_the_counter_over_closed_and_open_hours(yard: Yard) -> None:
    begin = yard.start
    await lease(yard.truth, "run_a", (begin + 10 * MINUTE, begin + 100 * MINUTE), ended="finished")
    await lease(yard.truth, "run_b", (begin + 110 * MINUTE, begin + 200 * MINUTE), tenant=2, ended="finished")
    await yard.told(begin, begin + 210 * MINUTE)
    await yard.attribute(begin + 125 * MINUTE)
    by_run = await yard.uses.uses(PLATFORM, by="run", from_at=begin)
    assert {row["subject"]: round(row["energy_wh"], 6) for row in by_run} == {
        "run_a": 150.0, "run_b": 150.0, "": 50.0,
    }  # fmt: skip
    for by in ("tenant", "lease", "round", "node", "accelerator"):
        found = await yard.uses.uses(PLATFORM, by=by, from_at=begin)
        assert sum(row["energy_wh"] for row in found) == pytest.approx(350.0), by
    assert [row["open"] for row in by_run] == [False, True, True]


async def test_a_run_sees_what_it_used_while_it_runs(yard: Yard) -> None:
    now = await yard.now()
    await lease(yard.truth, "run_a", (now - 10 * MINUTE, now))
    await yard.told(now - 20 * MINUTE, now)
    view = await yard.uses.use_of_run(ONE, "run_a")
    assert (view["label"], view["open"], view["energy_origin"], view["methods"]) == (
        "run_a", True, "measured", ["whole device"],
    )  # fmt: skip
    assert view["accelerator_s"] == pytest.approx(600, abs=1)
    assert view["energy_wh"] == pytest.approx(100 / 6, rel=0.1)
    assert view["util_pct"] == pytest.approx(50)


async def test_the_lease_of_a_run_that_goes_on_has_what_the_run_has(yard: Yard) -> None:
    now = await yard.now()
    await lease(yard.truth, "run_a", (now - 10 * MINUTE, now))
    await yard.told(now - 20 * MINUTE, now)
    run = await yard.uses.use_of_run(ONE, "run_a")
    [row] = await yard.rows("SELECT lease_id FROM leases WHERE run_id = 'run_a'")
    [own] = await yard.uses.uses(ONE, by="lease", subject=row["lease_id"], from_at=now - 10 * MINUTE)
    assert (own["label"], own["util_pct"]) == ("n1", run["util_pct"])
    assert own["energy_wh"] == pytest.approx(run["energy_wh"], rel=0.02)
    assert await yard.uses.uses(ONE, by="lease", subject="lea_of_nobody", from_at=now - 10 * MINUTE) == []


async def test_a_run_without_a_lease_used_nothing(yard: Yard) -> None:
    now = await yard.now()
    await lease(yard.truth, "run_a", (now - MINUTE, now), accelerator_nos=())
    view = await yard.uses.use_of_run(ONE, "run_a")
    assert (view["accelerator_s"], view["energy_wh"], view["util_pct"]) == (0, None, None)


async def test_a_tenant_sees_its_own_use_and_never_another_s_or_nobody_s(yard: Yard) -> None:
    begin = yard.start
    await lease(yard.truth, "run_a", (begin, begin + 30 * MINUTE), ended="finished")
    await lease(yard.truth, "run_b", (begin + 30 * MINUTE, begin + 90 * MINUTE), tenant=2, ended="finished")
    await yard.told(begin, begin + 120 * MINUTE)
    await yard.attribute(begin + HOUR + 2 * MINUTE)
    for scope, run, wh in ((ONE, "run_a", 50.0), (TWO, "run_b", 100.0)):
        for by in ("run", "node"):
            [row] = await yard.uses.uses(scope, by=by, from_at=begin)
            assert row["energy_wh"] == pytest.approx(wh), (scope, by)
        assert {row["run_id"] for row in await yard.rows("SELECT run_id FROM uses", scope)} == {run}
    with pytest.raises(NotFound):
        await yard.uses.use_of_run(ONE, "run_b")
    assert await yard.uses.uses(ONE, by="run", subject="run_b", from_at=begin) == []


async def test_without_the_store_closed_hours_are_told_and_what_is_missing_is_said(yard: Yard) -> None:
    begin = yard.start
    await yard.told(begin, begin + HOUR + MINUTE)
    await yard.attribute(begin + HOUR + 2 * MINUTE)
    away = Uses(yard.truth, RemoteStore(yard.store._path.with_name("nobody.sock")))
    [row] = await away.uses(PLATFORM, by="node", from_at=begin)
    assert row["energy_wh"] == pytest.approx(100.0)
    assert row["accelerator_s"] > 5 * 3600, "how long they stood here is known all the same"
    assert "no answer" in row["missing"]


# ---- taking in


async def test_a_node_speaks_for_its_own_devices_and_is_told_which_it_does_not_know(yard: Yard) -> None:
    now = await yard.now()
    sent = ticks("s1", now, now, {"temp_c": lambda _: 40.0})
    mixed = type(sent)(**{  # the same with a stranger's row
        **{name: getattr(sent, name) for name in sent.__slots__},
        "keys": ["s1", "stranger"], "ts_ms": [*sent.ts_ms, *sent.ts_ms], "values": {"temp_c": [40.0, 41.0]},
    })  # fmt: skip
    taken = await yard.intake.take(NODE_1, Measurement(sent_at=now, batches=[mixed]))
    assert taken.accepted == [sent.batch_id]
    assert list(taken.refused.items()) == [
        (f"{sent.batch_id}/stranger", "which device? no accelerator of this node has that serial")
    ]
    assert (await yard.store.latest(ACCELERATOR)).keys == ("s1",)
    [intake] = await yard.uses.collectors(PLATFORM, "nod_1")
    assert (intake["name"], intake["state"]) == ("intake", "failing")
    assert "stranger" in intake["troubles"][0]


async def test_things_stand_where_the_truth_says(yard: Yard) -> None:
    now = await yard.now()
    batches = [
        ticks("s1", now, now, {"temp_c": lambda _: 40.0}),
        ticks("another node", now, now, {"cpu_pct": lambda _: 1.0}, family="node"),
    ]
    await yard.intake.take(NODE_1, Measurement(sent_at=now, batches=batches))
    latest = await yard.store.latest(ACCELERATOR)
    assert [(place.node_id, place.site, place.model) for place in latest.places] == [
        ("nod_1", "local", "cpu-slot")
    ]
    assert (await yard.store.latest(NODE)).keys == ("nod_1",)


async def test_a_clock_that_is_off_is_corrected_and_said(yard: Yard) -> None:
    now = await yard.now()
    behind = now - timedelta(seconds=612)
    sent = ticks("s1", behind, behind, {"temp_c": lambda _: 40.0})
    collector = CollectorState(name="nvml", state="ok", interval_s=10, last_ok_at=behind)
    await yard.intake.take(NODE_1, Measurement(sent_at=behind, batches=[sent], collectors=[collector]))
    [at_ms] = (await yard.store.latest(ACCELERATOR)).ts_ms.tolist()
    assert at_ms == pytest.approx(now.timestamp() * 1000, abs=2000)
    intake, nvml = await yard.uses.collectors(PLATFORM, "nod_1")
    assert intake["sentence"] == "clock is 612 s behind: its instants are moved"
    assert abs((nvml["last_ok_at"] - now).total_seconds()) < 2
