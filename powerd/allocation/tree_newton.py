"""Semismooth Newton on the dual of a stage, warm-started from the last tick's prices.

The dual of the stage (``docs/allocation.md``) is min over prices p >= 0 of the convex, once differentiable

    phi(p) = sum_i max over lower_i <= y <= upper_i of (w_i log y - P_i y) + sum_r p_r room_r,  d phi / d p_r = slack_r,

where P_i sums the prices on i's path. Each EVSE answers to its price alone: y_i = clip(w_i / P_i, lower_i, upper_i).
The optimum is where min(kappa p, slack) = 0 on every row; the generalised Newton step for that equation (primal-dual
active set, Hintermueller, Ito & Kunisch 2002) needs one solve of the tree's Newton system and is exact once the active
rows and the clipped EVSEs are known, which after a warm start they nearly are.
"""

from __future__ import annotations

import numpy as np

from powerd.allocation.forest import Forest, sum_below
from powerd.allocation.tree_recursion import factorise, solve_factorised
from powerd.compiled import kernel
from powerd.limits import Bools, Floats

#: Natural residual (share of a row's room) at which the prices count as exact.
EXACT = 1e-12

#: Residual that is good enough where rounding allows no better; the certificate still has the last word.
GOOD_ENOUGH = 1e-9

#: Newton steps before sweeps take over; five are usual, and a sweep costs less than many that stray.
MOST_STEPS = 25

#: Halvings of one step.
MOST_HALVINGS = 14

#: Steps without real progress before the cold path takes over.
MOST_STALLS = 4


@kernel
def respond(forest: Forest, price: Floats, y: Floats, flow: Floats, curvature: Floats) -> Floats:
    """What every EVSE takes at these prices.

    Args:
        forest: the stage.
        price: (N, 3) row prices.
        y: (k,) written: clip(w / P, lower, upper) [reference A].
        flow: (N, 8) written: sum of y by group.
        curvature: (N, 8) written: sum of -dy/dP by group; 0 for clipped EVSEs.

    Returns:
        (N, 3) slack of each row: room - flow [reference A]; infinite where unlimited.
    """
    nodes = forest.parent.shape[0]
    path = np.empty((nodes, 3))
    cost = np.empty(8 * nodes)
    for v in range(nodes):
        up = forest.parent[v]
        for k in range(3):
            path[v, k] = price[v, k] + (path[up, k] if up >= 0 else 0.0)
        for bits in range(8):
            cost[8 * v + bits] = (
                (path[v, 0] if bits & 1 else 0.0)
                + (path[v, 1] if bits & 2 else 0.0)
                + (path[v, 2] if bits & 4 else 0.0)
            )
            flow[v, bits] = 0.0
            curvature[v, bits] = 0.0
    flat_flow = flow.reshape(-1)
    flat_curvature = curvature.reshape(-1)
    for j in range(y.shape[0]):
        g = forest.group[j]
        w = forest.weight[j]
        c = cost[g] if g >= 0 else 0.0
        if c * forest.upper[j] <= w:
            y[j] = forest.upper[j]
        elif c * forest.lower[j] >= w:
            y[j] = forest.lower[j]
        else:
            y[j] = w / c
            flat_curvature[g] += y[j] / c
        if g >= 0:
            flat_flow[g] += y[j]
    return forest.room - sum_below(forest.parent, flow)


@kernel
def natural_curvature(forest: Forest) -> Floats:
    """kappa (N, 3): room^2 / weight below, the curvature of a row as if it alone bound; 0 where unlimited or empty."""
    weights = np.zeros((forest.parent.shape[0], 8))
    flat = weights.reshape(-1)
    for j in range(forest.group.shape[0]):
        if forest.group[j] >= 0:
            flat[forest.group[j]] += forest.weight[j]
    below = sum_below(forest.parent, weights)
    for v in range(below.shape[0]):
        for k in range(3):
            limited = below[v, k] > 0.0 and forest.room[v, k] < np.inf
            below[v, k] = forest.room[v, k] ** 2 / below[v, k] if limited else 0.0
    return below


