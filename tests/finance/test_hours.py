"""The time ledger on a real database: hours closed once, counted anew when facts come late, and nothing silent."""

import asyncio

import psycopg
import pytest

from baseai.finance.bucket import Bucket
from baseai.finance.hours.facts import reckoned
from baseai.finance.hours.postgres import TimeLedger, load_time
from baseai.finance.hours.postgres.observed import load_facts
from baseai.truth.session import Truth, fetch_all
from tests.finance.site import lease, over
from tests.finance.stood import HOUR, HOUR_US, hours_over, one, site, told

pytestmark = pytest.mark.anyio


IDLE = {"idle": 1.0}


async def test_hours_that_are_over_are_closed_once(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + HOUR, start + 1.5 * HOUR), ended="finished", run_state="succeeded")
    ledger = TimeLedger(truth)
    past = await hours_over(truth, start)
    assert past >= 6
    assert (await ledger.close()).closed in (past - 1, past)
    assert (await told(truth, start))[:5] == [IDLE, {"idle": 0.5, "on_demand": 0.5}, IDLE, IDLE, IDLE]
    assert (await told(truth, start, 2))[:5] == [IDLE] * 5
    rows = await one(truth, "SELECT count(*) FROM time_buckets")
    again = await ledger.close()
    assert (again.closed, again.revised) == (0, 0)
    assert await one(truth, "SELECT count(*) FROM time_buckets") == rows
    assert await one(truth, "SELECT count(*) FROM late_facts") == 0


async def test_a_verdict_that_comes_late_gives_its_hours_a_revision_with_the_reason(truth: Truth) -> None:
    start = await site(truth)
    lease_id = await lease(truth, "run_1", (start + 0.5 * HOUR, start + 2.5 * HOUR))
    ledger = TimeLedger(truth)
    await ledger.close()
    assert (await told(truth, start))[:3] == [
        {"idle": 0.5, "on_demand": 0.5},
        {"on_demand": 1.0},
        {"on_demand": 0.5, "start_up": 0.5},
    ]
    await over(truth, lease_id, start + 3.25 * HOUR, "node_lost", run_state="failed")
    done = await ledger.close()
    assert done.revised >= 4
    assert (await told(truth, start))[:4] == [
        {"idle": 0.5, "lost": 0.5},
        {"lost": 1.0},
        {"lost": 1.0},
        {"idle": 0.75, "lost": 0.25},
    ]
    async with truth.transaction() as session:
        rows = await fetch_all(
            session,
            "SELECT bucket, revision, reason, replaced_at IS NULL AS stands FROM time_buckets"
            " WHERE accelerator_no = 1 AND hour = %s ORDER BY revision",
            (start + HOUR,),
        )
    assert [(row["bucket"], row["revision"], row["stands"]) for row in rows] == [
        ("on_demand", 1, False),
        ("lost", 2, True),
    ]
    assert "run_1" in rows[1]["reason"]
    assert await one(truth, "SELECT max(revision) FROM time_buckets WHERE accelerator_no = 2") == 1


async def test_what_was_seen_late_is_sold_after_all(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + HOUR, start + 1.25 * HOUR))
    ledger = TimeLedger(truth)
    await ledger.close()
    assert (await told(truth, start))[2] == {"start_up": 1.0}  # its node was silent
    async with truth.transaction() as session:
        await session.execute("UPDATE leases SET observed_until = %s", (start + 3 * HOUR,))
    await ledger.close()
    assert (await told(truth, start))[1:4] == [{"on_demand": 1.0}, {"on_demand": 1.0}, {"start_up": 1.0}]


async def test_an_accelerator_that_was_there_earlier_than_was_known(truth: Truth) -> None:
    start = await site(truth)
    async with truth.transaction() as session:
        await session.execute(
            "UPDATE accelerators SET installed_at = %s WHERE accelerator_no = 1", (start + 2 * HOUR,)
        )
    ledger = TimeLedger(truth)
    past = await hours_over(truth, start + 2 * HOUR)
    await ledger.close()
    counted = await one(truth, "SELECT count(*) FROM time_buckets WHERE accelerator_no = 1")
    assert counted in (past - 1, past)
    async with truth.transaction() as session:
        await session.execute(
            "UPDATE accelerators SET installed_at = %s WHERE accelerator_no = 1", (start + 0.75 * HOUR,)
        )
    assert (await ledger.close()).revised == 2
    assert (await told(truth, start))[:3] == [{"idle": 0.25}, IDLE, IDLE]


async def test_rows_are_never_edited_or_deleted(truth: Truth) -> None:
    await site(truth)
    await TimeLedger(truth).close()
    for deed in (
        "UPDATE time_buckets SET micro_seconds = 1",
        "DELETE FROM time_buckets",
        "UPDATE time_buckets SET replaced_at = now(), bucket = 'lost'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with truth.transaction() as session:
                await session.execute(deed)  # type: ignore[call-overload]


async def test_two_copies_close_each_hour_once(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + 0.5 * HOUR, start + 2.5 * HOUR), accelerator_nos=(1, 2, 3))
    past = await hours_over(truth, start)
    done = await asyncio.gather(*(TimeLedger(truth).close() for _ in range(3)))
    assert sum(one.closed for one in done) in (past - 1, past)
    assert await one(truth, "SELECT max(revision) FROM time_buckets") == 1


