"""A small proxy in user space between controllers and daemon, with faults at hand: cuts, half-open sockets, stalls."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

CHUNK = 65536


class Proxy:
    """Forwards TCP from ``port`` to ``target``; every fault concerns all connections of the moment."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = 0
        """Where it listens."""
        self.accepted = 0
        """Connections so far."""
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._up.set()
        self._down.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for pump in tuple(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Resets every connection, as a switch that restarts does."""
        for writer in tuple(self._writers):
            if not writer.is_closing():
                writer.transport.abort()

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Stops forwarding without closing anything: half-open both ways, or a reader that does not read."""
        if up:
            self._up.clear()
        if down:
            self._down.clear()

    def flow(self) -> None:
        """Forwards again, first of all what was held back."""
        self._up.set()
        self._down.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, other_writer}
        pumps = (
            asyncio.create_task(self._pump(reader, other_writer, self._up)),
            asyncio.create_task(self._pump(other_reader, writer, self._down)),
        )
        self._pumps |= set(pumps)
        await asyncio.wait(pumps)
        self._pumps -= set(pumps)
        self._writers -= {writer, other_writer}

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        """One direction; a stalled one reads nothing, so that the sender's buffers fill as they would."""
        with contextlib.suppress(OSError):
            while True:
                await gate.wait()
                data = await reader.read(CHUNK)
                await gate.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
