"""SiteService over a real channel: what is built, why, and the stop."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import grpc.aio
import numpy as np
import pytest

from powerd.control.events import PlugChanged, StopOrdered
from powerd.server.explain import reason
from powerd.v1 import controller_service_pb2 as pb_controller
from powerd.v1 import site_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from powerd.v1.site_service_pb2_grpc import SiteServiceStub
from tests.server.dialogue import hello, only_violation, report, serving, until_grants
from tests.server.fake import SITE, TTL_S, FakeCore


def _plugged(core: FakeCore) -> FakeCore:
    """A car everywhere, absorbed."""
    n = core.electrical.evse_count
    core.snapshot.sessions.plugged[:] = True
    core.snapshot.sessions.served[:] = True
    core.snapshot.leases.echo_at_s[:] = core.now_s
    core.tick(raised=dict.fromkeys(range(n), 14.0))
    return core


async def _reason(core: FakeCore, evse_id: str) -> str:
    async with serving(core) as (_, channel):
        request = pb.ExplainCeilingRequest(evse_id=evse_id)
        return (await SiteServiceStub(channel).ExplainCeiling(request)).reason


def test_get_site_tells_what_is_built() -> None:
    """EVSEs with owner, kind and bounds; limits with name, rating, unit and where the rating came from."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            site = await SiteServiceStub(channel).GetSite(pb.GetSiteRequest())
        assert site.site_id == "yard"
        assert [(e.evse_id, e.controller_id, e.dc) for e in site.evses] == [
            *(("A1", "c0", False), ("A2", "c0", False), ("A3", "c0", False)),
            *(("B1", "c1", False), ("B2", "c1", True)),
        ]
        assert [e.max_ceiling for e in site.evses] == [32.0, 32.0, 32.0, 32.0, 50.0]
        assert [l.name for l in site.limits] == list(core.limits.name)
        assert {(l.element, l.unit, l.capacity) for l in site.limits} == {("F1", "A", 400.0)}
        assert all("cable schedule" in l.source for l in site.limits)

    asyncio.run(scene())


def test_get_site_tells_what_each_evse_can_take_and_what_it_does_alone() -> None:
    """Pilot steps (none = continuous), both fallbacks and the lease length, as the site file has them."""
    types = "{id: ac, phases: '3', max_current_a: 8, pilot_step_a: 1, fallback_a: 7, fallback_idle_a: 6}"
    text = SITE.replace("{id: ac, phases: '3', max_current_a: 32}", types)

    async def scene() -> None:
        async with serving(FakeCore(text)) as (_, channel):
            site = await SiteServiceStub(channel).GetSite(pb.GetSiteRequest())
        ac, dc = site.evses[0], site.evses[4]
        assert (list(ac.pilot_steps), ac.fallback, ac.fallback_idle) == ([0.0, 6.0, 7.0, 8.0], 7.0, 6.0)
        assert (list(dc.pilot_steps), dc.fallback, dc.fallback_idle) == ([], 0.0, 0.0)
        assert {e.ttl.ToTimedelta().total_seconds() for e in site.evses} == {TTL_S}

    asyncio.run(scene())


def test_a_held_ceiling_is_explained_by_its_limit() -> None:
    """The sentence of the specification, with the limit, its price and how many it holds."""

    async def scene() -> None:
        core = FakeCore()
        core.want[:], core.binding[:4] = 14.0, 1
        _plugged(core)
        async with serving(core) as (_, channel):
            answer = await SiteServiceStub(channel).ExplainCeiling(pb.ExplainCeilingRequest(evse_id="A1"))
        what = f"{core.limits.name[1]} ({core.limits.source[1]})"
        assert answer.reason == f"held at 14 A by {what}, together with 3 others"
        assert (answer.ceiling, answer.want, answer.others, answer.shadow_price) == (14.0, 14.0, 3, 0.25)
        assert answer.limit.name == core.limits.name[1]

    asyncio.run(scene())


def test_one_other_is_one_other() -> None:
    """And a limit that holds nobody else names nobody else."""
    core = FakeCore()
    core.want[:], core.binding[0] = 14.0, 1
    _plugged(core)
    assert asyncio.run(_reason(core, "A1")).endswith(f"({core.limits.source[1]})")
    core.binding[1] = 1
    core.tick()
    assert asyncio.run(_reason(core, "A1")).endswith("together with 1 other")


def test_other_ceilings_have_other_reasons() -> None:
    """Unbound, waiting for the leases of others, no car, service ended, stopped."""

    async def scene() -> None:
        core = FakeCore()
        core.want[:] = [14.0, 20.0, 14.0, 14.0, 14.0]
        _plugged(core)
        core.snapshot.leases.streamed[:] = True
        core.snapshot.sessions.plugged[2] = False
        core.snapshot.sessions.served[3] = False
        assert await _reason(core, "A1") == "granted 14 A, all that the car and the post can take"
        core.snapshot.usage.usable[0] = 14.0
        core.snapshot.drawn[0] = 12.0
        assert await _reason(core, "A1") == (
            "granted 14 A, for it draws 12 A; it gets more as soon as it takes all of this"
        )
        assert await _reason(core, "A2") == "at 14 A, to rise to 20 A in the next ticks"
        assert await _reason(core, "A3") == "held at 14 A: no car is plugged in"
        assert await _reason(core, "B1") == "held at 14 A: its session was stopped"
        assert "14 kW" in await _reason(core, "B2")
        core.snapshot.leases.streamed[1] = False
        assert await _reason(core, "A2") == "at 14 A, to rise to 20 A when its controller asks next"
        assert core.decision is not None
        crowded = replace(core.decision, worst=np.full(5, 100.0))
        assert reason(core, crowded, 1) == (
            "at 14 A, to rise to 20 A when what A1 and 3 more may still be drawing leaves room, and its controller "
            "asks again"
        )
        core.snapshot.leases.echo_at_s[0] = core.now_s - 100.0
        assert core.decision is not None
        counts = f"it counts at {core.decision.worst[0]:.4g} A"
        assert await _reason(core, "A1") == f"at 14 A, for its controller c0 is silent: {counts}"
        core.snapshot.leases.defiant[0] = True
        assert await _reason(core, "A1") == (
            "it draws 12 A, more than any ceiling it had within a minute (now 14 A): it counts at its rating, 32 A, "
            "until it has obeyed for 60 s"
        )

    asyncio.run(scene())


