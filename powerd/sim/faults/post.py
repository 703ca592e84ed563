"""One post with its actuator, its car and its meter: the truth that the invariants are asserted from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

REMEMBERED_S = 61.0
"""Longest that a past ceiling matters: the longest reaction time, and a bit [s]."""
LEAST_A = 6.0
"""Below this pilot a car pauses [A] (IEC 61851-1)."""


@dataclass(kw_only=True)
class Post:
    """All times are true time [s], ceilings in ampere."""

    watchdog_s: float
    """0 = enforces the validity itself; > 0 = falls back so long after its controller's process died; nan = never."""
    reaction_s: float
    """What its class promises of a car."""
    boot: float
    """Ceiling after its own restart."""
    switch_s: float = 0.0
    """How long its contactor takes."""
    switches: bool = False
    """It can connect L1 alone."""
    one: bool = False
    """It has connected L1 alone."""
    lost: bool = False
    """It has restarted and was not told since which phases to connect: it stays at 0 until then."""
    moves: int = 0
    """So often its contactor has moved by order."""
    ceiling: float = 0.0
    """In force now."""
    until_s: float = math.inf
    """End of its validity."""
    rest: float = 0.0
    """Ceiling after that end, as its controller last wrote."""
    latched: bool = False
    """It was stopped."""
    booted: bool = False
    """It has restarted and nobody has written to it since."""
    plugged: bool = False
    """A car is there."""
    cars: int = 0
    """So many plug changes so far."""
    car_max: float = 0.0
    """Most that the car takes."""
    lag_s: float = 0.0
    """How long the car takes to follow a lower ceiling."""
    deaf_until_s: float = -1.0
    """It takes no order until then."""
    defiant_until_s: float = -1.0
    """It ignores its ceiling until then."""
    silent_until_s: float = -1.0
    """Its meter says nothing until then."""
    lying_until_s: float = -1.0
    """Its meter is wrong until then."""
    lie: float = 1.0
    """By this factor."""
    writer: int = 0
    """Which process wrote last, the first (0) or the second (1) of those that live."""
    doubled: bool = False
    """Two processes write to it, each ignorant of what the other one wrote: what it does nobody can know."""
    granted_s: float = 0.0
    """When the first process took a grant again after the second one ended; inf = not yet."""
    ever_odd: bool = False
    """A car here, the meter or the post was not as it should be."""
    _past: list[tuple[float, float]] = field(default_factory=list)

    def put(self, ceiling: float, now_s: float) -> None:
        """Another ceiling comes into force."""
        if ceiling < self.ceiling:
            self._past = [one for one in self._past if one[0] > now_s - REMEMBERED_S]
            self._past.append((now_s, self.ceiling))
        self.ceiling = ceiling

    def write(self, ceiling: float, until_s: float, rest: float, now_s: float, *, latched: bool) -> bool:
        """An order of the controller; a post that can drops one that comes after its end."""
        if (self.lost and ceiling > 0.0) or (now_s >= until_s and not math.isnan(self.watchdog_s)):
            return False
        self.put(ceiling, now_s)
        self.until_s, self.rest, self.latched, self.booted = until_s, rest, latched, False
        return True

    def pass_time(self, now_s: float, heard_s: float) -> None:
        """Ends what is over; its controller last reached it at ``heard_s``."""
        if self.lost and self.could(now_s) == 0.0:
            self.one = False  # without an order its contactor connects all phases
        if self.latched or self.booted or math.isnan(self.watchdog_s):
            return
        end_s = self.until_s if self.watchdog_s == 0.0 else heard_s + self.watchdog_s
        if now_s >= end_s:
            self.put(self.rest, end_s)
            self.until_s = math.inf

    def switch(self, one: bool, now_s: float) -> bool:
        """Its contactor moves, if no current flows; True = it has."""
        if max(self.drawn(now_s), self.could(now_s)) > 0.0:
            return False
        self.one, self.lost, self.moves = one, False, self.moves + (one != self.one)
        return True

    def restart(self, now_s: float) -> None:
        """The post boots."""
        self.put(self.boot, now_s)
        self.booted, self.latched, self.lost = True, False, self.switches

    def plug(self, car_max: float) -> None:
        """A car comes."""
        self.plugged, self.car_max, self.cars = True, car_max, self.cars + 1
        self.lag_s, self.defiant_until_s = 0.0, -1.0
        self._past = []

    def unplug(self) -> None:
        """It leaves; a post that had restarted knows by now that nobody is there, and of no order that was before."""
        self.plugged, self.cars = False, self.cars + 1
        if self.booted:
            self.ceiling = self.rest = 0.0
            self.booted = False

    def could(self, now_s: float) -> float:
        """The most that an obedient car of this class could be drawing."""
        return self._followed(self.reaction_s, now_s) if self.plugged else 0.0

    def drawn(self, now_s: float) -> float:
        """What the car does draw."""
        if not self.plugged:
            return 0.0
        if now_s < self.defiant_until_s:
            return self.car_max
        seen = self._followed(self.lag_s, now_s)
        return min(self.car_max, seen) if seen >= LEAST_A else 0.0

    def shown(self, now_s: float) -> float:
        """What its meter shows."""
        return self.drawn(now_s) * (self.lie if now_s < self.lying_until_s else 1.0)

    def _followed(self, lag_s: float, now_s: float) -> float:
        most = self.ceiling
        for end_s, before in self._past:
            if before > most and end_s > now_s - lag_s:
                most = before
        return most
