"""The daemon's process: inbox, step, journal, publishing, and death at any point between them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from powerd.codec import decode, encode
from powerd.control.absorb import is_put_off
from powerd.control.compiled import CompiledSite, SwitchingStates
from powerd.control.decision import Decision, GrantBatch
from powerd.control.events import Event, FreshWanted, StreamClosed
from powerd.errors import BadRequest
from powerd.journal.cells import CLASSES, Cells, cells_of, snapshot_of
from powerd.journal.disk import alone_in
from powerd.journal.gate import Gate, Leaving
from powerd.limits import Floats, Ints
from powerd.server.convert import Speaker, check_number, hello_event, report_events, speaker_of
from powerd.server.outbox import Lease, Outbox, Part, duration
from powerd.server.publish import Waiting
from powerd.server.stamps import Stamps
from powerd.server.status import Superseded, Unavailable
from powerd.server.unary import REQUESTS_PER_TTL, call_events, granted
from powerd.sim.faults.caller import Answer
from powerd.sim.faults.disk import Disk
from powerd.sim.faults.kinds import Kind
from powerd.sim.faults.owner import Owner, Up
from powerd.sim.faults.sites import Layout
from powerd.state.lease_book import open_book
from powerd.state.snapshot import Snapshot, open_snapshot, reopen_snapshot, worst_of
from powerd.units import Now
from powerd.v1 import controller_service_pb2 as pb

START = datetime(2026, 1, 1, tzinfo=UTC)
NOTICE_S = 0.5
"""After this a client sees that the daemon is gone [s]."""
CLOSED_S = 1.0
"""After this it sees that a stream was closed [s]."""
CALL_S = 2.5
"""So long a call waits for a tick to take it in, as at the daemon's desk [s]."""
SLOW_S = 2.0
"""A tick that waits for the disk for longer is trouble, as in the daemon: two of its periods [s]."""


class Fallen(SwitchingStates):
    """A site whose limits fall without anything in its switchgear."""

    def __init__(self, layout: Layout, capacity: Floats) -> None:
        super().__init__(layout.site)
        self._layout, self._capacity = layout, capacity
        self._fallen: dict[bytes, CompiledSite] = {}

    def at(self, gear: object, envelopes: object, now: object, used: Ints | None = None) -> CompiledSite:
        """The site with cars on these phases, its limits as they are."""
        del gear, envelopes, now
        key = b"" if used is None or not used.any() else used.tobytes()
        if key not in self._fallen:
            site = self._layout.on_phases(used if key else None)
            self._fallen[key] = replace(site, limits=replace(site.limits, capacity=self._capacity.copy()))
        return self._fallen[key]


@dataclass(kw_only=True)
class Stream:
    """One open stream at the daemon's end."""

    number: int
    owner: Owner
    speaker: Speaker
    outbox: Outbox
    boottime_s: float
    report_number: int
    since_tick: int
    """The newest tick when its hello came, which the next one absorbs."""
    closes_s: float = math.inf
    """When the daemon notices that it is broken."""


@dataclass(kw_only=True, eq=False)
class Call:
    """One single call that waits for its answer."""

    owner: Owner
    number: int
    evse: int
    place: int
    """The EVSE at its controller."""
    waiting: Waiting
    came_s: float


