"""SwitchgearService over a real channel: what is reported, ordered one at a time, tried, taken out, and refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from powerd.control import switch_events as sw
from powerd.control.decision import Decision, GrantBatch, Renewal
from powerd.control.events import Outcome
from powerd.control.switching import advance
from powerd.control.topology import observe
from powerd.network.plan import Planner
from powerd.server.gear_convert import ENTRIES_MAX, GearNames
from powerd.server.gear_streams import GearStreams
from powerd.server.status import Superseded
from powerd.state.columns import freeze
from powerd.state.snapshot import columns_of
from powerd.state.switchgear import Cause, Phase, Position
from powerd.units import Now
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import switchgear_service_pb2 as pb
from powerd.v1.switchgear_service_pb2_grpc import SwitchgearServiceStub
from tests.server.dialogue import ME, Mouth, only_violation, serving, stamp
from tests.server.fake import FakeCore

if TYPE_CHECKING:
    from powerd.v1.switchgear_service_pb2_grpc import SwitchgearServiceAsyncStub

OPEN, CLOSED, UNKNOWN = pb.POSITION_OPEN, pb.POSITION_CLOSED, pb.POSITION_UNKNOWN
YARD = """
site: yard
supplies: [{id: grid-a, bus: main-a}, {id: grid-b, bus: main-b}]
buses:
  - {id: main-a, voltage_v: 400}
  - {id: main-b, voltage_v: 400}
  - {id: board-a, voltage_v: 400}
  - {id: board-b, voltage_v: 400}
  - {id: posts-b, voltage_v: 400}
switches:
  - {id: in-a, kind: breaker, from_bus: main-a, to_bus: board-a, rated_current_a: 100, operated_by: powerd,
     source: nameplate}
  - {id: in-b, kind: breaker, from_bus: main-b, to_bus: board-b, rated_current_a: 100, operated_by: powerd,
     source: nameplate}
  - {id: tie, kind: bus_tie, from_bus: board-a, to_bus: board-b, closed: false, rated_current_a: 100,
     operated_by: powerd, source: nameplate}
  - {id: hand, kind: breaker, from_bus: board-b, to_bus: posts-b, rated_current_a: 100, operated_by: hand,
     source: nameplate}
loads: [{id: pump, bus: board-a, typical_kw: 10, worst_kw: 35}]
controller_classes: [{id: c, ttl_s: 15, reaction_s: 5, watchdog_s: 0}]
controllers: [{id: c0, class: c}]
evse_types: [{id: ac, phases: '3', max_current_a: 32}]
stations:
  - {id: A, bus: board-a, controller: c0, evses: [{id: A1, type: ac}, {id: A2, type: ac}]}
  - {id: B, bus: posts-b, controller: c0, evses: [{id: B1, type: ac}]}
