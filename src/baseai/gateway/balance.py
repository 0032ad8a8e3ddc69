"""Balance chooses which replica gets a request, from what each has under way and how fast it is beside its peers.

Invariant: a choice is made from its arguments alone; among equals chance decides, so that several gateways do not all
send to one replica. A replica slow beside its peers counts as one with a longer queue, by the square of its slowness.
Where a session or a prompt belongs follows from its name alone, so that several gateways agree.
"""

import hashlib
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol, TypeVar

TOLERATED = 1.5  # times the peers' latency that is still chance
SLOWEST = 100.0
LEAST_MS = 1.0  # faster than this is equally fast: differences below it are ours, not the replica's
BLOCK_BYTES = 256
BLOCKS_MOST = 512  # of one prompt; what lies beyond does not part prompts any more
TRAIL_BLOCKS = 8192  # of one replica: 2 MiB of text, about half a million tokens
LAST_REQUESTS = 256  # by which a beginning's part of all is judged
BOUND = 1.25  # times the mean queue that affinity may make one replica's
BEARABLE_SLOWNESS = 3.0
SLACK = 4  # requests beyond the bound, so that affinity holds while little is under way
MIXER = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd: spreads what differs in few bits over all
WORD = (1 << 64) - 1


class Seat(Protocol):
    """What a choice needs to know of a replica."""

    @property
    def run_id(self) -> str: ...

    @property
    def under_way(self) -> int: ...

    @property
    def slowness(self) -> float: ...


S = TypeVar("S", bound=Seat)
Chance = Callable[[], float]  # uniform in [0, 1)


