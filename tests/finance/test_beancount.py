"""The beancount text comes to the trial balance: reckoned by a reader of our own here, and by beancount where it is."""

import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.finance.chart import load_chart
from baseai.finance.journal.beancount import Journal, amount_of, names_of
from baseai.finance.transfer import Kind, Transfer
from baseai.finance.trial_balance import balances_of
from tests.finance.leased import after, transfer

FAR = after(10_000)
ACCOUNTS = (
    "tenant:ten_1:receivable",
    "tenant:ten_1:prepaid",
    "revenue:on_demand",
    "cost:energy",
    "payable:energy",
    "rounding:BRL",
    "conversion:ptax",
    "round:rnd_1:capital",
    "asset:bank:itau-1",
)


@st.composite
def books(draw: st.DrawFn) -> list[Transfer]:
    made = []
    for n in range(draw(st.integers(1, 30))):
        debit, credit = draw(st.lists(st.sampled_from(ACCOUNTS), min_size=2, max_size=2, unique=True))
        made.append(
            transfer(
                f"tr_{n}",
                draw(st.integers(1, 10**12)),
                debit=debit,
                credit=credit,
                currency=draw(st.sampled_from(["USD", "BRL"])),
                effective_at=after(draw(st.integers(0, 2000))),
            )
        )
    pending = transfer("tr_pending", 5, kind=Kind.PENDING)
    return [*made, pending, replace(pending, transfer_id="tr_void", kind=Kind.VOID, pending_id="tr_pending")]


def text_of(transfers: list[Transfer]) -> str:
    journal = Journal(load_chart(), balances_of(transfers, at=FAR))
    parts = [*journal.opening('the "books"'), *map(journal.entry, transfers), *journal.closing()]
    return "".join(parts)


def read(text: str) -> tuple[dict[tuple[str, str], Decimal], dict[tuple[str, str], Decimal], dict[str, str]]:
    """Sums of postings, what is asserted, and our name of each account: another reading of the same text."""
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    asserted, ours = {}, {}
    for line in text.splitlines():
        if found := re.fullmatch(r"  ([A-Z]\S+)  (-?[\d.]+) ([A-Z]{3})", line):
            sums[found[1], found[3]] += Decimal(found[2])
        elif found := re.fullmatch(r"\d{4}-\d\d-\d\d balance (\S+)  (-?[\d.]+) ([A-Z]{3})", line):
            asserted[found[1], found[3]] = Decimal(found[2])
        elif found := re.fullmatch(r"\d{4}-\d\d-\d\d open (\S+) .*", line):
            opened = found[1]
        elif found := re.fullmatch(r'  account: "(.*)"', line):
            ours[opened] = found[1]
    return sums, asserted, ours


@given(books())
def test_the_text_comes_to_the_trial_balance(transfers: list[Transfer]) -> None:
    sums, asserted, ours = read(text_of(transfers))
    expected = {
        (row.account, row.currency): Decimal(row.balance_micros()) / 1_000_000
        for row in balances_of(transfers, at=FAR)
        if row.debits_micros or row.credits_micros
    }
    assert {(ours[name], currency): amount for (name, currency), amount in asserted.items()} == expected
    assert {key: amount for key, amount in sums.items() if amount} == {
        key: amount for key, amount in asserted.items() if amount
    }


def test_every_name_is_one_that_beancount_takes_and_nobody_elses() -> None:
    names = names_of(load_chart(), [*ACCOUNTS, "tenant:ten-1:receivable"])
    assert len(set(names.values())) == len(names)
    assert names["revenue:on_demand"] == "Income:Revenue:On-demand"
    assert names["tenant:ten_1:receivable"] == "Assets:Tenant:Ten-1:Receivable"
    for name in names.values():
        root, *parts = name.split(":")
        assert root in ("Assets", "Liabilities", "Equity", "Income", "Expenses")
        assert all(re.fullmatch("[A-Z0-9][A-Za-z0-9-]*", part) for part in parts)


def test_an_account_that_the_chart_does_not_have_is_no_text() -> None:
    with pytest.raises(ValueError, match="nobody:knows"):
        names_of(load_chart(), ["nobody:knows"])


@pytest.mark.parametrize(("micros", "text"), [(1_234_567, "1.234567"), (-5, "-0.000005"), (0, "0.000000")])
def test_amounts_have_six_digits(micros: int, text: str) -> None:
    assert amount_of(micros) == text


def test_beancount_itself_finds_nothing(tmp_path: Path) -> None:
    bean_check = shutil.which("bean-check")
    if bean_check is None:
        pytest.skip("beancount is GPL and no dependency of ours; where bean-check is installed it is asked")
    file = tmp_path / "books.beancount"
    note = replace(transfer("tr_1", 1_500_000), note='a "quoted" note')
    file.write_text(
        text_of([note, transfer("tr_2", 7, debit="rounding:USD", credit="tenant:ten_1:receivable")])
    )
    done = subprocess.run([bean_check, file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
