"""SteppedClockService: a simulation moves the daemon's clock. Exists only where the daemon was started for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import grpc
import numpy as np
from grpc.aio import ServicerContext

from powerd.control.decision import Decision
from powerd.errors import BadRequest
from powerd.limits import Limits
from powerd.server import checks
from powerd.server.core import Core
from powerd.server.demands import instant
from powerd.server.directory import Directory
from powerd.server.publish import Publisher
from powerd.server.status import as_status
from powerd.units import Now
from powerd.v1 import stepped_clock_service_pb2 as pb
from powerd.v1.stepped_clock_service_pb2_grpc import SteppedClockServiceServicer

PATIENCE_S = 30.0
"""How long a report or session call may take to arrive where the caller set no deadline [s]."""
MET = 0.99
"""A row counts as met with equality from this share of its rating on."""

Context = ServicerContext[pb.AdvanceRequest, pb.AdvanceResponse]


class SteppedClockService(SteppedClockServiceServicer):
    """Runs one tick a call."""

    def __init__(self, core: Core, names: Directory, publisher: Publisher, orders: Callable[[], int]) -> None:
        """``orders`` says how many switch orders have been given."""
        self._orders = orders
        self._core = core
        self._names = names
        self._publisher = publisher
        self._boottime_s = 0.0
        self._turn = asyncio.Lock()

    async def Advance(self, request: pb.AdvanceRequest, context: Context) -> pb.AdvanceResponse:  # noqa: N802
        """Waits for the named reports and session calls, ticks, and waits until the grants are on their streams."""
        async with as_status(context), self._turn:
            now = self._now(request)
            left_s = cast(
                "float | None", context.time_remaining()
            )  # None where the caller set none; the stub knows better
            patience_s = PATIENCE_S if left_s is None else min(PATIENCE_S, 0.9 * left_s)
            try:
                async with asyncio.timeout(patience_s):
                    calls = checks.at_least("session_call_count", request.session_call_count, 0)
                    gear = checks.at_least("switchgear_report_count", request.switchgear_report_count, 0)
                    await self._publisher.reports(self._wanted(request), calls, gear)
            except TimeoutError:
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, f"a report or session call did not come in {patience_s:.1f} s"
                )
            self._boottime_s = now.boottime_s  # the tick is made, whether or not the caller is still there then
            started = time.perf_counter()
            decision = await self._core.advance(now)
            step_ms = 1e3 * (time.perf_counter() - started)
            await self._publisher.emptied()
            return self._answer(decision, step_ms)

    def _now(self, request: pb.AdvanceRequest) -> Now:
        boottime_s = checks.clock("boottime_s", request.boottime_s)
        checks.is_clock_order("boottime_s", boottime_s, self._boottime_s, "the tick before")
        return Now(utc=instant("time", request.time), boottime_s=boottime_s)

    def _wanted(self, request: pb.AdvanceRequest) -> dict[int, int]:
        checks.same_length("report_number", len(request.report_number), "controller_id", len(request.controller_id))
        wanted: dict[int, int] = {}
        for k, (name, number) in enumerate(zip(request.controller_id, request.report_number, strict=True)):
            if name not in self._names.controller:
                raise BadRequest(f"controller_id[{k}]", f"a controller of this site, got {name[:99]!r}")
            wanted[self._names.controller[name]] = checks.at_least(f"report_number[{k}]", number, 0)
        return wanted

    def _answer(self, decision: Decision, step_ms: float) -> pb.AdvanceResponse:
        open_streams = {self._names.controller_ids[c]: s.outbox.count for c, s in self._publisher.streams.items()}
        ids = sorted(open_streams)
        return pb.AdvanceResponse(
            tick=decision.tick,
            controller_id=ids,
            message_count=[open_streams[name] for name in ids],
            binding_rows=binding_rows(decision.site.limits, decision),
            step_ms=step_ms,
            switch_order_count=self._orders(),
        )


def binding_rows(limits: Limits, decision: Decision) -> int:
    """How many rows the wants fill to at least ``MET`` of their rating."""
    flow = limits.flow(decision.want) + decision.uncontrolled[limits.limit_of_row]
    capacity = limits.capacity[limits.limit_of_row]
    return int(np.count_nonzero((flow >= MET * capacity) & np.isfinite(capacity) & (flow > 0)))