def slownesses(latencies_ms: Sequence[float | None]) -> list[float]:
    """How many times slower each is than the middle of all, 1.0 within what is tolerated or where nothing is known.

    Of an even number the faster middle counts, so that of two replicas the slow one is seen.
    """
    known = sorted(latency for latency in latencies_ms if latency is not None)
    if len(known) < 2:
        return [1.0] * len(latencies_ms)
    middle = max(known[(len(known) - 1) // 2], LEAST_MS)
    ratios = [1.0 if latency is None else latency / middle for latency in latencies_ms]
    return [1.0 if ratio <= TOLERATED else min(ratio, SLOWEST) for ratio in ratios]


def cost(seat: Seat) -> float:
    """What one more request would cost there, beside a peer's.

    Slowness counts twice: a slow replica's queue lasts longer, and its latency is what is seen with the queues as they
    are. Should the fast ones queue so long that it were better off, their own latency rises and it is slow no more.
    """
    return (seat.under_way + 1) * seat.slowness * seat.slowness


def lighter(seats: Sequence[S], chance: Chance) -> S:
    """The better of two taken by chance: nearly as even as the best of all, and many gateways do not herd. O(1)."""
    count = len(seats)
    if count == 1:
        return seats[0]
    first = int(chance() * count)
    second = int(chance() * (count - 1))
    one, other = seats[first], seats[second if second < first else second + 1]
    return one if cost(one) <= cost(other) else other


def bearable_most(seats: Sequence[Seat]) -> float:
    """How long a queue affinity may make: not far beyond the mean, the new request counted."""
    return BOUND * (sum([each.under_way for each in seats]) + 1) / len(seats) + SLACK


def bearable(seat: Seat, most: float) -> bool:
    """Affinity may send one more there, `most` being the longest queue it may make.

    Slowness counts once here, and up to an end: a replica that had to read a few prompts anew looks slow, and would
    lose its own to others, who would have to read those anew.
    """
    return seat.slowness <= BEARABLE_SLOWNESS and (seat.under_way + 1) * seat.slowness <= most


def by_session(seats: Sequence[S], session: bytes) -> S:
    """The same replica for one session as long as it is there and bearable; every gateway finds the same one.

    Highest random weight: when a replica comes or goes, only its own sessions move. O(n log n).
    """
    name = _word(session)
    ranked = sorted(seats, key=lambda seat: _weight(name, seat.run_id), reverse=True)
    return _first_bearable(ranked, seats)


def _first_bearable(ranked: Sequence[S], seats: Sequence[S]) -> S:
    most = bearable_most(seats)
    for seat in ranked:
        if bearable(seat, most):
            return seat
    return min(ranked, key=cost)


def blocks_of(prompt: bytes) -> tuple[bytes, ...]:
    """A name for each beginning of the prompt that is a whole number of blocks; equal beginnings have equal names."""
    whole = min(len(prompt) // BLOCK_BYTES, BLOCKS_MOST)
    rolling = hashlib.blake2b(digest_size=8)
    names = []
    for at in range(whole):
        rolling.update(prompt[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES])
        names.append(rolling.digest())
    return tuple(names)


class Trail:
    """Which beginnings of prompts one replica has seen lately, and so perhaps still holds in its memory of keys.

    With a beginning all that it begins with is known too. How much a replica really holds nobody tells.
    """

    __slots__ = ("_blocks", "_most")

    def __init__(self, most: int = TRAIL_BLOCKS) -> None:
        self._blocks: OrderedDict[bytes, None] = OrderedDict()  # the one used last at the end
        self._most = most

    def __len__(self) -> int:
        return len(self._blocks)

    def reach(self, blocks: Sequence[bytes]) -> int:
        """How many blocks of the prompt are known from its beginning on. O(log n)."""
        known = self._blocks
        if not blocks or blocks[0] not in known:
            return 0
        return bisect_left(blocks, True, key=lambda block: block not in known)

    def walk(self, blocks: Sequence[bytes]) -> None:
        """The replica gets this prompt. Its end is forgotten before its beginning, which more prompts share."""
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)


class Popularity:
    """How many of a service's last requests had one beginning in common."""

    __slots__ = ("_counts", "_last")

    def __init__(self) -> None:
        self._last: deque[bytes] = deque()
        self._counts: dict[bytes, int] = {}

    def counted(self, beginning: bytes) -> float:
        """Its part of the last requests, with one more; small while there were few."""
        last, counts = self._last, self._counts
        if len(last) == LAST_REQUESTS:
            oldest = last.popleft()
            counts[oldest] -= 1
            if not counts[oldest]:
                del counts[oldest]
        last.append(beginning)
        counts[beginning] = count = counts.get(beginning, 0) + 1
        return count / LAST_REQUESTS


def by_prefix(
    seats: Sequence[S], blocks: Sequence[bytes], trails: Mapping[str, Trail], popularity: Popularity
) -> S:
    """The replica that knows most of the prompt from its beginning on, while that is bearable.

    blocks: at least one. Its first block ranks replicas that know equally much, for every gateway alike. A beginning
    has as many homes, from the first in this order on, as its part of the requests is worth, and the lightest of them
    gets it. What is not bearable there goes to the next in the order: so a beginning is in the memory of few replicas,
    though all have seen it once. One that nobody knows has two homes, which keeps queues as even as two choices by
    chance do. The request is counted in `popularity`.
    """
    reaches = [trails[seat.run_id].reach(blocks) for seat in seats]
    best = max(reaches)
    homes = 2 if best == 0 else round(popularity.counted(blocks[best - 1]) * len(seats))
    if best and homes >= len(seats):
        return min(seats, key=cost)
    if homes < 2 and reaches.count(best) == 1:
        home = seats[reaches.index(best)]
        if bearable(home, bearable_most(seats)):
            return home
    name = int.from_bytes(blocks[0], "big")
    weights = [_weight(name, seat.run_id) for seat in seats]
    ranking = sorted(zip(reaches, weights, range(len(seats)), strict=True), reverse=True)
    ranked = [seats[at] for _, _, at in ranking]
    home = ranked[0] if homes < 2 else min(ranked[:homes], key=cost)
    return home if best == 0 else _first_bearable((home, *ranked), seats)


def _word(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


@lru_cache(maxsize=4096)
def _word_of_run(run_id: str) -> int:
    return _word(run_id.encode())


def _weight(name: int, run_id: str) -> int:
    """How much the name, a word that is a digest, is drawn to the replica. Cheaper than a digest of both."""
    return (name ^ _word_of_run(run_id)) * MIXER & WORD


def point_of(session: bytes) -> float:
    """Where a session stands in [0, 1), the same for every gateway: sessions keep their version while shares stand."""
    return int.from_bytes(hashlib.blake2b(session, digest_size=7).digest(), "big") / 2.0**56


def version_at(shares: Sequence[float], point: float) -> int:
    """Which of the versions a request at `point` in [0, 1) goes to, as an index; shares sum to 1.

    The last version, the candidate, has the low end: raising its share moves nobody away from it.
    """
    reached = 0.0
    for index in range(len(shares) - 1, 0, -1):
        reached += shares[index]
        if point < reached:
            return index
    return 0
