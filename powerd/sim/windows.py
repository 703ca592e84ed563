"""Stretches of time in which something carries more than its rating."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Floats
from powerd.sim.wires import Wires

TOLERANCE = 1e-6
"""Relative overshoot that counts as rounding."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One such stretch."""

    name: str
    """The rating, for people."""
    element: str
    """The element."""
    since_s: float
    """Start [s]."""
    until_s: float
    """End, or as far as the run has come [s]."""
    share: float
    """Most that it carried, of its rating."""

    @property
    def seconds(self) -> float:
        """Its length [s]."""
        return self.until_s - self.since_s


class Windows:
    """Notes them; mutable."""

    def __init__(self) -> None:
        self._ended: list[Window] = []
        self._open: dict[int, Window] = {}

    def note(self, wires: Wires, flow: Floats, since_s: float, until_s: float) -> None:
        """``flow`` (P,) runs between the two instants."""
        over = set(np.flatnonzero(flow > wires.capacity * (1.0 + TOLERANCE)).tolist())
        for p in over:
            share = float(flow[p] / wires.capacity[p]) if wires.capacity[p] > 0.0 else np.inf
            before = self._open.get(p)
            self._open[p] = Window(
                name=wires.name[p],
                element=wires.element[p],
                since_s=since_s if before is None else before.since_s,
                until_s=until_s,
                share=share if before is None else max(share, before.share),
            )
        self._ended += [self._open.pop(p) for p in [p for p in self._open if p not in over]]

    @property
    def any_open(self) -> bool:
        """Something is overloaded now."""
        return bool(self._open)

    def all(self) -> list[Window]:
        """Those that ended and those that have not."""
        return [*self._ended, *self._open.values()]
