"""The shipper takes what a gateway counted to the database: demand each second, traffic each ten, usage each minute.

Invariant: traffic and usage of a segment are each taken in once, however often they are sent, and in order; while the
database is away they wait on disk. Demand that cannot be sent is forgotten: it is of use for seconds. What a dead
gateway left is shipped by whichever finds it first.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from baseai.gateway.door import steady_s
from baseai.gateway.journal import Journal, close_left, closed_segments, gateways_in, set_aside, taken_over
from baseai.gateway.seams import DemandCount
from baseai.gateway.segment import Sums
from baseai.gateway.traffic import STRETCH_S, Stretch
from baseai.gateway.usage import Use, summed
from baseai.ground.fault import Conflict, Fault, Refused
from baseai.serving.demand import DemandSecond

USAGE_EVERY_S = 60
LEFT_EVERY_S = 30
SEGMENTS_AT_ONCE = 60  # of usage, in one transaction

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """How far a gateway's segments have been taken in."""

    traffic_no: int
    usage_no: int


class Quay(Protocol):
    """Where it is taken."""

    async def take_demand(self, gateway: str, seconds: Sequence[tuple[str, DemandSecond]]) -> None:
        """Keep what was asked for, by service; a second that is known is replaced."""

    async def marks(self, gateway: str) -> Marks:
        """How far it was taken in before; zeros for a new one."""

    async def take_traffic(self, gateway: str, no: int, stretches: Sequence[Stretch]) -> None:
        """Add one segment, unless it has been added."""

    async def take_usage(self, gateway: str, first_no: int, last_no: int, uses: Sequence[Use]) -> None:
        """Record the usage of segments. Raises Conflict when some of them have been, Refused when it cannot be kept."""


class Shipper:
    """Carries what one gateway process counted, and what dead ones left."""

    def __init__(self, journal: Journal, demand: DemandCount, quay: Quay) -> None:
        self._journal = journal
        self._demand = demand
        self._quay = quay
        self._marks: dict[str, Marks] = {}
        self._turned_at = 0  # stretch, counted from 1970
        self._usage_at_s = 0.0
        self._left_at_s = 0.0
        self._waits_for = ""  # why nothing could be shipped, as it was last logged

    async def run(self) -> None:
        """Ship for ever, a little after each second. Ends when it is cancelled; then call `close`."""
        while True:
            try:
                await self.tick(now_s=steady_s(), wall_s=time.time())
            except Exception:  # one oddity must not end all counting; what was told stands in the journal
                log.exception("what was counted could not be shipped")
            await asyncio.sleep(1.02 - time.time() % 1)

    async def tick(self, *, now_s: float, wall_s: float) -> None:
        """Do what is due. Faults are logged and tried again; nothing is raised for them."""
        try:
            if int(wall_s) // STRETCH_S != self._turned_at:  # whatever else fails: lines must not pile up
                self._turned_at = int(wall_s) // STRETCH_S
                self._journal.turn()
            if seconds := self._demand.taken(now_s=now_s, wall_s=wall_s):
                await self._quay.take_demand(self._journal.gateway, seconds)
            usage_due = wall_s - self._usage_at_s >= USAGE_EVERY_S
            await self._ship(self._journal.gateway, with_usage=usage_due)
            if usage_due:
                self._usage_at_s = wall_s
            if wall_s - self._left_at_s >= LEFT_EVERY_S:
                self._left_at_s = wall_s
                await self._ship_left()
        except (Fault, OSError) as wrong:
            if str(wrong) != self._waits_for:
                log.warning("what was counted waits to be shipped: %s", wrong)
            self._waits_for = str(wrong)
        else:
            self._waits_for = ""

    async def close(self) -> None:
        """Ship what is left, if the database answers; else another gateway will."""
        try:
            self._journal.turn()
            await self._ship(self._journal.gateway, with_usage=True)
        except (Fault, OSError) as wrong:
            log.warning("what was counted is left to the next gateway: %s", wrong)
        finally:
            self._journal.close()

    async def _ship_left(self) -> None:
        folder = self._journal.folder
        for gateway in gateways_in(folder):
            if gateway == self._journal.gateway:
                continue
            with taken_over(folder, gateway) as ours:
                if ours:
                    await close_left(folder, gateway)
                    await self._ship(gateway, with_usage=True)
                    self._marks.pop(gateway, None)

    async def _ship(self, gateway: str, *, with_usage: bool) -> None:
        waiting = closed_segments(self._journal.folder, gateway)
        if not waiting:
            return
        marks = self._marks.get(gateway) or await self._quay.marks(gateway)
        for no, path in waiting:
            if no <= marks.traffic_no:
                continue
            sums = _sums_in(path)
            if sums is not None:
                await self._quay.take_traffic(gateway, no, sums.stretches)
                marks = self._marks[gateway] = Marks(traffic_no=no, usage_no=marks.usage_no)
        if with_usage:
            await self._ship_usage(gateway, marks)

    async def _ship_usage(self, gateway: str, marks: Marks) -> None:
        waiting = closed_segments(self._journal.folder, gateway)
        for _, path in (one for one in waiting if one[0] <= marks.usage_no):
            path.unlink()  # taken in before, by one that died before it could say so
        due = [(no, path) for no, path in waiting if marks.usage_no < no <= marks.traffic_no]
        for begin in range(0, len(due), SEGMENTS_AT_ONCE):
            group = due[begin : begin + SEGMENTS_AT_ONCE]
            uses = summed(
                use for _, path in group if (sums := _sums_in(path)) is not None for use in sums.uses
            )
            try:
                await self._quay.take_usage(gateway, group[0][0], group[-1][0], uses)
            except Conflict:
                self._marks.pop(gateway, None)  # somebody else was here: look again
                raise
            except Refused as wrong:
                log.error("usage of %s cannot be kept and is set aside: %s", gateway, wrong)
                for _, path in group:
                    set_aside(path)
                continue
            self._marks[gateway] = Marks(traffic_no=marks.traffic_no, usage_no=group[-1][0])
            for _, path in group:
                path.unlink(missing_ok=True)


def _sums_in(path: Path) -> Sums | None:
    """What a file of sums holds; one that holds something else is set aside."""
    try:
        return Sums.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as wrong:
        log.error("%s is damaged and set aside: %s", path.name, wrong)
        set_aside(path)
        return None
