"""A controller on asyncio: connects, reconnects, applies ceilings, acks them, and falls back by itself on silence.

    async def apply(evse_id: str, ceiling: float, valid_for_s: float) -> None:
        await chargers[evse_id].set_current(ceiling)

    async with PowerdController("127.0.0.1:7433", "cabinet-1", evses, apply) as controller:
        controller.plug("CA-319", True)
        controller.measure("CA-319", (15.8, 0.0, 0.0))
        await controller.wait()

Everything that decides is in ``core``; this file owns the clock, the connection and the tasks.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from powerd.client.core import ControllerCore, Memory
from powerd.client.lease import EvseConfig, Refusal, Write
from powerd.client.memory import MemoryKeeper, load_memory
from powerd.errors import ControllerEnded, UnreadableInput
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub

logger = logging.getLogger(__name__)

Call = grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]

Apply = Callable[[str, float, float], Awaitable[None]]
"""Puts a ceiling [own unit] of an EVSE into force, for so many seconds (inf = until the next one).

Returns when the post has taken it; raises ``OSError`` (or ``TimeoutError``) if it has not, and is called again. Any
other error is one of the program: it is called again all the same, since what the post has not taken may be its
fallback, and ``wait`` or the end of ``async with`` raises the first one."""

Switch = Callable[[str, int], Awaitable[None]]
"""Makes the post of an EVSE connect so many phases: 1 (its L1) or 3. Called at a ceiling of 0.

