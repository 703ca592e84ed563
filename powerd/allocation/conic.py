"""The path for limits that are not a tree: sequential quadratic programs, each solved by Clarabel.

Around a point x_k with lower <= x_k <= upper the utility is, to second order,

    U(x) ~ U(x_k) + sum_i weight_i ((x_i - x_ki) / x_ki - (x_i - x_ki)^2 / (2 x_ki^2)),

so each round solves a quadratic program over the stage's own rows and bounds (linear and second-order cones) and goes
from x_k towards its answer as far as U grows. -log is self-concordant, hence the damped rounds converge and the last
ones quadratically (Nesterov & Nemirovskii 1994; Boyd & Vandenberghe 2004, section 9.6). We do not hand the logarithms
to the solver as exponential cones: those stop at a gap near 1e-8, quadratic rounds reach 1e-12. The layout of the
constraints is kept between ticks; between rounds only the objective changes, in place. (Between ticks the solver itself
is not kept: it scales its data by those it was set up with, and the answer must not depend on the past.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np
import scipy.sparse as sp

from powerd.allocation.rows import Rows
from powerd.allocation.shrink import shrink
from powerd.allocation.stage import Solution, Stage
from powerd.limits import Bools, Floats, Ints

#: Rounds after which the certificate has to decide; a cold start takes about 8, a warm one 2.
MOST_ROUNDS = 40

#: A full round that moves no ceiling by more than this share of it ends the search: the error is then its square.
STILL = 1e-6

#: Below this change full steps are taken unseen: Newton's method converges there, and slopes drown in rounding.
NEAR = 1e-2

#: No round takes a ceiling below this share of itself: the model knows nothing of the logarithm's pole at 0.
FARTHEST_DOWN = 0.01

#: What is asked of the quadratic solver. Asking for 1e-12 made it stall at 1e-7 on thin cones, 1 stage in 200.
QUADRATIC_TOLERANCE = 1e-10


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shape:
    """Constraint matrix of one set of free EVSEs; k of them. Rows: linear, upper, lower, then three per cone."""

    free: Ints
    """(k,) EVSE indices."""
    linear: Ints
    """Linear rows that load a free EVSE."""
    cones: Ints
    """Cone rows that load a free EVSE."""
    matrix: sp.csc_matrix
    """(linear + 2 k + 3 cones, k)."""
    kinds: list[Any]
    """Clarabel's cones, in the order of the rows."""


