"""Rating in the truth: each use once, at its contract's price, and taken back when it turns out not to be billable."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from baseai.finance.contract import Commitment, Contract, months_after
from baseai.finance.contracts.postgres import Agreements, Rater, UsageEvents
from baseai.finance.contracts.postgres.events import record_events
from baseai.finance.contracts.postgres.rated_rows import load_rated
from baseai.finance.customer import Customer
from baseai.finance.meter import UsageLine
from baseai.finance.period import Calendar, Period, period_of
from baseai.finance.postgres import Meter
from baseai.finance.postgres.books import load_calendar
from baseai.finance.price_list import Price, PriceBook, Term
from baseai.finance.rated import Category, RatedLine
from baseai.finance.rating import Rating, rate
from baseai.finance.sla import Promise, Step, availability
from baseai.finance.usage_event import UsageEvent
from baseai.finance.use import uses_of
from baseai.ground.fault import Conflict, Refused
from baseai.truth.session import Scope, Truth, fetch_all
from tests.finance.agreed import amounts, price
from tests.finance.leased import FlatRates
from tests.finance.site import lease, over, seeded

pytestmark = pytest.mark.anyio

LIST = price("p_list", "2", model="cpu-slot")
TOKENS = price("p_tokens", "3", meter="tokens_out", unit="million_tokens", model="llama")


async def metered(
    truth: Truth, hours: float = 3, *, ended: str | None = "finished", run: str = "run_1"
) -> datetime:
    """One lease of two slots, measured."""
    start = await seeded(truth)
    await lease(truth, run, (start, start + timedelta(hours=hours)), accelerator_nos=(1, 2), ended=ended)
    await Meter(truth, FlatRates()).meter()
    return start


def rater(truth: Truth, *prices: Price) -> Rater:
    return Rater(truth, load_calendar, lambda: prices)


async def agreed(truth: Truth, **said: Any) -> Contract:
    """A customer for tenant 1 with one contract."""
    desk = Agreements(truth)
    await desk.add_customer(
        Customer(
            customer_id="cus_1",
            tenant_id="ten_1",
            legal_name="Alfa S.A.",
            country="BR",
            tax_id="12ABC34501DE35",
            currency="USD",
        ),
        actor="test",
    )
    facts: dict[str, Any] = {
        "contract_id": "con_1",
        "name": "alfa",
        "customer_id": "cus_1",
        "tenant_id": "ten_1",
        "term": Term.ON_DEMAND,
        "currency": "USD",
        "from_at": datetime(2020, 1, 1, 3, tzinfo=UTC),
    }
    return await desk.add_contract(Contract(**facts | said), actor="test")


async def lines_of(truth: Truth) -> list[RatedLine]:
    found = await load_rated(truth, limit=1000)
    return sorted(found, key=lambda line: (line.recorded_at, line.effective_from, line.rated_id))


def total(lines: Sequence[RatedLine]) -> int:
    return sum(line.amount_micros for line in lines)


async def test_what_is_measured_is_rated_once(truth: Truth) -> None:
    await metered(truth)
    one, other = rater(truth, LIST), rater(truth, LIST)
    done = await one.rate()
    assert (done.uses, done.lines, done.unrated) == (6, 6, ())
    assert (await one.rate()).lines == (await other.rate()).lines == 0
    assert amounts(await lines_of(truth)) == [(Category.ON_DEMAND, "2")] * 6


async def test_the_truth_holds_the_lines_that_rating_gives(truth: Truth) -> None:
    """Written by a join in the database, made by `Rating.lines`: the same rows."""
    start = await metered(truth, 2.5)
    turn = start + timedelta(minutes=100)
    before = (datetime(2020, 1, 1, tzinfo=UTC), turn)
    prices = [
        price("p_old", model="cpu-slot", valid=before, tiers=[("0", "3"), ("1.25", "1.7")]),
        price("p_new", "7", model="cpu-slot", valid=(turn, None)),
    ]
    await rater(truth, *prices).rate()
    async with truth.transaction() as session:
        columns = ", ".join(UsageLine.__dataclass_fields__)
        rows = await fetch_all(session, f'SELECT {columns} FROM usage_lines ORDER BY line_id COLLATE "C"')
    made = rate(uses_of([UsageLine(**row) for row in rows]), (), PriceBook(prices), calendar=Calendar())
    assert isinstance(made, Rating)
    written = {line.rated_id: line for line in await lines_of(truth)}
    assert len(written) > 6
    for line in made.lines(recorded_at=start):
        assert replace(written[line.rated_id], recorded_at=start) == line


async def test_volume_goes_on_where_the_last_batch_ended(truth: Truth) -> None:
    await metered(truth, 2)
    tiered = price("p_list", model="cpu-slot", tiers=[("0", "3"), ("5", "1")])
    await rater(truth, tiered).rate()
    async with truth.transaction() as session:
        (row,) = await fetch_all(session, "SELECT released_at AS at FROM leases")
    await lease(
        truth, "run_2", (row["at"], row["at"] + timedelta(hours=2)), accelerator_nos=(3,), ended="finished"
    )
    await Meter(truth, FlatRates()).meter()
    await rater(truth, tiered).rate()
    lines = await lines_of(truth)
    assert total(lines) == (5 * 3 + 1) * 1_000_000
    assert {line.tier for line in lines if line.run_id == "run_2"} == {0, 1}


async def test_over_a_commitment_it_is_on_demand_also_in_a_later_batch(truth: Truth) -> None:
    start = await metered(truth, 1)
    await agreed(
        truth,
        term=Term.RESERVED,
        from_at=datetime(2026, 1, 1, 3, tzinfo=UTC),
        until_at=datetime(2028, 1, 1, 3, tzinfo=UTC),
        commitments=(Commitment(model="cpu-slot", count=3),),
    )
    prices = (LIST, price("p_reserved", "1", model="cpu-slot", term=Term.RESERVED))
    await rater(truth, *prices).rate()
    await lease(truth, "run_2", (start, start + timedelta(hours=1)), accelerator_nos=(3, 4), ended="finished")
    await Meter(truth, FlatRates()).meter()
    await rater(truth, *prices).rate()
    assert (
        sorted(amounts(await lines_of(truth))) == [(Category.ON_DEMAND, "2")] + [(Category.RESERVED, "1")] * 3
    )


async def test_what_has_no_price_waits_for_one_and_holds_nobody_up(truth: Truth) -> None:
    await metered(truth, 1)
    await lease(
        truth, "run_2", (await _start(truth), await _start(truth) + timedelta(hours=1)), accelerator_nos=(3,),
        model="h100", ended="finished",
    )  # fmt: skip
    await Meter(truth, FlatRates()).meter()
    done = await rater(truth, LIST).rate()
    assert [error.rule for error in done.unrated] == ["no_price"]
    assert amounts(await lines_of(truth)) == [(Category.ON_DEMAND, "2")] * 2
    async with truth.transaction() as session:
        await session.execute("SET LOCAL ROLE NONE")
        await session.execute("UPDATE unrated SET tried_at = now() - interval '2 minutes'")
    assert (await rater(truth, LIST, price("p_h100", "4")).rate()).lines == 1
    assert total(await lines_of(truth)) == 8_000_000


async def _start(truth: Truth) -> datetime:
    async with truth.transaction() as session:
        (row,) = await fetch_all(session, "SELECT min(granted_at) AS at FROM leases")
    at = row["at"]
    assert isinstance(at, datetime)
    return at


async def test_an_attempt_that_turns_out_not_to_be_billable_is_taken_back(truth: Truth) -> None:
    start = await metered(truth, 2.5, ended=None)
    await rater(truth, LIST).rate()
    assert total(await lines_of(truth)) == 8_000_000
    await over(truth, "lea_run_1_1", start + timedelta(hours=2.5), "node_lost", run_state="failed")
    await Meter(truth, FlatRates()).meter()
    done = await rater(truth, LIST).rate()
    assert done.taken_back == 4
    lines = await lines_of(truth)
    assert total(lines) == 0
    assert {line.note for line in lines if line.corrects} == {"its attempt is not billable"}
    assert {line.category for line in lines if line.quantity < 3_600_000_000 and not line.corrects} == {
        Category.UNBILLED
    }
    assert (await rater(truth, LIST).rate()).taken_back == 0


# ---- events of other meters -----------------------------------------------------------------------------------


async def tokens(truth: Truth, event_id: str, quantity: int = 1_000_000, **said: Any) -> UsageEvent:
    async with truth.transaction() as session:
        (row,) = await fetch_all(session, "SELECT now() AS now")
    facts: dict[str, Any] = {
        "source": "gateway",
        "event_id": event_id,
        "tenant_id": "ten_1",
        "project_id": "prj_1",
        "meter": "tokens_out",
        "quantity": quantity,
        "unit": "tokens",
        "from_at": row["now"],
        "until_at": row["now"],
        "model": "llama",
    }
    return UsageEvent(**facts | said)


async def kept(truth: Truth) -> int:
    async with truth.transaction() as session:
        (row,) = await fetch_all(session, "SELECT count(*) AS count FROM usage_events")
    return int(row["count"])


async def test_openmeter_5118_a_try_that_failed_has_claimed_nothing(truth: Truth) -> None:
    """The claim of the id and the write are one transaction: after a crash between the two the retry is the first."""
    await seeded(truth)
    event = await tokens(truth, "e1")

    async def cut_short() -> None:
        async with truth.transaction() as session:
            await record_events(session, [event])
            raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError, match="power"):
        await cut_short()
    assert await kept(truth) == 0
    recorded = await UsageEvents(truth).record([event])
    assert (recorded.new, recorded.repeated) == (1, 0)
    await rater(truth, TOKENS).rate()
    assert total(await lines_of(truth)) == 3_000_000


async def test_openmeter_5118_a_crash_while_rating_rates_once(truth: Truth) -> None:
    await seeded(truth)
    await UsageEvents(truth).record([await tokens(truth, "e1")])

    class Crash(Exception):
        """The process dies after the claim, before the commit."""

    def dies() -> Sequence[Price]:
        raise Crash

    with pytest.raises(Crash):
        await Rater(truth, load_calendar, dies).rate()
    await rater(truth, TOKENS).rate()
    await rater(truth, TOKENS).rate()
    assert amounts(await lines_of(truth)) == [(Category.ON_DEMAND, "3")]


async def test_flexprice_602_the_same_event_again_is_harmless(truth: Truth) -> None:
    await seeded(truth)
    event = await tokens(truth, "e1")
    other = await tokens(truth, "e2", from_at=event.from_at, until_at=event.from_at)
    assert (await UsageEvents(truth).record([event, other, event])).new == 2
    assert (await UsageEvents(truth).record([other, event])).repeated == 2
    await rater(truth, TOKENS).rate()
    assert total(await lines_of(truth)) == 6_000_000


async def test_flexprice_605_another_body_under_a_known_id_keeps_nothing_of_its_group(truth: Truth) -> None:
    await seeded(truth)
    event = await tokens(truth, "e1")
    await UsageEvents(truth).record([event])
    with pytest.raises(Conflict, match="event e1 of gateway is known with another body; nothing"):
        await UsageEvents(truth).record([await tokens(truth, "e2"), replace(event, quantity=7)])
    assert await kept(truth) == 1


async def test_flexprice_612_late_and_reordered_events_come_to_the_same(truth: Truth) -> None:
    await seeded(truth)
    events = [await tokens(truth, f"e{n}", 333_333 + n) for n in range(6)]
    for event in reversed(events):
        await UsageEvents(truth).record([event])
        await rater(truth, TOKENS).rate()
    assert total(await lines_of(truth)) == round(Decimal(sum(one.quantity for one in events)) * 3)


async def test_flexprice_612_a_correction_leaves_its_trail(truth: Truth) -> None:
    await seeded(truth)
    events = UsageEvents(truth)
    await events.record([await tokens(truth, "e1")])
    await rater(truth, TOKENS).rate()
    await events.record([await tokens(truth, "e2", 400_000, corrects="e1")])
    await rater(truth, TOKENS).rate()
    lines = await lines_of(truth)
    assert sorted(line.amount_micros for line in lines) == [-3_000_000, 1_200_000, 3_000_000]
    (back,) = [line for line in lines if line.corrects]
    assert "corrected by uev_" in (back.note or "")
    await events.record([await tokens(truth, "e3", 0, corrects="e2")])
    await rater(truth, TOKENS).rate()
    assert total(await lines_of(truth)) == 0


async def test_a_correction_that_comes_before_rating_stands_for_the_event(truth: Truth) -> None:
    await seeded(truth)
    await UsageEvents(truth).record(
        [await tokens(truth, "e2", 400_000, corrects="e1"), await tokens(truth, "e1")]
    )
    await rater(truth, TOKENS).rate()
    assert amounts(await lines_of(truth)) == [(Category.ON_DEMAND, "1.2")]


async def test_an_event_is_corrected_by_one_other_event(truth: Truth) -> None:
    await seeded(truth)
    await UsageEvents(truth).record([await tokens(truth, "e1"), await tokens(truth, "e2", 1, corrects="e1")])
    with pytest.raises(Conflict, match="e3 of gateway corrects e1, which another one corrects"):
        await UsageEvents(truth).record([await tokens(truth, "e3", 2, corrects="e1")])
    with pytest.raises(Refused, match="corrects e9, which is not known"):
        await UsageEvents(truth).record([await tokens(truth, "e4", 2, corrects="e9")])


async def test_polar_5345_what_is_older_than_its_meter_is_not_billed(truth: Truth) -> None:
    await seeded(truth)
    event = await tokens(truth, "e1")
    old = replace(event, from_at=event.from_at - timedelta(days=1))
    with pytest.raises(Refused, match="before its meter began at"):
        await UsageEvents(truth).record([event, old])
    assert await kept(truth) == 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param({"unit": "million_tokens"}, "counts tokens, not 'million_tokens'", id="a wrong unit"),
        pytest.param({"meter": "steps"}, "no meter 'steps'", id="no meter"),
        pytest.param({"meter": "accelerator_time", "unit": "us"}, "never told by an event", id="leases' own"),
        pytest.param({"quantity": 0}, "only a correction may be 0", id="nothing"),
        pytest.param({"until_at": datetime(2999, 1, 1, tzinfo=UTC)}, "is to come", id="the future"),
    ],
)
async def test_killbill_2013_an_event_that_cannot_be_is_refused_by_name(
    truth: Truth, said: dict[str, Any], why: str
) -> None:
    await seeded(truth)
    with pytest.raises(Refused, match=f"event e1 of gateway.*{why}"):
        await UsageEvents(truth).record([await tokens(truth, "e1", **said)])


async def test_a_late_event_of_a_closed_month_is_booked_in_an_open_one(truth: Truth) -> None:
    await seeded(truth)
    event = await tokens(truth, "e1")
    month = period_of(event.from_at)
    async with truth.transaction() as session:
        await session.execute(
            "INSERT INTO periods (period, state, began_at, began_by, closed_at, closed_by)"
            " VALUES (%s, 'closed', now(), 'test', now(), 'test')",
            (str(month),),
        )
    await UsageEvents(truth).record([event])
    await rater(truth, TOKENS).rate()
    (line,) = await lines_of(truth)
    assert (line.period, line.effective_from) == (str(month.next()), event.from_at)


# ---- the end of a month ---------------------------------------------------------------------------------------


async def test_a_month_is_closed_for_a_contract_once_with_its_credit(truth: Truth) -> None:
    """Four slots stand from the first day of March on; the node is away for 72 of its 744 hours."""
    await metered(truth, 1)
    await agreed(
        truth,
        term=Term.RESERVED,
        from_at=datetime(2026, 1, 1, 3, tzinfo=UTC),
        until_at=datetime(2027, 1, 1, 3, tzinfo=UTC),
        commitments=(Commitment(model="cpu-slot", count=2),),
        promise=Promise(steps=(Step(below_ratio=Decimal("0.99"), credit_ratio=Decimal("0.1")),)),
    )
    async with truth.transaction() as session:
        await session.execute("UPDATE accelerators SET installed_at = '2026-03-01T03:00Z'")
        for at, before, after in (("03-10", "ready", "quarantined"), ("03-13", "quarantined", "ready")):
            await session.execute(
                "INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor)"
                " VALUES (%s::timestamptz, 'node', 'nod_1', 'moved', %s, %s, 'test')",
                (f"2026-{at}T12:00Z", before, after),
            )
    desk = rater(truth, LIST, price("p_reserved", "1", model="cpu-slot", term=Term.RESERVED))
    lines = await desk.close_month("alfa", Period(2026, 3))
    assert amounts(lines) == [(Category.COMMITMENT, "1488"), (Category.CREDIT, "-148.8")]
    assert "available 0.903225806 of the month" in (lines[-1].note or "")
    assert await desk.close_month("alfa", Period(2026, 3)) == ()
    events = await Agreements(truth).seat_events("alfa")
    ours = availability(events, subjects=sorted({one.subject for one in events}), period=Period(2026, 3))
    assert ours.ratio == Decimal("0.903225806")


async def test_a_month_that_goes_on_is_not_closed_for_a_contract(truth: Truth) -> None:
    await seeded(truth)
    await agreed(truth)
    with pytest.raises(Refused, match="is not over for contract alfa"):
        await rater(truth, LIST).close_month("alfa", Period(2125, 12))


async def test_a_tenant_sees_only_its_own_lines(truth: Truth) -> None:
    await metered(truth, 1)
    await rater(truth, LIST).rate()
    assert len(await load_rated(truth, Scope(tenant_id="ten_1", actor="t"))) == 2
    assert await load_rated(truth, Scope(tenant_id="ten_2", actor="t")) == ()


async def test_use_that_nobody_rated_stands_against_closing_its_month(truth: Truth) -> None:
    start = await metered(truth)
    month = period_of(start)
    (finding,) = await rater(truth).against(month)
    assert finding.check == "rated"
    assert "use_run_1_1-1-" in finding.sentence
    await rater(truth, LIST).rate()
    assert await rater(truth, LIST).against(month) == ()


async def test_a_contract_that_cannot_be_ended_is_named_and_holds_up_no_other(truth: Truth) -> None:
    await seeded(truth)
    month = Period(2025, 10)
    await agreed(
        truth, name="priceless", term=Term.RESERVED, from_at=month.starts_at(),
        until_at=months_after(month.starts_at(), 12), commitments=(Commitment(model="cpu-slot", count=1),),
    )  # fmt: skip
    await Agreements(truth).add_contract(
        Contract(
            contract_id="con_2", name="least", customer_id="cus_1", tenant_id="ten_1", term=Term.ON_DEMAND,
            currency="USD", from_at=month.starts_at(), minimum_micros=5_000_000,
        ),
        actor="test",
    )  # fmt: skip
    (finding,) = await rater(truth, LIST).close_months(month)
    assert finding.check == "contract"
    assert finding.sentence.startswith("priceless of 2025-10: no reserved price of cpu-slot")
    (line,) = await load_rated(truth)
    assert (line.category, line.amount_micros) == (Category.MINIMUM, 5_000_000)
