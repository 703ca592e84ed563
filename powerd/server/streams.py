"""One stream per controller: hello first, then reports up into the inbox and grants down from the outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from grpc.aio import ServicerContext

from powerd.control.absorb import is_put_off
from powerd.control.events import Event, StreamClosed
from powerd.errors import BadRequest, Overloaded
from powerd.server.convert import check_number, hello_event, report_events, speaker_of
from powerd.server.core import Core
from powerd.server.directory import Directory
from powerd.server.later import Later
from powerd.server.outbox import duration
from powerd.server.pace import Pace
from powerd.server.pen import Pen
from powerd.server.publish import Publisher, Stream
from powerd.server.stamps import Stamps
from powerd.server.status import Unavailable
from powerd.v1 import controller_service_pb2 as pb

logger = logging.getLogger(__name__)

Context = ServicerContext[pb.ConnectRequest, pb.ConnectResponse]

REPORTS_PER_TTL = 4
"""A controller reports at least every ttl/4 (docs/protocol.md)."""


class Streams:
    """Runs the streams of a server."""

    def __init__(self, core: Core, names: Directory, publisher: Publisher, stamps: Stamps) -> None:
        self._core = core
        self._names = names
        self._publisher = publisher
        self._stamps = stamps
        self._later = Later()
        self._pace = Pace()

    async def run(self, requests: AsyncIterator[pb.ConnectRequest], context: Context) -> None:
        """Serves one stream until either side ends it.

        Raises:
            BadRequest: a message was wrong; nothing of it was taken.
            Overloaded: the inbox is full; the next hello tells everything again.
            Superseded: a newer stream of the same controller has taken over.
            Unavailable: its hello could not be followed while the disk was away; another one can.
        """
        first = await anext(requests, None)
        if first is None:
            return
        stream, boottime_s = self._open(first)
        reader = asyncio.ensure_future(self._read(requests, stream, boottime_s))
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
            logger.info("controller %s: its stream has ended", first.hello.controller_id)
            if self._publisher.close(stream):
                self._later.keep(asyncio.ensure_future(self._tell_closed(stream)))
            await pen.down()

    def _open(self, first: pb.ConnectRequest) -> tuple[Stream, float]:
        """Posts the hello and registers the stream in the same breath, before any tick can absorb it."""
        if first.WhichOneof("message") != "hello":
            raise BadRequest("message", "a hello as the first message of a stream")
        event = hello_event(first.hello, self._names)
        controller = self._names.controller[first.hello.controller_id]
        self._stamps.hello(controller, event.incarnation, event.boottime_s, self._core.now_s)
        answer = asyncio.ensure_future(self._core.post(event))
        stream = self._publisher.open(speaker_of(controller, event, self._names), first.hello.report_number, answer)
        self._later.judge(answer, stream.end)
        logger.info("controller %s connected with %d EVSEs", first.hello.controller_id, len(event.evse))
        return stream, event.boottime_s

    async def _read(self, requests: AsyncIterator[pb.ConnectRequest], stream: Stream, boottime_s: float) -> None:
        async for message in requests:
            if message.WhichOneof("message") != "report":
                raise BadRequest("message", "a report after the hello")
            await self._pace.report()
            if self._publisher.streams.get(stream.speaker.controller) is not stream:
                return  # a newer hello is in the inbox: this is older than it, and must not be absorbed after it
            self._refuse_put_off(stream)
            check_number("report.report_number", message.report.report_number, stream.report_number)
            events = report_events(message.report, stream.speaker, boottime_s)
            boottime_s = message.report.stamp.boottime_s
            self._later.judge(asyncio.ensure_future(self._core.post(*events)), stream.end)
            self._publisher.arrived(stream, message.report.report_number)

    def _refuse_put_off(self, stream: Stream) -> None:
        """Asks for another hello in place of one that came while the disk could not take the next epoch (R4)."""
        decision, speaker = self._core.latest(), stream.speaker
        if decision is None or not stream.hello.done():
            return
        if is_put_off(decision.snapshot, speaker.evse, speaker.heard):
            raise Unavailable(
                f"another leader, of epoch {speaker.heard}, was heard of while the disk could not take a higher one; "
                "now it can: connect again"
            )

    async def _write(self, pen: Pen[pb.ConnectResponse], stream: Stream) -> None:
        await pen.write(self._welcome(stream))
        while True:
            await stream.outbox.filled()
            await self._pace.grant(lambda: stream.outbox.lowers)
            for message in stream.outbox.take():
                await pen.write(message)

    def _welcome(self, stream: Stream) -> pb.ConnectResponse:
        decision = self._core.latest()
        ttl_s = float(self._core.electrical.controllers.ttl_s[stream.speaker.controller])
        welcome = pb.Welcome(
            epoch=0 if decision is None else decision.snapshot.leases.epoch,
            ttl=duration(ttl_s),
            tick=duration(self._core.tick_s),
            report_within=duration(ttl_s / REPORTS_PER_TTL),
        )
        return pb.ConnectResponse(welcome=welcome)

    async def _tell_closed(self, stream: Stream) -> None:
        """Posts the end of the stream, however full the inbox is, unless the controller is back by then."""
        event: Event = StreamClosed(evse=stream.speaker.evse)
        while stream.speaker.controller not in self._publisher.streams:
            try:
                await self._core.post(event)
            except Overloaded:
                await asyncio.sleep(self._core.tick_s)
            except Unavailable:  # it was taken in; that the disk refuses is told in the alarms
                return
            else:
                return
