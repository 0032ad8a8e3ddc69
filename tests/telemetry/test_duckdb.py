"""The store on DuckDB and the world that fails it: kills, full disks, harmed files, a second process."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from baseai.telemetry.duckdb import DuckStore
from baseai.telemetry.field import ACCELERATOR
from baseai.telemetry.store import By, StoreFull, StoreHeld, Tier
from tests.telemetry.sampled import DAY, HOUR, MINUTE, T0, batch, ticks

ROOT = Path(__file__).resolve().parents[2]
SEALED = T0 + 40 * DAY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def counted(store: DuckStore, *, until_ms: int = T0 + DAY) -> dict[str, int]:
    """Samples of each thing."""
    found = store.aggregate(ACCELERATOR, "power_w", from_ms=T0, until_ms=until_ms, by=By.KEY)
    return dict(zip(found.groups, found.count.sum(axis=1).tolist(), strict=True))


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that works on a store."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
    )


APPENDING = """
    import sys
    from pathlib import Path
    from baseai.telemetry.duckdb import DuckStore
    from tests.telemetry.sampled import HOUR, T0, batch
    store, first = DuckStore(Path(sys.argv[1])), int(sys.argv[2])
    print("open", flush=True)
    for number in range(first, first + 100_000):
        rows = [(key, 50.0 * number, {"power_w": 1.0}) for key in "abc"]
        store.append(batch(*rows, batch_id=f"batch-{number}"))
        print(number, flush=True)
        if number % 7 == 0:
            store.rollup(now_ms=T0 + 50_000 * number)
