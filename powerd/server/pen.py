"""Writing on a stream so that it can always be ended: gRPC sends no status while a message is still on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

PATIENCE_S = 1.0
"""So long a message under way may take when its stream is to end [s]: a client that reads has it long before."""

Message = TypeVar("Message")


class Pen(Generic[Message]):
    """Writes one message after another; a cancelled writer leaves none half sent."""

    def __init__(self, write: Callable[[Message], Awaitable[None]]) -> None:
        self._put = write
        self._under_way: asyncio.Future[None] | None = None

    async def write(self, message: Message) -> None:
        """Sends one message; goes on in the background if the writer is cancelled."""
        self._under_way = asyncio.ensure_future(self._put(message))
        await asyncio.shield(self._under_way)

    async def down(self) -> None:
        """Ends when nothing is on its way any more, or after ``PATIENCE_S``."""
        if self._under_way is None:
            return
        await asyncio.wait((self._under_way,), timeout=PATIENCE_S)
        if not self._under_way.done():
            self._under_way.cancel()
        elif not self._under_way.cancelled():
            self._under_way.exception()  # the stream ends anyway; asked for, so that nobody complains of it later
