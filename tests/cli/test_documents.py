"""What whoever gets an export can do alone at a terminal, and what the terminal refuses before it asks anybody."""

import json
from pathlib import Path

import pytest

from baseai.finance.focus.rule import Dataset
from tests.cli.conftest import Baseai
from tests.finance.paper import billed, focus, full_month, issue, text_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The four files of a month."""
    lines = billed(full_month(), originals={"rl_old": "A-000000"})
    made = tmp_path / "focus"
    made.mkdir()
    for dataset, rows in focus(issue(lines), lines).items():
        (made / dataset.file).write_text(text_of(dataset, rows), encoding="utf-8", newline="")
    return made


def test_files_are_checked_without_a_platform(baseai: Baseai, folder: Path) -> None:
    ended = baseai("books", "check", "--focus", str(folder), environ={})
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("passes: BillingPeriod.csv 1, ")


def test_what_is_wrong_is_said_with_its_place_and_rule(baseai: Baseai, folder: Path) -> None:
    file = folder / Dataset.BILLING_PERIOD.file
    file.write_text(file.read_text().replace("Closed", "Shut"))
    ended = baseai("books", "check", "--focus", str(folder), environ={})
    assert ended.status == 1
    assert "BillingPeriod.csv:2 BillingPeriodStatus: 'Shut'" in ended.out
    assert ended.out.splitlines()[-1].startswith("fails: ")
    told = json.loads(baseai("books", "check", "--focus", str(folder), "--json", environ={}).out)
    (finding,) = told["findings"]
    assert (told["passes"], finding["rule"], finding["line"]) == (False, "BP-BillingPeriodStatus-allowed", 2)


def test_a_file_with_a_mark_of_its_encoding_is_read(baseai: Baseai, folder: Path) -> None:
    file = folder / Dataset.INVOICE_DETAIL.file
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert baseai("books", "check", "--focus", str(folder), environ={}).status == 0


def test_an_empty_folder_fails_and_none_is_refused(baseai: Baseai, tmp_path: Path) -> None:
    ended = baseai("books", "check", "--focus", str(tmp_path), environ={})
    assert (ended.status, "the folder has no CostAndUsage.csv" in ended.out) == (1, True)
    ended = baseai("books", "check", "--focus", str(tmp_path / "none"), environ={})
    assert (ended.status, "is no folder" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        pytest.param((), "say what to export", id="nothing to export"),
        pytest.param(("--focus", "out"), "FOCUS is of one month", id="no month"),
        pytest.param(("--csv", "out", "--parquet"), "--parquet goes with --focus", id="sheets as Parquet"),
    ],
)
def test_an_export_that_cannot_be_is_refused(baseai: Baseai, words: tuple[str, ...], why: str) -> None:
    ended = baseai("books", "export", *words)
    assert (ended.status, why in ended.err) == (2, True)


def test_nothing_is_written_over_what_is_there(baseai: Baseai, folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    ended = baseai("books", "export", "--focus", str(folder), "--period", "2026-11")
    assert (ended.status, "is not an empty folder; nothing in it is overwritten" in ended.err) == (2, True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
