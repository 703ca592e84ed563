"""RequestSetpoint: one question, one grant; bad input changes nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import grpc
import grpc.aio
import pytest

from powerd.control.events import Acked, FreshWanted, Measured, PlugChanged, StampSeen
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from tests.server.dialogue import ME, hello, only_violation, serving, stamp, until_grants
from tests.server.fake import FakeCore

Change = Callable[[pb.RequestSetpointRequest], object]


def _request(evse_id: str = "A2", boottime_s: float = 60.0) -> pb.RequestSetpointRequest:
    return pb.RequestSetpointRequest(evse_id=evse_id, stamp=stamp(boottime_s), plugged=True, plug_boottime_s=55.0)


BAD: list[tuple[str, Change]] = [
    ("evse_id", lambda r: r.ClearField("evse_id")),
    ("evse_id", lambda r: setattr(r, "evse_id", "x" * 129)),
    ("stamp.incarnation", lambda r: r.ClearField("stamp")),
    ("stamp.boottime_s", lambda r: setattr(r.stamp, "boottime_s", math.nan)),
    ("stamp.boottime_s", lambda r: setattr(r.stamp, "boottime_s", -1.0)),
    ("plug_boottime_s", lambda r: setattr(r, "plug_boottime_s", 61.0)),
    ("plug_boottime_s", lambda r: setattr(r, "plug_boottime_s", -math.inf)),
    ("ack.epoch", lambda r: r.ack.CopyFrom(pb_common.Ack(seq=1))),
    ("ack.seq", lambda r: r.ack.CopyFrom(pb_common.Ack(epoch=1))),
    ("ack.applied_ceiling", lambda r: r.ack.CopyFrom(pb_common.Ack(epoch=1, seq=1, applied_ceiling=-1.0))),
    ("measured", lambda r: r.measured.append(1.0)),
    ("measured", lambda r: r.measured.extend([1.0] * 4)),
    ("measured[1]", lambda r: r.measured.extend([1.0, math.nan, 1.0])),
    ("measured[2]", lambda r: r.measured.extend([1.0, 1.0, -1.1])),
]


@pytest.mark.parametrize(("field", "spoil"), BAD)
def test_a_bad_request_is_refused_by_field_and_changes_nothing(field: str, spoil: Change) -> None:
    """INVALID_ARGUMENT with the path; the inbox stays empty."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            request = _request()
            spoil(request)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ControllerServiceStub(channel).RequestSetpoint(request)
            assert only_violation(refused) == field
        return core

    assert asyncio.run(scene()).posted == []


