"""What was seen waits for the server, in order, once, through anything."""

from datetime import UTC, datetime
from pathlib import Path

from baseai.agent.spool import COMPACT_LINES, Spool
from baseai.api.schemas import Observation


def seen(number: int, kind: str = "progress") -> Observation:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Observation.model_validate(
        {"event_id": f"obs_{number}", "at": at, "kind": kind, "lease_id": "lease_1", "attempt_no": 1}
    )


def ids(spool: Spool) -> list[str]:
    return [each.event_id for each in spool.first(1_000_000)]


def test_what_was_added_is_there_again_in_order(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = Spool(path)
    spool.add([seen(1), seen(2)], lease_id="lease_1", read_to=77)
    spool.add([seen(3), seen(2)])
    spool.settle(["obs_1", "obs_unknown"])
    again = Spool(path)  # the first one was never closed: it was killed
    assert ids(again) == ["obs_2", "obs_3"]
    assert again.read_to("lease_1") == 77
    again.forget("lease_1")
    assert Spool(path).read_to("lease_1") == 0


def test_a_line_cut_short_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    Spool(path).add([seen(1)])
    with path.open("ab") as file:
        file.write(b'{"o": {"event_id": "obs_2", "at"')
    spool = Spool(path)
    assert ids(spool) == ["obs_1"]
    spool.add([seen(3)])
    assert ids(Spool(path)) == ["obs_1", "obs_3"]


def test_a_full_spool_drops_the_oldest_progress_and_counts_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl", limit=3)
    spool.add([seen(1, "started"), seen(2), seen(3), seen(4)])
    spool.add([seen(5, "exited")])
    assert ids(spool) == ["obs_1", "obs_4", "obs_5"]
    assert spool.dropped == 2
    assert ids(Spool(tmp_path / "spool.jsonl")) == ["obs_1", "obs_4", "obs_5"]


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = Spool(path)
    spool.add([seen(0, "started")], lease_id="lease_1", read_to=5)
    for number in range(1, 3 * COMPACT_LINES // 100):
        batch = [seen(1000 * number + each) for each in range(100)]
        spool.add(batch)
        spool.settle([each.event_id for each in batch])
    assert len(path.read_bytes().splitlines()) < COMPACT_LINES + 200
    assert ids(Spool(path)) == ["obs_0"]
    assert Spool(path).read_to("lease_1") == 5
