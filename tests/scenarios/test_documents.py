"""Documents of a running platform, asked for at its own terminal: the demo's run is in them, and the check passes."""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from baseai.finance.period import period_of
from tests.scenarios.platform import ENVIRONMENT, TINY_GPT, Platform, platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

NOW = str(period_of(datetime.now(UTC)))


@pytest.fixture(scope="module")
def home() -> Iterator[Platform]:
    with platform("--cpu-slots", "2") as running:
        yield running


def baseai(home: Platform, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "baseai", *words, "--data", str(home.data)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


def test_the_demos_run_goes_from_its_lease_to_every_document(home: Platform, tmp_path: Path) -> None:
    run_id = home.submit(TINY_GPT.format(name="demo-gpt", steps=20, slots=1, nodes=1, every=10))
    assert home.wait_ended(run_id)["run"]["state"] == "succeeded", home.logs()
    deadline = time.monotonic() + 60
    while not home.ask("GET", f"/books/transfers?run={run_id}")["items"]:
        assert time.monotonic() < deadline, home.logs()
        time.sleep(0.5)
    (tenant,) = {line["tenant_id"] for line in home.ask("GET", f"/rated-lines?run={run_id}")["items"]}
    payer = ("customer", "add", tenant, "Alfa S.A.", "--tax-id", "11.444.777/0001-61", "--currency", "USD")
    assert baseai(home, *payer).returncode == 0

    folder = tmp_path / "focus"
    done = baseai(home, "books", "export", "--focus", str(folder), "--period", NOW, "--parquet")
    assert done.returncode == 0, done.stderr
    checked = baseai(home, "books", "check", "--focus", str(folder))
    assert (checked.returncode, checked.stdout.startswith("passes: ")) == (0, True), checked.stdout
    with (folder / "CostAndUsage.csv").open(newline="") as file:
        charges = [row for row in csv.DictReader(file) if row["x_Run"] == run_id]
    assert charges
    again = baseai(home, "books", "export", "--focus", str(folder), "--period", NOW)
    assert (again.returncode, "not an empty folder" in again.stderr) == (2, True)

    page, paper = tmp_path / "invoice.html", tmp_path / "invoice.pdf"
    asked = ("books", "invoice", "Alfa S.A.", NOW)
    told = baseai(home, *asked, "--html", str(page), "--pdf", str(paper), "--json")
    assert told.returncode == 0, told.stderr
    (draft,) = json.loads(told.stdout)["items"]
    assert run_id in {one["run_id"] for line in draft["lines"] for one in line["behind"]}
    assert "demo-gpt" in page.read_text(encoding="utf-8")
    assert paper.read_bytes().startswith(b"%PDF-1.4")
    early = baseai(home, *asked, "--issue")
    assert (early.returncode, "is not over" in early.stderr) == (2, True)

    sheets = tmp_path / "sheets"
    done = baseai(home, "books", "export", "--csv", str(sheets), "--beancount", str(tmp_path / "beancount"))
    assert done.returncode == 0, done.stderr
    with (sheets / "rated_lines.csv").open(newline="") as file:
        rated = [row for row in csv.DictReader(file) if row["run_id"] == run_id]
    billed = sum(Decimal(row["BilledCost"]) for row in charges)
    assert billed == sum(Decimal(row["amount"]) for row in rated if row["category"] != "unbilled")
    text = (tmp_path / "beancount" / "books.beancount").read_text(encoding="utf-8")
    assert f'run: "{run_id}"' in text
    home.check_books()
