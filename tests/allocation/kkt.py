"""Optimality conditions in plain numpy, written without the package's kernels: the judge of every solver here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.allocation.stage import Solution
from powerd.allocation.tree_kernel import solve_tree
from powerd.limits import Floats, Limits
from tests.allocation.ticks import Case


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far an answer is from the Karush-Kuhn-Tucker conditions of max sum w log x, A x <= c, l <= x <= u."""

    primal: float
    """Largest overshoot of a row or bound [A]."""
    dual: float
    """Largest |w / x - A'p - bound multipliers| x / w: 0 where the gradient is explained by prices and bounds."""
    complementarity: float
    """Sum of price x slack, relative to the sum of weights."""
    gap: float
    """|dual value - utility| relative to the sum of weights, bounds included."""

    def optimal(self) -> bool:
        """Within the tolerances that issue 3 of the project asks for."""
        return self.primal <= 1e-6 and self.dual <= 1e-6 and self.complementarity <= 1e-8 and self.gap <= 1e-8


def verdict(
    limits: Limits, headroom: Floats, weight: Floats, lower: Floats, upper: Floats, x: Floats, price: Floats
) -> Verdict:
    """Judge (x, price) on linear rows; all EVSEs given are free."""
    matrix = limits.real
    flow = matrix @ x
    primal = max(float(np.max(flow - headroom)), float(np.max(lower - x)), float(np.max(x - upper)), 0.0)
    if np.any(price < 0.0) or np.any(x <= 0.0) or not np.all(np.isfinite(price)):
        return Verdict(primal=primal, dual=np.inf, complementarity=np.inf, gap=np.inf)
    cost = matrix.T @ price
    pull = weight - cost * x  # x times the gradient of the Lagrangian without bounds
    at_upper, at_lower = x >= upper * (1.0 - 1e-12), x <= lower * (1.0 + 1e-12) + 1e-300
    unexplained = np.where(at_upper, np.minimum(pull, 0.0), np.where(at_lower, np.maximum(pull, 0.0), pull))
    scale = np.maximum(weight, cost * x)
    slack_value = price @ (headroom - flow)
    with np.errstate(divide="ignore"):
        best = np.clip(np.where(cost > 0.0, weight / np.where(cost > 0.0, cost, 1.0), np.inf), lower, upper)
    inner = weight * np.log(best / x) - cost * (best - x)
    total = float(np.sum(weight))
    return Verdict(
        primal=primal,
        dual=float(np.max(np.abs(unexplained) / scale)),
        complementarity=float(abs(slack_value)) / total,
        gap=float(abs(np.sum(inner) + slack_value)) / total,
    )


def kernel(case: Case, start: Floats) -> Solution | None:
    """The kernel's answer to a tick."""
    assert case.limits.tree is not None
    solved = solve_tree(case.limits.tree, case.stage, start)
    return None if solved is None else solved[0]


def judged(case: Case, solution: Solution) -> Verdict:
    """The verdict on the free EVSEs of a tick."""
    return verdict(*case.reduced(), solution.x[case.stage.free], solution.price)
