"""A month of 200 accelerators, three sites, two currencies closes, and its figures agree with what happened."""

import asyncio
import csv
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from baseai.finance.bucket import Bucket
from baseai.finance.contracts.postgres import UsageEvents
from baseai.finance.focus.check import check
from baseai.finance.focus.rule import Dataset
from baseai.finance.hours.postgres import load_time
from baseai.finance.hours.sum import TimeBy
from baseai.truth.embedded import Embedded
from baseai.truth.session import Scope, Truth, fetch_all
from baseai.wiring.household import Household
from baseai.wiring.rooms import Rooms
from tests.postgres import database
from tests.scenarios.month import BEGIN, END, MONTH, Recorded, recorded
from tests.scenarios.reckoning import HOUR_US, available, installed_us, reckoned, sold_us, used_in
from tests.scenarios.recorded import CUSTOMERS, agreed, first_half, second_half, spooled, tell_tokens

pytestmark = pytest.mark.anyio

NODES = int(os.environ.get("BASEAI_MONTH_NODES", "6"))  # of 8; the bench takes all 25
FINANCE = Scope(tenant_id=None, actor="key of finance")
TAKEN_BACK = """
SELECT substr(tenant_id, 5) AS tenant, category, currency,
  to_char(effective_from AT TIME ZONE 'America/Sao_Paulo', 'YYYY-MM') AS month, count(*) AS lines
FROM rated_lines WHERE corrects IS NOT NULL GROUP BY 1, 2, 3, 4
"""
NO_FINDINGS: list[dict[str, str]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The month when it is closed, before anything came late."""

    truth: Truth
    rooms: Rooms
    month: Recorded
    closed: dict[str, Any]


@pytest.fixture(scope="module")
async def world(embedded: Embedded, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    with database(embedded, "recorded_month") as dsn:
        truth = Truth(dsn, connections_max=6)
        await truth.open()
        household = Household(data=tmp_path_factory.mktemp("month") / "home")
        household.make()
        rooms, month = Rooms(truth, household), recorded(nodes=NODES)
        await first_half(truth, month)
        await agreed(truth, rooms.agreements, month)
        await tell_tokens(truth, month, second=False)
        await booked(rooms, Rooms(truth, household))
        await booked(rooms)  # what one copy left to the other is done in the next round
        await second_half(truth, month)
        await tell_tokens(truth, month, second=True)
        await booked(rooms)
        await rooms.ledger.close(str(MONTH.before()), FINANCE)
        closed = await rooms.ledger.close(str(MONTH), FINANCE)
        yield World(truth=truth, rooms=rooms, month=month, closed=closed)
        await truth.close()


async def booked(*platforms: Rooms) -> None:
    """What the controller's loop does of money, by copies of it beside each other."""

    async def once(rooms: Rooms) -> None:
        await rooms.meter.meter()
        await rooms.agreements.rater.rate()
        await rooms.meter.post()

    await asyncio.gather(*(once(rooms) for rooms in platforms))


async def rows(world: World, query: str, given: Iterable[Any] = ()) -> list[dict[str, Any]]:
    async with world.truth.transaction() as session:
        return list(await fetch_all(session, query, tuple(given)))


async def test_the_month_closes(world: World) -> None:
    assert world.closed["findings"] == NO_FINDINGS
    assert world.closed["state"] == "closed"
    assert len(world.month.nodes) == NODES


async def test_every_customer_is_charged_what_its_seconds_come_to(world: World) -> None:
    found = await rows(
        world,
        "SELECT substr(tenant_id, 5) AS tenant, category, currency,"
        " to_char(effective_from AT TIME ZONE 'America/Sao_Paulo', 'YYYY-MM') AS month,"
        " sum(amount_micros)::bigint AS micros FROM rated_lines WHERE category <> 'unbilled' GROUP BY 1, 2, 3, 4",
    )
    rated = {(r["tenant"], r["category"], r["currency"], r["month"]): r["micros"] for r in found}
    expected = reckoned(world.month)
    assert rated.keys() == expected.keys()
    # Each line that was taken back may have been rounded up or down, and took that with it.
    slack: dict[tuple[str, ...], int] = defaultdict(int)
    for r in await rows(world, TAKEN_BACK):
        slack[r["tenant"], r["category"], r["currency"], r["month"]] = r["lines"]
    slack["gama", "commitment", "BRL", "2026-10"] = slack[
        "gama", "reserved", "BRL", "2026-10"
    ]  # what is left of it
    apart = {key: rated[key] - micros for key, micros in expected.items() if rated[key] != micros}
    assert all(abs(micros) <= slack[key] for key, micros in apart.items()), apart


async def test_the_books_hold_what_was_rated_and_balance(world: World) -> None:
    trial = await world.rooms.ledger.trial_balance(FINANCE)
    assert trial["difference"] == 0
    lines = await rows(
        world,
        "SELECT category, currency, sum(amount_micros)::bigint AS micros FROM rated_lines"
        " WHERE category <> 'unbilled' GROUP BY 1, 2",
    )
    earned = {
        (line["account"].removeprefix("revenue:"), line["currency"]): int(-line["balance"] * 1_000_000)
        for line in trial["balances"]
        if line["account"].startswith("revenue:")
    }
    assert earned == {(line["category"], line["currency"]): line["micros"] for line in lines}


async def test_every_second_of_every_accelerator_stands_in_one_bucket(world: World) -> None:
    expected = installed_us(world.month)
    found = await rows(
        world,
        "SELECT n.site_id, a.model, sum(b.micro_seconds)::bigint AS us FROM time_buckets b"
        " JOIN accelerators a USING (accelerator_no) JOIN nodes n USING (node_id)"
        " WHERE b.replaced_at IS NULL AND b.hour >= %s AND b.hour < %s GROUP BY 1, 2",
        (BEGIN, END),
    )
    assert {(row["site_id"], row["model"]): row["us"] for row in found} == expected
    report = await load_time(world.truth, BEGIN, END, by=TimeBy.SITE)
    assert report.withheld == ()
    sums: dict[Bucket, int] = defaultdict(int)
    for one in report.sums:
        sums[one.bucket] += one.micro_seconds
    assert sum(sums.values()) == sum(expected.values())
    assert set(sums) == set(
        Bucket
    )  # nothing that can be of an accelerator's time was missing from this month
    sold = (Bucket.ON_DEMAND, Bucket.RESERVED, Bucket.SPOT, Bucket.RESEARCH)
    assert sum(sums[bucket] for bucket in sold) == sold_us(world.month)


async def test_what_is_metered_is_what_agents_saw(world: World) -> None:
    (row,) = await rows(
        world,
        "SELECT sum(micro_seconds) FILTER (WHERE run_id <> 'run_burn-in')::bigint AS us, count(*) AS lines,"
        " count(DISTINCT accelerator_no) AS accelerators FROM usage_lines",
    )
    seen = [one for run in world.month.runs for ours in (True, False) for one in used_in(run, billable=ours)]
    assert row["us"] == sum(one.us for one in seen)


async def test_openmeter_2837_a_line_is_billed_for_no_longer_than_it_was_used(world: World) -> None:
    """There the billable period of a charge was longer than the period of the service."""
    wrong = await rows(
        world,
        "SELECT r.rated_id FROM rated_lines r JOIN usage_lines u ON u.line_id = r.usage_id"
        " WHERE r.effective_from < u.from_at OR r.effective_until > u.to_at"
        " OR to_char(r.effective_from AT TIME ZONE 'America/Sao_Paulo', 'YYYY-MM') > r.period",
    )
    assert wrong == []


async def test_an_availability_below_the_promise_comes_back_as_a_credit_that_names_its_events(
    world: World,
) -> None:
    (credit,) = await rows(world, "SELECT * FROM rated_lines WHERE category = 'credit'")
    kept = available(world.month)
    assert f"available {float(kept):.4f}"[:14] in credit["note"]
    assert credit["contract_id"] in {
        row["contract_id"] for row in await rows(world, "SELECT * FROM contracts")
    }


async def test_what_is_used_and_what_is_not_of_a_commitment_come_to_its_price(world: World) -> None:
    (row,) = await rows(
        world,
        "SELECT sum(amount_micros)::bigint AS micros FROM rated_lines WHERE category IN ('reserved', 'commitment')"
        " AND effective_from < %s",
        (END,),
    )
    assert row["micros"] == world.month.committed() * (END - BEGIN) // timedelta(hours=1) * 12_900_000


async def test_what_was_billed_of_a_lost_node_was_taken_back(world: World) -> None:
    backs = await rows(
        world,
        "SELECT b.amount_micros + r.amount_micros AS left_over, b.note FROM rated_lines b"
        " JOIN rated_lines r ON r.rated_id = b.corrects",
    )
    assert {row["note"] for row in backs} >= {
        "its attempt is not billable",
        f"corrected by {correction_id(world)}",
    }
    assert {row["left_over"] for row in backs} == {0}


def correction_id(world: World) -> str:
    return world.month.correction.usage_id


# ---- documents ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """Every document of both months, what each customer owes once they are issued, and the FOCUS files of October."""

    invoices: list[dict[str, Any]]
    owed: dict[tuple[str, str], int]  # tenant, currency → micro-units
    folder: Path


@pytest.fixture(scope="module")
async def papers(world: World, tmp_path_factory: pytest.TempPathFactory) -> Papers:
    issued = [
        row
        for month in (MONTH.before(), MONTH)
        for tenant in CUSTOMERS
        for row in await world.rooms.documents.issue(tenant, str(month), actor="finance")
    ]
    trial = await world.rooms.ledger.trial_balance(FINANCE)
    assert trial["difference"] == 0
    owed = {
        (line["account"].split(":")[1].removeprefix("ten_"), line["currency"]): int(
            line["balance"] * 1_000_000
        )
        for line in trial["balances"]
        if line["account"].endswith(":receivable")
    }
    folder = tmp_path_factory.mktemp("focus")
    await world.rooms.documents.export_focus(FINANCE, str(MONTH), folder)
    return Papers(invoices=issued, owed=owed, folder=folder)


async def test_invoices_and_trial_balance_agree_to_the_cent(world: World, papers: Papers) -> None:
    """What a customer owes is what its documents ask for, in its currency, and what November has rated so far."""
    expected: dict[tuple[str, str], int] = defaultdict(int)
    for invoice in papers.invoices:
        tenant = invoice["customer"]["tenant_id"].removeprefix("ten_")
        assert invoice["currency"] == CUSTOMERS[tenant][3]
        expected[tenant, invoice["currency"]] += invoice["total_cents"] * 10_000
    for row in await rows(
        world,
        "SELECT substr(tenant_id, 5) AS tenant, currency, sum(amount_micros)::bigint AS micros FROM rated_lines"
        " WHERE category <> 'unbilled' AND period > %s GROUP BY 1, 2",
        (str(MONTH),),
    ):
        expected[row["tenant"], row["currency"]] += row["micros"]
    assert {key: micros for key, micros in papers.owed.items() if micros} == {
        key: micros for key, micros in expected.items() if micros
    }


async def test_focus_files_pass_their_check_and_sum_to_the_invoices(papers: Papers) -> None:
    with ExitStack() as opened:
        report = check(
            {name: opened.enter_context((papers.folder / name.file).open(newline="")) for name in Dataset}
        )
    assert report.passes, [str(finding) for finding in report.findings[:5]]
    billed: dict[str, Decimal] = defaultdict(Decimal)
    with (papers.folder / Dataset.COST_AND_USAGE.file).open(newline="") as file:
        for row in csv.DictReader(file):
            billed[row["InvoiceId"]] += Decimal(row["BilledCost"])
    documents = {one["invoice_id"]: one["total"] for one in papers.invoices if one["period"] == str(MONTH)}
    assert dict(billed) == documents


async def test_every_line_of_an_invoice_goes_down_to_runs_leases_and_serials(
    world: World, papers: Papers
) -> None:
    hall = {one.serial: (node.site, node.model) for node in world.month.nodes for one in node.accelerators}
    lines = [
        line
        for invoice in papers.invoices
        for line in invoice["lines"]
        if line["meter"] == "accelerator_time"
    ]
    walked = [line for line in lines if line["category"] in ("on_demand", "reserved", "spot", "research")]
    assert walked
    for line in walked:
        assert {hall[one["serial"]] for one in line["behind"]} == {(line["site_id"], line["model"])}
        assert sum(one["micros"] for one in line["behind"]) == line["priced_micros"]
        assert all(one["lease_id"].startswith(f"lea_{one['run']}") for one in line["behind"])


async def test_lago_api_4436_what_was_taken_back_before_the_invoice_stands_on_it_once(
    world: World, papers: Papers
) -> None:
    """There a credit was counted again by the documents that came after it."""
    backs = await rows(
        world,
        "SELECT count(*) AS lines, count(DISTINCT i.rated_id) AS once FROM rated_lines r"
        " JOIN invoiced_lines i USING (rated_id) WHERE r.corrects IS NOT NULL",
    )
    assert papers.invoices
    assert backs[0]["lines"] == backs[0]["once"] > 0


# ---- what comes late ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def afterwards(world: World, papers: Papers) -> World:
    """A gateway and a node are heard again when the month is closed and billed."""
    await UsageEvents(world.truth).record([world.month.late_event])
    await spooled(world.truth, world.month.late_run)
    await booked(world.rooms)
    await world.rooms.agreements.rater.close_month("gama-reserved", MONTH)
    await world.rooms.meter.post()
    return world


async def test_a_late_fact_lands_in_the_open_month_and_keeps_its_date(afterwards: World) -> None:
    late = await rows(
        afterwards,
        "SELECT r.category, sum(r.amount_micros)::bigint AS micros, min(t.period) AS posted_in,"
        " max(t.effective_at) AS effective_at FROM rated_lines r"
        " JOIN transfers t ON t.transfer_id = 'tr_' || substr(r.rated_id, 4)"
        " WHERE r.effective_from < %s AND r.period > %s GROUP BY 1",
        (END, str(MONTH)),
    )
    assert {row["posted_in"] for row in late} == {str(MONTH.next())}
    assert all(BEGIN <= row["effective_at"] < END for row in late)
    micros = {row["category"]: row["micros"] for row in late}
    us = sum(used.us for used in used_in(afterwards.month.late_run))
    # A running total goes on where it stood, so its last micro-unit is rounded there.
    assert abs(micros["reserved"] - us * 12_900_000 / HOUR_US) <= 1
    assert micros["commitment"] == -micros["reserved"]  # it was paid already, as not used
    assert abs(micros["on_demand"] - afterwards.month.late_event.quantity * 4.2) <= 1


async def test_the_closed_month_is_what_it_was(afterwards: World) -> None:
    again = await afterwards.rooms.ledger.close(str(MONTH), FINANCE)
    assert again == afterwards.closed
    checked = await afterwards.rooms.ledger.check()
    assert checked["findings"] == NO_FINDINGS


async def test_the_hours_of_a_late_run_are_counted_anew_and_still_add_up(afterwards: World) -> None:
    done = await afterwards.rooms.time.close()
    assert done.failing == ()
    assert done.revised > 0
    report = await load_time(afterwards.truth, BEGIN, END, by=TimeBy.SITE)
    assert report.withheld == ()
    assert sum(one.micro_seconds for one in report.sums) == sum(installed_us(afterwards.month).values())
    assert report.revised > 0


async def test_flexprice_612_what_came_late_is_asked_for_by_a_supplement_that_names_the_invoice(
    afterwards: World, papers: Papers
) -> None:
    """There a backfill left invoices as they were. November is not over, so its draft says what will be asked."""
    (draft,) = await afterwards.rooms.documents.drafts(FINANCE, "zeta", str(MONTH.next()))
    (line,) = [line for line in draft["lines"] if line["of_period"] == str(MONTH)]
    assert line["priced_micros"] > 0
