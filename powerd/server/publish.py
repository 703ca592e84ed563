"""The ticker's grants to the streams and the waiting single calls that they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from powerd.control.decision import Decision, GrantBatch
from powerd.control.events import Outcome
from powerd.control.switching import SwitchOrder
from powerd.limits import Floats, Ints
from powerd.server.convert import Speaker
from powerd.server.directory import Directory
from powerd.server.outbox import Lease, Outbox, Part
from powerd.server.status import Superseded


@dataclass(kw_only=True, eq=False)
class Stream:
    """One open stream."""

    speaker: Speaker
    """Who it is."""
    outbox: Outbox
    """What waits to be sent."""
    ended: asyncio.Future[None]
    """Gets the error that ends the stream from this side."""
    hello: asyncio.Future[tuple[Outcome, ...]]
    """Done once a tick has absorbed its hello."""
    report_number: int
    """Number of the newest report handed to the inbox."""

    def end(self, error: Exception) -> None:
        """Ends the stream with ``error``; the first one counts."""
        if not self.ended.done():
            self.ended.set_exception(error)


@dataclass(frozen=True, kw_only=True)
class Caught:
    """A grant of one EVSE."""

    lease: Lease
    ceiling: float
    """[own unit]."""
    latched: bool
    one_phase: bool


@dataclass(kw_only=True, eq=False)
class Waiting:
    """A single call that waits for a grant of one EVSE."""

    incarnation: int
    """Process of the stamp that it came with."""
    boottime_s: float
    """Clock of that stamp [s]."""
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    """A grant is there that the tick gave that knew of the call: it echoes this stamp, or a later one."""
    grant: Caught | None = None
    """The newest grant since the call came."""

    def catch(self, batch: GrantBatch, row: int) -> None:
        """Keeps a grant that is newer; a raise that waited for the disk comes after a newer decrease."""
        lease = lease_of(batch, row)
        if self.grant is not None and lease.order <= self.grant.lease.order:
            return
        latched, one_phase = bool(batch.latched[row]), bool(batch.one_phase[row])
        self.grant = Caught(lease=lease, ceiling=float(batch.ceiling[row]), latched=latched, one_phase=one_phase)
        if lease.incarnation == self.incarnation and lease.boottime_s >= self.boottime_s:
            self.granted.set()


class Publisher:
    """All open streams and waiting calls; a ``GrantSink``."""

    def __init__(self, names: Directory, ttl_s: Floats) -> None:
        self.streams: dict[int, Stream] = {}
        """Controller index -> its stream."""
        self.order: Callable[[SwitchOrder], None] = _nobody
        """Takes orders for the switchgear."""
        self._names = names
        self._ttl_s = ttl_s
        self._place = np.full(names.posts.count, -1)  # place of each EVSE on its stream, -1 = none open
        self._waiting: dict[int, list[Waiting]] = {}
        self._arrived = asyncio.Event()
        self._session_calls = self._gear_reports = 0

    def open(self, speaker: Speaker, report_number: int, hello: asyncio.Future[tuple[Outcome, ...]]) -> Stream:
        """Registers a stream; an older one of the same controller ends with ``Superseded``."""
        older = self.streams.get(speaker.controller)
        if older is not None:
            older.end(Superseded("a newer stream of this controller has taken over"))
        stream = Stream(
            speaker=speaker,
            outbox=Outbox(len(speaker.evse)),
            ended=asyncio.get_running_loop().create_future(),
            hello=hello,
            report_number=report_number,
        )
        self.streams[speaker.controller] = stream
        self._place[speaker.evse] = np.arange(len(speaker.evse))
        self._arrived.set()
        return stream

    def close(self, stream: Stream) -> bool:
        """Forgets a stream; False if a newer one had taken over."""
        if self.streams.get(stream.speaker.controller) is not stream:
            return False
        del self.streams[stream.speaker.controller]
        self._place[stream.speaker.evse] = -1
        return True

    def arrived(self, stream: Stream, report_number: int) -> None:
        """A report of this number is in the inbox."""
        stream.report_number = max(stream.report_number, report_number)
        self._arrived.set()

    def session_called(self) -> None:
        """A session call is here; to be said right before its event goes into the inbox, without waiting in between."""
        self._session_calls += 1
        self._arrived.set()

    def gear_reported(self) -> None:
        """A hello or report of a switchgear stream is in the inbox."""
        self._gear_reports += 1
        self._arrived.set()

    async def reports(self, wanted: dict[int, int], session_calls: int = 0, gear_reports: int = 0) -> None:
        """Ends when the inbox has each controller's report of at least the number given, and that many other calls.

        Args:
            wanted: controller index -> report number.
            session_calls: how many since the start.
            gear_reports: how many of switchgear streams since the start.
        """
        while (
            self._session_calls < session_calls
            or self._gear_reports < gear_reports
            or any(c not in self.streams or self.streams[c].report_number < n for c, n in wanted.items())
        ):
            self._arrived.clear()
            await self._arrived.wait()

    async def emptied(self) -> None:
        """Ends when every stream has taken what was published."""
        for stream in tuple(self.streams.values()):
            waits = (asyncio.ensure_future(stream.outbox.emptied()), stream.ended)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            waits[0].cancel()

    @contextmanager
    def waiting(self, evse: int, incarnation: int, boottime_s: float) -> Iterator[Waiting]:
        """Catches the grants of one EVSE meanwhile, for a call that came with this stamp."""
        call = Waiting(incarnation=incarnation, boottime_s=boottime_s)
        self._waiting.setdefault(evse, []).append(call)
        try:
            yield call
        finally:
            self._waiting[evse].remove(call)
            if not self._waiting[evse]:
                del self._waiting[evse]

    def publish_lowered(self, decision: Decision) -> None:
        """Decreases and stops."""
        self._publish(decision.lowered, lowers=True)

    def publish_raised(self, decision: Decision) -> None:
        """Raises and repeated grants, then renewals."""
        self._publish(decision.raised, lowers=False)
        if decision.order is not None:
            self.order(decision.order)
        renewal, book = decision.renewal, decision.snapshot.leases
        for c in renewal.controller.tolist():
            stream = self.streams.get(c)
            if stream is not None:
                own = stream.speaker.evse
                lease = Lease(
                    epoch=renewal.epoch,
                    seq=renewal.seq,
                    ttl_s=float(self._ttl_s[c]),
                    incarnation=int(book.echo_incarnation[own[0]]),
                    boottime_s=float(book.echo_boottime_s[own].min()),
                )
                stream.outbox.renew(lease)

    def _publish(self, batch: GrantBatch, *, lowers: bool) -> None:
        if self._waiting:
            self._answer(batch)
        streamed = np.flatnonzero(self._place[batch.evse] >= 0)
        if streamed.shape[0] == 0:
            return
        owner = self._names.posts.controller[batch.evse[streamed]]
        by_owner = np.argsort(owner, kind="stable")
        starts = np.flatnonzero(np.diff(owner[by_owner], prepend=-1))
        for rows in np.split(streamed[by_owner], starts[1:]):
            stream = self.streams[int(self._names.posts.controller[batch.evse[rows[0]]])]
            for part in self._parts(batch, rows):
                stream.outbox.put(part, lowers=lowers)

    def _parts(self, batch: GrantBatch, rows: Ints) -> Iterator[Part]:
        """The entries ``rows`` of one stream: one part, unless they echo different stamps."""
        stamps = np.stack((batch.ttl_s[rows], batch.echo_boottime_s[rows]))
        incarnation = batch.echo_incarnation[rows]
        alike = bool((stamps == stamps[:, :1]).all() and (incarnation == incarnation[0]).all())
        for group in (rows,) if alike else rows.reshape(-1, 1):
            yield Part(
                lease=lease_of(batch, int(group[0])),
                place=self._place[batch.evse[group]],
                ceiling=batch.ceiling[group],
                latched=batch.latched[group],
                one_phase=batch.one_phase[group],
            )

    def _answer(self, batch: GrantBatch) -> None:
        for row, evse in enumerate(batch.evse.tolist()):
            for call in self._waiting.get(evse, ()):
                call.catch(batch, row)


def _nobody(order: SwitchOrder) -> None:
    """No switchgear is served."""


def lease_of(batch: GrantBatch, row: int) -> Lease:
    """What one entry was granted under."""
    return Lease(
        epoch=batch.epoch,
        seq=batch.seq,
        ttl_s=float(batch.ttl_s[row]),
        incarnation=int(batch.echo_incarnation[row]),
        boottime_s=float(batch.echo_boottime_s[row]),
    )