async def test_states_and_fragmentation_are_read_from_history(truth: Truth) -> None:
    start = await site(truth)
    async with truth.transaction() as session:
        await session.execute(
            "INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor) VALUES"
            " (%(a)s, 'node', 'nod_1', 'joined', NULL, 'onboarding', 'node n1'),"  # a rejoin moves nothing
            " (%(b)s, 'node', 'nod_1', 'cordon', 'ready', 'cordoned', 'health'),"
            " (%(c)s, 'node', 'nod_1', 'uncordon', 'cordoned', 'ready', 'key ops'),"
            " (%(c)s, 'accelerator', 's2', 'no_longer_seen', 'in_service', 'failed', 'node n1')",
            {"a": start + 0.1 * HOUR, "b": start + HOUR, "c": start + 2 * HOUR},
        )
        await session.execute(
            "INSERT INTO fragmentations (model, site_id, from_at, seen_at, until_at) VALUES"
            " ('cpu-slot', 'local', %s, %s, %s), ('H100', 'local', %s, %s, NULL)",
            (start + 2.5 * HOUR, start + 3 * HOUR, start + 3 * HOUR, start, start + 4 * HOUR),
        )
    await TimeLedger(truth).close()
    assert (await told(truth, start))[:4] == [IDLE, {"failed": 1.0}, {"fragmented": 0.5, "idle": 0.5}, IDLE]
    assert (await told(truth, start, 2))[2:4] == [{"failed": 1.0}] * 2


async def test_what_a_node_was_before_its_first_move_that_move_tells(truth: Truth) -> None:
    start = await site(truth)
    async with truth.transaction() as session:
        await session.execute("UPDATE accelerators SET installed_at = %s", (start - 2 * HOUR,))
        early, whole = [
            reckoned(await load_facts(session, (start - 2 * HOUR, until)))
            for until in (start - HOUR, start + HOUR)
        ]
    assert early == {key: sums for key, sums in whole.items() if key[1] < start - HOUR}
    assert {bucket for sums in early.values() for bucket in sums} == {Bucket.NOT_LIVE}


async def test_the_database_knows_every_bucket(truth: Truth) -> None:
    start = await site(truth)
    async with truth.transaction() as session:
        for number, bucket in enumerate(Bucket):
            await session.execute(
                "INSERT INTO time_buckets (hour, accelerator_no, bucket, micro_seconds, revision)"
                " VALUES (%s, 1, %s, 1, 1)",
                (start - (number + 1) * HOUR, bucket.value),
            )
    with pytest.raises(psycopg.errors.CheckViolation):
        async with truth.transaction() as session:
            await session.execute(
                "INSERT INTO time_buckets (hour, accelerator_no, bucket, micro_seconds, revision)"
                " VALUES (%s, 2, 'forgotten', 1, 1)",
                (start,),
            )


async def test_what_is_reserved_and_not_used(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + HOUR, start + 2 * HOUR), accelerator_nos=(3,), ended="finished")
    async with truth.transaction() as session:
        await session.execute("""UPDATE runs SET spec = '{"reservation": "held", "spot": false}'""")
        await session.execute(
            "INSERT INTO reservations (reservation_id, tenant_id, project_id, name, nodes, accelerators, model,"
            " site_id, from_at, until_at, kind, state, made_by) VALUES ('res_1', 'ten_1', 'prj_1', 'held', 1, 2,"
            " 'cpu-slot', 'local', %s, %s, 'take_or_pay', 'active', 'test')",
            (start, start + 3 * HOUR),
        )
    await TimeLedger(truth).close()
    report = await load_time(truth, start, start + 4 * HOUR)
    assert {each.bucket: each.micro_seconds / HOUR_US for each in report.sums} == {
        Bucket.RESERVED: 1,
        Bucket.RESERVED_UNUSED: 5,
        Bucket.IDLE: 10,
    }
    # Its node was lost after all: then two stood unused that hour, and one of them by another number.
    async with truth.transaction() as session:
        await session.execute("UPDATE runs SET state = 'recovering'")
        await session.execute("UPDATE attempts SET reason = 'node_lost'")
    await TimeLedger(truth).close()
    report = await load_time(truth, start, start + 4 * HOUR)
    assert {each.bucket: each.micro_seconds / HOUR_US for each in report.sums} == {
        Bucket.RESERVED_UNUSED: 5,
        Bucket.LOST: 1,
        Bucket.IDLE: 10,
    }


