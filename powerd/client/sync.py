"""The same controller for programs with threads: the event loop runs in one of its own.

def apply(evse_id: str, ceiling: float, valid_for_s: float) -> None:
    chargers[evse_id].set_current(ceiling)

with BlockingController("127.0.0.1:7433", "cabinet-1", evses, apply) as controller:
    controller.plug("CA-319", True)
    controller.measure("CA-319", (15.8, 0.0, 0.0))
    controller.wait()
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from powerd.client.aio import PowerdController, boottime_s
from powerd.client.core import check_reading
from powerd.client.lease import EvseConfig
from powerd.client.threads import DaemonThreads
from powerd.errors import ControllerEnded

STOP_PATIENCE_S = 10.0
"""How long the end of the connection may take [s]."""
WAITING_S = 1.0
"""How long the end gives threads in ``wait`` to hear of it [s]."""


class _PostThreads:
    """Threads for calls that may hang, at most one an EVSE: who hangs keeps no other EVSE waiting."""

    def __init__(self) -> None:
        """Starts none yet: each comes with the first call that finds no idle one."""
        self._threads = DaemonThreads("powerd-post")
        self._busy: dict[str, asyncio.Future[None]] = {}

    async def run(self, evse_id: str, call: Callable[[], None]) -> None:
        """Runs ``call`` in a thread; where this is cancelled, it runs on.

        Raises:
            TimeoutError: a call for this EVSE still runs. A thread cannot be interrupted, and two would overtake each
                other.
        """
        if evse_id in self._busy and not self._busy[evse_id].done():
            raise TimeoutError(f"{evse_id}: the write before is still running")
        self._busy[evse_id] = self._threads.run(call)
        await asyncio.shield(self._busy[evse_id])

    def end(self) -> None:
        """Ends idle threads now, and the others when their calls return."""
        self._threads.end()


class BlockingController:
    """``aio.PowerdController`` behind plain calls; every method may be called from any thread."""

    def __init__(
        self,
        target: str,
        controller_id: str,
        evses: Sequence[EvseConfig],
        apply: Callable[[str, float, float], None],
        *,
        found: Collection[str] = (),
        switch: Callable[[str, int], None] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        memory_file: Path | None = None,
        apply_timeout_s: float = 10.0,
    ) -> None:
        """See ``PowerdController``; ``apply`` and ``switch`` are called in worker threads, one at a time an EVSE."""
        self._posts = _PostThreads()

        async def apply_in_thread(evse_id: str, ceiling: float, valid_for_s: float) -> None:
            until_s = boottime_s() + valid_for_s

            def call() -> None:
                # Only here: a lease goes on while a thread starts, and while the machine is suspended.
                if (left_s := until_s - boottime_s()) <= 0:
                    raise TimeoutError(f"{evse_id}: the lease of {ceiling:g} ended before a thread could write it")
                apply(evse_id, ceiling, left_s)

            await self._posts.run(evse_id, call)

        async def switch_in_thread(evse_id: str, phases: int) -> None:
            if switch is not None:
                await self._posts.run(evse_id, lambda: switch(evse_id, phases))

        self._inner = PowerdController(
            target,
            controller_id,
            evses,
            apply_in_thread,
            found=found,
            switch=None if switch is None else switch_in_thread,
            credentials=credentials,
            memory_file=memory_file,
            apply_timeout_s=apply_timeout_s,
        )
        self._loop = asyncio.new_event_loop()
        self._lock, self._ended = threading.RLock(), False  # what is told before the end reaches the loop before it
        self._thread = threading.Thread(target=self._loop.run_forever, name="powerd-controller", daemon=True)

    def __enter__(self) -> Self:
        """Starts the thread and the connection.

        Raises:
            ControllerEnded: its block has ended before: each one needs a controller of its own.
        """
        with self._running() as loop:
            self._thread.start()
        asyncio.run_coroutine_threadsafe(self._inner.__aenter__(), loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the connection, once what was told is sent or ``aio.LAST_WORD_S`` over, and the threads.

        Calls of ``apply`` and ``switch`` that have not returned keep theirs. The program may end meanwhile: these end
        with it.
        """
        ending = asyncio.run_coroutine_threadsafe(self._inner.__aexit__(kind, error, trace), self._loop)
        try:
            ending.result(STOP_PATIENCE_S)
        finally:
            with self._lock:  # not before: an ``apply`` may tell what its post shows, and the last word waits for it
                self._ended = True
            self._posts.end()
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
            self._thread.join(STOP_PATIENCE_S)
            self._loop.close()

    async def _stop(self) -> None:
        """Ends the loop, once threads in ``wait`` have heard of the end."""
        if waiting := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(waiting, timeout=WAITING_S)
        self._loop.stop()

    @contextmanager
    def _running(self) -> Iterator[asyncio.AbstractEventLoop]:
        """The loop, which does not end within this."""
        with self._lock:
            if self._ended:
                raise ControllerEnded(
                    f"{self._inner.core.controller_id}: the `with` block of this controller has ended"
                )
            yield self._loop

    def _tell(self, call: Callable[[], None]) -> None:
        def told() -> None:
            with suppress(ControllerEnded):  # told beside the end: as with a lost connection, nobody hears it
                call()

        with self._running() as loop:
            loop.call_soon_threadsafe(told)

    def wait(self, timeout_s: float | None = None) -> None:
        """Blocks, for ever or for ``timeout_s``; raises the error that broke the controller.

        Raises:
            TimeoutError: nothing broke in that time.
            ControllerEnded: the ``with`` block has ended, also where it does meanwhile.
        """
        with self._running() as loop:
            waiting = asyncio.run_coroutine_threadsafe(self._inner.wait(), loop)
        try:
            waiting.result(timeout_s)
        finally:
            waiting.cancel()

    def plug(self, evse_id: str, plugged: bool) -> None:
        """A car came or left. A repeated state changes nothing: tell a swap of cars as two calls.

        Raises:
            ValueError: there is no such EVSE.
            ControllerEnded: the ``with`` block has ended.
        """
        self._inner.place_of(evse_id)  # here, where it can be raised
        self._tell(lambda: self._inner.plug(evse_id, plugged))

    def restarted(self, evse_id: str) -> None:
        """A post has restarted by itself: what holds is applied again, and its phases are switched again.

        Raises:
            ValueError: there is no such EVSE.
            ControllerEnded: the ``with`` block has ended.
        """
        self._inner.place_of(evse_id)
        self._tell(lambda: self._inner.restarted(evse_id))

    def measure(self, evse_id: str, drawn: tuple[float, float, float]) -> None:
        """Currents of the post's L1, L2, L3 now [A], or (power [kW], 0, 0) for DC.

        Raises:
            ValueError: there is no such EVSE, or this is no reading (``core.check_reading``).
            ControllerEnded: the ``with`` block has ended.
        """
        self._inner.place_of(evse_id)
        check_reading(evse_id, drawn)
        self._tell(lambda: self._inner.measure(evse_id, drawn))

    def in_force(self) -> tuple[float, ...]:
        """The ceiling that each actuator last took [own unit]."""
        return self._inner.core.in_force
