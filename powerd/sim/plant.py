"""The plant's own books: which rating was held, which was broken, what was delivered; nothing is taken from the daemon.

A rating is *violated* in a step when the current that really flows exceeds it by more than 1 part in a million. A limit
*binds* in a step when the ceilings in force, all used, would come within 1 % or 1 A (1 kW) of what its rows admit: with
pilots in steps of 1 A nothing gets nearer. Binding is a statistic about the ceilings, so it alone reads powerd's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerd.limits import Bools, Floats, Limits
from powerd.sim.grid import Compliance, Grid, Tripped
from powerd.sim.wires import Wires

#: Relative overshoot of a rating that still counts as rounding.
TOLERANCE = 1e-6
#: A row binds within this share of its limit, or within BINDING_UNITS of it.
BINDING_SHARE = 0.01
#: One pilot step of a usual AC post [A], likewise for kW rows.
BINDING_UNITS = 1.0


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rating that was broken."""

    name: str
    """For people: "phase L2 of transformer T1, low side"."""
    element: str
    """Id of the element."""
    unit: str
    """ "A" or "kW"."""
    limit: float
    """The rating [unit]."""
    worst: float
    """Most that flowed [unit]."""
    steps: int
    """In how many steps."""
    seconds: int
    """For how long, together [s]."""
    first_s: int
    """Start of the first step with it, seconds from the start of the run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """The run step by step, for plots. T steps, P ratings."""

    start_s: npt.NDArray[np.int64]
    """(T,) start of each step, seconds from the start of the run."""
    seconds: npt.NDArray[np.int64]
    """(T,) its length [s]."""
    site_kw: Floats
    """(T,) all the power taken [kW]."""
    loading_percent: npt.NDArray[np.float32]
    """(T, P) flow of each rating in percent of it."""
    plugged: npt.NDArray[np.int64]
    """(T,) cars plugged in."""
    charging: npt.NDArray[np.int64]
    """(T,) cars that draw current."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What the plant saw in a run."""

    steps: int
    """Steps accounted."""
    steps_binding: int
    """Steps in which some limit bound."""
    steps_transformer_binding: int
    """Steps in which a transformer's limit bound."""
    peak_kw: float
    """Most power taken [kW]."""
    worst_margin_a: float
    """Smallest rating - current over all ampere ratings and steps [A]; negative = broken; inf = no such rating."""
    limit_violations: int
    """Pairs (step, rating) in which the rating was broken."""
    breaker_trips: int
    """Times an overcurrent device had stood an overload for as long as it can."""
    trips: tuple[Tripped, ...]
    """Which devices."""
    forbidden_movements: tuple[str, ...]
    """Switch movements that I9 forbids, as "rule at element"."""
    movements: tuple[tuple[float, str], ...]
    """(second, words) of every switch that moved, whoever moved it."""
    compliance: tuple[Compliance, ...]
    """What was lost, came back or opened, and how long anything was overloaded then."""
    violations: tuple[Violation, ...]
    """The ratings that were broken, worst first."""
    series: Series
    """Step by step."""


class Plant:
    """Books of one run over P ratings and L limits; mutable."""

    def __init__(self, wires: Wires, limits: Limits, allowed: Floats, grid: Grid) -> None:
        """``allowed`` (L,) is what the ``limits`` leave to the EVSEs [limit unit]; ``grid`` knows what is closed."""
        self.wires, self.grid = wires, grid
        self._limits, self._allowed = limits, allowed
        elements = {e for e, is_transformer in zip(wires.element, wires.is_transformer, strict=True) if is_transformer}
        self._limit_is_transformer = np.array([e in elements for e in limits.element], dtype=np.bool_)
        self._slack = np.maximum(BINDING_SHARE * limits.capacity, BINDING_UNITS)
        ratings = wires.capacity.shape[0]
        self._is_ampere = np.array([unit == "A" for unit in wires.unit], dtype=np.bool_)
        self._worst = np.zeros(ratings)
        self._broken_steps = np.zeros(ratings, dtype=np.int64)
        self._broken_s = np.zeros(ratings, dtype=np.int64)
        self._first_s = np.full(ratings, -1, dtype=np.int64)
        self._binding = self._transformer_binding = 0
        self._rows: list[tuple[int, int, float, int, int]] = []
        self._loading: list[npt.NDArray[np.float32]] = []

    def account(self, start_s: int, seconds: int, drawn: Floats, ceilings: Floats, plugged: Bools) -> None:
        """One step: ``drawn`` (n,) flows from ``start_s`` on for ``seconds`` under ``ceilings`` (n,) [own unit]."""
        self.wires = self.grid.wires()
        flow = self.wires.flow(drawn)
        self.grid.carry(self.wires, flow, seconds)
        np.maximum(self._worst, flow, out=self._worst)
        broken = flow > self.wires.capacity * (1.0 + TOLERANCE)
        self._broken_steps += broken
        self._broken_s += broken * seconds
        self._first_s[broken & (self._first_s < 0)] = start_s
        self._count_binding(np.where(plugged, ceilings, 0.0))
        charging = int(np.count_nonzero(drawn > 0.0))
        self._rows.append((start_s, seconds, self.wires.site_kw(drawn), int(np.count_nonzero(plugged)), charging))
        share = np.divide(flow, self.wires.capacity, out=np.zeros_like(flow), where=self.wires.capacity > 0.0)
        self._loading.append((100.0 * share).astype(np.float32))

    def _count_binding(self, ceilings: Floats) -> None:
        binds = self._limits.limit_flow(ceilings) >= self._allowed - self._slack
        binds &= self._allowed > self._slack
        self._binding += bool(binds.any())
        self._transformer_binding += bool((binds & self._limit_is_transformer).any())

    def close(self) -> Truth:
        """The books so far."""
        margin = (self.wires.capacity - self._worst)[self._is_ampere]
        table = np.array(self._rows, dtype=np.float64).reshape(len(self._rows), 5)
        whole = table.astype(np.int64)
        loading = np.array(self._loading, dtype=np.float32).reshape(len(self._rows), self.wires.capacity.shape[0])
        return Truth(
            steps=len(self._rows),
            steps_binding=self._binding,
            steps_transformer_binding=self._transformer_binding,
            peak_kw=float(table[:, 2].max(initial=0.0)),
            worst_margin_a=float(margin.min(initial=np.inf)),
            limit_violations=int(self._broken_steps.sum()),
            breaker_trips=len(self.grid.breakers.trips),
            trips=self.grid.trips(),
            forbidden_movements=tuple(f"{one.rule} at {one.element}" for one in self.grid.gear.broken),
            movements=self.grid.movements(),
            compliance=self.grid.compliance(),
            violations=self._violations(),
            series=Series(
                start_s=whole[:, 0],
                seconds=whole[:, 1],
                site_kw=table[:, 2],
                loading_percent=loading,
                plugged=whole[:, 3],
                charging=whole[:, 4],
            ),
        )

    def _violations(self) -> tuple[Violation, ...]:
        wires = self.wires
        broken: Sequence[int] = np.flatnonzero(self._broken_steps).tolist()
        found = [
            Violation(
                name=wires.name[p],
                element=wires.element[p],
                unit=wires.unit[p],
                limit=float(wires.capacity[p]),
                worst=float(self._worst[p]),
                steps=int(self._broken_steps[p]),
                seconds=int(self._broken_s[p]),
                first_s=int(self._first_s[p]),
            )
            for p in broken
        ]
        return tuple(sorted(found, key=lambda v: (-v.worst / max(v.limit, 1e-9), v.name)))
