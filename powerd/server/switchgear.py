"""SwitchgearService: reports, the stream of switchgear controllers, operators' orders, plans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
from grpc.aio import ServicerContext

from powerd.control.decision import Decision
from powerd.control.dry_run import Forecast, forecast, planned
from powerd.control.requests import answer_again
from powerd.control.switch_events import ElementKind, ServiceChanged, SwitchOrdered
from powerd.errors import BadRequest
from powerd.limits import Ints
from powerd.network.interlocks import Finding, Move, findings
from powerd.network.operation import By
from powerd.network.plan import Planner
from powerd.server import checks
from powerd.server.demands import timestamp
from powerd.server.directory import Directory
from powerd.server.gear_convert import GearNames, on_the_wire, report_of, wanted_position
from powerd.server.gear_streams import Context, GearStreams
from powerd.server.posting import Desk
from powerd.server.status import as_status
from powerd.state.switchgear import Phase, Position
from powerd.v1 import switchgear_service_pb2 as pb
from powerd.v1.switchgear_service_pb2_grpc import SwitchgearServiceServicer

SHOWN_FROM = 0.5
"""A forecast lists limits that carry more than this share of their rating."""
DOING = {Phase.IDLE: "idle", Phase.MAKING_ROOM: "making room", Phase.WAITING: "waiting for a switch"}

Call = ServicerContext[Any, Any]


class SwitchgearService(SwitchgearServiceServicer):
    """Serves relays, switchgear controllers and operators."""

    def __init__(self, desk: Desk, names: Directory, gear_names: GearNames, streams: GearStreams) -> None:
        self._desk = desk
        self._names = names
        self._gear = gear_names
        self._streams = streams
        self._planner = Planner.of(desk.core.electrical)

    async def ReportPositions(  # noqa: N802
        self, request: pb.ReportPositionsRequest, context: Call
    ) -> pb.ReportPositionsResponse:
        """News; wakes the ticker."""
        async with as_status(context):
            await self._desk.post(*self._streams.called(request), urgent=True)
            return pb.ReportPositionsResponse(alarms=self._desk.latest().alarms)

    # The stub knows only generators; a coroutine that writes by itself is ended at once when the client goes away.
    async def ConnectSwitchgear(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ConnectSwitchgearRequest], context: Context
    ) -> None:
        """One stream per switchgear controller."""
        async with as_status(context):
            await self._streams.run(request_iterator, context)

    async def ManualOrder(self, request: pb.ManualOrderRequest, context: Call) -> pb.ManualOrderResponse:  # noqa: N802
        """An operator's order, or what it would bring."""
        async with as_status(context):
            request_id = checks.request_id(request.request_id)
            branch = self._gear.find_switch("switch_id", checks.text("switch_id", request.switch_id))
            close = wanted_position("position", request.position)
            reason = checks.text("reason", request.reason, most=checks.REASON_MAX)
            move = Move(branch=branch, close=close)
            told = await asyncio.to_thread(forecast, self._desk.latest(), self._planner, move)
            order = SwitchOrdered(request_id=request_id, branch=branch, close=close, reason=reason)
            if not request.dry_run and answer_again(self._desk.latest().snapshot, order) is not None:
                told = replace(told, findings=())  # they judged the first call; what is true by now is no answer to it
            accepted = not request.dry_run and not told.findings
            if accepted:
                await self._desk.post(order, urgent=True)
            return self._told(told, accepted=accepted)

    async def TakeOutOfService(  # noqa: N802
        self, request: pb.TakeOutOfServiceRequest, context: Call
    ) -> pb.TakeOutOfServiceResponse:
        """Powerd plans without it."""
        async with as_status(context):
            return pb.TakeOutOfServiceResponse(dead_evse_ids=await self._service(request, in_service=False))

    async def ReturnToService(  # noqa: N802
        self, request: pb.ReturnToServiceRequest, context: Call
    ) -> pb.ReturnToServiceResponse:
        """Powerd may use it again."""
        async with as_status(context):
            return pb.ReturnToServiceResponse(dead_evse_ids=await self._service(request, in_service=True))

    async def ListSwitches(self, request: pb.ListSwitchesRequest, context: Call) -> pb.ListSwitchesResponse:  # noqa: N802
        """How they stand."""
        async with as_status(context):
            decision = self._desk.latest()
            gear, supplies = decision.snapshot.gear, decision.site.electrical.supplies.ids
            alive = np.flatnonzero(gear.supply_alive & gear.supply_in_service)
            return pb.ListSwitchesResponse(
                switches=[_switch(decision, name, e) for name, e in self._gear.switch.items()],
                live_supply_ids=[supplies[s] for s in alive],
            )

    async def GetPlan(self, request: pb.GetPlanRequest, context: Call) -> pb.GetPlanResponse:  # noqa: N802
        """What powerd would do, and is doing."""
        async with as_status(context):
            found = [self._planned_without(f"elements[{k}]", e) for k, e in enumerate(request.elements)]
            branches = np.array([i for kind, at in found if kind == ElementKind.BRANCH for i in at], np.int64)
            supplies = np.array([i for kind, at in found if kind == ElementKind.SUPPLY for i in at], np.int64)
            decision = self._desk.latest()
            plan, question, known = await asyncio.to_thread(planned, decision, self._planner, branches, supplies)
            fed = self._planner.fed(question, plan.closed)
            ids = decision.site.electrical.branches.ids
            return pb.GetPlanResponse(
                orders=[
                    pb.PlannedOrder(
                        switch_id=ids[abs(step) - 1],
                        position=pb.POSITION_CLOSED if step > 0 else pb.POSITION_OPEN,
                    )
                    for step in plan.steps
                ],
                critical_kw=plan.score.critical,
                deliverable_kw=plan.score.deliverable,
                dead_evse_ids=self._ids(np.flatnonzero(~fed[decision.site.electrical.evse_bus])),
                found_by="playbook" if known else plan.found_by,
                doing=DOING[Phase(decision.snapshot.gear.phase)],
            )

    async def _service(
        self, request: pb.TakeOutOfServiceRequest | pb.ReturnToServiceRequest, *, in_service: bool
    ) -> list[str]:
        """Posts the change and lists the EVSEs without voltage after it."""
        name = checks.text("element", request.element)
        kind, indices = self._gear.find("element", name) if in_service else self._planned_without("element", name)
        event = ServiceChanged(
            request_id=checks.request_id(request.request_id),
            kind=kind,
            indices=indices,
            in_service=in_service,
            reason=checks.text("reason", request.reason, most=checks.REASON_MAX),
        )
        await self._desk.post(event, urgent=True)
        decision = self._desk.latest()
        live = decision.snapshot.gear.bus_live
        return self._ids(np.flatnonzero(~live[decision.site.electrical.evse_bus]))

    def _planned_without(self, field: str, name: str) -> tuple[ElementKind, tuple[int, ...]]:
        """An element that plans can do without: a bus is none, what feeds it is."""
        kind, indices = self._gear.find(field, checks.text(field, name))
        if kind == ElementKind.BUS:
            raise BadRequest(field, f"a supply, transformer, feeder or switch; {name} is a bus, name what feeds it")
        return kind, indices

    def _told(self, told: Forecast, *, accepted: bool) -> pb.ManualOrderResponse:
        share = np.maximum(told.reserved, told.worst) / np.maximum(told.capacity, 1e-9)
        return pb.ManualOrderResponse(
            accepted=accepted,
            findings=[_finding(one) for one in told.findings],
            limits=[
                pb.LimitForecast(
                    name=told.name[l],
                    capacity=float(told.capacity[l]),
                    reserved=float(told.reserved[l]),
                    worst=float(told.worst[l]),
                    unit=told.unit[l],
                )
                for l in np.flatnonzero(share > SHOWN_FROM)
            ],
            lost_evse_ids=self._ids(told.lost),
            gained_evse_ids=self._ids(told.gained),
            deliverable_kw=told.deliverable_kva,
        )

    def _ids(self, evse: Ints) -> list[str]:
        return [self._names.posts.ids[i] for i in evse.tolist()]


def _finding(one: Finding) -> pb.InterlockFinding:
    return pb.InterlockFinding(rule=one.rule, element=one.element, message=one.message)


def _switch(decision: Decision, name: str, e: int) -> pb.SwitchInfo:
    """One switch after a tick."""
    gear, electrical, now = decision.snapshot.gear, decision.site.electrical, decision.now
    known = bool(np.isfinite(gear.reported_at_s[e]))
    ago_s = now.boottime_s - float(gear.reported_at_s[e]) if known else 0.0
    move = Move(branch=e, close=bool(gear.position[e] != Position.CLOSED))
    return pb.SwitchInfo(
        switch_id=name,
        position=on_the_wire(int(gear.position[e])),
        reported=known,
        report_time=timestamp(now.utc.timestamp() - ago_s) if known else None,
        normal_position=on_the_wire(int(electrical.branches.normally_closed[e])),
        operable=bool(electrical.operation.by[e] == By.POWERD),
        out_of_service=not gear.in_service[e],
        locked=bool(gear.locked[e]),
        flags=report_of(name, int(gear.position[e]), int(gear.flags[e])),
        findings=[_finding(one) for one in findings(electrical, gear, move, now.boottime_s)],
    )
