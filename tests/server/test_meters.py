"""MeterService: readings reach the inbox as they were sent; bad ones change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import grpc
import grpc.aio
import numpy as np
import pytest

from powerd.control.events import MeterRead
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import meter_service_pb2 as pb
from powerd.v1.meter_service_pb2_grpc import MeterServiceStub
from tests.server.dialogue import ME, only_violation, serving, stamp
from tests.server.fake import SITE, FakeCore

METERED = SITE + "meters: [{id: M1, at: F1}, {id: M2, at: grid}]\n"


def _request() -> pb.ReportReadingsRequest:
    return pb.ReportReadingsRequest(
        stamp=stamp(100.0),
        readings=[
            pb.MeterReading(meter_id="M2", window_start_s=97.0, window_end_s=99.5, power_kw=-12.5),
            pb.MeterReading(meter_id="M1", window_start_s=99.0, window_end_s=100.0, current_a=[1.0, -2.0, 3.0]),
        ],
    )


def test_readings_reach_the_inbox() -> None:
    """Meters by index, windows as ages before the stamp, what was not measured as nan; nobody is woken for it."""

    async def scene() -> FakeCore:
        core = FakeCore(METERED)
        async with serving(core) as (_, channel):
            await MeterServiceStub(channel).ReportReadings(_request())
        return core

    core = asyncio.run(scene())
    (event,) = core.posted
    assert isinstance(event, MeterRead)
    assert (event.meter.tolist(), event.incarnation, event.boottime_s) == ([1, 0], ME, 100.0)
    np.testing.assert_array_equal(event.current, [[np.nan] * 3, [1.0, -2.0, 3.0]])
    np.testing.assert_array_equal(event.power_kw, [-12.5, np.nan])
    np.testing.assert_allclose(event.start_age_s, [3.0, 1.0])
    np.testing.assert_allclose(event.end_age_s, [0.5, 0.0])
    assert core.urgent == 0


@pytest.mark.parametrize(
    ("change", "woken"),
    [
        (lambda r: r.readings[1].current_a.__setitem__(2, 401.0), 1),
        (lambda r: setattr(r.readings[0], "power_kw", 50.1), 1),
        (lambda r: setattr(r.readings[0], "power_kw", 49.9), 0),
        (lambda r: setattr(r.readings[1], "power_kw", 50.1), 1),
        (lambda r: setattr(r.readings[1], "power_kw", 45.0), 0),
    ],
)
def test_an_overload_wakes_the_ticker(change: Callable[[pb.ReportReadingsRequest], object], woken: int) -> None:
    """The feeder is rated 400 A, the grid connection, which feeds it, may import 50 kW."""

    async def scene() -> int:
        core = FakeCore(METERED + "grid_connection: {import_limit_kw: 50, source: contract}\n")
        core.tick()
        async with serving(core) as (_, channel):
            request = _request()
            change(request)
            await MeterServiceStub(channel).ReportReadings(request)
        return core.urgent

    assert asyncio.run(scene()) == woken


BAD: list[tuple[str, Callable[[pb.ReportReadingsRequest], object]]] = [
    ("stamp.incarnation", lambda r: r.ClearField("stamp")),
    ("readings", lambda r: r.ClearField("readings")),
    ("readings", lambda r: setattr(r.readings[0], "meter_id", "M1")),
    ("readings[0].meter_id", lambda r: setattr(r.readings[0], "meter_id", "")),
    ("readings[0]", lambda r: r.readings[0].ClearField("power_kw")),
    ("readings[0].power_kw", lambda r: setattr(r.readings[0], "power_kw", float("nan"))),
    ("readings[1].current_a", lambda r: r.readings[1].current_a.append(1.0)),
    ("readings[1].current_a[1]", lambda r: r.readings[1].current_a.__setitem__(1, float("inf"))),
    ("readings[1].window_end_s", lambda r: setattr(r.readings[1], "window_end_s", 100.5)),
    ("readings[1].window_end_s", lambda r: setattr(r.readings[1], "window_end_s", 98.0)),
    ("readings[1].window_start_s", lambda r: setattr(r.readings[1], "window_start_s", -1.0)),
]


@pytest.mark.parametrize(("field", "spoil"), BAD)
def test_a_bad_reading_is_refused_by_field(field: str, spoil: Callable[[pb.ReportReadingsRequest], object]) -> None:
    """INVALID_ARGUMENT with the path; nothing of the request is taken."""

    async def scene() -> FakeCore:
        core = FakeCore(METERED)
        async with serving(core) as (_, channel):
            request = _request()
            spoil(request)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await MeterServiceStub(channel).ReportReadings(request)
            assert only_violation(refused) == field
        return core

    assert asyncio.run(scene()).posted == []


def test_an_unknown_meter_is_not_found() -> None:
    """And its name is told back."""

    async def scene() -> None:
        core = FakeCore(METERED)
        async with serving(core) as (_, channel):
            request = _request()
            request.readings[0].meter_id = "M9"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await MeterServiceStub(channel).ReportReadings(request)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert "M9" in str(refused.value.details())
        assert core.posted == []

    asyncio.run(scene())


def test_a_late_reading_of_a_process_that_was_succeeded_is_refused() -> None:
    """Its window would seem to be of now, and what it shows would count until the next reading comes."""

    async def scene() -> FakeCore:
        core = FakeCore(METERED)
        async with serving(core) as (_, channel):
            service = MeterServiceStub(channel)
            for incarnation in (ME, ME + 1):
                request = _request()
                request.stamp.incarnation = incarnation
                await service.ReportReadings(request)
            late = _request()
            late.stamp.boottime_s = 101.0
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.ReportReadings(late)
            assert refused.value.code() is grpc.StatusCode.ABORTED
        return core

    assert len(asyncio.run(scene()).posted) == 2


def test_a_gateway_that_shares_a_meter_with_another_process_is_heard_of_the_others() -> None:
    """Another process tells of M2: of what the gateway reads in one request only that one is late."""

    async def scene() -> FakeCore:
        core = FakeCore(METERED)
        async with serving(core) as (_, channel):
            service = MeterServiceStub(channel)
            gateway, alone = _request(), _request()
            await service.ReportReadings(gateway)
            alone.stamp.incarnation = ME + 1
            del alone.readings[1]
            await service.ReportReadings(alone)
            gateway.stamp.boottime_s = 101.0
            await service.ReportReadings(gateway)
        return core

    events = [one for one in asyncio.run(scene()).posted if isinstance(one, MeterRead)]
    assert [event.meter.tolist() for event in events] == [[1, 0], [1], [0]]
    assert [event.current.shape for event in events] == [(2, 3), (1, 3), (1, 3)]


@pytest.mark.parametrize(("incarnation", "boottime_s", "taken"), [(ME, 40.1, 1), (ME, 39.9, 0), (9, 1.0, 1)])
def test_a_meter_is_not_silent_for_ever_because_a_clock_was_wrong_once(
    incarnation: int, boottime_s: float, taken: int
) -> None:
    """A stamp of 100 s was heard. What it may have overtaken is taken, and is old news; what it cannot is told to its
    sender, whose readings would change nothing until his clock shows that: a restart of his program mends it.
    """

    async def scene() -> FakeCore:
        core = FakeCore(METERED)
        heard = replace(core.snapshot.meters, incarnation=np.array([ME, 0]), stamp_s=np.array([100.0, -np.inf]))
        core.snapshot = replace(core.snapshot, meters=heard)
        core.tick()
        request = _request()
        request.stamp.CopyFrom(pb_common.Stamp(incarnation=incarnation, boottime_s=boottime_s))
        for reading in request.readings:
            reading.window_start_s, reading.window_end_s = boottime_s - 1.0, boottime_s
        async with serving(core) as (_, channel):
            call = MeterServiceStub(channel).ReportReadings(request)
            if taken:
                await call
            else:
                with pytest.raises(grpc.aio.AioRpcError, match="another incarnation"):
                    await call
        return core

    assert len(asyncio.run(scene()).posted) == taken
