"""The switchgear and the breakers of a lock-step run: what is lost when, what moves, what trips, how long it was over.

Instants are whole seconds. Nothing here knows powerd: a policy is told the ``News`` and may hand back orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from powerd.limits import Bools, Floats
from powerd.network.tolerance import tolerated_s
from powerd.sim.breakers import Breakers
from powerd.sim.outage import Cause, Element, Loss, heal, strike
from powerd.sim.switches import Gear
from powerd.sim.windows import Window, Windows
from powerd.sim.wires import Survey, Wires


@dataclass(frozen=True, kw_only=True)
class Incident:
    """Something is lost or comes back at an instant of the run."""

    at_s: int
    """Second of the run."""
    element: Element
    """What."""
    lost: bool
    """False = it comes back."""
    cause: Cause = Cause.UPSTREAM
    """Why it is lost."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What relays have to report at an instant."""

    moved: tuple[int, ...] = ()
    """Switches that moved since the last one."""
    losses: tuple[Loss, ...] = ()
    """Losses and returns of what has no contact."""
    tripped: tuple[int, ...] = ()
    """Those of ``moved`` that opened on protection."""
    starved: tuple[int, ...] = ()
    """Those of ``moved`` that opened by themselves for want of a voltage."""


@dataclass(frozen=True, kw_only=True)
class Compliance:
    """One event and how long it took until nothing carried more than its rating; field names are JSON keys."""

    event: str
    """For people: "T1 lost"."""
    at_s: int
    """Second of the run."""
    seconds: float
    """From the event until everything measured was within its rating [s]; 0 = nothing ever was not."""
    name: str
    """What was overloaded most, of its rating; "" = nothing."""
    share: float
    """How much that was, of its rating."""
    tolerated_s: float | None
    """How long that stands its highest current, hot, at the earliest edge [s]; None = for ever, or no curve."""
    used: float
    """Largest share of a tolerance that was used up by then, of all elements; 1 = it trips or is damaged."""


@dataclass(frozen=True, kw_only=True)
class Tripped:
    """An overcurrent device that tripped; field names are JSON keys."""

    element: str
    """Id of its branch."""
    times: int
    """How often; an overload counts once."""
    first_s: float
    """Second of the run of the first time."""
    most_a: float
    """Most that it carried when it tripped [A]."""
    opened: bool
    """It really opened; False = it was only counted."""


