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

from powerd.allocation.rows import Columns, size_of
from powerd.allocation.stage import Solution, Stage
from powerd.compiled import kernel
from powerd.limits import Floats, Ints
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
        return proves(self.primal_residual, self.gap)


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
def _count_linear(columns: Columns, members: Ints, x: Floats, price: Floats, real: Floats, cost: Floats) -> None:
    """Add the flows of ``x`` and write P where all rows are linear: there e_r = 1, which any flow bounds from above."""
    start, row, value = columns.start, columns.row, columns.real
    for position in range(members.shape[0]):
        i = members[position]
        sum_of_prices = 0.0
        for k in range(start[i], start[i + 1]):
            sum_of_prices += price[row[k]] * value[k]
            real[row[k]] += value[k] * x[i]
        cost[position] = sum_of_prices


@kernel
def _count_phasors(
    columns: Columns, members: Ints, x: Floats, price: Floats, real: Floats, imag: Floats, cost: Floats
) -> None:
    """The same for rows of any kind: e_r is known once all flows are."""
    for position in range(members.shape[0]):
        i = members[position]
        for k in range(columns.start[i], columns.start[i + 1]):
            real[columns.row[k]] += columns.real[k] * x[i]
            imag[columns.row[k]] += columns.imag[k] * x[i]
    along, across = price.copy(), np.zeros_like(price)
    for r in range(price.shape[0]):
        size = size_of(real[r], imag[r])
        if size > 0.0:
            along[r] = price[r] * real[r] / size
            across[r] = price[r] * imag[r] / size
    for position in range(members.shape[0]):
        i = members[position]
        cost[position] = 0.0
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            cost[position] += columns.real[k] * along[r] + columns.imag[k] * across[r]


@kernel
def _missed(weight: float, cost: float, best: float, x: float) -> float:
    """(w log best - P best) - (w log x - P x), as one logarithm of a ratio, without cancellation."""
    more = (best - x) / x
    logarithm = more * (1.0 - more * (0.5 - more / 3.0)) if abs(more) < 1e-5 else np.log(best / x)
    return weight * logarithm - cost * (best - x)


@kernel
def figures_of(
    columns: Columns,
    members: Ints,
    weight: Floats,
    lower: Floats,
    upper: Floats,
    headroom: Floats,
    real: Floats,
    imag: Floats,
    x: Floats,
    price: Floats,
) -> tuple[float, float, float]:
    """Primal residual, dual residual and relative gap of an answer for the EVSEs of ``members``.

    ``real`` and ``imag`` (m,) hold the base flows; those of x are added. A NaN anywhere in x or price ends up in the
    gap.
    """
    cost = np.empty(members.shape[0])
    if columns.is_linear:
        _count_linear(columns, members, x, price, real, cost)
    else:
        _count_phasors(columns, members, x, price, real, imag, cost)
    primal = 0.0
    gap = 0.0
    for r in range(headroom.shape[0]):
        over = size_of(real[r], imag[r]) - headroom[r]
        primal = max(primal, over)
        gap -= price[r] * over
    dual = 0.0
    total = 0.0
    for position in range(members.shape[0]):
        i = members[position]
        own = cost[position]
        primal = max(primal, lower[i] - x[i], x[i] - upper[i])
        best = upper[i] if own * upper[i] <= weight[i] else max(lower[i], weight[i] / own)
        dual = max(dual, abs(x[i] - best))
        gap += _missed(weight[i], own, best, x[i])
        total += weight[i]
    return primal, dual, gap / total


@kernel
def proves(primal: float, gap: float) -> bool:
    """Whether the figures prove an optimum (NaN proves nothing)."""
    return bool(primal <= ROW_TOLERANCE and abs(gap) <= GAP_TOLERANCE)


def judge(stage: Stage, solution: Solution, path: Path) -> Certificate:
    """The certificate of ``solution`` for ``stage``; NaN anywhere gives a certificate that does not hold."""
    primal, dual, gap = figures_of(
        stage.rows.columns,
        np.flatnonzero(stage.free),
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
