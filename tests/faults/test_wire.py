"""Faults on the wire and at processes, against the real daemon over real sockets; measured at the posts."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from powerd.client import aio
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1 import session_service_pb2 as pb_session
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from powerd.v1.session_service_pb2_grpc import SessionServiceStub
from tests.faults.apart import apart
from tests.faults.hall import LIFE_S, TICK_S, TTL_S, Fleet, Hall, Served, boottime_s, free_port, serving
from tests.faults.proxy import Proxy
from tests.faults.truth import Truth

HALL = Hall(posts=20, controllers=4, limit_a=200.0)
FULL_A = 199.0
"""All that the limit leaves, up to what lies between two solves."""
SHARE_A = FULL_A / HALL.posts
"""The same for each post while a car is at every one."""


@pytest.fixture(autouse=True)
def _quick_to_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "RETRY_S", (0.2, 0.8))
    # Channels of one process share their connections unless told otherwise; controllers are no one process.
    monkeypatch.setattr(aio, "OPTIONS", (*aio.OPTIONS, ("grpc.use_local_subchannel_pool", 1)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hall's file."""
    return HALL.write(tmp_path_factory.mktemp("hall"))


@pytest.fixture(scope="module")
def port(site: Path) -> Iterator[int]:
    """One daemon for all that does not hurt it."""
    number = free_port()
    with serving(site, number):
        yield number


def plug_all(fleet: Fleet) -> None:
    """A car at every post of the fleet."""
    for c in fleet.controllers:
        for evse in fleet.hall.of(c):
            fleet.plug(evse, plugged=True)


def test_connections_that_are_cut_come_back(port: int) -> None:
    """Three cuts of everything: every controller is back within its leases, and no limit was exceeded."""

    async def story() -> None:
        truth = HALL.truth()
        async with Proxy(port) as proxy, Fleet(HALL, f"127.0.0.1:{proxy.port}", truth) as fleet:
            plug_all(fleet)
            await fleet.until(FULL_A)
            for _ in range(3):
                before = proxy.accepted
                proxy.cut()
                await asyncio.sleep(1.5)
                assert proxy.accepted >= before + HALL.controllers
            await fleet.until(FULL_A)
        assert truth.violations == 0

    asyncio.run(story())


@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_half_open_sockets_end_in_fallbacks(port: int, direction: str) -> None:
    """Nothing is closed and nothing comes (down: a reader that does not read): the leases end by themselves."""

    async def story() -> None:
        truth = HALL.truth()
        async with Proxy(port) as proxy, Fleet(HALL, f"127.0.0.1:{proxy.port}", truth) as fleet:
            plug_all(fleet)
            await fleet.until(FULL_A)
            proxy.stall(up=direction != "down", down=direction != "up")
            await asyncio.sleep(TTL_S + 0.7)
            truth.lapse(boottime_s())
            assert truth.ceiling.max() == 0.0
            proxy.flow()
            await fleet.until(FULL_A)
        assert truth.violations == 0

    asyncio.run(story())


def test_a_stopped_daemon_comes_back_and_says_so(site: Path) -> None:
    """SIGSTOP for longer than a ttl: fallbacks meanwhile; afterwards stale stamps are not echoed, then all is well."""

    async def story() -> None:
        number, truth = free_port(), HALL.truth()
        with serving(site, number) as served:
            async with Fleet(HALL, f"127.0.0.1:{number}", truth) as fleet:
                plug_all(fleet)
                await fleet.until(FULL_A)
                served.stop()
                await asyncio.sleep(TTL_S + 0.7)
                truth.lapse(boottime_s())
                assert truth.ceiling.max() == 0.0
                served.go_on()
                await fleet.until(FULL_A)
        assert truth.violations == 0

    asyncio.run(story())


def test_controllers_that_are_stopped_lend_nothing_before_their_leases_end(port: int) -> None:
    """SIGSTOP of half the controllers: their posts fall back by themselves, the others rise only after E; then back."""

    async def story() -> None:
        truth = HALL.truth()
        target = f"127.0.0.1:{port}"
        async with (
            apart(HALL, target, truth, (0, 1)) as other,
            Fleet(HALL, target, truth, members=(2, 3)) as fleet,
        ):
            plug_all(fleet)
            async with asyncio.timeout(60):  # alone, these posts could fill the hall before the others have begun
                while min(truth.ceiling) < SHARE_A:  # noqa: ASYNC110 - written by callbacks of the clients
                    await asyncio.sleep(0.02)
            await asyncio.sleep(1.0)
            other.send_signal(signal.SIGSTOP)
            stopped_s = boottime_s()
            fleet.listen()
            async with asyncio.timeout(60):
                while fleet.raised_s is None:  # noqa: ASYNC110 - noted by a callback of the client
                    await asyncio.sleep(0.02)
            # The last stamp may be as old as a quarter of a ttl and was echoed up to a tick later.
            assert fleet.raised_s >= stopped_s + LIFE_S - TTL_S / 4 - 2 * TICK_S - 1.0
            other.send_signal(signal.SIGCONT)
            await asyncio.sleep(2 * TTL_S)
        assert truth.in_order().violations == 0

    asyncio.run(story())


