"""A controller as cheap as the rules allow: a thousand posts must not take from the daemon the core it runs on.

The rules are the house's own (``ControllerCore``), the stream is a real one; what is left out is what an integrator
needs and a test does not: lanes for slow actuators, their timeouts, TLS and growing pauses. An actuator here takes a
ceiling at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import grpc.aio

from powerd.client.aio import Call
from powerd.client.core import ControllerCore
from powerd.client.lease import EvseConfig, Write
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub

RETRY_S = (0.1, 0.3)
"""Pause before connecting again [s]."""
CLOCK_S = 0.1
"""Longest pause between two looks at the clock [s]."""
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))

Taken = Callable[[str, float, float], None]
"""EVSE, ceiling [A], for how long [s]."""


class LeanController:
    """One controller; use as a context manager on one event loop."""

    def __init__(self, target: str, controller_id: str, evses: Sequence[EvseConfig], taken: Taken) -> None:
        self.core = ControllerCore(controller_id, evses, incarnation=secrets.randbits(62) | 1)
        self._target, self._taken = target, taken
        self._index = {config.evse_id: i for i, config in enumerate(evses)}
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._carry_out(self.core.start())
        self._tasks = [asyncio.create_task(self._keep_time()), asyncio.create_task(self._stay_connected())]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def plug(self, evse_id: str, plugged: bool) -> None:
        """A car came or left."""
        self._carry_out(self.core.plug(self._index[evse_id], plugged, _now_s()))
        self._news.set()

    def _carry_out(self, writes: Iterable[Write]) -> None:
        """Every actuator takes its order at once; what comes too late is dropped, as a write with a deadline is."""
        for write in writes:
            now_s = _now_s()
            if write.valid_until_s > now_s:
                self._taken(write.evse_id, write.ceiling, write.valid_until_s - now_s)
                self.core.applied(write, now_s)

    async def _keep_time(self) -> None:
        """Ends leases on time."""
        while True:
            now_s = _now_s()
            self._carry_out(self.core.expire(now_s))
            await asyncio.sleep(min(CLOCK_S, max(0.0, self.core.next_expiry_s() - now_s)))

    async def _stay_connected(self) -> None:
        """Opens a stream, and another when it ends."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._stream()
            await asyncio.sleep(random.uniform(*RETRY_S))

    async def _stream(self) -> None:
        """One stream, until it ends."""
        async with grpc.aio.insecure_channel(self._target, options=OPTIONS) as channel:
            call = ControllerServiceStub(channel).Connect()
            await call.write(self.core.hello(_now_s()))
            sender = asyncio.create_task(self._send(call))
            try:
                async for message in call:
                    self._carry_out(self.core.receive(message, _now_s()))
                    self._news.set()
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, call: Call) -> None:
        """A report whenever one is due."""
        while True:
            while (pause_s := self.core.report_due_s() - _now_s()) > 0:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), pause_s)
            await call.write(self.core.report(_now_s()))


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
