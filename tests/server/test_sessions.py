"""SessionService over a real channel."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import grpc.aio
import pytest

from powerd.control.events import Demand, SessionStarted, SessionUpdated
from powerd.state.snapshot import pages_of
from powerd.v1 import session_service_pb2 as pb
from powerd.v1.session_service_pb2_grpc import SessionServiceStub
from tests.server.dialogue import only_violation, serving
from tests.server.fake import FakeCore

Change = Callable[[pb.StartSessionRequest], object]


def _put(field: str, value: float) -> Change:
    return lambda request: setattr(request.demand, field, value)


BAD: list[tuple[str, Change]] = [
    ("request_id", lambda r: setattr(r, "request_id", "x" * 65)),
    ("session_id", lambda r: setattr(r, "session_id", "x" * 129)),
    ("evse_id", lambda r: r.ClearField("evse_id")),
    ("demand.requested_energy_kwh", _put("requested_energy_kwh", 0.0)),
    ("demand.requested_energy_kwh", _put("requested_energy_kwh", math.nan)),
    ("demand.requested_energy_kwh", _put("requested_energy_kwh", math.inf)),
    ("demand.min_current_a", _put("min_current_a", 5.0)),
    ("demand.min_current_a", _put("min_current_a", math.nan)),
    ("demand.max_current_a", _put("max_current_a", -1.0)),
    ("demand.max_current_a", lambda r: (_put("min_current_a", 10.0)(r), _put("max_current_a", 8.0)(r))),
    ("demand.max_current_a", _put("max_current_a", 3.0)),  # found by the tick: below the post's minimum
    ("demand.max_power_kw", _put("max_power_kw", 11.0)),
    ("demand.priority", _put("priority", 10)),
    ("demand.priority", _put("priority", -1)),
    ("demand.weight", _put("weight", 0.0)),
    ("demand.weight", _put("weight", 1001.0)),
    ("demand.departure_time", lambda r: setattr(r.demand.departure_time, "seconds", 10**12)),
    ("demand.departure_time", lambda r: setattr(r.demand.departure_time, "nanos", -1)),
]


@pytest.mark.parametrize(("field", "spoil"), BAD)
def test_a_bad_start_is_refused_by_field_and_starts_nothing(field: str, spoil: Change) -> None:
    """INVALID_ARGUMENT with the path, whether the door or the tick finds it."""

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            request = pb.StartSessionRequest(evse_id="A1")
            spoil(request)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await SessionServiceStub(channel).StartSession(request)
            assert only_violation(refused) == field
        return core

    assert set(asyncio.run(scene()).snapshot.sessions.session_id) == {""}


@pytest.mark.parametrize("field", ["min_current_a", "max_current_a"])
def test_a_dc_post_is_not_told_ampere(field: str) -> None:
    """The mend is in the answer: max_power_kw."""

    async def scene() -> None:
        async with serving(FakeCore()) as (_, channel):
            request = pb.StartSessionRequest(evse_id="B2")
            _put(field, 10.0)(request)
            with pytest.raises(grpc.aio.AioRpcError, match="max_power_kw") as refused:
                await SessionServiceStub(channel).StartSession(request)
            assert only_violation(refused) == f"demand.{field}"

    asyncio.run(scene())


def test_what_the_driver_says_reaches_the_tick_and_comes_back() -> None:
    """Start, update with one field, list, stop: absent fields stay absent or stay as they were."""
    leaves = datetime(2026, 3, 1, 17, 30, tzinfo=UTC)

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = SessionServiceStub(channel)
            request = pb.StartSessionRequest(evse_id="A2", session_id="s1")
            request.demand.requested_energy_kwh = 20.0
            request.demand.departure_time.FromDatetime(leaves)
            request.demand.priority = 2
            session = (await stub.StartSession(request)).session
            assert (session.session_id, session.evse_id) == ("s1", "A2")
            assert session.start_time.ToDatetime(tzinfo=UTC) == datetime(2026, 1, 1, tzinfo=UTC)
            update = pb.UpdateSessionRequest(session_id="s1", demand=pb.Demand(max_current_a=16.0))
            session = (await stub.UpdateSession(update)).session
            assert (session.demand.requested_energy_kwh, session.demand.max_current_a) == (20.0, 16.0)
            assert session.demand.departure_time.ToDatetime(tzinfo=UTC) == leaves
            assert session.demand.priority == 2
            assert [s.session_id for s in (await stub.ListSessions(pb.ListSessionsRequest())).sessions] == ["s1"]
            stopped = await stub.StopSession(pb.StopSessionRequest(session_id="s1"))
            assert (stopped.session.session_id, stopped.session.evse_id) == ("s1", "A2")
            assert not (await stub.ListSessions(pb.ListSessionsRequest())).sessions
        return core

    started, updated, _ = asyncio.run(scene()).posted
    assert isinstance(started, SessionStarted)
    assert started.demand == Demand(requested_energy_kwh=20.0, departure_time=leaves, priority=2)
    assert isinstance(updated, SessionUpdated)
    assert updated.demand == Demand(max_ceiling=16.0)


def test_a_retry_with_the_same_request_id_gives_the_same_session() -> None:
    """Also when powerd makes the id: two sends, one session."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = SessionServiceStub(channel)
            request = pb.StartSessionRequest(evse_id="A1", request_id="r-1")
            first, second = await stub.StartSession(request), await stub.StartSession(request)
            assert first.session.session_id == second.session.session_id != ""
            assert first.session.evse_id == second.session.evse_id == "A1"
            assert len([name for name in core.snapshot.sessions.session_id if name]) == 1

    asyncio.run(scene())


