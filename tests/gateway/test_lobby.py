"""A service's desks on an imagined clock: who gets requests when replicas differ, turn slow, or say nothing."""

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from baseai.gateway.balance import blocks_of
from baseai.gateway.desk import FORGET_S, TRIAL_S
from baseai.gateway.lobby import Lobby, Wish
from baseai.serving.route import Backend
from tests.gateway.replicas import route

Pace = Callable[[str, float], float]  # (replica, now) -> seconds that a request takes there


def backend(number: int) -> Backend:
    return Backend(run_id=f"run_{number}", version_no=1, address="127.0.0.1", port=1 + number, draining=False)


@dataclass(frozen=True)
class Served:
    """One request of an imagined load."""

    at_s: float
    run_id: str
    took_s: float


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def arrivals(rng: random.Random, *, per_s: float, seconds: float) -> Iterator[float]:
    at_s = 1000.0
    while (at_s := at_s + rng.expovariate(per_s)) < 1000.0 + seconds:
        yield at_s


def loaded(
    loop: asyncio.AbstractEventLoop,
    pace: Pace,
    *,
    per_s: float,
    seconds: float,
    least: bool = False,
    count: int = 4,
    wished: Callable[[random.Random], tuple[bytes | None, tuple[bytes, ...]]] = lambda _: (None, ()),
) -> list[Served]:
    """An open load on so many replicas. least: chosen by least connections in turn, as HAProxy does.

    wished: session and blocks of the prompt of one more request.
    """
    clock, rng = Clock(), random.Random(17)
    lobby = Lobby(
        route(*(backend(number) for number in range(count)), concurrency=64),
        loop=loop,
        clock=clock,
        chance=rng.random,
        processes=1,
    )
    turn = 0
    ends: list[tuple[float, int, str]] = []
    served = []

    def pass_until(at_s: float) -> None:
        while ends and ends[0][0] <= at_s:
            end_s, ticket, run_id = heapq.heappop(ends)
            clock.now_s = end_s
            desk = lobby.desks[run_id]
            desk.first_byte(ticket, well=True, now_s=end_s)
            lobby.give_back(desk, ticket, "answered")
            lobby.leave()
        clock.now_s = at_s

    for at_s in arrivals(rng, per_s=per_s, seconds=seconds):
        pass_until(at_s)
        ticket = lobby.enter()
        if least:
            turn += 1
            desks = list(lobby.desks.values())
            desk = min(desks[turn % count :] + desks[: turn % count], key=lambda each: each.under_way)
            desk.take(ticket, at_s)
        else:
            found = lobby.desk_now(Wish(ticket, 1, *wished(rng), frozenset()))
            assert found is not None
            desk = found
        took_s = pace(desk.run_id, at_s)
        heapq.heappush(ends, (at_s + took_s, ticket, desk.run_id))
        served.append(Served(at_s, desk.run_id, took_s))
    return served


def p99_s(served: list[Served]) -> float:
    took = sorted(each.took_s for each in served)
    return took[int(len(took) * 0.99)]


def one_slow(run_id: str, _: float) -> float:
    return 0.1 if run_id == "run_3" else 0.02


@pytest.mark.parametrize("per_s", [20, 150, 600])
def test_one_of_four_five_times_slower_costs_no_more_than_with_least_connections(
    loop: asyncio.AbstractEventLoop, per_s: int
) -> None:
    ours = loaded(loop, one_slow, per_s=per_s, seconds=30)
    theirs = loaded(loop, one_slow, per_s=per_s, seconds=30, least=True)
    assert p99_s(ours) <= p99_s(theirs)
    if per_s >= 150:
        assert p99_s(ours) == 0.02


def test_a_replica_that_turns_slow_loses_its_traffic_within_a_second(loop: asyncio.AbstractEventLoop) -> None:
    def turns(run_id: str, now_s: float) -> float:
        return 0.1 if run_id == "run_3" and now_s > 1005 else 0.02

    served = loaded(loop, turns, per_s=200, seconds=10)
    before = Counter(each.run_id for each in served if each.at_s < 1005)
    after = Counter(each.run_id for each in served if each.at_s > 1006)
    assert before["run_3"] > 0.2 * sum(before.values())
    assert after["run_3"] <= 0.01 * sum(after.values())


def test_a_replica_that_says_nothing_loses_its_traffic_too(loop: asyncio.AbstractEventLoop) -> None:
    def stuck(run_id: str, now_s: float) -> float:
        return 60.0 if run_id == "run_3" and now_s > 1002 else 0.02

    served = loaded(loop, stuck, per_s=200, seconds=10)
    assert sum(each.run_id == "run_3" for each in served if each.at_s > 1003) <= 10


def test_one_that_is_well_again_has_its_part_again(loop: asyncio.AbstractEventLoop) -> None:
    def recovers(run_id: str, now_s: float) -> float:
        return 0.1 if run_id == "run_3" and now_s < 1005 else 0.02

    served = loaded(loop, recovers, per_s=200, seconds=20)
    after = Counter(each.run_id for each in served if each.at_s > 1005 + TRIAL_S + 2)
    assert after["run_3"] > 0.15 * sum(after.values())


def by_load(_: random.Random) -> tuple[None, tuple[bytes, ...]]:
    return None, ()


def by_session(rng: random.Random) -> tuple[bytes, tuple[bytes, ...]]:
    return b"%d" % rng.randrange(400), ()