"""
NORMAL = {"in-a": CLOSED, "in-b": CLOSED, "tie": OPEN, "hand": CLOSED}
Stream = grpc.aio.StreamStreamCall[pb.ConnectSwitchgearRequest, pb.ConnectSwitchgearResponse]


class GearCore(FakeCore):
    """The fake core with the real failure path, in a site where everything always fits."""

    def __init__(self) -> None:
        super().__init__(YARD)
        self._planner = Planner.of(self.electrical)
        self._before = self.snapshot.gear
        freeze(columns_of(self.snapshot).values())

    @property
    def gear_of(self) -> dict[str, int]:
        """Switch id -> position believed."""
        position, ids = self.snapshot.gear.position, self.electrical.branches.ids
        return {name: int(position[ids.index(name)]) for name in NORMAL}

    def _decision(
        self, lowered: GrantBatch, raised: GrantBatch, renewal: Renewal, outcomes: tuple[Outcome, ...], now: Now
    ) -> Decision:
        gear = observe(self.electrical, self._before, self.snapshot.gear, now)
        later = replace(now, boottime_s=now.boottime_s + 1.0)  # nothing is planned in the tick of a change itself
        switching = advance(
            self.electrical, self._planner, gear, self.electrical.posts.max_ceiling, lambda _: {}, later
        )
        self.snapshot = replace(self.snapshot, gear=switching.gear)
        self._before = switching.gear
        freeze(columns_of(self.snapshot).values())
        decision = super()._decision(lowered, raised, renewal, outcomes, now)
        return replace(decision, order=switching.order, alarms=switching.alarms)


def positions() -> list[pb.SwitchReport]:
    """A report of every switch, as drawn."""
    return [pb.SwitchReport(switch_id=name, position=position) for name, position in NORMAL.items()]


def hello(switches: Sequence[pb.SwitchReport], *, incarnation: int = ME) -> pb.ConnectSwitchgearRequest:
    """The first message of a switchgear controller."""
    said = pb.SwitchgearHello(reporter_id="plc", stamp=stamp(50.0, incarnation), switches=switches)
    return pb.ConnectSwitchgearRequest(hello=said)


def report(boottime_s: float, **fields: object) -> pb.ConnectSwitchgearRequest:
    """A later one."""
    said = pb.SwitchgearReport(stamp=stamp(boottime_s), **fields)  # type: ignore[arg-type]
    return pb.ConnectSwitchgearRequest(report=said)


def seen(
    *switches: pb.SwitchReport, at: pb_common.Stamp | None = None, by: str = "relay", **fields: object
) -> pb.ReportPositionsRequest:
    """What a relay says."""
    return pb.ReportPositionsRequest(
        reporter_id=by,
        stamp=stamp() if at is None else at,
        switches=switches,
        **fields,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def gear_service(core: GearCore) -> AsyncIterator[SwitchgearServiceAsyncStub]:
    """The service of a core."""
    async with serving(core) as (_, channel):
        yield SwitchgearServiceStub(channel)


@asynccontextmanager
async def connected(core: GearCore) -> AsyncIterator[tuple[SwitchgearServiceAsyncStub, Stream]]:
    """And a controller that has said hello for all switches, and was welcomed."""
    async with gear_service(core) as service:
        call = service.ConnectSwitchgear()
        await call.write(hello(positions()))
        welcome = (await _read(call)).welcome
        assert (welcome.tick.ToTimedelta().total_seconds(), welcome.report_within.seconds) == (core.tick_s, 5)
        await core.until(lambda: bool(core.of(sw.GearHeard)) and core.decision is not None)
        yield service, call
        call.cancel()


async def _read(call: Stream) -> pb.ConnectSwitchgearResponse:
    message = await asyncio.wait_for(call.read(), 5)
    assert isinstance(message, pb.ConnectSwitchgearResponse), "the stream ended"
    return message


async def _refused(call: Stream) -> grpc.aio.AioRpcError:
    """What a stream that is refused ends with."""
    try:
        while isinstance(await asyncio.wait_for(call.read(), 5), pb.ConnectSwitchgearResponse):
            pass
    except grpc.aio.AioRpcError as refused:
        return refused
    raise AssertionError("the stream was not refused")


# --- ReportPositions --------------------------------------------------------------------------------------------------


def test_reported_positions_are_urgent_and_believed_when_the_call_returns() -> None:
    """Positions, flags and an outage of one report; the answer carries the alarms of the tick that absorbed it."""

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            tripped = pb.SwitchReport(switch_id="in-a", position=OPEN, protection_trip=True)
            lost = pb.OutageReport(element="grid-a", lost=True)
            answer = await service.ReportPositions(seen(tripped, outages=[lost]))
            assert core.urgent == 1
            gear, at = core.snapshot.gear, core.electrical.branches.ids.index("in-a")
            assert (gear.position[at], gear.cause[at]) == (Position.OPEN, Cause.PROTECTION)
            assert gear.supply_alive.tolist() == [False, True]
            assert list(answer.alarms) == ["2 EVSEs have no voltage (board-a)"]

    asyncio.run(scene())


def test_a_report_of_a_process_that_was_succeeded_is_refused_by_call_and_stream() -> None:
    """The relay's next process says that the tie is closed; what its last one had under way comes after that."""
    tie = pb.SwitchReport(switch_id="tie", position=OPEN)

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            await service.ReportPositions(seen(*positions(), at=stamp(50.0)))
            now_closed = pb.SwitchReport(switch_id="tie", position=CLOSED)
            lost = pb.OutageReport(element="grid-a", lost=True)
            await service.ReportPositions(seen(now_closed, at=stamp(5.0, ME + 1), outages=[lost]))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.ReportPositions(seen(tie, at=stamp(59.0)))
            assert refused.value.code() is grpc.StatusCode.ABORTED
            call = service.ConnectSwitchgear()
            said = pb.SwitchgearHello(reporter_id="relay", stamp=stamp(60.0), switches=[tie])
            await call.write(pb.ConnectSwitchgearRequest(hello=said))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                raise await _refused(call)
            assert refused.value.code() is grpc.StatusCode.ABORTED
            assert core.gear_of["tie"] == Position.CLOSED
            in_a = pb.SwitchReport(switch_id="in-a", position=OPEN)
            await service.ReportPositions(seen(in_a, at=stamp(61.0)))  # of that the next one has told nothing
            assert core.gear_of["in-a"] == Position.OPEN

    asyncio.run(scene())


