"""The controller stream over a real channel: bad messages change nothing, good ones become events, grants come back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace

import grpc
import grpc.aio
import numpy as np
import pytest

from powerd.control.events import (
    Acked,
    FreshWanted,
    HelloReceived,
    Measured,
    PlugChanged,
    RenewalAcked,
    StampSeen,
    StreamClosed,
)
from powerd.control.switch_events import GearClosed
from powerd.server.convert import hello_event, speaker_of
from powerd.server.directory import Directory
from powerd.server.gear_convert import GearNames
from powerd.server.gear_streams import GearStream, GearStreams
from powerd.server.publish import Publisher
from powerd.server.stamps import Stamps
from powerd.server.status import Superseded
from powerd.server.streams import Streams
from powerd.state.impaired import Trigger
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from tests.server.dialogue import (
    ME,
    Mouth,
    hello,
    only_violation,
    read,
    report,
    serving,
    stamp,
    until_grants,
    until_its_end,
)
from tests.server.fake import FakeCore, site_of

Hello = Callable[[pb.Hello], object]


def _set(path: str, value: object) -> Hello:
    """Sets evses[1].x or a field of the hello itself."""

    def change(said: pb.Hello) -> None:
        *parents, last = path.split(".")
        target: object = said
        for name in parents:
            target = said.evses[1] if name == "evse" else getattr(target, name)
        setattr(target, last, value)

    return change


BAD_HELLOS: list[tuple[str, Hello]] = [
    ("hello.controller_id", _set("controller_id", "nobody")),
    ("hello.stamp.incarnation", _set("stamp.incarnation", 0)),
    ("hello.stamp.boottime_s", _set("stamp.boottime_s", math.nan)),
    ("hello.stamp.boottime_s", _set("stamp.boottime_s", -1.0)),
    ("hello.stamp.boottime_s", _set("stamp.boottime_s", math.inf)),
    ("hello.highest_epoch", _set("highest_epoch", -1)),
    ("hello.report_number", _set("report_number", -1)),
    ("hello.evses", lambda said: said.evses.pop()),
    ("hello.evses[3].evse_id", lambda said: said.evses.add(evse_id="B1")),
    ("hello.evses[1].evse_id", _set("evse.evse_id", "B1")),
    ("hello.evses[1].evse_id", _set("evse.evse_id", "A1")),
    ("hello.evses[1].applied_ceiling", _set("evse.applied_ceiling", -0.5)),
    ("hello.evses[1].applied_ceiling", _set("evse.applied_ceiling", math.nan)),
    ("hello.evses[1].applied_ceiling", _set("evse.applied_ceiling", 1e9)),
    ("hello.evses[1].applied_ceiling", _set("evse.applied_ceiling", 321.0)),
    ("hello.evses[1].fallback", _set("evse.fallback", 6000.0)),
    ("hello.evses[1].fallback_idle", _set("evse.fallback_idle", 6000.0)),
    ("hello.evses[1].boot_ceiling", _set("evse.boot_ceiling", 6000.0)),
    ("hello.evses[1].remaining_ttl_s", _set("evse.remaining_ttl_s", 3601.0)),
    ("hello.evses[1].remaining_ttl_s", _set("evse.remaining_ttl_s", -1.0)),
    ("hello.evses[1].remaining_ttl_s", _set("evse.remaining_ttl_s", math.inf)),
    ("hello.evses[1].seq", _set("evse.seq", -1)),
    ("hello.evses[1].epoch", _set("evse.epoch", -1)),
    ("hello.evses[1].plug_boottime_s", _set("evse.plug_boottime_s", 50.5)),
    ("hello.evses[1].plug_boottime_s", _set("evse.plug_boottime_s", math.nan)),
]

APPLIED = pb.AppliedGrants
BAD_REPORTS: list[tuple[str, dict[str, object]]] = [
    ("report.report_number", {"report_number": -1}),
    ("report.measured", {"measured_index": [0], "measured": [1.0, 2.0]}),
    ("report.measured", {"measured": [1.0, 2.0, 3.0]}),
    ("report.measured[4]", {"measured_index": [0, 1], "measured": [1.0, 2.0, 3.0, 4.0, math.nan, 6.0]}),
    ("report.measured[0]", {"measured_index": [0], "measured": [-1.1, 0.0, 0.0]}),
    ("report.measured[2]", {"measured_index": [0], "measured": [0.0, 0.0, math.inf]}),
    ("report.measured_index[1]", {"measured_index": [0, 3], "measured": [0.0] * 6}),
    ("report.measured_index[0]", {"measured_index": [-1], "measured": [0.0] * 3}),
    ("report.measured_index", {"measured_index": [1, 1], "measured": [0.0] * 6}),
    ("report.measured_index", {"measured_index": [0, 1, 2, 0], "measured": [0.0] * 12}),
    ("report.plugged", {"plug_index": [0], "plug_boottime_s": [50.0]}),
    ("report.plug_boottime_s", {"plug_index": [0], "plugged": [True]}),
    ("report.plug_boottime_s[0]", {"plug_index": [0], "plugged": [True], "plug_boottime_s": [51.5]}),
    ("report.plug_boottime_s[0]", {"plug_index": [0], "plugged": [True], "plug_boottime_s": [math.nan]}),
    ("report.plug_index[0]", {"plug_index": [9], "plugged": [True], "plug_boottime_s": [50.0]}),
    ("report.want_index[0]", {"want_index": [3]}),
    ("report.applied[0].epoch", {"applied": [APPLIED(epoch=0, seq=1, index=[0], ceiling=[1.0])]}),
    ("report.applied[0].seq", {"applied": [APPLIED(epoch=1, seq=0, index=[0], ceiling=[1.0])]}),
    ("report.applied[0].ceiling", {"applied": [APPLIED(epoch=1, seq=1, index=[0])]}),
    ("report.applied[0].ceiling[0]", {"applied": [APPLIED(epoch=1, seq=1, index=[0], ceiling=[math.nan])]}),
    ("report.applied[0].ceiling[1]", {"applied": [APPLIED(epoch=1, seq=1, index=[0, 2], ceiling=[320.0, 321.0])]}),
    ("report.applied[0].index[0]", {"applied": [APPLIED(epoch=1, seq=1, index=[5], ceiling=[1.0])]}),
    ("report.applied[0].index", {"applied": [APPLIED(epoch=1, seq=1, index=[0], ceiling=[1.0], all=True)]}),
    ("report.applied", {"applied": [APPLIED(epoch=1, seq=k + 1, all=True) for k in range(1001)]}),
]


@pytest.mark.parametrize(("field", "spoil"), BAD_HELLOS)
def test_a_bad_hello_is_refused_by_field_and_changes_nothing(field: str, spoil: Hello) -> None:
    """INVALID_ARGUMENT, google.rpc.BadRequest with the path, and nothing in the inbox."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            first = hello()
            spoil(first.hello)
            await call.write(first)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert only_violation(refused) == field
        return core

    assert asyncio.run(scene()).posted == []