async def test_whoever_dies_over_it_leaves_each_hour_whole(
    truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baseai.finance.hours.postgres.closing.ACCELERATOR_HOURS_A_TRANSACTION", 100)
    start = await site(truth)
    async with truth.transaction() as session:
        await session.execute("UPDATE accelerators SET installed_at = %s", (start - 400 * HOUR,))
    for delay_s in (0.02, 0.05, 0.1, 0.2):
        closing = asyncio.create_task(TimeLedger(truth).close())
        await asyncio.sleep(delay_s)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert await one(truth, "SELECT count(*) FROM (SELECT sum(micro_seconds) AS us FROM time_buckets"
                         " GROUP BY hour HAVING sum(micro_seconds) <> 4 * 3600000000) w") == 0  # fmt: skip
    await TimeLedger(truth).close()
    report = await load_time(truth, start - 400 * HOUR, start + 5 * HOUR)
    assert report.installed_us == 405 * 4 * HOUR_US
    assert report.revised == 0


async def test_spot_a_test_of_our_own_and_work_that_is_done_again(truth: Truth) -> None:
    start = await site(truth)
    for number, reason in ((1, "finished"), (2, "finished"), (3, "process_lost"), (4, "finished")):
        run_id = f"run_{number}"
        await lease(truth, run_id, (start, start + 2 * HOUR), accelerator_nos=(number,), ended=reason)
    async with truth.transaction() as session:
        await session.execute(
            """UPDATE runs SET spec = '{"spot": true, "reservation": null}' WHERE run_id = 'run_1'"""
        )
        await session.execute("UPDATE runs SET kind = 'burn_in' WHERE run_id = 'run_2'")
        await session.execute(
            "INSERT INTO checkpoints (event_id, run_id, tenant_id, project_id, attempt_no, step, path, digest, bytes,"
            " save_s, stall_ms, committed_at) VALUES ('e', 'run_3', 'ten_1', 'prj_1', 1, 9, 'p', 'd', 1, 1, 1, %s)",
            (start + 1.25 * HOUR,),
        )
        await session.execute(
            "INSERT INTO events (at, tenant_id, project_id, subject_kind, subject_id, event, from_state, to_state,"
            " reason, actor) VALUES (%(lost)s, 'ten_1', 'prj_1', 'run', 'run_4', 'recover', 'running', 'recovering',"
            " 'worker_lost', 'agent'), (%(back)s, 'ten_1', 'prj_1', 'run', 'run_4', 'begin', 'recovering', 'running',"
            " 'recovered', 'agent')",
            {"lost": start + 0.25 * HOUR, "back": start + 0.5 * HOUR},
        )
    await TimeLedger(truth).close()
    report = await load_time(truth, start, start + 2 * HOUR)
    assert {each.bucket: each.micro_seconds / HOUR_US for each in report.sums} == {
        Bucket.SPOT: 2,
        Bucket.BURN_IN: 2,
        Bucket.ON_DEMAND: 1.25 + 1.5,
        Bucket.LOST: 0.75 + 0.5,
    }


async def test_what_contracts_say_of_time(truth: Truth) -> None:
    """A commitment covers its tenant's use first, and the research tariff its own tenant's while it holds."""
    start = await site(truth)
    await lease(truth, "run_1", (start, start + 2 * HOUR), accelerator_nos=(1, 2), ended="finished")
    await lease(truth, "run_2", (start, start + 2 * HOUR), accelerator_nos=(3,), tenant=2, ended="finished")
    async with truth.transaction() as session:
        for number, term, from_at, until_at in (
            (1, "reserved", start, start + 3 * HOUR),
            (2, "research", start + HOUR, None),
        ):
            await session.execute(
                "INSERT INTO customers (customer_id, tenant_id, legal_name, country, tax_id, currency, added_by)"
                " VALUES (%(c)s, %(t)s, 'One', 'US', %(c)s, 'USD', 'test')",
                {"c": f"cus_{number}", "t": f"ten_{number}"},
            )
            await session.execute(
                "INSERT INTO contracts (contract_id, name, customer_id, tenant_id, term, currency, from_at, until_at,"
                " made_by) VALUES (%(n)s, %(n)s, %(c)s, %(t)s, %(term)s, 'USD', %(from)s, %(until)s, 'test')",
                {
                    "n": f"con-{number}", "c": f"cus_{number}", "t": f"ten_{number}", "term": term,
                    "from": from_at, "until": until_at,
                },
            )  # fmt: skip
        await session.execute(
            "INSERT INTO commitments (contract_id, tenant_id, model, accelerators, during)"
            " VALUES ('con-1', 'ten_1', 'cpu-slot', 1, tstzrange(%s, %s))",
            (start, start + 3 * HOUR),
        )
    await TimeLedger(truth).close()
    report = await load_time(truth, start, start + 4 * HOUR)
    assert {each.bucket: each.micro_seconds / HOUR_US for each in report.sums} == {
        Bucket.RESERVED: 2,
        Bucket.ON_DEMAND: 3,
        Bucket.RESEARCH: 1,
        Bucket.RESERVED_UNUSED: 1,
        Bucket.IDLE: 9,
    }
