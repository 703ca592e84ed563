"""The daemon under test: the real one, in a child process, over real gRPC, with its clock in our hand.

One simulated charger controller a stream, each around the same ``ControllerCore`` that an integrator uses. A step:
reports go up (plugs, measurements, acks of the step before), ``Advance`` makes the daemon tick once they have arrived,
and every message that the tick put on a stream is read, applied and, in the next report, acked.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import grpc
import numpy as np

from powerd.client.core import ControllerCore
from powerd.client.lease import EvseConfig
from powerd.errors import PowerdError
from powerd.limits import Floats, Ints
from powerd.network.electrical import Electrical
from powerd.network.supply import normal_positions
from powerd.sim.gateway import Gateway
from powerd.sim.policies import Answer, Moment, Pace
from powerd.sim.sessions import RecordedSession
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1 import controller_service_pb2_grpc as pb_grpc
from powerd.v1 import session_service_pb2 as pb_session
from powerd.v1 import session_service_pb2_grpc as pb_session_grpc
from powerd.v1 import stepped_clock_service_pb2 as pb_clock
from powerd.v1 import stepped_clock_service_pb2_grpc as pb_clock_grpc
from powerd.v1 import switchgear_service_pb2_grpc as pb_gear_grpc

#: The boottime clock of daemon and controllers at the start of the run [s]; not 0, which means "before the start".
BOOTTIME_S = 1000.0
#: A first start compiles the kernels: two minutes of one core, which others may be using as well.
START_TIMEOUT_S = 900.0
#: After this long the user is told so.
START_USUAL_S = 15.0
#: One call of the daemon; a tick takes milliseconds, a first one seconds.
CALL_TIMEOUT_S = 120.0
#: A change is over when nothing moved for the longest reaction plus two ticks and the ack between them.
QUIET_MARGIN_S = 3
#: Longest step as a share of the shortest ttl: as often as a controller has to send a stamp.
TTL_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to start the child."""

    site: Path
    """Site file or folder."""
    cap_kw: float | None = None
    """Transformer size to run with instead of the drawn one [kW]."""
    address: str = "127.0.0.1:0"
    """Where it listens; must be loopback."""
    journal: Path | None = None
    """File of its durable record; None = it keeps none."""

    @property
    def command(self) -> tuple[str, ...]:
        """Its command line."""
        serve = (sys.executable, "-m", "powerd", "serve", str(self.site), "--address", self.address)
        cap = () if self.cap_kw is None else ("--cap-kw", repr(self.cap_kw))
        journal = () if self.journal is None else ("--journal", str(self.journal))
        return (*serve, "--stepped-clock", "--first-start", *cap, *journal)


class Child:
    """A running daemon; ends with ``close``."""

    def __init__(self, command: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command, stdout=subprocess.PIPE, stderr=self._log, stdin=subprocess.DEVNULL
        )
        self.address = ""

    def wait_ready(self) -> None:
        """Waits for the line that names the address.

        Raises:
            PowerdError: it ended or stayed silent.
        """
        lines: queue.Queue[bytes] = queue.Queue()
        stdout = self._process.stdout
        if stdout is None:
            raise PowerdError("the daemon has no stdout")
        threading.Thread(target=_read_line, args=(stdout, lines), daemon=True).start()
        line = self._first_line(lines)
        try:
            self.address = str(json.loads(line)["address"])
        except (ValueError, KeyError, TypeError) as error:
            raise PowerdError(f"the daemon did not start\n{self.said()}") from error

    def _first_line(self, lines: queue.Queue[bytes]) -> bytes:
        """What it says as soon as it can be asked."""
        with contextlib.suppress(queue.Empty):
            return lines.get(timeout=START_USUAL_S)
        print("first start: the daemon compiles its kernels, which takes some minutes ...", file=sys.stderr)  # noqa: T201
        try:
            return lines.get(timeout=START_TIMEOUT_S - START_USUAL_S)
        except queue.Empty:
            raise PowerdError(f"the daemon was not ready within {START_TIMEOUT_S:.0f} s\n{self.said()}") from None

    def said(self) -> str:
        """The end of its stderr."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-4000:]

    def close(self) -> None:
        """Asks it to end, then makes it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