def test_a_hello_that_forgets_evses_is_told_which() -> None:
    """By their ids, and how many."""

    async def scene() -> str:
        async with serving(FakeCore()) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            first = hello()
            del first.hello.evses[1:]
            await call.write(first)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            return refused.value.details() or ""

    assert asyncio.run(scene()).endswith(
        "all 3 EVSEs that the site file gives to this controller; 2 are not in it: A2, A3"
    )


@pytest.mark.parametrize(("field", "said"), BAD_REPORTS)
def test_a_bad_report_is_refused_by_field_and_nothing_of_it_is_taken(field: str, said: dict[str, object]) -> None:
    """Also what is good in the same report stays out; the stream ends, which is told."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            await call.write(hello())
            await until_grants(call)
            await call.write(report(51.0, **said))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await until_grants(call)
            assert only_violation(refused) == field
        return core

    assert [type(event) for event in asyncio.run(scene()).posted] == [HelloReceived, StreamClosed]


def test_a_refusal_arrives_also_while_a_message_is_on_its_way() -> None:
    """A bad report right behind the hello, before the client has read the welcome: the stream ends, and says why."""

    async def scene() -> None:
        async with serving(FakeCore()) as (_, channel):
            for attempt in range(20):
                call = ControllerServiceStub(channel).Connect()
                await call.write(hello(boottime_s=50.0 + attempt / 100))
                await call.write(report(51.0, report_number=-1))
                async with asyncio.timeout(5):
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await until_its_end(call)
                assert only_violation(refused) == "report.report_number"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("field", "second"),
    [
        ("report.stamp.incarnation", pb.ConnectRequest(report=pb.Report(stamp=stamp(51.0, ME + 1)))),
        ("report.stamp.incarnation", pb.ConnectRequest(report=pb.Report())),
        ("report.stamp.boottime_s", report(49.0)),
        ("message", hello()),
        ("message", pb.ConnectRequest()),
    ],
)
def test_a_stream_has_one_hello_and_one_clock(field: str, second: pb.ConnectRequest) -> None:
    """The same process, time that does not go back, and no second hello."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            await call.write(hello())
            await until_grants(call)
            await call.write(second)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await until_grants(call)
            assert only_violation(refused) == field

    asyncio.run(scene())


