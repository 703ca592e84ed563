"""The controller's half of the lease protocol without sockets, clocks or threads: messages and times in, orders out.

``ControllerCore`` is deterministic. Around it ``aio`` and ``sync`` put a connection and a clock; a simulation, or an
integrator with his own transport, calls it directly:

    core = ControllerCore("cabinet-1", evses, incarnation=secrets.randbits(62) | 1)
    write(core.start())                           # every post to its idle fallback
    send(core.hello(now_s))
    write(core.receive(message, now_s))           # then core.applied(order, now_s) for each that the actuator took
    write(core.expire(now_s))                     # not later than core.next_deadline_s()
    send(core.report(now_s))                      # at core.report_due_s() at the latest

Times are CLOCK_BOOTTIME of this machine [s]. Ceilings are in the EVSE's own unit (A per connected phase, kW for DC).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from powerd.client.lease import NONE, EvseConfig, EvseLease, Order, Refusal, Terms, Write
from powerd.client.messages import Columns, applied_grants, evse_state, grants_columns, seconds_of, terms_of
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb

OFFSET_MAX, READING_MAX = 1.0, 1e6
"""How far below 0 a meter's offset may lie, and the largest reading that the daemon takes [A, kW]."""
FIRST_REPORT_WITHIN_S = 1.0
"""Pause between reports until the daemon's welcome says better [s]."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What has to survive a restart of the controller's process."""

    highest_epoch: int = 0
    """Highest epoch ever accepted."""
    latched: frozenset[str] = frozenset()
    """Ids of EVSEs under a stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A grant, or one entry of it, that was not taken."""

    index: int
    """The EVSE; -1 = the whole message."""
    order: Order
    """(epoch, seq) of the message."""
    why: Refusal


def check_reading(evse_id: str, drawn: Sequence[float]) -> None:
    """The daemon would close the stream, with all EVSEs on it.

    Raises:
        ValueError: these are not three numbers from -1 (a meter's offset, which counts as 0) to 1e6.
    """
    if len(drawn) != 3 or not all(-OFFSET_MAX <= value <= READING_MAX for value in drawn):
        raise ValueError(f"{evse_id}: a reading is three numbers from {-OFFSET_MAX:g} to {READING_MAX:g}, got {drawn}")


