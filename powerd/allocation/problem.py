"""The statement: the stage's convex program in cvxpy, compiled once per set of rows, parameters only.

It is the oracle of the tests and the path for terms that users bring. Every EVSE has a fixed slot; one that is decided
is taken out of the rows by ``active`` = 0 and left to float in [1, 2] with weight 0.
"""

from __future__ import annotations

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from powerd.allocation import terms
from powerd.allocation.rows import Rows
from powerd.allocation.stage import Solution, Stage
from powerd.errors import NotDpp
from powerd.limits import Bools, Floats


def part_of(rows: Rows, values: Floats, chosen: Bools) -> sp.csr_array:
    """The chosen rows of one part (real or imaginary) as a sparse matrix."""
    count = rows.columns.start.shape[0] - 1
    whole = sp.csc_array((values, rows.columns.row, rows.columns.start), shape=(rows.row_count, count))
    return sp.csr_array(whole.tocsr()[np.flatnonzero(chosen)])


class Program:
    """The compiled program of one set of rows.

    Raises:
        NotDpp: at build, if a term breaks disciplined parametrised programming.
    """

    def __init__(self, rows: Rows) -> None:
        self._cone = rows.is_cone
        count = rows.columns.start.shape[0] - 1
        linear_count, cone_count = int((~self._cone).sum()), int(self._cone.sum())
        self._x = cp.Variable(count)
        self._active = cp.Parameter(count, nonneg=True)
        self._weight = cp.Parameter(count, nonneg=True)
        self._lower, self._upper = cp.Parameter(count), cp.Parameter(count)
        self._linear_base, self._linear_headroom = cp.Parameter(linear_count), cp.Parameter(linear_count)
        self._cone_real, self._cone_imag = cp.Parameter(cone_count), cp.Parameter(cone_count)
        self._cone_headroom = cp.Parameter(cone_count)
        active_x = cp.multiply(self._active, self._x)
        real, imag = rows.columns.real, rows.columns.imag
        self._linear: Any = None
        self._phasor: Any = None
        constraints = [terms.at_least(self._x, self._lower), terms.at_most(self._x, self._upper)]
        if linear_count:
            linear = part_of(rows, real, ~self._cone)
            self._linear = terms.linear_rows(linear, active_x, self._linear_base, self._linear_headroom)
            constraints.append(self._linear)
        if cone_count:
            self._phasor = terms.phasor_rows(
                part_of(rows, real, self._cone),
                part_of(rows, imag, self._cone),
                active_x,
                self._cone_real,
                self._cone_imag,
                self._cone_headroom,
            )
            constraints.append(self._phasor)
        utility = terms.proportional_fairness(self._x, self._weight)
        self._problem = cp.Problem(cp.Maximize(utility), constraints)
        if not self._problem.is_dpp():
            raise NotDpp("the allocation program has a term whose parameters do not enter affinely; rewrite that term")

    def _load(self, stage: Stage, scale: float) -> None:
        """Set every parameter; weights are divided by ``scale``."""
        cone = self._cone
        self._active.value = stage.free.astype(np.float64)
        self._weight.value = np.where(stage.free, stage.weight, 0.0) / scale
        self._lower.value = np.where(stage.free, stage.lower, 1.0)
        self._upper.value = np.where(stage.free, stage.upper, 2.0)
        self._linear_base.value, self._linear_headroom.value = stage.base_real[~cone], stage.headroom[~cone]
        self._cone_real.value, self._cone_imag.value = stage.base_real[cone], stage.base_imag[cone]
        self._cone_headroom.value = stage.headroom[cone]

    def _prices(self, scale: float) -> Floats:
        """(m,) row multipliers of the last solve."""
        price = np.zeros(self._cone.shape[0])
        if self._linear is not None:
            price[~self._cone] = self._linear.dual_value
        if self._phasor is not None:
            price[self._cone] = self._phasor.dual_value
        return np.maximum(price, 0.0) * scale

    def solve(self, stage: Stage, *, tolerance: float = 1e-10) -> Solution | None:
        """Solve one stage with Clarabel; None if the solver gives up. Tolerances are absolute and relative gap."""
        scale = float(stage.weight[stage.free].max())
        self._load(stage, scale)
        settings = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "solution may be inaccurate": the certificate decides
                self._problem.solve(solver=cp.CLARABEL, **settings)
        except cp.SolverError:
            return None
        if self._x.value is None:
            return None
        x = np.where(stage.free, self._x.value, 0.0)
        clipped = np.clip(x, np.where(stage.free, stage.lower, 0.0), np.where(stage.free, stage.upper, 0.0))
        iterations = int(self._problem.solver_stats.num_iters or 0)
        return Solution(x=clipped, price=self._prices(scale), iterations=iterations)


class LevelProgram:
    """Weighted max-min of one set of rows, level by level: maximise the common level, fix who is held, go on.

    The oracle of the kernels' tests: each level is one conic program, and who is held is read from its multipliers.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def solve(self, stage: Stage) -> Floats:
        """(n,) ceilings of the free EVSEs; the stage has no base flow.

        Raises:
            cvxpy.SolverError: the solver gave up.
        """
        cone = self._rows.is_cone
        x, level = cp.Variable(stage.free.shape[0]), cp.Variable()
        share, lower = cp.Parameter(stage.free.shape[0], nonneg=True), cp.Parameter(stage.free.shape[0])
        columns, nothing = self._rows.columns, np.zeros(cone.shape[0])
        constraints = [terms.at_least(x, lower), x <= np.where(stage.free, stage.upper, 0.0)]
        real, imag = (part_of(self._rows, part, ~cone) for part in (columns.real, columns.imag))
        constraints.append(terms.linear_rows(real, x, nothing[~cone], stage.headroom[~cone]))
        if cone.any():
            real, imag = (part_of(self._rows, part, cone) for part in (columns.real, columns.imag))
            base = nothing[cone]
            constraints.append(terms.phasor_rows(real, imag, x, base, base, stage.headroom[cone]))
        rising = terms.at_level(x, share, level)
        problem = cp.Problem(cp.Maximize(level), [*constraints, rising])
        still = stage.free.copy()
        least = np.where(stage.free, stage.lower, 0.0)
        while still.any():
            share.value, lower.value = np.where(still, stage.weight, 0.0), least
            problem.solve(solver=cp.CLARABEL)
            held = still & (np.asarray(rising.dual_value) * stage.weight > 1e-6)
            if not held.any():
                raise cp.SolverError("nobody holds the level")
            least = np.where(held, np.minimum(np.maximum(least, stage.weight * level.value), stage.upper) - 1e-9, least)
            still &= ~held
        answer: Floats = np.where(stage.free, x.value, 0.0)
        return answer
