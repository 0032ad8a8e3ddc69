"""Buckets are how much of every allowance is taken, in a file that all gateway processes of one machine share.

Invariant: whoever reads in order to write holds the lock, so that processes together admit what one alone would.
Killing one leaves no lock and no bucket half written; what it held for requests under way is given back when its lane
is taken by the next one. The file says nothing after a restart of the machine. A slot without debt and holds is as
good as none.
"""

import errno
import fcntl
import logging
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from baseai.gateway.allowance import Allowance, given_back, level, taken

SETS, WAYS, LANES = (
    2048,
    8,
    16,
)  # a bucket has 8 places where it may lie; 16 processes hold apart from each other
MARK = b"baseai buckets 1"
HEAD = 64
SLOT = struct.Struct(f"<16sq{LANES}q")  # name, full at, held by each lane
FULL_AT, HELD = struct.Struct("<q"), 24  # where the holds begin in a slot
NOBODY = bytes(16)
SIZE = HEAD + SETS * WAYS * SLOT.size
PLACES_MOST = 20_000  # that are remembered
WAIT_S = 1.0  # for a process that holds the lock and does not go on; then it is passed over

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One allowance of one asker."""

    name: bytes  # 16 bytes
    allowance: Allowance
    holds: bool  # what is asked for is held until it is known what was taken, rather than taken at once


@dataclass(frozen=True, slots=True)
class Standing:
    """How a bucket stands, after what was asked was taken or, where it does not fit, before."""

    bucket: Bucket
    level_ns: int
    wait_ns: int  # until it fits; 0 where it did


def name_of(*facts: object) -> bytes:
    """The name of a bucket: the same for the same facts."""
    return blake2b("\x1f".join(map(str, facts)).encode(), digest_size=16).digest()


class Buckets:
    """The buckets of one machine, as one gateway process sees them. `folder` is shared and not kept over restarts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._places: dict[bytes, int] = {}  # where a bucket lay when it was last looked for
        self._file = os.open(folder / "limits.buckets", os.O_CREAT | os.O_RDWR, 0o600)
        with self._alone():
            if os.fstat(self._file).st_size < SIZE:
                os.ftruncate(self._file, SIZE)
            self._map = mmap.mmap(self._file, SIZE)
            head = MARK + _machine_start()
            if self._map[: len(head)] != head:
                self._map[HEAD:] = bytes(SIZE - HEAD)
                self._map[: len(head)] = head
            self._lane, self._lane_lock = _free_lane(folder)
            self._forget_lane()

    def close(self) -> None:
        self._map.close()
        os.close(self._file)
        os.close(self._lane_lock)

    def take(self, asked: Sequence[tuple[Bucket, int]], *, now_ns: int) -> list[Standing]:
        """Take or hold all of what is asked, or nothing if one bucket has too little. 4 µs, and 3 for each bucket.

        now_ns: of a clock that all processes share and that starts with the machine.
        """
        found, waits = [], False
        locked = _locked(self._file)
        try:
            for bucket, count in asked:
                place, full_at_ns, held_ns = self._found(bucket.name, now_ns)
                level_ns = level(full_at_ns, held_ns, now_ns)
                cost_ns = bucket.allowance.cost_ns(count)
                wait_ns = bucket.allowance.wait_ns(level_ns, cost_ns)
                waits = waits or wait_ns > 0
                found.append((bucket, place, full_at_ns, level_ns, cost_ns, wait_ns))
            if waits:
                return [Standing(bucket, level_ns, wait_ns) for bucket, _, _, level_ns, _, wait_ns in found]
            for bucket, place, full_at_ns, _, cost_ns, _ in found:
                if bucket.holds:
                    self._hold(place, cost_ns)
                else:
                    FULL_AT.pack_into(self._map, place + 16, taken(full_at_ns, cost_ns, now_ns))
        finally:
            if locked:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        return [Standing(bucket, level_ns + cost_ns, 0) for bucket, _, _, level_ns, cost_ns, _ in found]

    def settle(
        self, asked: Sequence[tuple[Bucket, int]], took: int | None, *, at_ns: int, now_ns: int
    ) -> None:
        """Put what was really taken in the place of what was held at `at_ns`; None gives everything back."""
        if took is not None:
            asked = [one for one in asked if one[0].holds]
        if not asked:
            return
        with self._alone():
            for bucket, count in asked:
                place, full_at_ns, _ = self._found(bucket.name, now_ns)
                cost_ns = bucket.allowance.cost_ns(count)
                if not bucket.holds:
                    full_at_ns = given_back(full_at_ns, cost_ns, at_ns, now_ns)
                else:
                    self._hold(place, -cost_ns)
                    if took:
                        full_at_ns = taken(full_at_ns, bucket.allowance.debt_ns(took), at_ns)
                FULL_AT.pack_into(self._map, place + 16, full_at_ns)

    def _found(self, name: bytes, now_ns: int) -> tuple[int, int, int]:
        """(place, full at, held by all lanes) of a bucket; a new one takes the place of one that is full again."""
        place = self._places.get(name, HEAD)
        slot = SLOT.unpack_from(self._map, place)
        if slot[0] != name:
            place = self._place(name, now_ns)
            slot = SLOT.unpack_from(self._map, place)
            if len(self._places) >= PLACES_MOST:
                self._places.clear()
            self._places[name] = place
        return place, slot[1], sum(slot[2:])

    def _hold(self, place: int, more_ns: int) -> None:
        at = place + HELD + 8 * self._lane
        (held_ns,) = FULL_AT.unpack_from(self._map, at)
        FULL_AT.pack_into(self._map, at, max(0, held_ns + more_ns))

    def _place(self, name: bytes, now_ns: int) -> int:
        """Where a bucket lies; a new one takes the place of one that is full again."""
        first = HEAD + int.from_bytes(name[:4], "little") % SETS * WAYS * SLOT.size
        places = range(first, first + WAYS * SLOT.size, SLOT.size)
        for place in places:
            if self._map[place : place + 16] == name:
                return place
        # The smallest debt is forgotten where all eight stand in debt: that takes some thousand askers at once.
        place = min(places, key=lambda one: self._level(one, now_ns))
        self._map[place : place + SLOT.size] = bytes(SLOT.size)
        self._map[place : place + 16] = name
        return place

    def _level(self, place: int, now_ns: int) -> int:
        slot = SLOT.unpack_from(self._map, place)
        return level(slot[1], sum(slot[2:]), now_ns)

    def _forget_lane(self) -> None:
        """What the last holder of this lane held is nobody's any more."""
        for place in range(HEAD, SIZE, SLOT.size):
            if self._map[place : place + 16] != NOBODY:
                FULL_AT.pack_into(self._map, place + HELD + 8 * self._lane, 0)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        locked = _locked(self._file)
        try:
            yield
        finally:
            if locked:
                fcntl.flock(self._file, fcntl.LOCK_UN)


def _locked(file: int) -> bool:
    """Whether the lock is ours. It is held for microseconds: whoever holds it for a second was stopped."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        pass
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        time.sleep(0.00005)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            continue
    log.warning("a gateway process holds the lock of the limits for %g s and is passed over", WAIT_S)
    return False


def _free_lane(folder: Path) -> tuple[int, int]:
    """A lane that no living process holds, and its lock."""
    for lane in range(LANES):
        lock = os.open(folder / f"limits.lane{lane}", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return lane, lock
    raise OSError(errno.EBUSY, f"{LANES} gateway processes share one machine's limits already", str(folder))


def _machine_start() -> bytes:
    """16 bytes that are others after each start of the machine."""
    try:
        said = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except FileNotFoundError:  # not Linux: the start by the clock, to ten seconds
        said = str(round((time.time() - time.monotonic()) / 10)).encode()
    return blake2b(said, digest_size=16).digest()
