"""Which replica gets a request: by load, by speed beside its peers, by prompt, by session."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.gateway.balance import (
    BLOCK_BYTES,
    LAST_REQUESTS,
    SLACK,
    Popularity,
    Trail,
    bearable,
    bearable_most,
    blocks_of,
    by_prefix,
    by_session,
    cost,
    lighter,
    point_of,
    slownesses,
    version_at,
)


@dataclass
class Chair:
    """A replica as a choice sees it."""

    run_id: str
    under_way: int = 0
    slowness: float = 1.0


def chairs(*under_way: int) -> list[Chair]:
    return [Chair(f"run_{number}", count) for number, count in enumerate(under_way)]


loads = st.lists(st.integers(0, 40), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("latencies_ms", "expected"),
    [
        pytest.param([10, 10, 10, 50], [1, 1, 1, 5], id="one of four is five times slower"),
        pytest.param([10, 14, 11, 12], [1, 1, 1, 1], id="chance is no slowness"),
        pytest.param([10, 30], [1, 3], id="of two the slow one is seen"),
        pytest.param([10, None], [1, 1], id="nothing is known of the other"),
        pytest.param([0.1, 0.4, 0.2, 0.9], [1, 1, 1, 1], id="below a millisecond all are fast"),
        pytest.param([1, 1, 1, 10_000], [1, 1, 1, 100], id="slowness has an end"),
    ],
)
def test_slowness_is_beside_the_peers(latencies_ms: list[float | None], expected: list[float]) -> None:
    assert slownesses(latencies_ms) == expected


@given(loads, st.integers(0, 2**32))
def test_the_lighter_of_two_is_never_the_heaviest_alone(under_way: list[int], seed: int) -> None:
    seats = chairs(*under_way)
    chosen = lighter(seats, random.Random(seed).random)
    heavier = [seat for seat in seats if cost(seat) >= cost(chosen)]
    assert len(heavier) >= min(2, len(seats))


def test_two_choices_keep_queues_even() -> None:
    rng, seats = random.Random(3), chairs(*[0] * 10)
    for _ in range(1000):
        lighter(seats, rng.random).under_way += 1
    assert max(seat.under_way for seat in seats) - min(seat.under_way for seat in seats) <= 5


def test_a_slow_replica_gets_nothing_while_others_are_idle_and_its_part_when_they_are_not() -> None:
    rng, seats = random.Random(3), chairs(0, 0, 0, 0)
    seats[3].slowness = 5.0
    assert all(lighter(seats, rng.random) is not seats[3] for _ in range(500))
    for seat in seats[:3]:
        seat.under_way = 30
    assert any(lighter(seats, rng.random) is seats[3] for _ in range(50))


@given(loads, st.binary(min_size=1, max_size=20))
def test_a_session_stays_where_it_is_while_that_is_bearable(under_way: list[int], session: bytes) -> None:
    seats = chairs(*under_way)
    chosen = by_session(seats, session)
    assert by_session(list(reversed(seats)), session) is chosen  # every gateway finds the same
    idle = chairs(*[0] * len(seats))
    home = by_session(idle, session)
    if bearable(seats[int(home.run_id[4:])], bearable_most(seats)):
        assert chosen.run_id == home.run_id


@given(st.sets(st.binary(min_size=1, max_size=8), min_size=20, max_size=60))
def test_a_replica_that_goes_moves_only_its_own_sessions(sessions: set[bytes]) -> None:
    before, after = chairs(0, 0, 0, 0), chairs(0, 0, 0)
    for session in sessions:
        home = by_session(before, session).run_id
        if home != "run_3":
            assert by_session(after, session).run_id == home


@pytest.mark.parametrize("count", [2, 4, 16])
def test_sessions_are_at_home_evenly_and_so_are_those_of_a_replica_that_goes(count: int) -> None:
    seats = chairs(*[0] * count)
    sessions = [str(number).encode() for number in range(1000 * count)]
    homes = {session: by_session(seats, session).run_id for session in sessions}
    assert max(Counter(homes.values()).values()) <= 1.2 * 1000
    moved = [session for session in sessions if homes[session] == "run_0"]
    after = Counter(by_session(seats[1:], session).run_id for session in moved)
    assert max(after.values()) <= 1.5 * len(moved) / (count - 1)


def test_sessions_do_not_overload_a_replica() -> None:
    seats = chairs(0, 0, 0, 0)
    for _ in range(400):
        by_session(seats, b"everybody").under_way += 1
    assert max(seat.under_way for seat in seats) <= 1.25 * 400 / 4 + SLACK + 1


@given(st.binary(max_size=2000), st.binary(max_size=2000), st.integers(0, 6))
def test_equal_beginnings_have_equal_blocks(one: bytes, other: bytes, shared: int) -> None:
    beginning = b"s" * (shared * BLOCK_BYTES)
    first, second = blocks_of(beginning + one), blocks_of(beginning + other)
    assert len(first) == len(beginning + one) // BLOCK_BYTES
    assert first[:shared] == second[:shared]
    if one[:BLOCK_BYTES] != other[:BLOCK_BYTES] and min(len(one), len(other)) >= BLOCK_BYTES:
        assert not set(first[shared:]) & set(second[shared:])


def test_a_trail_forgets_ends_before_beginnings() -> None:
    trail = Trail(most=6)
    long = blocks_of(b"".join(bytes([at]) * BLOCK_BYTES for at in range(6)))
    trail.walk(long)
    trail.walk(blocks_of(b"z" * BLOCK_BYTES))
    assert len(trail) == 6
    assert trail.reach(long) == 5


@given(st.lists(st.lists(st.sampled_from([b"a", b"b"]), max_size=6), max_size=30), st.integers(1, 12))
def test_with_a_beginning_all_that_it_begins_with_is_known(prompts: list[list[bytes]], most: int) -> None:
    trail = Trail(most)
    every = [blocks_of(b"".join(letter * BLOCK_BYTES for letter in prompt)) for prompt in prompts]
    for walked in every:
        trail.walk(walked)
        for blocks in every:
            known = [trail.reach(blocks[: count + 1]) == count + 1 for count in range(len(blocks))]
            assert known == sorted(known, reverse=True)
            assert trail.reach(blocks) == sum(known)


QUESTION = b"system" * 200


def known_by(seats: list[Chair], *knowing: int, prompt: bytes = QUESTION) -> dict[str, Trail]:
    trails = {seat.run_id: Trail() for seat in seats}
    for number in knowing:
        trails[f"run_{number}"].walk(blocks_of(prompt))
    return trails


def test_a_known_beginning_goes_where_it_is_known() -> None:
    seats = chairs(1, 0, 0, 0)
    longer = blocks_of(QUESTION + b"question" * 60)
    assert by_prefix(seats, longer, known_by(seats, 0), Popularity()) is seats[0]


def test_affinity_ends_where_one_replica_would_carry_all() -> None:
    seats = chairs(30, 0, 0, 0)
    assert by_prefix(seats, blocks_of(QUESTION), known_by(seats, 0), Popularity()) is not seats[0]


def test_a_slow_replica_loses_its_prompts_and_one_that_read_some_anew_does_not() -> None:
    seats = chairs(0, 0, 0, 0)
    seats[0].slowness = 6.0
    assert by_prefix(seats, blocks_of(QUESTION), known_by(seats, 0), Popularity()) is not seats[0]
    seats[0].slowness = 2.5
    assert by_prefix(seats, blocks_of(QUESTION), known_by(seats, 0), Popularity()) is seats[0]


@given(st.binary(min_size=BLOCK_BYTES, max_size=BLOCK_BYTES), st.permutations(range(4)))
def test_a_beginning_that_all_know_has_one_home_for_every_gateway_and_one_beside_it(
    prompt: bytes, order: list[int]
) -> None:
    seats, blocks = chairs(0, 0, 0, 0), blocks_of(prompt)
    home = by_prefix(seats, blocks, known_by(seats, *range(4), prompt=prompt), Popularity())
    others = [seats[number] for number in order]  # another gateway, with queues of its own
    for seat in others:
        seat.under_way = 0 if seat is home else 1
    assert by_prefix(others, blocks, known_by(others, *range(4), prompt=prompt), Popularity()) is home
    home.under_way = 30
    trails = known_by(others, *range(4), prompt=prompt)
    beside = by_prefix(others, blocks, trails, Popularity())
    assert beside is not home
    beside.under_way = 3  # though others are idle
    for seat in others:
        seat.under_way = seat.under_way if seat in (home, beside) else 0
    assert by_prefix(others, blocks, trails, Popularity()) is beside


def test_popularity_is_a_part_of_the_last_requests_and_small_while_there_were_few() -> None:
    popularity = Popularity()
    assert popularity.counted(b"hot") == 1 / LAST_REQUESTS
    for _ in range(2 * LAST_REQUESTS):
        part = popularity.counted(b"hot")
        popularity.counted(b"cold")
    assert part == 0.5
    for _ in range(LAST_REQUESTS):
        popularity.counted(b"cold")
    assert popularity.counted(b"hot") == 1 / LAST_REQUESTS


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4), st.floats(0, 0.999))
def test_each_version_gets_its_share(weights: list[float], point: float) -> None:
    shares = [weight / sum(weights) for weight in weights]
    assert 0 <= version_at(shares, point) < len(shares)


def test_shares_are_kept_and_a_session_keeps_its_version_while_a_share_grows() -> None:
    points = [point_of(str(number).encode()) for number in range(4000)]
    counts = Counter(version_at([0.9, 0.1], point) for point in points)
    assert 320 <= counts[1] <= 480
    moved_back = [p for p in points if version_at([0.9, 0.1], p) == 1 and version_at([0.5, 0.5], p) == 0]
    assert moved_back == []