def test_a_stream_that_starts_with_a_report_is_refused() -> None:
    """Without a hello nobody knows what an index means."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            await call.write(report())
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert only_violation(refused) == "message"
        assert core.posted == []

    asyncio.run(scene())


def test_the_hello_defines_the_places() -> None:
    """EVSEs in another order than the site's: events name the site's columns, grants the hello's places."""

    async def scene() -> None:
        core = FakeCore()
        core.give[:3] = [10.0, 20.0, 30.0]
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            await call.write(hello(evses=("A3", "A1", "A2")))
            welcome = await read(call)
            assert welcome.welcome.ttl.seconds == 15
            assert welcome.welcome.report_within.ToMilliseconds() == 3750
            grants = await until_grants(call)
            assert dict(zip(grants.index, grants.ceiling, strict=True)) == {0: 30.0, 1: 10.0, 2: 20.0}
            assert (grants.echo.incarnation, grants.echo.boottime_s) == (ME, 50.0)
            await call.write(report(52.0, want_index=[1]))
            assert list((await until_grants(call)).index) == [1]
        (greeting,) = core.of(HelloReceived)
        assert isinstance(greeting, HelloReceived)
        assert greeting.evse.tolist() == [2, 0, 1]
        (want,) = core.of(FreshWanted)
        assert isinstance(want, FreshWanted)
        assert want.evse.tolist() == [0]

    asyncio.run(scene())


def test_a_report_becomes_events_in_one_post() -> None:
    """Stamp, acks, plugs, readings: each with the columns it belongs to."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            await call.write(hello(evses=("A3", "A1", "A2")))
            first = await until_grants(call)
            applied = [APPLIED(epoch=first.epoch, seq=first.seq, index=[0, 2], ceiling=[8.0, 8.0])]
            applied.append(APPLIED(epoch=first.epoch, seq=first.seq, all=True))
            await call.write(
                report(
                    52.0,
                    applied=applied,
                    measured_index=[2, 0],
                    measured=[1.0, 2.0, 3.0009, 4.0, -0.02, 6.0],
                    plug_index=[1],
                    plugged=[True],
                    plug_boottime_s=[51.5],
                    want_index=[0],
                )
            )
            await until_grants(call)
        return core

    _, seen, ack, all_, plug, measured, _, _ = asyncio.run(scene()).posted
    assert isinstance(seen, StampSeen)
    assert (seen.evse.tolist(), seen.boottime_s) == ([2, 0, 1], 52.0)
    assert isinstance(ack, Acked)
    assert (ack.evse.tolist(), ack.ceiling.tolist()) == ([2, 1], [8.0, 8.0])
    assert isinstance(all_, RenewalAcked)
    assert all_.evse.tolist() == [2, 0, 1]
    assert isinstance(plug, PlugChanged)
    assert (plug.evse.tolist(), plug.plugged.tolist(), plug.plug_boottime_s.tolist()) == ([0], [True], [51.5])
    assert isinstance(measured, Measured)
    assert measured.evse.tolist() == [1, 2]
    assert measured.drawn.tolist() == [[1.0, 2.0, 3.0], [4.0, 0.0, 6.0]]


def test_a_second_stream_takes_over() -> None:
    """The old one ends with ABORTED, no end is told for it, and the new one gets the grants."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = ControllerServiceStub(channel)
            old = stub.Connect()
            await old.write(hello())
            await until_grants(old)
            new = stub.Connect()
            await new.write(hello(incarnation=ME + 1))
            assert (await until_grants(new)).echo.incarnation == ME + 1
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await until_grants(old)
            assert ended.value.code() is grpc.StatusCode.ABORTED
            core.tick(lowered={0: 5.0})
            assert list((await until_grants(new)).ceiling) == [5.0]
            assert core.of(StreamClosed) == []
        return core

    assert len(asyncio.run(scene()).of(HelloReceived)) == 2


