"""The connected controllers against a real server on loopback: applied, acked, reconnected, fallen back."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc.aio import ServicerContext

from powerd.client import EvseConfig, Memory, Refusal, aio, sync
from powerd.client.aio import PowerdController
from powerd.client.memory import load_memory, save_memory
from powerd.client.sync import BlockingController
from powerd.control.events import Acked, Event, HelloReceived, PlugChanged, StampSeen, StopOrdered
from powerd.errors import UnreadableInput
from powerd.v1 import controller_service_pb2 as pb
from tests.client.daemon_side import grants
from tests.client.posts import Posts
from tests.server.dialogue import serving
from tests.server.fake import FakeCore

EVSES = [EvseConfig(evse_id=name, fallback=6.0) for name in ("A1", "A2", "A3")]


def test_a_grant_is_applied_and_acked() -> None:
    """Idle fallback first, then the grant with what is left of its lease, then the ack of exactly that."""

    async def scene() -> FakeCore:
        core, posts = FakeCore(), Posts()
        async with serving(core) as (server, _), PowerdController(server.address, "c0", EVSES, posts.apply) as c:
            assert await posts.has("A2", 0.0) == math.inf
            assert 10 < await posts.has("A2", 8.0) <= 15
            await core.came(Acked, 1)
            c.plug("A2", True)
            await core.came(PlugChanged)
            core.tick(lowered={1: 6.5})
            await posts.has("A2", 6.5)
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[1] == 6.5))
        return core

    acked = asyncio.run(scene()).snapshot.leases
    assert acked.acked_seq[1] == acked.sent_seq[1]


def test_a_post_is_switched_at_zero_and_then_acked() -> None:
    """For L1 alone: 0, the switch, the ceiling, the ack that says so; and the same on the way back."""

    async def scene() -> list[float]:
        core, posts = FakeCore(), Posts()
        evses = [EvseConfig(evse_id=name, switches_phases=True) for name in ("A1", "A2", "A3")]
        core.one_phase = {1}
        ours = PowerdController
        async with serving(core) as (server, _), ours(server.address, "c0", evses, posts.apply, switch=posts.switch):
            await posts.has("A2", 8.0)
            await core.until(lambda: any(_on_one(ack, 1) for ack in core.of(Acked)))
            core.one_phase = set()
            core.tick(lowered={1: 6.5})
            await posts.has("A2", 6.5)
        return [ceiling for ceiling, _ in posts.told["A2"]]

    assert asyncio.run(scene()) == [0.0, 0.0, -1, 8.0, 0.0, -3, 6.5]


def test_a_post_that_restarted_is_switched_and_told_again() -> None:
    """0, the switch, the ceiling, as the first time: nothing is known of its contactor."""

    async def scene() -> list[float]:
        core, posts = FakeCore(), Posts()
        evses = [EvseConfig(evse_id=name, switches_phases=True) for name in ("A1", "A2", "A3")]
        core.one_phase = {1}
        ours = PowerdController
        async with (
            serving(core) as (server, _),
            ours(server.address, "c0", evses, posts.apply, switch=posts.switch) as c,
        ):
            await core.until(lambda: any(_on_one(ack, 1) for ack in core.of(Acked)))
            posts.told["A2"].clear()
            c.restarted("A2")
            await posts.has("A2", 8.0)
        return [ceiling for ceiling, _ in posts.told["A2"]]

    assert asyncio.run(scene()) == [0.0, -1, 8.0]


def _on_one(ack: Event, evse: int) -> bool:
    """It says that this post has connected L1 alone."""
    return isinstance(ack, Acked) and ack.one_phase is not None and evse in ack.evse[ack.one_phase]


def test_who_says_that_posts_switch_has_to_switch_them() -> None:
    """A controller without a `switch` does not start with posts that say they can."""
    with pytest.raises(ValueError, match="switch"):
        PowerdController("x", "c", [EvseConfig(evse_id="A1", switches_phases=True)], Posts().apply)


def test_heartbeats_come_without_news() -> None:
    """At least every ttl/4, here made short by a short lease."""

    async def scene() -> None:
        core, posts = FakeCore(), Posts()
        core.electrical.controllers.ttl_s[0] = 1.2
        try:
            async with serving(core) as (server, _), PowerdController(server.address, "c0", EVSES, posts.apply):
                await core.came(Acked)
                started = asyncio.get_running_loop().time()
                await core.came(StampSeen, len(core.of(StampSeen)) + 4)
                assert asyncio.get_running_loop().time() - started < 4 * 0.3 + 0.5
        finally:
            core.electrical.controllers.ttl_s[0] = 15.0

    asyncio.run(scene())


def test_a_post_that_fails_is_told_again_and_acked_only_then() -> None:
    """Reports that leave while the post has not taken the ceiling do not ack it."""

    async def scene() -> None:
        core, posts = FakeCore(), Posts()
        async with serving(core) as (server, _), PowerdController(server.address, "c0", EVSES, posts.apply) as c:
            await core.until(lambda: bool((core.snapshot.leases.acked_ceiling[:3] == 8.0).all()))
            posts.failures = 10**6
            core.tick(lowered={0: 7.0})
            await asyncio.wait_for(posts.failed.wait(), 10)
            c.plug("A3", True)  # sends a report at once
            await core.came(PlugChanged)
            await core.until(lambda: bool(core.snapshot.sessions.plugged[2]))
            assert core.snapshot.leases.acked_ceiling[0] == 8.0
            posts.failures = 0
            await posts.has("A1", 7.0)
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 7.0))

    asyncio.run(scene())


def test_silence_ends_in_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is gone: when the lease has ended the posts go to F with a car, to the idle fallback without."""
    jump = 0.0
    clock = aio.boottime_s
    monkeypatch.setattr(aio, "boottime_s", lambda: clock() + jump)

    async def scene() -> None:
        nonlocal jump
        core, posts = FakeCore(), Posts()
        core.give[:] = 9.0
        async with serving(core) as (server, _):
            controller = PowerdController(server.address, "c0", EVSES, posts.apply)
            await controller.__aenter__()
            await posts.has("A1", 9.0)
            controller.plug("A1", True)
            await core.came(PlugChanged)
            core.tick(raised={0: 12.0})
            await posts.has("A1", 12.0)
        jump = 20.0  # as after a suspend: the timers of the event loop know nothing of it
        await posts.has("A1", 6.0)
        await posts.has("A2", 0.0)
        await controller.__aexit__(None, None, None)

    asyncio.run(scene())


