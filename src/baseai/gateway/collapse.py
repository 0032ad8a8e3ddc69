"""A flight is one question on its way to a replica, for all who ask the same meanwhile.

Invariant: of equal questions one flies; whoever leads it and has no answer to share, for whatever reason, takes nobody
down with him: one of those who wait leads the next. After two flights without an answer everybody flies alone, so that
a service that fails is not asked by one after the other while their deadlines pass.
"""

import asyncio
import time
from collections.abc import Awaitable, Hashable
from typing import Generic, TypeVar

LED_MOST = 2  # flights without an answer, one after the other
REMEMBER_S = 1.0  # for so long those who waited have to look again
FAILED_MOST = 10_000  # questions of which that is remembered

Result = TypeVar("Result")


class Flight(Generic[Result]):
    """One question under way."""

    __slots__ = ("key", "led", "waiting")

    def __init__(self, key: Hashable | None, led: int) -> None:
        self.key = key  # None: nobody may join
        self.led = led  # flights before it that brought nothing
        self.waiting: list[asyncio.Future[Result | None]] = []


class Flights(Generic[Result]):
    """All flights of one gateway process."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, Flight[Result]] = {}
        self._failed: dict[Hashable, tuple[int, float]] = {}  # flights that brought nothing, and since when

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flying

    def lead(self, key: Hashable) -> Flight[Result] | None:
        """A flight to lead; None when there is one to follow."""
        if key in self._flying:
            return None
        led, since_s = self._failed.pop(key, (0, 0.0))
        if time.monotonic() - since_s > REMEMBER_S:
            led = 0
        if led >= LED_MOST:
            self._failed[key] = led, since_s
            return Flight(None, led)
        flight = self._flying[key] = Flight(key, led)
        return flight

    def alone(self) -> Flight[Result]:
        """A flight that nobody joins."""
        return Flight(None, 0)

    def follow(self, key: Hashable) -> Awaitable[Result | None]:
        """What the flight brings; None when it brings nothing: look again. Each may be cancelled by itself."""
        future: asyncio.Future[Result | None] = asyncio.get_running_loop().create_future()
        self._flying[key].waiting.append(future)
        return future

    def land(self, flight: Flight[Result], result: Result | None) -> None:
        """End a flight. Without a result those who wait look again."""
        if flight.key is not None and self._flying.get(flight.key) is flight:
            del self._flying[flight.key]
            if result is None and flight.waiting:
                if len(self._failed) >= FAILED_MOST:
                    self._failed.clear()
                self._failed[flight.key] = flight.led + 1, time.monotonic()
        for future in flight.waiting:
            if not future.done():
                future.set_result(result)
        flight.waiting.clear()