@dataclass(kw_only=True)
class Leader:
    """The daemon. Its clock reads ``(t - base) * rate``."""

    layout: Layout
    owners: list[Owner]
    rate: float = 1.0
    base_s: float = -1000.0
    utc_hours: float = 0.0
    up: bool = False
    restart_s: float = 0.0
    stalled_until_s: float = -1.0
    disk: Disk = field(default_factory=Disk)
    crash: Kind | None = None
    """The point of the coming tick at which it dies."""
    crash_for_s: float = 0.0
    capacity: Floats = field(default_factory=lambda: np.zeros(0))
    """(L,) limits as the newest tick knew them."""
    next_capacity: Floats | None = None
    """(L,) limits from the next tick on, where they move."""
    states: Fallen | None = None
    """The site with these limits, once it was needed."""
    orders: list[Event] = field(default_factory=list)
    """What operators said."""
    snapshot: Snapshot | None = None
    gate: Gate | None = None
    """What may leave before the disk has it; None before the first start."""
    decision: Decision | None = None
    """The newest one, also if it died with it."""
    streams: dict[int, Stream] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    """Those that wait, in the order in which they came."""
    latest: Decision | None = None
    """The newest decision of this process."""
    stream_count: int = 0
    dead_streams: int = 0
    """Streams up to this number were connections to a process that is no more."""
    stamps: Stamps = field(default_factory=Stamps)
    heard: dict[int, set[int]] = field(default_factory=dict)
    """EVSE -> processes of its controller that this one has heard of it; here they are numbered."""
    published: tuple[int, int] = (0, 0)
    """Largest (epoch, seq) that ever left."""
    refused: int = 0
    """Messages that were no good."""
    starts: int = 0
    fenced: int = 0
    """Epochs taken because a hello was ahead."""
    reused: list[str] = field(default_factory=list)
    """Breaches of R4 seen while publishing."""
    _asked: deque[list[Call]] = field(default_factory=deque)  # those of each tick that waits for the disk

    # --- its clock and its life ---------------------------------------------------------------------------------------

    def clock(self, t_s: float) -> float:
        """Its boottime."""
        return (t_s - self.base_s) * self.rate

    def now(self, t_s: float) -> Now:
        """Its clocks."""
        return Now(utc=START + timedelta(seconds=t_s, hours=self.utc_hours), boottime_s=self.clock(t_s))

    @property
    def boot(self) -> str:
        """Which boot of its machine this is."""
        return f"since {self.base_s:g}"

    def true_time(self, clock_s: float) -> float:
        """When its clock shows that."""
        return clock_s if not math.isfinite(clock_s) else clock_s / self.rate + self.base_s

    def begin(self, t_s: float, *, first: bool = False) -> None:
        """A start: with the journal if there is one, else without state; ``first``: nobody granted anything before."""
        site, now_s = self.layout.site, self.clock(t_s)
        posts = site.electrical.posts
        unknown = np.full(posts.count, -np.inf) if first else now_s + site.terms.life_s
        empty = open_snapshot(
            open_book(site.terms, epoch=1, unknown_until_s=unknown, led_since_s=-np.inf if first else now_s),
            self.layout.gear,
            now_s,
            meters=site.electrical.meters.count,
            boot=self.boot,
        )
        self.snapshot = empty
        found = self.disk.found()
        if found is not None:
            kept = snapshot_of(empty, _read_again(found))
            self.snapshot = reopen_snapshot(kept, site.terms, self.now(t_s), self.boot)
            if self.snapshot.leases.epoch <= self.published[0]:
                self.reused.append(f"epoch {self.snapshot.leases.epoch} after {self.published}")
        self.disk.start(self.snapshot)
        covered, epoch = worst_of(self.snapshot, site.terms), self.snapshot.leases.epoch
        self.gate = Gate(posts.controller, covered, SLOW_S, epoch=epoch, alone=alone_in(self.snapshot))
        self.up, self.stalled_until_s, self.starts = True, -1.0, self.starts + 1
        self.dead_streams, self.stamps, self.latest = self.stream_count, Stamps(), None
        self.heard.clear()

    def die(self, t_s: float, for_s: float) -> None:
        """The process ends; what was not committed is lost, clients notice. Who is down already stays down."""
        if not self.up:
            return
        self.up, self.restart_s, self.crash = False, t_s + for_s, None
        self.disk.die()
        self.orders.clear()
        for owner in self.owners:
            if owner.stream:
                owner.broken_s = min(owner.broken_s, t_s + NOTICE_S)
        for gone in (self.streams, self.calls, self._asked):
            gone.clear()

    def reboot(self, t_s: float, for_s: float) -> None:
        """Its machine restarts: the clock starts at 0 when it is up again."""
        if self.up:
            self.die(t_s, for_s)
            self.base_s = self.restart_s

    def connect(self, owner: Owner) -> bool:
        """A client opens a stream, or sends a call."""
        if not self.up:
            return False
        self.stream_count += 1
        owner.stream = self.stream_count
        return True

    # --- a tick -------------------------------------------------------------------------------------------------------

    def tick(self, t_s: float) -> Decision | None:
        """One tick, dying where it must; None where there was none."""
        if not self.up and t_s >= self.restart_s and not self.disk.refuses(t_s):  # its epoch must be durable (R4)
            self.begin(t_s)
        if self.gate is None or not self.up or t_s < self.stalled_until_s:
            return None
        if self.crash is Kind.CRASH_IDLE:
            self.die(t_s, self.crash_for_s)
            return None
        decision = self._decide(t_s)
        if self.crash is Kind.CRASH_DECIDED:
            self.die(t_s, self.crash_for_s)
            return decision
        self._release(self.gate.decided(decision), t_s)
        if self.crash in {Kind.CRASH_LOWERED, Kind.CRASH_TORN}:
            self.die(t_s, self.crash_for_s)
            return decision
        self.disk.commit(decision, t_s)
        self._asked.append([call for call in self.calls if call.came_s == t_s])
        if self.crash is Kind.CRASH_COMMITTED:
            self.disk.write(decision, t_s)
            self.die(t_s, self.crash_for_s)
            return decision
        self.progress(t_s)
        if self.crash is Kind.CRASH_RAISED:
            self.die(t_s, self.crash_for_s)
        return decision

    def progress(self, t_s: float) -> None:
        """Commits that have ended by now: what waited for them leaves, or never does."""
        if self.gate is None or not self.up or t_s < self.stalled_until_s:
            return
        while (took := self.disk.ended(t_s)) is not None:
            self._release(self.gate.took() if took else self.gate.refused(), t_s)
            for call in self._asked.popleft():
                self._answer(call, t_s, good=took)
        for call in [one for one in self.calls if t_s > one.came_s + CALL_S]:
            self._answer(call, t_s, good=False)

    def _decide(self, t_s: float) -> Decision:
        """The step."""
        before, gate = self.snapshot, self.gate
        if before is None or gate is None:
            raise RuntimeError("a leader that was never started")
        events = [*self._inbox(t_s), *self.orders, *gate.news(self.clock(t_s))]
        self.orders.clear()
        if self.next_capacity is not None:
            self.capacity, self.next_capacity = self.next_capacity, None
            self.states = None
        if self.states is None:
            self.states = Fallen(self.layout, self.capacity)
        stepper = self.layout.stepper
        stepper.states = self.states  # the stepper is shared
        epoch = before.leases.epoch
        self.decision = stepper.step(before, events, self.now(t_s))
        self.snapshot, self.latest = self.decision.snapshot, self.decision
        self.fenced += self.snapshot.leases.epoch != epoch
        return self.decision

    def _inbox(self, t_s: float) -> list[Event]:
        """What the doors hand in, in the order of arrival."""
        events: list[Event] = []
        for owner in self.owners:
            stream = self.streams.get(owner.number)
            if stream is not None and t_s >= stream.closes_s:
                events += self._closed(owner)
            for number, message in owner.up.due(t_s):
                try:
                    events += self._heard(owner, number, message, t_s)
                except (BadRequest, Superseded, Unavailable):
                    self.refused += 1
                    if owner.stream == number:
                        owner.broken_s = min(owner.broken_s, t_s + NOTICE_S)
                    stream = self.streams.get(owner.number)
                    if stream is not None and stream.number == number:
                        events += self._closed(owner)
        return events

    def _closed(self, owner: Owner) -> list[Event]:
        stream = self.streams.pop(owner.number, None)
        return [] if stream is None else [StreamClosed(evse=stream.speaker.evse)]

    def _heard(self, owner: Owner, number: int, message: Up, t_s: float) -> list[Event]:
        """A call, or one message of stream ``number``, which is opened by its hello, and by no other message."""
        stream = self.streams.get(owner.number)
        if number <= self.dead_streams:
            return []
        if isinstance(message, pb.RequestSetpointRequest):
            return self._called(owner, number, message, t_s)
        if message.WhichOneof("message") == "hello":
            return self._opened(owner, number, message.hello, t_s)
        if stream is None or number > stream.number:
            raise BadRequest("message", "a hello as the first message of a stream")
        if number < stream.number:  # another one has taken over
            return []
        self._refuse_put_off(stream)
        check_number("report.report_number", message.report.report_number, stream.report_number)
        events = report_events(message.report, stream.speaker, stream.boottime_s)
        stream.boottime_s = message.report.stamp.boottime_s
        stream.report_number = message.report.report_number
        return list(events)

    def _called(self, owner: Owner, number: int, request: pb.RequestSetpointRequest, t_s: float) -> list[Event]:
        """As the desk does."""
        names, stamp = self.layout.names, (request.stamp.incarnation, request.stamp.boottime_s)
        evse = names.find_evse(request.evse_id)
        place = int(np.searchsorted(names.owned[owner.number], evse))
        try:
            news = call_events(request, evse, names, self.latest)
            refused = owner.number in self.streams
            refused |= self._is_first_word_too_late(owner, stamp[0], [evse])
            if not refused and not self.stamps.call(owner.number, evse, *stamp, self.now(t_s).boottime_s):
                news = []
        except (BadRequest, Superseded):
            refused = True
        if refused:
            self.refused += 1
            owner.down.send(Answer(index=place), number, t_s)
            return []
        waiting = Waiting(incarnation=stamp[0], boottime_s=stamp[1])
        self.calls.append(Call(owner=owner, number=number, evse=evse, place=place, waiting=waiting, came_s=t_s))
        return [*news, FreshWanted(evse=np.array([evse]))]

    def _is_first_word_too_late(self, owner: Owner, incarnation: int, evse: list[int]) -> bool:
        """Not tried: the first word of a process that is no more, heard after the next one's; nothing tells it."""
        known, lives = [self.heard.setdefault(i, set()) for i in evse], owner.incarnation == incarnation
        late = [processes and incarnation < max(processes) and incarnation not in processes for processes in known]
        if any(late) and (owner.dead or not lives):
            return True
        for processes in known:
            processes.add(incarnation)
        return False

    def _refuse_put_off(self, stream: Stream) -> None:
        """As the door does."""
        snapshot, speaker = self.snapshot, stream.speaker
        if snapshot is None or snapshot.tick == stream.since_tick:
            return
        if is_put_off(snapshot, speaker.evse, speaker.heard):
            raise Unavailable("the hello was put off: connect again")

    def _opened(self, owner: Owner, number: int, said: pb.Hello, t_s: float) -> list[Event]:
        """A hello opens its stream in place of the one before, whichever was connected first."""
        stream = self.streams.get(owner.number)
        if stream is not None and stream.number == number:
            raise BadRequest("message", "a report after the hello")
        hello = hello_event(said, self.layout.names)
        self.stamps.hello(owner.number, hello.incarnation, hello.boottime_s, self.now(t_s).boottime_s)
        if self._is_first_word_too_late(owner, hello.incarnation, hello.evse.tolist()):
            return []
        if stream is not None and stream.owner is not owner:  # it is told that another one has taken over
            stream.owner.broken_s = min(stream.owner.broken_s, t_s + NOTICE_S)
        self.streams[owner.number] = Stream(
            number=number,
            owner=owner,
            speaker=speaker_of(owner.number, hello, self.layout.names),
            outbox=Outbox(len(hello.evse)),
            boottime_s=hello.boottime_s,
            report_number=said.report_number,
            since_tick=-1 if self.snapshot is None else self.snapshot.tick,
            closes_s=t_s + CLOSED_S if number <= owner.closed_stream else math.inf,
        )
        return [hello]

    # --- what leaves --------------------------------------------------------------------------------------------------

    def _release(self, leaving: Leaving, t_s: float) -> None:
        """What the gate lets out, in its order."""
        for lowered in leaving.lowered:
            self._publish(lowered.lowered)
        for raised in leaving.raised:
            self._publish(raised.raised)
            self._renew(raised)
        self._flush(t_s)
        for call in [one for one in self.calls if one.waiting.granted.is_set()]:
            self._answer(call, t_s, good=True)

    def _answer(self, call: Call, t_s: float, *, good: bool) -> None:
        """A call is answered by what it has caught, if that is good; once."""
        if call not in self.calls:
            return
        self.calls.remove(call)
        caught, response = call.waiting.grant, None
        if good and caught is not None:
            pause = duration(caught.lease.ttl_s / REQUESTS_PER_TTL)
            response = pb.RequestSetpointResponse(grant=granted(caught, dc=False), next_request_in=pause)
        call.owner.down.send(Answer(index=call.place, response=response), call.number, t_s)

    def _publish(self, batch: GrantBatch) -> None:
        """Grants of one message to their streams."""
        if batch.evse.shape[0] == 0:
            return
        self._leaves(batch.epoch, batch.seq)
        for call in self.calls:
            for place in np.flatnonzero(batch.evse == call.evse).tolist():
                call.waiting.catch(batch, place)
        owner_of = self.layout.site.electrical.posts.controller[batch.evse]
        for c in np.unique(owner_of).tolist():
            stream = self.streams.get(c)
            if stream is None:
                continue
            rows = np.flatnonzero(owner_of == c)
            for row in rows.reshape(-1, 1) if len(set(batch.echo_boottime_s[rows].tolist())) > 1 else [rows]:
                stream.outbox.put(self._part(batch, row, stream))

    def _part(self, batch: GrantBatch, rows: Ints, stream: Stream) -> Part:
        first = int(rows[0])
        lease = Lease(
            epoch=batch.epoch,
            seq=batch.seq,
            ttl_s=float(batch.ttl_s[first]),
            incarnation=int(batch.echo_incarnation[first]),
            boottime_s=float(batch.echo_boottime_s[first]),
        )
        place = np.searchsorted(stream.speaker.evse, batch.evse[rows])
        ceiling, latched, one_phase = batch.ceiling[rows], batch.latched[rows], batch.one_phase[rows]
        return Part(lease=lease, place=place, ceiling=ceiling, latched=latched, one_phase=one_phase)

    def _renew(self, decision: Decision) -> None:
        renewal, book = decision.renewal, decision.snapshot.leases
        if renewal.controller.shape[0]:
            self._leaves(renewal.epoch, renewal.seq)
        for c in renewal.controller.tolist():
            stream = self.streams.get(c)
            if stream is not None:
                own = stream.speaker.evse
                stream.outbox.renew(
                    Lease(
                        epoch=renewal.epoch,
                        seq=renewal.seq,
                        ttl_s=float(self.layout.site.terms.ttl_s[own[0]]),
                        incarnation=int(book.echo_incarnation[own[0]]),
                        boottime_s=float(book.echo_boottime_s[own].min()),
                    )
                )

    def _leaves(self, epoch: int, seq: int) -> None:
        """R4: an epoch is durable before its first message."""
        self.published = max(self.published, (epoch, seq))
        if self.disk.state is None or self.disk.state.leases.epoch < epoch:
            self.reused.append(f"epoch {epoch} sent before it was durable")

    def _flush(self, t_s: float) -> None:
        for stream in self.streams.values():
            for message in stream.outbox.take():
                stream.owner.down.send(message, stream.number, t_s)


def _read_again(snapshot: Snapshot) -> Cells:
    """The cells of a snapshot as a journal gives them back: columns are copied, all others encoded, together."""
    cells = cells_of(snapshot)
    others = [path for path, cell in cells.items() if not isinstance(cell, np.ndarray)]
    decoded = decode(encode([cells.pop(path) for path in others]), CLASSES)
    return {path: cell.copy() for path, cell in cells.items()} | dict(zip(others, decoded, strict=True))
