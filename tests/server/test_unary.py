"""RequestSetpoint: one question, one grant; bad input changes nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import grpc
import grpc.aio
import numpy as np
import pytest

from powerd.control.events import Acked, CallReceived, FreshWanted, HelloReceived, Measured, PlugChanged, StampSeen
from powerd.server.directory import Directory
from powerd.server.publish import Publisher
from powerd.state.snapshot import freeze_snapshot
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from tests.server.dialogue import ME, hello, only_violation, serving, stamp, until_grants, until_its_end
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
    ("ack.applied_ceiling", lambda r: r.ack.CopyFrom(pb_common.Ack(epoch=1, seq=1, applied_ceiling=32000.0))),
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
        *(CallReceived, FreshWanted),
        *(StampSeen, Acked, Measured, FreshWanted),
    ]
    assert core.snapshot.drawn[1].tolist() == [12.0, 12.1, 11.9]
    assert core.snapshot.leases.acked_ceiling[1] == 12.5


@pytest.mark.parametrize("order", [(9, 1), (3, 100), (2, 1)])
def test_the_ack_of_a_grant_that_is_not_ours_is_told_as_a_hello_tells_it(order: tuple[int, int]) -> None:
    """Of another epoch, or of ours with a seq never sent: whole, with process and plug; it retires nothing."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            ask = ControllerServiceStub(channel).RequestSetpoint
            await ask(_request())
            again = _request(boottime_s=64.0)
            again.ack.CopyFrom(pb_common.Ack(epoch=order[0], seq=order[1], applied_ceiling=12.5))
            answer = await ask(again)
            assert answer.grant.epoch == max(3, order[0] + 1)
        return core

    core = asyncio.run(scene())
    said = core.of(CallReceived)[1]
    assert isinstance(said, CallReceived)
    assert (said.order, said.seen.boottime_s, said.plug.plug_boottime_s.tolist()) == (order, 64.0, [55.0])
    assert core.snapshot.leases.acked_seq[1] == 0


def test_a_dc_post_speaks_kilowatt() -> None:
    """Its grant is in kW and its measurement is one number."""

    async def scene() -> FakeCore:
        core = FakeCore()
        core.give[4] = 31.0
        async with serving(core) as (_, channel):
            request = _request("B2")
            request.measured.append(29.5009)
            answer = await ControllerServiceStub(channel).RequestSetpoint(request)
            assert (answer.grant.ceiling_kw, answer.grant.HasField("ceiling_a")) == (31.0, False)
        return core

    (measured,) = asyncio.run(scene()).of(Measured)
    assert isinstance(measured, Measured)
    assert measured.drawn.tolist() == [[29.5, 0.0, 0.0]]


def test_the_plug_is_told_when_it_is_news() -> None:
    """Another state, or a later time. A process says with its first call how it is, changed or not."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            ask = ControllerServiceStub(channel).RequestSetpoint

            async def told(incarnation: int, boottime_s: float, *, plugged: bool, plug_s: float) -> int:
                before = len(core.of(PlugChanged)) + len(core.of(CallReceived))
                request = pb.RequestSetpointRequest(
                    evse_id="A1", stamp=stamp(boottime_s, incarnation), plugged=plugged, plug_boottime_s=plug_s
                )
                await ask(request)
                return len(core.of(PlugChanged)) + len(core.of(CallReceived)) - before

            assert await told(ME, 60.0, plugged=True, plug_s=55.0) == 1
            assert await told(ME, 61.0, plugged=True, plug_s=55.0) == 0
            assert await told(ME, 63.0, plugged=True, plug_s=62.0) == 1
            assert await told(ME, 64.0, plugged=False, plug_s=63.5) == 1
            assert await told(ME + 1, 10.0, plugged=False, plug_s=0.0) == 1
            assert await told(ME + 1, 11.0, plugged=False, plug_s=0.0) == 0
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
            assert not core.of(CallReceived)
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


@pytest.mark.parametrize("absorbed", [True, False])
def test_a_call_that_a_newer_one_has_overtaken_only_asks(absorbed: bool) -> None:
    """Its "no car" is older than the car, also while the newer one waits for its tick; it is answered all the same."""

    async def scene() -> FakeCore:
        core = FakeCore(eager=absorbed)
        async with serving(core) as (_, channel):
            ask = ControllerServiceStub(channel).RequestSetpoint
            newest = asyncio.ensure_future(ask(_request(boottime_s=61.0)))
            await core.came(FreshWanted)
            late = _request()
            late.plugged, late.plug_boottime_s = False, 50.0
            late.ack.CopyFrom(pb_common.Ack(epoch=3, seq=1, applied_ceiling=0.0))
            late.measured.extend([0.0] * 3)
            overtaken = asyncio.ensure_future(ask(late))
            await core.came(FreshWanted, 2)
            core.tick()
            for call in (newest, overtaken):
                assert (await call).grant.echo == stamp(61.0)
        return core

    core = asyncio.run(scene())
    assert [type(event) for event in core.posted] == [CallReceived, FreshWanted, FreshWanted]


def test_calls_for_different_evses_may_overtake_each_other() -> None:
    """Each EVSE has its own order, and so has each process; a call said again, word for word, is heeded again."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            ask = ControllerServiceStub(channel).RequestSetpoint
            for evse_id, boottime_s in (("A2", 60.0), ("A1", 59.0), ("A1", 59.0)):
                await ask(_request(evse_id, boottime_s))
            reborn = _request(boottime_s=5.0)
            reborn.stamp.incarnation, reborn.plug_boottime_s = ME + 1, 4.0
            await ask(reborn)
        return core

    core = asyncio.run(scene())
    assert [len(core.of(kind)) for kind in (CallReceived, StampSeen)] == [3, 1]


