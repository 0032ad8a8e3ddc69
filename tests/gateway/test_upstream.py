"""The gateway's own HTTP client, against servers that speak odd and broken HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from baseai.gateway.upstream import FRESH_S, HEAD_MOST, UNREAD_MOST, BrokenOff, NotReached, Pool, Wire

pytestmark = pytest.mark.anyio

ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@asynccontextmanager
async def speaking(*answers: bytes, closes: bool = False) -> AsyncIterator[Pool]:
    """A server that gives these bytes piece by piece for each request, whatever it was."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for piece in answers:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.002)
                if closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        writer.close()
        serving.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1], asyncio.get_running_loop())
    try:
        yield pool
    finally:
        pool.close()
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def exchanged(pool: Pool, *, bodiless: bool = False) -> tuple[Wire, bytes]:
    wire = pool.taken(once=False, now_s=0.0) or await pool.connected()
    wire.ask(ASK, b"", bodiless=bodiless)
    await wire.head()
    body = b""
    while part := await wire.read():
        body += part
    return wire, body


@pytest.mark.parametrize(
    ("answers", "closes", "body", "reused"),
    [
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"], False, b"abc", True, id="a length"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\ncontent-", b"length: 3\r\n\r\na", b"bc"], False, b"abc", True, id="in pieces"
        ),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n"],
            False,
            b"abc",
            True,
            id="chunks",
        ),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nab", b"c"], True, b"abc", False, id="until the end"),
        pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n"], False, b"", True, id="nothing"),
        pytest.param(
            [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"],
            False,
            b"a",
            True,
            id="a word in between",
        ),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\na"], True, b"a", False, id="goodbye"
        ),
        pytest.param([b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na"], True, b"a", False, id="an old server"),
    ],
)  # fmt: skip
async def test_an_answer_is_read_to_its_end(
    answers: list[bytes], closes: bool, body: bytes, reused: bool
) -> None:
    async with speaking(*answers, closes=closes) as pool:
        wire, read = await exchanged(pool)
        assert read == body
        assert b"link" not in dict(wire.headers)
        pool.give_back(wire, now_s=0.0)
        assert (pool.taken(once=False, now_s=0.0) is wire) == reused


async def test_the_answer_to_head_has_no_body_whatever_it_announces() -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n") as pool:
        wire, read = await exchanged(pool, bodiless=True)
    assert (read, dict(wire.headers)) == (b"", {b"content-length": b"99"})


@pytest.mark.parametrize(
    ("answers", "answered"),
    [
        pytest.param([], False, id="nothing at all"),
        pytest.param([b"garbage\r\n\r\n"], True, id="no HTTP"),
        pytest.param([b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEAD_MOST + b"\r\n\r\n"], True, id="an endless head"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"], True, id="half a body"),
        pytest.param([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab"], True, id="half a chunk"),
        pytest.param([b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"], True, id="upgrade"),
    ],
)  # fmt: skip
async def test_what_is_not_whole_is_broken(answers: list[bytes], answered: bool) -> None:
    async with speaking(*answers, closes=True) as pool:
        with pytest.raises(BrokenOff) as broken:
            await exchanged(pool)
    assert broken.value.answered is answered


async def test_a_second_answer_that_nobody_asked_for_ends_the_wire() -> None:
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"
    async with speaking(whole + whole) as pool:
        wire, read = await exchanged(pool)
        pool.give_back(wire, now_s=0.0)
        assert read == b"a"
        assert pool.taken(once=False, now_s=0.0) is None


async def test_what_nobody_read_is_not_the_next_answer() -> None:
    async with speaking(b"HTTP/1.1 503 Full\r\ncontent-length: 3\r\n\r\nabc") as pool:
        wire = await pool.connected()
        wire.ask(ASK, b"", bodiless=False)
        await wire.head()
        pool.give_back(wire, now_s=0.0)
        again, read = await exchanged(pool)
    assert again is wire
    assert read == b"abc"


async def test_a_wire_that_stood_idle_is_not_trusted() -> None:
    async with speaking(b"HTTP/1.1 204 No Content\r\n\r\n") as pool:
        wire, _ = await exchanged(pool)
        pool.give_back(wire, now_s=0.0)
        pool.sweep(now_s=FRESH_S - 0.1)
        assert pool.taken(once=True, now_s=1.0) is None  # for what must not be sent twice, soon


async def test_nobody_listens() -> None:
    async with speaking() as pool:
        pass
    await asyncio.sleep(0.01)
    with pytest.raises(NotReached, match="no connection to 127"):
        await pool.connected()


async def test_a_slow_reader_makes_the_replica_wait() -> None:
    """What waits here is bounded: the rest stays with the replica until it is read."""
    megabyte = b"x" * (1 << 20)
    length = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 << 20)
    async with speaking(length, *[megabyte] * 64) as pool:
        wire = await pool.connected()
        wire.ask(ASK, b"", bodiless=False)
        await wire.head()
        await asyncio.sleep(0.3)
        first = len(await wire.read())
        assert first < 2 * UNREAD_MOST + (1 << 20)
        read = first
        while part := await wire.read():
            read += len(part)
    assert read == 64 << 20
