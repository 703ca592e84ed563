"""The end of a controller's program: what hangs holds nothing up."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from powerd.client import EvseConfig, aio, memory, sync
from powerd.client.aio import PowerdController
from powerd.client.sync import BlockingController
from powerd.control.events import HelloReceived
from powerd.errors import ControllerEnded
from tests.client.posts import Posts
from tests.server.dialogue import serving
from tests.server.fake import FakeCore

EVSES = [EvseConfig(evse_id="A1")]
THREE = [EvseConfig(evse_id=name) for name in ("A1", "A2", "A3")]

HANGS = """
import os, sys, threading
from pathlib import Path
from powerd.client import EvseConfig
from powerd.client.sync import BlockingController

what, file = sys.argv[1:]
called = threading.Event()

def hang(*_):
    called.set()
    threading.Event().wait()

def apply(*_):
    pass

if what == "disk":
    os.fsync = hang
else:
    apply = hang
with BlockingController("127.0.0.1:1", "c0", [EvseConfig(evse_id="A1")], apply, memory_file=Path(file)) as controller:
    if what == "disk":
        controller._inner.core.highest_epoch = 7
    assert called.wait(30)
print("ended")
"""


@pytest.mark.parametrize("what", ["post", "disk"])
def test_a_program_ends_while_something_hangs(what: str, tmp_path: Path) -> None:
    """Python waits neither for a thread in which ``apply`` has not returned nor for one that saves the memory."""
    program = [sys.executable, "-c", HANGS, what, str(tmp_path / "memory.json")]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "ended\n"


def test_who_waits_as_the_block_ends_is_told_so() -> None:
    """Each of many threads, each time: none hangs, none gets an error of asyncio."""
    told: list[type[BaseException]] = []

    def wait(controller: BlockingController, begun: threading.Barrier) -> None:
        begun.wait()
        try:
            controller.wait()
        except (ControllerEnded, CancelledError, RuntimeError) as error:
            told.append(type(error))

    for _ in range(10):
        begun = threading.Barrier(5)
        with BlockingController("127.0.0.1:1", "c0", EVSES, lambda *_: None) as controller:
            threads = [threading.Thread(target=wait, args=(controller, begun), daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            begun.wait()
        for thread in threads:
            thread.join(10)
    assert told == 40 * [ControllerEnded]


def test_the_end_waits_for_nothing_that_is_not_there() -> None:
    """Where no thread is in ``wait`` the controller ends in much less than the patience for such threads."""
    with BlockingController("127.0.0.1:1", "c0", EVSES, lambda *_: None) as controller:
        with pytest.raises(TimeoutError):
            controller.wait(0.2)
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < sync.WAITING_S / 2


def test_what_is_told_last_is_heard() -> None:
    """A car that left, and a reading, told as the last thing in the block: the daemon has both, in threads as on
    asyncio, the car after its post took 0.
    """
    told: list[tuple[str, float]] = []

    def apply(evse_id: str, ceiling: float, _: float) -> None:
        time.sleep(0.3)
        told.append((evse_id, ceiling))

    def in_threads(address: str, ready: threading.Event) -> None:
        with BlockingController(address, "c0", THREE, apply) as controller:
            controller.plug("A1", True)
            assert ready.wait(10)
            controller.measure("A2", (3.0, 0.0, 0.0))
            controller.plug("A1", False)

    async def scene() -> None:
        core, posts, ready = FakeCore(), Posts(), threading.Event()
        async with serving(core) as (server, _):
            using = asyncio.create_task(asyncio.to_thread(in_threads, server.address, ready))
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 8.0))
            ready.set()
            await using
            await core.until(lambda: not core.snapshot.sessions.plugged[0])
            assert told.count(("A1", 0.0)) == 2  # as it started, and as the car left
            assert core.snapshot.drawn[1, 0] == 3.0
        core = FakeCore()
        async with serving(core) as (server, _):
            async with PowerdController(server.address, "c0", THREE, posts.apply) as controller:
                controller.plug("A1", True)
                await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 8.0))
                controller.measure("A2", (3.0, 0.0, 0.0))
                controller.plug("A1", False)
            await core.until(lambda: not core.snapshot.sessions.plugged[0])
            assert posts.told["A1"].count((0.0, math.inf)) == 2  # as it started, and as the car left
            assert core.snapshot.drawn[1, 0] == 3.0

    asyncio.run(scene())


def test_what_posts_show_as_the_block_ends_is_heard() -> None:
    """In threads: an ``apply`` that reads back what its post shows takes the last order too; both are told."""
    controllers: list[BlockingController] = []

    def apply(_: str, ceiling: float, __: float) -> None:
        time.sleep(0.2)
        controllers[0].measure("A2", (3.0 if ceiling == 0.0 else 5.0, 0.0, 0.0))

    def in_threads(address: str, ready: threading.Event) -> None:
        controllers.append(BlockingController(address, "c0", THREE, apply))
        with controllers[0] as controller:
            controller.plug("A1", True)
            assert ready.wait(10)
            controller.plug("A1", False)

    async def scene() -> None:
        core, ready = FakeCore(), threading.Event()
        async with serving(core) as (server, _):
            using = asyncio.create_task(asyncio.to_thread(in_threads, server.address, ready))
            await core.until(lambda: bool((core.snapshot.leases.acked_ceiling[:3] == 8.0).all()))
            ready.set()
            await using
            await core.until(lambda: not core.snapshot.sessions.plugged[0])
            assert core.snapshot.drawn[1, 0] == 3.0

    asyncio.run(scene())


def test_what_is_told_beside_the_end_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In threads: a reading that comes while the end waits for a disk is not heard, and no traceback tells of it."""
    written = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: written.wait(10))
    with BlockingController("127.0.0.1:1", "c0", EVSES, lambda *_: None, memory_file=tmp_path / "m") as controller:
        telling = threading.Timer(memory.LAST_SAVE_S / 2, controller.measure, ("A1", (3.0, 0.0, 0.0)))
        telling.start()
    assert telling.finished.is_set()
    written.set()
    assert "ControllerEnded" not in caplog.text


