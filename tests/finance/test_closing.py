"""Closing on a real database: what a month comes to is fixed, late facts go on, and rows that change are found."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from baseai.finance.audit import STALE_AFTER, blocks
from baseai.finance.period import (
    Calendar,
    Closed,
    Finding,
    NotClosed,
    Period,
    PeriodClosed,
    PeriodState,
    period_of,
)
from baseai.finance.postgres import Auditor, Closing, Meter, PostgresBooks, load_transfers
from baseai.finance.transfer import Transfer, booked, reversal_of
from baseai.finance.trial_balance import closing_balances_of, digest_of
from baseai.truth.session import PLATFORM, Scope, Truth, fetch_one
from tests.finance.leased import FlatRates, transfer
from tests.finance.site import lease, over, seeded

pytestmark = pytest.mark.anyio

OCTOBER, NOVEMBER = Period(2025, 10), Period(2025, 11)
IN_OCTOBER = datetime(2025, 10, 20, 12, tzinfo=UTC)
FINANCE = Scope(tenant_id=None, actor="key of finance")


def fact(transfer_id: str = "tr_1", micros: int = 100, *, at: datetime = IN_OCTOBER) -> Transfer:
    return transfer(transfer_id, micros, effective_at=at)


async def closed(truth: Truth, period: Period = OCTOBER) -> Closed:
    done = await Closing(truth).close(period, FINANCE)
    assert isinstance(done, Closed), done
    return done


async def test_a_closed_month_keeps_a_checkpoint_of_its_balances(truth: Truth) -> None:
    books = PostgresBooks(truth)
    await books.post([fact(), fact("tr_2", 7, at=IN_OCTOBER + timedelta(days=20))])
    done = await closed(truth)
    transfers = await load_transfers(truth)
    assert done.digest == digest_of(closing_balances_of(transfers, through=OCTOBER))
    assert done.transfers == 1
    assert await Closing(truth).close(OCTOBER, FINANCE) == done
    assert (await books.calendar()) == Calendar(closed_through=OCTOBER)
    async with truth.transaction() as session:
        row = await fetch_one(
            session, "SELECT * FROM events WHERE subject_id = '2025-10' AND event = 'close'"
        )
    assert row is not None
    assert (row["actor"], row["to_state"]) == ("key of finance", "closed")


async def test_a_posting_into_a_closed_month_is_refused_by_its_name_and_a_late_fact_keeps_its_date(
    truth: Truth,
) -> None:
    books = PostgresBooks(truth)
    await books.post([fact()])
    await closed(truth)
    late = fact("tr_late", 5)
    with pytest.raises(PeriodClosed, match="tr_late: period 2025-10 is closed"):
        await books.post([late])
    assert await books.post([booked(late, await books.calendar())]) == 1
    (kept, first) = await load_transfers(truth)
    assert (kept.effective_at, str(kept.booked_in)) == (IN_OCTOBER, "2025-11")
    assert await books.post([first]) == 0  # what stands there already is no posting
    (energy,) = await books.balance("cost:energy", IN_OCTOBER)
    assert energy.debits_micros == 105  # by its date it counts in October
    assert (await Auditor(truth).audit()).findings == ()  # and the closed month is as it was


async def test_the_database_itself_refuses_a_row_in_a_closed_month(truth: Truth) -> None:
    await PostgresBooks(truth).post([fact()])
    await closed(truth)
    with pytest.raises(psycopg.errors.CheckViolation, match="period 2025-10 is closed"):
        async with truth.transaction() as session:
            await session.execute(
                "INSERT INTO transfers (transfer_id, entry_id, debit_account, credit_account, amount_micros, currency,"
                " effective_at, period) VALUES ('x', 'x', 'cost:x', 'payable:x', 1, 'USD', %s, '2025-10')",
                (IN_OCTOBER,),
            )


async def test_killbill_2000_a_write_off_after_the_close_leaves_the_closed_balance_as_it_was(
    truth: Truth,
) -> None:
    """There the balance of a written-off invoice came out wrong; here the month before does not move at all."""
    books = PostgresBooks(truth)
    bill = transfer(
        "tr_bill", 100, debit="tenant:ten_1:receivable", credit="revenue:on_demand", effective_at=IN_OCTOBER
    )
    await books.post([bill])
    before = await closed(truth)
    await books.post(
        [
            transfer(
                "tr_off", 100, debit="cost:bad_debt", credit="tenant:ten_1:receivable",
                effective_at=IN_OCTOBER + timedelta(days=20),
            )
        ]
    )  # fmt: skip
    assert [row.balance_micros() for row in await books.balance("tenant:ten_1:receivable", IN_OCTOBER)] == [
        100
    ]
    later = IN_OCTOBER + timedelta(days=30)
    assert [row.balance_micros() for row in await books.balance("tenant:ten_1:receivable", later)] == [0]
    assert await Closing(truth).close(OCTOBER, FINANCE) == before
    assert (await Auditor(truth).audit()).findings == ()


async def test_a_mistake_in_a_closed_month_is_reversed_in_an_open_one(truth: Truth) -> None:
    books = PostgresBooks(truth)
    await books.post([fact()])
    await closed(truth)
    back = reversal_of(fact(), transfer_id="tr_back", effective_at=IN_OCTOBER, note="typed twice")
    await books.post([booked(back, await books.calendar())])
    assert [row.balance_micros() for row in await books.balance("cost:energy", IN_OCTOBER)] == [0]


async def test_months_close_in_their_order(truth: Truth) -> None:
    books = PostgresBooks(truth)
    await books.post([fact(), fact("tr_2", at=IN_OCTOBER + timedelta(days=20))])
    refused = await Closing(truth).close(NOVEMBER, FINANCE)
    assert isinstance(refused, NotClosed)
    assert (refused.state, refused.findings[0].check) == (PeriodState.OPEN, "order")
    await closed(truth)
    await closed(truth, NOVEMBER)


async def test_a_month_with_something_unfinished_stays_closing_and_says_what(truth: Truth) -> None:
    await seeded(truth)
    end = IN_OCTOBER + timedelta(hours=2)
    lease_id = await lease(truth, "run_1", (IN_OCTOBER, end))
    meter = Meter(truth, FlatRates())
    refused = await Closing(truth).close(OCTOBER, FINANCE)
    assert isinstance(refused, NotClosed)
    assert [finding.check for finding in refused.findings] == ["metered"]
    assert lease_id in refused.findings[0].sentence
    await over(truth, lease_id, end, "finished", run_state="succeeded")
    await meter.meter()
    refused = await Closing(truth).close(OCTOBER, FINANCE)
    assert isinstance(refused, NotClosed)
    assert [finding.check for finding in refused.findings] == ["posted"]
    assert (await meter.post()).transfers == 8  # a closing month takes its own facts
    assert isinstance(await Closing(truth).close(OCTOBER, FINANCE), Closed)


async def test_a_late_hour_of_a_closed_month_is_posted_in_the_open_one(truth: Truth) -> None:
    await seeded(truth)
    await closed(truth)  # nothing was known of the lease then: it was reported too late
    seen = IN_OCTOBER, IN_OCTOBER + timedelta(hours=1)
    await lease(truth, "run_1", seen, ended="finished", run_state="succeeded")
    meter = Meter(truth, FlatRates())
    await meter.meter()
    assert (await meter.post()).transfers == 4
    assert {str(one.booked_in) for one in await load_transfers(truth)} == {str(NOVEMBER)}
    assert {period_of(one.effective_at) for one in await load_transfers(truth)} == {OCTOBER}
    assert (await meter.recompute()).missing == ()


async def test_a_check_of_another_room_holds_the_month_back(truth: Truth) -> None:
    async def buckets(period: Period) -> Sequence[Finding]:
        return [Finding(check="time", sentence=f"{period}: an hour of acc_1 is in no bucket")]

    await PostgresBooks(truth).post([fact()])
    refused = await Closing(truth, [buckets]).close(OCTOBER, FINANCE)
    assert isinstance(refused, NotClosed)
    assert refused.state is PeriodState.CLOSING
    assert [finding.check for finding in refused.findings] == ["time"]
    await closed(truth)


async def test_a_closing_month_takes_its_own_facts_and_no_late_ones(truth: Truth) -> None:
    async def waiting(period: Period) -> Sequence[Finding]:
        return [Finding(check="time", sentence="not yet")]

    books = PostgresBooks(truth)
    await books.post([fact(at=IN_OCTOBER - timedelta(days=30))])
    await closed(truth, Period(2025, 9))
    await Closing(truth, [waiting]).close(OCTOBER, FINANCE)
    await books.post([fact("tr_2")])
    late = transfer("tr_3", effective_at=IN_OCTOBER - timedelta(days=30), period=OCTOBER)
    with pytest.raises(PeriodClosed, match="closing and takes its own facts only"):
        await books.post([late])
    assert str(booked(fact("tr_4", at=late.effective_at), await books.calendar()).booked_in) == "2025-11"


async def test_a_close_beside_writers_loses_none_of_them(truth: Truth) -> None:
    """Each transfer is either in the checkpoint or refused by the name of the month."""
    books = PostgresBooks(truth)
    await books.post([fact()])

    async def write(number: int) -> bool:
        try:
            await books.post([fact(f"tr_{number}")])
        except PeriodClosed:
            return False
        return True

    *written, done = await asyncio.gather(
        *(write(number) for number in range(2, 40)), Closing(truth).close(OCTOBER, FINANCE)
    )
    assert isinstance(done, Closed)
    assert done.transfers == 1 + sum(map(bool, written))
    assert (await Auditor(truth).audit()).findings == ()


@pytest.mark.parametrize("table", ["book_checkpoints", "book_checks"])
@pytest.mark.parametrize("deed", ["UPDATE {} SET digest = repeat('0', 64)", "DELETE FROM {}"])
async def test_what_was_found_stays(truth: Truth, table: str, deed: str) -> None:
    await PostgresBooks(truth).post([fact()])
    await Auditor(truth).audit()
    await closed(truth)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with truth.transaction() as session:
            await session.execute(deed.format(table))  # type: ignore[arg-type]


@pytest.mark.parametrize("to_state", ["open", "closing"])
async def test_a_closed_month_is_never_opened_again(truth: Truth, to_state: str) -> None:
    await PostgresBooks(truth).post([fact()])
    await closed(truth)
    with pytest.raises(psycopg.errors.CheckViolation, match="does not move from closed"):
        async with truth.transaction() as session:
            await session.execute("UPDATE periods SET state = %s, closed_at = NULL", (to_state,))


async def test_an_audit_of_sound_books_finds_nothing_and_lets_them_be_published(truth: Truth) -> None:
    await PostgresBooks(truth).post(
        [fact(), transfer("tr_2", 9, debit="asset:cash", credit="tenant:ten_1:prepaid")]
    )
    auditor = Auditor(truth)
    assert [one.check for one in blocks(await auditor.newest(), now=datetime.now(UTC))] == ["audit"]
    done = await auditor.audit()
    trial = await PostgresBooks(truth).trial_balance(datetime(9999, 1, 1, tzinfo=UTC))
    assert (done.transfers, done.digest, done.findings) == (2, trial.digest(), ())
    assert blocks(await auditor.newest(), now=done.ran_at) == ()
    (stale,) = blocks(done, now=done.ran_at + 2 * STALE_AFTER)
    assert "run: baseai books check" in stale.sentence


@pytest.mark.parametrize(
    ("deed", "check"),
    [
        pytest.param("UPDATE transfers SET amount_micros = 99", "checkpoint", id="an amount"),
        pytest.param("DELETE FROM transfers WHERE transfer_id = 'tr_1'", "checkpoint", id="a row is gone"),
        pytest.param("UPDATE transfers SET debit_account = 'nobody'", "chart", id="an account that does not exist"),
        pytest.param("UPDATE limited_sums SET debits = debits - 1", "limit", id="a running sum"),
        pytest.param(
            "UPDATE transfers SET amount_micros = 1000 WHERE debit_account = 'tenant:ten_1:prepaid'", "limit",
            id="a prepayment overdrawn behind the back of its limit",
        ),
    ],
)  # fmt: skip
async def test_whoever_changes_a_row_behind_the_books_is_found(truth: Truth, deed: str, check: str) -> None:
    books = PostgresBooks(truth)
    await books.post(
        [
            fact(),
            transfer("tr_2", 50, debit="asset:cash", credit="tenant:ten_1:prepaid", effective_at=IN_OCTOBER),
            transfer(
                "tr_3", 50, debit="tenant:ten_1:prepaid", credit="revenue:on_demand", effective_at=IN_OCTOBER
            ),
        ]
    )
    await closed(truth)
    async with truth.transaction(PLATFORM) as session:
        await session.execute("RESET ROLE")
        await session.execute(
            "ALTER TABLE transfers DISABLE TRIGGER USER; ALTER TABLE limited_sums DISABLE TRIGGER USER"
        )
        await session.execute(deed)  # type: ignore[arg-type]
        await session.execute(
            "ALTER TABLE transfers ENABLE TRIGGER USER; ALTER TABLE limited_sums ENABLE TRIGGER USER"
        )
        await session.execute("SET ROLE baseai_service")
    found = await Auditor(truth).audit()
    assert check in {finding.check for finding in found.findings}
    assert blocks(found, now=found.ran_at)