def test_a_call_of_another_process_does_not_end_the_stream_of_the_one_that_lives() -> None:
    """Somebody tries a call with its name: of its switches it is refused, and the stream is heard whatever was told."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, call):
            other = pb.SwitchReport(switch_id="hand", position=CLOSED)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.ReportPositions(seen(other, at=stamp(7.0, ME + 1), by="plc"))
            assert refused.value.code() is grpc.StatusCode.ABORTED
            lost = pb.OutageReport(element="grid-a", lost=True)
            await service.ReportPositions(seen(at=stamp(8.0, ME + 1), outages=[lost], by="plc"))
            back = pb.OutageReport(element="grid-a", lost=False)
            tripped = pb.SwitchReport(switch_id="in-a", position=OPEN)
            await call.write(report(52.0, switches=[tripped], outages=[back]))
            await core.until(lambda: core.gear_of["in-a"] == Position.OPEN)

    asyncio.run(scene())


def test_an_outage_carries_who_saw_it_and_when() -> None:
    """The word that the supply is back, overtaken by a later one that it is lost, changes nothing."""

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            for at_s, lost in ((20.0, True), (19.0, False)):
                told = pb.OutageReport(element="grid-a", lost=lost)
                await service.ReportPositions(seen(at=stamp(at_s), outages=[told]))
                assert core.snapshot.gear.supply_alive.tolist() == [False, True]

    asyncio.run(scene())


@pytest.mark.parametrize(
    "unsure",
    [
        pb.SwitchReport(switch_id="tie", position=CLOSED, quality=pb.QUALITY_QUESTIONABLE),
        pb.SwitchReport(switch_id="tie", position=UNKNOWN, quality=pb.QUALITY_GOOD),
    ],
)
def test_an_unsure_report_makes_a_position_unknown(unsure: pb.SwitchReport) -> None:
    """Questionable quality is no position, whatever it says; nothing may be switched on such a word."""

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            await service.ReportPositions(seen(unsure))
            switches = (await service.ListSwitches(pb.ListSwitchesRequest())).switches
        (tie,) = [one for one in switches if one.switch_id == "tie"]
        assert (core.gear_of["tie"], tie.position) == (Position.UNKNOWN, UNKNOWN)
        assert "known_position" in [one.rule for one in tie.findings]

    asyncio.run(scene())


def test_two_reporters_that_disagree_make_a_position_unknown() -> None:
    """The relay says closed, the gateway open: neither is believed until they agree."""

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            await service.ReportPositions(seen(pb.SwitchReport(switch_id="tie", position=OPEN)))
            other = seen(pb.SwitchReport(switch_id="tie", position=CLOSED))
            other.reporter_id = "gateway"
            await service.ReportPositions(other)
            assert core.gear_of["tie"] == Position.UNKNOWN

    asyncio.run(scene())


GOOD = pb.SwitchReport(switch_id="tie", position=OPEN)
NOWHERE = pb.SwitchReport(switch_id="tie")
OTHER = pb.SwitchReport(switch_id="tie", position=CLOSED)


@pytest.mark.parametrize(
    ("field", "mend", "request_"),
    [
        ("reporter_id", "not empty", pb.ReportPositionsRequest(stamp=stamp(), switches=[GOOD])),
        ("stamp.incarnation", "other than 0", seen(GOOD, at=stamp(50.0, 0))),
        ("stamp.boottime_s", "a number from 0", seen(GOOD, at=stamp(-1.0))),
        ("stamp.boottime_s", "a number from 0", seen(GOOD, at=stamp(float("nan")))),
        ("switches[1].position", "open, closed or unknown", seen(GOOD, pb.SwitchReport(switch_id="in-a"))),
        ("switches[0].position", "open, closed or unknown", seen(pb.SwitchReport(switch_id="tie", position=9))),  # type: ignore[arg-type]
        (
            "switches[0].quality",
            "good or questionable",
            seen(pb.SwitchReport(switch_id="tie", position=OPEN, quality=9)),  # type: ignore[arg-type]
        ),
        ("switches[1].switch_id", "each switch at most once", seen(GOOD, OTHER)),
        ("switches", f"at most {ENTRIES_MAX} entries", seen(*[GOOD] * (ENTRIES_MAX + 1))),
        ("outages", f"at most {ENTRIES_MAX} entries", seen(outages=[pb.OutageReport()] * (ENTRIES_MAX + 1))),
        ("outages[0].element", "switches have positions", seen(outages=[pb.OutageReport(element="tie", lost=True)])),
    ],
)
def test_a_bad_report_is_refused_by_field(field: str, mend: str, request_: pb.ReportPositionsRequest) -> None:
    """Nothing of it is taken; the answer says which field and what was expected there."""

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.ReportPositions(request_)
            assert only_violation(refused) == field
            assert mend in str(refused.value.details())
        assert core.posted == []

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("field", "mend", "request_"),
    [
        ("switches[1].switch_id", "ListSwitches", seen(GOOD, pb.SwitchReport(switch_id="Q9", position=OPEN))),
        ("switches[0].switch_id", "ListSwitches", seen(pb.SwitchReport(switch_id="grid-a", position=OPEN))),
        ("outages[0].element", "site file", seen(GOOD, outages=[pb.OutageReport(element="T9", lost=True)])),
    ],
)
def test_an_unknown_name_in_a_report_is_not_found(field: str, mend: str, request_: pb.ReportPositionsRequest) -> None:
    """NOT_FOUND that names the field, and nothing is changed, not even what was good in the report."""

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.ReportPositions(request_)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert field in str(refused.value.details())
            assert mend in str(refused.value.details())
        assert core.posted == []

    asyncio.run(scene())


# --- ConnectSwitchgear ------------------------------------------------------------------------------------------------


def test_orders_come_one_at_a_time_each_after_the_one_before_is_confirmed() -> None:
    """grid-a is lost: open in-a; only when that is reported open, close the tie; then nothing more."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, call):
            await service.ReportPositions(seen(outages=[pb.OutageReport(element="grid-a", lost=True)]))
            first = (await _read(call)).order
            assert (first.order_id, first.switch_id, first.position) == (1, "in-a", OPEN)
            assert (first.echo, first.valid_for.seconds) == (stamp(50.0), 5)
            assert first.reason
            second = asyncio.ensure_future(_read(call))
            await call.write(report(51.0, answers=[pb.OrderAnswer(order_id=1)]))  # on its way: no position, no news
            await core.came(sw.GearHeard, 2)
            core.tick()
            await asyncio.sleep(0.05)
            assert not second.done()
            await call.write(report(52.0, switches=[pb.SwitchReport(switch_id="in-a", position=OPEN)]))
            order = (await second).order
            assert (order.order_id, order.switch_id, order.position) == (2, "tie", CLOSED)
            assert order.echo == stamp(52.0)
            await call.write(report(53.0, switches=[pb.SwitchReport(switch_id="tie", position=CLOSED)]))
            await core.until(lambda: core.snapshot.gear.phase == Phase.IDLE)
            plan = await service.GetPlan(pb.GetPlanRequest())
            assert (list(plan.orders), list(plan.dead_evse_ids), plan.doing) == ([], [], "idle")

    asyncio.run(scene())


