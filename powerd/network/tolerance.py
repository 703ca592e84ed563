"""What a branch of the drawing tolerates: its overcurrent device and what it is made of, whichever gives in first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from powerd.network.curves import Device, Edge, Fuse, Mcb, TripUnit, UnknownBreaker, stands_s

#: Multiples of a current between which an inverse is looked for, and how close it gets.
MOST_MULTIPLE, CLOSE = 50.0, 1e-6
#: Cooling of a device that was overloaded: its count falls to 0 in this time at or below its rating [s]. Bimetals and
#: thermal memories cool within some minutes; a longer time can only trip earlier.
COOLING_S = 900.0


@dataclass(frozen=True, kw_only=True)
class Overload:
    """The devices in a branch; currents are those of its from side (a transformer's high side)."""

    devices: tuple[Device, ...]
    """All that carries the current."""
    ratio: float = 1.0
    """Ampere at the to side for one at the from side (a transformer's turns ratio)."""

    @property
    def opens(self) -> bool:
        """Whether something in it trips or melts; other elements only wear."""
        return any(isinstance(device, Mcb | TripUnit | Fuse | UnknownBreaker) for device in self.devices)


def tolerated_s(overload: Overload, amps: float, *, to_side: bool = False) -> float:
    """How long the branch stands ``amps``, hot [s]: the least of its devices, each at its earliest edge."""
    current = amps / overload.ratio if to_side else amps
    return min((stands_s(device, current) for device in overload.devices), default=math.inf)


def trips_s(overload: Overload, amps: float, *, to_side: bool = False, edge: Edge = Edge.EARLIEST) -> float:
    """When ``amps`` makes the branch's overcurrent device open [s]; inf = never, or there is none."""
    current = amps / overload.ratio if to_side else amps
    own = [
        stands_s(d, current, edge) for d in overload.devices if isinstance(d, Mcb | TripUnit | Fuse | UnknownBreaker)
    ]
    return min(own, default=math.inf)


def tolerated_a(overload: Overload, seconds: float, *, rated_a: float, to_side: bool = False) -> float:
    """Largest current that the branch stands for ``seconds`` [A]; inf where nothing in it heats or trips.

    By bisection from ``rated_a`` up, below which it does not look: tolerances fall with the current.
    """
    low, high = 1.0, MOST_MULTIPLE
    if tolerated_s(overload, high * rated_a, to_side=to_side) >= seconds:
        return math.inf
    if tolerated_s(overload, low * rated_a, to_side=to_side) < seconds:
        return rated_a
    while high - low > CLOSE:
        middle = 0.5 * (low + high)
        if tolerated_s(overload, middle * rated_a, to_side=to_side) >= seconds:
            low = middle
        else:
            high = middle
    return low * rated_a


def wear(before: float, stood_s: float, seconds: float) -> float:
    """The share of a tolerance that is used up after ``seconds`` of a current that could be stood for ``stood_s`` [s].

    Shares of different currents add (Miner's rule, as thermal images do for I2t); 1 = it trips. At or below the rating
    (``stood_s`` = inf) it falls back to 0 within ``COOLING_S``.
    """
    if math.isinf(stood_s):
        return max(0.0, before - seconds / COOLING_S)
    return math.inf if stood_s <= 0.0 else before + seconds / stood_s
