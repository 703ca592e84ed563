"""The running account of one allocation: who is on, what is decided, and what the rows already carry."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.allocation.demands import Demands
from powerd.allocation.guard_kernels import least_ceiling, overdrawn_limits, under_limits
from powerd.allocation.rows import Columns, add_flow, fresh, headroom_of, rows_of, trust
from powerd.allocation.steps import PilotSteps, step_down
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Limits


class Ledger(NamedTuple):
    """Arrays that the stages change in place, one after the other. n EVSEs, m rows, L limits."""

    columns: Columns
    """Coefficients by EVSE."""
    limit_of_row: Ints
    """(m,)"""
    limit_count: int
    """L."""
    headroom: Floats
    """(m,) [limit unit]."""
    weight: Floats
    """(n,) as in ``Demands``."""
    target: Floats
    """(n,) as in ``Demands``."""
    overdue: Bools
    """(n,) as in ``Demands``."""
    least: Floats
    """(n,) smallest ceiling above 0 that is also a pilot step [own unit]."""
    upper: Floats
    """(n,) largest ceiling now, on a pilot step; 0 = nothing can be granted."""
    reserve: Floats
    """(n,) what the demands reserve."""
    floor: Floats
    """(n,) reserve counted in the rows; 0 under a limit that not even the reserves fit."""
    free_floor: Floats
    """(n,) the part of the reserve that a ceiling can use, on a pilot step: costs nothing."""
    on: Bools
    """(n,) who charges."""
    x: Floats
    """(n,) decided so far [own unit]."""
    counted: Floats
    """(n,) max(x, floor)."""
    real: Floats
    """(m,) row flows of what is counted, real part [limit unit]; without ``free`` while their level is open."""
    imag: Floats
    """(m,) imaginary part."""
    price: Floats
    """(m,) last positive shadow price."""
    lower: Floats
    """(n,) of the level being decided [own unit]."""
    ceiling: Floats
    """(n,) of the level being decided [own unit]."""
    free: Bools
    """(n,) whose ceilings the level being decided is about."""

    def settle(self, chosen: Bools, x: Floats) -> None:
        """Write ``x`` for the chosen EVSEs, and count anew."""
        self.x[chosen] = x[chosen]
        np.maximum(self.x, self.floor, out=self.counted)
        self.real[:], self.imag[:] = self.flow_without(np.zeros_like(self.on))

    def flow_without(self, removed: Bools) -> tuple[Floats, Floats]:
        """Row flows (m,) of what is counted, except for the EVSEs of ``removed``; real and imaginary [limit unit]."""
        real, imag = np.zeros_like(self.headroom), np.zeros_like(self.headroom)
        add_flow(self.columns, np.where(removed, 0.0, self.counted), real, imag)
        return real, imag


@kernel
def _open(
    columns: Columns,
    limit_of_row: Ints,
    limit_count: int,
    headroom: Floats,
    energized: Bools,
    weight: Floats,
    target: Floats,
    overdue: Bools,
    minimum: Floats,
    upper: Floats,
    floor: Floats,
    steps: PilotSteps,
) -> Ledger:
    """See ``open_ledger``; ``minimum``, ``upper`` and ``floor`` are cleaned in place."""
    n, m = upper.shape[0], headroom.shape[0]
    for i in range(n):
        minimum[i] = least_ceiling(minimum[i], steps, i)
        upper[i] = step_down(steps, i, trust(upper[i]))
        if upper[i] < minimum[i] or not energized[i]:
            upper[i] = 0.0
        floor[i] = trust(floor[i])
    real, imag = np.zeros(m), np.zeros(m)
    add_flow(columns, floor, real, imag)
    over = overdrawn_limits(limit_of_row, headroom, limit_count, real, imag)
    fitting = floor.copy()
    if over.any():
        # Under a limit that not even the reserves fit, it is obeyed with live ceilings.
        fitting = np.where(under_limits(columns, limit_of_row, over), 0.0, floor)
        real[:] = 0.0
        imag[:] = 0.0
        add_flow(columns, fitting, real, imag)
    free_floor = np.empty(n)
    for i in range(n):
        free_floor[i] = step_down(steps, i, min(fitting[i], upper[i]))
    return Ledger(
        columns,
        limit_of_row,
        limit_count,
        headroom,
        weight,
        target,
        overdue,
        minimum,
        upper,
        floor,
        fitting,
        free_floor,
        np.zeros(n, dtype=np.bool_),
        np.zeros(n),
        fitting.copy(),
        real,
        imag,
        np.zeros(m),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n, dtype=np.bool_),
    )


def open_ledger(limits: Limits, demands: Demands, steps: PilotSteps) -> Ledger:
    """An account with nothing granted: rows carry the reserves alone."""
    rows = rows_of(limits)
    return _open(
        rows.columns,
        rows.limit_of_row,
        limits.capacity.shape[0],
        headroom_of(limits, demands.uncontrolled),
        np.array(limits.energized),
        fresh(demands.weight),
        fresh(demands.target),
        np.array(demands.overdue),
        fresh(demands.minimum),
        fresh(demands.upper),
        fresh(demands.floor),
        steps,
    )