def test_an_unknown_evse_is_not_found() -> None:
    """NOT_FOUND, not a bad request: the name may be right elsewhere."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ControllerServiceStub(channel).RequestSetpoint(_request("Z9"))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        return core

    assert asyncio.run(scene()).posted == []


def test_a_request_is_answered_with_the_grant_of_its_tick() -> None:
    """Own ceiling, lease, the stamp just sent, when to come back, and the sentence; the ack rides on the next."""

    async def scene() -> FakeCore:
        core = FakeCore()
        core.give[1] = 12.5
        async with serving(core) as (_, channel):
            ask = ControllerServiceStub(channel).RequestSetpoint
            first = await ask(_request())
            grant = first.grant
            assert (grant.ceiling_a, grant.HasField("ceiling_kw"), grant.latched) == (12.5, False, False)
            assert (grant.epoch, grant.ttl.seconds) == (3, 15)
            assert grant.echo == stamp(60.0)
            assert first.next_request_in.ToMilliseconds() == 5000
            assert "12.5 A" in first.reason
            again = _request(boottime_s=64.0)
            again.ack.CopyFrom(pb_common.Ack(epoch=grant.epoch, seq=grant.seq, applied_ceiling=12.5))
            again.measured.extend([12.0, 12.1, 11.9])
            second = await ask(again)
            assert second.grant.seq > grant.seq
            assert second.grant.echo.boottime_s == 64.0
        return core

    core = asyncio.run(scene())
    assert [type(e) for e in core.posted] == [
        *(StampSeen, PlugChanged, FreshWanted),
        *(StampSeen, Acked, Measured, FreshWanted),
    ]
    assert core.snapshot.drawn[1].tolist() == [12.0, 12.1, 11.9]
    assert core.snapshot.leases.acked_ceiling[1] == 12.5


def test_a_dc_post_speaks_kilowatt() -> None:
    """Its grant is in kW and its measurement is one number."""

    async def scene() -> FakeCore:
        core = FakeCore()
        core.give[4] = 31.0
        async with serving(core) as (_, channel):
            request = _request("B2")
            request.measured.append(29.5)
            answer = await ControllerServiceStub(channel).RequestSetpoint(request)
            assert (answer.grant.ceiling_kw, answer.grant.HasField("ceiling_a")) == (31.0, False)
        return core

    (measured,) = asyncio.run(scene()).of(Measured)
    assert isinstance(measured, Measured)
    assert measured.drawn.tolist() == [[29.5, 0.0, 0.0]]


def test_the_plug_is_told_when_it_is_news() -> None:
    """Same state and time: nothing. Another state, a later time, or a changed plug in a new process: told."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            ask = ControllerServiceStub(channel).RequestSetpoint

            async def told(incarnation: int, boottime_s: float, *, plugged: bool, plug_s: float) -> int:
                before = len(core.of(PlugChanged))
                request = pb.RequestSetpointRequest(
                    evse_id="A1", stamp=stamp(boottime_s, incarnation), plugged=plugged, plug_boottime_s=plug_s
                )
                await ask(request)
                return len(core.of(PlugChanged)) - before

            assert await told(ME, 60.0, plugged=True, plug_s=55.0) == 1
            assert await told(ME, 61.0, plugged=True, plug_s=55.0) == 0
            assert await told(ME, 63.0, plugged=True, plug_s=62.0) == 1
            assert await told(ME, 64.0, plugged=False, plug_s=63.5) == 1
            assert await told(ME + 1, 10.0, plugged=False, plug_s=0.0) == 0
            assert await told(ME + 2, 10.0, plugged=False, plug_s=4.0) == 1

    asyncio.run(scene())


def test_a_stalled_ticker_is_told_after_two_ticks() -> None:
    """UNAVAILABLE, soon enough for a retry within the lease."""

    async def scene() -> None:
        core = FakeCore(eager=False)
        async with serving(core) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asyncio.wait_for(ControllerServiceStub(channel).RequestSetpoint(_request()), 5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scene())


def test_a_full_inbox_is_told() -> None:
    """RESOURCE_EXHAUSTED: nothing was taken."""

    async def scene() -> None:
        core = FakeCore()
        core.full = True
        async with serving(core) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ControllerServiceStub(channel).RequestSetpoint(_request())
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(scene())


def test_a_controller_speaks_by_stream_or_by_calls() -> None:
    """While its stream is open a single call is refused: two clocks for one EVSE would void each other's grants."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = ControllerServiceStub(channel)
            call = stub.Connect()
            await call.write(hello())
            await until_grants(call)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.RequestSetpoint(_request())
            assert refused.value.code() is grpc.StatusCode.ABORTED
            assert not core.of(StampSeen)
            await stub.RequestSetpoint(_request("B1"))

    asyncio.run(scene())


def test_calls_at_once_for_one_evse_are_all_answered() -> None:
    """A client that retries before the answer came gets both answers, none older than its own request."""

    async def scene() -> None:
        core = FakeCore(eager=False)
        async with serving(core) as (_, channel):
            ask = ControllerServiceStub(channel).RequestSetpoint
            calls = [asyncio.ensure_future(ask(_request(boottime_s=60.0 + k))) for k in range(5)]
            await core.came(FreshWanted, 5)
            core.tick()
            answers = await asyncio.gather(*calls)
            assert {a.grant.echo.boottime_s for a in answers} == {64.0}

    asyncio.run(scene())
