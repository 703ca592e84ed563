"""The cars at the posts, as columns: what each one draws under the ceiling that it sees.

A car follows its ceiling after its own *lag* (a dead time in whole seconds), draws no more than it can take, pauses
while the ceiling is below its own minimum, and stops when it has what it needs. An *ideal* battery takes its full rate
to the end. A *taper* falls off linearly with the energy still missing, once that is less than the tail: from the full
rate down to the car's minimum current, a straight-line picture of the constant-voltage phase of CC-CV charging (the
two-stage battery of ACN-Sim, Lee et al. 2021, has the same shape; there the current falls to 0: no charge ever ends).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from powerd.limits import Bools, Floats, Ints, Posts

#: Energy that counts as none left [kWh]; 1 mWh, far below a meter's resolution.
NOTHING_KWH = 1e-6
#: Cars answer a new ceiling after 1 to 4 s; IEC 61851-1 allows 5 s.
LAGS_S = (1, 4)
#: Battery capacities that tails are drawn from [kWh]: the range of cars sold up to 2019.
CAPACITIES_KWH = (24.0, 75.0)
#: The tail begins at this share of the capacity before full.
TAIL_SHARE = 0.2


class Battery(StrEnum):
    """How a car's battery takes power near the end."""

    IDEAL = "ideal"
    """Full rate to the end."""
    TAPER = "taper"
    """Falling current over the last fifth of the capacity."""


@dataclass(frozen=True, kw_only=True)
class Car:
    """One car as it plugs in."""

    need_kwh: float
    """What it will take if it can [kWh]."""
    max_ceiling: float
    """Most it takes [own unit of the EVSE]."""
    min_ceiling: float
    """Below this ceiling it pauses [own unit]."""
    lag_s: int
    """Dead time from a new ceiling to its following it [s], >= 0."""
    tail_kwh: float
    """Energy before the end from which the current falls [kWh]; 0 = ideal battery."""


class Cars:
    """All posts' cars; n EVSEs, at most one car each. Mutable: this is the world, not the controller."""

    def __init__(self, posts: Posts, max_lag_s: int = 60) -> None:
        n = posts.count
        self.kw_per_unit = posts.kw_per_unit
        self.plugged: Bools = np.zeros(n, dtype=np.bool_)
        """(n,) a car is plugged in."""
        self.need_kwh: Floats = np.zeros(n)
        """(n,) need of the car that is there [kWh]."""
        self.got_kwh: Floats = np.zeros(n)
        """(n,) what it has taken in this stay [kWh]."""
        self._max, self._min, self._tail = np.zeros(n), np.zeros(n), np.zeros(n)
        self._lag: Ints = np.zeros(n, dtype=np.int64)
        self._past = np.zeros((max_lag_s + 1, n))  # [k] = ceiling in force k seconds ago
        self._columns = np.arange(n)

    def plug(self, evse: int, car: Car) -> None:
        """A car arrives at EVSE index ``evse``; it has seen no ceiling yet."""
        self.plugged[evse] = True
        self.need_kwh[evse], self.got_kwh[evse] = car.need_kwh, 0.0
        self._max[evse], self._min[evse] = car.max_ceiling, car.min_ceiling
        self._lag[evse], self._tail[evse] = min(car.lag_s, self._past.shape[0] - 1), car.tail_kwh
        self._past[:, evse] = 0.0

    def unplug(self, evse: int) -> float:
        """The car at ``evse`` leaves; what it took [kWh]."""
        self.plugged[evse] = False
        return float(self.got_kwh[evse])

    def apply(self, ceilings: Floats) -> None:
        """The posts offer these ceilings (n,) [own unit] from now on."""
        self._past[0] = ceilings

    @property
    def hungry(self) -> Bools:
        """(n,) plugged in and not yet served."""
        return self.plugged & (self.need_kwh - self.got_kwh > NOTHING_KWH)

    def drawn(self) -> Floats:
        """(n,) what is drawn now [own unit]."""
        seen = self._past[self._lag, self._columns]
        takes = np.minimum(seen, self._taken_at_most())
        return np.where(self.hungry & (seen >= self._min) & (seen > 0.0), takes, 0.0)

    def _taken_at_most(self) -> Floats:
        """(n,) most that each battery takes in its present state [own unit]."""
        left = self.need_kwh - self.got_kwh
        in_tail = left < self._tail
        share = np.divide(np.maximum(left, 0.0), self._tail, out=np.ones_like(left), where=in_tail)
        low = np.minimum(self._min, self._max)
        most: Floats = low + (self._max - low) * share
        return most

    @property
    def following(self) -> Bools:
        """(n,) has not yet seen the ceiling in force."""
        age = np.arange(self._past.shape[0])[:, None]
        unseen: Bools = ((self._past != self._past[0]) & (age <= self._lag)).any(axis=0)
        return self.plugged & unseen

    def steady_s(self) -> float:
        """How long what is drawn stays as it is, if no ceiling changes [s]: 0 while a car follows; inf = for ever.

        The slow fall of a tail does not count as a change.
        """
        if self.following.any():
            return 0.0
        power = self.drawn() * self.kw_per_unit
        charging = power > 0.0
        left = (self.need_kwh - self.got_kwh)[charging]
        return float(np.min(3600.0 * left / power[charging], initial=np.inf))

    def advance(self, seconds: int, live: Bools | None = None) -> Floats:
        """Time passes under the ceilings in force; where ``live`` (n,) is False there is no supply.

        ``seconds`` should be 1 while a car follows, else at most ``steady_s`` rounded up: what is drawn at the start
        counts for the whole span.

        Returns:
            (n,) energy taken [kWh].
        """
        power = self.drawn() * self.kw_per_unit * (1.0 if live is None else live)
        taken = np.minimum(power * seconds / 3600.0, np.maximum(self.need_kwh - self.got_kwh, 0.0))
        self.got_kwh += taken
        depth = self._past.shape[0]
        moved = min(seconds, depth - 1)
        self._past[moved:] = self._past[: depth - moved].copy()
        self._past[:moved] = self._past[0]
        return taken


def make_car(need_kwh: float, evse: int, posts: Posts, battery: Battery, rng: np.random.Generator) -> Car:
    """A car for a recorded stay: rate and minimum of the post, lag and tail drawn from ``rng`` (two draws, always)."""
    lag = int(rng.integers(LAGS_S[0], LAGS_S[1] + 1))
    tail = TAIL_SHARE * float(rng.uniform(*CAPACITIES_KWH))
    return Car(
        need_kwh=need_kwh,
        max_ceiling=float(posts.max_ceiling[evse]),
        min_ceiling=float(posts.min_ceiling[evse]),
        lag_s=lag,
        tail_kwh=tail if battery is Battery.TAPER else 0.0,
    )
