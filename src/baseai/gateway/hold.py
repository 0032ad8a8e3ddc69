"""The hold keeps the requests of one service that no replica can take yet, in the order in which they came.

Invariant: nobody who came later is given a place before somebody who can use it and came earlier; no more wait than the
service allows, and who leaves (deadline, client gone) leaves no trace. Its lobby wakes it whenever a place may be free.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Wish = TypeVar("Wish")
Place = TypeVar("Place")


class Hold(Generic[Wish, Place]):
    """Requests that wait, first come first served."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: OrderedDict[asyncio.Future[Place], Wish] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    async def place(self, wish: Wish, give_back: Callable[[Place], None]) -> Place:
        """Wait for a place. When cancelled in the very moment in which one was given, that one is given back."""
        asked: asyncio.Future[Place] = self._loop.create_future()
        self._waiting[asked] = wish
        try:
            return await asked
        except asyncio.CancelledError:
            if asked.done() and not asked.cancelled():
                give_back(asked.result())
            raise
        finally:
            self._waiting.pop(asked, None)

    def wake(self, offer: Callable[[Wish], Place | None]) -> None:
        """Give places while there are some; stops at the first who gets none."""
        while self._waiting:
            asked, wish = next(iter(self._waiting.items()))
            if asked.done():  # cancelled, and about to leave
                del self._waiting[asked]
                continue
            place = offer(wish)
            if place is None:
                return
            del self._waiting[asked]
            asked.set_result(place)
