"""The running account of one allocation: who is on, what is decided, and what the rows already carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.allocation.certificate import NOTHING_TO_DECIDE, Certificate, worst_of
from powerd.allocation.demands import Demands
from powerd.allocation.guard_kernels import overdrawn_limits, under_limits
from powerd.allocation.rows import Rows, add_flow, headroom_of, rows_of, trusted
from powerd.allocation.steps import PilotSteps, all_down, all_up
from powerd.limits import Bools, Floats, Limits
from powerd.units import ROW_TOLERANCE


@dataclass(kw_only=True, eq=False)
class Ledger:
    """Mutable on purpose: stages write into it one after the other. n EVSEs, m rows, L limits."""

    rows: Rows
    """Coefficients."""
    headroom: Floats
    """(m,) [limit unit]."""
    least: Floats
    """(n,) smallest ceiling above 0 that is also a pilot step [own unit]."""
    upper: Floats
    """(n,) largest ceiling now, on a pilot step; 0 = nothing can be granted."""
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
    price: Floats
    """(m,) last positive shadow price."""
    stage_prices: dict[tuple[int, int], Floats]
    """Row prices (m,) of each stage, by (class, level)."""
    certificate: Certificate
    """Worst so far."""

    def settle(self, chosen: Bools, x: Floats) -> None:
        """Write ``x`` for the chosen EVSEs."""
        self.x = np.where(chosen, x, self.x)
        self.counted = np.maximum(self.x, self.floor)

    def flow(self) -> tuple[Floats, Floats]:
        """Fresh row flows (m,) of everything counted, real and imaginary [limit unit]."""
        real, imag = np.zeros_like(self.headroom), np.zeros_like(self.headroom)
        add_flow(self.rows.columns, self.counted, real, imag)
        return real, imag

    def flow_without(self, removed: Bools) -> tuple[Floats, Floats]:
        """Row flows (m,) of what is counted, except for the EVSEs of ``removed``."""
        real, imag = np.zeros_like(self.headroom), np.zeros_like(self.headroom)
        add_flow(self.rows.columns, np.where(removed, 0.0, self.counted), real, imag)
        return real, imag

    def under_full_row(self) -> Bools:
        """(n,) True where some row above the EVSE has no room left: it cannot rise and leaves the problem."""
        full = self.headroom - np.hypot(*self.flow()) <= ROW_TOLERANCE
        limit_count = int(self.rows.limit_of_row.max(initial=-1)) + 1
        marked = np.zeros(limit_count, dtype=np.bool_)
        marked[self.rows.limit_of_row[full]] = True
        return under_limits(self.rows.columns, self.rows.limit_of_row, marked)

    def under_contested_limit(self, taking: Bools, ceiling: Floats) -> Bools:
        """(n,) True where a limit above the EVSE would not hold if all of ``taking`` got their ``ceiling``."""
        real, imag = np.zeros_like(self.headroom), np.zeros_like(self.headroom)
        add_flow(self.rows.columns, np.where(taking, np.maximum(ceiling, self.counted), self.counted), real, imag)
        limit_count = int(self.rows.limit_of_row.max(initial=-1)) + 1
        contested = overdrawn_limits(self.rows.limit_of_row, self.headroom, limit_count, real, imag)
        return under_limits(self.rows.columns, self.rows.limit_of_row, contested)

    def record(self, stage_id: tuple[int, int], price: Floats, certificate: Certificate) -> None:
        """Keep what a stage proved."""
        self.stage_prices[stage_id] = price
        self.price = np.where(price > 0.0, price, self.price)
        self.certificate = worst_of(self.certificate, certificate)


def _fitting_floor(limits: Limits, rows: Rows, headroom: Floats, floor: Floats) -> Floats:
    """(n,) reserves, 0 for EVSEs under a limit that not even the reserves fit (it is obeyed with live grants)."""
    real, imag = np.zeros_like(headroom), np.zeros_like(headroom)
    add_flow(rows.columns, floor, real, imag)
    over = overdrawn_limits(rows.limit_of_row, headroom, limits.capacity.shape[0], real, imag)
    fitting: Floats = np.where(under_limits(rows.columns, rows.limit_of_row, over), 0.0, floor)
    return fitting


def open_ledger(limits: Limits, demands: Demands, steps: PilotSteps) -> Ledger:
    """An account with nothing granted: rows carry the reserves alone."""
    rows = rows_of(limits)
    headroom = headroom_of(limits, demands.uncontrolled)
    known_minimum = np.where(np.isfinite(demands.minimum), np.maximum(demands.minimum, 0.0), np.inf)
    least = all_up(steps, known_minimum)
    upper = all_down(steps, trusted(demands.upper))
    upper[(upper < least) | ~limits.energized] = 0.0
    floor = _fitting_floor(limits, rows, headroom, trusted(demands.floor))
    free_floor = all_down(steps, np.minimum(floor, upper))
    return Ledger(
        rows=rows,
        headroom=headroom,
        least=least,
        upper=upper,
        floor=floor,
        free_floor=free_floor,
        on=np.zeros(len(upper), dtype=np.bool_),
        x=np.zeros(len(upper)),
        counted=floor.copy(),
        price=np.zeros_like(headroom),
        stage_prices={},
        certificate=NOTHING_TO_DECIDE,
    )
