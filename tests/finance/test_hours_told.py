"""What is told of time on a real database: hours that add up or are withheld, sums by everything, months that close."""

import psycopg
import pytest

from baseai.finance.bucket import Bucket
from baseai.finance.hours.postgres import TimeLedger, load_time
from baseai.finance.hours.postgres.check import check_hours
from baseai.finance.hours.sum import Pace, TimeBy
from baseai.finance.period import period_named, period_of
from baseai.ground.fault import Refused
from baseai.truth.session import Truth, fetch_all
from tests.finance.site import lease
from tests.finance.stood import HOUR, HOUR_US, one, site

pytestmark = pytest.mark.anyio


# ---- the check, and what it withholds


async def standing(truth: Truth) -> list[tuple[str, str]]:
    async with truth.transaction() as session:
        rows = await fetch_all(
            session, "SELECT hour, site_id, sentence FROM checks WHERE passed_at IS NULL ORDER BY hour"
        )
    return [(row["site_id"], row["sentence"]) for row in rows]


async def spoil(dsn: str, deed: str) -> None:
    """What no role of ours may do: the owner of the tables turns the guard off."""
    async with await psycopg.AsyncConnection.connect(dsn) as owner:
        await owner.execute("ALTER TABLE time_buckets DISABLE TRIGGER USER")
        await owner.execute(deed)  # type: ignore[call-overload]
        await owner.execute("ALTER TABLE time_buckets ENABLE TRIGGER USER")


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(
            "DELETE FROM time_buckets WHERE accelerator_no = 2 AND hour = {hour}", id="an hour is gone"
        ),
        pytest.param(
            "UPDATE time_buckets SET micro_seconds = micro_seconds - 1 WHERE accelerator_no = 2 AND hour = {hour}",
            id="a microsecond is gone",
        ),
        pytest.param(
            "INSERT INTO time_buckets (hour, accelerator_no, bucket, micro_seconds, revision)"
            " VALUES ({hour}, 2, 'lost', 1, 1)",
            id="a microsecond too many",
        ),
    ],
)
async def test_an_hour_that_does_not_add_up_is_withheld_until_it_does(
    truth: Truth, dsn: str, deed: str
) -> None:
    start = await site(truth)
    ledger = TimeLedger(truth)
    await ledger.close()
    span = (start, start + 4 * HOUR)
    before = await load_time(truth, *span)
    assert (before.installed_us, before.withheld) == (16 * HOUR_US, ())
    await spoil(dsn, deed.format(hour=f"'{(start + HOUR).isoformat()}'"))
    async with truth.transaction() as session:
        checked = await check_hours(session, *span, nightly=True)
    assert len(checked.failing) == 1
    assert await standing(truth) == [("local", checked.failing[0])]
    after = await load_time(truth, *span)
    assert after.installed_us == 12 * HOUR_US  # the hour of that site is in no sum
    assert [(one.hour, one.site_id) for one in after.withheld] == [(start + HOUR, "local")]
    assert after.checked_at is not None
    for pace in Pace:
        steps = await load_time(truth, *span, by=TimeBy.NODE, pace=pace)
        assert steps.installed_us == 12 * HOUR_US
    await ledger.nightly()  # counts it anew, and says so
    assert await standing(truth) == []
    assert (await load_time(truth, *span)).installed_us == 16 * HOUR_US


async def test_an_hour_that_the_facts_explain_passes(truth: Truth) -> None:
    start = await site(truth)
    async with truth.transaction() as session:
        await session.execute(
            "INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor) VALUES"
            " (%s, 'accelerator', 's4', 'retire', 'in_service', 'retired', 'key ops')",
            (start + 1.5 * HOUR,),
        )
        await session.execute(
            "UPDATE accelerators SET installed_at = %s WHERE accelerator_no = 3", (start + 0.25 * HOUR,)
        )
    ledger = TimeLedger(truth)
    done = await ledger.close()
    assert done.failing == ()
    assert (await ledger.nightly()).failing == ()
    report = await load_time(truth, start, start + 4 * HOUR)
    assert report.installed_us == 13.25 * HOUR_US


async def test_a_month_whose_time_does_not_add_up_is_not_closed(truth: Truth) -> None:
    await site(truth)
    ledger = TimeLedger(truth)
    month = period_of(await one(truth, "SELECT now()"))
    [still] = await ledger.against(month)
    assert "closed up to none" in still.sentence
    await ledger.close()
    [still] = await ledger.against(month)  # the month goes on
    assert "not to the end of" in still.sentence
    async with truth.transaction() as session:
        await session.execute(
            "INSERT INTO checks (name, hour, site_id, sentence) VALUES ('time', %s, 'local', 'gap')",
            (month.starts_at(),),
        )
        await session.execute("UPDATE time_mark SET closed_until = %s", (month.ends_at(),))
    assert [finding.sentence for finding in await ledger.against(month)] == ["gap"]
    async with truth.transaction() as session:
        await session.execute("UPDATE checks SET passed_at = now()")
    assert await ledger.against(month) == ()
    async with truth.transaction() as session:
        await session.execute("UPDATE time_mark SET closed_until = NULL")
    assert await ledger.against(period_named("2020-01")) == ()  # nothing stood anywhere then


async def test_the_night_is_checked_once(truth: Truth) -> None:
    await site(truth)
    ledger = TimeLedger(truth)
    assert not await ledger.nightly_is_due()  # nothing is closed
    await ledger.close()
    assert await ledger.nightly_is_due()
    rows = await one(truth, "SELECT count(*) FROM time_buckets")
    assert (await ledger.nightly()).failing == ()
    assert await one(truth, "SELECT count(*) FROM time_buckets") == rows
    assert not await ledger.nightly_is_due()


