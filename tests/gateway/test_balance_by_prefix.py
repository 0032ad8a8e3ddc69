"""Prompts that begin alike, on an imagined clock: how often a replica still remembers a beginning, and how even it is.

Four replicas remember ten beginnings each and take longer for one that they do not: as in the bench, where thirty-two
beginnings asked in turn find ten remembered. Answers take up to twice as long by chance, so that replicas look slow.
"""

import asyncio
import heapq
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from baseai.gateway.balance import BOUND, SLACK, blocks_of
from baseai.gateway.desk import Desk
from baseai.gateway.lobby import Lobby, Wish
from baseai.serving.route import Backend
from tests.gateway.replicas import route

REPLICAS, REMEMBERED, BEGINNINGS = 4, 10, 32
KNOWN_S, ANEW_S = 0.02, 0.05

Prompt = Callable[[random.Random], bytes]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


class Memory:
    """What one replica remembers: the beginnings used last."""

    def __init__(self) -> None:
        self._beginnings: OrderedDict[bytes, None] = OrderedDict()

    def had(self, beginning: bytes) -> bool:
        had = beginning in self._beginnings
        self._beginnings[beginning] = None
        self._beginnings.move_to_end(beginning)
        if len(self._beginnings) > REMEMBERED:
            self._beginnings.popitem(last=False)
        return had


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request of an imagined load."""

    at_s: float
    run_id: str
    remembered: bool
    under_way: int  # at the replica that got it, with it
    under_way_everywhere: int


def alike(rng: random.Random) -> bytes:
    """One of so many beginnings, each as likely, and a question of its own."""
    return b"department %02d. " % rng.randrange(BEGINNINGS) * 60 + rng.randbytes(rng.randrange(600))


def asked(
    loop: asyncio.AbstractEventLoop,
    prompt: Prompt = alike,
    *,
    seed: int,
    per_s: float,
    seconds: float = 10.0,
    gateways: int = 1,
    how: str = "prefix",
) -> list[Asked]:
    """An open load. how: `prefix`; `least`, two choices; or `turn`, the replicas one after the other."""
    print(f"seed {seed}")
    rng, now_s = random.Random(seed), 1000.0
    backends = [
        Backend(run_id=f"run_{number}", version_no=1, address="127.0.0.1", port=1 + number, draining=False)
        for number in range(REPLICAS)
    ]
    lobbies = [
        Lobby(
            route(*backends, concurrency=256),
            loop=loop,
            clock=lambda: now_s,
            chance=rng.random,
            processes=1,
        )
        for _ in range(gateways)
    ]
    memories = {backend.run_id: Memory() for backend in backends}
    ends: list[tuple[float, int, Lobby, Desk]] = []
    every: list[Asked] = []
    at_s = now_s
    while (at_s := at_s + rng.expovariate(per_s)) < 1000.0 + seconds:
        while ends and ends[0][0] <= at_s:
            now_s, ticket, lobby, desk = heapq.heappop(ends)
            desk.first_byte(ticket, well=True, now_s=now_s)
            lobby.give_back(desk, ticket, "answered")
        now_s = at_s
        lobby, ticket, text = rng.choice(lobbies), len(every), prompt(rng)
        if how == "turn":
            desk = list(lobby.desks.values())[ticket % REPLICAS]
            desk.take(ticket, now_s)
        else:
            blocks = blocks_of(text) if how == "prefix" else ()
            found = lobby.desk_now(Wish(ticket, 1, None, blocks, frozenset()))
            assert found is not None
            desk = found
        remembered = memories[desk.run_id].had(text[:512])
        took_s = (KNOWN_S if remembered else ANEW_S) * rng.uniform(1, 2)
        heapq.heappush(ends, (now_s + took_s, ticket, lobby, desk))
        every.append(
            Asked(
                at_s=at_s,
                run_id=desk.run_id,
                remembered=remembered,
                under_way=desk.under_way,
                under_way_everywhere=sum(each.under_way for each in lobby.desks.values()),
            )
        )
    return every


def remembered_ratio(every: Sequence[Asked], since_s: float = 0.0) -> float:
    counted = [each.remembered for each in every if each.at_s >= 1000.0 + since_s]
    return sum(counted) / len(counted)


def greatest_share(every: Sequence[Asked]) -> float:
    return max(Counter(each.run_id for each in every).values()) / len(every)


@pytest.mark.parametrize("per_s", [50, 200, 400])
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_beginnings_are_remembered_more_than_twice_as_often_as_in_turn(
    loop: asyncio.AbstractEventLoop, seed: int, per_s: float
) -> None:
    ours = asked(loop, seed=seed, per_s=per_s)
    in_turn = asked(loop, seed=seed, per_s=per_s, how="turn")
    assert remembered_ratio(ours, since_s=2) >= 2.4 * remembered_ratio(in_turn, since_s=2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_stays_so_for_long_though_every_replica_has_seen_every_beginning(
    loop: asyncio.AbstractEventLoop, seed: int
) -> None:
    assert remembered_ratio(asked(loop, seed=seed, per_s=200, seconds=60), since_s=50) >= 0.8


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_gateways_that_know_nothing_of_each_other_agree_well_enough(
    loop: asyncio.AbstractEventLoop, seed: int
) -> None:
    ours = asked(loop, seed=seed, per_s=200, gateways=2)
    in_turn = asked(loop, seed=seed, per_s=200, how="turn")
    assert remembered_ratio(ours, since_s=2) >= 2 * remembered_ratio(in_turn, since_s=2)


@pytest.mark.parametrize("per_s", [50, 400])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_queue_is_far_beyond_the_mean(loop: asyncio.AbstractEventLoop, seed: int, per_s: float) -> None:
    for each in asked(loop, seed=seed, per_s=per_s):
        assert each.under_way <= BOUND * each.under_way_everywhere / REPLICAS + SLACK


@pytest.mark.parametrize("per_s", [50, 400])
def test_a_beginning_that_all_requests_have_is_at_home_everywhere(
    loop: asyncio.AbstractEventLoop, per_s: float
) -> None:
    """A system prompt of the whole service: to keep it at one replica would leave the others idle."""

    def shared(rng: random.Random) -> bytes:
        return b"You are a helpful assistant. " * 60 + rng.randbytes(rng.randrange(600))

    every = asked(loop, shared, seed=1, per_s=per_s, seconds=30)
    settled = [each for each in every if each.at_s > 1010]
    assert remembered_ratio(settled) == 1
    assert (
        greatest_share(settled) <= 0.5
    )  # while nothing is under way anywhere, the first home is as good as any


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_prompts_unlike_all_others_are_shared_as_evenly_as_by_load(
    loop: asyncio.AbstractEventLoop, seed: int
) -> None:
    def unlike(rng: random.Random) -> bytes:
        return rng.randbytes(1024)

    def beyond_mean(how: str) -> float:
        """p99 of how much longer the queue was than the mean."""
        every = asked(loop, unlike, seed=seed, per_s=400, how=how)
        beyond = sorted(each.under_way - each.under_way_everywhere / REPLICAS for each in every)
        return beyond[int(0.99 * len(beyond))]

    assert beyond_mean("prefix") <= beyond_mean("least") + 0.5
