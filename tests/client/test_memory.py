"""The disk of a controller hangs: it holds up acks of stops and nothing else."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from powerd.client import EvseConfig, Memory, aio
from powerd.client import memory as memory_module
from powerd.client.aio import PowerdController
from powerd.client.memory import LAST_SAVE_S, MemoryKeeper, load_memory, save_memory
from powerd.control.events import Acked, PlugChanged, StampSeen, StopOrdered, StopReleased
from powerd.errors import UnreadableInput
from tests.client.posts import Posts
from tests.server.dialogue import serving
from tests.server.fake import FakeCore

EVSES = [EvseConfig(evse_id=name, fallback=6.0) for name in ("A1", "A2", "A3")]
STOP = StopOrdered(request_id="", stop_id="s", element="A1", evse=np.array([0]), reason="smoke")


class Disk:
    """What is to be forced to it hangs while ``works`` is not set, 20 s at most, and fails while it is full."""

    def __init__(self) -> None:
        self.works, self.full = threading.Event(), False
        self.works.set()

    def fsync(self, _: int) -> None:
        self.works.wait(20)
        if self.full:
            raise OSError("no room")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The disk of every memory file."""
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    yield disk
    disk.works.set()


async def _has(file: Path, memory: Memory) -> None:
    """Ends when the file keeps this memory."""
    async with asyncio.timeout(10):
        while load_memory(file) != memory:  # noqa: ASYNC110  (a file tells nobody)
            await asyncio.sleep(0.01)


def test_a_stop_is_obeyed_at_once_while_the_disk_hangs_and_acked_when_it_is_kept(tmp_path: Path, disk: Disk) -> None:
    """The post is told once, and the stream goes on: a plug is told; only the ack waits."""
    file = tmp_path / "memory.json"

    async def scene() -> list[float]:
        core, posts = FakeCore(), Posts()
        async with (
            serving(core) as (server, _),
            PowerdController(server.address, "c0", EVSES, posts.apply, memory_file=file) as controller,
        ):
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 8.0))
            await _has(file, Memory(highest_epoch=3))
            disk.works.clear()
            await core.post(STOP)
            await asyncio.wait_for(posts.has("A1", 0.0), 2)
            controller.plug("A2", True)
            await core.came(PlugChanged)
            await core.until(lambda: bool(core.snapshot.sessions.plugged[1]))
            assert core.snapshot.leases.acked_ceiling[0] == 8.0
            disk.works.set()
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 0.0))
            assert load_memory(file).latched == {"A1"}
        return [ceiling for ceiling, _ in posts.told["A1"]]

    assert asyncio.run(asyncio.wait_for(scene(), 30)) == [0.0, 8.0, 0.0]


def test_a_stop_that_waits_for_the_disk_gives_way_to_a_newer_order(tmp_path: Path, disk: Disk) -> None:
    """The release is applied and acked though the disk hangs: a restart would start at the stop, the safe side."""

    async def scene() -> None:
        core, posts = FakeCore(), Posts()
        file = tmp_path / "memory.json"
        async with (
            serving(core) as (server, _),
            PowerdController(server.address, "c0", EVSES, posts.apply, memory_file=file),
        ):
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 8.0))
            disk.works.clear()
            await core.post(STOP)
            await posts.has("A1", 0.0)
            await core.post(StopReleased(request_id="", stop_id="s", reason="all clear"))
            core.tick(raised={0: 7.0})
            await posts.has("A1", 7.0)
            await core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 7.0))

    asyncio.run(asyncio.wait_for(scene(), 30))


@pytest.fixture
def often() -> Iterator[FakeCore]:
    """A core that wants reports of c0 every 0.3 s."""
    core = FakeCore()
    ttl_s = core.electrical.controllers.ttl_s
    ttl_s[0] = 1.2
    yield core
    ttl_s[0] = 15.0


