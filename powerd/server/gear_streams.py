"""Streams of switchgear controllers: reports up into the inbox, orders down, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from grpc.aio import ServicerContext

from powerd.control import switch_events as sw
from powerd.control.switching import SwitchOrder
from powerd.errors import BadRequest, Overloaded
from powerd.limits import Ints
from powerd.server import checks
from powerd.server.convert import check_stamp
from powerd.server.core import Core
from powerd.server.gear_convert import GearNames, on_the_wire, reporter_number, seen_events, told_of
from powerd.server.later import Later
from powerd.server.outbox import duration
from powerd.server.pen import Pen
from powerd.server.stamps import Reports
from powerd.server.status import Superseded, Unavailable
from powerd.state.switchgear import Position
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import switchgear_service_pb2 as pb

logger = logging.getLogger(__name__)

REPORT_WITHIN_S = 5.0
"""A switchgear controller speaks at least this often [s]."""

Context = ServicerContext[pb.ConnectSwitchgearRequest, pb.ConnectSwitchgearResponse]


@dataclass(kw_only=True, eq=False)
class GearStream:
    """One open stream."""

    reporter_id: str
    """Who."""
    branch: Ints
    """(k,) its switches."""
    incarnation: int
    """Its process."""
    boottime_s: float
    """Its newest stamp [s]."""
    orders: asyncio.Queue[SwitchOrder] = field(default_factory=asyncio.Queue)
    """What waits to be sent."""
    ended: asyncio.Future[None]
    """Gets the error that ends the stream from this side."""

    def end(self, error: Exception) -> None:
        """Ends the stream with ``error``; the first one counts."""
        if not self.ended.done():
            self.ended.set_exception(error)


class GearStreams:
    """All of them; hands each order to the stream that speaks for its switch."""

    def __init__(self, core: Core, names: GearNames) -> None:
        self._core = core
        self._names = names
        self.told: Callable[[], None] = lambda: None
        """Called when a hello or report is in the inbox."""
        self.given = 0
        """Orders since the start."""
        self._reports = Reports()  # who has told of what, on streams and by calls
        self._streams: list[GearStream] = []
        self._later = Later()

    def publish(self, order: SwitchOrder) -> None:
        """Puts an order onto its stream; without one it is not carried out and times out."""
        for stream in self._streams:
            if order.branch in stream.branch:
                self.given += 1
                stream.orders.put_nowait(order)
                return
        logger.warning("no switchgear controller is there to take the order for %s", self._id(order.branch))

    async def run(self, requests: AsyncIterator[pb.ConnectSwitchgearRequest], context: Context) -> None:
        """Serves one stream until either side ends it.

        Raises:
            BadRequest: a message was wrong; nothing of it was taken.
            UnknownName: it names what is not there.
            Overloaded: the inbox is full.
            Superseded: a newer stream speaks for one of its switches.
        """
        first = await anext(requests, None)
        if first is None:
            return
        stream = self._open(first)
        reader = asyncio.ensure_future(self._read(requests, stream))
        pen = Pen(context.write)
        writer = asyncio.ensure_future(self._write(pen, stream))
        try:
            done, _ = await asyncio.wait((reader, writer, stream.ended), return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            reader.cancel()
            writer.cancel()
            stream.ended.cancel()
            logger.info("switchgear controller %s: its stream has ended", stream.reporter_id)
            if stream in self._streams:
                self._streams.remove(stream)
                self._later.keep(asyncio.ensure_future(self._tell_closed(stream)))
            await pen.down()

    def called(self, request: pb.ReportPositionsRequest) -> list[sw.SwitchEvent]:
        """The events of a report that comes by itself.

        Raises:
            BadRequest: something in it is wrong.
            UnknownName: it names what is not there.
            Superseded: another process of this reporter has a stream open for one of the switches, or has told of one
                of the elements since.
        """
        reporter_id, process = request.reporter_id, request.stamp.incarnation
        switches = {self._names.switch.get(one.switch_id) for one in request.switches}
        for stream in self._streams:
            same = stream.reporter_id == reporter_id
            if same and stream.incarnation != process and switches & set(stream.branch.tolist()):
                raise Superseded(f"switchgear controller {reporter_id!r} has a stream open: its reports come there")
        return self._seen(reporter_id, request.stamp, request.switches, request.outages)

    def _seen(
        self,
        reporter_id: str,
        stamp: pb_common.Stamp,
        switches: Sequence[pb.SwitchReport],
        outages: Sequence[pb.OutageReport],
        *,
        at: str = "",
    ) -> list[sw.SwitchEvent]:
        """The events of what may come late."""
        events = seen_events(self._names, reporter_id, stamp, switches, outages, at=at)
        reporter = reporter_number(f"{at}reporter_id", reporter_id)
        self._reports.refuse_late(reporter, told_of(events), stamp, self._core.now_s)
        self._remember(reporter_id, stamp, events)
        return events

    def _remember(self, reporter_id: str, stamp: pb_common.Stamp, events: Sequence[sw.SwitchEvent]) -> None:
        reporter = reporter_number("reporter_id", reporter_id)
        self._reports.hear(reporter, told_of(events), stamp, self._core.now_s)

    def _open(self, first: pb.ConnectSwitchgearRequest) -> GearStream:
        if first.WhichOneof("message") != "hello":
            raise BadRequest("message", "a hello as the first message of a stream")
        hello = first.hello
        if not hello.switches:
            raise BadRequest("hello.switches", "at least one switch that this controller speaks for")
        events = self._seen(hello.reporter_id, hello.stamp, hello.switches, (), at="hello.")
        branch = np.array([self._names.switch[one.switch_id] for one in hello.switches], np.int64)
        stream = GearStream(
            reporter_id=hello.reporter_id,
            branch=branch,
            incarnation=hello.stamp.incarnation,
            boottime_s=hello.stamp.boottime_s,
            ended=asyncio.get_running_loop().create_future(),
        )
        replaced = [other for other in self._streams if np.isin(other.branch, branch).any()]
        ended = [event for other in replaced for event in _ended(other, stream)]
        answer = self._core.post(*ended, *events, self._heard(stream), urgent=True)
        self.told()
        for older in replaced:
            self._streams.remove(older)
            older.end(Superseded("a newer stream speaks for these switches"))
        self._streams.append(stream)
        self._later.judge(asyncio.ensure_future(answer), stream.end)
        logger.info("switchgear controller %s connected with %d switches", hello.reporter_id, branch.shape[0])
        return stream

    async def _read(self, requests: AsyncIterator[pb.ConnectSwitchgearRequest], stream: GearStream) -> None:
        async for message in requests:
            if message.WhichOneof("message") != "report":
                raise BadRequest("message", "a report after the hello")
            if stream not in self._streams:
                return  # replaced: a newer hello is in the inbox, and this must not be absorbed after it
            events = self._report_events(message.report, stream)
            urgent = any(not isinstance(event, sw.GearHeard) for event in events)
            self._later.judge(asyncio.ensure_future(self._core.post(*events, urgent=urgent)), stream.end)
            self.told()

    def _report_events(self, report: pb.SwitchgearReport, stream: GearStream) -> list[sw.SwitchEvent]:
        check_stamp("report.stamp", report.stamp)
        if report.stamp.incarnation != stream.incarnation:
            raise BadRequest("report.stamp.incarnation", f"the hello's, {stream.incarnation}")
        checks.is_clock_order("report.stamp.boottime_s", report.stamp.boottime_s, stream.boottime_s, "the stamp before")
        stream.boottime_s = report.stamp.boottime_s
        said = (stream.reporter_id, report.stamp, report.switches, report.outages)
        events = seen_events(self._names, *said, at="report.")
        self._remember(*said[:2], events)  # a stream keeps its order, so that nothing of it is late
        for k, answer in enumerate(report.answers):
            order_id = checks.at_least(f"report.answers[{k}].order_id", answer.order_id, 1)
            if answer.refused:
                reason = checks.text(f"report.answers[{k}].reason", answer.reason, most=checks.REASON_MAX, empty=True)
                events.append(sw.OrderRefused(order_id=order_id, reason=reason))
        return [*events, self._heard(stream)]

    def _heard(self, stream: GearStream) -> sw.GearHeard:
        return sw.GearHeard(branch=stream.branch, incarnation=stream.incarnation, clock_s=stream.boottime_s)

    async def _write(self, pen: Pen[pb.ConnectSwitchgearResponse], stream: GearStream) -> None:
        welcome = pb.SwitchgearWelcome(tick=duration(self._core.tick_s), report_within=duration(REPORT_WITHIN_S))
        await pen.write(pb.ConnectSwitchgearResponse(welcome=welcome))
        while True:
            order = await stream.orders.get()
            await pen.write(pb.ConnectSwitchgearResponse(order=self._order(order)))

    def _order(self, order: SwitchOrder) -> pb.SwitchOrder:
        return pb.SwitchOrder(
            order_id=order.order_id,
            switch_id=self._id(order.branch),
            position=on_the_wire(int(Position.CLOSED if order.close else Position.OPEN)),
            valid_for=duration(order.valid_s),
            echo=pb_common.Stamp(incarnation=order.echo_incarnation, boottime_s=order.echo_clock_s),
            reason=order.reason,
        )

    async def _tell_closed(self, stream: GearStream) -> None:
        """Posts the end of the stream, however full the inbox is, unless others speak for its switches by then."""
        while True:
            taken = [other.branch for other in self._streams]
            left = stream.branch[~np.isin(stream.branch, np.concatenate(taken))] if taken else stream.branch
            try:
                await self._core.post(sw.GearClosed(branch=left), urgent=True)
            except Overloaded:
                await asyncio.sleep(self._core.tick_s)
            except Unavailable:  # it was taken in; that the disk refuses is told in the alarms
                return
            else:
                return

    def _id(self, branch: int) -> str:
        return self._names.branch_ids[branch]


def _ended(older: GearStream, newer: GearStream) -> list[sw.GearClosed]:
    """What ends with a stream that a newer one replaces: what that does not speak for, and of the same process all.

    That a new process has dropped its orders shows in its stamp; what was on its way to the same one may be lost.
    """
    same = older.incarnation == newer.incarnation
    branch = older.branch if same else older.branch[~np.isin(older.branch, newer.branch)]
    return [sw.GearClosed(branch=branch)] if branch.shape[0] else []