# ---- sums


async def test_sums_by_everything_agree(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + HOUR, start + 2.5 * HOUR), accelerator_nos=(1, 2), ended="finished")
    await TimeLedger(truth).close()
    span = (start, start + 4 * HOUR)
    for by in TimeBy:
        for pace in (None, *Pace):
            report = await load_time(truth, *span, by=by, pace=pace)
            totals: dict[Bucket, int] = {}
            for each in report.sums:
                totals[each.bucket] = totals.get(each.bucket, 0) + each.micro_seconds
            assert totals == {Bucket.ON_DEMAND: 3 * HOUR_US, Bucket.IDLE: 13 * HOUR_US}
            subjects = {each.subject for each in report.sums}
            assert (
                subjects
                == {
                    TimeBy.BUCKET: {None},
                    TimeBy.SITE: {"local"},
                    TimeBy.MODEL: {"cpu-slot"},
                    TimeBy.NODE: {"nod_1"},
                    TimeBy.ACCELERATOR: {"s1", "s2", "s3", "s4"},
                }[by]
            )
    hourly = await load_time(truth, *span, pace=Pace.HOUR)
    assert [
        (each.start_at, each.bucket.value, each.micro_seconds / HOUR_US)
        for each in hourly.sums
        if each.start_at
    ][:3] == [(start, "idle", 4), (start + HOUR, "on_demand", 2), (start + HOUR, "idle", 2)]


async def test_hours_that_are_not_closed_are_reckoned_as_they_are_asked_for(truth: Truth) -> None:
    start = await site(truth)
    span = (start, start + 48 * HOUR)
    before = await load_time(truth, *span, by=TimeBy.SITE, pace=Pace.HOUR)
    await TimeLedger(truth).close()
    after = await load_time(truth, *span, by=TimeBy.SITE, pace=Pace.HOUR)
    closed = [each for each in after.sums if each.start_at and each.start_at < start + 5 * HOUR]
    assert closed == [each for each in before.sums if each.start_at and each.start_at < start + 5 * HOUR]
    assert before.closed_until is None
    stood = (await one(truth, "SELECT now()") - start) / HOUR
    assert stood >= 6
    # All hours that are over, and what there is of this one.
    assert 4 * (stood - 0.1) * HOUR_US < after.installed_us <= 4 * stood * HOUR_US


@pytest.mark.parametrize(
    ("from_h", "to_h", "wrong"),
    [
        pytest.param(0.5, 2, "not the start of an hour", id="from cuts an hour"),
        pytest.param(0, 1.25, "not the start of an hour", id="to cuts an hour"),
        pytest.param(2, 2, "is not after", id="no time at all"),
    ],
)
async def test_spans_that_cannot_be_told(truth: Truth, from_h: float, to_h: float, wrong: str) -> None:
    start = await site(truth)
    with pytest.raises(Refused, match=wrong):
        await load_time(truth, start + from_h * HOUR, start + to_h * HOUR)


async def test_simulated_nodes_are_told_apart(truth: Truth) -> None:
    start = await site(truth)
    await TimeLedger(truth).close()
    async with truth.transaction() as session:
        await session.execute("UPDATE nodes SET simulated = true")
    assert (await load_time(truth, start, start + HOUR)).installed_us == 0
    assert (await load_time(truth, start, start + HOUR, simulated=True)).installed_us == 4 * HOUR_US


# ---- one accelerator, one model, one site


async def test_sums_of_one_thing_are_parts_of_the_whole(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + HOUR, start + 2.5 * HOUR), accelerator_nos=(2,), ended="finished")
    await TimeLedger(truth).close()
    span = (start, start + 4 * HOUR)
    whole = await load_time(truth, *span, by=TimeBy.ACCELERATOR)
    by_serial = {
        serial: sum(each.micro_seconds for each in whole.sums if each.subject == serial)
        for serial in ("s1", "s2", "s3", "s4")
    }
    assert by_serial == dict.fromkeys(by_serial, 4 * HOUR_US)
    own = await load_time(truth, *span, serial="s2")
    assert {each.bucket: each.micro_seconds for each in own.sums}[Bucket.ON_DEMAND] == 1.5 * HOUR_US
    assert own.installed_us == 4 * HOUR_US
    for kind in ({"model": "cpu-slot"}, {"site": "local"}, {"model": "cpu-slot", "site": "local"}):
        assert (await load_time(truth, *span, **kind)).installed_us == whole.installed_us
    for nothing in ({"model": "h100"}, {"site": "SP4"}, {"serial": "s9"}):
        assert (await load_time(truth, *span, **nothing)).installed_us == 0


async def test_stretches_of_a_day_come_to_its_hours(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + HOUR, start + 2.5 * HOUR), accelerator_nos=(2,), ended="finished")
    ledger = TimeLedger(truth)
    await ledger.close()
    span = (start, start + 4 * HOUR)
    stretches = await ledger.stretches(2, *span)
    assert [each.until_at for each in stretches[:-1]] == [each.from_at for each in stretches[1:]]
    told = await load_time(truth, *span, serial="s2")
    assert {each.bucket: each.micro_seconds for each in told.sums} == {
        bucket: sum(each.micro_seconds for each in stretches if each.bucket is bucket)
        for bucket in {each.bucket for each in stretches}
    }
    assert await ledger.stretches(2, start + 100 * HOUR, start + 101 * HOUR) == ()  # has not been yet