def test_an_order_that_a_replaced_stream_swallowed_comes_again_on_the_newer_one() -> None:
    """The process goes on and has not heard it: the same order to the letter, once."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, older):
            await service.ReportPositions(seen(outages=[pb.OutageReport(element="grid-a", lost=True)]))
            first = (await _read(older)).order
            newer = service.ConnectSwitchgear()
            await newer.write(hello(positions()))
            assert (await _refused(older)).code() is grpc.StatusCode.ABORTED
            await _read(newer)
            assert (await _read(newer)).order == first
            assert core.snapshot.gear.linked.sum() == len(NORMAL)
            newer.cancel()

    asyncio.run(scene())


def test_what_a_newer_stream_does_not_speak_for_has_none() -> None:
    """A new process says hello for the tie alone: nobody takes orders for the others any more."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, _):
            newer = service.ConnectSwitchgear()
            await newer.write(hello([GOOD], incarnation=ME + 1))
            await core.until(lambda: core.snapshot.gear.link_incarnation.max() == ME + 1)
            assert [core.electrical.branches.ids[e] for e in core.snapshot.gear.linked.nonzero()[0]] == ["tie"]
            newer.cancel()

    asyncio.run(scene())


def test_a_refused_order_ends_at_once_and_is_planned_around() -> None:
    """in-a will not open: the tie must not close; no second order, and the reason is in the record."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, call):
            await service.ReportPositions(seen(outages=[pb.OutageReport(element="grid-a", lost=True)]))
            order = (await _read(call)).order
            answer = pb.OrderAnswer(order_id=order.order_id, refused=True, reason="spring not charged")
            await call.write(report(51.0, answers=[answer]))
            await core.until(lambda: core.snapshot.gear.phase == Phase.IDLE)
            core.tick()
            assert core.of(sw.OrderRefused) == [sw.OrderRefused(order_id=1, reason="spring not charged")]
            assert core.snapshot.gear.order_id == 1
            assert core.snapshot.gear.refused[core.electrical.branches.ids.index("in-a")]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("field", "messages"),
    [
        ("message", [report(50.0)]),
        ("hello.switches", [hello([])]),
        ("hello.stamp.incarnation", [hello(positions(), incarnation=0)]),
        ("hello.switches[0].position", [hello([NOWHERE])]),
        ("hello.switches[1].switch_id", [hello([GOOD, OTHER])]),
        ("message", [hello(positions()), hello(positions())]),
        ("report.stamp.boottime_s", [hello(positions()), report(49.0)]),
        (
            "report.switches[0].position",
            [hello(positions()), report(51.0, switches=[pb.SwitchReport(switch_id="tie")])],
        ),
        ("report.answers[0].order_id", [hello(positions()), report(51.0, answers=[pb.OrderAnswer(refused=True)])]),
        (
            "report.answers[0].reason",
            [hello(positions()), report(51.0, answers=[pb.OrderAnswer(order_id=1, refused=True, reason="x" * 1001)])],
        ),
    ],
)
def test_a_bad_message_ends_the_stream_by_field(field: str, messages: list[pb.ConnectSwitchgearRequest]) -> None:
    """INVALID_ARGUMENT with the field's path from the message's top; positions stay as they were."""

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            call = service.ConnectSwitchgear()
            for message in messages:
                await call.write(message)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                raise await _refused(call)
            assert only_violation(refused) == field
        assert set(core.gear_of.items()) == {(name, int(position == CLOSED)) for name, position in NORMAL.items()}

    asyncio.run(scene())


def test_a_hello_with_an_unknown_switch_is_not_found() -> None:
    """And no switch of it is taken as linked."""

    async def scene() -> None:
        core = GearCore()
        async with gear_service(core) as service:
            call = service.ConnectSwitchgear()
            await call.write(hello([GOOD, pb.SwitchReport(switch_id="Q9", position=OPEN)]))
            refused = await _refused(call)
        assert refused.code() is grpc.StatusCode.NOT_FOUND
        assert "hello.switches[1].switch_id" in str(refused.details())
        assert "ListSwitches" in str(refused.details())
        assert core.posted == []

    asyncio.run(scene())


def test_a_newer_stream_takes_over_and_the_last_one_to_end_unlinks() -> None:
    """The older ends with ABORTED; its end does not unlink the switches that the newer one speaks for."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, older):
            newer = service.ConnectSwitchgear()
            await newer.write(hello(positions(), incarnation=ME + 1))
            assert (await _refused(older)).code() is grpc.StatusCode.ABORTED
            await core.until(lambda: core.snapshot.gear.link_incarnation.max() == ME + 1)
            assert core.of(sw.GearClosed) == []
            assert core.snapshot.gear.linked.sum() == len(NORMAL)
            await newer.done_writing()
            await core.until(lambda: not core.snapshot.gear.linked.any())

    asyncio.run(scene())