def test_an_unknown_evse_is_not_found() -> None:
    """NOT_FOUND from ExplainCeiling."""

    async def scene() -> None:
        core = FakeCore()
        core.tick()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _reason(core, "Z1")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(scene())


def test_nothing_is_explained_before_the_first_tick() -> None:
    """UNAVAILABLE: try again."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        asyncio.run(_reason(FakeCore(), "A1"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_watch_site_sends_a_picture_a_tick() -> None:
    """Now, then after each tick; columns in the order of GetSite."""

    async def scene() -> None:
        core = FakeCore(eager=False)
        core.tick(raised={3: 9.0})
        async with serving(core) as (_, channel):
            watch = SiteServiceStub(channel).WatchSite(pb.WatchSiteRequest())
            first = await watch.read()
            assert isinstance(first, pb.WatchSiteResponse)
            assert list(first.ceiling) == [0.0, 0.0, 0.0, 9.0, 0.0]
            assert (len(first.limit_flow), len(first.drawn), len(first.plugged)) == (len(core.limits.name), 5, 5)
            assert (list(first.alarms), first.path, first.tick) == (["a test runs"], "kernel", 1)
            await asyncio.sleep(0.05)
            core.tick()
            second = await watch.read()
            assert isinstance(second, pb.WatchSiteResponse)
            assert second.tick == 2

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("reason", pb.StopChargingRequest(element="A1")),
        ("reason", pb.StopChargingRequest(element="A1", reason="x" * 1001)),
        ("element", pb.StopChargingRequest(reason="smoke")),
        ("request_id", pb.StopChargingRequest(element="A1", reason="smoke", request_id="x" * 65)),
    ],
)
def test_a_bad_stop_is_refused_by_field(field: str, request_: pb.StopChargingRequest) -> None:
    """A stop without a reason cannot be released with a good conscience."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await SiteServiceStub(channel).StopCharging(request_)
            assert only_violation(refused) == field
        assert core.posted == []

    asyncio.run(scene())


def test_a_stop_is_urgent_latched_and_lists_who_has_not_obeyed() -> None:
    """c0's stream acks its stop, c1 is silent: its EVSEs are listed; the release names the freed EVSEs."""

    async def scene() -> None:
        core = FakeCore(eager=False)
        async with serving(core) as (_, channel):
            site = SiteServiceStub(channel)
            call = ControllerServiceStub(channel).Connect()
            await call.write(hello())
            await call.read()
            core.tick()
            await until_grants(call)
            order = pb.StopChargingRequest(element="yard", reason="smoke", request_id="r1")
            stopping = asyncio.ensure_future(site.StopCharging(order))
            await core.came(StopOrdered)
            assert core.urgent == 1
            core.tick()
            stop = await until_grants(call)
            assert (list(stop.ceiling), list(stop.latched_index)) == ([0.0] * 3, [0, 1, 2])
            applied = pb_controller.AppliedGrants(epoch=stop.epoch, seq=stop.seq, index=stop.index, ceiling=[0.0] * 3)
            await call.write(report(52.0, applied=[applied]))
            await asyncio.sleep(0.05)
            core.tick()
            answer = await stopping
            assert list(answer.evse_ids) == ["A1", "A2", "A3", "B1", "B2"]
            assert list(answer.unacked_evse_ids) == ["B1", "B2"]
            standing = await anext(aiter(site.WatchSite(pb.WatchSiteRequest())))
            assert [(s.stop_id, s.element, s.reason) for s in standing.stops] == [(answer.stop_id, "yard", "smoke")]
            assert standing.stops[0].evse_ids == answer.evse_ids
            assert standing.stops[0].unacked_evse_ids == answer.unacked_evse_ids
            core.eager = True
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await site.ReleaseStop(pb.ReleaseStopRequest(stop_id="none", reason="over"))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            freed = await site.ReleaseStop(pb.ReleaseStopRequest(stop_id=answer.stop_id, reason="over"))
            assert list(freed.evse_ids) == list(answer.evse_ids)

    asyncio.run(scene())


def test_a_retry_of_a_release_names_the_posts_again() -> None:
    """They are free already; who lost the first answer needs their names all the same."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            core.tick()
            stub = SiteServiceStub(channel)
            stop = await stub.StopCharging(pb.StopChargingRequest(element="A1", reason="smoke"))
            release = pb.ReleaseStopRequest(request_id="r", stop_id=stop.stop_id, reason="ok")
            assert [list((await stub.ReleaseStop(release)).evse_ids) for _ in range(2)] == [["A1"], ["A1"]]

    asyncio.run(scene())


def test_a_stop_below_an_unknown_element_is_not_found() -> None:
    """Nothing is stopped by a slip of the pen, and it is said."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await SiteServiceStub(channel).StopCharging(pb.StopChargingRequest(element="T99", reason="smoke"))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert core.of(PlugChanged) == core.posted == []

    asyncio.run(scene())
