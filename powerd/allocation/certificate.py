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

from powerd.allocation.compiled import kernel
from powerd.allocation.rows import Columns, add_flow
from powerd.allocation.stage import Solution, Stage
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
def unit_costs(columns: Columns, free: Bools, price: Floats, toward_real: Floats, toward_imag: Floats) -> Floats:
    """P (n,): what one own unit of each free EVSE costs at row prices ``price`` along the unit directions (m,)."""
    cost = np.zeros(free.shape[0])
    for i in range(free.shape[0]):
        if free[i]:
            for k in range(columns.start[i], columns.start[i + 1]):
                r = columns.row[k]
                cost[i] += price[r] * (columns.real[k] * toward_real[r] + columns.imag[k] * toward_imag[r])
    return cost


@kernel
def _best_answers(free: Bools, weight: Floats, lower: Floats, upper: Floats, cost: Floats) -> Floats:
    """argmax over lower <= z <= upper of weight log z - cost z, per free EVSE (n,)."""
    best = np.zeros(free.shape[0])
    for i in range(free.shape[0]):
        if free[i]:
            best[i] = upper[i] if cost[i] * upper[i] <= weight[i] else max(lower[i], weight[i] / cost[i])
    return best


@kernel
def _gap(free: Bools, weight: Floats, cost: Floats, x: Floats, best: Floats) -> float:
    """Sum over free EVSEs of (weight log best - cost best) - (weight log x - cost x), without cancellation."""
    total = 0.0
    for i in range(free.shape[0]):
        if free[i]:
            total += weight[i] * np.log(best[i] / x[i]) - cost[i] * (best[i] - x[i])
    return total


def judge(stage: Stage, solution: Solution, path: Path) -> Certificate:
    """The certificate of ``solution`` for ``stage``; NaN anywhere gives a certificate that does not hold."""
    columns, free = stage.rows.columns, stage.free
    x = np.where(free, solution.x, 0.0)
    price = np.maximum(solution.price, 0.0)
    real, imag = stage.base_real.copy(), stage.base_imag.copy()
    add_flow(columns, x, real, imag)
    size = np.hypot(real, imag)
    safe = np.where(size > 0.0, size, 1.0)
    toward_real = np.where(size > 0.0, real / safe, 1.0)
    toward_imag = np.where(size > 0.0, imag / safe, 0.0)
    cost = unit_costs(columns, free, price, toward_real, toward_imag)
    best = _best_answers(free, stage.weight, stage.lower, stage.upper, cost)
    slack_value = float(price @ (stage.headroom - size))
    gap = _gap(free, stage.weight, cost, x, best) + slack_value
    outside = np.maximum(stage.lower - x, x - stage.upper)[free]
    return Certificate(
        primal_residual=float(np.max(np.concatenate((size - stage.headroom, outside, [0.0])))),
        dual_residual=float(np.max(np.abs(x - best), initial=0.0)),
        gap=float(gap / np.sum(stage.weight[free])),
        iterations=solution.iterations,
        path=path,
    )
