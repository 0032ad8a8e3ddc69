"""The cache: equal questions of one version are asked once, and what is known is given as long as both sides agree."""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baseai.gateway.cache import MemoryCache, SharedAnswers
from baseai.gateway.redis import RedisAnswers, bytes_of, found_in
from baseai.gateway.seams import Answer, Bypass, CacheView, Kept, Lead, OnlyKept, Question
from baseai.serving.route import Route, RoutedVersion
from baseai.workloads.service import CacheTerms, Service

pytestmark = pytest.mark.anyio

TERMS = Service(
    engine="embeddings", model="m", model_name="mini", protocol="openai", cache=CacheTerms(max_age_s=60.0)
)  # fmt: skip
ANSWER = Answer(
    status=200, headers=((b"content-type", b"application/json"),), body=b'{"ok":1}', tokens_in=3, tokens_out=0,
    run_id="run_1",
)  # fmt: skip


def question(
    text: str = "hello", *, digest: str = "d1", service: str = "svc_1", said: bytes = b"", **terms: Any
) -> Question:
    version = RoutedVersion(version_no=1, share=1.0, digest=digest, terms=replace(TERMS, **terms))
    route = Route(
        service_id=service, tenant_id="ten_a", project_id="prj_a", name="mini", state="serving", versions=(version,),
        backends=(),
    )  # fmt: skip
    return Question(
        route=route,
        version=version,
        caller=None,
        method="POST",
        path="/v1/embeddings",
        content_type=b"application/json",
        body=json.dumps({"model": "mini", "input": text}).encode(),
        cache_control=said,
    )


async def looked(cache: MemoryCache, asked: Question, now_s: float = 0.0) -> CacheView:
    """As the path looks."""
    view = cache.look(asked, now_s=now_s)
    return view if view is not None else await cache.fetch(asked, now_s=now_s)


async def answered(
    cache: MemoryCache, asked: Question, ask: Callable[[], Awaitable[Answer | None]], now_s: float = 0.0
) -> tuple[Answer | None, bytes]:
    """A request as the path brings it through: its answer and its Cache-Status. `ask` gives None when it fails."""
    while True:
        view = await looked(cache, asked, now_s)
        if isinstance(view, Kept):
            return view.answer, view.status
        if isinstance(view, Lead):
            try:
                answer = await ask()
            except asyncio.CancelledError:
                view.drop()
                raise
            return answer, view.drop() if answer is None else view.keep(answer, now_s=now_s)
        if isinstance(view, (Bypass, OnlyKept)):
            return None, view.status
        kept = await view.answer()
        if kept is not None:
            return kept.answer, kept.status


class Replica:
    """Counts what reaches it; answers when it is let."""

    def __init__(self, *answers: Answer | None) -> None:
        self.asked = 0
        self.answers = list(answers)
        self.gate = asyncio.Event()

    async def __call__(self) -> Answer | None:
        self.asked += 1
        await self.gate.wait()
        return self.answers.pop(0) if self.answers else ANSWER


async def known(cache: MemoryCache, asked: Question, answer: Answer = ANSWER, now_s: float = 0.0) -> bytes:
    replica = Replica(answer)
    replica.gate.set()
    _, status = await answered(cache, asked, replica, now_s)
    assert replica.asked == 1
    return status


# ---- what is kept


async def test_a_question_is_asked_once_and_then_known_with_its_age() -> None:
    cache = MemoryCache()
    assert await known(cache, question()) == b"baseai; fwd=miss; fwd-status=200; stored; ttl=60"
    view = cache.look(question(), now_s=42.5)
    assert isinstance(view, Kept)
    assert (view.answer, view.status, view.headers) == (ANSWER, b"baseai; hit; ttl=17", ((b"age", b"42"),))
    assert isinstance(cache.look(question(), now_s=60.0), Lead)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(question("hullo"), id="another text"),
        pytest.param(question(digest="d2"), id="another version"),
        pytest.param(question(service="svc_2"), id="another service, or tenant"),
    ],
)
async def test_an_answer_is_never_given_for(other: Question) -> None:
    cache = MemoryCache()
    await known(cache, question())
    assert isinstance(cache.look(other, now_s=1.0), Lead)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(replace(ANSWER, status=500), b"baseai; fwd=miss; fwd-status=500", id="a failure"),
        pytest.param(replace(ANSWER, status=400), b"baseai; fwd=miss; fwd-status=400", id="a refusal"),
        pytest.param(
            replace(ANSWER, headers=((b"cache-control", b"no-store"),)),
            b"baseai; fwd=miss; fwd-status=200",
            id="forbidden",
        ),
        pytest.param(
            replace(ANSWER, headers=((b"set-cookie", b"a=b"),)),
            b"baseai; fwd=miss; fwd-status=200",
            id="meant for one",
        ),
        pytest.param(
            replace(ANSWER, body=b"x" * 10_000), b"baseai; fwd=miss; fwd-status=200", id="too large"
        ),
    ],
)
async def test_what_is_not_kept(answer: Answer, status: bytes) -> None:
    cache = MemoryCache()
    small = question(cache=CacheTerms(max_age_s=60.0, most_bytes=9_000))
    assert await known(cache, small, answer) == status
    assert isinstance(cache.look(small, now_s=1.0), Lead)