@pytest.mark.parametrize("boottime_s", [50.0, 49.0])
def test_a_hello_no_newer_than_the_last_changes_nothing(boottime_s: float) -> None:
    """It may be one of a connection given up: it is refused by its stamp, and the stream that is open goes on."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = ControllerServiceStub(channel)
            open_now = stub.Connect()
            await open_now.write(hello(boottime_s=50.0))
            await until_grants(open_now)
            late = stub.Connect()
            await late.write(hello(boottime_s=boottime_s))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await until_its_end(late)
            assert only_violation(refused) == "hello.stamp.boottime_s"
            core.tick(lowered={0: 5.0})
            assert list((await until_grants(open_now)).ceiling) == [5.0]
        return core

    assert len(asyncio.run(scene()).of(HelloReceived)) == 1


def test_the_end_of_a_stream_is_told_once_while_the_disk_refuses() -> None:
    """It is taken in, and the alarms tell of the disk: no stack trace in the log for each stream that ends then."""

    async def scene() -> None:
        core = FakeCore()
        core.disk_refuses = True
        names = Directory.of(core.electrical)
        publisher = Publisher(names, core.electrical.controllers.ttl_s)
        speaker = speaker_of(0, hello_event(hello().hello, names), names)
        stream = publisher.open(speaker, 1, asyncio.get_running_loop().create_future())
        publisher.close(stream)
        await Streams(core, names, publisher, Stamps())._tell_closed(stream)
        gear = GearStreams(core, GearNames.of(core.electrical))
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await gear._tell_closed(
            GearStream(reporter_id="g", branch=np.array([0]), incarnation=ME, boottime_s=1.0, ended=ended)
        )
        closed, unlinked = core.posted
        assert isinstance(closed, StreamClosed)
        assert isinstance(unlinked, GearClosed)

    asyncio.run(scene())


def test_the_end_of_a_stream_is_told_however_full_the_inbox_is(caplog: pytest.LogCaptureFixture) -> None:
    """A controller that hangs up while the inbox is full is still known to be gone, later; the log names it at once."""
    caplog.set_level(logging.INFO, "powerd")

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            await call.write(hello())
            await until_grants(call)
            core.full = True
            call.cancel()
            await asyncio.sleep(3 * core.tick_s)
            assert core.of(StreamClosed) == []
            said = [record.getMessage() for record in caplog.records if record.name == "powerd.server.streams"]
            assert said == ["controller c0 connected with 3 EVSEs", "controller c0: its stream has ended"]
            core.full = False
            await asyncio.sleep(3 * core.tick_s)
            (closed,) = core.of(StreamClosed)
            assert isinstance(closed, StreamClosed)
            assert closed.evse.tolist() == [0, 1, 2]

    asyncio.run(scene())


@pytest.mark.parametrize("when", ["at the hello", "at a report"])
def test_a_full_inbox_ends_the_stream(when: str) -> None:
    """RESOURCE_EXHAUSTED: a report that is lost could hide a plug; the next hello tells everything."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            core.full = when == "at the hello"
            await call.write(hello())
            if not core.full:
                await until_grants(call)
                core.full = True
                await call.write(report())
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await until_grants(call)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(scene())


