"""What every keeper of the books holds, in memory and on PostgreSQL alike."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from baseai.finance.account import Balance
from baseai.finance.books import Books, post_apart
from baseai.finance.chart import DimensionMissing, Overdrawn, UnknownAccount, WrongCurrency
from baseai.finance.exchange import ExchangeRate, exchange
from baseai.finance.memory import MemoryBooks
from baseai.finance.postgres import PostgresBooks
from baseai.finance.transfer import Kind, Transfer, reversal_of
from baseai.ground.fault import Conflict, Fault
from tests.finance.leased import after, transfer

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "postgres"])
def books(request: pytest.FixtureRequest) -> Books:
    return MemoryBooks() if request.param == "memory" else PostgresBooks(request.getfixturevalue("truth"))


async def energy(books: Books, hours: float = 99) -> tuple[int, int]:
    """What the energy account holds: posted, and reserved."""
    (row,) = await books.balance("cost:energy", after(hours)) or (
        Balance(account="cost:energy", currency="USD", debits_micros=0, credits_micros=0),
    )
    return row.balance_micros(), row.pending_debits_micros


async def test_a_transfer_debits_one_account_and_credits_the_other(books: Books) -> None:
    assert await books.post([transfer(amount_micros=7)]) == 1
    assert (await books.balance("cost:energy", after()))[0].balance_micros() == 7
    assert (await books.balance("payable:energy", after()))[0].balance_micros() == -7
    assert await books.balance("nobody", after()) == ()


async def test_the_same_transfer_again_changes_nothing(books: Books) -> None:
    assert await books.post([transfer(), transfer()]) == 1
    assert await books.post([transfer(), transfer("tr_2")]) == 1
    assert await energy(books) == (200, 0)


async def test_another_body_under_a_known_id_is_refused_and_nothing_of_its_group_is_written(
    books: Books,
) -> None:
    await books.post([transfer()])
    with pytest.raises(Conflict, match="another body"):
        await books.post([transfer("tr_2"), transfer(amount_micros=101)])
    assert await energy(books) == (100, 0)


async def test_a_balance_is_as_of_an_instant(books: Books) -> None:
    await books.post([transfer(), transfer("tr_2", effective_at=after(1))])
    assert await energy(books, 0.5) == (100, 0)
    assert await energy(books, 1) == (200, 0)


async def test_currencies_are_counted_apart(books: Books) -> None:
    await books.post([transfer(), transfer("tr_2", 40, currency="BRL")])
    rows = await books.balance("cost:energy", after())
    assert [(row.currency, row.debits_micros) for row in rows] == [("BRL", 40), ("USD", 100)]


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        pytest.param(transfer("tr_2", 100, kind=Kind.POST, pending_id="tr_1"), (100, 0), id="in full"),
        pytest.param(
            transfer("tr_2", 60, kind=Kind.POST, pending_id="tr_1"), (60, 0), id="in part, the rest is free"
        ),
        pytest.param(transfer("tr_2", 100, kind=Kind.VOID, pending_id="tr_1"), (0, 0), id="voided"),
    ],
)
async def test_a_pending_transfer_reserves_until_it_is_resolved(
    books: Books, resolution: Transfer, expected: tuple[int, int]
) -> None:
    await books.post([transfer(kind=Kind.PENDING)])
    assert await energy(books) == (0, 100)
    assert await books.post([resolution]) == 1
    assert await books.post([resolution]) == 0
    assert await energy(books) == expected


@pytest.mark.parametrize(
    "resolution",
    [
        pytest.param(transfer("tr_2", 101, kind=Kind.POST, pending_id="tr_1"), id="more than reserved"),
        pytest.param(transfer("tr_2", 60, kind=Kind.VOID, pending_id="tr_1"), id="a void in part"),
        pytest.param(transfer("tr_2", kind=Kind.POST, pending_id="tr_9"), id="nothing reserved"),
        pytest.param(transfer("tr_2", kind=Kind.POST, pending_id="tr_0"), id="a posted transfer"),
        pytest.param(
            transfer("tr_2", kind=Kind.POST, pending_id="tr_1", currency="BRL"), id="another currency"
        ),
        pytest.param(
            transfer("tr_2", kind=Kind.POST, pending_id="tr_1", debit="cost:other"), id="another account"
        ),
        pytest.param(
            transfer("tr_2", kind=Kind.VOID, pending_id="tr_1", effective_at=after(-1)), id="too early"
        ),
    ],
)
async def test_a_resolution_that_does_not_fit_is_refused(books: Books, resolution: Transfer) -> None:
    await books.post([transfer("tr_0"), transfer(kind=Kind.PENDING)])
    with pytest.raises(Conflict):
        await books.post([resolution])
    assert await energy(books) == (100, 100)


async def test_a_pending_transfer_is_resolved_once(books: Books) -> None:
    await books.post([transfer(kind=Kind.PENDING), transfer("tr_2", 60, kind=Kind.POST, pending_id="tr_1")])
    with pytest.raises(Conflict, match="resolved already"):
        await books.post([transfer("tr_3", kind=Kind.VOID, pending_id="tr_1")])
    assert await energy(books) == (60, 0)


async def test_the_trial_balance_agrees_per_currency_posted_and_pending(books: Books) -> None:
    await books.post(
        [
            transfer(),
            transfer("tr_2", 7, debit="payable:energy", credit="asset:cash"),
            transfer("tr_3", 40, currency="BRL"),
            transfer("tr_4", 5, kind=Kind.PENDING),
        ]
    )
    trial = await books.trial_balance(after())
    assert [(row.account, row.currency, row.balance_micros()) for row in trial.balances] == [
        ("asset:cash", "USD", -7),
        ("cost:energy", "BRL", 40),
        ("cost:energy", "USD", 100),
        ("payable:energy", "BRL", -40),
        ("payable:energy", "USD", -93),
    ]
    assert trial.is_balanced()
    assert sum(row.pending_debits_micros for row in trial.balances) == 5


async def prepaid(books: Books) -> tuple[int, int]:
    """What a customer has left of a prepayment, and what of it is reserved."""
    rows = await books.balance("tenant:ten_1:prepaid", after(99))
    return (-rows[0].balance_micros(), rows[0].pending_debits_micros) if rows else (0, 0)


def paid(transfer_id: str = "tr_paid", micros: int = 100) -> Transfer:
    return transfer(transfer_id, micros, debit="asset:cash", credit="tenant:ten_1:prepaid")


def spent(transfer_id: str, micros: int, **more: object) -> Transfer:
    return transfer(
        transfer_id, micros, debit="tenant:ten_1:prepaid", credit="revenue:on_demand", **more  # type: ignore[arg-type]
    )  # fmt: skip


async def test_a_prepayment_is_never_overdrawn_and_what_is_reserved_counts(books: Books) -> None:
    await books.post([paid(), spent("tr_2", 60), spent("tr_3", 30, kind=Kind.PENDING)])
    with pytest.raises(Overdrawn, match=r"tenant:ten_1:prepaid would be overdrawn by 1 micro-USD"):
        await books.post([spent("tr_4", 11)])
    assert await prepaid(books) == (40, 30)
    await books.post([spent("tr_5", 20, kind=Kind.POST, pending_id="tr_3"), spent("tr_6", 20)])
    assert await prepaid(books) == (0, 0)


async def test_a_limit_is_looked_at_after_the_whole_group(books: Books) -> None:
    await books.post([spent("tr_2", 100), paid()])
    assert await prepaid(books) == (0, 0)
    with pytest.raises(Overdrawn):
        await books.post([paid("tr_3", 50), spent("tr_4", 51)])
    assert await prepaid(books) == (0, 0)


async def test_limits_are_kept_in_each_currency_apart(books: Books) -> None:
    await books.post([paid()])
    with pytest.raises(Overdrawn, match="micro-BRL"):
        await books.post([spent("tr_2", 1, currency="BRL")])


@pytest.mark.parametrize(
    ("wrong", "fault", "says"),
    [
        pytest.param(transfer("tr_x", debit="cost"), UnknownAccount, "tr_x: .* no account cost", id="cost"),
        pytest.param(
            transfer("tr_x", debit="tenant::receivable"), UnknownAccount, "no account tenant::receivable",
            id="a tenant without a name",
        ),
        pytest.param(
            transfer("tr_x", debit="rounding:USD", currency="BRL"), WrongCurrency, "rounding:USD takes no BRL",
            id="another currency than the account's own",
        ),
        pytest.param(
            replace(transfer("tr_x"), accelerator_no=None), DimensionMissing,
            "tr_x: cost:energy needs the accelerator", id="an accelerator's cost without the accelerator",
        ),
        pytest.param(
            replace(transfer("tr_x", debit="round:one:capital", credit="asset:cash"), round_id=None),
            DimensionMissing, "needs the round", id="a round's capital without the round",
        ),
    ],
)  # fmt: skip
async def test_what_the_chart_does_not_have_is_refused_by_name(
    books: Books, wrong: Transfer, fault: type[Fault], says: str
) -> None:
    with pytest.raises(fault, match=says):
        await books.post([transfer("tr_1"), wrong])
    assert await energy(books) == (0, 0)


async def test_killbill_2013_an_amount_in_a_unit_the_account_does_not_take_is_refused(books: Books) -> None:
    """There a usage in a wrong unit was accepted; here neither currency nor dimension may be another."""
    with pytest.raises(WrongCurrency):
        await books.post([transfer(debit="rounding:BRL", currency="USD")])


async def test_a_reversal_takes_back_all_of_one_transfer_once(books: Books) -> None:
    first = transfer()
    back = reversal_of(first, transfer_id="tr_2", effective_at=after(1), note="typed twice")
    await books.post([first])
    assert await books.post([back]) == 1
    assert await books.post([back]) == 0
    assert await energy(books) == (0, 0)
    again = reversal_of(first, transfer_id="tr_3", effective_at=after(1), note="typed twice")
    with pytest.raises(Conflict, match="tr_1 is reversed already"):
        await books.post([again])
    assert await energy(books) == (0, 0)


async def test_killbill_1949_an_erroneous_adjustment_is_undone_by_reversing_it(books: Books) -> None:
    first = transfer()
    wrong = reversal_of(first, transfer_id="tr_2", effective_at=after(1), note="the wrong one")
    await books.post([first, wrong])
    undone = reversal_of(wrong, transfer_id="tr_3", effective_at=after(2), note="tr_2 was a mistake")
    await books.post([undone])
    assert await energy(books) == (100, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(transfer("tr_2", reverses_id="tr_1"), id="the same way again"),
        pytest.param(
            transfer("tr_2", 99, reverses_id="tr_1", debit="payable:energy", credit="cost:energy"),
            id="in part",
        ),
        pytest.param(
            transfer("tr_2", reverses_id="tr_9", debit="payable:energy", credit="cost:energy"), id="nothing"
        ),
        pytest.param(
            transfer("tr_2", reverses_id="tr_0", debit="payable:energy", credit="cost:energy"),
            id="a reservation",
        ),
        pytest.param(
            transfer(
                "tr_2",
                reverses_id="tr_1",
                debit="payable:energy",
                credit="cost:energy",
                effective_at=after(-1),
            ),
            id="before it happened",
        ),
    ],
)
async def test_a_reversal_that_does_not_fit_is_refused(books: Books, wrong: Transfer) -> None:
    await books.post([transfer("tr_0", kind=Kind.PENDING), transfer()])
    with pytest.raises(Conflict):
        await books.post([wrong])
    assert await energy(books) == (100, 100)


async def test_a_reservation_frees_itself_when_its_time_is_over(books: Books) -> None:
    held = transfer(kind=Kind.PENDING, timeout_at=after(1))
    await books.post([held])
    assert await books.expire(after(0.5)) == 0
    assert await books.expire(after(1)) == 1
    assert await books.expire(after(1)) == 0
    assert await energy(books, 0.5) == (0, 100)
    assert await energy(books) == (0, 0)
    with pytest.raises(Conflict):
        await books.post([transfer("tr_2", kind=Kind.POST, pending_id="tr_1")])


async def test_a_post_after_the_timeout_is_refused_whether_it_was_freed_or_not(books: Books) -> None:
    await books.post([transfer(kind=Kind.PENDING, timeout_at=after(1))])
    late = transfer("tr_2", kind=Kind.POST, pending_id="tr_1", effective_at=after(1))
    with pytest.raises(Conflict, match="timed out"):
        await books.post([late])
    assert (
        await books.post([transfer("tr_3", kind=Kind.POST, pending_id="tr_1", effective_at=after(0.9))]) == 1
    )
    assert await books.expire(after(2)) == 0
    assert await energy(books) == (100, 0)


PTAX = ExchangeRate(base="USD", quote="BRL", rate=Decimal("5.1234"), source="ptax", on=date(2026, 11, 19))


def settled(micros: int = 51_234_000) -> tuple[Transfer, Transfer]:
    """A customer pays reais for a bill in dollars."""
    given = transfer(
        "tr_fx", micros, debit="asset:cash", credit="asset:bank:any", currency="BRL", entry_id="entry_fx"
    )
    return exchange(given, PTAX, into="tenant:ten_1:receivable")


async def test_an_exchange_is_two_rows_with_rate_source_and_day(books: Books) -> None:
    given, got = settled()
    assert (given.currency, given.amount_micros, got.currency, got.amount_micros) == (
        "BRL", 51_234_000, "USD", 10_000_000,
    )  # fmt: skip
    await books.post([given, got])
    rows = await books.balance("conversion:ptax", after())
    assert [(row.currency, row.balance_micros()) for row in rows] == [
        ("BRL", -51_234_000),
        ("USD", 10_000_000),
    ]
    assert (await books.trial_balance(after())).is_balanced()


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(settled()[:1], id="half of it"),
        pytest.param((settled()[0], replace(settled()[1], amount_micros=10_000_001)), id="another worth"),
        pytest.param((settled()[0], replace(settled()[1], fx_rate=Decimal("5.2"))), id="two rates"),
        pytest.param((settled()[0], replace(settled()[1], entry_id="entry_2")), id="two entries"),
        pytest.param(
            (replace(settled()[0], fx_rate=None, fx_source=None, fx_on=None), settled()[1]), id="no rate"
        ),
    ],
)
async def test_half_an_exchange_is_none(books: Books, rows: tuple[Transfer, ...]) -> None:
    with pytest.raises(WrongCurrency):
        await books.post(rows)
    assert await books.balance("conversion:ptax", after()) == ()


async def test_entries_may_be_posted_apart_and_each_is_whole(books: Books) -> None:
    refused = await post_apart(
        books,
        [
            transfer("tr_1", entry_id="one"),
            transfer("tr_2", entry_id="two"),
            transfer("tr_3", entry_id="two", debit="nothing:here"),
            transfer("tr_4", entry_id="three"),
        ],
    )
    assert list(refused) == ["two"]
    assert await energy(books) == (200, 0)
