"""So much of the streams' work a turn of the event loop: whoever comes new, and the tick, wait for no thousand reports.

The event loop runs everything that is ready before it looks again for what has come. With a thousand streams one turn
took 0.1 s and more, and gRPC needs five turns to let a new call in: in a burst of reconnects the streams that were
back kept out the others until their leases had ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

PER_TURN = 4
"""Messages read or written in one turn: about 2 ms, many times what an empty turn costs."""


@dataclass(frozen=True, eq=False)
class _Place:
    """One that waits for its turn."""

    free: asyncio.Future[None]
    hurries: Callable[[], bool]
    """It must not wait any longer."""

    def let_in(self) -> bool:
        """It is its turn; False = its stream has ended meanwhile."""
        if self.free.done():
            return False
        self.free.set_result(None)
        return True


def _never() -> bool:
    return False


class Pace:
    """Deals out the turns, a grant and a report in turn: in each kind first come, first served.

    Neither may go first always: a storm of grants keeps no report from being read, without which leases end. Decreases
    alone wait for nobody.
    """

    def __init__(self, per_turn: int = PER_TURN) -> None:
        self._per_turn = self._left = per_turn
        self._woken = 0  # let in from the queues: they go on in the next turn, and count there
        self._grants: deque[_Place] = deque()
        self._reports: deque[_Place] = deque()
        self._next: asyncio.Handle | None = None

    async def grant(self, lowers: Callable[[], bool]) -> None:
        """Ends when what waits for a stream may be written: at once while there is room in this turn.

        Args:
            lowers: a decrease is among it; then, and as soon as that is so, it need not wait.
        """
        if not lowers():
            await self._take(self._grants, lowers)

    async def report(self) -> None:
        """Ends when a message of a stream may be looked at: at once while there is room in this turn."""
        await self._take(self._reports, _never)

    async def _take(self, queue: deque[_Place], hurries: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = loop.call_soon(self._begin)
        if self._left > 0 and not queue:
            self._left -= 1
            return
        place = _Place(loop.create_future(), hurries)
        queue.append(place)
        await place.free

    def _begin(self) -> None:
        """A new turn."""
        self._left, self._woken, self._next = self._per_turn - self._woken, 0, None
        for place in [place for place in self._grants if place.hurries()]:
            self._grants.remove(place)
            place.let_in()
        while self._woken < self._per_turn and (self._grants or self._reports):
            for queue in (self._grants, self._reports):
                self._let_in(queue)
        if self._woken > 0 or self._left < self._per_turn:
            self._next = asyncio.get_running_loop().call_soon(self._begin)

    def _let_in(self, queue: deque[_Place]) -> None:
        """The first of a queue, if there is one and room for it."""
        if queue and self._woken < self._per_turn and queue.popleft().let_in():
            self._woken += 1