def test_heartbeats_and_the_end_of_leases_do_not_wait_for_the_disk(
    tmp_path: Path, disk: Disk, often: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat every 0.3 s, the fallback as the lease ends, and the end of the controller, while a save hangs."""
    jump, clock = 0.0, aio.boottime_s
    monkeypatch.setattr(aio, "boottime_s", lambda: clock() + jump)

    async def scene() -> None:
        nonlocal jump
        core, posts = often, Posts()
        async with serving(core) as (server, _):
            file = tmp_path / "memory.json"
            controller = PowerdController(server.address, "c0", EVSES, posts.apply, memory_file=file)
            await controller.__aenter__()
            await core.came(Acked)
            await core.post(STOP)
            await posts.has("A1", 0.0)
            begun_s = time.monotonic()
            await core.came(StampSeen, len(core.of(StampSeen)) + 4)
            assert time.monotonic() - begun_s < 4 * 0.3 + 0.5
        begun_s, jump = time.monotonic(), 20.0
        await posts.has("A2", 0.0)
        assert time.monotonic() - begun_s < aio.SLEEP_MAX_S + 0.5
        await controller.__aexit__(None, None, None)
        assert time.monotonic() - begun_s < aio.SLEEP_MAX_S + 0.5 + LAST_SAVE_S + 0.5

    disk.works.clear()  # for the first save, and for ever
    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_disk_that_hangs_holds_one_thread_and_the_newest_memory_is_next(tmp_path: Path, disk: Disk) -> None:
    """Of a thousand memories two are saved: the first, which hangs, and the last."""
    file = tmp_path / "memory.json"

    async def scene() -> None:
        refusals: list[UnreadableInput | None] = []
        keeper = MemoryKeeper(file, "c0", Memory(), refusals.append)
        before = set(threading.enumerate())
        disk.works.clear()
        for epoch in range(1, 1001):
            keeper.keep(Memory(highest_epoch=epoch))
            await asyncio.sleep(0)
        assert len(set(threading.enumerate()) - before) == 1
        disk.works.set()
        await _has(file, Memory(highest_epoch=1000))
        await keeper.end()
        assert refusals == [None, None]

    asyncio.run(asyncio.wait_for(scene(), 30))


@pytest.mark.parametrize("full", [False, True])
def test_a_stop_counts_as_kept_only_where_no_save_may_undo_it(tmp_path: Path, disk: Disk, full: bool) -> None:
    """It was kept, and the save of its release hangs, or has failed with the new file in place: another stop of that
    post waits for a save of its own.
    """
    file, stopped = tmp_path / "memory.json", Memory(latched=frozenset({"A1"}))

    async def scene() -> None:
        save_memory(file, stopped)
        saves = asyncio.Semaphore(0)
        keeper = MemoryKeeper(file, "c0", stopped, lambda _: saves.release())
        assert keeper.keeps_stop("A1")
        disk.full = full
        if not full:
            disk.works.clear()
        keeper.keep(Memory())
        if full:
            await saves.acquire()
        disk.full = False
        keeper.keep(stopped)
        assert not keeper.keeps_stop("A1")
        disk.works.set()
        while not keeper.keeps_stop("A1"):
            await saves.acquire()
        assert load_memory(file) == stopped
        await keeper.end()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_disk_that_hangs_is_told_once(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And that it works again."""
    monkeypatch.setattr(memory_module, "SLOW_SAVE_S", 0.0)

    async def scene() -> None:
        saves = asyncio.Semaphore(0)
        keeper = MemoryKeeper(tmp_path / "memory.json", "c0", Memory(), lambda _: saves.release())
        disk.works.clear()
        for epoch in (1, 1, 1):
            keeper.keep(Memory(highest_epoch=epoch))
            await asyncio.sleep(0.01)
        disk.works.set()
        await saves.acquire()
        await keeper.end()

    asyncio.run(asyncio.wait_for(scene(), 30))
    assert [message.split(": ")[1].split(",")[0] for message in caplog.messages] == [
        "not written for 0 s",
        "written again",
    ]


def test_a_memory_file_is_of_one_controller(tmp_path: Path) -> None:
    """Another one is refused as it is made; a file of before, which does not say whose it is, is taken."""
    file, stopped = tmp_path / "memory.json", Memory(highest_epoch=2, latched=frozenset({"A1"}))
    file.write_text('{"highest_epoch": 2, "latched": ["A1"]}', encoding="utf-8")

    async def scene() -> None:
        async with PowerdController("127.0.0.1:1", "c0", EVSES, Posts().apply, memory_file=file) as controller:
            assert controller.core.memory == stopped

    asyncio.run(scene())
    with pytest.raises(UnreadableInput, match="of controller 'c0', not of 'c1': give each controller a memory_file"):
        PowerdController("127.0.0.1:1", "c1", EVSES, Posts().apply, memory_file=file)
    with pytest.raises(UnreadableInput, match="memory_file"):
        save_memory(file, Memory(), "c1")
    assert load_memory(file, "c0") == stopped


def test_of_two_controllers_that_start_with_one_file_the_second_is_told(tmp_path: Path) -> None:
    """Neither finds it said whose it is, and the second hears of it from ``wait``; it erases nothing."""
    file = tmp_path / "memory.json"

    async def scene() -> None:
        first, second = (
            PowerdController("127.0.0.1:1", name, EVSES, Posts().apply, memory_file=file) for name in ("c0", "c1")
        )
        async with first:
            first.core.highest_epoch = 5
            async with asyncio.timeout(10):
                await _has(file, Memory(highest_epoch=5))
                async with second:
                    with pytest.raises(UnreadableInput, match="give each controller a memory_file of its own"):
                        await second.wait()
        assert load_memory(file, "c0") == Memory(highest_epoch=5)

    asyncio.run(scene())


def test_two_that_save_at_once_do_not_mix(tmp_path: Path) -> None:
    """One of many controllers gets the file, and every other one is refused."""
    file, begin = tmp_path / "memory.json", threading.Barrier(8)
    taken: list[int] = []

    def save(number: int) -> None:
        begin.wait()
        with suppress(UnreadableInput):
            save_memory(file, Memory(highest_epoch=number), f"c{number}")
            taken.append(number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(save, range(8)))
    assert [load_memory(file).highest_epoch] == taken
