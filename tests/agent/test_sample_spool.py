"""What was measured lies on disk until the server has it, through kills, torn lines and full disks."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from baseai.agent.sample_spool import MEMORY_BYTES, SampleSpool
from baseai.api.schemas import Samples, Witness


def batch(number: int, rows: int = 2, text: str = "S") -> Samples:
    return Samples(
        batch_id=f"bat_{number}",
        family="accelerator",
        boot_id="boot",
        keys=[f"{text}{row}" for row in range(rows)],
        ts_ms=[number] * rows,
        values={"temp_c": [float(number)] * rows},
    )


def witness(number: int) -> Witness:
    return Witness.model_validate({"event_id": f"wit_{number}", "at": "2026-11-20T12:00:00Z", "kind": "xid"})


def waiting(spool: SampleSpool) -> list[str]:
    return spool.load(rows_max=1_000_000).ids


def test_what_was_added_is_there_for_the_next_agent(tmp_path: Path) -> None:
    spool = SampleSpool(tmp_path)
    spool.add([batch(1), batch(2)], [witness(3)])
    again = SampleSpool(tmp_path)  # the first one was never closed: it was killed
    load = again.load(rows_max=100)
    assert load.ids == ["bat_1", "bat_2", "wit_3"]
    assert load.batches[0] == batch(1)
    assert load.witnesses == [witness(3)]
    assert load.rows == 4


def test_what_is_settled_is_gone_and_its_file_with_it(tmp_path: Path) -> None:
    spool = SampleSpool(tmp_path)
    spool.add([batch(1), batch(2)])
    spool.settle(["bat_1", "bat_unheard_of"])
    again = SampleSpool(tmp_path)
    assert waiting(again) == ["bat_2"]
    again.settle(["bat_2"])
    assert list(tmp_path.iterdir()) == []


def test_an_id_is_kept_once(tmp_path: Path) -> None:
    spool = SampleSpool(tmp_path)
    spool.add([batch(1)], [witness(1)])
    spool.add([batch(1)], [witness(1)])
    assert waiting(spool) == ["bat_1", "wit_1"]


def test_the_fresh_go_first_and_then_the_oldest(tmp_path: Path) -> None:
    SampleSpool(tmp_path).add([batch(number) for number in range(1, 6)])
    spool = SampleSpool(tmp_path)
    spool.add([batch(9)])
    assert spool.load(rows_max=6).ids == ["bat_9", "bat_1", "bat_2"]
    spool.settle(["bat_9", "bat_1", "bat_2"])
    spool.add([batch(10), batch(11)])
    assert spool.load(rows_max=2).ids == ["bat_10"]
    assert spool.fresh == 1
    assert spool.load(rows_max=4).ids == ["bat_11", "bat_3"]


def test_a_batch_larger_than_a_message_goes_alone(tmp_path: Path) -> None:
    spool = SampleSpool(tmp_path)
    spool.add([batch(1, rows=50), batch(2)])
    assert spool.load(rows_max=10).ids == ["bat_1"]


@pytest.mark.parametrize(
    "tear",
    [
        pytest.param(lambda text: text[:-20], id="cut short"),
        pytest.param(lambda text: text[:-1], id="without its end"),
        pytest.param(lambda text: text + b"0000", id="the next one begun"),
    ],
)
def test_a_torn_end_costs_only_what_was_never_promised(
    tmp_path: Path, tear: Callable[[bytes], bytes]
) -> None:
    SampleSpool(tmp_path).add([batch(1), batch(2)])
    (path,) = tmp_path.glob("*.log")
    path.write_bytes(tear(path.read_bytes()))
    spool = SampleSpool(tmp_path)
    assert waiting(spool) in (["bat_1"], ["bat_1", "bat_2"])
    assert list(spool.losses) == []  # the agent that wrote it had not said that it was safe
    spool.add([batch(3)])
    assert waiting(SampleSpool(tmp_path))[-1] == "bat_3"


def test_a_damaged_line_within_is_told(tmp_path: Path) -> None:
    SampleSpool(tmp_path).add([batch(1), batch(2), batch(3)])
    (path,) = tmp_path.glob("*.log")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"temp_c", b"temp_x") + lines[2])
    spool = SampleSpool(tmp_path)
    assert waiting(spool) == ["bat_1", "bat_3"]
    assert list(spool.losses) == ["1 lines of the spool's file 00000001.log were unreadable"]


def test_a_full_spool_drops_the_oldest_and_says_so(tmp_path: Path) -> None:
    spool = SampleSpool(tmp_path, limit_bytes=64 * 1024)
    for number in range(1000):
        spool.add([batch(number)])
    assert spool.disk_bytes <= 64 * 1024
    kept = waiting(spool)
    assert kept == [f"bat_{number}" for number in range(1000 - len(kept), 1000)]
    assert "the oldest" in spool.losses[-1]
    assert waiting(SampleSpool(tmp_path)) == kept


def test_files_do_not_pile_up_while_all_is_delivered(tmp_path: Path) -> None:
    spool = SampleSpool(tmp_path, limit_bytes=64 * 1024)
    for number in range(300):
        spool.add([batch(number)])
        spool.settle(spool.load(rows_max=100).ids)
    assert len(list(tmp_path.iterdir())) <= 2
    assert len(spool) == 0


def test_a_full_disk_keeps_the_tick_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = SampleSpool(tmp_path)
    spool.add([batch(1)])
    real = os.write

    def full(fd: int, text: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    spool.add([batch(2)])
    spool.add([batch(3)])
    monkeypatch.setattr(os, "write", real)
    spool.add([batch(4)])
    assert waiting(spool) == ["bat_1", "bat_2", "bat_3", "bat_4"]
    assert waiting(SampleSpool(tmp_path)) == ["bat_1", "bat_4"]


def test_memory_is_bounded_while_the_server_is_away(tmp_path: Path) -> None:
    spool = SampleSpool(tmp_path)
    for number in range(40):
        spool.add([batch(number, rows=3000, text="x" * 200)])
    assert spool._memory_bytes <= MEMORY_BYTES
    assert len(waiting(spool)) == 40  # what left memory is read from disk
    assert list(spool.losses) == []
