"""The page of a month: what each role sees, what is withheld, in which order, in whose digits."""

import asyncio
import gzip
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from baseai.finance.bucket import Bucket
from baseai.finance.costs.margin import CostNature, Part
from baseai.finance.hours.sum import Withheld
from baseai.finance.measure import MEASURES
from baseai.finance.period import PeriodState
from baseai.finance.rated import Category
from baseai.finance.transfer import Kind
from baseai.tenancy.role import Role
from baseai.web import book_word
from baseai.web.book_page import BY, BookPages
from baseai.web.doors import Books
from baseai.web.language import load_languages
from baseai.web.month import SORTS, ordered, side_of, sort_of, statement_of
from baseai.web.visit import Visit
from tests.web.ledger import earned, movement, row
from tests.web.platform import Platform, holder
from tests.web.test_pages import browser

pytestmark = pytest.mark.anyio
FINDING = {"check": "balance", "sentence": "debits and credits of USD differ by 7 micro-units"}


async def page(platform: Platform, path: str = "/books?month=2026-10", language: str = "en") -> str:
    async with browser(platform, language=language) as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_a_month_tells_rates_of_hours_available_and_sold_apart() -> None:
    text = await page(Platform())
    for name, value in (
        ("Revenue per accelerator-hour available", "US$\xa00.01"),
        ("Revenue per accelerator-hour sold", "US$\xa00.04"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    figures = re.findall(r"<dt>([^<]+)</dt>", text)
    assert figures.index("Capital recovery") == figures.index("Contribution margin") + 1
    assert {"Sold, of available", "Occupied, of available", "Active, of the time seen"} <= set(figures)


async def test_money_is_written_as_brazilians_do() -> None:
    platform = Platform()
    platform.ledger.moved = [earned(1_234_567_891_200)]
    assert "US$\xa01.234.567,8912" in await page(platform, language="pt-BR")


@pytest.mark.parametrize(
    ("role", "names", "money"),
    [
        pytest.param(Role.OPERATOR, True, True, id="operator"),
        pytest.param(Role.FINANCE, True, True, id="finance"),
        pytest.param(Role.INVESTOR, False, True, id="investor"),
    ],
)
async def test_who_sees_names(role: Role, names: bool, money: bool) -> None:
    text = await page(Platform(holder=holder(role)))
    assert ("acme" in text) is names
    assert ("customer 1" in text) is not names
    assert ("/books/postings" in text) is names
    assert ("0.04" in text) is money


@pytest.mark.parametrize(
    ("role", "told"),
    [pytest.param(Role.FINANCE, True, id="finance"), pytest.param(Role.INVESTOR, False, id="investor")],
)
async def test_books_that_fail_a_check_are_not_published(role: Role, told: bool) -> None:
    platform = Platform(holder=holder(role))
    platform.ledger.findings = [FINDING]
    text = await page(platform)
    assert FINDING["sentence"] in text
    assert ("0.04" in text) is told
    assert ("Withheld: a check of the books fails." in text) is not told


async def test_hours_that_do_not_add_up_and_stale_assumptions_are_named() -> None:
    platform = Platform()
    hour = datetime(2026, 10, 3, 5, tzinfo=UTC)
    platform.ledger.withheld = (Withheld(hour=hour, site_id="SP4", sentence="1 µs is missing"),)
    platform.ledger.stale = ["tariff of SP4 is of 2026-01-01"]
    text = await page(platform)
    assert "1 µs is missing" in text
    assert "tariff of SP4" in text


async def test_a_customer_sees_their_own_month_alone() -> None:
    text = await page(Platform(holder=holder(Role.CUSTOMER, "ten_a")))
    assert "Your month" in text
    assert "train-gpt" in text
    assert "Contribution" not in text
    other = await page(Platform(holder=holder(Role.CUSTOMER, "ten_b")))
    assert "train-gpt" not in other


async def test_an_invoice_stands_alone_and_is_its_customers() -> None:
    async with browser(Platform(holder=holder(Role.CUSTOMER, "ten_a"))) as client:
        answer = await client.get("/books/invoices/inv_1")
        assert "'unsafe-inline'" in answer.headers["content-security-policy"]
        assert "script" not in answer.headers["content-security-policy"]
        assert (await client.get("/books/invoices/inv_1?as=dps")).status_code == 400
    async with browser(Platform(holder=holder(Role.CUSTOMER, "ten_b"))) as client:
        assert (await client.get("/books/invoices/inv_1")).status_code == 404
    async with browser(Platform(holder=holder(Role.INVESTOR))) as client:
        assert (await client.get("/books/invoices/inv_1")).status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        "month=2026-13",
        "month=x",
        "month=2026-10&day=2026-10-32",
        "month=2026-10&currency=EUR",
        "month=2199-01",
    ],
)
async def test_what_is_no_month_is_refused(query: str) -> None:
    async with browser(Platform()) as client:
        assert (await client.get(f"/books?{query}")).status_code == 400


