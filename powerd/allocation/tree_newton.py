"""One damped semismooth Newton step on the dual of a stage, over one tree of its forest.

The dual of the stage (``docs/allocation.md``) is min over prices p >= 0 of the convex, once differentiable

    phi(p) = sum_i max over lower_i <= y <= upper_i of (w_i log y - P_i y) + sum_r p_r room_r,  d phi / d p_r = slack_r,

where P_i sums the prices on i's path. Each EVSE answers to its price alone: y_i = clip(w_i / P_i, lower_i, upper_i).
The optimum is where min(kappa p, slack) = 0 on every row; the generalised Newton step for that equation (primal-dual
active set, Hintermueller, Ito & Kunisch 2002) needs one solve of the tree's Newton system and is exact once the active
rows and the clipped EVSEs are known, which after a warm start they nearly are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from powerd.allocation.forest import Grown, Records
from powerd.allocation.tree_recursion import solve_system
from powerd.compiled import kernel

#: Halvings of one step; where that many do not help, a sweep (``tree_sweep``) does.
MOST_HALVINGS = 12

#: Least damping, as a share of a row's kappa: pivots stay away from 0.
LEAST_DAMPING = 1e-14

#: Residual (share of a row's room) above which rows ask for their slack alone: ``ask`` looks too far ahead there.
NEAR = 0.1


@kernel
def _descend(nodes: Records) -> None:
    """Write the path prices of every node, and take its sums back to nothing."""
    for v in range(nodes.shape[0]):
        node = nodes[v]
        price, path = node["price"], node["path"]
        slack, loose, block, offset = node["slack"], node["loose"], node["block"], node["offset"]
        filled, filled_slack = node["filled"], node["filled_slack"]
        for k in range(3):
            path[k] = price[k]
            slack[k] = 0.0
            loose[k] = 0.0
            offset[k] = 0.0
            filled[k] = 0.0
            filled_slack[k] = 0.0
        if v > 0:
            above = nodes[node["parent"]]["path"]
            for k in range(3):
                path[k] += above[k]
        for k in range(6):
            block[k] = 0.0


@kernel
def cost_of(path: Any, bits: int) -> float:
    """What the phases of a run cost together, at the path prices of its node."""
    return float((path[0] if bits & 1 else 0.0) + (path[1] if bits & 2 else 0.0) + (path[2] if bits & 4 else 0.0))


@kernel
def for_one(cost: float) -> float:
    """What a weight of 1 buys at a price; infinite where it costs nothing."""
    return 1.0 / cost if cost > 0.0 else np.inf


@kernel
def _count(node: Any, bits: int, flow: float, loose: float, curvature: float) -> None:
    """Add what a run takes to its node's own sums."""
    slack, loose_flow, block = node["slack"], node["loose"], node["block"]
    for k in range(3):
        if bits >> k & 1:
            slack[k] += flow
            loose_flow[k] += loose
    if bits == 7:
        for k in range(6):
            block[k] += curvature
        return
    block[0] += curvature if bits & 1 else 0.0
    block[1] += curvature if bits & 3 == 3 else 0.0
    block[2] += curvature if bits & 5 == 5 else 0.0
    block[3] += curvature if bits & 2 else 0.0
    block[4] += curvature if bits & 6 == 6 else 0.0
    block[5] += curvature if bits & 4 else 0.0


@kernel
def respond(tree: Grown) -> float:
    """What the EVSEs take at the prices: path, slack, loose and block of every node are written.

    Returns:
        The residual: the largest |min(kappa p, slack)| / room over all limited rows; infinite where anything is NaN.
    """
    nodes, runs, weight, lower, upper = tree.nodes, tree.runs, tree.weight, tree.lower, tree.upper
    _descend(nodes)
    for q in range(runs.shape[0]):
        run = runs[q]
        node = nodes[run["node"]]
        each = for_one(cost_of(node["path"], run["bits"]))
        flow = 0.0
        loose = 0.0  # weight of those between their bounds
        for j in range(run["first"], run["last"]):
            y = weight[j] * each
            held = min(max(y, lower[j]), upper[j])
            loose += weight[j] if held == y else 0.0
            flow += held
        taken = loose * each if loose > 0.0 else 0.0
        _count(node, run["bits"], flow, taken, taken * each if loose > 0.0 else 0.0)
    return _settle(nodes)


@kernel
def _settle(nodes: Records) -> float:
    """Sum the flows upwards and turn them into slacks; the residual."""
    residual = 0.0
    for v in range(nodes.shape[0] - 1, -1, -1):
        node = nodes[v]
        slack, room, kappa, price = node["slack"], node["room"], node["kappa"], node["price"]
        if v > 0:
            above = nodes[node["parent"]]["slack"]
            for k in range(3):
                above[k] += slack[k]
        for k in range(3):
            slack[k] = room[k] - slack[k]
            residual = max(residual, share_missing(kappa[k], price[k], slack[k], room[k]))
    return residual


