"""What the posts really draw, at worst: measured at the controllers' actuators, not at the daemon.

A car that is told less may draw what it had for the reaction time. A write carries its end: then the post goes to its
fallback by itself, whether its controller lives or not.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

SHARE = 0.95
"""Cars follow within this share of their reaction time; the rest is the way of a message and the clock's reading."""


@dataclass
class Truth:
    """One limit over all posts; fallbacks are 0."""

    count: int
    """Posts."""
    limit: float
    """The most that all of them may draw together [A]."""
    reaction_s: float
    """Of the cars."""
    violations: int = 0
    """Raises after which the sum was above the limit."""
    writes: int = 0
    """Actuator writes seen."""
    highest: float = 0.0
    """Largest sum seen [A]."""
    ceiling: np.ndarray = field(init=False)
    """(n,) ceilings in force."""
    told: list[tuple[int, float, float, float]] = field(default_factory=list)
    """Every write, in the order in which it was told."""
    _until: np.ndarray = field(init=False)
    _tails: list[tuple[float, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ceiling = np.zeros(self.count)
        self._until = np.full(self.count, np.inf)

    def write(self, evse: int, ceiling: float, valid_until_s: float, now_s: float) -> None:
        """An actuator took a ceiling at ``now_s``, to be obeyed until ``valid_until_s`` (both boottime)."""
        self.writes += 1
        self.told.append((evse, ceiling, valid_until_s, now_s))
        self.lapse(now_s)
        if ceiling < self.ceiling[evse]:
            self._tail(evse, now_s)
        rises = ceiling > self.ceiling[evse]
        self.ceiling[evse], self._until[evse] = ceiling, valid_until_s
        if rises:
            self.check()

    def in_order(self) -> Truth:
        """The same writes by their instants: the pipes of several processes tell them up to a second out of order."""
        again = Truth(count=self.count, limit=self.limit, reaction_s=self.reaction_s)
        for write in sorted(self.told, key=lambda told: told[3]):
            again.write(*write)
        return again

    def lapse(self, now_s: float) -> None:
        """What has ended by itself."""
        for evse in np.flatnonzero(self._until <= now_s):
            self._tail(int(evse), float(self._until[evse]))
            self.ceiling[evse], self._until[evse] = 0.0, np.inf
        while self._tails and self._tails[0][0] <= now_s:
            heapq.heappop(self._tails)

    def _tail(self, evse: int, since_s: float) -> None:
        """The car goes on with what it had, for a while."""
        heapq.heappush(self._tails, (since_s + SHARE * self.reaction_s, evse, float(self.ceiling[evse])))

    def check(self) -> None:
        """Counts a violation if the sum of what may be drawn now is above the limit."""
        drawn = self.ceiling.copy()
        for _, evse, before in self._tails:
            drawn[evse] = max(drawn[evse], before)
        total = float(drawn.sum())
        self.highest = max(self.highest, total)
        self.violations += total > self.limit + 1e-6