def test_a_retry_that_comes_when_the_session_is_over_gives_the_answer_of_then() -> None:
    """Another car is at the post, of another session, or the id has gone to another kind of post."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = SessionServiceStub(channel)
            start = pb.StartSessionRequest(evse_id="A1", session_id="s", request_id="1", demand=pb.Demand(priority=3))
            await stub.StartSession(start)
            update = pb.UpdateSessionRequest(session_id="s", request_id="2", demand=pb.Demand(max_current_a=20.0))
            updated = (await stub.UpdateSession(update)).session
            stop = pb.StopSessionRequest(session_id="s", request_id="3")
            stopped = (await stub.StopSession(stop)).session
            assert (stopped.evse_id, stopped.demand.max_current_a, stopped.demand.priority) == ("A1", 20.0, 3)
            await stub.StartSession(pb.StartSessionRequest(evse_id="A1", session_id="other"))
            for elsewhere in (False, True):
                if elsewhere:
                    await stub.StartSession(pb.StartSessionRequest(evse_id="B2", session_id="s"))
                assert (await stub.StopSession(stop)).session == stopped
                again = (await stub.UpdateSession(update)).session
                assert (again.evse_id, again.demand, again.reason) == ("A1", updated.demand, "")

    asyncio.run(scene())


def test_a_retry_of_what_an_older_powerd_did_is_told_of_the_session_as_long_as_it_runs() -> None:
    """Its journal kept the id of the session and its post; what is known of the running one is told beside that."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = SessionServiceStub(channel)
            start = pb.StartSessionRequest(evse_id="A2", session_id="s", request_id="1", demand=pb.Demand(priority=3))
            wanted = (await stub.StartSession(start)).session
            kept = [replace(one, session=None) for page in core.snapshot.answered for one in page]
            core.snapshot = replace(core.snapshot, answered=pages_of(kept))
            again = (await stub.StartSession(start)).session
            assert (again.evse_id, again.demand, again.start_time) == ("A2", wanted.demand, wanted.start_time)
            await stub.StopSession(pb.StopSessionRequest(session_id="s"))
            assert (await stub.StartSession(start)).session == pb.Session(session_id="s")

    asyncio.run(scene())


@pytest.mark.parametrize("call", ["UpdateSession", "StopSession"])
def test_an_unknown_session_is_not_found(call: str) -> None:
    """NOT_FOUND, not a crash, not a silent success."""

    async def scene() -> None:
        core = FakeCore()
        core.eager = True
        async with serving(core) as (_, channel):
            core.tick()
            request = getattr(pb, f"{call}Request")(session_id="gone")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await getattr(SessionServiceStub(channel), call)(request)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(scene())


def test_an_id_in_use_elsewhere_is_refused() -> None:
    """The tick finds it and names the field."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            stub = SessionServiceStub(channel)
            await stub.StartSession(pb.StartSessionRequest(evse_id="A1", session_id="s"))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.StartSession(pb.StartSessionRequest(evse_id="A2", session_id="s"))
            assert only_violation(refused) == "session_id"

    asyncio.run(scene())


def test_watching_shows_each_change_once() -> None:
    """The picture now, then one after each tick that changed it; a tick without news sends nothing."""

    async def scene() -> None:
        core = FakeCore(eager=False)
        core.tick()
        async with serving(core) as (_, channel):
            stub = SessionServiceStub(channel)
            watch = stub.WatchSessions(pb.WatchSessionsRequest())

            async def seen() -> list[str]:
                picture = await watch.read()
                assert isinstance(picture, pb.WatchSessionsResponse)
                return [s.session_id for s in picture.sessions]

            assert await seen() == []
            core.tick()
            await asyncio.sleep(0.05)
            for count, (name, evse_id) in enumerate((("s1", "A1"), ("s2", "B2")), start=1):
                start = asyncio.ensure_future(
                    stub.StartSession(pb.StartSessionRequest(evse_id=evse_id, session_id=name))
                )
                await core.came(SessionStarted, count)
                core.tick()
                await start
                assert (await seen())[-1] == name

    asyncio.run(scene())
