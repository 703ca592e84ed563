"""A core without a solver: it absorbs as the real one does and grants what the test says, when the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from powerd.control.absorb import absorb
from powerd.control.compiled import CompiledSite, as_drawn
from powerd.control.decision import Decision, GrantBatch, Renewal
from powerd.control.elements import evses_below
from powerd.control.events import Event, Outcome
from powerd.errors import Overloaded
from powerd.network.load import load_site
from powerd.server.core import GrantSink
from powerd.server.status import Unavailable
from powerd.state import leases
from powerd.state.lease_book import LeaseBook, open_book
from powerd.state.snapshot import open_snapshot
from powerd.units import Now

TTL_S = 15.0
SITE = """
site: yard
supplies: [{id: grid, bus: main}]
buses: [{id: main, voltage_v: 400}, {id: panel, voltage_v: 400}]
feeders:
  - {id: F1, from_bus: main, to_bus: panel, length_m: 20, r_ohm_per_km: 0.2, x_ohm_per_km: 0.08, ampacity_a: 400,
     source: cable schedule}
controller_classes: [{id: c, ttl_s: 15, reaction_s: 5, watchdog_s: 0}]
controllers: [{id: c0, class: c}, {id: c1, class: c}]
evse_types:
  - {id: ac, phases: '3', max_current_a: 32}
  - {id: dc, current: dc, max_power_kw: 50, min_power_kw: 5, efficiency: 0.94, power_factor: 0.98}
stations:
  - {id: A, bus: panel, controller: c0, evses: [{id: A1, type: ac}, {id: A2, type: ac}, {id: A3, type: ac}]}
  - {id: B, bus: panel, controller: c1, evses: [{id: B1, type: ac}, {id: B2, type: dc}]}
"""


def site_of(controllers: int) -> str:
    """A site of that many controllers ``k0`` ... with one AC EVSE ``k0e`` ... each."""
    names = ", ".join(f"{{id: k{k}, class: c}}" for k in range(controllers))
    stations = [
        f"  - {{id: S{k}, bus: panel, controller: k{k}, evses: [{{id: k{k}e, type: ac}}]}}" for k in range(controllers)
    ]
    head = SITE.split("controllers:", maxsplit=1)[0].replace("ampacity_a: 400", "ampacity_a: 4000")
    types = "evse_types: [{id: ac, phases: '3', max_current_a: 32}]"
    return "\n".join([f"{head}controllers: [{names}]", types, "stations:", *stations, ""])


@cache
def compiled(text: str = SITE) -> CompiledSite:
    """A site file, ready for the tick."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "site.yaml"
        file.write_text(text, encoding="utf-8")
        return CompiledSite.of(load_site(file).must())