def test_a_write_under_way_ends_with_its_lease_though_the_machine_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timers of the event loop stood still: the post gets its fallback at once, not when the write's timer is over,
    and what it has not taken is neither acked nor told as in force.
    """
    jump = 0.0
    clock = aio.boottime_s
    monkeypatch.setattr(aio, "boottime_s", lambda: clock() + jump)
    posts, begun, ended = Posts(), asyncio.Event(), asyncio.Event()

    async def apply(evse_id: str, ceiling: float, valid_for_s: float) -> None:
        if ceiling == 12.0:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
        await posts.apply(evse_id, ceiling, valid_for_s)

    async def scene() -> None:
        nonlocal jump
        core = FakeCore()
        controller = PowerdController("", "c0", EVSES, apply, apply_timeout_s=60.0)
        async with serving(core) as (server, _):
            monkeypatch.setattr(controller, "_target", server.address)
            await controller.__aenter__()
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 8.0))
            controller.plug("A1", True)
            await core.came(PlugChanged)
            core.tick(raised={0: 12.0})
            await asyncio.wait_for(begun.wait(), 10)
        jump = 20.0
        async with asyncio.timeout(5):
            await posts.has("A1", 6.0)
        assert ended.is_set()
        assert (controller.core.in_force[0], controller.core.evses[0].remaining_s(aio.boottime_s())) == (6.0, 0.0)
        assert all(float(ack.ceiling[0]) != 12.0 for ack in core.of(Acked) if isinstance(ack, Acked))
        await controller.__aexit__(None, None, None)

    asyncio.run(scene())


class Garbled(grpc.GenericRpcHandler):
    """A daemon whose first message is no message."""

    def __init__(self) -> None:
        self.hellos: list[pb.Hello] = []

    def service(self, _: object) -> grpc.RpcMethodHandler[bytes, bytes]:
        """All calls are streams."""
        return grpc.stream_stream_rpc_method_handler(self._stream)

    async def _stream(self, said: AsyncIterator[bytes], context: ServicerContext[bytes, bytes]) -> None:
        self.hellos.append(pb.ConnectRequest.FromString(await anext(said)).hello)
        await context.write(b"\xff\xff\xff\xff")
        good = grants((1, 1), {0: 9.0}, self.hellos[0].stamp.boottime_s, incarnation=self.hellos[0].stamp.incarnation)
        await context.write(good.SerializeToString())
        async for _ in said:
            pass


def test_a_message_that_does_not_parse_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """The stream goes on, with the grant after it; a person reads why something may be missing."""

    async def scene() -> None:
        posts, daemon, server = Posts(), Garbled(), grpc.aio.server()
        server.add_generic_rpc_handlers((daemon,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with PowerdController(f"127.0.0.1:{port}", "c0", EVSES[:1], posts.apply) as controller:
            await posts.has("A1", 9.0)
            assert controller.core.refusals == {Refusal.MALFORMED: 1}
        assert len(daemon.hellos) == 1
        await server.stop(0)

    asyncio.run(scene())
    told = [record.message for record in caplog.records if record.name == aio.logger.name]
    assert told == ["the message refused: malformed, (epoch, seq) (0, 0)"]


def test_it_comes_back_after_the_daemon_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new stream with a hello that says what is in force."""
    monkeypatch.setattr(aio, "RETRY_S", (0.02, 0.1))

    async def scene() -> None:
        core, posts = FakeCore(), Posts()
        async with serving(core) as (first, _):
            controller = PowerdController(first.address, "c0", EVSES, posts.apply)
            await controller.__aenter__()
            await posts.has("A3", 8.0)
        again = FakeCore()
        again.give[:] = 5.0
        monkeypatch.setattr(controller, "_target", "127.0.0.1:1")
        await asyncio.sleep(0.1)
        async with serving(again) as (second, _):
            monkeypatch.setattr(controller, "_target", second.address)
            await again.came(HelloReceived)
            (greeting,) = again.of(HelloReceived)
            assert isinstance(greeting, HelloReceived)
            assert greeting.ceiling.tolist() == [8.0, 8.0, 8.0]
            assert (greeting.remaining_s > 5).all()
            assert greeting.highest_epoch == 3
            await controller.__aexit__(None, None, None)

    asyncio.run(scene())


