"""Balance chooses which replica gets a request, from what each has under way and how fast it is beside its peers.

Invariant: a choice is made from its arguments alone; among equals chance decides, so that several gateways do not all
send to one replica. A replica slow beside its peers counts as one with a longer queue, by the square of its slowness.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

TOLERATED = 1.5  # times the peers' latency that is still chance
SLOWEST = 100.0
LEAST_MS = 1.0  # faster than this is equally fast: differences below it are ours, not the replica's
BLOCK_BYTES = 256
BLOCKS_MOST = 512  # of one prompt; what lies beyond does not part prompts any more
TRAIL_BLOCKS = 8192  # of one replica: 2 MiB of text, about half a million tokens
BOUND = 1.25  # times the mean queue that affinity may make one replica's
SLACK = 2  # requests beyond the bound, so that affinity holds while little is under way


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


def bearable(seat: Seat, seats: Sequence[Seat]) -> bool:
    """Affinity may send one more there: its queue is not far beyond the mean, and it is not slow."""
    total = sum(each.under_way for each in seats) + 1
    return cost(seat) <= BOUND * total / len(seats) + SLACK


def by_session(seats: Sequence[S], session: bytes) -> S:
    """The same replica for one session as long as it is there and bearable; every gateway finds the same one.

    Highest random weight: when a replica comes or goes, only its own sessions move. O(n) hashes.
    """
    ranked = sorted(seats, key=lambda seat: _weight(session, seat.run_id), reverse=True)
    return next((seat for seat in ranked if bearable(seat, seats)), min(ranked, key=cost))


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
    """Which beginnings of prompts one replica has seen lately, and so probably still holds in its memory of keys."""

    __slots__ = ("_blocks", "_most")

    def __init__(self, most: int = TRAIL_BLOCKS) -> None:
        self._blocks: OrderedDict[bytes, None] = OrderedDict()  # the one used last at the end
        self._most = most

    def __len__(self) -> int:
        return len(self._blocks)

    def reach(self, blocks: Sequence[bytes]) -> int:
        """How many blocks of the prompt are known from its beginning on."""
        known = self._blocks
        for count, block in enumerate(blocks):
            if block not in known:
                return count
        return len(blocks)

    def walk(self, blocks: Sequence[bytes]) -> None:
        """The replica gets this prompt. Its end is forgotten before its beginning, which more prompts share."""
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)


def by_prefix(seats: Sequence[S], blocks: Sequence[bytes], trails: Mapping[str, Trail], chance: Chance) -> S:
    """The replica that knows most of the prompt from its beginning on, while that is bearable.

    A beginning that nobody knows goes where its first block points for every gateway alike, if that replica is as
    light as the lighter of two; prompts shorter than a block, and what nobody can bear, go by load alone.
    """
    light = lighter(seats, chance)
    if not blocks:
        return light
    reaches = [trails[seat.run_id].reach(blocks) if seat.run_id in trails else 0 for seat in seats]
    best = max(reaches)
    if best == 0:
        pointed = max(seats, key=lambda seat: _weight(blocks[0], seat.run_id))
        return pointed if cost(pointed) <= cost(light) else light
    knowing = min((seat for seat, reach in zip(seats, reaches, strict=True) if reach == best), key=cost)
    return knowing if bearable(knowing, seats) else light


def _weight(key: bytes, run_id: str) -> bytes:
    return hashlib.blake2b(key + b"\0" + run_id.encode(), digest_size=8).digest()


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