def test_a_hello_that_was_put_off_while_the_disk_was_away_is_asked_for_again() -> None:
    """UNAVAILABLE at the first report once the disk is well, not before; the hello that follows is followed."""

    async def scene() -> None:
        core = FakeCore()
        began = core.snapshot.impaired.began(Trigger.DISK_FAILED, None)
        core.snapshot = replace(core.snapshot, impaired=began)
        ahead = hello()
        ahead.hello.highest_epoch = 9
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            await call.write(ahead)
            for boottime_s in (51.0, 52.0):
                await call.write(report(boottime_s))
                await core.came(StampSeen, int(boottime_s) - 50)
            core.snapshot = replace(core.snapshot, impaired=began.ended(Trigger.DISK_FAILED))
            core.tick()
            await call.write(report(53.0))
            with pytest.raises(grpc.aio.AioRpcError, match="connect again") as refused:
                await asyncio.wait_for(until_its_end(call), 10)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert len(core.of(StampSeen)) == 2
            again = ControllerServiceStub(channel).Connect()
            ahead.hello.stamp.boottime_s = 54.0
            await again.write(ahead)
            assert (await until_grants(again)).epoch == 10

    asyncio.run(scene())


def test_renewals_count_what_the_stream_has_carried() -> None:
    """Grants and renewals count, the welcome does not; the echo is the stamp that the tick had absorbed."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            call = ControllerServiceStub(channel).Connect()
            await call.write(hello())
            await until_grants(call)
            await call.write(report(53.0, want_index=[0]))
            await until_grants(call)
            for count in (2, 3):
                core.tick(renew=[0])
                message = await read(call)
                assert message.renew_all.count == count
                assert message.renew_all.echo.boottime_s == 53.0
                assert message.renew_all.ttl.seconds == 15

    asyncio.run(scene())


def test_a_hundred_streams_are_each_served_every_tick() -> None:
    """A hundred controllers over one connection, lowered together, each get their own ceiling within the tick."""
    n = 100

    async def scene() -> None:
        core = FakeCore(site_of(n), eager=False)
        async with serving(core) as (_, channel):
            stub = ControllerServiceStub(channel)
            calls = [stub.Connect() for _ in range(n)]
            for k, call in enumerate(calls):
                await call.write(hello(f"k{k}", (f"k{k}e",)))
            await asyncio.gather(*(call.read() for call in calls))  # the welcomes
            core.tick()
            await asyncio.gather(*(until_grants(call) for call in calls))
            owner = core.electrical.posts.controller
            for round_ in range(3):
                wanted = {int(i): 6.0 + round_ + 0.01 * int(owner[i]) for i in range(n)}
                core.tick(lowered=wanted)
                got = await asyncio.wait_for(asyncio.gather(*(until_grants(call) for call in calls)), 10)
                assert [list(g.ceiling) for g in got] == [
                    [wanted[int(np.flatnonzero(owner == k)[0])]] for k in range(n)
                ]
                assert {g.seq for g in got} == {core.snapshot.leases.seq}

    asyncio.run(scene())


def test_what_a_replaced_stream_still_delivers_is_not_heard() -> None:
    """Its report comes in the same turn as the newer hello: absorbed after it, it would unplug the car of today."""

    async def scene() -> FakeCore:
        core = FakeCore()
        names = Directory.of(core.electrical)
        streams = Streams(core, names, Publisher(names, core.electrical.controllers.ttl_s), Stamps())
        old, new = Mouth[pb.ConnectRequest](), Mouth[pb.ConnectRequest]()
        runs = [asyncio.ensure_future(streams.run(mouth, mouth)) for mouth in (old, new)]  # type: ignore[arg-type]
        old.say(hello(boottime_s=50.0))
        await core.came(HelloReceived)
        new.say(hello(boottime_s=60.0))
        old.say(report(55.0, plug_index=[0], plugged=[False], plug_boottime_s=[54.0]))
        with pytest.raises(Superseded):
            await asyncio.wait_for(runs[0], 5)
        runs[1].cancel()
        return core

    assert [type(event) for event in asyncio.run(scene()).posted] == [HelloReceived, HelloReceived]
