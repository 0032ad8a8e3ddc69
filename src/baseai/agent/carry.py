"""Carrying brings what was measured from the spool to the server.

Invariant: what is fresh goes before what waited, and what waited goes at a bounded rate, so that after an outage the
live picture comes first and the server is not flooded. A batch leaves the spool only when the server accepted it, or
said why it never will, which is told.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from baseai.agent.event import set_or_after
from baseai.agent.link import KeyRevoked, ServerAway, ServerRefused, TokenUsed
from baseai.agent.sample_spool import Load, SampleSpool
from baseai.api.schemas import CollectorView, Kept, Measured
from baseai.ground.clock import now_utc

log = logging.getLogger(__name__)

ROWS_A_MESSAGE = 4000
BACKLOG_PAUSE_S = 0.25  # between two messages of what waited
VIEWS_EVERY_S = 60.0  # how collectors fare is told at least so often
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0
UNKNOWN_PAUSE_S = 600.0  # to a server that does not take samples yet
REFUSALS_TOLD = 8


class Way(Protocol):
    """What carrying needs of the link."""

    async def send_measured(self, measured: Measured) -> Kept: ...


class Carrier:
    """Sends until it is cancelled."""

    def __init__(
        self,
        *,
        spool: SampleSpool,
        way: Way,
        views: Callable[[], list[CollectorView]],
        chance: random.Random,
        rows_a_message: int = ROWS_A_MESSAGE,
        backlog_pause_s: float = BACKLOG_PAUSE_S,
    ) -> None:
        self._spool = spool
        self._way = way
        self._views = views
        self._chance = chance
        self._rows_max = rows_a_message
        self._pause_s = backlog_pause_s
        self._news = asyncio.Event()
        self._refusals: deque[str] = deque(maxlen=REFUSALS_TOLD)
        self._failures = 0
        self._said_unknown = False
        self._halved = 0  # how often a message was too large

    def wake(self) -> None:
        """There is something fresh in the spool."""
        self._news.set()

    async def run(self) -> None:
        told_s = float("-inf")
        while True:
            if not self._spool.fresh:
                wait_s = (
                    self._pause_s if len(self._spool) else max(0.0, told_s + VIEWS_EVERY_S - time.monotonic())
                )
                await set_or_after(self._news, wait_s)
            self._news.clear()
            if not len(self._spool) and time.monotonic() < told_s + VIEWS_EVERY_S:
                continue
            wait_s = await self.send_once()
            if wait_s == 0.0:
                told_s = time.monotonic()
            else:
                await asyncio.sleep(wait_s)

    async def send_once(self) -> float:
        """Send one message; how long to wait before the next, 0 when it arrived."""
        load = self._spool.load(rows_max=max(1, self._rows_max >> self._halved))
        try:
            kept = await self._way.send_measured(self._measured(load))
        except ServerRefused as refused:
            return self._refused(load, refused)
        except TokenUsed as refused:  # 409, which this route does not give
            return self._refused(load, ServerRefused(refused.url, 409, refused.detail))
        except (ServerAway, KeyRevoked, ValueError) as fault:
            self._failures += 1
            if self._failures in (1, 10) and not isinstance(fault, KeyRevoked):
                log.warning("samples wait in the spool: %s", fault)
            wait_s = min(LONGEST_WAIT_S, SHORTEST_WAIT_S * 2.0 ** min(self._failures - 1, 10))
            return wait_s * self._chance.uniform(0.5, 1.0)
        if self._failures >= 10:
            log.info("samples arrive again; %d batches wait", len(self._spool))
        self._failures, self._said_unknown = 0, False
        for key, why in kept.refused.items():
            self._note(f"the server refused {key}: {why}")
        known = {*load.ids}
        self._spool.settle([each for each in (*kept.accepted, *kept.refused) if each in known])
        if self._halved and load.ids:
            self._halved -= 1
        return 0.0

    def _measured(self, load: Load) -> Measured:
        views = self._views()
        troubles = [*reversed(self._spool.losses), *reversed(self._refusals)]
        waiting = len(self._spool) - len(load.ids)
        views.append(
            CollectorView(
                name="spool",
                state="failing" if troubles else "ok",
                interval_s=0.0,
                sentence=f"{waiting} batches wait" if waiting > 0 else None,
                troubles=troubles,
            )
        )
        return Measured(sent_at=now_utc(), batches=load.batches, witnesses=load.witnesses, collectors=views)

    def _refused(self, load: Load, refused: ServerRefused) -> float:
        """The whole message was refused. What is at fault is found by sending less at a time."""
        if refused.status == 404:
            if not self._said_unknown:
                log.warning("%s takes no samples yet; they wait in the spool", refused.url)
            self._said_unknown = True
            return UNKNOWN_PAUSE_S
        if len(load.ids) > 1:
            self._halved = max(self._halved + 1, (self._rows_max // max(1, load.rows)).bit_length())
            return SHORTEST_WAIT_S / 2
        for key in load.ids:
            self._note(f"the server refused {key}: {refused.status} {refused.detail}")
        self._spool.settle(load.ids)
        return SHORTEST_WAIT_S

    def _note(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self._refusals.append(sentence)