def test_a_broken_actuator_function_is_not_hidden() -> None:
    """An error that is no OSError ends `wait`: it is a mistake in the integrator's code."""

    async def apply(evse_id: str, *_: float) -> None:
        raise KeyError(evse_id)

    async def scene() -> None:
        async with serving(FakeCore()) as (server, _), PowerdController(server.address, "c0", EVSES, apply) as c:
            with pytest.raises(KeyError):
                await asyncio.wait_for(c.wait(), 5)

    asyncio.run(scene())


def test_a_mistake_of_the_actuator_function_loses_no_order() -> None:
    """The write is repeated as after an OSError, here at once the idle fallback of the start; who does not ``wait``
    learns of the mistake at the end.
    """
    posts, mistakes = Posts(), ["bad frame"]

    async def apply(evse_id: str, ceiling: float, valid_for_s: float) -> None:
        if evse_id == "A1" and mistakes:
            raise ValueError(mistakes.pop())
        await posts.apply(evse_id, ceiling, valid_for_s)

    async def scene() -> None:
        async with serving(FakeCore()) as (server, _), PowerdController(server.address, "c0", EVSES, apply) as c:
            await posts.has("A1", 8.0)
            assert c.core.in_force[0] == 8.0

    with pytest.raises(ValueError, match="bad frame"):
        asyncio.run(scene())
    assert not mistakes


@pytest.mark.parametrize(
    ("evse_id", "drawn"),
    [("A9", (0.0, 0.0, 0.0)), ("A1", (math.nan, 0.0, 0.0)), ("A1", (-1.5, 0.0, 0.0)), ("A1", (1.0, 2.0))],
)
def test_what_the_daemon_would_refuse_is_told_to_the_caller(evse_id: str, drawn: tuple[float, float, float]) -> None:
    """An unknown EVSE, no number, a current the wrong way round, one phase too few; in both clients, before anything
    is sent: the daemon would close the stream of all.
    """

    async def apply(*_: object) -> None:
        pass

    aio = PowerdController("127.0.0.1:1", "c0", EVSES, apply)
    with pytest.raises(ValueError, match=evse_id):
        aio.measure(evse_id, drawn)
    blocking = BlockingController("127.0.0.1:1", "c0", EVSES, lambda *_: None)
    with pytest.raises(ValueError, match=evse_id):
        blocking.measure(evse_id, drawn)


