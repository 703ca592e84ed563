"""SiteService: what is built, how it stands, why a ceiling is what it is, and the stop."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import numpy as np
from grpc.aio import ServicerContext

from powerd.control.decision import Decision
from powerd.control.events import StopOrdered, StopReleased
from powerd.errors import UnknownName
from powerd.limits import Bools, Ints, Limits
from powerd.server import checks
from powerd.server.demands import timestamp
from powerd.server.directory import Directory
from powerd.server.explain import holding, limits_above, others, reason
from powerd.server.posting import Desk
from powerd.server.status import as_status
from powerd.v1 import site_service_pb2 as pb
from powerd.v1.site_service_pb2_grpc import SiteServiceServicer

ACK_TICKS = 2.5
"""A stop is answered at the latest this many ticks after it was sent, whoever has not acked it."""


class SiteService(SiteServiceServicer):
    """Serves the operator's side."""

    def __init__(self, desk: Desk, names: Directory) -> None:
        self._desk = desk
        self._names = names

    async def GetSite(  # noqa: N802
        self, request: pb.GetSiteRequest, context: ServicerContext[pb.GetSiteRequest, pb.GetSiteResponse]
    ) -> pb.GetSiteResponse:
        """What is built."""
        async with as_status(context):
            evses = [self._evse(i) for i in range(self._names.posts.count)]
            own = self._desk.core.limits
            limits = [_limit(own, l) for l in range(len(own.name))]
            return pb.GetSiteResponse(site_id=self._desk.core.electrical.site_id, evses=evses, limits=limits)

    async def WatchSite(  # noqa: N802
        self, request: pb.WatchSiteRequest, context: ServicerContext[pb.WatchSiteRequest, pb.WatchSiteResponse]
    ) -> AsyncIterator[pb.WatchSiteResponse]:
        """How it stands, after each tick."""
        async for decision in self._desk.decisions():
            yield _picture(decision, self._stops(decision))

    async def ExplainCeiling(  # noqa: N802
        self,
        request: pb.ExplainCeilingRequest,
        context: ServicerContext[pb.ExplainCeilingRequest, pb.ExplainCeilingResponse],
    ) -> pb.ExplainCeilingResponse:
        """Why one ceiling is what it is."""
        async with as_status(context):
            evse = self._names.find_evse(checks.text("evse_id", request.evse_id))
            decision = self._desk.latest()
            limit = int(holding(decision)[evse])
            return pb.ExplainCeilingResponse(
                ceiling=float(decision.ceiling[evse]),
                want=float(decision.want[evse]),
                worst=float(decision.worst[evse]),
                limit=None if limit < 0 else _limit(limits_above(decision, evse), limit),
                shadow_price=0.0 if limit < 0 else float(decision.shadow_price[limit]),
                others=others(decision, evse),
                reason=reason(self._desk.core, decision, evse),
            )

    async def StopCharging(  # noqa: N802
        self, request: pb.StopChargingRequest, context: ServicerContext[pb.StopChargingRequest, pb.StopChargingResponse]
    ) -> pb.StopChargingResponse:
        """All ceilings at or below an element to a latched 0."""
        async with as_status(context):
            request_id = checks.request_id(request.request_id)
            element = checks.text("element", request.element)
            why = checks.text("reason", request.reason, most=checks.REASON_MAX)
            below = self._desk.core.below(element)
            if below is None:
                raise UnknownName(f"there is no element {element!r} at this site")
            evse = np.array(below, np.int64)
            order = StopOrdered(request_id=request_id, stop_id=uuid.uuid4().hex, element=element, evse=evse, reason=why)
            (done,) = await self._desk.post(order, urgent=True)
            held = np.array(done.evse, np.int64)
            open_ = await self._unacked(held)
            return pb.StopChargingResponse(
                stop_id=done.key, evse_ids=self._ids(held), unacked_evse_ids=self._ids(open_)
            )

    async def ReleaseStop(  # noqa: N802
        self, request: pb.ReleaseStopRequest, context: ServicerContext[pb.ReleaseStopRequest, pb.ReleaseStopResponse]
    ) -> pb.ReleaseStopResponse:
        """Ends a stop."""
        async with as_status(context):
            release = StopReleased(
                request_id=checks.request_id(request.request_id),
                stop_id=checks.text("stop_id", request.stop_id),
                reason=checks.text("reason", request.reason, most=checks.REASON_MAX),
            )
            (done,) = await self._desk.post(release)
            return pb.ReleaseStopResponse(evse_ids=self._ids(np.array(done.evse, np.int64)))

    async def _unacked(self, evse: Ints) -> Ints:
        """Those of ``evse`` that have not acked their stop when all have, or when ``ACK_TICKS`` have passed."""
        open_ = evse
        try:
            async with asyncio.timeout(ACK_TICKS * self._desk.core.tick_s):
                async for decision in self._desk.decisions():
                    open_ = evse[~_stopped(decision)[evse]]
                    if open_.shape[0] == 0:
                        break
        except TimeoutError:
            pass
        return open_

    def _stops(self, decision: Decision) -> list[pb.StandingStop]:
        """Those that hold, with who has not acked them."""
        acked = _stopped(decision)
        return [
            pb.StandingStop(
                stop_id=stop.stop_id,
                element=stop.element,
                reason=stop.reason,
                evse_ids=self._ids(stop.evse),
                unacked_evse_ids=self._ids(stop.evse[~acked[stop.evse]]),
            )
            for stop in decision.snapshot.stops
        ]

    def _ids(self, evse: Ints) -> list[str]:
        return [self._names.posts.ids[i] for i in evse.tolist()]

    def _evse(self, i: int) -> pb.EvseInfo:
        posts = self._names.posts
        info = pb.EvseInfo(
            evse_id=posts.ids[i],
            controller_id=self._names.owner(i),
            dc=bool(posts.is_dc[i]),
            max_ceiling=float(posts.max_ceiling[i]),
            min_ceiling=float(posts.min_ceiling[i]),
            pilot_steps=posts.pilot_steps[i].tolist(),
            fallback=float(posts.fallback[i]),
            fallback_idle=float(posts.fallback_idle[i]),
        )
        controllers = self._desk.core.electrical.controllers
        info.ttl.FromTimedelta(timedelta(seconds=float(controllers.ttl_s[posts.controller[i]])))
        return info


def _limit(limits: Limits, limit: int) -> pb.LimitInfo:
    return pb.LimitInfo(
        name=limits.name[limit],
        element=limits.element[limit],
        phase=limits.phase[limit],
        capacity=float(limits.capacity[limit]),
        unit=limits.unit[limit],
        source=limits.source[limit],
    )


def _stopped(decision: Decision) -> Bools:
    """(n,) a latched 0 was sent and acked."""
    book = decision.snapshot.leases
    acked = (book.explicit_seq > 0) & (book.acked_seq >= book.explicit_seq) & (book.acked_ceiling == 0)
    stopped: Bools = book.sent_latched & acked
    return stopped


def _picture(decision: Decision, stops: list[pb.StandingStop]) -> pb.WatchSiteResponse:
    snapshot = decision.snapshot
    return pb.WatchSiteResponse(
        time=timestamp(decision.now.utc.timestamp()),
        tick=decision.tick,
        limit_flow=decision.limit_flow.tolist(),
        ceiling=decision.ceiling.tolist(),
        drawn=snapshot.drawn.max(axis=1).tolist(),
        plugged=snapshot.sessions.plugged.tolist(),
        alarms=decision.alarms,
        path=decision.path,
        stops=stops,
    )