def test_frames_that_are_too_large_or_no_frames_harm_nobody(port: int) -> None:
    """Garbage, a torn preface, a message above 4 MB: refused; the others' leases go on."""

    async def story() -> None:
        truth = HALL.truth()
        async with Fleet(HALL, f"127.0.0.1:{port}", truth) as fleet:
            plug_all(fleet)
            await fleet.until(FULL_A)
            for junk in (
                b"\x00" * 4096,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096,
                b"GET / HTTP/1.1\r\n\r\n",
            ):
                await asyncio.to_thread(_send_raw, port, junk)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = ControllerServiceStub(channel).Connect()
                hello = pb.Hello(controller_id="c0", evses=[pb.EvseState(evse_id="x" * 5_000_000)])
                await call.write(pb.ConnectRequest(hello=hello))
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call.read()
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            fleet.listen()
            await asyncio.sleep(TTL_S + 0.5)
            truth.lapse(boottime_s())
            assert truth.ceiling.sum() >= FULL_A - 1.0
        assert truth.violations == 0

    asyncio.run(story())


def _send_raw(port: int, junk: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.settimeout(0.3)
        raw.sendall(junk)
        try:
            while raw.recv(4096):
                pass
        except (TimeoutError, ConnectionResetError):
            return


def _limit_files(served: Served, size: int) -> None:
    """No file of that process may grow beyond ``size``: its disk is full."""
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_stops_raises_alone_and_ends(site: Path, tmp_path: Path) -> None:
    """A file-size limit on the running daemon: cars keep what they have, calls are told UNAVAILABLE, health too; a car
    that comes is not served; the limit gone, it is, and what was acknowledged is there after a kill.
    """

    async def story() -> None:
        number, truth = free_port(), HALL.truth()
        journal = tmp_path / "journal"
        with serving(site, number, journal=journal) as served:
            async with Fleet(HALL, f"127.0.0.1:{number}", truth) as fleet:
                for evse in range(19):
                    fleet.plug(evse, plugged=True)
                await fleet.until(FULL_A)
                async with grpc.aio.insecure_channel(f"127.0.0.1:{number}") as channel:
                    stub = SessionServiceStub(channel)
                    await _start(stub, "P0", "before")
                    _limit_files(served, 4096)
                    await asyncio.sleep(3 * TICK_S)
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await _start(stub, "P1", "during")
                    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                    fleet.plug(19, plugged=True)
                    fleet.plug(18, plugged=False)
                    await asyncio.sleep(TTL_S + 1.0)
                    truth.lapse(boottime_s())
                    assert truth.ceiling[19] == 0.0
                    assert truth.ceiling.sum() > 0.8 * FULL_A  # the others' leases are renewed all the while
                    _limit_files(served, resource.RLIM_INFINITY)
                    await fleet.until(FULL_A)
                    assert truth.ceiling[19] > 0.0
                    await _start(stub, "P2", "after")
        with serving(site, number, journal=journal):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{number}") as channel:
                listed = await SessionServiceStub(channel).ListSessions(pb_session.ListSessionsRequest(), timeout=20)
                found = {own.evse_id: own.session_id for own in listed.sessions}
                assert (found["P0"], found["P2"]) == ("before", "after")
        assert truth.violations == 0

    asyncio.run(story())


async def _start(stub: SessionServiceStub, evse: str, name: str) -> None:
    await stub.StartSession(pb_session.StartSessionRequest(evse_id=evse, session_id=name), timeout=20)  # type: ignore[misc]


def lose_all_streams(folder: Path, hall: Hall, *, full_a: float, within_s: float) -> None:
    """The hall fills; every stream is cut at once; two lease lengths later it is still full, by leases of new streams.

    The controllers run in two processes, so that it is the daemon that is tried and not their interpreter.
    """

    async def story() -> None:
        number, truth = free_port(), hall.truth()
        with serving(hall.write(folder), number) as served:
            async with Proxy(number) as proxy, contextlib.AsyncExitStack() as fleets:
                for part in range(2):
                    members = range(part, hall.controllers, 2)
                    await fleets.enter_async_context(apart(hall, f"127.0.0.1:{proxy.port}", truth, members, lean=True))
                await _reached(truth, full_a, within_s)
                before, began, cpu_s = proxy.accepted, time.monotonic(), served.cpu_s()
                proxy.cut()
                async with asyncio.timeout(within_s):
                    while proxy.accepted < before + hall.controllers:  # noqa: ASYNC110 - counted by its callback
                        await asyncio.sleep(0.05)
                back_s = time.monotonic() - began
                await asyncio.sleep(2 * hall.ttl_s)
                await _reached(truth, full_a, within_s)
                print(
                    f"{hall.controllers} streams back after {back_s:.1f} s, the hall full after "
                    f"{time.monotonic() - began:.1f} s, {served.cpu_s() - cpu_s:.1f} s CPU in the daemon"
                )
        assert truth.in_order().violations == 0

    asyncio.run(story())


async def _reached(truth: Truth, total_a: float, within_s: float) -> None:
    """Ends when the ceilings in force together reach ``total_a``."""
    async with asyncio.timeout(within_s):
        while truth.ceiling.sum() < total_a:
            await asyncio.sleep(0.05)
            truth.lapse(boottime_s())


def test_forty_reconnects_at_once(tmp_path: Path) -> None:
    """Forty controllers lose their streams in one moment: all are back and granted, and no limit was exceeded."""
    lose_all_streams(tmp_path, Hall(posts=40, controllers=40, limit_a=480.0), full_a=475.0, within_s=60.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_reconnects_at_once(tmp_path: Path) -> None:
    """The same of a thousand, at the usual lease length."""
    hall = Hall(posts=1000, controllers=1000, limit_a=12_000.0, ttl_s=15.0)
    lose_all_streams(tmp_path, hall, full_a=11_900.0, within_s=240.0)
