"""What was agreed, in the truth: added, ended or closed, never edited; and refused to a writer that came between."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from baseai.finance.contract import Contract
from baseai.finance.contracts.postgres import Agreements
from baseai.finance.customer import Customer
from baseai.finance.price_list import Price, Term
from baseai.finance.sla import Promise, Step
from baseai.ground.fault import Conflict, NotFound
from baseai.truth.session import Scope, Truth
from tests.finance.agreed import NOVEMBER, OFFICE, at, contract, price
from tests.finance.site import seeded

pytestmark = pytest.mark.anyio


async def desk(truth: Truth) -> Agreements:
    """With a customer for tenant 1."""
    await seeded(truth)
    made = Agreements(truth)
    await made.add_customer(
        Customer(
            customer_id="cus_1",
            tenant_id="ten_1",
            legal_name="Alfa S.A.",
            country="BR",
            tax_id="12ABC34501DE35",
            currency="BRL",
        ),
        actor="test",
    )
    return made


async def test_what_was_agreed_reads_back_as_it_was(truth: Truth) -> None:
    agreements = await desk(truth)
    one = replace(
        contract(site="sp4", discount="0.125", minimum_micros=7),
        promise=Promise(steps=(Step(below_ratio=Decimal("0.999"), credit_ratio=Decimal("0.1")),)),
    )
    await agreements.add_contract(one, actor="test")
    assert await agreements.contracts() == (one,)
    assert await agreements.contracts(Scope(tenant_id="ten_2", actor="t")) == ()


async def test_prices_read_back_as_they_were(truth: Truth) -> None:
    agreements = Agreements(truth)
    sheet = (
        price("a", tiers=[("0", "3.85"), ("1000", "3.2")], peaks=(OFFICE,), valid=(NOVEMBER, None)),
        price("b", "2.24", term=Term.RESERVED, site="sp4", months=12, valid=(NOVEMBER, at(30, 0))),
    )
    assert await agreements.add_prices(sheet, actor="test") == 2
    assert await agreements.add_prices(sheet, actor="test") == 0
    assert set(await agreements.prices("list")) == set(sheet)


async def test_of_two_who_agree_at_once_one_is_refused_by_name(truth: Truth) -> None:
    agreements = await desk(truth)
    ends = await asyncio.gather(
        *(agreements.add_contract(contract(name), actor="test") for name in ("alfa", "beta")),
        return_exceptions=True,
    )
    (wrong,) = [end for end in ends if isinstance(end, BaseException)]
    assert isinstance(wrong, Conflict)
    assert "alfa and beta overlap" in str(wrong) or "beta and alfa overlap" in str(wrong)
    assert len(await agreements.contracts()) == 1


def _row(name: str, *, until: str, project: str = "NULL") -> str:
    return (
        "INSERT INTO contracts (contract_id, name, customer_id, tenant_id, project_id, term, currency, from_at,"
        f" until_at, made_by) VALUES ('con_{name}', '{name}', 'cus_1', 'ten_1', {project}, 'on_demand', 'USD',"
        f" '2026-11-01+00', '{until}', 'test')"
    )


END = "UPDATE contracts SET ended_at = '{0}', ended_by = 't', ended_for = 'x'"
PRICE = """INSERT INTO prices (price_id, list_id, meter, unit, term, model, currency, tiers, valid, source, added_by)
VALUES ('{0}', 'list', 'accelerator_time', 'accelerator_hour', 'on_demand', 'h100', 'USD', '[["0", "2"]]', '{1}',
  't', 't')"""


@pytest.mark.parametrize(
    ("statements", "error"),
    [
        pytest.param(
            [_row("a", until="2027-11-01+00"), _row("b", until="2026-12-01+00", project="'prj_1'")],
            psycopg.errors.ExclusionViolation,
            id="a contract within another's time, of one of its projects",
        ),
        pytest.param(
            [
                _row("a", until="2027-11-01+00"),
                "INSERT INTO price_lists (list_id, made_by) VALUES ('list', 't')",
                PRICE.format("p1", "[2026-11-01,)"),
                PRICE.format("p2", "[2027-11-01,)"),
            ],
            psycopg.errors.ExclusionViolation,
            id="a price after one that is open",
        ),
        pytest.param(
            [_row("a", until="2027-11-01+00"), END.format("2026-12-01"), END.format("2026-12-02")],
            psycopg.errors.InsufficientPrivilege,
            id="a contract that ends twice",
        ),
        pytest.param(
            [_row("a", until="2027-11-01+00"), "UPDATE contracts SET discount_ratio = 0.5"],
            psycopg.errors.InsufficientPrivilege,
            id="a contract that is edited",
        ),
        pytest.param(
            ["UPDATE customers SET tax_id = '00000000000191'"],
            psycopg.errors.InsufficientPrivilege,
            id="a customer that is edited",
        ),
        pytest.param(
            ["DELETE FROM rated_lines"], psycopg.errors.InsufficientPrivilege, id="a rated line that goes"
        ),
    ],
)  # fmt: skip
async def test_the_database_refuses_what_nobody_may(
    truth: Truth, statements: list[str], error: type[psycopg.Error]
) -> None:
    await desk(truth)

    async def write() -> None:
        async with truth.transaction() as session:
            for statement in statements[:-1]:
                await session.execute(statement)
            with pytest.raises(error):
                await session.execute(statements[-1])
            raise _Enough

    with pytest.raises(_Enough):
        await write()


class _Enough(Exception):
    """The transaction is over; nothing of it shall stay."""


async def test_a_new_price_closes_the_open_one_and_a_gap_is_refused_by_both_names(truth: Truth) -> None:
    agreements = Agreements(truth)
    await agreements.add_prices([price("a", valid=(NOVEMBER, None))], actor="test")
    await agreements.add_prices([price("b", "3", valid=(at(10, 0), at(20, 0)))], actor="test")
    held: tuple[Price, ...] = await agreements.prices("list")
    assert [(one.price_id, one.valid_until) for one in held] == [("a", at(10, 0)), ("b", at(20, 0))]
    with pytest.raises(Conflict, match="a gap between b and c: no price from"):
        await agreements.add_prices([price("c", valid=(at(21, 0), None))], actor="test")
    with pytest.raises(Conflict, match="a and d overlap"):
        await agreements.add_prices([price("d", valid=(at(5, 0), at(9, 0)))], actor="test")
    assert len(await agreements.prices("list")) == 2


async def test_after_an_end_another_contract_may_follow(truth: Truth) -> None:
    agreements = await desk(truth)
    await agreements.add_contract(contract(), actor="test")
    ended = await agreements.end_contract("alfa", at(15, 0), reason="agreed", actor="test")
    assert ended.ends_at == at(15, 0)
    later: Contract = contract("beta", from_at=at(15, 0), until_at=datetime(2027, 11, 15, 3, tzinfo=UTC))
    await agreements.add_contract(later, actor="test")
    with pytest.raises(Conflict, match="contract alfa was ended"):
        await agreements.end_contract("alfa", at(16, 0), reason="again", actor="test")
    with pytest.raises(NotFound):
        await agreements.end_contract("gama", NOVEMBER + timedelta(days=1), reason="?", actor="test")
