"""Documents over REST, of runs that really ran: exports that pass the check, drafts, and what a tenant gets of both."""

import csv
import io
import re
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from baseai.finance.focus.check import Report, check
from baseai.finance.focus.rule import Dataset
from baseai.finance.period import period_of
from tests.api.platform import Platform

pytestmark = pytest.mark.anyio

CUSTOMER = {"tenant": "alpha", "legal_name": "Alfa S.A.", "tax_id": "12.ABC.345/01DE-35", "currency": "USD"}


def files_of(archive: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        return {name: packed.read(name).decode() for name in packed.namelist()}


def held_to_the_rules(files: dict[str, str]) -> Report:
    return check({one: files[one.file].splitlines(keepends=True) for one in Dataset if one.file in files})


def charges_of(files: dict[str, str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files["CostAndUsage.csv"])))


def this_month() -> str:
    return str(period_of(datetime.now(UTC)))


async def ran(platform: Platform) -> str:
    """A run of alpha that is over, metered, rated and posted."""
    await platform.ask("POST", "/customers", json=CUSTOMER)
    run_id = await platform.submitted()
    await platform.granted(run_id)
    await platform.finished(run_id)
    return run_id


async def exported(
    platform: Platform, form: str = "focus", *, key: str = "operator", **asked: Any
) -> dict[str, str]:
    answer = await platform.ask("GET", f"/exports/{form}", params=asked, key=key)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    return files_of(answer.content)


async def test_an_export_of_a_month_without_anything_passes_the_check(platform: Platform) -> None:
    assert held_to_the_rules(await exported(platform, period="2020-01")).findings == ()


async def test_a_run_stands_in_the_export_with_its_lease_and_serial(platform: Platform) -> None:
    run_id = await ran(platform)
    files = await exported(platform, period=this_month())
    assert [str(one) for one in held_to_the_rules(files).findings] == []
    (charge,) = charges_of(files)
    assert (charge["x_Run"], charge["BillingAccountName"], charge["InvoiceId"]) == (run_id, "Alfa S.A.", "")
    assert charge["x_AcceleratorSerial"].startswith("one/")
    lines = (await platform.ask("GET", "/rated-lines")).json()["items"]
    assert Decimal(charge["BilledCost"]) == sum(Decimal(str(line["amount"])) for line in lines)
    assert charge["x_Lease"] == lines[0]["lease_id"]


async def test_a_tenant_gets_its_own_charges_and_nobody_elses(platform: Platform) -> None:
    await ran(platform)
    own, other = [
        charges_of(await exported(platform, period=this_month(), key=key)) for key in ("alpha", "beta")
    ]
    assert (len(own), other) == (1, [])


async def test_a_month_that_runs_has_a_draft_and_no_invoice(platform: Platform) -> None:
    run_id = await ran(platform)
    asked = {"customer": "alpha", "period": this_month()}
    (draft,) = (await platform.ask("GET", "/invoices/draft", params=asked, key="alpha")).json()["items"]
    assert (draft["invoice_id"], draft["customer"]["legal_name"]) == (None, "Alfa S.A.")
    assert draft["lines"][0]["behind"][0]["run_id"] == run_id
    early = await platform.ask("POST", "/invoices", json=asked)
    assert (early.status_code, "is not over" in early.json()["detail"]) == (422, True)
    assert (await platform.ask("GET", "/invoices")).json()["items"] == []
    page = await platform.ask("GET", "/invoices/draft", params={**asked, "as": "html"})
    assert (page.headers["content-type"], "PRÉVIA" in page.text) == ("text/html; charset=utf-8", True)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    paper = await platform.ask("GET", "/invoices/draft", params={**asked, "as": "pdf", "lang": "en"})
    assert (paper.headers["content-type"], paper.content[:8]) == ("application/pdf", b"%PDF-1.4")
    declared = await platform.ask("GET", "/invoices/draft", params={**asked, "as": "dps"})
    assert (declared.status_code, "issue it first" in declared.json()["detail"]) == (422, True)
    wrong = await platform.ask("GET", "/invoices/draft", params={**asked, "as": "docx"})
    assert (wrong.status_code, "html, pdf, dps" in wrong.json()["detail"]) == (422, True)
    stranger = await platform.ask("GET", "/invoices/draft", params=asked, key="beta")
    assert stranger.status_code == 404


async def test_the_books_as_text_and_as_sheets_come_to_the_trial_balance(platform: Platform) -> None:
    await ran(platform)
    books = (await platform.ask("GET", "/books/trial-balance")).json()["balances"]
    expected = sorted(Decimal(str(row["balance"])) for row in books)
    text = (await exported(platform, "beancount"))["books.beancount"]
    asserted = [Decimal(found) for found in re.findall(r"balance \S+  (\S+) ", text)]
    assert sorted(asserted) == expected
    sheets = await exported(platform, "csv")
    sums: dict[tuple[str, str], Decimal] = {}
    for row in csv.DictReader(io.StringIO(sheets["transfers.csv"])):
        for account, sign in ((row["debit_account"], 1), (row["credit_account"], -1)):
            key = (account, row["currency"])
            sums[key] = sums.get(key, Decimal(0)) + sign * Decimal(row["amount"])
    assert sorted(sums.values()) == expected
    rated = list(csv.DictReader(io.StringIO(sheets["rated_lines.csv"])))
    assert [row["tenant_id"] for row in rated] == [rated[0]["tenant_id"]]
    assert await exported(platform, "csv", period="2020-01") != sheets


async def test_parquet_has_the_same_rows_with_types(platform: Platform, tmp_path: Path) -> None:
    import duckdb

    await ran(platform)
    answer = await platform.ask("GET", "/exports/focus", params={"period": this_month(), "parquet": "true"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        packed.extractall(tmp_path)
    rows = charges_of({"CostAndUsage.csv": (tmp_path / "CostAndUsage.csv").read_text()})
    with duckdb.connect() as connection:
        relation = connection.read_parquet(str(tmp_path / "CostAndUsage.parquet"))
        assert relation.columns == list(rows[0])
        ((cost, kind),) = relation.select("BilledCost, typeof(ChargePeriodStart)").fetchall()
    assert (cost, kind) == (Decimal(rows[0]["BilledCost"]), "TIMESTAMP WITH TIME ZONE")


async def test_what_the_operator_says_of_the_issuer_stands_on_the_documents(platform: Platform) -> None:
    await ran(platform)
    platform.household.issuer.write_text('name = "Base A.I Infraestrutura S.A."\n', encoding="utf-8")
    assert (
        charges_of(await exported(platform, period=this_month()))[0]["InvoiceIssuerName"]
        == "Base A.I Infraestrutura S.A."
    )
    platform.household.issuer.write_text('cnpj = "11.222.333/0001-82"\n', encoding="utf-8")
    wrong = await platform.ask("GET", "/exports/focus", params={"period": this_month()})
    assert (wrong.status_code, "issuer.toml: cnpj: " in wrong.json()["detail"]) == (422, True)
