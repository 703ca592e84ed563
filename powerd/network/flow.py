"""AC power flow of one switching state, fast enough for the tick: every voltage and every branch's current.

AC cars take a constant current in phase with their voltage (the on-board charger follows the pilot, not the voltage),
DC posts and uncontrolled loads constant power. ``docs/flow.md`` says how the numbers compare with other programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import Electrical
from powerd.network.models import BASE_KVA, Ladder, make_ladder
from powerd.network.phasors import Complex
from powerd.network.supply import energise
from powerd.network.sweep import sweep_balanced, sweep_phases
from powerd.network.taken import CannotSolve, Drawn, Flow
from powerd.units import SQRT3

#: Sequences (zero, positive, negative) to phases.
_A = np.exp(2j * np.pi / 3)
TO_PHASES = np.array([[1, 1, 1], [1, _A**2, _A], [1, _A, _A**2]])


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Sequence voltages and currents of a ladder, in its frame [pu]."""

    v: Complex
    """(N, 3) voltages."""
    j: Complex
    """(N, 3) currents through the impedance above each bus."""
    sweeps: int
    """Sweeps made; -1 = the voltages did not settle and the columns mean nothing."""


class RadialFlow:
    """The power flow of a radial switching state, compiled once."""

    def __init__(self, electrical: Electrical, closed: Bools) -> None:
        """Compile the state.

        Args:
            electrical: the compiled drawing.
            closed: (E,) switch positions; only read where ``switchable``.

        Raises:
            CannotSolve: the state has a loop or two supplies in parallel.
        """
        self._electrical = electrical
        self.ladder: Ladder = make_ladder(electrical, energise(electrical, closed))
        self.base_a: Floats = BASE_KVA * 1000 / (SQRT3 * self.ladder.volts)

    def solve(self, drawn: Drawn) -> Flow:
        """Voltages, currents and imports when the buses take ``drawn``.

        Raises:
            CannotSolve: the voltages do not settle: a load far above its feeder.
        """
        found = self.balanced(drawn) if drawn.is_balanced else self.unbalanced(drawn)
        if found.sweeps < 0:
            raise CannotSolve("the voltages do not settle: look for a load far above its feeder")
        return self.flow_of(found)

    def balanced(self, drawn: Drawn) -> Solution:
        """One sequence; ``drawn`` must take the same on all phases."""
        v, j, sweeps = self.single(self.columns(drawn))
        return Solution(v=_positive_alone(v), j=_positive_alone(j), sweeps=sweeps)

    def columns(self, drawn: Drawn) -> Floats:
        """(3, N) active power, reactive power and constant current at the ladder's buses [pu], all phases alike."""
        at, per = self.ladder.bus, 1 / BASE_KVA
        p = (drawn.balanced_kw + drawn.load_kw.sum(axis=1))[at] * per
        return np.stack([p, drawn.load_kvar.sum(axis=1)[at] * per, drawn.wye_a[at, 0] / self.base_a])

    def single(self, taken: Floats) -> tuple[Floats, Floats, int]:
        """The positive sequence of ``columns`` (3, N): voltages and currents (2, N), real and imaginary; sweeps."""
        count = taken.shape[1]
        v, j = np.empty((2, count)), np.empty((2, count + 1))
        sweeps = sweep_balanced(*self._positive, taken, v, j)
        return v, j[:, :count], sweeps

    def unbalanced(self, drawn: Drawn) -> Solution:
        """All three sequences."""
        at = self.ladder.bus
        per_phase = 3 / BASE_KVA
        kw, kvar = drawn.load_kw[at] + drawn.balanced_kw[at, None] / 3, drawn.load_kvar[at]
        wye: Complex = kw * per_phase + 1j * (kvar * per_phase)
        wye_c, delta_c = drawn.wye_a[at] / self.base_a[:, None], drawn.delta_a[at] / self.base_a[:, None]
        loaded = np.flatnonzero((wye != 0).any(axis=1) | (wye_c != 0).any(axis=1) | (delta_c != 0).any(axis=1))
        return self.sweep(loaded, wye[loaded], wye_c[loaded], delta_c[loaded])

    def sweep(self, loaded: Ints, wye: Complex, wye_c: Floats, delta_c: Floats) -> Solution:
        """All three sequences, from columns in per unit as in ``sweep.sweep_phases``."""
        ladder = self.ladder
        v, j = self._start.copy(), np.empty_like(self._start)
        sweeps = sweep_phases(
            ladder.parent, ladder.zero_parent, ladder.z, ladder.y, ladder.emf, ladder.turn, loaded,
            wye, wye_c, delta_c, v, j,
        )  # fmt: skip
        return Solution(v=v, j=j, sweeps=sweeps)

    def flow_of(self, found: Solution) -> Flow:
        """A solution on the drawing's buses, branches and supplies."""
        electrical, ladder = self._electrical, self.ladder
        voltage = np.full((electrical.buses.voltage_v.shape[0], 3), np.nan + 0j)
        scale = ladder.volts / electrical.buses.voltage_v[ladder.bus]
        voltage[ladder.bus] = phases(found.v * ladder.turn) * scale[:, None]
        above, below = self.ends_a(found)
        ends = np.zeros((2, electrical.branches.kind.shape[0], 3))
        linked = ladder.branch >= 0
        down = ladder.down[linked]
        ends[np.where(down, 0, 1), ladder.branch[linked]] = np.abs(above[linked])
        ends[np.where(down, 1, 0), ladder.branch[linked]] = np.abs(below[linked])
        root = ladder.supply >= 0
        power = np.zeros(len(electrical.supplies.ids))
        power[ladder.supply[root]] = (found.v[root] * found.j[root].conj()).sum(axis=1).real * BASE_KVA
        return Flow(from_a=ends[0], to_a=ends[1], voltage_pu=voltage, import_kw=power)

    def ends_a(self, found: Solution) -> tuple[Complex, Complex]:
        """(N, 3) phase currents of the branch above each bus, at its upper end and at the bus [A]; 0 at supplies."""
        ladder = self.ladder
        linked = ladder.branch >= 0
        parent = np.where(linked, ladder.parent, 0)
        passed = found.j.copy()
        passed[linked & (ladder.zero_parent < 0), 0] = 0
        above = np.where(linked[:, None], passed + ladder.y_above * found.v[parent], 0)
        below = np.where(linked[:, None], found.j - ladder.y_below * found.v, 0)
        at_parent: Complex = phases(above * ladder.turn[parent]) * self.base_a[parent, None]
        at_bus: Complex = phases(below * ladder.turn) * self.base_a[:, None]
        return at_parent, at_bus

    @cached_property
    def _positive(self) -> tuple[Ints, Ints, Floats, Floats, Floats]:
        """The first five columns of ``sweep_balanced``."""
        ladder = self.ladder
        place = np.arange(ladder.parent.shape[0])
        above = np.where(ladder.parent >= 0, ladder.parent, place)
        emf, size = ladder.emf.copy(), np.ones_like(place)
        for k in place[ladder.parent >= 0].tolist():
            emf[k] = emf[above[k]]
        for k in place[ladder.parent >= 0][::-1].tolist():
            size[above[k]] += size[k]
        z, y = ladder.z[:, 1], ladder.y[:, 1]
        return above, place + size, np.stack([z.real, z.imag]), np.stack([y.real, y.imag]), emf

    @cached_property
    def _start(self) -> Complex:
        """(N, 3) flat start."""
        start = np.zeros((self.ladder.bus.shape[0], 3), dtype=np.complex128)
        start[:, 1] = 1.0
        return start


def _positive_alone(parts: Floats) -> Complex:
    """(N, 3) sequences of which only the positive one, real and imaginary ``parts`` (2, N), is not zero."""
    whole = np.zeros((parts.shape[1], 3), dtype=np.complex128)
    whole.real[:, 1], whole.imag[:, 1] = parts
    return whole


def phases(sequence: Complex) -> Complex:
    """Zero, positive, negative sequence (N, 3) to l1, l2, l3 (N, 3)."""
    result: Complex = sequence @ TO_PHASES.T
    return result
