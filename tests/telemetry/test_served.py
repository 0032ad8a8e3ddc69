"""A store asked over its socket answers as the store itself, and its absence is one retryable fault."""

import asyncio
import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from baseai.ground.fault import Refused
from baseai.telemetry.field import ACCELERATOR, State
from baseai.telemetry.frame import HEAD
from baseai.telemetry.memory import MemoryStore
from baseai.telemetry.remote import RemoteStore
from baseai.telemetry.sample import Batch, code_of
from baseai.telemetry.served import served
from baseai.telemetry.store import Appended, By, Place, StoreAway
from tests.telemetry.near import remote

pytestmark = pytest.mark.anyio
NOW = 1_795_000_000_000


def batch(batch_id: str = "bat_1", keys: Sequence[str] = ("GPU-1", "GPU-2"), at_ms: int = NOW) -> Batch:
    shape = (len(keys), len(ACCELERATOR.fields))
    values, codes = np.full(shape, np.nan), np.full(shape, code_of(State.ABSENT), np.uint8)
    values[:, 0], codes[:, 0] = np.arange(len(keys)) * 1.5, code_of(State.VALUE)
    return Batch(
        batch_id=batch_id, family=ACCELERATOR, node_id="nod_1", site="gru", boot_id="b", keys=tuple(keys),
        ts_ms=np.full(len(keys), at_ms, np.int64), values=values, codes=codes, sources={"util_pct": "a test"},
    )  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="baseai-s-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


async def test_a_remote_store_answers_as_the_store_itself() -> None:
    near = MemoryStore()
    async with remote(near) as far:
        await far.place(ACCELERATOR, {"GPU-1": Place(node_id="nod_1", site="gru", model="H100", rack="r1")})
        assert await far.append(batch()) == Appended(rows=2, repeated=False)
        assert await far.append(batch()) == Appended(rows=0, repeated=True)
        here, there = near.latest(ACCELERATOR), await far.latest(ACCELERATOR)
        assert (here.keys, here.places) == (there.keys, there.places)
        for name in ("ts_ms", "values", "codes"):
            assert np.array_equal(getattr(here, name), getattr(there, name), equal_nan=name == "values")
            assert getattr(here, name).dtype == getattr(there, name).dtype
        assert (await far.latest(ACCELERATOR, ["nobody"])).keys == ()
        series = await far.range(ACCELERATOR, "GPU-2", ["util_pct"], from_ms=NOW, until_ms=NOW + 1)
        assert series.values.tolist() == [[1.5]]
        total = await far.aggregate(
            ACCELERATOR, "util_pct", from_ms=NOW, until_ms=NOW + 1, by=By.SITE, points_max=1
        )
        assert (total.groups, total.count.sum(), total.by) == (("gru",), 2, By.SITE)
        assert await far.sources(ACCELERATOR, "GPU-1") == {"util_pct": "a test"}


async def test_a_question_that_is_none_ends_itself_and_nothing_else() -> None:
    async with remote() as far:
        with pytest.raises(Refused):
            await far.range(ACCELERATOR, "GPU-1", ["no such field"], from_ms=0, until_ms=1)
        await far.ping()


async def test_nobody_there_is_away_and_so_is_one_that_hangs(folder: Path) -> None:
    with pytest.raises(StoreAway, match="being started"):
        await RemoteStore(folder / "none.sock").ping()
    over, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_unix_server(hang, str(folder / "hangs.sock")):
        hanging = RemoteStore(folder / "hangs.sock", answer_within_s=0.2)
        with pytest.raises(StoreAway, match=r"nothing within 0\.2 s"):
            await hanging.ping()
        await hanging.close()
        over.set()
        await ended.wait()


async def test_a_restart_in_between_is_not_noticed(folder: Path) -> None:
    store, far = MemoryStore(), RemoteStore(folder / "m.sock")
    for number in range(3):
        async with served(store, folder / "m.sock"):
            kept = await asyncio.gather(
                *(far.append(batch(f"bat_{number}_{one}", at_ms=NOW + one)) for one in range(4))
            )
            assert [one.repeated for one in kept] == [False] * 4
            again = await far.append(batch(f"bat_{number}_0", at_ms=NOW))
            assert (again.rows, again.repeated) == (0, True)
    await far.close()


async def test_garbage_ends_its_own_line_only(folder: Path) -> None:
    async with served(MemoryStore(), folder / "m.sock"):
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", HEAD.pack(5, 0) + b"{}", HEAD.pack(2, 0) + b"{}", b"\x01"):
            reader, writer = await asyncio.open_unix_connection(str(folder / "m.sock"))
            writer.write(garbage)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        far = RemoteStore(folder / "m.sock")
        await far.ping()
        await far.close()


class Slow(MemoryStore):
    """Waits for the disk, counts how often, and cannot keep one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self.rolling = threading.Event()

    def append_all(self, batches: Sequence[Batch]) -> Sequence[Appended]:
        time.sleep(0.05)
        self.waits += 1
        if any(one.batch_id == "poison" for one in batches):
            raise OSError("a page that cannot be written")
        return super().append_all(batches)

    def rollup(self, *, now_ms: int) -> None:
        self.rolling.wait(5)


async def test_batches_that_come_together_wait_for_the_disk_once() -> None:
    store = Slow()
    store.rolling.set()
    async with remote(store) as far:
        await asyncio.gather(
            *(far.append(batch(f"bat_{number}", at_ms=NOW + number)) for number in range(12))
        )
        assert store.waits <= 3


async def test_one_batch_that_cannot_be_kept_keeps_no_other() -> None:
    store = Slow()
    store.rolling.set()
    async with remote(store) as far:
        told = await asyncio.gather(
            *(far.append(batch(name, at_ms=NOW + place)) for place, name in enumerate(("a", "poison", "b"))),
            return_exceptions=True,
        )
    assert [type(one) for one in told] == [Appended, StoreAway, Appended]


async def test_sealing_holds_nobody_up() -> None:
    store = Slow()
    async with remote(store) as far:
        began = time.monotonic()
        await far.append(batch())
        await far.latest(ACCELERATOR)
        assert time.monotonic() - began < 2, "rollup holds its own thread alone"
        store.rolling.set()


async def test_changes_are_told_once_for_a_moment() -> None:
    async with remote() as far:
        told: list[float] = []

        async def listen() -> None:
            async for _ in far.changes():
                told.append(time.monotonic())

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.7)  # what was there before anybody listened
        told.clear()
        for number in range(5):
            await far.append(batch(f"bat_{number}", at_ms=NOW + number))
        await asyncio.sleep(1.2)
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
    assert 1 <= len(told) <= 2