@kernel
def _residual(forest: Forest, kappa: Floats, price: Floats, slack: Floats) -> float:
    """Largest |min(kappa p, slack)| / room over all limited rows."""
    largest = 0.0
    for v in range(price.shape[0]):
        for k in range(3):
            if kappa[v, k] > 0.0:
                share = abs(min(kappa[v, k] * price[v, k], slack[v, k])) / forest.room[v, k]
                if not share <= largest:  # so written, NaN comes out as infinite
                    largest = share if share >= 0.0 else np.inf
    return largest


@kernel
def _set_up_step(
    kappa: Floats,
    price: Floats,
    slack: Floats,
    damp: float,
    active: Bools,
    damping: Floats,
    wanted: Floats,
    fixed: Floats,
) -> None:
    """Active rows are to be filled (df = slack), the price of the others goes to 0; written into the last four."""
    for v in range(price.shape[0]):
        for k in range(3):
            on = kappa[v, k] > 0.0 and kappa[v, k] * price[v, k] > slack[v, k]
            active[v, k] = on
            damping[v, k] = damp * kappa[v, k]
            wanted[v, k] = slack[v, k] if on else 0.0
            fixed[v, k] = 0.0 if on else -price[v, k]


@kernel
def _slope(before: Floats, after: Floats, slack: Floats) -> float:
    """Directional derivative of phi along ``after - before`` where the slack is ``slack``."""
    total = 0.0
    for v in range(before.shape[0]):
        for k in range(3):
            if after[v, k] != before[v, k]:
                total += slack[v, k] * (after[v, k] - before[v, k])
    return total


@kernel
def newton(forest: Forest, price: Floats, y: Floats) -> int:  # one state machine over shared work arrays
    """Run to the optimum from ``price``.

    Args:
        forest: the stage.
        price: (N, 3) where to start, >= 0; the optimal prices on return.
        y: (k,) the answer, written [reference A].

    Returns:
        Newton steps taken; -1 if it gave up.
    """
    nodes = forest.parent.shape[0]
    flow = np.empty((nodes, 8))
    curvature = np.empty((nodes, 8))
    block = np.empty((nodes, 6))
    inverse = np.empty((nodes, 6))
    active = np.empty((nodes, 3), dtype=np.bool_)
    damping = np.empty((nodes, 3))
    wanted = np.empty((nodes, 3))
    fixed = np.empty((nodes, 3))
    delta = np.empty((nodes, 3))
    total = np.empty((nodes, 3))
    trial = np.empty((nodes, 3))
    kappa = natural_curvature(forest)
    slack = respond(forest, price, y, flow, curvature)
    residual = _residual(forest, kappa, price, slack)
    stalls = 0
    for step in range(MOST_STEPS):
        if residual <= EXACT:
            return step
        _set_up_step(kappa, price, slack, max(1e-14, 1e-3 * min(1.0, residual)), active, damping, wanted, fixed)
        factorise(forest.parent, curvature, active, damping, block, inverse)
        offset = np.zeros((nodes, 3))
        solve_factorised(forest.parent, active, damping, block, inverse, offset, wanted, fixed, delta, total)
        share = 1.0
        halvings = 0
        while True:
            for v in range(nodes):
                for k in range(3):
                    trial[v, k] = max(price[v, k] + share * delta[v, k], 0.0)
            downhill = _slope(price, trial, slack)
            trial_slack = respond(forest, trial, y, flow, curvature)
            trial_residual = _residual(forest, kappa, trial, trial_slack)
            if trial_residual < 0.5 * residual or (
                trial_residual < np.inf and _slope(price, trial, trial_slack) <= -0.5 * downhill
            ):
                break
            halvings += 1
            if halvings == MOST_HALVINGS:
                break
            share *= 0.5
        if residual <= GOOD_ENOUGH and trial_residual >= residual:
            respond(forest, price, y, flow, curvature)
            return step
        if halvings == MOST_HALVINGS or not trial_residual < np.inf:
            stalls += 1
            if stalls == MOST_STALLS:
                return -1
        price[:] = trial
        slack = trial_slack
        residual = trial_residual
    return -1
