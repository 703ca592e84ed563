"""A disk that takes long or refuses, in the test's hand: what a post offers against what the book says."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from powerd.control import events as ev
from powerd.control.decision import Decision, GrantBatch
from powerd.daemon import Ticker
from powerd.journal.store import Entry, Journal, JournalBroken
from powerd.network.load import load_site
from powerd.server.directory import Directory
from powerd.server.posting import Desk
from powerd.server.publish import Publisher
from powerd.server.stamps import Stamps
from powerd.server.unary import SetpointDesk
from powerd.state.columns import replace
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb
from tests.control.garage import TTL, site_text
from tests.daemon.test_ticker import at, hello, ticker_of


class Disk:
    """The journal's writer; each commit waits until the test says what becomes of it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.waiting: deque[tuple[Entry, asyncio.Future[None]]] = deque()

    def commit(self, entry: Entry) -> asyncio.Future[None]:
        """Takes a tick."""
        self.waiting.append((entry, asyncio.get_running_loop().create_future()))
        return self.waiting[-1][1]

    async def takes(self) -> None:
        """The oldest one is durable."""
        entry, durable = self.waiting.popleft()
        self._journal.commit([entry])
        durable.set_result(None)
        await turns()

    async def refuses(self) -> None:
        """It is not."""
        self.waiting.popleft()[1].set_exception(JournalBroken("disk full"))
        await turns()

    def close(self) -> None:
        """The end."""
        self._journal.close()


class Post:
    """Post 0, by the rules of docs/protocol.md: what it offers, and what it has to ack."""

    def __init__(self) -> None:
        self.ceiling, self.order, self.until_s = 0.0, (0, 0), 0.0
        self.acks: list[ev.Event] = []

    def publish_lowered(self, decision: Decision) -> None:
        """Decreases."""
        self._named(decision.lowered)

    def publish_raised(self, decision: Decision) -> None:
        """Raises, then renewals."""
        self._named(decision.raised)
        renewal, order = decision.renewal, (decision.renewal.epoch, decision.renewal.seq)
        if 0 in renewal.controller and order > self.order and self.until_s > decision.now.boottime_s:
            self.order, self.until_s = order, float(decision.snapshot.leases.echo_boottime_s[0]) + TTL
            self.acks.append(ev.RenewalAcked(evse=np.array([0]), epoch=order[0], seq=order[1]))

    def _named(self, batch: GrantBatch) -> None:
        order = (batch.epoch, batch.seq)
        for row in np.flatnonzero(batch.evse == 0).tolist():
            if order > self.order:
                self.order, self.ceiling = order, float(batch.ceiling[row])
                self.until_s = float(batch.echo_boottime_s[row]) + TTL
                applied = np.array([self.ceiling])
                self.acks.append(ev.Acked(evse=np.array([0]), epoch=order[0], seq=order[1], ceiling=applied))


async def turns() -> None:
    """All that follows at once from what was just done."""
    for _ in range(8):
        await asyncio.sleep(0)


class Story:
    """A daemon with its journal on such a disk, and two posts of 32 A under 32 A."""

    def __init__(self, folder: Path) -> None:
        (folder / "site.yaml").write_text(site_text(2, 32.0), encoding="utf-8")
        electrical = load_site(folder / "site.yaml").must()
        journal = Journal(folder / "journal", evse_ids=electrical.posts.ids)
        self.ticker: Ticker = ticker_of(electrical, journal=journal)
        self.disk = Disk(journal)
        self.ticker._writer = self.disk  # type: ignore[assignment]
        self.post = self.ticker.sink = Post()
        self.now_s = 0.0

    async def tick(self, seconds: float, *events: ev.Event) -> Decision:
        """So much later: both controllers have spoken, post 0 has acked."""
        self.now_s += seconds
        stamps = [ev.StampSeen(evse=np.array([i]), incarnation=5 + i, boottime_s=self.now_s) for i in (0, 1)]
        acks, self.post.acks = self.post.acks, []
        answer = self.ticker.post(*events, *stamps, *acks)
        decision = await self.ticker._tick(at(self.now_s))
        asyncio.ensure_future(answer).add_done_callback(asyncio.Future.exception)
        await turns()
        return decision

    async def second_car(self) -> Decision:
        """A car comes to post 1: post 0 has to share with it."""
        one = np.array([1])
        plug = ev.PlugChanged(evse=one, plugged=np.array([True]), plug_boottime_s=np.array([self.now_s]))
        return await self.tick(0.3, plug)

    async def goes_on(self, ticks: int, *, taking: bool) -> None:
        """Ticks in which post 0 never offers more than counts for it."""
        for _ in range(ticks):
            decision = await self.tick(0.5)
            if taking:
                await self.disk.takes()
            offers = self.post.ceiling if self.post.until_s > self.now_s else 0.0
            assert offers <= decision.worst[0] + 1e-6
            assert decision.worst.sum() <= 32.0 + 1e-4