"""


@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing_acknowledged_and_double_nothing(folder: Path) -> None:
    """Each round sends again from the last number it saw acknowledged, as a spool does."""
    acknowledged = -1
    for kill in range(12):
        child = python(APPENDING, folder, max(0, acknowledged - 3))
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        timer = threading.Timer(0.05 + 0.11 * kill, child.send_signal, [signal.SIGKILL])
        timer.start()
        for line in child.stdout:
            acknowledged = int(line)
        timer.join()
        child.wait()
        child.stdout.close()
    store = DuckStore(folder)
    for stage in ("as found", "sealed"):
        found = store.range(ACCELERATOR, "b", ["power_w"], from_ms=T0, until_ms=T0 + 9 * DAY)
        seconds = (found.ts_ms - T0) // 1_000
        # The batch under way at the last kill may be there or not; nobody was told.
        assert seconds.tolist() == [50 * number for number in range(len(seconds))], stage
        assert acknowledged + 1 <= len(seconds) <= acknowledged + 2, stage
        assert set(counted(store, until_ms=T0 + 9 * DAY).values()) == {len(seconds)}, stage
        store.rollup(now_ms=SEALED)
    assert store.troubles == ()
    store.close()
    assert acknowledged > 50, "too few batches came through to say anything"


def test_a_torn_end_of_the_journal_was_never_acknowledged(folder: Path) -> None:
    child = python(
        """
        import os, sys
        from pathlib import Path
        from baseai.telemetry.duckdb import DuckStore
        from tests.telemetry.sampled import batch
        store = DuckStore(Path(sys.argv[1]))
        for number in range(3):
            store.append(batch(("a", 10.0 * number, {"power_w": 1.0}), batch_id=f"batch-{number}"))
        os.kill(os.getpid(), 9)
        """,
        folder,
    )
    child.communicate()
    (journal,) = (folder / "journal").glob("*.log")
    journal.write_bytes(journal.read_bytes()[:-5])
    store = DuckStore(folder)
    assert counted(store) == {"a": 2}
    assert store.append(batch(("a", 20, {"power_w": 1}), batch_id="batch-2")).rows == 1
    assert store.append(batch(("a", 10, {"power_w": 1}), batch_id="batch-1")).repeated
    store.close()


def test_one_process_has_the_store(folder: Path) -> None:
    store = DuckStore(folder)
    with pytest.raises(StoreHeld, match="another process"):
        DuckStore(folder)
    store.close()
    DuckStore(folder).close()


def test_a_full_disk_refuses_whole_batches_and_takes_them_when_there_is_room(folder: Path) -> None:
    """A limit on the size of files stands in for the end of the disk."""
    child = python(
        """
        import resource, sys
        from pathlib import Path
        from baseai.telemetry.duckdb import DuckStore
        from baseai.telemetry.field import ACCELERATOR
        from baseai.telemetry.store import StoreFull
        from tests.telemetry.sampled import DAY, T0, batch
        store = DuckStore(Path(sys.argv[1]))
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
        def tick(n):
            return batch(*((f"k{key}", 10.0 * n, {"power_w": 1.0}) for key in range(8)), batch_id=f"b{n}")
        batches = [tick(n) for n in range(30)]
        refused = []
        for each in batches:
            try:
                assert store.append(each).rows == 8
            except StoreFull as full:
                assert full.retryable
                refused.append(each)
        def held():
            return int(store.aggregate(ACCELERATOR, "power_w", from_ms=T0, until_ms=T0 + DAY).count.sum())
        print(len(refused), held())
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        print([store.append(each).rows for each in refused] == [8] * len(refused), held())
        store.close()
        """,
        folder,
    )
    told, _ = child.communicate(timeout=60)
    refused, held, again, whole = told.split()
    assert 0 < int(refused) < 30
    assert int(held) == 8 * (30 - int(refused))
    assert (again, whole) == ("True", "240")
    store = DuckStore(folder)
    assert sum(counted(store).values()) == 240
    store.close()


def test_sealing_on_a_full_disk_fails_whole_and_may_be_tried_again(folder: Path) -> None:
    child = python(
        """
        import resource, sys
        from pathlib import Path
        from baseai.telemetry.duckdb import DuckStore
        from baseai.telemetry.store import StoreFull
        from tests.telemetry.sampled import DAY, T0, ticks
        store = DuckStore(Path(sys.argv[1]))
        store.append(ticks("a", "power_w", [float(n * n % 977) for n in range(3_000)]))
        store.rollup(now_ms=T0)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, most))
        try:
            store.rollup(now_ms=T0 + DAY)
        except StoreFull:
            print("refused")
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        store.rollup(now_ms=T0 + DAY)
        store.close()
        """,
        folder,
    )
    told, _ = child.communicate(timeout=60)
    assert told == "refused\n"
    assert len(list(folder.glob("raw/accelerator/*/*.parquet"))) == 9  # hours, each written once
    store = DuckStore(folder)
    assert counted(store) == {"a": 3_000}
    store.close()


@pytest.fixture
def sealed(folder: Path) -> DuckStore:
    """Two hours of one thing, sealed."""
    store = DuckStore(folder)
    store.append(ticks("a", "power_w", [100.0] * 720))
    store.rollup(now_ms=SEALED)
    store.close()
    return DuckStore(folder)


def harm(folder: Path, pattern: str) -> None:
    """Make the first file of that kind unreadable, as half a write does."""
    file = min(folder.glob(pattern))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_harmed_rollup_is_made_again_from_its_rows(folder: Path, sealed: DuckStore) -> None:
    harm(folder, "minute/accelerator/*/*.parquet")
    asked = {"from_ms": T0, "until_ms": T0 + HOUR, "points_max": 60}
    for _ in range(2):
        found = sealed.aggregate(ACCELERATOR, "power_w", **asked)  # type: ignore[arg-type]
        assert found.tier is Tier.MINUTE
        assert found.count.sum() == 360
        sealed.rollup(now_ms=SEALED)
    assert "harmed and was set aside" in sealed.troubles[0]
    assert len(list(folder.glob("minute/accelerator/*/*.parquet"))) == 2
    sealed.close()


def test_harmed_rows_are_set_aside_and_the_rest_is_answered(folder: Path, sealed: DuckStore) -> None:
    harm(folder, "raw/accelerator/*/*.parquet")
    found = sealed.range(ACCELERATOR, "a", ["power_w"], from_ms=T0, until_ms=T0 + 2 * HOUR)
    assert len(found.ts_ms) == 360
    assert len(list(folder.glob("raw/accelerator/*/*.broken"))) == 1
    assert counted(sealed) == {"a": 720}  # what was rolled up is still known
    sealed.append(batch(("a", 5, {"power_w": 1})))  # late, into the hour whose rows are gone
    sealed.rollup(now_ms=SEALED)
    assert counted(sealed) == {"a": 720}
    sealed.close()
    again = DuckStore(folder)
    assert counted(again) == {"a": 720}
    again.close()


@pytest.mark.parametrize("now_ms", [T0 + 3 * HOUR, SEALED], ids=["hour by hour", "days joined"])
def test_a_harmed_database_is_made_again_from_sealed_files(folder: Path, now_ms: int) -> None:
    store = DuckStore(folder)
    for boot in ("boot-1", "boot-2"):
        from_s = 3_000 * int(boot[-1])
        store.append(
            batch(
                *(("a", from_s + at, {"power_w": at, "energy_j": at}) for at in range(0, 900, 10)), boot=boot
            )
        )
    store.append(batch(("silent", 10, {"power_w": 1})))
    store.rollup(now_ms=now_ms)
    asked = {"from_ms": T0, "until_ms": T0 + 3 * HOUR, "by": By.KEY}
    before = store.aggregate(ACCELERATOR, "energy_j", **asked), store.latest(ACCELERATOR)  # type: ignore[arg-type]
    store.close()
    (folder / "open.duckdb").write_bytes(b"what a bad sector left" * 1_000)
    store = DuckStore(folder)
    assert "could not be read and was set aside" in store.troubles[0]
    after = store.aggregate(ACCELERATOR, "energy_j", **asked), store.latest(ACCELERATOR)  # type: ignore[arg-type]
    assert after[0].groups == before[0].groups
    np.testing.assert_array_equal(after[0].delta, before[0].delta)
    np.testing.assert_array_equal(after[1].values, before[1].values)
    assert store.append(batch(("silent", 10, {"power_w": 1}), ("a", 3_000, {}))).rows == 0
    store.close()


def test_a_file_that_vanished_is_told_at_the_start(folder: Path, sealed: DuckStore) -> None:
    sealed.close()
    min(folder.glob("hour/accelerator/*/*.parquet")).unlink()
    store = DuckStore(folder)
    assert "is gone from the metric store" in store.troubles[0]
    assert counted(store) == {"a": 720}
    store.close()


def test_what_a_kill_left_half_written_is_swept_away(folder: Path, sealed: DuckStore) -> None:
    sealed.close()
    day = min(folder.glob("raw/accelerator/*"))
    (day / "05-1-1-0.parquet.half").write_bytes(b"PAR1")
    (day / "05-1-1-0.parquet").write_bytes(b"PAR1")
    store = DuckStore(folder)
    assert len(list(day.iterdir())) == 2
    assert counted(store) == {"a": 720}
    store.close()


def test_who_appends_at_once_shares_one_wait_for_the_disk(folder: Path) -> None:
    store = DuckStore(folder)
    rows: list[int] = []
    batches = [batch((f"k{number}", 0, {"power_w": 1})) for number in range(64)]
    threads = [threading.Thread(target=lambda b=each: rows.append(store.append(b).rows)) for each in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows == [1] * 64
    assert len(counted(store)) == 64
    store.close()


def test_a_batch_that_cannot_be_kept_fails_alone(folder: Path) -> None:
    store = DuckStore(folder)
    with pytest.raises(ValueError, match="outside 1970"):
        store.append(batch(("new", -3e9, {"power_w": 1})))
    assert store.append(batch(("a", 0, {"power_w": 1}))).rows == 1
    assert store.latest(ACCELERATOR).keys == ("a",)
    store.close()


def test_questions_are_answered_while_hours_are_sealed(folder: Path) -> None:
    """Whoever reads sees every row once, wherever it is on its way."""
    store = DuckStore(folder)
    for hour in range(4):
        store.append(ticks("a", "power_w", [1.0] * 360, from_s=hour * 3_600))
    ended = threading.Event()
    seen: list[int] = []

    def ask() -> None:
        while not ended.is_set():
            seen.append(counted(store)["a"])
            seen.append(len(store.range(ACCELERATOR, "a", ["power_w"], from_ms=T0, until_ms=T0 + DAY).ts_ms))

    asking = threading.Thread(target=ask)
    asking.start()
    for hour in range(4):
        store.rollup(now_ms=T0 + (hour + 1) * HOUR + 2 * MINUTE)
        store.append(batch(("a", hour * 3_600 + 5, {"temp_c": 50})))
        time.sleep(0.05)
    ended.set()
    asking.join()
    store.close()
    assert {count for count in seen if not 1_440 <= count <= 1_444} == set()


def test_the_newest_rows_and_the_ring_survive_a_restart(folder: Path) -> None:
    store = DuckStore(folder)
    store.append(ticks("old", "power_w", [1.0, 2.0]))
    store.append(ticks("a", "power_w", [float(number) for number in range(1_000)]))
    store.rollup(now_ms=T0 + 2 * HOUR)
    before = store.latest(ACCELERATOR)
    store.close()
    store = DuckStore(folder)
    after = store.latest(ACCELERATOR)
    assert after.keys == before.keys == ("a", "old")
    np.testing.assert_array_equal(after.values, before.values)
    np.testing.assert_array_equal(after.ts_ms, before.ts_ms)
    assert store.append(batch(("a", 9_990, {"power_w": 1}))).rows == 0
    store.close()


def test_a_restart_doubles_nothing_in_the_ring(folder: Path) -> None:
    store = DuckStore(folder)
    store.append(
        ticks("a", "power_w", [1.0] * 20, from_s=3_500)
    )  # on both sides of an hour, both of them open
    store.close()
    store = DuckStore(folder)
    found = store.range(ACCELERATOR, "a", ["power_w"], from_ms=T0 + 3_500_000, until_ms=T0 + 2 * HOUR)
    assert len(found.ts_ms) == 20
    store.close()


def test_a_fault_of_the_disk_while_asked_for_more_is_told_as_one(folder: Path) -> None:
    store = DuckStore(folder)
    store.append(batch(("a", 0, {"power_w": 1})))
    journal = store._journal
    os.close(journal._file)
    journal._file = os.open(folder / "lock", os.O_RDONLY)  # a file that takes nothing
    with pytest.raises(StoreFull):
        store.append(batch(("a", 10, {"power_w": 1})))
    assert store.append(batch(("a", 20, {"power_w": 1}))).rows == 1  # in a file of its own
    assert counted(store) == {"a": 2}
    store.close()