class Grid:
    """One run's; mutable."""

    def __init__(
        self, survey: Survey, gear: Gear, breakers: Breakers, incidents: Sequence[Incident], *, acts: bool
    ) -> None:
        """``acts``: breakers that trip open; otherwise they are only counted."""
        self.survey, self.gear, self.breakers, self._acts = survey, gear, breakers, acts
        self._incidents = sorted(incidents, key=lambda one: one.at_s)
        self._told = 0
        self._losses: list[Loss] = []
        self._changed_s = -1_000_000
        self._events: list[tuple[int, str]] = []
        self.windows = Windows()
        self._now_s = 0

    def advance(self, now_s: int) -> News:
        """Whatever happens up to ``now_s``; what relays report of it."""
        self._now_s = now_s
        while self._incidents and self._incidents[0].at_s <= now_s:
            self._happens(self._incidents.pop(0), now_s)
        self.gear.advance(float(now_s))
        moved = tuple(dict.fromkeys(branch for _, branch, _ in self.gear.moves[self._told :]))
        self._told = len(self.gear.moves)
        losses, self._losses = tuple(self._losses), []
        if moved or losses:
            self._changed_s = now_s
        tripped = tuple(branch for branch in moved if self.gear.tripped[branch])
        starved = tuple(branch for branch in moved if branch in self.gear.starved)
        return News(moved=moved, losses=losses, tripped=tripped, starved=starved)

    def _happens(self, incident: Incident, now_s: int) -> None:
        if incident.lost:
            self._losses += strike(self.gear, incident.element, incident.cause, float(now_s))
        else:
            self._losses += heal(self.gear, incident.element, float(now_s))
        self._events.append((now_s, f"{incident.element.name} {'lost' if incident.lost else 'back'}"))

    def next_s(self) -> float:
        """Second of the next thing that is known to happen; inf = none."""
        return float(self._incidents[0].at_s) if self._incidents else np.inf

    def busy(self, now_s: int, quiet_s: int) -> bool:
        """Something moved within ``quiet_s``, is moving, or is overloaded: instants stay 1 s apart."""
        return now_s - self._changed_s < quiet_s or self.gear.moving or self.windows.any_open

    def wires(self) -> Wires:
        """What flows where now."""
        return self.survey.wires(self.gear.state(float(self._now_s)))

    @property
    def live(self) -> Bools:
        """(n,) EVSEs with a supply."""
        return self.wires().live

    def carry(self, wires: Wires, flow: Floats, seconds: int) -> None:
        """``flow`` (P,) runs for ``seconds`` from now on; breakers open at its end."""
        self.windows.note(wires, flow, float(self._now_s), float(self._now_s + seconds))
        for trip in self.breakers.carry(wires, flow, float(self._now_s), float(seconds)):
            if not self._acts:
                continue
            name = self.gear.electrical.branches.ids[trip.branch]
            self._events.append((self._now_s + seconds, f"{name} tripped at {trip.amps:.0f} A"))
            if self.gear.electrical.branches.switchable[trip.branch]:
                self.gear.pull(trip.branch, False, trip.at_s, protection=True)
            else:
                self.gear.vanish(trip.branch, trip.at_s)
                self._losses.append(Loss(kind="branch", index=trip.branch, lost=True, protection=True))

    def trips(self) -> tuple[Tripped, ...]:
        """Every device that tripped, in order of the first time."""
        found: dict[int, Tripped] = {}
        for trip in self.breakers.trips:
            name, amps = self.gear.electrical.branches.ids[trip.branch], trip.amps
            new = Tripped(element=name, times=0, first_s=trip.at_s, most_a=amps, opened=self._acts)
            one = found.get(trip.branch, new)
            found[trip.branch] = replace(one, times=one.times + 1, most_a=max(one.most_a, amps))
        return tuple(found.values())

    def movements(self) -> tuple[tuple[float, str], ...]:
        """(second, words) of every switch that moved, in order."""
        ids = self.gear.electrical.branches.ids
        return tuple((at_s, f"{ids[e]} {'closes' if closes else 'opens'}") for at_s, e, closes in self.gear.moves)

    def compliance(self) -> tuple[Compliance, ...]:
        """Every event so far: until when something was overloaded, against what it stands."""
        found = []
        windows = self.windows.all()
        for k, (at_s, what) in enumerate(self._events):
            end_s = self._events[k + 1][0] if k + 1 < len(self._events) else np.inf
            mine = [w for w in windows if w.until_s > at_s and w.since_s < end_s and w.since_s >= at_s]
            found.append(self._one(at_s, what, mine))
        return tuple(found)

    def _one(self, at_s: int, what: str, windows: list[Window]) -> Compliance:
        worst = max(windows, key=lambda w: w.share, default=None)
        none = Compliance(event=what, at_s=at_s, seconds=0.0, name="", share=0.0, tolerated_s=None, used=0.0)
        if worst is None:
            return none
        wires = self.wires()
        p = wires.name.index(worst.name)
        stands = np.inf
        if wires.branch[p] >= 0:
            overload = self.gear.electrical.overload[int(wires.branch[p])]
            stands = tolerated_s(overload, worst.share * float(wires.capacity[p]), to_side=bool(wires.to_side[p]))
        return replace(
            none,
            seconds=max(w.until_s for w in windows) - at_s,
            name=worst.name,
            share=worst.share,
            tolerated_s=float(stands) if np.isfinite(stands) else None,
            used=float(self.breakers.worn.max(initial=0.0)),
        )