async def raised_and_lowered(story: Story) -> None:
    """A raise to 32 A waits for the disk; the lowering to 16 A that follows must wait with it, and neither has left."""
    alone = replace(hello(1, 1.0), plugged=np.array([False]))
    raised = await story.tick(1.0, hello(0, 1.0), alone)
    assert raised.raised.ceiling[0] == pytest.approx(32.0, abs=1e-4)
    lowered = await story.second_car()
    assert lowered.lowered.ceiling[0] == pytest.approx(16.0, abs=1e-4)
    assert story.post.order == (0, 0)


@pytest.mark.parametrize("refused", [False, True], ids=["slow", "refused"])
def test_a_lowering_that_waits_for_the_disk_is_neither_overtaken_nor_lost(refused: bool, tmp_path: Path) -> None:
    """Once the raise before it is durable, the lowering leaves; no renewal of a later tick goes before it."""

    async def story() -> None:
        own = Story(tmp_path)
        await raised_and_lowered(own)
        await own.disk.takes()
        if refused:
            await own.disk.refuses()
        await own.goes_on(10, taking=False)
        while own.disk.waiting:
            await own.disk.takes()
        await own.goes_on(40, taking=True)
        assert own.post.ceiling == pytest.approx(16.0, abs=1e-4)
        await own.ticker.close()

    asyncio.run(story())


def test_a_raise_that_the_disk_refused_is_named_again(tmp_path: Path) -> None:
    """It never left; though the very next tick is durable, and no trouble is told, the post gets it."""

    async def story() -> None:
        own = Story(tmp_path)
        await own.tick(1.0, hello(0, 1.0), hello(1, 1.0))
        await own.disk.takes()
        await own.tick(1.0)
        await own.disk.takes()
        gone = ev.PlugChanged(evse=np.array([1]), plugged=np.array([False]), plug_boottime_s=np.array([2.5]))
        raised = await own.tick(1.0, gone)
        assert raised.raised.ceiling == pytest.approx([32.0], abs=1e-4)
        await own.tick(0.3)
        await own.disk.refuses()
        await own.disk.takes()
        assert own.post.ceiling == pytest.approx(16.0, abs=1e-4)
        await own.goes_on(4, taking=True)
        assert own.post.ceiling == pytest.approx(32.0, abs=1e-4)
        await own.ticker.close()

    asyncio.run(story())


class Caller:
    """A controller without a stream, of one post."""

    def __init__(self, ticker: Ticker, disk: Disk) -> None:
        names = Directory.of(ticker.electrical)
        publisher = Publisher(names, ticker.electrical.controllers.ttl_s)
        ticker.sink = publisher
        self._ticker, self._disk = ticker, disk
        self._desk = SetpointDesk(Desk(core=ticker, stepped=True), names, publisher, Stamps())

    async def asks(self, now_s: float, *, refused: bool) -> float:
        """The ceiling that a call is given [A]."""
        stamp = pb_common.Stamp(incarnation=4, boottime_s=now_s)
        request = pb.RequestSetpointRequest(evse_id="P0", plugged=True, stamp=stamp)
        answer = asyncio.ensure_future(self._desk.answer(request))
        await turns()
        await self._ticker._tick(at(now_s))
        await turns()
        while self._disk.waiting:
            await (self._disk.refuses() if refused else self._disk.takes())
        return (await answer).grant.ceiling_a


@pytest.mark.parametrize("stopped", [False, True], ids=["goes on", "stopped"])
def test_a_single_call_is_given_what_needs_no_disk_while_the_disk_refuses(stopped: bool, tmp_path: Path) -> None:
    """Its car goes on at what it has, as one with a stream does; and a stop reaches it, where its lease would end."""

    async def story() -> None:
        (tmp_path / "site.yaml").write_text(site_text(1, 32.0, controllers=1, fallback_a=6.0), encoding="utf-8")
        electrical = load_site(tmp_path / "site.yaml").must()
        journal = Journal(tmp_path / "journal", evse_ids=electrical.posts.ids)
        ticker, disk = ticker_of(electrical, journal=journal), Disk(journal)
        ticker._writer = disk  # type: ignore[assignment]
        caller = Caller(ticker, disk)
        assert [await caller.asks(now_s, refused=False) for now_s in (1.0, 6.0)] == pytest.approx([32.0] * 2)
        if stopped:
            stop = ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="fire")
            asyncio.ensure_future(ticker.post(stop)).add_done_callback(asyncio.Future.exception)
        given = [await caller.asks(now_s, refused=True) for now_s in (11.0, 16.0, 21.0, 26.0)]
        assert given == pytest.approx([0.0 if stopped else 32.0] * 4)
        await ticker.close()

    asyncio.run(story())