# --- operators --------------------------------------------------------------------------------------------------------


def test_what_a_replaced_stream_still_delivers_is_not_heard() -> None:
    """Its report comes in the same turn as the newer hello, and is older than it."""

    async def scene() -> GearCore:
        core = GearCore()
        streams = GearStreams(core, GearNames.of(core.electrical))
        old, new = Mouth[pb.ConnectSwitchgearRequest](), Mouth[pb.ConnectSwitchgearRequest]()
        runs = [asyncio.ensure_future(streams.run(mouth, mouth)) for mouth in (old, new)]  # type: ignore[arg-type]
        old.say(hello(positions()))
        await core.came(sw.GearHeard)
        new.say(hello(positions(), incarnation=ME + 1))
        old.say(report(55.0))
        with pytest.raises(Superseded):
            await asyncio.wait_for(runs[0], 5)
        runs[1].cancel()
        return core

    assert len(asyncio.run(scene()).of(sw.GearHeard)) == 2


def _order(
    switch_id: str, position: pb.Position.ValueType, *, dry_run: bool = False, request_id: str = ""
) -> pb.ManualOrderRequest:
    return pb.ManualOrderRequest(
        request_id=request_id, switch_id=switch_id, position=position, reason="test of the tie", dry_run=dry_run
    )