@kernel
def share_missing(kappa: float, price: float, slack: float, room: float) -> float:
    """|min(kappa p, slack)| / room of one row: 0 where it is as it should be; infinite where NaN."""
    if kappa == 0.0:
        return 0.0
    share = abs(min(kappa * price, slack)) / room
    return share if share >= 0.0 else np.inf


@kernel
def _set_up(nodes: Records) -> None:
    """Active rows are to be filled; the price of the others goes to 0.

    A row is damped by its own share missing: where most EVSEs are clipped the flow hardly answers to the price, and an
    undamped step would throw all of them to the other bound. Damping vanishes with the residual, so the last steps are
    exact.
    """
    for v in range(nodes.shape[0]):
        node = nodes[v]
        kappa, price, slack, room = node["kappa"], node["price"], node["slack"], node["room"]
        active, damping, wanted, fixed = node["active"], node["damping"], node["wanted"], node["fixed"]
        old_price, old_slack = node["old_price"], node["old_slack"]
        for k in range(3):
            on = kappa[k] > 0.0 and kappa[k] * price[k] > slack[k]
            missing = share_missing(kappa[k], price[k], slack[k], room[k])
            active[k] = 1 if on else 0
            damping[k] = max(LEAST_DAMPING, min(1.0, missing)) * kappa[k]
            wanted[k] = slack[k] if on else 0.0
            fixed[k] = 0.0 if on else -price[k]
            old_price[k] = price[k]
            old_slack[k] = slack[k]


@kernel
def _look_ahead(nodes: Records) -> None:
    """What each active row asks for, with an eye on the bend of 1 / price.

    The flow of a row's own EVSEs, those not behind an active row below it, is u = W / P and a constant; Newton's step
    on 1 / u instead of u lands on the root of a single row at once. It asks for s u / (u + s), where s is the slack
    that the rows below leave to it.
    """
    for v in range(nodes.shape[0] - 1, -1, -1):
        node = nodes[v]
        active, wanted, slack, loose = node["active"], node["wanted"], node["slack"], node["loose"]
        filled, filled_slack = node["filled"], node["filled_slack"]
        above = nodes[node["parent"]] if v > 0 else node
        for k in range(3):
            if active[k]:
                own = slack[k] - filled_slack[k]
                share = loose[k] / (loose[k] + own)
                wanted[k] = filled[k] + own * (share if 0.5 < share < 2.0 else 1.0)
                if v > 0:
                    above["filled"][k] += wanted[k]
                    above["filled_slack"][k] += slack[k]
            elif v > 0:
                above["filled"][k] += filled[k]
                above["filled_slack"][k] += filled_slack[k]
                above["loose"][k] += loose[k]


@kernel
def _go(nodes: Records, share: float) -> float:
    """Move the prices to a share of the step from the old ones; phi's slope along it, at the old slack."""
    slope = 0.0
    for v in range(nodes.shape[0]):
        node = nodes[v]
        price, old_price, old_slack, step = node["price"], node["old_price"], node["old_slack"], node["step"]
        for k in range(3):
            price[k] = max(old_price[k] + share * step[k], 0.0)
            if price[k] != old_price[k]:
                slope += old_slack[k] * (price[k] - old_price[k])
    return slope


@kernel
def _slope_here(nodes: Records) -> float:
    """phi's slope along the step from the old prices, at the present slack."""
    slope = 0.0
    for v in range(nodes.shape[0]):
        node = nodes[v]
        price, old_price, slack = node["price"], node["old_price"], node["slack"]
        for k in range(3):
            if price[k] != old_price[k]:
                slope += slack[k] * (price[k] - old_price[k])
    return slope


@kernel
def go_back(tree: Grown) -> float:
    """Return to the prices before the last step; their residual."""
    tree.nodes["price"][:] = tree.nodes["old_price"]
    return respond(tree)


@kernel
def newton_step(tree: Grown, residual: float, enough: float, strict: bool) -> float:
    """Go one damped step from the present prices, as ``respond`` left them.

    The step is halved until the residual is ``enough`` or phi is no more than half as steep uphill as it was downhill;
    strictly: until phi still falls, which for a convex function means that it fell all the way.

    Args:
        tree: its prices move.
        residual: at the present prices.
        enough: residual with which the step is good in any case.
        strict: see above.

    Returns:
        The residual at the new prices; infinite if halving did not help (call ``go_back``).
    """
    nodes = tree.nodes
    _set_up(nodes)
    if residual < NEAR:
        _look_ahead(nodes)
    solve_system(nodes)
    share = 1.0
    for _ in range(MOST_HALVINGS):
        downhill = _go(nodes, share)
        reached = respond(tree)
        if reached < enough:
            return reached
        uphill = _slope_here(nodes)
        if reached < np.inf and uphill <= (0.0 if strict else -0.5 * downhill):
            return reached
        share *= 0.5
    return np.inf