async def test_the_replica_may_shorten_how_long_its_answer_is_kept() -> None:
    cache = MemoryCache()
    told = replace(ANSWER, headers=((b"cache-control", b"max-age=5"),))
    assert await known(cache, question(), told) == b"baseai; fwd=miss; fwd-status=200; stored; ttl=5"
    assert isinstance(cache.look(question(), now_s=5.0), Lead)


# ---- what the client asks


async def test_no_store_neither_looks_nor_keeps() -> None:
    cache = MemoryCache()
    await known(cache, question())
    view = cache.look(question(said=b"no-store"), now_s=1.0)
    assert isinstance(view, Bypass)
    assert view.status == b"baseai; fwd=bypass"


async def test_no_cache_asks_anew_and_keeps_that() -> None:
    cache = MemoryCache()
    await known(cache, question())
    newer = replace(ANSWER, body=b"newer")
    status = await known(cache, question(said=b"no-cache"), newer, now_s=10.0)
    assert status == b"baseai; fwd=request; fwd-status=200; stored; ttl=60"
    view = cache.look(question(), now_s=11.0)
    assert isinstance(view, Kept)
    assert (view.answer.body, view.age_s) == (b"newer", 1.0)


async def test_max_age_takes_what_is_young_enough() -> None:
    cache = MemoryCache()
    await known(cache, question())
    assert isinstance(cache.look(question(said=b"max-age=10"), now_s=10.0), Kept)
    assert isinstance(cache.look(question(said=b"max-age=10"), now_s=10.1), Lead)


async def test_only_if_cached_asks_nobody() -> None:
    cache = MemoryCache()
    view = cache.look(question(said=b"only-if-cached"), now_s=0.0)
    assert isinstance(view, OnlyKept)
    assert b"fwd" not in view.status  # it went nowhere
    await known(cache, question())
    assert isinstance(cache.look(question(said=b"only-if-cached"), now_s=1.0), Kept)
    assert isinstance(cache.look(question(said=b"only-if-cached, max-age=0"), now_s=2.0), OnlyKept)


async def test_what_is_like_nothing_goes_by() -> None:
    asked = replace(question(), path="/v1/chat/completions")
    assert isinstance(MemoryCache().look(asked, now_s=0.0), Bypass)
    assert isinstance(MemoryCache().look(replace(question(), method="GET"), now_s=0.0), Bypass)


# ---- equal questions at once


async def test_a_hundred_equal_questions_are_asked_once() -> None:
    cache, replica = MemoryCache(), Replica()
    tasks = [asyncio.create_task(answered(cache, question(), replica)) for _ in range(100)]
    await asyncio.sleep(0)
    replica.gate.set()
    answers = await asyncio.gather(*tasks)
    assert replica.asked == 1
    assert {answer for answer, _ in answers} == {ANSWER}
    statuses = sorted(status for _, status in answers)
    assert statuses[0] == b"baseai; fwd=miss; fwd-status=200; collapsed"
    assert statuses.count(b"baseai; fwd=miss; fwd-status=200; stored; ttl=60") == 1