class FakeCore:
    """Implements ``Core``. With ``eager`` every post is absorbed at once and answered with grants of ``give``."""

    def __init__(self, text: str = SITE, *, eager: bool = True) -> None:
        self.site = compiled(text)
        self.electrical, self.limits = self.site.electrical, self.site.limits
        self.tick_s = 0.2
        self.sink: GrantSink | None = None
        self.eager, self.full, self.disk_refuses = eager, False, False
        self.one_phase: set[int] = set()
        self.posted: list[Event] = []
        self.urgent = 0
        self.now_s = 1000.0
        n = self.electrical.evse_count
        self.give = np.full(n, 8.0)
        self.want, self.binding = np.full(n, 8.0), np.full(n, -1)
        book = open_book(self.site.terms, epoch=3, unknown_until_s=-np.inf)
        self.snapshot = open_snapshot(
            book,
            as_drawn(self.electrical),
            self.now_s,
            meters=self.electrical.meters.count,
        )
        self.decision: Decision | None = None
        self._inbox: list[tuple[tuple[Event, ...], asyncio.Future[tuple[Outcome, ...]]]] = []
        self._news, self._came = asyncio.Event(), asyncio.Event()

    def of(self, kind: type) -> list[Event]:
        """What was posted of one kind."""
        return [event for event in self.posted if isinstance(event, kind)]

    async def came(self, kind: type, count: int = 1) -> None:
        """Ends when that many events of a kind were posted."""
        while len(self.of(kind)) < count:
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), 10)

    async def until(self, true: Callable[[], bool]) -> None:
        """Ends when ``true`` holds after a tick."""
        while not true():
            await asyncio.wait_for(self._news.wait(), 10)

    def post(self, *events: Event, urgent: bool = False) -> Awaitable[tuple[Outcome, ...]]:
        if self.full:
            raise Overloaded("full")
        self.posted += events
        self._came.set()
        self.urgent += urgent
        answer: asyncio.Future[tuple[Outcome, ...]] = asyncio.get_running_loop().create_future()
        if self.disk_refuses:
            answer.set_exception(Unavailable("disk full"))
            return answer
        self._inbox.append((events, answer))
        if self.eager:
            asyncio.get_running_loop().call_soon(self.tick)
        return answer

    def latest(self) -> Decision | None:
        return self.decision

    async def follow(self) -> AsyncIterator[Decision]:
        seen = self.decision
        while True:
            news = self._news
            if self.decision is None or self.decision is seen:
                await news.wait()
            elif (seen := self.decision) is not None:
                yield seen

    def below(self, element: str) -> tuple[int, ...] | None:
        found = evses_below(self.electrical, self.electrical.branches.normally_closed, element)
        return None if found is None else tuple(int(i) for i in found)

    async def advance(self, now: Now) -> Decision:
        self.now_s = now.boottime_s
        return self.tick()

    def tick(
        self,
        lowered: Mapping[int, float] | None = None,
        raised: Mapping[int, float] | None = None,
        renew: Sequence[int] = (),
    ) -> Decision:
        """Absorbs the inbox and publishes; EVSEs that want a grant get ``give``, those under a stop a latched 0."""
        now = Now(utc=datetime(2026, 1, 1, tzinfo=UTC), boottime_s=self.now_s)
        taken, self._inbox = self._inbox, []
        absorbed = absorb(self.site, self.snapshot, [event for events, _ in taken for event in events], now)
        state = absorbed.snapshot
        fresh = {int(i): float(self.give[i]) for i in np.flatnonzero(absorbed.fresh)}
        stopped = {int(i): 0.0 for stop in state.stops for i in stop.evse if not state.leases.sent_latched[i]}
        book, low = self._batch(state.leases, {**(lowered or {}), **stopped}, now, latched=bool(stopped))
        book, high = self._batch(book, {**fresh, **(raised or {})}, now)
        renewal = Renewal(epoch=book.epoch, seq=book.seq + 1, controller=np.array(renew, np.int64))
        if renew:
            book = replace(book, seq=book.seq + 1)
        self.snapshot = replace(state, leases=book, tick=state.tick + 1)
        self.decision = self._decision(low, high, renewal, absorbed.outcomes, now)
        if self.sink is not None:
            self.sink.publish_lowered(self.decision)
            self.sink.publish_raised(self.decision)
        for events, answer in taken:
            if not answer.done():
                answer.set_result(absorbed.outcomes[: len(events)])
            absorbed = replace(absorbed, outcomes=absorbed.outcomes[len(events) :])
        news, self._news = self._news, asyncio.Event()
        news.set()
        return self.decision

    def _batch(
        self, book: LeaseBook, ceilings: Mapping[int, float], now: Now, *, latched: bool = False
    ) -> tuple[LeaseBook, GrantBatch]:
        evse = np.array(sorted(ceilings), np.int64)
        ceiling = np.array([ceilings[i] for i in sorted(ceilings)], np.float64)
        stops = np.full(evse.shape, latched)
        if evse.shape[0]:
            book = leases.send(book, self.site.terms, evse, ceiling, stops, now.boottime_s)
        batch = GrantBatch(
            epoch=book.epoch,
            seq=book.seq,
            evse=evse,
            ceiling=ceiling,
            latched=stops,
            one_phase=np.isin(evse, list(self.one_phase)),
            ttl_s=self.site.terms.ttl_s[evse],
            echo_incarnation=book.echo_incarnation[evse],
            echo_boottime_s=book.echo_boottime_s[evse],
        )
        return book, batch

    def _decision(
        self, lowered: GrantBatch, raised: GrantBatch, renewal: Renewal, outcomes: tuple[Outcome, ...], now: Now
    ) -> Decision:
        book, n_limits = self.snapshot.leases, len(self.limits.name)
        return Decision(
            now=now,
            site=self.site,
            limits=self.limits,
            tick=self.snapshot.tick,
            snapshot=self.snapshot,
            lowered=lowered,
            raised=raised,
            renewal=renewal,
            outcomes=outcomes,
            ceiling=np.nan_to_num(book.sent_ceiling),
            want=self.want,
            worst=self.want,
            binding_limit=self.binding,
            term_names=(),
            shadow_price=np.full(n_limits, 0.25),
            limit_flow=np.zeros(n_limits),
            uncontrolled=np.zeros(n_limits),
            overshoots=(),
            path="kernel",
            modes=(),
            alarms=("a test runs",),
        )
