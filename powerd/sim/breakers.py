"""Overcurrent devices that open when they have stood an overload for as long as they can, and what the rest wore.

Each branch has a *wear* per phase side: the share of its tolerance that is used up (``network/tolerance``), which grows
while it is overloaded and falls again while it is not. At 1 a breaker opens or a fuse melts; at 1 a transformer or a
cable has been damaged. The devices open at their earliest edge, hot, or at the middle of their band, cold. One that
tripped trips again only after its overload was over, also where the run only counts trips and lets the current flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Floats, Ints
from powerd.network.curves import Edge
from powerd.network.electrical import Electrical
from powerd.network.tolerance import COOLING_S, tolerated_s, trips_s, wear
from powerd.sim.wires import Wires


@dataclass(frozen=True, kw_only=True)
class Trip:
    """A device that opened."""

    branch: int
    """Which."""
    at_s: float
    """When [s]."""
    amps: float
    """What it carried then [A]."""


class Breakers:
    """All devices of a site during one run; mutable: this is the world."""

    def __init__(self, electrical: Electrical, edge: Edge = Edge.EARLIEST) -> None:
        self._overload = electrical.overload
        self._edge = edge
        branches = len(electrical.branches.ids)
        self.worn: Floats = np.zeros(branches)
        """(E,) most that any phase has used of its tolerance so far, whatever it is made of; 1 = too much."""
        self.trips: list[Trip] = []
        self._tripping: dict[int, float] = {}
        self._tripped: set[int] = set()
        self._wearing: dict[int, float] = {}
        self._clear_a: Floats = np.zeros(0)

    def carry(self, wires: Wires, flow: Floats, at_s: float, seconds: float) -> list[Trip]:
        """``flow`` (P,) [unit] runs for ``seconds`` from ``at_s`` on.

        Returns:
            What opens by the end of it.
        """
        hot: Ints = np.flatnonzero((flow > self._rated(wires)) & (wires.branch >= 0))
        self._cool(wires, hot, seconds)
        self._tripped &= set(wires.branch[hot].tolist())
        opened: list[Trip] = []
        for p in hot.tolist():
            branch, to_side = int(wires.branch[p]), bool(wires.to_side[p])
            overload, amps = self._overload[branch], round(float(flow[p]), 3)
            stands = tolerated_s(overload, amps, to_side=to_side)
            self._wearing[p] = wear(self._wearing.get(p, 0.0), stands, seconds)
            self.worn[branch] = max(self.worn[branch], self._wearing[p])
            if branch in self._tripped:
                continue
            after_s = trips_s(overload, amps, to_side=to_side, edge=self._edge)
            self._tripping[p] = wear(self._tripping.get(p, 0.0), after_s, seconds)
            if self._tripping[p] >= 1.0:
                opened.append(Trip(branch=branch, at_s=at_s + seconds, amps=amps))
                self._tripped.add(branch)
        for trip in opened:
            for p in np.flatnonzero(wires.branch == trip.branch).tolist():
                self._tripping.pop(p, None)
        self.trips += opened
        return opened

    def _rated(self, wires: Wires) -> Floats:
        """(P,) below this nothing wears: the smallest current that any device of the branch does not stand for ever."""
        if self._clear_a.shape[0] != wires.capacity.shape[0]:
            self._clear_a = np.array([self._clear(wires, p) for p in range(wires.capacity.shape[0])])
        return self._clear_a

    def _clear(self, wires: Wires, p: int) -> float:
        if wires.branch[p] < 0:
            return np.inf
        overload, to_side = self._overload[int(wires.branch[p])], bool(wires.to_side[p])
        low, high = 0.0, 100.0 * float(wires.capacity[p])
        if np.isinf(tolerated_s(overload, high, to_side=to_side)):
            return np.inf
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if np.isinf(tolerated_s(overload, middle, to_side=to_side)) else (low, middle)
        return low

    def _cool(self, wires: Wires, hot: Ints, seconds: float) -> None:
        still = set(hot.tolist())
        for held in (self._wearing, self._tripping):
            for p in [p for p in held if p not in still]:
                held[p] -= seconds / COOLING_S
                if held[p] <= 0.0:
                    del held[p]