class ControllerCore:
    """All EVSEs of one controller."""

    def __init__(
        self,
        controller_id: str,
        evses: Sequence[EvseConfig],
        *,
        incarnation: int,
        memory: Memory | None = None,
        found: Collection[str] = (),
    ) -> None:
        """Nothing is ordered before ``start``.

        Args:
            controller_id: as in the site file.
            evses: all its EVSEs, in the order of the hello.
            incarnation: a random number, new for each process.
            memory: what the process before kept.
            found: ids of the EVSEs with a car as the process starts. Nobody saw it come: it is taken for the one that
                powerd knows, and the session goes on. The first hello tells of it; a car heard of later has come.

        Raises:
            ValueError: the incarnation is 0, one EVSE is there twice, or there is none of an id.
        """
        memory = memory or Memory()
        if incarnation == 0:
            raise ValueError("incarnation: a random number other than 0, new for each process")
        if twice := [evse_id for evse_id, count in Counter(c.evse_id for c in evses).items() if count > 1]:
            raise ValueError(f"evses: {', '.join(map(repr, twice))} more than once")
        if foreign := sorted(set(found) - {c.evse_id for c in evses}):
            raise ValueError(f"found: {', '.join(map(repr, foreign))}: no EVSE of this controller")
        self.controller_id = controller_id
        self.incarnation = incarnation
        self.highest_epoch = memory.highest_epoch
        """Highest epoch accepted so far."""
        self.refused: list[Refused] = []
        """What the last ``receive`` did not take."""
        self.refusals: Counter[Refusal] = Counter()
        """How often each kind of refusal happened."""
        self.report_within_s = FIRST_REPORT_WITHIN_S
        """Longest pause between two reports [s]: ttl/4 once welcomed."""
        self.welcome: pb.Welcome | None = None
        """The daemon's answer to the newest hello."""
        self.evses = tuple(
            EvseLease(
                index=i,
                config=c,
                plugged=c.evse_id in found,
                found=c.evse_id in found,
                in_force=c.boot_ceiling,
                latched=c.evse_id in memory.latched,
            )
            for i, c in enumerate(evses)
        )
        self._clock_s = 0.0  # newest time or stamp seen: the core's clock never goes back
        self._stamp_s = 0.0  # newest stamp sent
        self._carried = 0  # Grants and RenewAll messages of this stream
        self._report_number = 0
        self._acks: dict[Order, dict[int, Write]] = {}
        self._renewed_all: set[Order] = set()
        self._plugs: set[int] = set()
        self._measured: set[int] = set()
        self._wanted: set[int] = set()

    @property
    def in_force(self) -> tuple[float, ...]:
        """The ceiling that each actuator last took [own unit]."""
        return tuple(e.in_force for e in self.evses)

    @property
    def all_told(self) -> bool:
        """No report is needed but for heartbeats and wishes, and no plug change waits for its post to take an order."""
        untold = self._plugs or self._acks or self._measured
        return not untold and all(e.settled or e.plug_s == 0 for e in self.evses)

    @property
    def memory(self) -> Memory:
        """What to keep over a restart; changes seldom."""
        latched = frozenset(e.config.evse_id for e in self.evses if e.latched)
        return Memory(highest_epoch=self.highest_epoch, latched=latched)

    def start(self) -> tuple[Write, ...]:
        """The first writes of the process: idle fallbacks, and 0 where a stop held before the restart."""
        return tuple(e.start() for e in self.evses)

    def hello(self, now_s: float) -> pb.ConnectRequest:
        """The first message of a new stream. What the old stream still had to say is in it or void."""
        for pending in (self._acks, self._renewed_all, self._plugs, self._wanted):  # the unsettled are told later
            pending.clear()
        self._carried, self.welcome = 0, None
        self._measured = {e.index for e in self.evses if e.measured is not None}
        for e in self.evses:
            e.sent = NONE
        stamp = self._next_stamp(now_s)
        hello = pb.Hello(
            controller_id=self.controller_id,
            stamp=stamp,
            highest_epoch=self.highest_epoch,
            evses=[evse_state(e, stamp.boottime_s) for e in self.evses],
            report_number=self._report_number,
        )
        return pb.ConnectRequest(hello=hello)

    def receive(self, message: pb.ConnectResponse | None, now_s: float) -> tuple[Write, ...]:
        """Takes a message of the daemon; returns what to write to the actuators (``refused``: what was not taken).

        None = one that does not parse. It may have been a grant: the next renewal will show the gap.
        """
        now_s = self._tick(now_s)
        self.refused = []
        if message is None:
            self._refuse(-1, NONE, Refusal.MALFORMED)
            return ()
        match message.WhichOneof("message"):
            case "welcome":
                self.welcome = message.welcome
                self.report_within_s = seconds_of(message.welcome.report_within) or FIRST_REPORT_WITHIN_S
                return ()
            case "grants":
                return self._receive_grants(message.grants, now_s)
            case "renew_all":
                return self._receive_renewal(message.renew_all, now_s)
            case _:  # a message of a newer protocol
                return ()

    def applied(self, write: Write, now_s: float) -> bool:
        """The actuator took ``write``. True if the next report will ack it: not a fallback, and not too late."""
        now_s = self._tick(now_s)
        lease = self.evses[write.index]
        if lease.settle(write) and self._stamp_s > 0:
            # Only now the plug change counts: until now a car could have drawn what the one before was granted.
            lease.plug_s = self._clock_s = max(now_s, math.nextafter(self._stamp_s, math.inf))
            self._plugs.add(write.index)
            self._wanted.add(write.index)
        if not lease.apply(write, now_s):
            return False
        self._acks.setdefault(write.order, {})[write.index] = write
        return True

    def must_switch(self, write: Write) -> bool:
        """The post has, or may have, connected other phases than ``write`` is for: it has to be switched before.

        At a ceiling of 0 and without current; ``switching`` before that, ``switched`` after it.
        """
        lease = self.evses[write.index]
        return lease.config.switches_phases and write.one_phase not in {None, lease.on_one_phase}

    def switching(self, index: int) -> None:
        """The contactor of the post is about to move; its ceiling is 0."""
        lease = self.evses[index]
        lease.in_force, lease.on_one_phase, lease.stopped = 0.0, None, False  # this 0 is no stop

    def switched(self, index: int, *, one_phase: bool) -> None:
        """The post has connected its L1 alone, or all its phases."""
        self.evses[index].on_one_phase = one_phase

    def restarted(self, index: int) -> tuple[Write, ...]:
        """The post has restarted: it stands at its boot ceiling and has lost its order, which is returned once more.

        What it has connected is not known: where it can switch it is switched before the next ceiling above a fallback.
        """
        return (self.evses[index].restart(),)

    def plug(self, index: int, plugged: bool, now_s: float) -> tuple[Write, ...]:
        """A car came or left. A repeated state changes nothing: tell a swap of cars as two calls."""
        now_s = self._tick(now_s)
        lease = self.evses[index]
        if lease.plugged == plugged:
            return ()
        # Later than every stamp sent, so that a grant which echoes one of those is known to be older than this.
        at_s = self._clock_s = max(now_s, math.nextafter(self._stamp_s, math.inf))
        write = lease.plug(plugged, at_s)
        lease.measured = None  # a reading is of a car: this is another one, or none
        self._measured.discard(index)
        if lease.settled:  # else it is told once the post has taken its order
            self._plugs.add(index)
        return () if write is None else (write,)

    def measure(self, index: int, drawn: tuple[float, float, float]) -> None:
        """Currents of the post's L1, L2, L3 now [A], or (power [kW], 0, 0) for DC; reported if changed.

        Raises:
            ValueError: see ``check_reading``.
        """
        check_reading(self.evses[index].config.evse_id, drawn)
        if self.evses[index].measured != drawn:
            self.evses[index].measured = drawn
            self._measured.add(index)

    def expire(self, now_s: float) -> tuple[Write, ...]:
        """Ends leases whose time is over; returns the fallbacks to write, and asks for fresh grants."""
        now_s = self._tick(now_s)
        over = [e for e in self.evses if e.live and e.until_s <= now_s]
        writes = tuple(w for e in over if (w := e.expire(now_s)) is not None)
        self._wanted.update(w.index for w in writes)
        return writes

    def report(self, now_s: float) -> pb.ConnectRequest:
        """Everything new since the last report, with a stamp; an empty one is a heartbeat."""
        report = pb.Report(stamp=self._next_stamp(now_s), report_number=self._report_number)
        report.applied.extend(
            applied_grants(order, taken, everyone=order in self._renewed_all and len(taken) == len(self.evses))
            for order, taken in sorted(self._acks.items())
        )
        for i in sorted(self._measured):
            report.measured_index.append(i)
            report.measured.extend(self.evses[i].measured or (0.0, 0.0, 0.0))
        for i in sorted(self._plugs):
            report.plug_index.append(i)
            report.plugged.append(self.evses[i].plugged)
            report.plug_boottime_s.append(self.evses[i].told_plug_s)
        report.want_index.extend(sorted(self._wanted))
        for sent in (self._acks, self._renewed_all, self._measured, self._plugs, self._wanted):
            sent.clear()
        return pb.ConnectRequest(report=report)

    def next_expiry_s(self) -> float:
        """When the next lease ends [s]; inf = none lives."""
        return min((e.until_s for e in self.evses if e.live and not e.latched), default=math.inf)

    def report_due_s(self) -> float:
        """When the next report must be sent [s]; 0 = at once: a plug changed, a grant was applied or one is wanted."""
        if self._plugs or self._acks or self._wanted:
            return 0.0
        return self._stamp_s + self.report_within_s

    def next_deadline_s(self) -> float:
        """When this core next needs a call of ``expire`` or ``report`` [s]."""
        return min(self.next_expiry_s(), self.report_due_s())

    def _receive_grants(self, message: pb.Grants, now_s: float) -> tuple[Write, ...]:
        columns = grants_columns(message, len(self.evses))
        terms = terms_of(message)
        order = (message.epoch, message.seq)
        if terms is None or columns is None:  # not counted: the next renewal will show a gap and renew nothing
            self._refuse(-1, order, Refusal.MALFORMED)
            return ()
        self._carried += 1
        for i in columns.index:
            self.evses[i].sent = max(self.evses[i].sent, order)
        if (why := self._stream_refusal(message.echo, terms, now_s)) is not None:
            self._refuse(-1, order, why)
            self._want(columns.index, why)
            return ()
        self.highest_epoch = terms.order[0]
        return self._accept(terms, columns)

    def _accept(self, terms: Terms, columns: Columns) -> tuple[Write, ...]:
        writes: list[Write] = []
        for i, ceiling in zip(columns.index, columns.ceiling, strict=True):
            lease = self.evses[i]
            one_phase = i in columns.one_phase
            why = lease.refusal(terms)
            if why is None and one_phase and not lease.config.switches_phases:
                why = Refusal.CANNOT_SWITCH
            if why is None:
                writes.append(lease.accept(terms, ceiling, latched=i in columns.latched, one_phase=one_phase))
                self._wanted.discard(i)
            else:
                self._refuse(i, terms.order, why)
                self._want((i,), why)
        return tuple(writes)

    def _receive_renewal(self, message: pb.RenewAll, now_s: float) -> tuple[Write, ...]:
        complete = message.count == self._carried
        self._carried = message.count + 1  # counted on from here: the snapshot asked for heals what was missed
        terms = terms_of(message)
        order = (message.epoch, message.seq)
        everyone = range(len(self.evses))
        if terms is None:
            self._refuse(-1, order, Refusal.MALFORMED)
            return ()
        why = self._stream_refusal(message.echo, terms, now_s)
        if why is None and not complete:
            why = Refusal.MISSED_MESSAGE
        if why is not None:
            for e in self.evses:
                e.sent = max(e.sent, order)
            self._refuse(-1, order, why)
            self._want(everyone, why)
            return ()
        self.highest_epoch = terms.order[0]
        return self._renew(terms)

    def _renew(self, terms: Terms) -> tuple[Write, ...]:
        writes: list[Write] = []
        for e in self.evses:
            why = e.renewal_refusal(terms)
            e.sent = max(e.sent, terms.order)
            if why is None:
                writes.append(e.accept(terms, e.ceiling, latched=e.latched, one_phase=e.one_phase))
            else:
                self._refuse(e.index, terms.order, why)
                self._want((e.index,), why)
        if len(writes) == len(self.evses):
            self._renewed_all.add(terms.order)
        return tuple(writes)

    def _stream_refusal(self, echo: pb_common.Stamp, terms: Terms, now_s: float) -> Refusal | None:
        """What is wrong with a well-formed message as a whole."""
        if echo.incarnation != self.incarnation:
            return Refusal.FOREIGN_INCARNATION
        if now_s < terms.echo_s:
            return Refusal.FROM_THE_FUTURE
        if now_s > terms.valid_until_s:
            return Refusal.STALE
        if terms.order[0] < self.highest_epoch:
            return Refusal.OLD_EPOCH
        return None

    def _refuse(self, index: int, order: Order, why: Refusal) -> None:
        self.refused.append(Refused(index=index, order=order, why=why))
        self.refusals[why] += 1

    def _want(self, indices: Iterable[int], why: Refusal) -> None:
        """Asks for fresh grants, except where we already hold something newer."""
        if why not in {Refusal.NOT_NEWER, Refusal.OLD_EPOCH, Refusal.UNSETTLED, Refusal.CANNOT_SWITCH}:
            self._wanted.update(indices)

    def _next_stamp(self, now_s: float) -> pb_common.Stamp:
        """A stamp newer than every stamp and every plug change before; counts the report."""
        now_s = self._tick(now_s)
        self._stamp_s = self._clock_s = max(now_s, math.nextafter(self._stamp_s, math.inf))
        self._report_number += 1
        return pb_common.Stamp(incarnation=self.incarnation, boottime_s=self._stamp_s)

    def _tick(self, now_s: float) -> float:
        self._clock_s = max(self._clock_s, now_s)
        return self._clock_s
