"""An exporter is read over real HTTP: whole, half, garbage, late, and with numbers that cannot be."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from baseai.telemetry.collector import Collected, SourceFailed
from baseai.telemetry.field import State
from baseai.telemetry.scrape import Exporter
from tests.telemetry.exporter import LoopbackExporter

FIXTURES = Path(__file__).parent / "fixtures"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
L40S = (FIXTURES / "dcgm_l40s_upcloud.prom").read_bytes()

pytestmark = pytest.mark.anyio


@pytest.fixture
def exporter() -> Iterator[LoopbackExporter]:
    served = LoopbackExporter()
    yield served
    served.close()


@asynccontextmanager
async def reading(exporter: LoopbackExporter, timeout_s: float = 2.0) -> AsyncIterator[Exporter]:
    collector = Exporter(exporter.url, interval_s=10, timeout_s=timeout_s, boot_id="boot")
    try:
        yield collector
    finally:
        await collector.close()


async def collected(exporter: LoopbackExporter) -> Collected:
    async with reading(exporter) as collector:
        return await collector.collect(NOW)


def only_row(told: Collected) -> dict[str, float | State]:
    (row,) = told.rows["accelerator"]
    return {name: each.state if each.value is None else each.value for name, each in row.fields.items()}


async def test_a_saved_scrape_becomes_a_row_with_its_names(exporter: LoopbackExporter) -> None:
    exporter.text = L40S
    told = await collected(exporter)
    row = only_row(told)
    assert row["temp_mem_c"] is State.UNSUPPORTED  # 0 on a part without such a sensor
    assert isinstance(row["temp_c"], float)
    (names,) = told.other_names.values()
    assert names[0].startswith("GPU-")
    assert told.troubles == []


async def test_half_an_answer_gives_half_a_row_and_says_where_it_broke(exporter: LoopbackExporter) -> None:
    exporter.text = L40S
    place = L40S.index(b"DCGM_FI_DEV_POWER_USAGE{")
    exporter.cut_at = place + 40
    told = await collected(exporter)
    row = only_row(told)
    assert isinstance(row["temp_c"], float)
    assert row["power_w"] is State.ABSENT
    assert any("broke off after" in each.sentence for each in told.troubles)
    assert any("line" in each.source for each in told.troubles)


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        pytest.param(b"<html>Sign in</html>\n", 200, "no line of the answer can be read", id="a page"),
        pytest.param(b"\xff\xfe\x00garbage\n" * 9, 200, "no line of the answer can be read", id="bytes"),
        pytest.param(b"", 200, "the answer is empty", id="nothing"),
        pytest.param(L40S, 503, "status 503", id="a refusal"),
    ],
)
async def test_what_is_no_exposition_is_a_failure(
    exporter: LoopbackExporter, text: bytes, status: int, why: str
) -> None:
    exporter.text, exporter.status = text, status
    with pytest.raises(SourceFailed, match=why):
        await collected(exporter)


async def test_a_number_in_a_wrong_unit_is_blank_and_named(exporter: LoopbackExporter) -> None:
    line = next(line for line in L40S.splitlines() if line.startswith(b"DCGM_FI_DEV_POWER_USAGE{"))
    exporter.text = L40S.replace(line, line.rpartition(b" ")[0] + b" 72000000")  # milliwatts
    told = await collected(exporter)
    assert only_row(told)["power_w"] is State.BLANK
    (trouble,) = told.troubles
    assert (trouble.key or "").startswith("GPU-")
    assert trouble.field == "power_w"


async def test_a_hanging_exporter_fails_within_its_time(exporter: LoopbackExporter) -> None:
    exporter.text, exporter.before = L40S, lambda: time.sleep(3)
    began_s = time.monotonic()
    async with reading(exporter, timeout_s=0.3) as collector:
        with pytest.raises(SourceFailed):
            await collector.collect(NOW)
    assert time.monotonic() - began_s < 1.5


async def test_a_dead_exporter_fails(exporter: LoopbackExporter) -> None:
    exporter.close()
    with pytest.raises(SourceFailed):
        await collected(exporter)


async def test_a_fault_code_counted_once_more_is_a_witness(exporter: LoopbackExporter) -> None:
    labels = b'gpu="0",UUID="GPU-1",pci_bus_id="00000000:9B:00.0",modelName="NVIDIA H100 80GB HBM3"'
    exporter.text = b'DCGM_EXP_XID_ERRORS_COUNT{%b,xid="79"} 1\n' % labels
    async with reading(exporter) as collector:
        first = await collector.collect(NOW)
        exporter.text += b'DCGM_EXP_XID_ERRORS_COUNT{%b,xid="48"} 2\n' % labels
        second = await collector.collect(NOW + timedelta(seconds=10))
    assert first.witnesses == []  # what was counted before is not news
    (witness,) = second.witnesses
    assert (witness.kind, witness.code, witness.key) == ("xid", 48, "GPU-1")


async def test_node_exporter_tells_of_the_node_and_its_ports(
    exporter: LoopbackExporter, shared: Path
) -> None:
    exporter.text = (shared / "fixtures/exposition/node_exporter_linux_e2e.prom").read_bytes()
    told = await collected(exporter)
    (node,) = told.rows["node"]
    assert node.key == ""
    assert node.fields["load1"].value == 0.21
    assert {row.key for row in told.rows["port"]} >= {"mlx4_0/1", "mlx4_0/2"}