def test_a_stop_is_remembered_over_a_restart(tmp_path: Path) -> None:
    """The next process starts the post at 0 and says latched, whatever its idle fallback."""
    file = tmp_path / "memory.json"
    evses = [EvseConfig(evse_id=name, fallback_idle=3.0) for name in ("A1", "A2", "A3")]

    async def first() -> None:
        core, posts = FakeCore(), Posts()
        async with (
            serving(core) as (server, _),
            PowerdController(server.address, "c0", evses, posts.apply, memory_file=file),
        ):
            await posts.has("A1", 8.0)
            await core.post(StopOrdered(request_id="", stop_id="s", element="A1", evse=np.array([0]), reason="smoke"))
            await posts.has("A1", 0.0)

    async def second() -> Posts:
        posts = Posts()
        async with PowerdController("127.0.0.1:1", "c0", evses, posts.apply, memory_file=file) as controller:
            await posts.has("A2", 3.0)
            assert controller.core.evses[0].latched
        return posts

    asyncio.run(first())
    assert load_memory(file) == Memory(highest_epoch=3, latched=frozenset({"A1"}))
    assert asyncio.run(second()).told["A1"] == [(0.0, math.inf)]


def test_a_stop_is_obeyed_though_the_disk_refuses_it_and_acked_when_it_is_kept(tmp_path: Path) -> None:
    """The post goes to 0 and the stream stays; the daemon hears of it once a restart would not forget the stop."""
    file = tmp_path / "disk" / "memory.json"
    file.parent.mkdir()

    async def scene() -> None:
        core, posts = FakeCore(), Posts()
        stop = StopOrdered(request_id="", stop_id="s", element="A1", evse=np.array([0]), reason="smoke")
        async with (
            serving(core) as (server, _),
            PowerdController(server.address, "c0", EVSES, posts.apply, memory_file=file) as controller,
        ):
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 8.0))
            file.parent.rename(tmp_path / "gone")
            await core.post(stop)
            await posts.has("A1", 0.0)
            controller.plug("A2", True)
            await core.came(PlugChanged)  # the stream lives; what was acked before it is absorbed
            assert core.snapshot.leases.acked_ceiling[0] == 8.0
            (tmp_path / "gone").rename(file.parent)
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 0.0))
            assert load_memory(file).latched == {"A1"}
        assert len(core.of(HelloReceived)) == 1

    asyncio.run(scene())


