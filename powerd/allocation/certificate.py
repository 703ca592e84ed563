"""Proof of optimality, computed from an answer (x, price) alone and not from a solver's own residuals.

For prices p >= 0 let P_i = sum_r p_r (a_ri . e_r) be what one unit of EVSE i costs, where e_r is the unit vector of row
r's flow (1 for a linear row). For any such p the dual function

    D(p) = sum_i max over lower_i <= z <= upper_i of (weight_i log z - P_i z) + sum_r p_r (headroom_r - base_r . e_r)

bounds the optimum from above (weak duality; Boyd & Vandenberghe 2004, section 5.1), whatever p is. So the gap
D(p) - U(x) bounds how much utility x misses, provided x is feasible; no step of the solver needs to be believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from powerd.allocation.rows import Columns, add_flow
from powerd.allocation.stage import Solution, Stage
from powerd.compiled import kernel
from powerd.limits import Bools, Floats
from powerd.units import ROW_TOLERANCE

Path = Literal["kernel", "conic", "guard"]

#: Largest relative duality gap of an answer: utility missed, per unit of total weight.
GAP_TOLERANCE = 1e-8


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """How good an answer is; the worst over its stages."""

    primal_residual: float
    """Largest overshoot of a row or bound [limit unit or own unit]."""
    dual_residual: float
    """Largest distance of a ceiling from the best answer to the prices, clip(weight / P, lower, upper) [own unit]."""
    gap: float
    """(D(p) - U(x)) / sum of weights; proves how much utility is missed at most."""
    iterations: int
    """Solver iterations, summed over stages."""
    path: Path
    """The weakest path that any stage took."""

    @property
    def holds(self) -> bool:
        """Whether the numbers prove an optimum (NaN proves nothing)."""
        return self.primal_residual <= ROW_TOLERANCE and abs(self.gap) <= GAP_TOLERANCE


#: The certificate of a tick in which there was nothing to decide.
NOTHING_TO_DECIDE = Certificate(primal_residual=0.0, dual_residual=0.0, gap=0.0, iterations=0, path="kernel")

_RANK: dict[Path, int] = {"kernel": 0, "conic": 1, "guard": 2}


def worst_of(first: Certificate, second: Certificate) -> Certificate:
    """The certificate of two stages together."""
    return Certificate(
        primal_residual=max(first.primal_residual, second.primal_residual),
        dual_residual=max(first.dual_residual, second.dual_residual),
        gap=max(first.gap, second.gap),
        iterations=first.iterations + second.iterations,
        path=max(first.path, second.path, key=_RANK.__getitem__),
    )


@kernel
def unit_costs(columns: Columns, free: Bools, price: Floats, real: Floats, imag: Floats) -> Floats:
    """P (n,): what one own unit of each free EVSE costs at row prices (m,) where the row flows are (real, imag)."""
    size = np.hypot(real, imag)
    cost = np.zeros(free.shape[0])
    for i in range(free.shape[0]):
        if not free[i]:
            continue
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            if size[r] > 0.0:
                along = (columns.real[k] * real[r] + columns.imag[k] * imag[r]) / size[r]
            else:
                along = columns.real[k]
            cost[i] += price[r] * along
    return cost


@kernel
def _numbers(
    columns: Columns,
    free: Bools,
    weight: Floats,
    lower: Floats,
    upper: Floats,
    headroom: Floats,
    real: Floats,
    imag: Floats,
    x: Floats,
    price: Floats,
) -> tuple[float, float, float]:
    """Primal residual, dual residual and relative gap; ``real`` and ``imag`` hold the base and are added to.

    The gap sums, over EVSEs, (w log best - P best) - (w log x - P x) as one logarithm of a ratio, without cancellation;
    a NaN anywhere in x or price ends up in it.
    """
    add_flow(columns, np.where(free, x, 0.0), real, imag)
    cost = unit_costs(columns, free, price, real, imag)
    primal = 0.0
    gap = 0.0
    for r in range(headroom.shape[0]):
        over = np.hypot(real[r], imag[r]) - headroom[r]
        primal = max(primal, over)
        gap -= price[r] * over
    dual = 0.0
    total = 0.0
    for i in range(free.shape[0]):
        if not free[i]:
            continue
        outside = max(lower[i] - x[i], x[i] - upper[i])
        primal = max(primal, outside)
        best = upper[i] if cost[i] * upper[i] <= weight[i] else max(lower[i], weight[i] / cost[i])
        dual = max(dual, abs(x[i] - best))
        gap += weight[i] * np.log(best / x[i]) - cost[i] * (best - x[i])
        total += weight[i]
    return primal, dual, gap / total


def judge(stage: Stage, solution: Solution, path: Path) -> Certificate:
    """The certificate of ``solution`` for ``stage``; NaN anywhere gives a certificate that does not hold."""
    primal, dual, gap = _numbers(
        stage.rows.columns,
        stage.free,
        stage.weight,
        stage.lower,
        stage.upper,
        stage.headroom,
        stage.base_real.copy(),
        stage.base_imag.copy(),
        solution.x,
        np.maximum(solution.price, 0.0),
    )
    return Certificate(primal_residual=primal, dual_residual=dual, gap=gap, iterations=solution.iterations, path=path)