async def test_when_the_one_who_asks_leaves_another_one_asks() -> None:
    cache, replica = MemoryCache(), Replica()
    tasks = [asyncio.create_task(answered(cache, question(), replica)) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[5].cancel()  # one who waits may leave too
    await asyncio.sleep(0)
    replica.gate.set()
    rest = await asyncio.gather(*(task for number, task in enumerate(tasks) if number not in (0, 5)))
    assert {answer for answer, _ in rest} == {ANSWER}
    assert replica.asked == 2


async def test_a_failure_is_tried_again_by_one_and_then_by_all_for_themselves() -> None:
    under_way: list[int] = []
    asking = 0

    async def fails() -> Answer | None:
        nonlocal asking
        asking += 1
        under_way.append(asking)
        await asyncio.sleep(0.02)
        asking -= 1
        return None

    cache = MemoryCache()
    tasks = [asyncio.create_task(answered(cache, question(), fails)) for _ in range(10)]
    assert {answer for answer, _ in await asyncio.gather(*tasks)} == {None}
    assert under_way == [1, 1, *range(1, 9)]


async def test_a_bad_question_is_as_bad_for_all() -> None:
    cache, replica = MemoryCache(), Replica(replace(ANSWER, status=422))
    tasks = [asyncio.create_task(answered(cache, question(), replica)) for _ in range(10)]
    await asyncio.sleep(0)
    replica.gate.set()
    answers = [answer for answer, _ in await asyncio.gather(*tasks)]
    assert {answer.status for answer in answers if answer} == {422}
    assert replica.asked == 1


async def test_who_wants_no_kept_answer_waits_for_nobody() -> None:
    cache, replica = MemoryCache(), Replica()
    tasks = [asyncio.create_task(answered(cache, question(said=b"no-cache"), replica)) for _ in range(3)]
    await asyncio.sleep(0)
    replica.gate.set()
    await asyncio.gather(*tasks)
    assert replica.asked == 3


# ---- a store that gateways share


class MemoryAnswers:
    """A shared store in memory, for two gateways in one process."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    async def get(self, key: bytes) -> Any:
        return found_in(self.kept[key], wall_s=time.time()) if key in self.kept else None

    async def put(self, key: bytes, answer: Answer, ttl_s: float) -> None:
        now_s = time.time()
        self.kept[key] = bytes_of(answer, since_s=now_s, until_s=now_s + ttl_s)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("neither redis-server nor valkey-server is installed here")
    folder = tmp_path_factory.mktemp("redis")
    socket = folder / "s"
    words = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    until_s = time.monotonic() + 10
    while not socket.exists():
        assert time.monotonic() < until_s, "the server does not come up"
        time.sleep(0.02)
    yield f"unix://{socket}"
    server.kill()
    server.wait()


@pytest.fixture(params=["memory", "redis"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[SharedAnswers]:
    if request.param == "memory":
        yield MemoryAnswers()
        return
    store = RedisAnswers(request.getfixturevalue("redis_url"))
    yield store
    await store._redis.flushall()
    await store.close()


async def written(
    shared: SharedAnswers, key: bytes = b"k", answer: Answer = ANSWER, ttl_s: float = 60.0
) -> None:
    await shared.put(key, answer, ttl_s)


async def test_a_store_gives_what_it_was_given_with_its_age(shared: SharedAnswers) -> None:
    assert await shared.get(b"k") is None
    odd = replace(ANSWER, body=bytes(range(256)), headers=((b"x-odd", b"\xff: \n"),))
    await written(shared, answer=odd)
    found = await shared.get(b"k")
    assert found is not None
    assert found.answer == odd
    assert 0 <= found.age_s < 5
    assert 55 < found.ttl_s <= 60


async def test_a_store_forgets_what_is_too_old(shared: SharedAnswers) -> None:
    await written(shared, ttl_s=0.05)
    await asyncio.sleep(0.1)
    assert await shared.get(b"k") is None


async def test_what_one_gateway_kept_another_gives(shared: SharedAnswers) -> None:
    one, other = MemoryCache(shared), MemoryCache(shared)
    await known(one, question())
    await asyncio.sleep(0.05)  # it is written beside
    assert other.look(question(), now_s=0.0) is None
    view = await other.fetch(question(), now_s=0.0)
    assert isinstance(view, Kept)
    assert view.answer == ANSWER
    assert isinstance(other.look(question(), now_s=1.0), Kept)  # and knows it from then on


async def test_equal_questions_are_asked_once_with_a_shared_store_too(shared: SharedAnswers) -> None:
    cache, replica = MemoryCache(shared), Replica()
    tasks = [asyncio.create_task(answered(cache, question(), replica)) for _ in range(50)]
    await asyncio.sleep(0.1)
    replica.gate.set()
    await asyncio.gather(*tasks)
    assert replica.asked == 1


async def test_a_store_that_is_away_is_a_miss_at_once(tmp_path: Path) -> None:
    store = RedisAnswers(f"unix://{tmp_path / 'nobody'}")
    cache = MemoryCache(store)
    began_s = time.monotonic()
    for text in ("a", "b", "c"):
        assert isinstance(await looked(cache, question(text)), Lead)
    await store.put(b"k", ANSWER, 60.0)
    assert time.monotonic() - began_s < 1.0
    await store.close()


@pytest.mark.parametrize("kept", [b"", b"{", b"[]\nx", b'{"status": 200}\nx', b"null\n"])
def test_what_is_no_answer_is_none(kept: bytes) -> None:
    assert found_in(kept, wall_s=0.0) is None