def test_the_memory_is_on_the_disk_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is forced to the disk before it gets its name, the folder after: no loss of power undoes either."""
    file = tmp_path / "memory.json"
    forced: list[tuple[Path, bool]] = []

    def fsync(descriptor: int) -> None:
        forced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), file.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    save_memory(file, Memory())
    assert forced == [(tmp_path / "memory.json.new", False), (tmp_path, True)]


def test_a_damaged_memory_is_refused(tmp_path: Path) -> None:
    """It may have held a stop: a person must look. No file yet is no memory."""
    file = tmp_path / "memory.json"
    assert load_memory(file) == Memory()
    kept = Memory(highest_epoch=7, latched=frozenset({"x", "y"}))
    save_memory(file, kept)
    assert load_memory(file) == kept
    for damaged in ("", "{}", "[1]", '{"highest_epoch": "many", "latched": []}'):
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(UnreadableInput, match=r"memory\.json"):
            load_memory(file)


def test_posts_that_hang_keep_no_other_waiting() -> None:
    """However many lost posts hold a thread each, the one that is left is told."""
    evses = [EvseConfig(evse_id=f"P{i}") for i in range(40)]
    told, over = threading.Event(), threading.Event()

    def apply(evse_id: str, *_: float) -> None:
        if evse_id == "P39":
            told.set()
        else:
            over.wait(30)

    with BlockingController("127.0.0.1:1", "c0", evses, apply):
        reached = told.wait(10)
        over.set()
    assert reached


@pytest.mark.parametrize("slept_s", [6.0, 20.0])
def test_a_lease_goes_on_while_a_write_waits_for_its_thread(monkeypatch: pytest.MonkeyPatch, slept_s: float) -> None:
    """Of 15 s it gets what is left when it is made, and with nothing left it is not made and not acked."""
    told: list[tuple[float, float]] = []
    clock, writes = aio.boottime_s, threading.Semaphore(0)

    def later_in_threads() -> float:
        if threading.current_thread().name.startswith("powerd-controller"):
            return clock()
        writes.release()
        return clock() + slept_s

    def use(address: str) -> None:
        with BlockingController(address, "c0", EVSES, lambda _, *order: told.append(order)):
            for _ in range(2 * len(EVSES)):  # every post its fallback and its grant
                assert writes.acquire(timeout=10)
            if slept_s > 15:  # and each once more: the first try is over
                for _ in EVSES:
                    assert writes.acquire(timeout=10)

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (server, _):
            await asyncio.to_thread(use, server.address)
        return core

    monkeypatch.setattr(sync, "boottime_s", later_in_threads)
    core = asyncio.run(scene())
    granted = [valid_for_s for ceiling, valid_for_s in told if ceiling == 8.0]
    assert all(0 < valid_for_s <= 15.0 - slept_s for valid_for_s in granted)
    assert bool(granted) == (slept_s < 15)
    assert bool(core.of(Acked)) <= bool(granted)


def test_a_mistake_of_the_actuator_function_ends_the_threads_all_the_same() -> None:
    """What ``apply`` raised is raised at the end, and no loop runs on behind the program."""
    calls = threading.Semaphore(0)

    def apply(*_: object) -> None:
        calls.release()
        raise KeyError("register")

    def use() -> None:
        with BlockingController("127.0.0.1:1", "c0", EVSES[:1], apply):
            assert calls.acquire(timeout=10)
            assert calls.acquire(timeout=10)  # called again: the first mistake is known

    with pytest.raises(KeyError):
        use()
    assert "powerd-controller" not in {thread.name for thread in threading.enumerate()}


def test_a_write_whose_call_is_cancelled_is_made_again() -> None:
    """A library that loses its link cancels what waits for answers: that is no end of the post's lane."""
    posts, lost = Posts(), [True]

    async def apply(evse_id: str, ceiling: float, valid_for_s: float) -> None:
        if evse_id == "A1" and ceiling == 8.0 and lost:
            lost.clear()
            raise asyncio.CancelledError
        await posts.apply(evse_id, ceiling, valid_for_s)

    async def scene() -> None:
        async with serving(FakeCore()) as (server, _), PowerdController(server.address, "c0", EVSES, apply):
            await posts.has("A1", 8.0)

    asyncio.run(scene())
    assert not lost


@pytest.mark.parametrize("raised", [StopIteration, SystemExit, asyncio.CancelledError])
def test_whatever_a_blocking_call_raises_the_posts_are_written_again(raised: type[BaseException]) -> None:
    """A future takes no StopIteration, and a loop would end by SystemExit: no post would ever fall back."""
    calls = {name: threading.Semaphore(0) for name in ("A1", "A2")}
    mistakes = [raised()]

    def apply(evse_id: str, *_: float) -> None:
        calls[evse_id].release()
        if evse_id == "A1" and mistakes:
            raise mistakes.pop()

    def use() -> None:
        with BlockingController("127.0.0.1:1", "c0", EVSES[:2], apply):
            assert calls["A1"].acquire(timeout=10)
            assert calls["A1"].acquire(timeout=10)
            assert calls["A2"].acquire(timeout=10)

    with pytest.raises(RuntimeError, match=raised.__name__):
        use()


