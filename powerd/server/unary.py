"""RequestSetpoint: one question, one grant, for a controller without a stream."""

from __future__ import annotations

import numpy as np

from powerd.control.decision import Decision
from powerd.control.events import Acked, CallReceived, Event, FreshWanted, Measured, PlugChanged, StampSeen
from powerd.errors import BadRequest
from powerd.limits import Floats, Ints
from powerd.server import checks
from powerd.server.convert import check_plug_time, check_stamp, most_believed
from powerd.server.directory import Directory
from powerd.server.explain import reason
from powerd.server.outbox import duration
from powerd.server.posting import Desk
from powerd.server.publish import Caught, Publisher
from powerd.server.stamps import Stamps
from powerd.server.status import Superseded, Unavailable
from powerd.state import leases
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb

REQUESTS_PER_TTL = 3
"""The answer says to come back after ttl/3: one request may be lost."""


class SetpointDesk:
    """Answers single setpoint requests."""

    def __init__(self, desk: Desk, names: Directory, publisher: Publisher, stamps: Stamps) -> None:
        self._desk = desk
        self._names = names
        self._publisher = publisher
        self._stamps = stamps

    async def answer(self, request: pb.RequestSetpointRequest) -> pb.RequestSetpointResponse:
        """The grant that the next tick gives; of a request that a newer one has overtaken nothing else is heeded.

        It is handed out as soon as it leaves for a stream, too: what may go out before the disk has it does not wait
        for the disk here either.

        Raises:
            BadRequest: a field is wrong; nothing was changed.
            UnknownName: no such EVSE.
            Superseded: the EVSE's controller has a stream open, or another process has spoken for it since.
            Overloaded, Unavailable: try again.
        """
        evse = self._names.find_evse(checks.text("evse_id", request.evse_id))
        news = call_events(request, evse, self._names, self._desk.core.latest())
        controller = int(self._names.posts.controller[evse])
        if controller in self._publisher.streams:
            raise Superseded(f"controller {self._names.owner(evse)!r} has a stream open: its grants go there")
        stamp = request.stamp.incarnation, request.stamp.boottime_s
        if not self._stamps.call(controller, evse, *stamp, self._desk.core.now_s):
            news = []
        with self._publisher.waiting(evse, *stamp) as call:
            await self._desk.post_until(call.granted, *news, FreshWanted(evse=np.array([evse])))
        if call.grant is None:
            raise Unavailable(f"no grant: {reason(self._desk.core, self._desk.latest(), evse)}")
        return pb.RequestSetpointResponse(
            grant=granted(call.grant, dc=bool(self._names.posts.is_dc[evse])),
            next_request_in=duration(call.grant.lease.ttl_s / REQUESTS_PER_TTL),
            reason=reason(self._desk.core, self._desk.latest(), evse),
        )


def call_events(
    request: pb.RequestSetpointRequest, evse: int, names: Directory, decision: Decision | None
) -> list[Event]:
    """What a request for ``evse`` tells, against the newest decision (None = there was no tick yet).

    Raises:
        BadRequest: a field is wrong.
    """
    check_stamp("stamp", request.stamp)
    check_plug_time("plug_boottime_s", request.plug_boottime_s, request.stamp.boottime_s)
    one = np.array([evse])
    stamp, most = request.stamp, float(most_believed(names, one)[0])
    ack = None if not request.HasField("ack") else _ack(request.ack, one, most)
    seen = StampSeen(evse=one, incarnation=stamp.incarnation, boottime_s=stamp.boottime_s)
    plugged, plug_s = np.array([request.plugged]), np.array([request.plug_boottime_s])
    plug = PlugChanged(evse=one, plugged=plugged, plug_boottime_s=plug_s)
    events: list[Event]
    highest = checks.at_least("highest_epoch", request.highest_epoch, 0)
    if decision is None or _is_hello(request, ack, evse, decision):
        events = [
            CallReceived(
                seen=seen,
                plug=plug,
                ack=ack,
                highest_epoch=highest,
                unsettled=request.unsettled,
                accepted=request.accepted,
            )
        ]
    else:
        events = [seen, *([] if ack is None else [ack]), *([plug] if _plug_is_news(request, evse, decision) else [])]
    if request.measured:
        events.append(Measured(evse=one, drawn=_drawn(request, dc=bool(names.posts.is_dc[evse]))))
    return events


def _is_hello(request: pb.RequestSetpointRequest, ack: Acked | None, evse: int, decision: Decision) -> bool:
    """It says what of a stream only the hello says: another process or leader, or what its post has not taken.

    Or that a process which said on its stream that it switches phases now asks by single calls, and does not.
    """
    book = decision.snapshot.leases
    if int(book.echo_incarnation[evse]) != request.stamp.incarnation or not np.isnan(book.barred_ceiling[evse]):
        return True
    if request.unsettled or book.unsettled[evse] or request.highest_epoch > book.epoch:
        return True
    if decision.snapshot.contactors.able[evse]:
        return True
    if request.accepted and not book.granted[evse]:
        return True
    return ack is not None and not leases.sent(book, ack.evse, ack.epoch, ack.seq).all()


def _plug_is_news(request: pb.RequestSetpointRequest, evse: int, decision: Decision) -> bool:
    """Of a process that is known; a car that came since it last called, or another one."""
    snapshot = decision.snapshot
    if request.plugged != bool(snapshot.sessions.plugged[evse]):
        return True
    return request.plug_boottime_s > float(snapshot.leases.plug_boottime_s[evse])


def _drawn(request: pb.RequestSetpointRequest, *, dc: bool) -> Floats:
    wanted = 1 if dc else 3
    if len(request.measured) != wanted:
        what = "1 entry, the power [kW]" if dc else "3 entries, the currents on L1, L2, L3 [A]"
        raise BadRequest("measured", f"{what}, or none, got {len(request.measured)}")
    drawn = np.zeros((1, 3))
    drawn[0, :wanted] = checks.readings("measured", request.measured)
    return drawn


def granted(caught: Caught, *, dc: bool) -> pb_common.Grant:
    """The message for what a call has caught."""
    lease = caught.lease
    grant = pb_common.Grant(
        epoch=lease.epoch,
        seq=lease.seq,
        ttl=duration(lease.ttl_s),
        echo=pb_common.Stamp(incarnation=lease.incarnation, boottime_s=lease.boottime_s),
        latched=caught.latched,
        one_phase=caught.one_phase,
    )
    if dc:
        grant.ceiling_kw = caught.ceiling
    else:
        grant.ceiling_a = caught.ceiling
    return grant


def _ack(ack: pb_common.Ack, evse: Ints, most: float) -> Acked:
    """``most``: the largest ceiling believed [own unit]."""
    return Acked(
        evse=evse,
        epoch=checks.at_least("ack.epoch", ack.epoch, 1),
        seq=checks.at_least("ack.seq", ack.seq, 1),
        ceiling=np.array([checks.number("ack.applied_ceiling", ack.applied_ceiling, most=most)]),
        one_phase=np.array([ack.one_phase]),
    )
