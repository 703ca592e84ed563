"""Exact minimisation of the dual over one row price at a time: the start of a search, and its way on where Newton errs.

With all other prices held, the best price of a row is 0 if the row then holds, else the one at which its flow equals
its room: a monotone equation in one unknown. Sweeping over the rows minimises the dual phi (``tree_newton``) coordinate
by coordinate, which converges for a convex differentiable function with a bound on each coordinate (Tseng 2001), and it
knows no scale: weights may differ by 1e12, where an interior point that we tried first gave up on half of the ticks. It
is slow only where nested rows bind together, which is what Newton's method is for.
"""

from __future__ import annotations

import numpy as np

from powerd.allocation.forest import Forest
from powerd.allocation.tree_newton import Point, Work, share_missing
from powerd.compiled import kernel
from powerd.limits import Floats

#: Evaluations for one price.
MOST_TRIES = 200


@kernel
def _flow(forest: Forest, v: int, k: int, cost: Floats, change: float) -> tuple[float, float]:
    """Flow of row (v, k) if its price changed by ``change``, and minus its derivative."""
    flow = 0.0
    curvature = 0.0
    group, weight, lower, upper = forest.group, forest.weight, forest.lower, forest.upper
    for j in range(forest.first[v], forest.last[v]):
        if not (group[j] >> k) & 1:
            continue
        c = cost[j] + change
        w = weight[j]
        if c * upper[j] <= w:
            flow += upper[j]
        elif c * lower[j] >= w:
            flow += lower[j]
        else:
            flow += w / c
            curvature += w / (c * c)
    return flow, curvature


@kernel
def _best_change(forest: Forest, v: int, k: int, price: float, weight: float, cost: Floats, accuracy: float) -> float:
    """Change of the row's price that minimises the dual: safeguarded Newton on flow = room; ``weight`` is below it."""
    room = forest.room[v, k]
    low = -price
    high = low + weight / room  # there even an EVSE without a lower bound and without any other price takes its share
    change = 0.0
    bracketed = False
    floored = False  # whether the flow at ``low`` is known to be too much
    for _ in range(MOST_TRIES):
        flow, curvature = _flow(forest, v, k, cost, change)
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
def _costs(forest: Forest, root: int, price: Floats, cost: Floats) -> None:
    """Write the price that each EVSE of the tree of ``root`` sees (k,)."""
    cost[forest.first[root] : forest.last[root]] = 0.0
    for v in range(root, forest.end[root]):
        for k in range(3):
            if price[v, k] > 0.0:
                for j in range(forest.first[v], forest.last[v]):
                    if (forest.group[j] >> k) & 1:
                        cost[j] += price[v, k]


@kernel
def sweep(forest: Forest, root: int, point: Point, work: Work, cost: Floats, accuracy: float) -> None:
    """Minimise over every row price of a tree once, children first; rows that are as they should be are left alone.

    Args:
        forest: the stage.
        root: of which tree.
        point: its prices change in place; slack as ``respond`` left it.
        work: with the weights.
        cost: (k,) work space.
        accuracy: relative accuracy of a row's flow.
    """
    _costs(forest, root, point.price, cost)
    for v in range(forest.end[root] - 1, root - 1, -1):
        for k in range(3):
            missing = share_missing(work.kappa[v, k], point.price[v, k], point.slack[v, k], forest.room[v, k])
            if not missing > accuracy:
                continue
            change = _best_change(forest, v, k, point.price[v, k], work.weight[v, k], cost, accuracy)
            if change == 0.0:
                continue
            point.price[v, k] = max(point.price[v, k] + change, 0.0)
            for j in range(forest.first[v], forest.last[v]):
                if (forest.group[j] >> k) & 1:
                    cost[j] += change