def test_a_dry_run_tells_what_would_come_and_changes_nothing() -> None:
    """Opening in-a would leave A1 and A2 dead; closing the tie onto two live supplies is against a rule by name."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, _):
            before = len(core.posted)
            dark = await service.ManualOrder(_order("in-a", OPEN, dry_run=True))
            assert (dark.accepted, list(dark.findings)) == (False, [])
            assert (list(dark.lost_evse_ids), list(dark.gained_evse_ids)) == (["A1", "A2"], [])
            joined = await service.ManualOrder(_order("tie", CLOSED, dry_run=True))
            assert [(one.rule, one.element) for one in joined.findings] == [("no_parallel", "tie")]
            assert "grid-a, grid-b" in joined.findings[0].message
            assert len(core.posted) == before
            assert core.snapshot.gear.steps == ()

    asyncio.run(scene())


def test_a_dry_run_lists_the_limits_that_fill_up() -> None:
    """With in-a open, closing the tie brings A1, A2 and the pump's 40 kW (58 A) onto in-b, rated 100 A."""

    async def scene() -> None:
        core = GearCore()
        core.want[:] = 16.0  # the fake core says this of what could be drawing
        async with connected(core) as (service, _):
            await service.ReportPositions(
                pb.ReportPositionsRequest(
                    reporter_id="plc",
                    stamp=stamp(51.0),
                    switches=[pb.SwitchReport(switch_id="in-a", position=OPEN, upstream_voltage_lost=True)],
                )
            )
            core.snapshot = replace(core.snapshot, gear=replace(core.snapshot.gear, steps=(), phase=int(Phase.IDLE)))
            assert core.decision is not None
            core.decision = replace(core.decision, snapshot=core.snapshot)
            told = await service.ManualOrder(_order("tie", CLOSED, dry_run=True))
        assert list(told.findings) == []
        assert list(told.gained_evse_ids) == ["A1", "A2"]
        full = [limit for limit in told.limits if "in-b" in limit.name]
        assert full
        assert all((limit.capacity, limit.unit) == (100.0, "A") for limit in full)
        pump_a = 40.0 / (3**0.5 * 0.4)
        assert all(limit.worst >= pump_a + 3 * 16.0 - 1e-6 for limit in full)
        assert all(limit.reserved >= pump_a - 1e-6 for limit in full)

    asyncio.run(scene())


