"""A metered garage with a plant behind it: a load that changes, cars that follow late, meters that are not synchronous.

The plant knows the truth every tenth of a second; meters and posts report means or least values of windows of their own
length and phase; the player hands them to the step with the delay of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from powerd.control import events as ev
from powerd.control.headroom import uncontrolled
from powerd.limits import Floats
from tests.control.garage import Player, site_text

STEP_S = 0.1


def metered_text(
    posts: int,
    limit_a: float,
    *,
    worst_kw: float | None = 20.0,
    stale_after_s: float = 30.0,
    worst_a: float | None = None,
) -> str:
    """The garage of ``site_text`` with a meter at its feeder and, unless None, a load behind it."""
    text = site_text(posts, limit_a)
    more = "" if worst_a is None else f", worst_a: {worst_a}"
    text += f"meters: [{{id: M, at: F1, stale_after_s: {stale_after_s}, margin_percent: 10{more}}}]\n"
    if worst_kw is not None:
        load = f"id: shop, bus: panel, typical_kw: {worst_kw / 2}, worst_kw: {worst_kw}, power_factor: 1.0"
        text += f"loads: [{{{load}, meter: M}}]\n"
    return text


def behind_a_thinner_feeder(text: str, limit_a: float) -> str:
    """The garage of ``metered_text`` behind one more feeder, F0, that nobody meters."""
    feeder = "from_bus: main, to_bus: mid, length_m: 20, r_ohm_per_km: 0.2, x_ohm_per_km: 0.08"
    text = text.replace("{id: main, voltage_v: 400}", "{id: main, voltage_v: 400}, {id: mid, voltage_v: 400}")
    text = text.replace("from_bus: main, to_bus: panel", "from_bus: mid, to_bus: panel")
    return text.replace("feeders:\n", f"feeders:\n  - {{id: F0, {feeder}, ampacity_a: {limit_a}, source: test}}\n")


@dataclass
class Plant:
    """Three-phase and balanced: one number stands for all phases [A]."""

    player: Player
    load: Callable[[float], float]
    """What else draws at an instant [A]; negative = a generator feeds in more."""
    meter_s: float = 1.0
    """Length of the meter's windows."""
    post_s: float = 1.0
    """Length of the posts' windows; a multiple of 1 s."""
    delay_s: float = 0.0
    """Age of a total reading when it arrives."""
    lag_s: float = 3.0
    """How long a car takes to follow its ceiling."""
    demand: Callable[[int, float], float] = lambda _evse, _now_s: 32.0
    """What each car would take [A]."""
    silent_from_s: float = np.inf
    """When the meter dies."""
    drawn: Floats = field(init=False)
    ceiling: Floats = field(init=False)
    """In force; over a restart of the daemon leases go on."""
    history: list[tuple[float, float, Floats]] = field(default_factory=list)
    """(instant, load, currents of the cars)."""
    last_meter_s: float = 0.0
    unheard: set[int] = field(default_factory=set)
    """Posts that report nothing."""
    own_windows: bool = False
    """Posts say for which time a reading stands; else it stands until the next one."""

    def __post_init__(self) -> None:
        self.drawn = np.zeros(self.player.site.electrical.evse_count)
        self.ceiling = np.zeros_like(self.drawn)

    def second(self) -> float:
        """One second of truth, then a tick; returns what the tick counts as uncontrolled on the feeder [A]."""
        start = self.player.now_s
        if self.player.decision is not None:
            self.ceiling = self.player.decision.ceiling
        for k in range(1, round(1 / STEP_S) + 1):
            now_s = start + k * STEP_S
            wish = np.minimum(self.ceiling, [self.demand(i, now_s) for i in range(len(self.drawn))])
            self.drawn = self.drawn + (wish - self.drawn) * min(1.0, STEP_S / self.lag_s)
            self.drawn = np.where(
                wish < self.drawn, np.maximum(wish, self.drawn - 32 * STEP_S / self.lag_s), self.drawn
            )
            self.history.append((now_s, self.load(now_s), self.drawn))
        news: list[ev.Event] = []
        now_s = start + 1.0
        if now_s < self.silent_from_s and now_s - self.last_meter_s >= self.meter_s:
            news.append(self._total(now_s))
            self.last_meter_s = now_s
        heard = set(range(len(self.drawn))) - self.unheard
        due = [evse for evse in sorted(heard) if (now_s + evse) % self.post_s < 1e-6]
        news.extend(self._post(evse, now_s) for evse in due)
        self.player.tick(*news)
        return float(uncontrolled(self.player.site, self.player.snapshot.meters, self.player.now_s).max(initial=0.0))

    def _window(self, start_s: float, end_s: float) -> list[tuple[float, float, Floats]]:
        recent = self.history[-2 - round((self.player.now_s + 1.0 - start_s) / STEP_S) :]
        inside = [point for point in recent if start_s < point[0] <= end_s + 1e-9]
        return inside or self.history[-1:]

    def _total(self, now_s: float) -> ev.MeterRead:
        """The mean of a window that ended ``delay_s`` ago."""
        end_s = now_s - self.delay_s
        points = self._window(end_s - self.meter_s, end_s)
        current = float(np.mean([load + cars.sum() for _, load, cars in points]))
        return ev.MeterRead(
            meter=np.array([0]),
            incarnation=7,
            boottime_s=now_s,
            current=np.full((1, 3), current),
            power_kw=np.array([np.nan]),
            start_age_s=np.array([self.delay_s + self.meter_s]),
            end_age_s=np.array([self.delay_s]),
        )

    def _post(self, evse: int, now_s: float) -> ev.Measured:
        """The least of the window since its last report."""
        points = self._window(now_s - self.post_s, now_s)
        least = min(float(cars[evse]) for _, _, cars in points)
        window_s = self.post_s if self.own_windows else None
        return ev.Measured(evse=np.array([evse]), drawn=np.full((1, 3), least), window_s=window_s)


def open_plant(path: Path, text: str, **settings: object) -> Plant:
    """All controllers up, a car at every post."""
    player = Player.open(path, text)
    for evse in range(player.site.electrical.evse_count):
        player.plug(evse)
    for controller in range(len(player.site.electrical.controllers.ids)):
        player.hello(controller)
    return Plant(player, **settings)  # type: ignore[arg-type]
