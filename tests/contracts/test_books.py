"""What every keeper of the books holds, in memory and on PostgreSQL alike."""

import pytest

from baseai.finance.account import Balance
from baseai.finance.books import Books
from baseai.finance.memory import MemoryBooks
from baseai.finance.postgres import PostgresBooks
from baseai.finance.transfer import Kind, Transfer
from baseai.ground.fault import Conflict
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