def test_an_operators_order_goes_out_and_its_opening_stays() -> None:
    """Accepted, sent with the operator's reason, confirmed; a retry with the same id is harmless."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, call):
            answer = await service.ManualOrder(_order("in-a", OPEN, request_id="m1"))
            assert (answer.accepted, list(answer.lost_evse_ids)) == (True, ["A1", "A2"])
            order = (await _read(call)).order
            assert (order.switch_id, order.position) == ("in-a", OPEN)
            assert order.reason == "operator: test of the tie"
            assert (await service.ManualOrder(_order("in-a", OPEN, request_id="m1"))).accepted
            for dry_run in (True, False):
                busy = await service.ManualOrder(_order("in-b", OPEN, dry_run=dry_run))
                assert (busy.accepted, [found.rule for found in busy.findings]) == (False, ["order_under_way"])
                assert "GetPlan" in busy.findings[0].message
            assert (await service.GetPlan(pb.GetPlanRequest())).doing == "waiting for a switch"
            await call.write(report(51.0, switches=[pb.SwitchReport(switch_id="in-a", position=OPEN)]))
            await core.until(lambda: core.snapshot.gear.phase == Phase.IDLE)
            core.tick()
            gear = core.snapshot.gear
            assert gear.cause[core.electrical.branches.ids.index("in-a")] == Cause.HAND
            assert (gear.order_id, gear.steps) == (1, ())
            await call.write(report(52.0, switches=[pb.SwitchReport(switch_id="in-a", position=OPEN, tagged_out=True)]))
            await core.until(lambda: bool(core.snapshot.gear.flags.any()))
            core.tick()
            again = await service.ManualOrder(_order("in-a", OPEN, request_id="m1"))
            assert (again.accepted, list(again.findings)) == (True, [])
            other = await service.ManualOrder(_order("in-a", OPEN, request_id="m2"))
            assert (other.accepted, [found.rule for found in other.findings]) == (False, ["available"])

    asyncio.run(scene())


def test_an_order_against_a_rule_is_not_taken_up() -> None:
    """The findings say why; nothing is posted. A switch that powerd does not operate is one such."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, _):
            for switch_id, position, rule in (("tie", CLOSED, "no_parallel"), ("hand", OPEN, "may_operate")):
                answer = await service.ManualOrder(_order(switch_id, position))
                assert (answer.accepted, [one.rule for one in answer.findings]) == (False, [rule])
            assert core.of(sw.SwitchOrdered) == []

    asyncio.run(scene())


