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


#: The term of each sort of rows.
_TERMS = {"phasor": terms.phasor_rows, "imbalance": terms.imbalance_rows, "neutral": terms.neutral_rows}


def _sorted(rows: Rows) -> dict[str, Bools]:
    """(m,) which rows are linear, phasor, imbalance and neutral rows."""
    kind = np.array(rows.kind, dtype=np.str_)
    balance = np.isin(kind, ("imbalance", "neutral"))
    return {
        "linear": ~rows.is_cone & ~balance,
        "phasor": rows.is_cone & ~balance,
        "imbalance": kind == "imbalance",
        "neutral": kind == "neutral",
    }


class _Sort:
    """The rows of one sort: their term, and the parameters it reads."""

    def __init__(self, rows: Rows, chosen: Bools, sort: str, active_x: Any) -> None:
        """``chosen`` (m,) the rows; ``active_x`` (n,) the ceilings that are variables of the stage."""
        self.chosen = chosen
        self._real, self._imag, self._headroom = (cp.Parameter(int(chosen.sum())) for _ in range(3))
        real = part_of(rows, rows.columns.real, chosen)
        if sort == "linear":
            self.constraint = terms.linear_rows(real, active_x, self._real, self._headroom)
        else:
            imag = part_of(rows, rows.columns.imag, chosen)
            self.constraint = _TERMS[sort](real, imag, active_x, self._real, self._imag, self._headroom)

    def load(self, stage: Stage) -> None:
        """Set the parameters."""
        self._real.value = stage.base_real[self.chosen]
        self._imag.value = stage.base_imag[self.chosen]
        self._headroom.value = stage.headroom[self.chosen]


class Program:
    """The compiled program of one set of rows.

    Raises:
        NotDpp: at build, if a term breaks disciplined parametrised programming.
    """

    def __init__(self, rows: Rows) -> None:
        count = rows.columns.start.shape[0] - 1
        self._row_count = rows.row_count
        self._x = cp.Variable(count)
        self._active = cp.Parameter(count, nonneg=True)
        self._weight = cp.Parameter(count, nonneg=True)
        self._lower, self._upper = cp.Parameter(count), cp.Parameter(count)
        active_x = cp.multiply(self._active, self._x)
        self._sorts = [_Sort(rows, chosen, sort, active_x) for sort, chosen in _sorted(rows).items() if chosen.any()]
        constraints = [terms.at_least(self._x, self._lower), terms.at_most(self._x, self._upper)]
        constraints += [sort.constraint for sort in self._sorts]
        utility = terms.proportional_fairness(self._x, self._weight)
        self._problem = cp.Problem(cp.Maximize(utility), constraints)
        if not self._problem.is_dpp():
            raise NotDpp("the allocation program has a term whose parameters do not enter affinely; rewrite that term")

    def _load(self, stage: Stage, scale: float) -> None:
        """Set every parameter; weights are divided by ``scale``."""
        self._active.value = stage.free.astype(np.float64)
        self._weight.value = np.where(stage.free, stage.weight, 0.0) / scale
        self._lower.value = np.where(stage.free, stage.lower, 1.0)
        self._upper.value = np.where(stage.free, stage.upper, 2.0)
        for sort in self._sorts:
            sort.load(stage)

    def _prices(self, scale: float) -> Floats:
        """(m,) row multipliers of the last solve."""
        price = np.zeros(self._row_count)
        for sort in self._sorts:
            price[sort.chosen] = sort.constraint.dual_value
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
