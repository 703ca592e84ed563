"""A whole site in process, second by second: the real core against simulated cars, wires, breakers and switchgear.

No wire, no clock, no child process: what studies run thousands of times. ``simulate`` drives the real daemon instead.
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self

import numpy as np

from powerd.control.compiled import as_drawn
from powerd.control.decision import Decision
from powerd.control.events import Event
from powerd.control.plans_ahead import plans_wanted
from powerd.control.step import Stepper
from powerd.limits import Bools, Floats
from powerd.network.curves import Edge
from powerd.sim.breakers import Breakers, Trip
from powerd.sim.cars import Battery, Cars, make_car
from powerd.sim.fleet import Fleet
from powerd.sim.outage import Cause, Element, Loss, heal, strike
from powerd.sim.relays import Relays
from powerd.sim.switches import Gear, Transfer
from powerd.sim.windows import Windows
from powerd.sim.wires import Survey
from powerd.state.lease_book import open_book
from powerd.state.snapshot import open_snapshot, reopen_snapshot
from powerd.state.switchgear import Phase
from powerd.units import Now

START = datetime(2026, 1, 5, 7, tzinfo=UTC)
ENDLESS_KWH = 1e9
"""What every car of a study still needs: nobody becomes full meanwhile."""
STILL_S = 10
"""After so long without any change [s] ..."""
STRIDE_S = 3
"""... a tick comes only every so many seconds [s]: a quarter of the shortest ttl, as ``simulate`` does."""


class Mark(StrEnum):
    """What somebody puts on a switch."""

    TAG = "tag"
    """No order may come."""
    EARTH = "earth"
    """No voltage may come."""


class World:
    """One site with a car at every post; ``fork`` gives a copy that goes its own way."""

    def __init__(
        self,
        stepper: Stepper,
        survey: Survey,
        transfers: tuple[Transfer, ...],
        *,
        seed: int = 1,
        edge: Edge = Edge.EARLIEST,
    ) -> None:
        electrical = survey.electrical
        posts = electrical.posts
        self.stepper, self.survey, self.electrical = stepper, survey, electrical
        book = open_book(stepper.site.terms, epoch=1, unknown_until_s=-np.inf)
        meters = len(electrical.meters.ids)
        gear = as_drawn(electrical)
        self.snapshot = open_snapshot(book, gear, 0.0, meters=meters, boot="the only one")
        self.now_s = 0.0
        self.fleet = Fleet(electrical)
        self.gear = Gear(electrical, transfers)
        self.relays = Relays(gear=self.gear)
        self.breakers = Breakers(electrical, edge)
        self.cars = Cars(posts)
        rng = np.random.default_rng(seed)
        for evse in range(posts.count):
            self.cars.plug(evse, make_car(ENDLESS_KWH, evse, posts, Battery.IDEAL, rng))
        self.sheds = True
        """False = decreases do not reach the posts: the control that shows what they are for."""
        self.windows = Windows()
        self.flow: Floats = np.zeros(0)
        self.drawn: Floats = np.zeros(posts.count)
        self.live: Bools = np.ones(posts.count, np.bool_)
        self.last: Decision | None = None
        self.still_s = 0.0
        """How long nothing has changed: no ceiling, no draw, no contact, no plan [s]."""
        self.news: list[Event] = []
        """What comes in with the next tick besides: plans of the background, an operator's word."""

    def fork(self) -> Self:
        """A copy; what never changes is shared."""
        shared = (self.stepper, self.survey, self.electrical, self.snapshot, self.last)
        return copy.deepcopy(self, {id(one): one for one in shared})

    def run(self, seconds: int) -> None:
        """So much time passes."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.on(until_s - self.now_s)

    def on(self, most_s: float = np.inf) -> None:
        """The next tick: a second later, or in a long quiet a stride; what flows stays as it is meanwhile, and fits."""
        self.tick(min(STRIDE_S if self.still_s >= STILL_S else 1, most_s))

    def disturbed(self) -> None:
        """Something happens from outside: a quiet, if there was one, is over."""
        self.still_s = 0.0

    def strike(self, element: Element, cause: Cause) -> None:
        """It is lost, and the gateway says so."""
        self.disturbed()
        for loss in strike(self.gear, element, cause, self.now_s):
            self.relays.loses(loss, self.now_s)

    def heal(self, element: Element) -> None:
        """It is back, and the gateway says so."""
        self.disturbed()
        for loss in heal(self.gear, element, self.now_s):
            self.relays.loses(loss, self.now_s)

    def marks(self, branch: int, mark: Mark | None) -> None:
        """Somebody tags a switch, earths a dead branch (one with a voltage he leaves alone), or is done with it.

        Told at once: whoever works there waits until powerd knows.
        """
        self.disturbed()
        gear, marked = self.gear, {Mark.TAG: self.gear.tagged, Mark.EARTH: self.gear.earthed}
        if mark is None:
            gear.tagged.discard(branch)
            gear.earthed.discard(branch)
        elif mark is Mark.TAG or not gear.near_voltage(branch):
            marked[mark].add(branch)
        self.relays.tells(branch, self.now_s)

    def restart(self) -> None:
        """powerd is killed and starts anew from what it has written; everybody connects again."""
        self.disturbed()
        self.snapshot = reopen_snapshot(self.snapshot, self.stepper.site.terms, self._now(), self.snapshot.boot)
        self.news = []
        self.fleet.reconnects()
        self.relays.reconnects()

    def _now(self) -> Now:
        """Its clocks."""
        return Now(utc=START + timedelta(seconds=self.now_s), boottime_s=self.now_s)

    def tick(self, after_s: float = 1.0) -> Decision:
        """The next second, ``after_s`` later: contacts move, reports arrive, the core decides, cars follow."""
        self.now_s += after_s
        before = self._signs()
        self.gear.advance(self.now_s)
        events = (*self.fleet.speaks(self.now_s), *self.relays.speaks(self.now_s), *self.news)
        now = self._now()
        decision = self.stepper.step(self.snapshot, events, now)
        self.snapshot, self.last = decision.snapshot, decision
        self.news = self._planned(decision)
        offered = self.fleet.ceiling.copy()
        self.fleet.hears(decision, self.now_s)
        if not self.sheds:
            self.fleet.ceiling = np.maximum(self.fleet.ceiling, offered)
        self.cars.apply(self.fleet.ceiling)
        self.relays.hears(decision, self.now_s)
        self._flow()
        self.cars.advance(1)
        still = not self._busy and self._signs() == before
        self.still_s = self.still_s + after_s if still else 0.0
        return decision

    def _planned(self, decision: Decision) -> list[Event]:
        """What the background has to say in the next tick: the exact plan where the tick had only searched."""
        work = plans_wanted(decision)
        return [] if work is None or work.ahead else [work.run(self.stepper.planner)]

    @property
    def _busy(self) -> bool:
        """Something is under way, overloaded, or silent with leases that will end."""
        under_way = self.snapshot.gear.phase != Phase.IDLE or self.gear.moving or self.relays.waiting
        silent = bool((self.fleet.silent).any())
        return under_way or silent or self.windows.any_open or bool(self.cars.following.any()) or bool(self.news)

    def _signs(self) -> bytes:
        """Equal as long as nothing changes."""
        parts = (self.fleet.ceiling, self.drawn, self.live, self.gear.closed, self.gear.alive, self.gear.sound)
        return b"".join(part.tobytes() for part in parts)

    def _flow(self) -> None:
        wires = self.survey.wires(self.gear.state(self.now_s))
        self.live = wires.live
        self.drawn = self.cars.drawn() * wires.live
        self.fleet.measures(self.drawn)
        self.flow = wires.flow(self.drawn)
        self.windows.note(wires, self.flow, self.now_s, self.now_s + 1.0)
        for trip in self.breakers.carry(wires, self.flow, self.now_s, 1.0):
            self._trips(trip)

    def _trips(self, trip: Trip) -> None:
        """A breaker opens; a feeder's device at its head takes the feeder with it."""
        if self.electrical.branches.switchable[trip.branch]:
            self.gear.pull(trip.branch, False, self.now_s, protection=True)
        else:
            self.gear.vanish(trip.branch, self.now_s)
            self.relays.loses(Loss(kind="branch", index=trip.branch, lost=True, protection=True), self.now_s)

    @property
    def power_kw(self) -> float:
        """What all cars draw [kW]."""
        return float(self.drawn @ self.electrical.posts.kw_per_unit)
