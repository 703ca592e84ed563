"""Exact minimisation of the dual over one row price at a time: the start of a search, and its way on where Newton errs.

With all other prices held, the best price of a row is 0 if the row then holds, else the one at which its flow equals
its room: a monotone equation in one unknown. Sweeping over the rows minimises the dual phi (``tree_newton``) coordinate
by coordinate, which converges for a convex differentiable function with a bound on each coordinate (Tseng 2001), and it
knows no scale: weights may differ by 1e12, where an interior point that we tried first gave up on half of the ticks. It
is slow only where nested rows bind together, which is what Newton's method is for.
"""

from __future__ import annotations

import numpy as np

from powerd.allocation.forest import Grown
from powerd.allocation.tree_newton import cost_of, for_one, share_missing
from powerd.compiled import kernel

#: Evaluations for one price.
MOST_TRIES = 200


@kernel
def _flow(tree: Grown, first: int, last: int, k: int, change: float) -> tuple[float, float]:
    """Flow of a row of phase k over some runs if its price changed by ``change``, and minus its derivative."""
    flow = 0.0
    curvature = 0.0
    runs, weight, lower, upper = tree.runs, tree.weight, tree.lower, tree.upper
    for q in range(first, last):
        run = runs[q]
        if not run["bits"] >> k & 1:
            continue
        each = for_one(run["cost"] + change)
        loose = 0.0
        for j in range(run["first"], run["last"]):
            y = weight[j] * each
            held = min(max(y, lower[j]), upper[j])
            loose += weight[j] if held == y else 0.0
            flow += held
        curvature += loose * each * each if loose > 0.0 else 0.0
    return flow, curvature


@kernel
def _best_change(tree: Grown, v: int, k: int, accuracy: float) -> float:
    """Change of the row's price that minimises the dual: safeguarded Newton on flow = room."""
    node = tree.nodes[v]
    base = tree.nodes[0]["first"]
    first, last = node["first"] - base, node["last"] - base
    room, price = node["room"][k], node["price"][k]
    low = -price
    # there even an EVSE without a lower bound and without any other price takes its share
    high = low + node["weight"][k] / room
    change = 0.0
    bracketed = False
    floored = False  # whether the flow at ``low`` is known to be too much
    for _ in range(MOST_TRIES):
        flow, curvature = _flow(tree, first, last, k, change)
        if abs(flow - room) <= accuracy * room or (flow < room and change == -price):
            return float(change)
        if flow > room:
            low = change
            floored = True
            if change >= high:
                high = low + 4.0 * (high + price)
        else:
            high = change
            bracketed = True
        if bracketed and floored and high - low <= accuracy * (high + price):
            return float(high)
        # Newton on the reciprocal of the flow, which is nearly linear in the price
        change += (flow - room) / curvature * flow / room if curvature > 0.0 else (flow - room) * np.inf
        if change <= low:
            change = 0.5 * (low + high) if floored else low
        elif change >= high:
            change = 0.5 * (low + high) if bracketed else high
    return float(high)


@kernel
def sweep(tree: Grown, far: float, accuracy: float) -> None:
    """Minimise over every row price of a tree once, children first; rows that are nearly as they should are left alone.

    Args:
        tree: its prices change in place; path and slack as ``respond`` left them.
        far: share of its room that a row has to be off.
        accuracy: relative accuracy of a row's flow.
    """
    nodes, runs = tree.nodes, tree.runs
    base = nodes[0]["first"]
    for q in range(runs.shape[0]):
        runs[q]["cost"] = cost_of(nodes[runs[q]["node"]]["path"], runs[q]["bits"])
    for v in range(nodes.shape[0] - 1, -1, -1):
        node = nodes[v]
        for k in range(3):
            missing = share_missing(node["kappa"][k], node["price"][k], node["slack"][k], node["room"][k])
            if not missing > far:
                continue
            change = _best_change(tree, v, k, accuracy)
            if change == 0.0:
                continue
            node["price"][k] = max(node["price"][k] + change, 0.0)
            for q in range(node["first"] - base, node["last"] - base):
                if runs[q]["bits"] >> k & 1:
                    runs[q]["cost"] += change
