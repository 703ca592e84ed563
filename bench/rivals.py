"""The same stage solved by general solvers: weighted proportional fairness under linear rows and bounds.

Conic solvers get the logarithms as exponential cones. Quadratic solvers get the sequence of quadratic models of
``powerd/allocation/conic.py`` until no ceiling moves by more than 1e-6 of itself, started where the last tick ended;
their workspace is set up once and its data written in place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import clarabel
import cvxpy as cp
import numpy as np
import osqp  # type: ignore[import-untyped]
import piqp  # type: ignore[import-untyped]
import scipy.sparse as sp

from powerd.allocation.problem import Program
from powerd.allocation.stage import Solution, Stage
from powerd.limits import Floats

#: A full round that moves no ceiling by more than this share ends a sequence of quadratic programs.
STILL = 1e-6

#: Rounds of a sequence at most.
MOST_ROUNDS = 30

Engine = Callable[[Stage], Solution | None]


def _rows(stage: Stage) -> tuple[sp.csc_array, Floats]:
    """The rows of the free EVSEs and their room."""
    columns = stage.rows.columns
    size = (stage.rows.row_count, stage.free.shape[0])
    whole = sp.csc_array((columns.real, columns.row, columns.start), shape=size)
    return sp.csc_array(whole[:, np.flatnonzero(stage.free)]), stage.headroom - stage.base_real


def _spread(stage: Stage, x: Floats, price: Floats, rounds: int) -> Solution:
    """An answer over all EVSEs."""
    whole = np.zeros(stage.free.shape[0])
    whole[stage.free] = x
    return Solution(x=whole, price=np.maximum(price, 0.0), iterations=rounds)


def cvxpy_rebuilt(stage: Stage) -> Solution | None:
    """A cvxpy problem written down anew each time, solved with Clarabel at its default tolerances; None = it failed."""
    matrix, room = _rows(stage)
    x = cp.Variable(matrix.shape[1])
    limits = matrix @ x <= room
    bounds = [x <= stage.upper[stage.free], x >= stage.lower[stage.free]]
    utility = cp.sum(cp.multiply(stage.weight[stage.free], cp.log(x)))
    problem = cp.Problem(cp.Maximize(utility), [limits, *bounds])
    try:
        problem.solve(solver=cp.CLARABEL, max_threads=1)
    except cp.error.SolverError:
        return None
    return None if x.value is None else _spread(stage, x.value, limits.dual_value, 1)


class CvxpyDpp:
    """powerd's own statement, compiled once; only parameters change."""

    def __init__(self) -> None:
        self._program: Program | None = None

    def __call__(self, stage: Stage) -> Solution | None:
        """Solve at Clarabel's default tolerance."""
        if self._program is None:
            self._program = Program(stage.rows)
        return self._program.solve(stage, tolerance=1e-8)


class ClarabelDirect:
    """Exponential cones written straight into Clarabel: (log argument) t_i <= log x_i as (t_i, 1, x_i)."""

    def __init__(self, tolerance: float = 1e-8) -> None:
        """``tolerance`` of gap and feasibility; 1e-8 is Clarabel's default."""
        self._solver: Any = None
        self._tolerance = tolerance

    def __call__(self, stage: Stage) -> Solution | None:
        """Set up once, then write new data; None where it is not solved to the tolerance."""
        matrix, room = _rows(stage)
        m, k = matrix.shape
        weight = stage.weight[stage.free]
        cost = np.concatenate((np.zeros(k), -weight))
        none = np.zeros(k)
        right = np.concatenate(
            (room, stage.upper[stage.free], -stage.lower[stage.free], np.column_stack((none, none + 1.0, none)).ravel())
        )
        if self._solver is None:
            at = 3 * np.arange(k)
            cone = sp.csc_array(
                (-np.ones(2 * k), (np.concatenate((at, at + 2)), np.concatenate((k + np.arange(k), np.arange(k))))),
                shape=(3 * k, 2 * k),
            )
            zeros = sp.csc_array((m, k))
            eye, empty = sp.eye_array(k), sp.csc_array((k, k))
            constraints = sp.csc_array(
                sp.vstack([sp.hstack([matrix, zeros]), sp.hstack([eye, empty]), sp.hstack([-eye, empty]), cone])
            )
            kinds = [clarabel.NonnegativeConeT(m + 2 * k), *(clarabel.ExponentialConeT() for _ in range(k))]
            settings = clarabel.DefaultSettings()
            settings.verbose, settings.presolve_enable, settings.max_threads = False, False, 1
            settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = self._tolerance
            self._solver = clarabel.DefaultSolver(
                sp.csc_array((2 * k, 2 * k)), cost, constraints, right, kinds, settings
            )
        else:
            self._solver.update(q=cost, b=right)
        answer = self._solver.solve()
        if answer.status != clarabel.SolverStatus.Solved:
            return None
        return _spread(stage, np.asarray(answer.x)[:k], np.asarray(answer.z)[:m], answer.iterations)


