"""What the database reckons is what the pure rules reckon, digit by digit: amounts, rows and their ids."""

from dataclasses import replace
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baseai.finance.postgres import Meter, load_transfers
from baseai.finance.postgres.posting import missing_of
from baseai.ground.money import charge
from baseai.truth.session import Truth
from tests.finance.leased import FlatRates
from tests.finance.site import lease, over, seeded

HOUR_US = 3_600_000_000
rates = st.decimals(min_value=0, max_value=10_000, places=6) | st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places), st.integers(0, 10**28), st.integers(20, 28)
)
spans = st.integers(0, HOUR_US) | st.sampled_from([1, 1800, 3600, 1_800_000_000, HOUR_US, 10 * HOUR_US])
# 1 µs at so much an hour that the amount ends in exactly one half: n + ½ micro-units.
ties = st.builds(lambda whole: (Decimal(whole * 3600 + 1800), 1), st.integers(0, 10**9))


@given(st.tuples(rates, spans) | ties)
def test_an_amount_is_the_exact_one_rounded_half_to_even(case: tuple[Decimal, int]) -> None:
    rate, us = case
    with localcontext() as context:
        context.prec = 200
        exact = rate * us / 3600
        expected = int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))
    assert charge(rate, micro_seconds=us, currency="USD").micros == expected


def test_a_rate_with_many_digits_just_above_a_half_rounds_up() -> None:
    """Reckoned with forty digits this would look like a tie and go down to the even neighbour."""
    rate = Decimal(f"1800.{'0' * 44}1")
    assert charge(rate, micro_seconds=1, currency="USD").micros == 1
    assert charge(Decimal(1800), micro_seconds=1, currency="USD").micros == 0


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cases=st.lists(st.tuples(rates, spans) | ties, min_size=20, max_size=100))
def test_the_database_charges_the_same(dsn: str, cases: list[tuple[Decimal, int]]) -> None:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT charge(rate, us) FROM unnest(%s::numeric[], %s::bigint[]) AS c (rate, us)",
            ([rate for rate, _ in cases], [us for _, us in cases]),
        ).fetchall()
    assert [micros for (micros,) in rows] == [
        charge(rate, micro_seconds=us, currency="USD").micros for rate, us in cases
    ]


@pytest.mark.anyio
async def test_the_rows_that_the_database_writes_are_those_of_the_pure_rules(truth: Truth) -> None:
    """Attempts that share an hour, one not billed, parts of hours, several accelerators, a round, odd rates."""
    start = await seeded(truth)
    odd = FlatRates(
        price_per_hour=Decimal("2.9876543"),
        depreciation=Decimal("0.7134703196347031963470319635"),
        energy=Decimal("0.1352"),
        colocation=Decimal("0"),
    )
    async with truth.transaction() as session:
        await session.execute("UPDATE accelerators SET round_id = 'rnd_1' WHERE accelerator_id = 'acc_2'")
    hour = timedelta(hours=1)
    one = await lease(truth, "run_1", (start + 0.3 * hour, start + 1.2345678 * hour), accelerator_nos=(1, 2))
    meter = Meter(truth, odd)
    await over(truth, one, start + 1.2345678 * hour, "node_lost")
    two = await lease(
        truth, "run_1", (start + 1.5 * hour, start + 3.7 * hour), attempt_no=2, accelerator_nos=(2, 3)
    )
    await over(truth, two, start + 3.7 * hour, "finished", run_state="succeeded")
    await lease(
        truth, "run_2", (start, start + 2 * hour), tenant=2, accelerator_nos=(4,), ended="finished",
        run_state="succeeded",
    )  # fmt: skip
    await meter.meter()
    async with truth.transaction() as session:
        expected = await missing_of(session, ["run_1", "run_2"], odd)
    assert len(expected) > 15
    assert any(one.round_id == "rnd_1" for one in expected)
    assert any(one.note is not None for one in expected)
    await meter.post()
    written = {one.transfer_id: one for one in await load_transfers(truth, limit=1000)}
    assert {key: _plain(one.unit_price) for key, one in written.items()} == {
        one.transfer_id: _plain(one.unit_price) for one in expected
    }
    assert {key: replace(one, unit_price=None) for key, one in written.items()} == {
        one.transfer_id: replace(one, unit_price=None) for one in expected
    }
    assert (await meter.recompute()).missing == ()


def _plain(rate: Decimal | None) -> Decimal | None:
    return None if rate is None else rate.normalize()
