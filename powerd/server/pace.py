"""So much of the streams' work a turn of the event loop: whoever comes new, and the tick, wait for no thousand reports.

The event loop runs everything that is ready before it looks again for what has come. With a thousand streams one turn
took 0.1 s and more, and gRPC needs five turns to let a new call in: in a burst of reconnects the streams that were
back kept out the others until their leases had ended.
"""

from __future__ import annotations

import asyncio
from collections import deque

PER_TURN = 4
"""Messages read or written in one turn: about 2 ms, many times what an empty turn costs."""


class Pace:
    """Deals out the turns, a grant and a report in turn: in each kind first come, first served.

    Neither may go first always. Grants that wait are merged, reports are not: a decrease waits for its own kind and as
    many reports at most, and a storm of grants keeps no report from being read, without which leases end.
    """

    def __init__(self, per_turn: int = PER_TURN) -> None:
        self._per_turn = self._left = per_turn
        self._grants: deque[asyncio.Future[None]] = deque()
        self._reports: deque[asyncio.Future[None]] = deque()
        self._next: asyncio.Handle | None = None

    async def grant(self) -> None:
        """Ends when what waits for a stream may be written: at once while there is room in this turn."""
        await self._take(self._grants)

    async def report(self) -> None:
        """Ends when a message of a stream may be looked at: at once while there is room in this turn."""
        await self._take(self._reports)

    async def _take(self, queue: deque[asyncio.Future[None]]) -> None:
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = loop.call_soon(self._begin)
        if self._left > 0 and not queue:
            self._left -= 1
            return
        place = loop.create_future()
        queue.append(place)
        await place

    def _begin(self) -> None:
        """A new turn."""
        self._left, self._next = self._per_turn, None
        while self._left > 0 and (self._grants or self._reports):
            for queue in (self._grants, self._reports):
                self._let_in(queue)
        if self._left < self._per_turn:
            self._next = asyncio.get_running_loop().call_soon(self._begin)

    def _let_in(self, queue: deque[asyncio.Future[None]]) -> None:
        """The first of a queue, if there is one and room for it."""
        if not queue or self._left == 0:
            return
        place = queue.popleft()
        if not place.done():  # else its stream has ended meanwhile
            place.set_result(None)
            self._left -= 1
