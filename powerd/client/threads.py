"""Threads for calls that may hang: of posts, of the disk. They are daemons: Python ends without waiting for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Literal


class DaemonThreads:
    """As many threads as calls run at once; an idle one takes the next call. Use on one event loop.

    A ``ThreadPoolExecutor`` would keep the program from ending until the last call has returned.
    """

    def __init__(self, name: str) -> None:
        """Starts none yet."""
        self._name, self._count = name, 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[tuple[Callable[[], None], _Told] | None] = SimpleQueue()

    def run(self, call: Callable[[], None]) -> asyncio.Future[None]:
        """Runs ``call`` in a thread; the future tells what became of it: ``OSError`` where no thread can be started."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._idle.acquire(blocking=False):
            try:
                threading.Thread(target=self._work, name=f"{self._name}-{self._count + 1}", daemon=True).start()
            except RuntimeError as refused:
                # The call must not wait for a thread: it would be made late, beside newer ones.
                future.set_exception(OSError(str(refused)))
                return future
            self._count += 1
        self._calls.put((call, _Told(loop, future, self._idle)))
        return future

    def end(self) -> None:
        """Ends idle threads now, and the others when their calls return."""
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (order := self._calls.get()) is not None:
            call, told = order
            with told:
                call()


class _Told:
    """Takes whatever a call raises to the loop that waits for it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], idle: threading.Semaphore
    ) -> None:
        self._loop, self._future, self._idle = loop, future, idle

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[True]:
        """The thread is idle before anybody hears of it: who then calls again needs no other one."""
        self._idle.release()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, error)
        return True

    def _settle(self, error: BaseException | None) -> None:
        if self._future.done():  # cancelled
            return
        if error is None:
            self._future.set_result(None)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            self._future.set_exception(error)
        else:
            # A future takes no StopIteration, and a loop ends by SystemExit, with all other posts: this one has failed.
            failed = RuntimeError(f"{type(error).__name__} out of a call")
            failed.__cause__ = error
            self._future.set_exception(failed)