Lets no contactor move before the current is gone; returns and raises as ``Apply`` does, and may take minutes."""

SLEEP_MAX_S = 0.5
"""Longest sleep before the clock is read again [s]: asyncio's timers stand still while the machine is suspended."""
RETRY_S = (0.2, 10.0)
"""First and largest mean pause before connecting again [s]; jittered: not all controllers of a site come at once."""
CALM_S = 10.0
"""A stream that lived this long starts the pauses anew [s]."""
APPLY_RETRY_S = 0.5
"""Pause before a failed actuator write is tried again [s]."""
LAST_WORD_S = 2.0
"""How long the end waits until what was told has reached the daemon [s]."""
SWITCH_TIMEOUT_S = 300.0
"""A ``switch`` that takes longer counts as failed [s]: posts pause for up to 120 s (evcc#29359), cars lag for 60 s."""
OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def boottime_s() -> float:
    """The clock of leases [s]: also runs in suspend, never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class PowerdController:
    """One charger controller and all its EVSEs. Use on one event loop, as a context manager."""

    def __init__(
        self,
        target: str,
        controller_id: str,
        evses: Sequence[EvseConfig],
        apply: Apply,
        *,
        found: Collection[str] = (),
        switch: Switch | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        memory_file: Path | None = None,
        apply_timeout_s: float = 10.0,
    ) -> None:
        """Prepares everything; nothing runs before ``async with``.

        Args:
            target: host:port of the daemon.
            controller_id: as in the site file.
            evses: all EVSEs that the site file gives to this controller.
            apply: how to put a ceiling into force.
            found: ids of the EVSEs with a car as the program starts: the sessions that powerd knows there go on. A car
                that is told by ``plug`` has come, and has a session of its own.
            switch: how to make a post connect L1 alone or all phases; for those that say ``switches_phases``.
            credentials: TLS; None = plain text.
            memory_file: where a stop of this controller is remembered over restarts; None = a restart forgets it.
            apply_timeout_s: an ``apply`` that takes longer counts as failed [s].

        Raises:
            UnreadableInput: the memory file is damaged, or another controller's.
            ValueError: a post says that it switches phases, and there is no ``switch``; or a car was found at none of
                ``evses``.
        """
        if switch is None and any(config.switches_phases for config in evses):
            raise ValueError("switch: needed for EVSEs with switches_phases")
        memory = Memory() if memory_file is None else load_memory(memory_file, controller_id)
        incarnation = secrets.randbits(62) | 1
        self.core = ControllerCore(controller_id, evses, incarnation=incarnation, memory=memory, found=found)
        """The rules; read ``core.in_force`` and ``core.refusals`` as you like."""
        self._target, self._credentials = target, credentials
        self._apply, self._switch, self._apply_timeout_s = apply, switch, apply_timeout_s
        self._lane_news = asyncio.Event()  # a newer order, or a stop that is kept
        self._keeper: MemoryKeeper | None = None
        if memory_file is not None:
            self._keeper = MemoryKeeper(memory_file, controller_id, memory, self._saved)
        self._index = {config.evse_id: i for i, config in enumerate(evses)}
        self._orders: dict[int, Write] = {}  # newest order of each EVSE that no lane has taken yet
        self._lanes: dict[
            int, asyncio.Task[None]
        ] = {}  # one per EVSE with orders: its orders never overtake each other
        self._under_way: dict[int, tuple[Write, asyncio.Timeout]] = {}  # writes that posts have yet to answer
        self._news = asyncio.Event()
        self._failure: asyncio.Future[None] | None = None
        self._told = False  # ``wait`` has raised it
        self._tasks: list[asyncio.Task[None]] = []
        self._call: Call | None = None  # the stream, while there is one
        self._retry_s = 0.0  # mean pause before the next one
        self._ending = False  # the stream ends as soon as it has told everything
        self._hurry = False  # the next report is due at once

    async def __aenter__(self) -> Self:
        """Puts every post into its idle fallback (or its stop) and starts to connect.

        Raises:
            ControllerEnded: its block has ended before: each one needs a controller, and so an incarnation, of its own.
        """
        if self._ending:
            raise self._ended()
        self._failure = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._go_on(work)) for work in (self._keep_time, self._stay_connected)]
        self._dispatch(self.core.start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the connection. Posts keep their leases until these end by themselves: see ``Apply``.

        Where there is a connection, what was told before is sent first, for at most ``LAST_WORD_S``. An unplugging is
        told once its post has taken its idle fallback. A cancellation, as by a limit around the block, cuts that short.
        """
        try:
            await self._tell_last()
        finally:
            try:
                await self._end_tasks()
            finally:
                if self._failure is not None:
                    self._failure.cancel()  # if nothing has failed: ends ``wait``
        if self._failure is not None and not self._failure.cancelled() and not self._told and kind is None:
            self._failure.result()

    async def wait(self) -> None:
        """Never ends, but with an error of the program: of ``apply``, other than ``OSError``; of the memory file.

        The file may be another controller's. Only the first error is raised.

        Raises:
            ControllerEnded: the ``async with`` has ended meanwhile, without an error.
        """
        if self._failure is None:
            raise RuntimeError("use `async with` first")
        await asyncio.wait({self._failure})
        if self._failure.cancelled():
            raise self._ended()
        self._told = True
        self._failure.result()

    def _ended(self) -> ControllerEnded:
        return ControllerEnded(f"{self.core.controller_id}: the `with` block of this controller has ended")

    @property
    def _over(self) -> bool:
        """Nobody would hear what is told now, and no post may be ordered anything."""
        return self._ending and not self._tasks

    def _heard_place_of(self, evse_id: str) -> int:
        """``place_of``, for what is told."""
        if self._over:
            raise self._ended()
        return self.place_of(evse_id)

    def place_of(self, evse_id: str) -> int:
        """Where an EVSE stands in the hello.

        Raises:
            ValueError: it is none of this controller.
        """
        if evse_id not in self._index:
            raise ValueError(f"{evse_id!r} is no EVSE of this controller; it has {', '.join(self._index)}")
        return self._index[evse_id]

    def plug(self, evse_id: str, plugged: bool) -> None:
        """A car came or left. A repeated state changes nothing: tell a swap of cars as two calls.

        Raises:
            ValueError: there is no such EVSE.
            ControllerEnded: the ``async with`` has ended.
        """
        self._dispatch(self.core.plug(self._heard_place_of(evse_id), plugged, boottime_s()))
        self._news.set()

    def restarted(self, evse_id: str) -> None:
        """A post has restarted by itself: what holds is applied again, and its phases are switched again.

        Raises:
            ValueError: there is no such EVSE.
            ControllerEnded: the ``async with`` has ended.
        """
        self._dispatch(self.core.restarted(self._heard_place_of(evse_id)))

    def measure(self, evse_id: str, drawn: tuple[float, float, float]) -> None:
        """Currents of the post's L1, L2, L3 now [A], or (power [kW], 0, 0) for DC; goes with the next report.

        Raises:
            ValueError: there is no such EVSE, or this is no reading (``core.check_reading``).
            ControllerEnded: the ``async with`` has ended.
        """
        self.core.measure(self._heard_place_of(evse_id), drawn)

    async def _tell_last(self) -> None:
        """Gives a stream that is open the time to say what is untold, and the daemon that to hear it."""
        self._ending = self._hurry = True
        self._news.set()
        if self._call is None:
            return
        _, open_still = await asyncio.wait(self._tasks[1:], timeout=LAST_WORD_S)
        if open_still:
            logger.warning("%s: has not confirmed in %g s that it heard the last report", self._target, LAST_WORD_S)

    async def _end_tasks(self) -> None:
        tasks = [*self._tasks, *self._lanes.values()]
        for task in tasks:
            task.cancel()
        self._tasks = []
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            if self._keeper is not None:
                await self._keeper.end()

    def _dispatch(self, writes: Iterable[Write]) -> None:
        """Hands orders to the lanes of their EVSEs; a newer order replaces one that still waits."""
        for write in writes:
            self._orders[write.index] = write
            self._open_lane(write.index)
        self._lane_news.set()
        if self._keeper is not None and self._tasks:
            self._keeper.keep(self.core.memory)  # waits for no disk: posts obey meanwhile

    def _saved(self, refused: UnreadableInput | None) -> None:
        """A save has ended: stops may be acked; a file that another controller has taken meanwhile ends ``wait``."""
        self._lane_news.set()
        if refused is not None:
            self._fail(refused)

    def _open_lane(self, index: int) -> None:
        """One that ends by a mistake of the program is opened again: its order may be the post's fallback."""

        def ended(lane: asyncio.Task[None]) -> None:
            if not lane.cancelled() and lane.exception() is not None:
                name = self.core.evses[index].config.evse_id
                logger.error("%s: a mistake in the program; it is called again", name, exc_info=lane.exception())
                asyncio.get_running_loop().call_later(APPLY_RETRY_S, self._open_lane, index)

        if index in self._orders and index not in self._lanes:
            self._lanes[index] = self._guarded(self._lane(index))
            self._lanes[index].add_done_callback(ended)

    async def _lane(self, index: int) -> None:
        """Carries out the orders of one EVSE until none is left."""
        try:
            while not self._over and (write := self._orders.pop(index, None)) is not None:
                if write.valid_until_s <= boottime_s():
                    continue  # its end has ordered the fallback, or will
                taken = False
                try:
                    taken = await self._carry_out(write)
                finally:
                    if not taken:
                        self._orders.setdefault(index, write)
                if taken and self.core.applied(write, boottime_s()):
                    self._news.set()
                if self._orders.get(index) is write:
                    await asyncio.sleep(APPLY_RETRY_S)
        finally:
            del self._lanes[index]

    async def _carry_out(self, write: Write) -> bool:
        """One actuator write, cut off at the end of its lease; False = it failed, or is a stop that was not kept."""
        try:
            await self._connect(write)
            if write.index in self._orders:
                return False  # a stop, maybe: nothing that is older is put into force after it came
            if (left_s := write.valid_until_s - boottime_s()) <= 0:
                return False  # it took so long to switch; the next grant finds it done
            async with asyncio.timeout(min(self._apply_timeout_s, left_s)) as limit:
                self._under_way[write.index] = write, limit
                try:
                    await self._apply(write.evse_id, write.ceiling, left_s)
                finally:
                    del self._under_way[write.index]
            if limit.expired():
                raise TimeoutError("its call was cut off, and returned all the same")
        except OSError as failed:  # also TimeoutError and ConnectionError
            logger.warning("%s did not take %g: %r", write.evse_id, write.ceiling, failed)
            return False
        except asyncio.CancelledError:
            if (lane := asyncio.current_task()) is None or lane.cancelling():
                raise
            # Not this lane is over: what the actuator waited for was cancelled, as by a library that lost its link.
            logger.warning("%s did not take %g: its call was cancelled", write.evse_id, write.ceiling)
            return False
        return await self._kept(write)

    async def _kept(self, write: Write) -> bool:
        """Waits until a restart would not forget a stop: not acked before; False = a newer order came first."""
        while write.latched and self._keeper is not None and not self._keeper.keeps_stop(write.evse_id):
            if write.index in self._orders:
                return False
            self._lane_news.clear()
            await self._lane_news.wait()
        return True

    async def _connect(self, write: Write) -> None:
        """Makes the post connect the phases of ``write``: first 0, then the contactor. Its lease may end meanwhile."""
        if write.one_phase is None or self._switch is None or not self.core.must_switch(write):
            return
        async with asyncio.timeout(self._apply_timeout_s):
            await self._apply(write.evse_id, 0.0, math.inf)
        self.core.switching(write.index)
        async with asyncio.timeout(SWITCH_TIMEOUT_S):
            await self._switch(write.evse_id, 1 if write.one_phase else 3)
        self.core.switched(write.index, one_phase=write.one_phase)

    async def _keep_time(self) -> None:
        """Ends leases on time, connected or not."""
        while True:
            now_s = boottime_s()
            self._dispatch(self.core.expire(now_s))
            self._cut_off(now_s)
            pause_s = self.core.next_expiry_s() - now_s
            await asyncio.sleep(min(SLEEP_MAX_S, max(0.0, pause_s)))

    def _cut_off(self, now_s: float) -> None:
        """Ends writes whose lease is over: a timer that stood still in suspend would let them hold up the fallback."""
        for write, limit in self._under_way.values():
            if write.valid_until_s <= now_s and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    async def _stay_connected(self) -> None:
        """Opens a stream, and another when it ends, with growing, jittered pauses; also where a mistake ends it."""
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * self._retry_s)  # noqa: S311  (jitter, no secret)
            started_s = boottime_s()
            try:
                await self._stream()
                if not self._ending:
                    logger.warning("%s closed the stream", self._target)
            except grpc.aio.AioRpcError as lost:
                logger.warning("%s: %s: %s", self._target, lost.code().name, lost.details())
            finally:
                calm = boottime_s() - started_s > CALM_S
                self._retry_s = RETRY_S[0] if calm else min(max(2 * self._retry_s, RETRY_S[0]), RETRY_S[1])
            if self._ending:
                return

    async def _stream(self) -> None:
        """One stream, until it ends."""
        async with self._channel() as channel:
            call = self._call = ControllerServiceStub(channel).Connect()
            sender = asyncio.create_task(self._send(call))
            reader = asyncio.create_task(self._receive(call))
            try:
                await asyncio.wait((sender, reader), return_when=asyncio.FIRST_COMPLETED)
                if sender.done():
                    sender.result()
                await reader
            finally:
                self._call = None
                call.cancel()
                sender.cancel()
                reader.cancel()
                await asyncio.gather(sender, reader, return_exceptions=True)

    async def _receive(self, call: Call) -> None:
        """Takes grants until the stream ends."""
        async for message in call:
            self._dispatch(self.core.receive(message, boottime_s()))
            for refused in self.core.refused:
                who = "the message" if refused.index < 0 else self.core.evses[refused.index].config.evse_id
                level = logging.WARNING if refused.why is Refusal.MALFORMED else logging.INFO
                logger.log(level, "%s refused: %s, (epoch, seq) %s", who, refused.why.value, refused.order)
            self._news.set()

    async def _send(self, call: Call) -> None:
        """The hello, then a report whenever one is due; at the end the last word."""
        try:
            await call.write(self.core.hello(boottime_s()))
            while not (self._ending and self.core.all_told):
                await self._report_due()
                await call.write(self.core.report(boottime_s()))
            await call.done_writing()
        except asyncio.InvalidStateError:  # the stream is over: the reader knows why
            return

    async def _report_due(self) -> None:
        while (pause_s := self.core.report_due_s() - boottime_s()) > 0 and not self._hurry:
            self._news.clear()
            try:
                async with asyncio.timeout(min(SLEEP_MAX_S, pause_s)):  # wait_for may swallow the end (Python 3.11)
                    await self._news.wait()
            except TimeoutError:
                continue
        self._hurry = False

    def _channel(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=OPTIONS)
        return grpc.aio.secure_channel(self._target, self._credentials, options=OPTIONS)

    async def _go_on(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Does ``work`` until it ends by itself; after a mistake in it anew, for leases have to end all the same.

        ``wait`` and the end raise the mistake.
        """
        while True:
            doing = self._guarded(work())
            try:
                await asyncio.wait({doing})
            finally:
                doing.cancel()
                await asyncio.wait({doing})
            mistake = None if doing.cancelled() else doing.exception()
            if mistake is None and not doing.cancelled():
                return
            logger.error("a mistake in the program; the controller goes on", exc_info=mistake)
            await asyncio.sleep(random.uniform(0.5, 1.5) * APPLY_RETRY_S)  # noqa: S311  (jitter, no secret)

    def _guarded(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """A task whose error ends ``wait``."""

        def note(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._fail(error)

        task = asyncio.create_task(work)
        task.add_done_callback(note)
        return task

    def _fail(self, error: BaseException) -> None:
        """The first one ends ``wait``."""
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