def test_a_controller_that_changes_between_calls_and_a_stream_is_heard_in_its_order() -> None:
    """A hello that is older than a call is refused; of a call that is older than the hello nothing is heeded."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = ControllerServiceStub(channel)
            await stub.RequestSetpoint(_request(boottime_s=60.0))
            late = stub.Connect()
            await late.write(hello(boottime_s=59.0))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await late.read()
            assert only_violation(refused) == "hello.stamp.boottime_s"
            stream = stub.Connect()
            await stream.write(hello(boottime_s=70.0))
            await until_grants(stream)
            await stream.done_writing()
            await until_its_end(stream)
            await stub.RequestSetpoint(_request(boottime_s=69.0))
        return core

    core = asyncio.run(scene())
    assert [len(core.of(kind)) for kind in (HelloReceived, CallReceived, FreshWanted)] == [1, 1, 2]


def test_who_switched_phases_on_a_stream_and_now_calls_is_heard_as_one_who_does_not() -> None:
    """The first call of the process tells of its EVSE what a hello tells, and no later one does."""

    async def scene() -> FakeCore:
        core = FakeCore()
        freeze_snapshot(core.snapshot)  # as each tick does: columns that start as one part with the first news
        async with serving(core) as (_, channel):
            stub = ControllerServiceStub(channel)
            stream = stub.Connect()
            greeting = hello()
            greeting.hello.evses[1].switches_phases = True
            await stream.write(greeting)
            await until_grants(stream)
            assert core.snapshot.contactors.able[1]
            await stream.done_writing()
            await until_its_end(stream)
            for boottime_s in (60.0, 61.0):
                await stub.RequestSetpoint(_request(boottime_s=boottime_s))
        return core

    core = asyncio.run(scene())
    assert [len(core.of(kind)) for kind in (HelloReceived, CallReceived, StampSeen)] == [1, 1, 1]
    assert not core.snapshot.contactors.able.any()


def test_a_call_gets_the_newest_grant_though_an_older_raise_comes_after_it() -> None:
    """The raise waited for the disk and the stop did not: the caller must not be told to draw what is stopped."""
    core = FakeCore(eager=False)
    names = Directory.of(core.electrical)
    publisher = Publisher(names, core.electrical.controllers.ttl_s)
    raised = core.tick(raised={1: 32.0})
    stopped = core.tick(lowered={1: 0.0})
    with publisher.waiting(1, ME, 60.0) as call:
        publisher.publish_lowered(stopped)
        publisher.publish_raised(raised)
    assert call.grant is not None
    assert (call.grant.lease.seq, call.grant.ceiling) == (stopped.lowered.seq, 0.0)


def test_a_grant_of_before_the_call_is_not_yet_its_answer() -> None:
    """What a slow disk lets go meanwhile echoes an older stamp: the call waits for the tick that knew of it."""

    async def scene() -> None:
        core = FakeCore(eager=False)
        publisher = Publisher(Directory.of(core.electrical), core.electrical.controllers.ttl_s)
        one = np.array([1])
        core.post(StampSeen(evse=one, incarnation=ME, boottime_s=50.0))
        earlier = core.tick(raised={1: 32.0})
        core.post(StampSeen(evse=one, incarnation=ME, boottime_s=60.0))
        own = core.tick(raised={1: 16.0})
        with publisher.waiting(1, ME, 60.0) as call:
            publisher.publish_raised(earlier)
            assert not call.granted.is_set()
            publisher.publish_raised(own)
            assert call.granted.is_set()

    asyncio.run(scene())