def test_what_is_out_of_service_is_planned_without_until_it_returns() -> None:
    """in-b out: B1 is dead and it may not be moved; returned, all is as before; a supply goes out the same way."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, _):
            out = await service.TakeOutOfService(pb.TakeOutOfServiceRequest(element="in-b", reason="inspection"))
            assert list(out.dead_evse_ids) == ["B1"]
            found = {one.switch_id: one for one in (await service.ListSwitches(pb.ListSwitchesRequest())).switches}
            assert found["in-b"].out_of_service
            assert "available" in [one.rule for one in found["in-b"].findings]
            back = await service.ReturnToService(pb.ReturnToServiceRequest(element="in-b", reason="inspected"))
            assert list(back.dead_evse_ids) == []
            grid = await service.TakeOutOfService(pb.TakeOutOfServiceRequest(element="grid-a", reason="works"))
            assert list(grid.dead_evse_ids) == ["A1", "A2"]
            assert list((await service.ListSwitches(pb.ListSwitchesRequest())).live_supply_ids) == ["grid-b"]
            changed = [event for event in core.posted if isinstance(event, sw.ServiceChanged)]
            assert [(event.in_service, event.reason) for event in changed] == [
                (False, "inspection"),
                (True, "inspected"),
                (False, "works"),
            ]

    asyncio.run(scene())


def test_switches_are_listed_as_they_are_known() -> None:
    """Drawn but never reported; then reported with flags and time; in the order of the site file."""

    async def scene() -> None:
        core = GearCore()
        core.tick()
        async with gear_service(core) as service:
            drawn = (await service.ListSwitches(pb.ListSwitchesRequest())).switches
            assert {one.switch_id: one.position for one in drawn} == NORMAL
            assert not any(one.reported or one.HasField("report_time") for one in drawn)
            tagged = pb.SwitchReport(switch_id="tie", position=OPEN, tagged_out=True, local=True)
            await service.ReportPositions(seen(tagged))
            answer = await service.ListSwitches(pb.ListSwitchesRequest())
        found = {one.switch_id: one for one in answer.switches}
        tie = found["tie"]
        assert (tie.flags, tie.reported, tie.HasField("report_time")) == (tagged, True, True)
        assert (tie.normal_position, tie.operable, found["hand"].operable) == (OPEN, True, False)
        assert "available" in [one.rule for one in tie.findings]
        assert not found["in-a"].reported
        assert list(answer.live_supply_ids) == ["grid-a", "grid-b"]

    asyncio.run(scene())


def test_a_plan_for_what_might_fail_changes_nothing() -> None:
    """grid-a lost: in-a opens, the tie closes, nobody is left dead; both lost: nothing helps."""

    async def scene() -> None:
        core = GearCore()
        async with connected(core) as (service, _):
            before = len(core.posted)
            plan = await service.GetPlan(pb.GetPlanRequest(elements=["grid-a"]))
            assert [(one.switch_id, one.position) for one in plan.orders] == [("in-a", OPEN), ("tie", CLOSED)]
            assert (list(plan.dead_evse_ids), plan.doing) == ([], "idle")
            assert plan.deliverable_kw > 0
            dark = await service.GetPlan(pb.GetPlanRequest(elements=["grid-a", "grid-b"]))
            assert list(dark.dead_evse_ids) == ["A1", "A2", "B1"]
            assert list((await service.ListSwitches(pb.ListSwitchesRequest())).live_supply_ids) == ["grid-a", "grid-b"]
            assert len(core.posted) == before

    asyncio.run(scene())


LONG = "x" * 1001


@pytest.mark.parametrize(
    ("method", "field", "request_"),
    [
        ("ManualOrder", "switch_id", pb.ManualOrderRequest(position=OPEN, reason="r")),
        ("ManualOrder", "position", pb.ManualOrderRequest(switch_id="tie", reason="r")),
        ("ManualOrder", "position", pb.ManualOrderRequest(switch_id="tie", position=UNKNOWN, reason="r")),
        ("ManualOrder", "reason", pb.ManualOrderRequest(switch_id="tie", position=OPEN)),
        ("ManualOrder", "request_id", pb.ManualOrderRequest(request_id="x" * 65, switch_id="tie")),
        ("TakeOutOfService", "element", pb.TakeOutOfServiceRequest(reason="r")),
        ("TakeOutOfService", "element", pb.TakeOutOfServiceRequest(element="board-a", reason="r")),
        ("TakeOutOfService", "reason", pb.TakeOutOfServiceRequest(element="tie")),
        ("TakeOutOfService", "request_id", pb.TakeOutOfServiceRequest(element="tie", reason="r", request_id="x" * 65)),
        ("ReturnToService", "element", pb.ReturnToServiceRequest(reason="r")),
        ("ReturnToService", "reason", pb.ReturnToServiceRequest(element="tie", reason=LONG)),
        ("GetPlan", "elements[1]", pb.GetPlanRequest(elements=["tie", ""])),
        ("GetPlan", "elements[0]", pb.GetPlanRequest(elements=["board-a"])),
    ],
)
def test_a_bad_operators_request_is_refused_by_field(method: str, field: str, request_: object) -> None:
    """INVALID_ARGUMENT with the field and what was expected; nothing is posted. Plans lose what feeds a bus, no bus."""

    async def scene() -> None:
        core = GearCore()
        core.tick()
        async with gear_service(core) as service:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await getattr(service, method)(request_)
            assert only_violation(refused) == field
        assert core.posted == []

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("method", "field", "request_"),
    [
        ("ManualOrder", "switch_id", _order("Q9", OPEN)),
        ("TakeOutOfService", "element", pb.TakeOutOfServiceRequest(element="Q9", reason="r")),
        ("ReturnToService", "element", pb.ReturnToServiceRequest(element="Q9", reason="r")),
        ("GetPlan", "elements[0]", pb.GetPlanRequest(elements=["Q9"])),
    ],
)
def test_an_operators_slip_of_the_pen_is_not_found(method: str, field: str, request_: object) -> None:
    """NOT_FOUND that names the field, the name and where to look."""

    async def scene() -> None:
        core = GearCore()
        core.tick()
        async with gear_service(core) as service:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await getattr(service, method)(request_)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            details = str(refused.value.details())
            assert details.startswith(f"{field}: ")
            assert "'Q9'" in details
            assert "ListSwitches" in details or "site file" in details
        assert core.posted == []

    asyncio.run(scene())


@pytest.mark.parametrize("method", ["ManualOrder", "ListSwitches", "GetPlan"])
def test_nothing_is_told_before_the_first_tick(method: str) -> None:
    """UNAVAILABLE: try again."""
    requests = {"ManualOrder": _order("tie", OPEN), "ListSwitches": pb.ListSwitchesRequest(), "GetPlan": None}

    async def scene() -> None:
        async with gear_service(GearCore()) as service:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await getattr(service, method)(requests[method] or pb.GetPlanRequest())
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scene())
