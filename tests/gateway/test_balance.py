"""Which replica gets a request: by load, by speed beside its peers, by prompt, by session."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.gateway.balance import (
    BLOCK_BYTES,
    Trail,
    bearable,
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
    if bearable(seats[int(home.run_id[4:])], seats):
        assert chosen.run_id == home.run_id


@given(st.sets(st.binary(min_size=1, max_size=8), min_size=20, max_size=60))
def test_a_replica_that_goes_moves_only_its_own_sessions(sessions: set[bytes]) -> None:
    before, after = chairs(0, 0, 0, 0), chairs(0, 0, 0)
    for session in sessions:
        home = by_session(before, session).run_id
        if home != "run_3":
            assert by_session(after, session).run_id == home


def test_sessions_do_not_overload_a_replica() -> None:
    seats = chairs(0, 0, 0, 0)
    for _ in range(400):
        by_session(seats, b"everybody").under_way += 1
    assert max(seat.under_way for seat in seats) <= 1.25 * 400 / 4 + 3


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


def test_a_known_beginning_goes_where_it_is_known() -> None:
    seats, rng = chairs(1, 0, 0, 0), random.Random(5)
    trails = {seat.run_id: Trail() for seat in seats}
    prompt = b"system" * 200
    trails["run_0"].walk(blocks_of(prompt))
    assert by_prefix(seats, blocks_of(prompt + b"question" * 60), trails, rng.random) is seats[0]


def test_affinity_ends_where_one_replica_would_carry_all() -> None:
    seats, rng = chairs(30, 0, 0, 0), random.Random(5)
    trails = {"run_0": Trail()}
    blocks = blocks_of(b"system" * 200)
    trails["run_0"].walk(blocks)
    assert by_prefix(seats, blocks, trails, rng.random) is not seats[0]


def test_a_slow_replica_loses_its_prompts() -> None:
    seats, rng = chairs(0, 0, 0, 0), random.Random(5)
    seats[0].slowness = 5.0
    trails = {"run_0": Trail()}
    blocks = blocks_of(b"system" * 200)
    trails["run_0"].walk(blocks)
    assert by_prefix(seats, blocks, trails, rng.random) is not seats[0]


def test_shared_beginnings_hit_at_least_twice_as_often_as_in_turn() -> None:
    """32 beginnings over 4 replicas whose memory holds 10 each, one request at a time, as in the bench."""
    rng, seats = random.Random(11), chairs(0, 0, 0, 0)
    beginnings = [bytes([number]) * 4 * BLOCK_BYTES for number in range(32)]
    questions = [
        beginnings[rng.randrange(32)] + rng.randbytes(rng.randrange(BLOCK_BYTES)) for _ in range(2000)
    ]

    def hits(choose: object) -> int:
        memories: dict[str, list[bytes]] = {seat.run_id: [] for seat in seats}
        count = 0
        for turn, question in enumerate(questions):
            chosen: Chair = choose(turn, question)  # type: ignore[operator]
            memory, beginning = memories[chosen.run_id], question[: 4 * BLOCK_BYTES]
            count += beginning in memory
            memories[chosen.run_id] = [beginning, *(each for each in memory if each != beginning)][:10]
        return count

    trails = {seat.run_id: Trail() for seat in seats}

    def affine(_: int, question: bytes) -> Chair:
        chosen = by_prefix(seats, blocks_of(question), trails, rng.random)
        trails[chosen.run_id].walk(blocks_of(question))
        return chosen

    assert hits(affine) >= 2 * hits(lambda turn, _: seats[turn % 4])


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