@pytest.mark.parametrize("part", ["expire", "report"])
def test_after_a_mistake_in_the_library_leases_end_and_the_stream_comes_back(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever task it ends begins anew; the end of the block raises the mistake."""
    posts, mistakes, jump = Posts(), ["a mistake"], 0.0
    clock = aio.boottime_s
    monkeypatch.setattr(aio, "boottime_s", lambda: clock() + jump)

    async def scene() -> None:
        nonlocal jump
        core = FakeCore()
        async with serving(core) as (server, _), PowerdController(server.address, "c0", EVSES, posts.apply) as c:
            right = getattr(c.core, part)

            def wrong(now_s: float) -> object:
                if mistakes:
                    raise ValueError(mistakes.pop())
                return right(now_s)

            await core.came(HelloReceived)
            monkeypatch.setattr(c.core, part, wrong)
            await core.until(lambda: not mistakes and bool(core.snapshot.leases.acked_ceiling[0] == 8.0))
            jump = 20.0
            await posts.has("A1", 0.0)

    with pytest.raises(ValueError, match="a mistake"):
        asyncio.run(scene())


def test_a_mistake_that_comes_with_every_message_calls_the_daemon_ever_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pauses grow over the mistakes, as over streams that are closed."""
    monkeypatch.setattr(aio, "RETRY_S", (0.1, 10.0))
    monkeypatch.setattr(aio, "APPLY_RETRY_S", 0.01)

    def wrong(*_: object) -> None:
        raise ValueError("a mistake")

    async def scene() -> FakeCore:
        core = FakeCore()
        async with serving(core) as (server, _):
            controller = PowerdController(server.address, "c0", EVSES, Posts().apply)
            monkeypatch.setattr(controller.core, "receive", wrong)
            await controller.__aenter__()
            await asyncio.sleep(1.5)
            with pytest.raises(ValueError, match="a mistake"):
                await controller.__aexit__(None, None, None)
        return core

    hellos = len(asyncio.run(scene()).of(HelloReceived))
    assert 1 < hellos <= 6  # after pauses of at least 0.05, 0.1, 0.2, 0.4 and 0.8 s


def test_a_call_that_is_cut_off_and_returns_all_the_same_is_not_acked() -> None:
    """It may have swallowed its end, as any error: whether the post has taken the ceiling it does not say."""
    posts, cut = Posts(), asyncio.Event()

    async def apply(evse_id: str, ceiling: float, valid_for_s: float) -> None:
        if evse_id == "A1" and ceiling == 8.0 and not cut.is_set():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cut.set()
                return
        await posts.apply(evse_id, ceiling, valid_for_s)

    async def scene() -> None:
        async with (
            serving(FakeCore()) as (server, _),
            PowerdController(server.address, "c0", EVSES, apply, apply_timeout_s=0.2) as controller,
        ):
            await asyncio.wait_for(cut.wait(), 10)
            await asyncio.sleep(0.1)
            assert controller.core.in_force[0] == 0.0
            await posts.has("A1", 8.0)

    asyncio.run(scene())


def test_a_post_without_a_thread_is_written_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has no more threads: each order is made once, by its newest call, and none is made late."""
    told: list[float] = []
    start, missing, reached = threading.Thread.start, [1, 2, 3], threading.Event()

    def starts(thread: threading.Thread) -> None:
        if thread.name.startswith("powerd-post") and missing:
            missing.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    def apply(_: str, ceiling: float, __: float) -> None:
        told.append(ceiling)
        reached.set()

    monkeypatch.setattr(threading.Thread, "start", starts)
    with BlockingController("127.0.0.1:1", "c0", EVSES[:1], apply):
        assert reached.wait(10)
        time.sleep(0.2)
    assert (told, missing) == ([0.0], [])


def test_it_ends_at_once_with_a_car_that_leaves() -> None:
    """As the program does: that is told as soon as its post has taken 0, and then nothing keeps the connection open."""

    async def scene() -> None:
        core, posts = FakeCore(), Posts()
        async with serving(core) as (server, _), PowerdController(server.address, "c0", EVSES, posts.apply) as c:
            await posts.has("A1", 8.0)
            c.plug("A1", True)
            await core.came(PlugChanged)
            c.core.report_within_s = math.inf  # it has nothing to say by itself
            c.plug("A1", False)

    asyncio.run(asyncio.wait_for(scene(), 10))


def test_threads_can_use_it_too() -> None:
    """The blocking wrapper: `apply` runs in a thread that is not the loop's, and the daemon gets the ack."""
    told: list[tuple[str, float, str]] = []
    granted = threading.Event()

    def apply(evse_id: str, ceiling: float, _: float) -> None:
        told.append((evse_id, ceiling, threading.current_thread().name))
        if ceiling == 8.0:
            granted.set()

    def use(address: str) -> None:
        with BlockingController(address, "c0", EVSES, apply) as controller:
            assert granted.wait(10)
            controller.plug("A1", True)
            with pytest.raises(TimeoutError):
                controller.wait(0.3)
            assert controller.in_force() == (8.0, 8.0, 8.0)

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (server, _):
            await asyncio.to_thread(use, server.address)
        assert core.of(Acked)
        assert core.of(PlugChanged)

    asyncio.run(scene())
    assert {name for _, _, name in told}.isdisjoint({"powerd-controller", "MainThread"})