def _read_line(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    with contextlib.suppress(ValueError):  # closed under our hands: the child was ended
        lines.put(stream.readline())


class _Stream:
    """One simulated controller on its stream."""

    def __init__(self, core: ControllerCore, evse: Ints, is_dc: Sequence[bool], phases: Sequence[int]) -> None:
        self.core, self.evse = core, evse
        self._is_dc, self._phases = is_dc, phases
        self._up: queue.SimpleQueue[pb.ConnectRequest | None] = queue.SimpleQueue()
        self._down: queue.Queue[pb.ConnectResponse | None] = queue.Queue()
        self._error = ""
        self.sent = self.carried = 0
        self.received = 0

    def open(self, stub: pb_grpc.ControllerServiceStub, now_s: float) -> None:
        """Connects and says hello."""
        self._up.put(self.core.hello(now_s))
        self.sent += 1
        call = stub.Connect(iter(self._up.get, None))
        threading.Thread(target=self._listen, args=(call,), daemon=True).start()

    def _listen(self, call: Iterator[pb.ConnectResponse]) -> None:
        try:
            for message in call:
                self._down.put(message)
        except grpc.RpcError as error:
            self._error = str(error)
        self._down.put(None)

    def close(self) -> None:
        """Ends the stream from our side."""
        self._up.put(None)

    def report(self, moment: Moment, now_s: float) -> None:
        """Tells plugs and measurements, with the acks of what was applied since the last report."""
        for write in self.core.expire(now_s):
            self.core.applied(write, now_s)
        local = {int(evse): k for k, evse in enumerate(self.evse)}
        for evses, plugged in ((moment.unplugged, False), (moment.plugged, True)):
            for k in (local[evse] for evse in evses if evse in local):
                for write in self.core.plug(k, plugged, now_s):
                    self.core.applied(write, now_s)
        for k, drawn in enumerate(moment.drawn[self.evse].tolist()):
            count = 1 if self._is_dc[k] else self._phases[k]
            self.core.measure(k, (drawn, drawn * (count > 1), drawn * (count > 2)))
        self._up.put(self.core.report(now_s))
        self.sent += 1

    def take(self, count: int, now_s: float) -> None:
        """Reads and applies messages until the stream has carried ``count`` grants and renewals.

        Raises:
            PowerdError: the stream ended.
        """
        while self.core.welcome is None or self.carried < count:
            message = self._down.get(timeout=CALL_TIMEOUT_S)
            if message is None:
                raise PowerdError(f"the stream of controller {self.core.controller_id} ended: {self._error}")
            self.received += 1
            self.carried += message.WhichOneof("message") != "welcome"
            for write in self.core.receive(message, now_s):
                self.core.applied(write, now_s)


class Daemon:
    """The policy that the product is."""

    def __init__(self, launch: Launch, electrical: Electrical, seed: int) -> None:
        controllers, posts = electrical.controllers, electrical.posts
        self.pace = Pace(
            longest_s=max(1, int(TTL_SHARE * float(controllers.ttl_s.min()))),
            quiet_s=int(np.ceil(controllers.reaction_s.max())) + QUIET_MARGIN_S,
        )
        self.rpcs = 0
        self._launch, self._evse_ids = launch, posts.ids
        rng = np.random.default_rng(seed)
        self._streams = [
            _stream(electrical, c, incarnation=int(rng.integers(1, 2**53))) for c in range(len(controllers.ids))
        ]
        self._gateway = Gateway(electrical, incarnation=int(rng.integers(1, 2**53)))
        self._closed = normal_positions(electrical)
        self._session_calls = 0
        self._child: Child | None = None
        self._open = contextlib.ExitStack()

    @property
    def messages(self) -> int:
        """Messages that the streams carried, both ways."""
        return sum(s.sent + s.received for s in self._streams)

    @property
    def refusals(self) -> dict[str, int]:
        """How often the controllers refused a grant, by reason."""
        found: dict[str, int] = {}
        for stream in self._streams:
            for why, count in stream.core.refusals.items():
                found[str(why)] = found.get(str(why), 0) + count
        return found

    def __enter__(self) -> Self:
        """Starts the child and opens the streams.

        Raises:
            PowerdError: it did not start.
        """
        with contextlib.ExitStack() as stack:
            self._child = Child(self._launch.command)
            stack.callback(self._child.close)
            self._child.wait_ready()
            channel = stack.enter_context(grpc.insecure_channel(self._child.address, options=_OPTIONS))
            self._sessions = pb_session_grpc.SessionServiceStub(channel)
            self._clock = pb_clock_grpc.SteppedClockServiceStub(channel)
            for stream in self._streams:
                for write in stream.core.start():
                    stream.core.applied(write, BOOTTIME_S)
                stream.open(pb_grpc.ControllerServiceStub(channel), BOOTTIME_S)
                stack.callback(stream.close)
                self.rpcs += 1
            self._gateway.open(pb_gear_grpc.SwitchgearServiceStub(channel), self._closed, BOOTTIME_S)
            stack.callback(self._gateway.close)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def decide(self, moment: Moment) -> Answer:
        """One step of the daemon at ``moment``.

        Raises:
            PowerdError: a call failed; says which, and what the daemon said last.
        """
        now_s = BOOTTIME_S + moment.elapsed_s
        try:
            for stream in self._streams:
                stream.report(moment, now_s)
            self._gateway.report(moment.news, moment.closed, now_s)
            starts = [self._start_session(evse, session) for evse, session in moment.started]
            step = self._advance(moment, now_s)
            for stream, count in zip(self._streams, self._counts(step), strict=True):
                stream.take(count, now_s)
            for start in starts:
                start.result(timeout=CALL_TIMEOUT_S)
            orders = self._gateway.orders(step.switch_order_count)
        except (grpc.RpcError, queue.Empty) as error:
            said = self._child.said() if self._child else ""
            what = "a grant did not come" if isinstance(error, queue.Empty) else str(error)
            raise PowerdError(f"second {moment.elapsed_s} of the run: {what}\n{said}") from error
        return Answer(ceilings=self._ceilings(), step_ms=float(step.step_ms), orders=orders)

    def _start_session(self, evse: int, session: RecordedSession) -> grpc.Future[pb_session.StartSessionResponse]:
        """Tells what the driver said; answered after the next tick."""
        demand = pb_session.Demand()
        if session.said_energy_kwh is not None:
            demand.requested_energy_kwh = session.said_energy_kwh
        if session.said_departure is not None:
            demand.departure_time.FromDatetime(session.said_departure)
        request = pb_session.StartSessionRequest(
            evse_id=self._evse_ids[evse], session_id=session.session_id, demand=demand
        )
        self.rpcs += 1
        self._session_calls += 1
        return self._sessions.StartSession.future(request, timeout=CALL_TIMEOUT_S)

    def _advance(self, moment: Moment, now_s: float) -> pb_clock.AdvanceResponse:
        request = pb_clock.AdvanceRequest(
            boottime_s=now_s,
            controller_id=[s.core.controller_id for s in self._streams],
            report_number=[s.sent for s in self._streams],
            session_call_count=self._session_calls,
            switchgear_report_count=self._gateway.sent,
        )
        request.time.FromDatetime(moment.utc)
        self.rpcs += 1
        return self._clock.Advance(request, timeout=CALL_TIMEOUT_S)

    def _counts(self, step: pb_clock.AdvanceResponse) -> list[int]:
        """How many messages each of our streams has carried."""
        count = dict(zip(step.controller_id, step.message_count, strict=True))
        return [count[s.core.controller_id] for s in self._streams]

    def _ceilings(self) -> Floats:
        ceilings = np.zeros(len(self._evse_ids))
        for stream in self._streams:
            ceilings[stream.evse] = stream.core.in_force
        return ceilings


_OPTIONS = (("grpc.max_receive_message_length", 64 * 1024 * 1024), ("grpc.enable_http_proxy", 0))


def _stream(electrical: Electrical, controller: int, incarnation: int) -> _Stream:
    """The simulated controller with all EVSEs that the drawing gives it."""
    posts = electrical.posts
    evse = np.flatnonzero(posts.controller == controller)
    configs = [
        EvseConfig(
            evse_id=posts.ids[i],
            fallback=float(posts.fallback[i]),
            fallback_idle=float(posts.fallback_idle[i]),
            boot_ceiling=float(posts.boot_current[i]),
        )
        for i in evse.tolist()
    ]
    core = ControllerCore(electrical.controllers.ids[controller], configs, incarnation=incarnation)
    return _Stream(core, evse, posts.is_dc[evse].tolist(), posts.phase_count[evse].tolist())
