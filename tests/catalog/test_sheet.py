"""A broken data file is refused, and the refusal names file, entry and key."""

import pickle
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from baseai.catalog.catalog import catalog_in
from baseai.catalog.sheet import BrokenSheet, parse_sheet
from baseai.catalog.source import Mark
from tests.catalog.shelf import shipped_with

A = "accelerators.toml"
SOURCES = '[sources]\nbook = { title = "A book", read_on = 2026-11-22, mark = "B" }\n'


@pytest.mark.parametrize(
    ("file", "old", "new", "entry", "key"),
    [
        pytest.param(
            A, 'memory_gib = [80, "hpctech-h100"]', "memory_gib = 80", "H100-SXM", "memory_gib", id="bare"
        ),
        pytest.param(
            A, '[80, "hpctech-h100"]', '[80, "hearsay"]', "H100-SXM", "memory_gib", id="unlisted source"
        ),
        pytest.param(
            A, '[80, "hpctech-h100"]', '["80", "hpctech-h100"]', "H100-SXM", "memory_gib", id="not a number"
        ),
        pytest.param(
            A, 'fp32_tflops = [67, "hpctech-h100"]\n', "", "H100-SXM", "fp32_tflops", id="a fact is gone"
        ),
        pytest.param(
            A, "fp32_tflops = [67", "fp32_tflop = [67", "H100-SXM", "fp32_tflop", id="a misspelt key"
        ),
        pytest.param(A, '"owned"', '"rented"', "H100-SXM", "placement", id="no such placement"),
        pytest.param(A, 'mark = "A"', 'mark = "D"', "baseai-published", "mark", id="no such mark"),
        pytest.param(A, "[sources]", "[sources", "-", "-", id="not TOML"),
        pytest.param(
            "servers.toml", '"H200", "MI300X"]', '"TPU-v5e"]', "XE9680", "accelerator_models", id="leased"
        ),
        pytest.param(
            "servers.toml", '"H200", "MI300X"]', '"B200"]', "XE9680", "accelerator_models", id="unknown"
        ),
        pytest.param("price_list.toml", 'L40S = [0.87, "l40s-median"]\n', "", "-", "L40S", id="no price"),
        pytest.param("price_list.toml", "[3.85,", "[0,", "opening.per_hour", "H100-SXM", id="given away"),
        pytest.param("price_list.toml", "00:00:00Z", "00:00:00", "opening", "effective_from", id="no zone"),
        pytest.param("cost_assumptions.toml", "[owned.L40S]", "[owned.L40]", "-.owned", "L40", id="no cost"),
        pytest.param(
            "cost_assumptions.toml", "[75000, 90000,", "[95000, 90000,", "L40S", "server_usd", id="order"
        ),
        pytest.param("cost_assumptions.toml", '"BR"', '"AR"', "-.countries", "AR", id="no such country"),
        pytest.param(
            "partners.toml", "sites.SP5]", "sites.scala-rio]", "-", "sites", id="a site of two partners"
        ),
    ],
)
def test_a_broken_file_names_file_entry_and_key(
    tmp_path: Path, file: str, old: str, new: str, entry: str, key: str
) -> None:
    with pytest.raises(BrokenSheet) as refusal:
        catalog_in(shipped_with(tmp_path, file, old, new))
    fault = refusal.value
    assert (fault.file, fault.entry, fault.key) == (file, entry, key)
    assert str(fault).startswith(f"{file}, entry {entry}, key {key}: ")


def test_an_absent_file_is_a_broken_sheet(tmp_path: Path) -> None:
    with pytest.raises(BrokenSheet, match=r"accelerators\.toml.*cannot be read"):
        catalog_in(tmp_path)


def test_the_fault_survives_pickling() -> None:
    fault = BrokenSheet("a.toml", "H100", "memory_gib", "is missing")
    assert str(pickle.loads(pickle.dumps(fault))) == str(fault)


def test_amounts_stay_exact_and_keep_their_source() -> None:
    sheet = parse_sheet(SOURCES + '[prices.one]\nrate = [0.0408, "book"]', file="x.toml")
    (entry,) = sheet.entries("prices")
    assert entry.decimal("rate") == Decimal("0.0408")
    assert entry.source("rate").mark is Mark.SECONDARY
    assert entry.source("rate").read_on == date(2026, 11, 22)


def test_none_says_that_there_is_no_such_figure() -> None:
    sheet = parse_sheet(SOURCES + '[models.one]\nfp8_tflops = ["none", "book"]', file="x.toml")
    (entry,) = sheet.entries("models")
    assert entry.maybe_number("fp8_tflops") is None
    assert dict(entry.evidence())["fp8_tflops"].title == "A book"