class _Sequence(ABC):
    """A sequence of quadratic programs; subclasses solve one."""

    def __init__(self) -> None:
        self._x: Floats | None = None

    def __call__(self, stage: Stage) -> Solution | None:
        """Rounds until nothing moves."""
        matrix, room = _rows(stage)
        weight, upper, lower = stage.weight[stage.free], stage.upper[stage.free], stage.lower[stage.free]
        x = 0.3 * upper if self._x is None or len(self._x) != len(upper) else np.minimum(self._x, upper)
        price = np.zeros(len(room))
        rounds = 0
        while rounds < MOST_ROUNDS:
            rounds += 1
            answer, price = self.quadratic(weight / (x * x), -2.0 * weight / x, matrix, room, lower, upper)
            answer = np.clip(answer, np.maximum(lower, 0.1 * x), upper)
            change = float(np.max(np.abs(answer - x) / x))
            x = answer
            if change <= STILL:
                break
        self._x = x
        return _spread(stage, x, price, rounds)

    @abstractmethod
    def quadratic(
        self, curvature: Floats, linear: Floats, matrix: sp.csc_array, room: Floats, lower: Floats, upper: Floats
    ) -> tuple[Floats, Floats]:
        """The answer and the row prices of min 1/2 x' diag(curvature) x + linear' x under rows and bounds."""


class Piqp(_Sequence):
    """PIQP, sparse interface."""

    def __init__(self) -> None:
        super().__init__()
        self._solver: Any = None

    def quadratic(
        self, curvature: Floats, linear: Floats, matrix: sp.csc_array, room: Floats, lower: Floats, upper: Floats
    ) -> tuple[Floats, Floats]:
        """Set up once, then update."""
        quadratic = sp.csc_matrix(sp.diags_array(curvature))
        if self._solver is None:
            self._solver = piqp.SparseSolver()
            self._solver.settings.eps_abs = self._solver.settings.eps_rel = 1e-9
            below = np.full(len(room), -np.inf)
            self._solver.setup(quadratic, linear, None, None, sp.csc_matrix(matrix), below, room, lower, upper)
        else:
            self._solver.update(P=quadratic, c=linear, h_u=room, x_l=lower, x_u=upper)
        self._solver.solve()
        return np.asarray(self._solver.result.x), np.asarray(self._solver.result.z_u)


class Osqp(_Sequence):
    """OSQP at 1e-6, warm-started."""

    def __init__(self) -> None:
        super().__init__()
        self._solver: Any = None

    def quadratic(
        self, curvature: Floats, linear: Floats, matrix: sp.csc_array, room: Floats, lower: Floats, upper: Floats
    ) -> tuple[Floats, Floats]:
        """Set up once, then update."""
        high = np.concatenate((room, upper))
        low = np.concatenate((np.full(len(room), -np.inf), lower))
        if self._solver is None:
            self._solver = osqp.OSQP()
            stacked = sp.csc_matrix(sp.vstack([matrix, sp.eye_array(len(upper))]))
            quadratic = sp.csc_matrix(sp.diags_array(curvature))
            settings = {"eps_abs": 1e-6, "eps_rel": 1e-6, "max_iter": 4000, "verbose": False}
            self._solver.setup(quadratic, linear, stacked, low, high, **settings)
        else:
            self._solver.update(Px=curvature, q=linear, l=low, u=high)
        answer = self._solver.solve()
        return np.asarray(answer.x), np.asarray(answer.y)[: len(room)]