def by_prefix(rng: random.Random) -> tuple[None, tuple[bytes, ...]]:
    return None, blocks_of(b"department %03d. " % rng.randrange(400) * 40)


@pytest.mark.parametrize("per_s", [40, 200, 500])
@pytest.mark.parametrize("wished", [by_load, by_session, by_prefix])
def test_one_that_was_slow_for_ten_seconds_has_half_of_an_even_part_within_five_more(
    loop: asyncio.AbstractEventLoop,
    wished: Callable[[random.Random], tuple[bytes | None, tuple[bytes, ...]]],
    per_s: int,
) -> None:
    def recovers(run_id: str, now_s: float) -> float:
        return 0.1 if run_id == "run_3" and 1005 < now_s < 1015 else 0.02

    served = loaded(loop, recovers, per_s=per_s, seconds=20, wished=wished)
    slow = Counter(each.run_id for each in served if 1006 < each.at_s < 1015)
    after = Counter(each.run_id for each in served if 1015 < each.at_s < 1020)
    assert slow["run_3"] <= 1.2 / TRIAL_S * 9
    assert slow["run_3"] >= 4
    assert after["run_3"] >= 0.5 / 4 * sum(after.values())


@pytest.mark.parametrize("per_s", [4, 40, 200])
def test_one_long_answer_costs_a_replica_its_part_for_two_seconds_at_most(
    loop: asyncio.AbstractEventLoop, per_s: int
) -> None:
    late: list[float] = []

    def once(run_id: str, now_s: float) -> float:
        if run_id == "run_3" and now_s > 1005 and not late:
            late.append(now_s + 1.0)
            return 1.0
        return 0.02

    served = loaded(loop, once, per_s=per_s, seconds=40)
    back_s = late[0] + 2 + 1 / per_s
    after = Counter(each.run_id for each in served if each.at_s > back_s)
    assert after["run_3"] > 0.15 * sum(after.values())


def test_an_answer_that_goes_on_for_long_puts_no_trial_off(loop: asyncio.AbstractEventLoop) -> None:
    lobby = Lobby(route(backend(0), backend(1)), loop=loop, clock=Clock(), chance=lambda: 0.0, processes=1)
    desk = lobby.desks["run_0"]
    desk.take(1, 1000.0)
    desk.first_byte(1, well=True, now_s=1000.1)  # and its stream goes on
    desk.compare(5.0, 1000.2)
    assert desk.slowness == 5.0
    desk.compare(5.0, 1000.1 + TRIAL_S)
    assert desk.slowness == 1.0
    desk.take(2, 1001.2)  # the trial, and one is enough
    assert desk.slowness == 5.0
    desk.compare(5.0, 1003.0)
    assert desk.slowness == 5.0
    desk.first_byte(2, well=True, now_s=1003.0)
    assert desk.latency_ms(1003.0) == pytest.approx(1800)


def test_equal_replicas_have_equal_parts(loop: asyncio.AbstractEventLoop) -> None:
    rng = random.Random(5)
    served = loaded(loop, lambda *_: rng.uniform(0.015, 0.025), per_s=300, seconds=10)
    parts = Counter(each.run_id for each in served)
    assert min(parts.values()) > 0.7 * max(parts.values())


def test_what_was_long_ago_says_nothing_of_a_replica(loop: asyncio.AbstractEventLoop) -> None:
    clock = Clock()
    lobby = Lobby(route(backend(0), backend(1)), loop=loop, clock=clock, chance=lambda: 0.0, processes=1)
    desk = lobby.desks["run_0"]
    desk.take(1, 1000.0)
    desk.first_byte(1, well=True, now_s=1003.0)
    assert desk.latency_ms(1003.0) == 3000
    assert desk.latency_ms(1003.1 + FORGET_S) is None


def test_processes_share_a_replicas_concurrency(loop: asyncio.AbstractEventLoop) -> None:
    for processes, most in ((1, 16), (2, 8), (3, 6), (40, 1)):
        lobby = Lobby(route(backend(0)), loop=loop, clock=Clock(), chance=lambda: 0.0, processes=processes)
        assert lobby.desks["run_0"].most == most


def test_new_routes_keep_what_is_known_of_replicas_that_stay(loop: asyncio.AbstractEventLoop) -> None:
    lobby = Lobby(route(backend(0), backend(1)), loop=loop, clock=Clock(), chance=lambda: 0.0, processes=1)
    stays = lobby.desks["run_0"]
    stays.take(1, 1000.0)
    lobby.renew(route(backend(0), backend(2)))
    assert lobby.desks["run_0"] is stays
    assert stays.under_way == 1
    assert set(lobby.desks) == {"run_0", "run_2"}


@pytest.mark.parametrize("per_s", [60, 100, 130])
def test_replicas_that_work_one_by_one_are_used_no_worse_than_with_least_connections(
    loop: asyncio.AbstractEventLoop, per_s: int
) -> None:
    """Three answer 50 a second each, the fourth 10: queues grow within them."""

    def queues() -> Pace:
        free_at: dict[str, float] = {}

        def pace(run_id: str, now_s: float) -> float:
            free_at[run_id] = max(now_s, free_at.get(run_id, 0.0)) + one_slow(run_id, now_s)
            return free_at[run_id] - now_s

        return pace

    ours = loaded(loop, queues(), per_s=per_s, seconds=60)
    theirs = loaded(loop, queues(), per_s=per_s, seconds=60, least=True)
    assert p99_s(ours) <= p99_s(theirs)
