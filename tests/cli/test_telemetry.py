"""A saved scrape is read without a platform: one JSON line for each accelerator and tick, troubles beside it."""

import gzip
import json
from pathlib import Path

import pytest

from baseai.telemetry.field import ACCELERATOR
from tests.cli.conftest import Baseai

SCRAPES = Path(__file__).parent.parent / "telemetry" / "fixtures"
L40S = SCRAPES / "dcgm_l40s_upcloud.prom"
NOWHERE: dict[str, str] = {}
AT = ("--at", "2026-11-26T12:00:00Z")


def test_one_json_line_for_each_accelerator(baseai: Baseai) -> None:
    ended = baseai("telemetry", "parse", str(L40S), "--json", *AT, environ=NOWHERE)
    [line] = [json.loads(line) for line in ended.out.splitlines()]
    assert (ended.status, ended.err) == (0, "")
    assert set(line) == {"accel", "ts", "fields"}
    assert (line["accel"], line["ts"]) == ("GPU-5b4e07f6-3a86-4340-039d-25f2a83cdc43", "2026-11-26T12:00:00Z")
    assert tuple(line["fields"]) == ACCELERATOR.names
    assert line["fields"]["temp_c"] == {
        "value": 32.0,
        "state": "value",
        "source": "dcgm: DCGM_FI_DEV_GPU_TEMP (°C)",
    }
    assert (line["fields"]["temp_mem_c"]["value"], line["fields"]["temp_mem_c"]["state"]) == (
        None,
        "unsupported",
    )


def test_half_a_scrape_gives_what_it_holds_and_says_what_is_missing(baseai: Baseai) -> None:
    ended = baseai("telemetry", "parse", str(SCRAPES / "dcgm_h100x8_aicr.prom"), "--json", environ=NOWHERE)
    assert (ended.status, len(ended.out.splitlines())) == (0, 8)
    assert "GPU-e64d69ca-b4b3-59b2-e78c-94f26c4db365 membw_pct: said nothing" in ended.err
    cut = baseai("telemetry", "parse", "-", stdin=L40S.read_text()[:-3], environ=NOWHERE)
    assert cut.status == 0
    assert "line 69: the text ends within the line" in cut.err


def test_a_table_for_people(baseai: Baseai) -> None:
    out = baseai("telemetry", "parse", str(L40S), environ=NOWHERE).out
    assert "temp_mem_c                  -  °C    unsupported" in out
    many = baseai("telemetry", "parse", str(SCRAPES / "dcgm_h100x8_aicr.prom"), environ=NOWHERE).out
    assert many.splitlines()[0].split()[:3] == ["ACCELERATOR", "UTIL", "%"]
    assert len(many.splitlines()) == 9


def test_packed_and_from_standard_input(baseai: Baseai, tmp_path: Path) -> None:
    packed = tmp_path / "scrape.prom.gz"
    packed.write_bytes(gzip.compress(L40S.read_bytes()))
    plain = baseai("telemetry", "parse", str(L40S), "--json", *AT, environ=NOWHERE).out
    assert baseai("telemetry", "parse", str(packed), "--json", *AT, environ=NOWHERE).out == plain
    assert (
        baseai("telemetry", "parse", "-", "--json", *AT, stdin=L40S.read_text(), environ=NOWHERE).out == plain
    )
    packed.write_bytes(packed.read_bytes()[:-200])
    cut = baseai("telemetry", "parse", str(packed), "--json", environ=NOWHERE)
    assert (cut.status, len(cut.out.splitlines())) == (0, 1)
    assert "the packed file ends early" in cut.err


def test_a_vendor_may_be_named(baseai: Baseai) -> None:
    both = (
        L40S.read_text() + (SCRAPES / "amd_device_metrics_exporter_mini.prom").read_text() + "node_load1 1\n"
    )

    def nouns(*more: str) -> list[str]:
        out = baseai("telemetry", "parse", "-", "--json", *more, stdin=both, environ=NOWHERE).out
        return [next(iter(json.loads(line))) for line in out.splitlines()]

    assert nouns() == ["accel", "accel", "node"]
    assert nouns("--vendor", "amd") == ["accel"]
    assert nouns("--vendor", "node") == ["node"]
    wrong = baseai("telemetry", "parse", "-", "--vendor", "cray", stdin=both, environ=NOWHERE)
    assert (wrong.status, wrong.out) == (2, "")
    assert "cray: nobody here speaks that" in wrong.err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param("", "it holds no sample of an accelerator or a node", id="nothing"),
        pytest.param("go_goroutines 3\n", "it holds 1 sample, none of an accelerator", id="somebody else's"),
        pytest.param("<html>\n<body>\n", "it holds no sample of", id="a page of errors"),
    ],
)
def test_where_nothing_is_read_a_sentence_says_so(baseai: Baseai, content: str, why: str) -> None:
    ended = baseai("telemetry", "parse", "-", "--json", stdin=content, environ=NOWHERE)
    assert (ended.status, ended.out) == (1, "")
    assert f"baseai: nothing was read from -: {why}" in ended.err


def test_a_file_that_is_not_there(baseai: Baseai, tmp_path: Path) -> None:
    ended = baseai("telemetry", "parse", str(tmp_path / "none"), environ=NOWHERE)
    assert ended.status == 1
    assert "No such file" in ended.err
    assert baseai("telemetry", "parse", str(L40S), "--at", "noon", environ=NOWHERE).status == 2
