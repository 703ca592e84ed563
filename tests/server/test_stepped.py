"""The stepped clock: a tick waits for the reports it is told of, and its grants are on the streams when it answers."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import numpy as np
import pytest

from powerd.control.decision import Decision
from powerd.server.stepped import binding_rows
from powerd.units import Now
from powerd.v1 import stepped_clock_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from powerd.v1.session_service_pb2 import StartSessionRequest
from powerd.v1.session_service_pb2_grpc import SessionServiceStub
from powerd.v1.stepped_clock_service_pb2_grpc import SteppedClockServiceStub
from tests.server.dialogue import hello, only_violation, read, report, serving
from tests.server.fake import FakeCore


def _step(boottime_s: float, reports: dict[str, int]) -> pb.AdvanceRequest:
    return pb.AdvanceRequest(boottime_s=boottime_s, controller_id=list(reports), report_number=list(reports.values()))


def test_a_tick_waits_for_the_reports_and_its_grants_are_counted() -> None:
    """Advance is asked before the report is sent; it ticks after it has come, and says what the stream carried."""

    async def scene() -> None:
        core = FakeCore(eager=False)
        async with serving(core, stepped=True) as (_, channel):
            clock = SteppedClockServiceStub(channel)
            call = ControllerServiceStub(channel).Connect()
            waiting = asyncio.ensure_future(clock.Advance(_step(10.0, {"c0": 2})))
            await call.write(hello(number=1))
            await read(call)
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert core.decision is None
            await call.write(report(51.0, report_number=2))
            answer = await waiting
            assert (answer.tick, list(answer.controller_id), list(answer.message_count)) == (1, ["c0"], [1])
            assert (await read(call)).grants.echo.boottime_s == 51.0
            assert core.now_s == 10.0
            answer = await clock.Advance(_step(11.0, {"c0": 2}))
            assert list(answer.message_count) == [1]

    asyncio.run(scene())


def test_a_tick_waits_for_session_calls_too() -> None:
    """Two simulations are equal only if the same tick absorbs the same calls."""

    async def scene() -> None:
        core = FakeCore(eager=False)
        async with serving(core, stepped=True) as (_, channel):
            advance = SteppedClockServiceStub(channel).Advance(pb.AdvanceRequest(boottime_s=1.0, session_call_count=1))
            waiting = asyncio.ensure_future(advance)
            await asyncio.sleep(0.05)
            assert core.decision is None
            start = SessionServiceStub(channel).StartSession(StartSessionRequest(evse_id="A1", session_id="s"))
            await waiting
            assert core.snapshot.sessions.session_id[0] == "s"
            assert (await start).session.session_id == "s"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("boottime_s", pb.AdvanceRequest(boottime_s=9.0)),
        ("boottime_s", pb.AdvanceRequest(boottime_s=float("nan"))),
        ("report_number", pb.AdvanceRequest(boottime_s=11.0, controller_id=["c0"])),
        ("controller_id[0]", pb.AdvanceRequest(boottime_s=11.0, controller_id=["zz"], report_number=[1])),
        ("report_number[0]", pb.AdvanceRequest(boottime_s=11.0, controller_id=["c0"], report_number=[-1])),
    ],
)
def test_a_bad_step_is_refused_by_field(field: str, request_: pb.AdvanceRequest) -> None:
    """Time does not go back, and nobody unknown is waited for."""

    async def scene() -> None:
        async with serving(FakeCore(), stepped=True) as (_, channel):
            clock = SteppedClockServiceStub(channel)
            await clock.Advance(pb.AdvanceRequest(boottime_s=10.0))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await clock.Advance(request_)
            assert only_violation(refused) == field

    asyncio.run(scene())


def test_time_does_not_go_back_behind_a_step_whose_caller_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tick is made all the same, so the next one cannot be of an instant before it."""

    async def scene() -> None:
        core, begun = FakeCore(), asyncio.Event()

        async def hangs(_now: Now) -> Decision:
            begun.set()
            return await asyncio.Future[Decision]()

        monkeypatch.setattr(core, "advance", hangs)
        async with serving(core, stepped=True) as (_, channel):
            clock = SteppedClockServiceStub(channel)
            call = clock.Advance(pb.AdvanceRequest(boottime_s=10.0))
            gone = asyncio.ensure_future(call)
            await asyncio.wait_for(begun.wait(), 10)
            call.cancel()
            await asyncio.wait((gone,))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await clock.Advance(pb.AdvanceRequest(boottime_s=9.0), timeout=5.0)
            assert only_violation(refused) == "boottime_s"

    asyncio.run(scene())


def test_a_report_that_does_not_come_is_told() -> None:
    """DEADLINE_EXCEEDED within the caller's own deadline, and no tick."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core, stepped=True) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError, match="did not come") as refused:
                await SteppedClockServiceStub(channel).Advance(_step(10.0, {"c0": 1}), timeout=1.0)
            assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert core.decision is None

    asyncio.run(scene())


def test_an_ordinary_daemon_has_no_such_service() -> None:
    """UNIMPLEMENTED: nobody moves the clock of a real site."""

    async def scene() -> None:
        async with serving(FakeCore()) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await SteppedClockServiceStub(channel).Advance(pb.AdvanceRequest(boottime_s=1.0))
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(scene())


def test_rows_within_a_percent_of_their_rating_bind() -> None:
    """Counted on the wants, uncontrolled load included; an empty row never binds."""
    core = FakeCore()
    decision = core.tick()
    rows = core.limits.row_count
    core.want[:] = 0.0
    assert binding_rows(core.limits, decision) == 0
    core.want[:] = np.where(core.electrical.posts.is_dc, 0.0, 0.991 * 400 / 4)
    assert binding_rows(core.limits, decision) == rows
    core.want[:] *= 0.98
    assert binding_rows(core.limits, decision) == 0
    decision.uncontrolled[:] = 10.0
    assert binding_rows(core.limits, decision) == rows
