"""A node has every eye it can have: those that find nothing are off and say why, and none of them fails for it."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baseai.agent.main import AgentSettings
from baseai.ground.fault import Refused
from baseai.telemetry.collector import NothingThere
from baseai.wiring.eyes import collectors_of, watts_of_slot

EXPORTERS = ("http://127.0.0.1:9400/metrics", "http://127.0.0.1:9100/metrics")


def settings(folder: Path, **said: object) -> AgentSettings:
    return AgentSettings(folder=folder, url="http://127.0.0.1:7800", **said)  # type: ignore[arg-type]


def test_every_exporter_has_a_collector_of_its_own(tmp_path: Path) -> None:
    names = [each.name for each in collectors_of(settings(tmp_path, scrape=EXPORTERS))]
    assert names == [
        "host", "nvml", "amd_smi", "tpu", *(f"scrape {url}" for url in EXPORTERS), "infiniband", "kernel_log",
    ]  # fmt: skip


def test_a_source_answers_or_fails_before_it_is_due_again(tmp_path: Path) -> None:
    for every_s in (0.5, 2.0, 10.0, 60.0):
        for each in collectors_of(settings(tmp_path, sample_every_s=every_s, scrape=EXPORTERS)):
            assert each.interval_s == every_s
            assert each.timeout_s < every_s


@pytest.mark.anyio
async def test_what_this_machine_lacks_is_nothing_there(tmp_path: Path) -> None:
    told = {}
    for each in collectors_of(settings(tmp_path)):
        with suppress(NothingThere):
            told[each.name] = (await each.collect(datetime.now(UTC))).rows
    assert set(told["host"]) == {"accelerator", "node", "port"}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param({"sample_every_s": 0.1}, "0.5 s is the least", id="too often"),
        pytest.param({"scrape": ("localhost:9400",)}, "http://127.0.0.1:9400/metrics", id="no address"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(
    tmp_path: Path, said: dict[str, object], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        collectors_of(settings(tmp_path, **said))


def test_a_slot_draws_what_the_catalogue_assumes() -> None:
    assert watts_of_slot() == (6.0, "catalogue: owned.cpu-slot.server_watts")
