"""Posts without a stream live through a start of powerd without its journal."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from powerd.client import ControllerCore, EvseConfig, Memory, Write
from powerd.control.events import Demand, SessionStarted
from powerd.daemon import Ticker
from powerd.server.directory import Directory
from powerd.server.outbox import duration
from powerd.server.posting import Desk
from powerd.server.publish import Publisher
from powerd.server.stamps import Stamps
from powerd.server.status import Unavailable
from powerd.server.unary import SetpointDesk
from powerd.units import ROW_TOLERANCE, Now
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb
from tests.control.garage import TTL, compiled, site_text

FULL, F = 32.0, 16.0
EVERY_S = 5
TURNS = 8
"""Of the event loop, after which the calls are in the inbox."""


class Post:
    """One EVSE that keeps the rules of the controller, and asks by single calls."""

    def __init__(self, evse_id: str, incarnation: int, highest_epoch: int = 0) -> None:
        config, memory = EvseConfig(evse_id=evse_id, fallback=F), Memory(highest_epoch=highest_epoch)
        self.core = ControllerCore(evse_id, [config], incarnation=incarnation, memory=memory)
        self.ack: pb_common.Ack | None = None
        self.take(self.core.start(), 0.0)

    def take(self, writes: tuple[Write, ...], now_s: float) -> None:
        """The actuator takes them at once."""
        for write in writes:
            if self.core.applied(write, now_s):
                self.ack = pb_common.Ack(epoch=write.epoch, seq=write.seq, applied_ceiling=write.ceiling)

    def request(self, now_s: float) -> pb.RequestSetpointRequest:
        """What it says."""
        lease, stamp = self.core.evses[0], self.core.report(now_s).report.stamp
        return pb.RequestSetpointRequest(
            evse_id=lease.config.evse_id,
            stamp=stamp,
            plugged=lease.plugged,
            plug_boottime_s=lease.plug_s,
            ack=self.ack,
            highest_epoch=self.core.highest_epoch,
        )

    def hears(self, grant: pb_common.Grant, now_s: float) -> None:
        """Takes the answer, if the rules allow it."""
        message = pb.Grants(epoch=grant.epoch, seq=grant.seq, ttl=duration(TTL), echo=grant.echo)
        message.index.append(0)
        message.ceiling.append(grant.ceiling_a)
        self.take(self.core.receive(pb.ConnectResponse(grants=message), now_s), now_s)


class Site:
    """powerd behind its door for single calls, and its posts."""

    def __init__(self, ticker: Ticker, posts: list[Post]) -> None:
        names = Directory.of(ticker.electrical)
        ticker.sink = publisher = Publisher(names, ticker.electrical.controllers.ttl_s)
        self.ticker, self.posts = ticker, posts
        self.desk = SetpointDesk(Desk(core=ticker, stepped=True), names, publisher, Stamps())

    async def second(self, now_s: float) -> None:
        """Leases end, posts ask when it is time, and the limit holds whatever was granted."""
        asking = [post for place, post in enumerate(self.posts) if (now_s + 2 * place) % EVERY_S == 0]
        for post in self.posts:
            post.take(post.core.expire(now_s), now_s)
        calls = [asyncio.ensure_future(self.desk.answer(post.request(now_s))) for post in asking]
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await self.ticker.advance(_now(now_s))
        for post, answer in zip(asking, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(answer, pb.RequestSetpointResponse):
                post.hears(answer.grant, now_s + 0.1)
            else:
                assert isinstance(answer, Unavailable)
        assert sum(post.core.in_force[0] for post in self.posts) <= FULL + ROW_TOLERANCE


def _now(now_s: float) -> Now:
    return Now(utc=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=now_s), boottime_s=now_s)


def test_a_start_without_a_journal_is_safe_and_heard_again(tmp_path: Path) -> None:
    """The first leader's grants are not known to the second one, which begins at the same epoch: what the posts ack
    tells it. The fallback of a car of before counts beside one of a higher class, and both take its grants.
    """
    electrical = compiled(tmp_path, site_text(2, FULL, fallback_a=F)).electrical
    posts = [Post("P0", 7), Post("P1", 8)]

    async def scene() -> None:
        first = Site(Ticker(electrical, tick_s=1.0, first_start=True, start=_now(0.0)), posts)
        for post in posts:
            post.take(post.core.plug(0, True, 1.0), 1.0)
        for second in range(2, 60):
            await first.second(float(second))
        assert all(post.core.in_force[0] == F for post in posts)
        last = posts[0].core.evses[0].accepted
        again = Site(Ticker(electrical, tick_s=1.0, first_start=False, start=_now(70.0)), posts)
        vip = SessionStarted(request_id="", evse=1, session_id="vip", demand=Demand(priority=5))
        again.ticker.post(vip)
        for second in range(71, 140):
            await again.second(float(second))
        assert posts[0].core.evses[0].accepted > last
        assert posts[0].core.evses[0].live

    asyncio.run(scene())


def test_a_post_that_has_heard_a_higher_epoch_is_led_with_a_still_higher_one(tmp_path: Path) -> None:
    """It has nothing to ack, for its program has restarted too; and it refuses what is of a lower epoch (rule 4)."""
    electrical = compiled(tmp_path, site_text(2, FULL, fallback_a=F)).electrical
    posts = [Post("P0", 7, highest_epoch=5), Post("P1", 8)]

    async def scene() -> None:
        site = Site(Ticker(electrical, tick_s=1.0, first_start=True, start=_now(0.0)), posts)
        for post in posts:
            post.take(post.core.plug(0, True, 1.0), 1.0)
        for second in range(2, 60):
            await site.second(float(second))
        assert [post.core.evses[0].accepted[0] for post in posts] == [6, 6]
        assert [post.core.in_force[0] for post in posts] == [F, F]

    asyncio.run(scene())