async def test_the_page_is_light() -> None:
    text = await page(Platform())
    async with browser(Platform()) as client:
        sheets = [(await client.get(path)).content for path in ("/static/style.css", "/static/books.css")]
    assert sum(len(gzip.compress(part)) for part in (text.encode(), *sheets)) < 60_000
    assert "uplot" not in text  # everything on it is drawn on the server


def asked(platform: Platform) -> tuple[BookPages, Visit]:
    ledger = platform.ledger
    books = Books(ledger=ledger, time=ledger, costs=ledger, postings=ledger, invoices=ledger)
    return BookPages(books, kept_s=0.0), Visit(holder=platform.holder, language=load_languages()["en"])


async def test_a_month_that_takes_long_to_read_is_shown_as_it_was_and_read_once_for_all() -> None:
    platform = Platform()
    pages, visit = asked(platform)
    first = await pages.month(visit, {"month": "2026-10"})
    platform.ledger.may_read.clear()
    again = await asyncio.gather(*(pages.month(visit, {"month": "2026-10"}) for _ in range(3)))
    assert {facts["at"] for facts in again} == {first["at"]}
    assert platform.ledger.readings == 2
    platform.ledger.may_read.set()
    fresh = await pages.month(visit, {"month": "2026-10"})
    assert fresh["at"] > first["at"]


async def test_a_closed_month_is_read_once() -> None:
    platform = Platform()
    platform.ledger.states = [
        {
            "period": "2026-10",
            "state": "closed",
            "digest": "cd" * 32,
            "closed_at": None,
            "closed_by": "finance",
        }
    ]
    pages, visit = asked(platform)
    for _ in range(3):
        await pages.month(visit, {"month": "2026-10"})
    assert platform.ledger.readings == 1
    assert "closed" in await page(platform)


# ---- its rows


def revenue_of(rows: list[Any]) -> list[int]:
    return [one.revenue.micros for one in rows]


@pytest.mark.parametrize("sort", SORTS)
def test_tables_sort_by_every_column_both_ways(sort: str) -> None:
    rows = [row("a", "a", "USD"), row("b", "b", "USD")]
    assert ordered(rows, sort, falling=False)[0].label == "a"
    assert sort_of(f"-{sort}") == (sort, True)
    assert sort_of(sort) == (sort, False)
    assert sort_of("'; DROP") == ("revenue", True)


def test_what_is_not_known_and_what_is_nobodys_come_last_either_way() -> None:
    from dataclasses import replace

    from baseai.finance.costs.margin import TimeOf

    known, unknown = row("a", "a", "USD"), replace(row("b", "b", "USD"), time=TimeOf())
    idle = replace(row(None, "", "USD"), part=Part.IDLE)
    for falling in (True, False):
        assert ordered([idle, unknown, known], "per_sold", falling=falling) == [known, unknown, idle]


def test_a_statement_counts_what_came_back_against_what_went_out() -> None:
    back = movement("revenue:on_demand", "tenant:ten_a:receivable", 15_000)
    energy = movement("cost:energy", "payable:energy", 3_000)
    assert side_of(movement("asset:cash", "tenant:ten_a:receivable", 1)) is None
    assert [
        (each.account, each.micros, each.transfers) for each in statement_of([earned(40_000), back, energy])
    ] == [
        ("revenue:on_demand", 25_000, 2),
        ("cost:energy", 3_000, 1),
    ]


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        pytest.param(Bucket, book_word.BUCKETS, id="buckets"),
        pytest.param(Category, book_word.CATEGORIES, id="categories"),
        pytest.param(CostNature, book_word.COSTS, id="natures of cost"),
        pytest.param(Kind, book_word.KINDS, id="kinds of transfer"),
        pytest.param(PeriodState, book_word.PERIODS, id="states of a month"),
        pytest.param(MEASURES, book_word.METERS, id="meters"),
        pytest.param(BY, book_word.TITLES, id="tables"),
        pytest.param([part for part in Part if part != "subject"], book_word.PARTS, id="parts"),
    ],
)
def test_every_code_of_the_books_has_its_word(codes: Any, words: Any) -> None:
    assert {str(code) for code in codes} == set(words)
