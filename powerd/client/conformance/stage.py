"""The stage of a scene: a scripted daemon on a free loopback port, the candidate, and all that the candidate did."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from powerd.client.lease import Order
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb

T = TypeVar("T")

CONTROLLER, EVSES = "candidate", ("A1", "A2")
FALLBACK, IDLE = 8.0, 6.0
"""Of every EVSE [A]: neither is 0, so that a stop is told from both."""
TTL_S = 3.0
"""Length of a lease [s]."""
PATIENCE_S = 5.0
"""How long anything may take for which the protocol sets no time [s]."""
START_S = 60.0
"""How long the candidate may take until it connects [s]."""


class Breach(Exception):
    """The candidate does not keep a rule."""


class NotStarted(Exception):
    """The candidate cannot be started, or it does not connect."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """One line of the candidate: a post took a ceiling."""

    at_s: float
    """When it was read, monotonic [s]."""
    evse_id: str
    """Whose."""
    ceiling: float
    """[A]."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One message of the candidate."""

    at_s: float
    """When it came, monotonic [s]."""
    stream: int
    """On which stream, from 1."""
    message: pb.ConnectRequest
    """It."""

    @property
    def stamp(self) -> pb_common.Stamp:
        """Of the hello or report."""
        return self.message.hello.stamp if self.message.HasField("hello") else self.message.report.stamp


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What the daemon sent."""

    order: Order
    """(epoch, seq)."""
    sent_s: float
    """When, monotonic [s]."""
    ends_s: float
    """One ttl after the echoed stamp came, monotonic [s]."""


@dataclass(frozen=True, kw_only=True)
class Ack:
    """One EVSE's ack."""

    order: Order
    """(epoch, seq)."""
    evse_id: str
    """Whose."""
    ceiling: float | None
    """[A]; None = that of the grant renewed: it said ``all``."""