def _entries_of(rows: Rows, chosen: Ints) -> tuple[Ints, Ints, Ints]:
    """Of the coefficients of the chosen EVSEs: where they are, which row they belong to, and which of the chosen."""
    start, last = rows.columns.start[chosen], rows.columns.start[chosen + 1]
    lengths = last - start
    column = np.repeat(np.arange(len(chosen)), lengths)
    within = np.arange(len(column)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    where = np.repeat(start, lengths) + within
    return where, rows.columns.row[where], column


def _shape(rows: Rows, free: Bools) -> _Shape:
    """Lay out the constraints of the free EVSEs (by hand: scipy's own stacking cost more than the solve)."""
    chosen = np.flatnonzero(free)
    where, row, column = _entries_of(rows, chosen)
    used = np.zeros(rows.row_count, dtype=np.bool_)
    used[row] = True
    linear, cones = np.flatnonzero(used & ~rows.is_cone), np.flatnonzero(used & rows.is_cone)
    k, flat = len(chosen), len(linear)
    place = np.zeros(rows.row_count, dtype=np.int64)
    place[linear] = np.arange(flat)
    place[cones] = flat + 2 * k + 3 * np.arange(len(cones))
    cone = rows.is_cone[row]
    every = np.arange(k)
    at = np.concatenate((place[row[~cone]], flat + every, flat + k + every, place[row[cone]] + 1, place[row[cone]] + 2))
    of = np.concatenate((column[~cone], every, every, column[cone], column[cone]))
    real, imag = rows.columns.real[where], rows.columns.imag[where]
    value = np.concatenate((real[~cone], np.ones(k), -np.ones(k), -real[cone], -imag[cone]))
    order = np.lexsort((at, of))
    ends = np.concatenate(([0], np.cumsum(np.bincount(of, minlength=k))))
    matrix = sp.csc_matrix((value[order], at[order], ends), shape=(flat + 2 * k + 3 * len(cones), k))
    kinds = [clarabel.NonnegativeConeT(flat + 2 * k), *(clarabel.SecondOrderConeT(3) for _ in cones)]
    return _Shape(free=chosen, linear=linear, cones=cones, matrix=matrix, kinds=kinds)


def _right_hand_side(shape: _Shape, stage: Stage) -> Floats:
    """b in A x + s = b, s in the cones."""
    cone = np.column_stack((stage.headroom, stage.base_real, stage.base_imag))[shape.cones]
    room = (stage.headroom - stage.base_real)[shape.linear]
    return np.concatenate((room, stage.upper[shape.free], -stage.lower[shape.free], cone.ravel()))


def _settings(*, equilibrate: bool) -> Any:
    """Quiet, tight, and without presolve, which would forbid writing new data into the solver."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.presolve_enable = False
    settings.chordal_decomposition_enable = False
    settings.max_threads = 1
    settings.equilibrate_enable = equilibrate
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = QUADRATIC_TOLERANCE
    return settings


def _farthest(weight: Floats, x: Floats, direction: Floats) -> float:
    """Largest t in (0, 1] at which the utility still grows along ``direction``, by bisection on its slope."""

    def slope(t: float) -> float:
        return float(np.sum(weight * direction / (x + t * direction)))

    if slope(1.0) >= 0.0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) > 0.0 else (low, middle)
    return high


class Conic:
    """Keeps the layout that was made last."""

    def __init__(self) -> None:
        self._kept: tuple[Rows, Bools, _Shape] | None = None

    def _shape_of(self, stage: Stage) -> _Shape:
        """The layout of a stage's constraints."""
        if self._kept is None or self._kept[0] is not stage.rows or not np.array_equal(self._kept[1], stage.free):
            self._kept = (stage.rows, stage.free.copy(), _shape(stage.rows, stage.free))
        return self._kept[2]

    def solve(self, stage: Stage, *, equilibrate: bool = True) -> Solution | None:
        """Solve one stage, with or without the solver's own scaling; None if it gives no finite answer."""
        shape = self._shape_of(stage)
        weight = stage.weight[shape.free] / stage.weight[shape.free].max()
        lower, upper = stage.lower[shape.free], stage.upper[shape.free]
        x = np.maximum(shrink(stage).x[shape.free], np.maximum(lower, 1e-3 * upper))
        target = _right_hand_side(shape, stage)
        solver: Any = None
        rounds = 0
        while rounds < MOST_ROUNDS:
            rounds += 1
            curvature = weight / (x * x)
            linear = -2.0 * weight / x
            if solver is None:
                settings = _settings(equilibrate=equilibrate)
                every = np.arange(len(curvature) + 1)
                quadratic = sp.csc_matrix((curvature, every[:-1], every))
                solver = clarabel.DefaultSolver(quadratic, linear, shape.matrix, target, shape.kinds, settings)
            else:
                solver.update(P=curvature, q=linear, b=target)
            answer = solver.solve()
            if not np.all(np.isfinite(answer.x)):
                return None
            proposal = np.clip(np.asarray(answer.x), np.maximum(lower, FARTHEST_DOWN * x), upper)
            direction = proposal - x
            change = float(np.max(np.abs(direction) / x))
            x = proposal if change <= NEAR else x + _farthest(weight, x, direction) * direction
            if change <= STILL:
                break
        return self._solution(stage, shape, x, np.asarray(answer.z), rounds)

    @staticmethod
    def _solution(stage: Stage, shape: _Shape, x: Floats, dual: Floats, rounds: int) -> Solution:
        """Spread the answer over all EVSEs and rows."""
        scale = stage.weight[shape.free].max()
        whole = np.zeros(stage.free.shape[0])
        whole[shape.free] = x
        price = np.zeros(stage.rows.row_count)
        price[shape.linear] = dual[: len(shape.linear)] * scale
        price[shape.cones] = dual[len(shape.linear) + 2 * len(shape.free) :: 3] * scale
        return Solution(x=whole, price=np.maximum(price, 0.0), iterations=rounds)
