"""A small garage for tests of the tick: posts on one feeder, and a player that answers grants as a controller would."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from powerd.control import events as ev
from powerd.control.compiled import CompiledSite, as_drawn
from powerd.control.decision import Decision, GrantBatch
from powerd.control.step import Stepper
from powerd.limits import Bools
from powerd.network.load import load_site
from powerd.state.lease_book import open_book
from powerd.state.snapshot import Snapshot, open_snapshot
from powerd.units import Now

TTL, REACTION = 15.0, 5.0
LIFE = TTL * 1.001 + REACTION


def site_text(
    posts: int,
    limit_a: float,
    *,
    fallback_a: float = 0.0,
    idle_a: float = 0.0,
    controllers: int = 2,
    watchdog: str = "0",
) -> str:
    """A site file: ``posts`` three-phase 32 A posts behind one feeder of ``limit_a``, dealt out to controllers."""
    watchdog_line = f", watchdog_s: {watchdog}" if watchdog else ""
    idle = f", fallback_idle_a: {idle_a}" if idle_a else ""
    names = ", ".join(f"{{id: c{k}, class: c}}" for k in range(controllers))
    stations = [
        f"  - {{id: S{k}, bus: panel, controller: c{k % controllers}, evses: [{{id: P{k}, type: t}}]}}"
        for k in range(posts)
    ]
    lines = [
        "site: garage",
        "supplies: [{id: grid, bus: main}]",
        "buses: [{id: main, voltage_v: 400}, {id: panel, voltage_v: 400}]",
        "feeders:",
        "  - {id: F1, from_bus: main, to_bus: panel, length_m: 20, r_ohm_per_km: 0.2, x_ohm_per_km: 0.08,",
        f"     ampacity_a: {limit_a}, source: test}}",
        f"controller_classes: [{{id: c, ttl_s: {TTL}, reaction_s: {REACTION}{watchdog_line}}}]",
        f"controllers: [{names}]",
        f"evse_types: [{{id: t, phases: '3', max_current_a: 32, fallback_a: {fallback_a}{idle}}}]",
        "stations:",
        *stations,
    ]
    return "\n".join(lines) + "\n"


_COMPILED: dict[str, CompiledSite] = {}


def compiled(path: Path, text: str) -> CompiledSite:
    """The site of a text, compiled once: hypothesis asks for the same few again and again."""
    if text not in _COMPILED:
        file = path / "site.yaml"
        file.write_text(text, encoding="utf-8")
        _COMPILED[text] = CompiledSite.of(load_site(file).must())
    return _COMPILED[text]


def instant(boottime_s: float, wall_ahead_s: float = 0.0) -> Now:
    """The player's instant of that time; its wall clock is ahead of what it should show."""
    return Now(
        utc=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=boottime_s + wall_ahead_s), boottime_s=boottime_s
    )


@dataclass
class Player:
    """Steps a site; every controller that is ``alive`` hears and acks at once."""

    site: CompiledSite
    snapshot: Snapshot
    stepper: Stepper
    now_s: float = 0.0
    wall_ahead_s: float = 0.0
    """By how much its wall clock is ahead of what it should show."""
    alive: set[int] = field(default_factory=set)
    plugged: set[int] = field(default_factory=set)
    news: list[ev.Event] = field(default_factory=list)
    decision: Decision | None = None
    absorbed: tuple[ev.Event, ...] = ()

    @staticmethod
    def open(path: Path, text: str, *, unknown_until_s: float = -np.inf) -> Player:
        """Loads the text as a site."""
        return Player.of(compiled(path, text), unknown_until_s=unknown_until_s)

    @staticmethod
    def of(site: CompiledSite, *, unknown_until_s: float = -np.inf) -> Player:
        """A site that has just started."""
        led_since_s = 0.0 if np.isfinite(unknown_until_s) else -np.inf
        book = open_book(site.terms, epoch=1, unknown_until_s=unknown_until_s, led_since_s=led_since_s)
        meters, gear = site.electrical.meters.count, as_drawn(site.electrical)
        snapshot = open_snapshot(book, gear, 0.0, meters=meters)
        return Player(site, snapshot, Stepper(site))

    def members(self, controller: int) -> np.ndarray:
        """EVSEs of a controller."""
        return np.flatnonzero(self.site.electrical.posts.controller == controller)

    def hello(self, controller: int, *, highest_epoch: int = 0, ceiling: float = 0.0, remaining_s: float = 0.0) -> None:
        """A controller connects, saying the same of all its EVSEs."""
        evse = self.members(controller)
        k = evse.shape[0]
        self.alive.add(controller)
        self.news.append(
            ev.HelloReceived(
                evse=evse,
                incarnation=100 + controller,
                boottime_s=self.now_s,
                highest_epoch=highest_epoch,
                plugged=np.isin(evse, list(self.plugged)),
                plug_boottime_s=np.zeros(k),
                epoch=np.full(k, highest_epoch),
                seq=np.zeros(k, np.int64),
                ceiling=np.full(k, ceiling),
                remaining_s=np.full(k, remaining_s),
                latched=np.zeros(k, np.bool_),
            )
        )

    def plug(self, evse: int, plugged: bool = True) -> None:
        """A car comes or leaves."""
        (self.plugged.add if plugged else self.plugged.discard)(evse)
        self.news.append(
            ev.PlugChanged(evse=np.array([evse]), plugged=np.array([plugged]), plug_boottime_s=np.array([self.now_s]))
        )

    def tick(self, *events: ev.Event, seconds: float = 1.0) -> Decision:
        """One tick later; living controllers have sent their stamps, and their acks of the last grants."""
        self.now_s += seconds
        stamps = [
            ev.StampSeen(evse=self.members(c), incarnation=100 + c, boottime_s=self.now_s) for c in sorted(self.alive)
        ]
        acks = self._acks() if self.decision is not None else []
        now = instant(self.now_s, self.wall_ahead_s)
        self.absorbed = (*self.news, *stamps, *acks, *events)
        self.decision = self.stepper.step(self.snapshot, self.absorbed, now)
        self.news = []
        self.snapshot = self.decision.snapshot
        return self.decision

    def takes(self, batch: GrantBatch) -> Bools:
        """(k,) whose actuators take the grants of a message at once."""
        return np.ones(batch.evse.shape, np.bool_)

    def _acks(self) -> list[ev.Event]:
        assert self.decision is not None
        owner = self.site.electrical.posts.controller
        found: list[ev.Event] = []
        for batch in (self.decision.lowered, self.decision.raised):
            heard = np.isin(owner[batch.evse], list(self.alive))
            heard &= self.takes(batch)
            ack = _ack(batch, heard)
            found.append(ack)
        renewal = self.decision.renewal
        found.extend(
            ev.RenewalAcked(evse=self.members(int(c)), epoch=renewal.epoch, seq=renewal.seq)
            for c in renewal.controller
            if int(c) in self.alive
        )
        return found

    def draw(self, amps: dict[int, float]) -> ev.Measured:
        """A reading, three-phase."""
        evse = np.array(sorted(amps))
        return ev.Measured(evse=evse, drawn=np.repeat([[amps[int(i)]] for i in evse], 3, axis=1))


def _ack(batch: GrantBatch, heard: np.ndarray) -> ev.Acked:
    """What of a message is taken, at once and as it was told."""
    evse, ceiling, one = batch.evse[heard], batch.ceiling[heard], batch.one_phase[heard]
    return ev.Acked(evse=evse, epoch=batch.epoch, seq=batch.seq, ceiling=ceiling, one_phase=one)