class Stage:
    """One scene's daemon and candidate; use as a context manager."""

    def __init__(self, command: Sequence[str], slack_s: float) -> None:
        """Nothing starts before ``with``.

        Args:
            command: how to start the candidate.
            slack_s: how far from its time an expiry or a heartbeat may be seen [s].
        """
        self.slack_s = slack_s
        self.writes: list[Written] = []
        self.said: list[Said] = []
        self._command = command
        self._news = threading.Condition()
        self._streams = 0
        self._down: SimpleQueue[pb.ConnectResponse | None] = SimpleQueue()
        self._carried = 0
        self._order: Order = (5, 10)
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Starts both.

        Raises:
            NotStarted: there is no such program.
        """
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect,
            request_deserializer=pb.ConnectRequest.FromString,
            response_serializer=pb.ConnectResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler("powerd.v1.ControllerService", {"Connect": handler})
        self._server.add_generic_rpc_handlers((service,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - who runs us names it
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
                env=os.environ | environment(f"127.0.0.1:{port}"),
                start_new_session=True,  # a wrapper's child ends with it
            )
        except OSError as error:
            self._server.stop(None)
            raise NotStarted(str(error)) from error
        threading.Thread(target=self._read_writes, args=(self._process,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends both."""
        process = self._running()
        for ending in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, ending)
                process.wait(PATIENCE_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._down.put(None)
        self._server.stop(0.5).wait()

    def open(self, stream: int = 1) -> pb.Hello:
        """Waits for the first message of a stream, which has to be a hello, and welcomes it.

        Raises:
            NotStarted: there is no first stream.
        """
        if stream == 1 and self._wait(lambda: self.said or None, START_S) is None:
            raise NotStarted(f"it did not connect within {START_S:g} s, or ended")
        said = self.await_("hello on a new stream", lambda: self._first_of(stream), 2 * PATIENCE_S)
        if not said.message.HasField("hello"):
            raise Breach("the first message of a stream is no hello")
        hello = said.message.hello
        if hello.controller_id != CONTROLLER or sorted(e.evse_id for e in hello.evses) != sorted(EVSES):
            raise Breach(f"the hello is not of {CONTROLLER} with {', '.join(EVSES)}")
        second, quarter = Duration(seconds=1), Duration(nanos=int(TTL_S / 4 * 1e9))
        welcome = pb.Welcome(epoch=self._order[0], ttl=Duration(seconds=int(TTL_S)), tick=second, report_within=quarter)
        self._down.put(pb.ConnectResponse(welcome=welcome))
        return hello

    def settle(self) -> None:
        """Opens the first stream; returns once every post has taken its idle fallback and is not unsettled."""
        hello = self.open()
        for evse_id in EVSES:
            self.written(evse_id, IDLE, 0.0)
        for evse in hello.evses:
            if evse.unsettled:
                self.await_(f"plug of {evse.evse_id}, unsettled", partial(self.told, evse.evse_id, False, 0.0))

    def tell(self, command: str, evse_id: str) -> None:
        """A line to the candidate's stdin."""
        try:
            print(command, evse_id, file=self._running().stdin, flush=True)
        except BrokenPipeError as error:
            raise Breach("the candidate has closed its stdin") from error

    def plug(self, evse_id: str) -> None:
        """A car comes; returns once the candidate has told it."""
        since_s = time.monotonic()
        self.tell("plug", evse_id)
        self.await_(f"report of the car at {evse_id}", lambda: self.told(evse_id, True, since_s))

    def grant(
        self,
        ceilings: Mapping[str, float],
        *,
        order: Order | None = None,
        echo: Said | None = None,
        latched: bool = False,
        change: Callable[[pb.Grants], None] | None = None,
    ) -> Lease:
        """Sends named ceilings [A], by default under a new seq and with the newest stamp; ``change`` spoils them."""
        order, echo = order or self._next(), echo or self.said[-1]
        places = [self._place(evse_id) for evse_id in ceilings]
        message = pb.Grants(
            epoch=order[0],
            seq=order[1],
            ttl=Duration(seconds=int(TTL_S)),
            echo=echo.stamp,
            index=places,
            ceiling=list(ceilings.values()),
            latched_index=places if latched else [],
        )
        if change is not None:
            change(message)
        return self._send(pb.ConnectResponse(grants=message), order, echo)

    def renew(self, *, missed: int = 0) -> Lease:
        """Sends a RenewAll whose count is ``missed`` too high."""
        order, echo = self._next(), self.said[-1]
        count = self._carried + missed
        message = pb.RenewAll(
            epoch=order[0], seq=order[1], ttl=Duration(seconds=int(TTL_S)), echo=echo.stamp, count=count
        )
        return self._send(pb.ConnectResponse(renew_all=message), order, echo)

    def cut(self) -> None:
        """Ends the stream with UNAVAILABLE."""
        self._down.put(None)

    def await_(self, what: str, found: Callable[[], T | None], within_s: float = PATIENCE_S) -> T:
        """What ``found`` finds as soon as it does."""
        if (result := self._wait(found, within_s)) is None:
            ended = self._running().poll()
            why = f"within {within_s:.1f} s" if ended is None else f"before the candidate ended with {ended}"
            raise Breach(f"no {what} {why}")
        return result

    def never(self, what: str, found: Callable[[], object | None], for_s: float) -> None:
        """Looks on for a while; ``found`` must not find anything."""
        if self._wait(found, for_s) is not None:
            raise Breach(what)
        if (ended := self._running().poll()) is not None:
            raise Breach(f"the candidate ended with {ended}")

    def written(self, evse_id: str, ceiling: float, since_s: float) -> Written:
        """Waits for a write of this ceiling [A]."""
        return self.await_(f"write `{evse_id} {ceiling:g}`", lambda: self.wrote(evse_id, ceiling, since_s))

    def wrote(self, evse_id: str, ceiling: float, since_s: float) -> Written | None:
        """The first write of this ceiling [A] since then."""
        return next(
            (w for w in self.writes if w.at_s >= since_s and (w.evse_id, w.ceiling) == (evse_id, ceiling)), None
        )

    def acked(self, lease: Lease, evse_id: str, ceiling: float) -> None:
        """Waits for the ack, which has to name the ceiling [A]."""
        ack = self.await_(f"ack of {lease.order} for {evse_id}", lambda: self.ack(lease, evse_id))
        if ack.ceiling not in {None, ceiling}:
            raise Breach(f"{evse_id} acks {lease.order} with {ack.ceiling:g} instead of {ceiling:g}")

    def ack(self, lease: Lease, evse_id: str) -> Ack | None:
        """The ack of a lease, if it came since that was sent."""
        acks = (ack for said in self.said if said.at_s >= lease.sent_s for ack in self._acks(said))
        return next((ack for ack in acks if (ack.order, ack.evse_id) == (lease.order, evse_id)), None)

    def falls_back(self, evse_id: str, ceiling: float, lease: Lease) -> None:
        """Waits for the fallback [A], which has to come at the end of the lease, give or take the slack."""
        latest_s = lease.ends_s + self.slack_s
        left_s = max(0.0, latest_s - time.monotonic())
        found = self._wait(lambda: self.wrote(evse_id, ceiling, lease.sent_s), left_s)
        if found is None or found.at_s > latest_s:
            raise Breach(f"no write `{evse_id} {ceiling:g}` at the end of the lease")
        if found.at_s < lease.ends_s - self.slack_s:
            raise Breach(f"`{evse_id} {ceiling:g}` {lease.ends_s - found.at_s:.1f} s before the end of the lease")

    def told(self, evse_id: str, plugged: bool, since_s: float) -> Said | None:
        """The first report since then of a car that came or left."""
        place = self._place(evse_id)
        return next((s for s in self.said if s.at_s >= since_s and (place, plugged) in _plugs(s)), None)

    def _acks(self, said: Said) -> Iterator[Ack]:
        names = [evse.evse_id for evse in self._hello().evses]
        for applied in said.message.report.applied:
            order = (applied.epoch, applied.seq)
            if applied.all:
                yield from (Ack(order=order, evse_id=name, ceiling=None) for name in names)
            for place, ceiling in zip(applied.index, applied.ceiling, strict=False):
                if 0 <= place < len(names):
                    yield Ack(order=order, evse_id=names[place], ceiling=ceiling)

    def _hello(self) -> pb.Hello:
        return next(s.message.hello for s in reversed(self.said) if s.message.HasField("hello"))

    def _place(self, evse_id: str) -> int:
        return [evse.evse_id for evse in self._hello().evses].index(evse_id)

    def _first_of(self, stream: int) -> Said | None:
        return next((said for said in self.said if said.stream == stream), None)

    def _next(self) -> Order:
        self._order = (self._order[0], self._order[1] + 1)
        return self._order

    def _send(self, message: pb.ConnectResponse, order: Order, echo: Said) -> Lease:
        lease = Lease(order=order, sent_s=time.monotonic(), ends_s=echo.at_s + TTL_S)
        self._carried += 1
        self._down.put(message)
        return lease

    def _wait(self, found: Callable[[], T | None], within_s: float) -> T | None:
        """None after that time, or once the candidate has ended."""
        until_s = time.monotonic() + within_s
        with self._news:
            while (result := found()) is None:
                left_s = until_s - time.monotonic()
                if left_s <= 0 or self._running().poll() is not None:
                    return None
                self._news.wait(min(left_s, 0.2))
            return result

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("use `with` first")
        return self._process

    def _read_writes(self, process: subprocess.Popen[str]) -> None:
        """Lines that are no write are let be: a program may print other things."""
        for line in process.stdout or ():
            match line.split():
                case [evse_id, number] if evse_id in EVSES and (ceiling := _number(number)) is not None:
                    with self._news:
                        self.writes.append(Written(at_s=time.monotonic(), evse_id=evse_id, ceiling=ceiling))
                        self._news.notify_all()

    def _connect(self, up: Iterator[pb.ConnectRequest], context: grpc.ServicerContext) -> Iterator[pb.ConnectResponse]:
        """One stream; the newest is the one that is spoken on."""
        down: SimpleQueue[pb.ConnectResponse | None] = SimpleQueue()
        with self._news:
            self._streams += 1
            self._down, self._carried = down, 0
            stream = self._streams
        context.add_callback(lambda: down.put(None))
        threading.Thread(target=self._listen, args=(up, stream), daemon=True).start()
        while (message := down.get()) is not None:
            yield message
        context.abort(grpc.StatusCode.UNAVAILABLE, "cut by the scene")

    def _listen(self, up: Iterator[pb.ConnectRequest], stream: int) -> None:
        try:
            for message in up:
                with self._news:
                    self.said.append(Said(at_s=time.monotonic(), stream=stream, message=message))
                    self._news.notify_all()
        except grpc.RpcError:  # the stream has ended
            return


def environment(address: str) -> dict[str, str]:
    """What the candidate is told at its start."""
    evses = ",".join(f"{evse_id}:{FALLBACK:g}:{IDLE:g}" for evse_id in EVSES)
    return {"POWERD_ADDRESS": address, "POWERD_CONTROLLER": CONTROLLER, "POWERD_EVSES": evses}


def _plugs(said: Said) -> list[tuple[int, bool]]:
    report = said.message.report
    return list(zip(report.plug_index, report.plugged, strict=False))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