@pytest.mark.parametrize("post", ["hangs", "hangs, and fails as it is cut off", "makes a mistake"])
def test_an_end_that_is_cut_short_is_one(post: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On asyncio, by a limit around the block while a post is waited for: no post is told anything afterwards, and who
    waits is told so, or what the mistake was.
    """
    monkeypatch.setattr(aio, "APPLY_RETRY_S", 0.1)
    calls, left = 0, False
    calls_at_end: list[int] = []

    async def apply(evse_id: str, *_: float) -> None:
        nonlocal calls
        calls += 1
        if not left or evse_id != "A1" or calls_at_end:
            return
        if post == "makes a mistake":
            raise KeyError(evse_id)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            calls_at_end.append(calls)
            if post == "hangs":
                raise
            raise ConnectionError from None

    async def use(core: FakeCore, controller: PowerdController) -> None:
        nonlocal left
        async with asyncio.timeout(None) as limit, controller:
            controller.plug("A1", True)
            await core.until(lambda: bool((core.snapshot.leases.acked_ceiling[:3] == 8.0).all()))
            left = True
            controller.plug("A1", False)
            limit.reschedule(asyncio.get_running_loop().time() + 0.25)

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (server, _):
            controller = PowerdController(server.address, "c0", THREE, apply)
            using = asyncio.create_task(use(core, controller))
            await core.came(HelloReceived)
            waiting = asyncio.create_task(controller.wait())
            with pytest.raises(TimeoutError):
                await using
            calls_at_end.append(calls)
            await asyncio.sleep(0.3)
            assert calls == calls_at_end[0]
            with pytest.raises(KeyError if post == "makes a mistake" else ControllerEnded):
                await asyncio.wait_for(waiting, 5)

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_an_end_that_is_cut_short_while_a_post_lets_go_is_one(tmp_path: Path) -> None:
    """On asyncio: who waits is told so, and the thread that saves the memory ends."""
    before, begun = _memory_threads(), asyncio.Event()

    async def apply(*_: object) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(60)

    async def scene() -> None:
        controller = PowerdController("127.0.0.1:1", "c0", EVSES, apply, memory_file=tmp_path / "memory.json")

        async def use() -> None:
            async with controller:
                await begun.wait()

        using = asyncio.create_task(use())
        await begun.wait()
        waiting = asyncio.create_task(controller.wait())
        await asyncio.sleep(0.1)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        with pytest.raises(ControllerEnded):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(asyncio.wait_for(scene(), 20))
    for thread in _memory_threads() - before:
        thread.join(5)
    assert _memory_threads() <= before


def _memory_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("powerd-memory")}


def test_the_last_word_is_waited_for_only_so_long(caplog: pytest.LogCaptureFixture) -> None:
    """A car leaves whose post does not answer: that was never told, and the log says so."""
    posts = Posts()

    async def apply(evse_id: str, ceiling: float, valid_for_s: float) -> None:
        if ceiling == 0.0 and posts.told[evse_id]:
            await asyncio.sleep(60)
        await posts.apply(evse_id, ceiling, valid_for_s)

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (server, _):
            async with PowerdController(server.address, "c0", THREE, apply) as controller:
                controller.plug("A1", True)
                await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 8.0))
                controller.plug("A1", False)
                begun_s = time.monotonic()
            assert aio.LAST_WORD_S <= time.monotonic() - begun_s < aio.LAST_WORD_S + 1
            assert core.snapshot.sessions.plugged[0]

    asyncio.run(scene())
    assert "has not confirmed" in caplog.text


@pytest.mark.parametrize(
    "call",
    [
        lambda controller: controller.plug("A1", True),
        lambda controller: controller.restarted("A1"),
        lambda controller: controller.measure("A1", (1.0, 0.0, 0.0)),
        lambda controller: controller.wait(1.0),
        lambda controller: controller.__enter__(),
    ],
)
def test_a_call_after_the_end_is_told_so(call: Callable[[BlockingController], object]) -> None:
    """By an error that can be caught by its name."""
    with BlockingController("127.0.0.1:1", "c0", EVSES, lambda *_: None) as controller:
        pass
    with pytest.raises(ControllerEnded, match="c0: the `with` block"):
        call(controller)


@pytest.mark.parametrize(
    "call",
    [
        lambda controller: controller.plug("A1", False),
        lambda controller: controller.restarted("A1"),
        lambda controller: controller.measure("A1", (1.0, 0.0, 0.0)),
    ],
)
def test_after_the_end_no_post_is_ordered_anything(call: Callable[[PowerdController], None]) -> None:
    """On asyncio: the call is told so, and so is who wants to begin again with the same controller."""

    async def scene() -> None:
        posts = Posts()
        async with PowerdController("127.0.0.1:1", "c0", EVSES, posts.apply) as controller:
            controller.plug("A1", True)
            await posts.has("A1", 0.0)
        with pytest.raises(ControllerEnded, match="c0: the `with` block"):
            call(controller)
        with pytest.raises(ControllerEnded, match="c0: the `with` block"):
            await controller.__aenter__()
        await asyncio.sleep(0.1)
        assert posts.told["A1"] == [(0.0, math.inf)]

    asyncio.run(scene())


def test_a_task_that_waits_as_the_block_ends_is_told_so() -> None:
    """On asyncio: it was not cancelled, and hears of no cancellation."""

    async def scene() -> None:
        async with PowerdController("127.0.0.1:1", "c0", EVSES, Posts().apply) as controller:
            waiting = asyncio.create_task(controller.wait())
            await asyncio.sleep(0)
        with pytest.raises(ControllerEnded, match="c0: the `with` block"):
            await waiting

    asyncio.run(scene())
