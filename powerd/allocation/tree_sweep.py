"""Cold start on a tree: exact minimisation of the dual over one row price at a time.

With all other prices held, the best price of a row is 0 if the row then holds, else the one at which its flow equals
its room: a monotone equation in one unknown. Sweeping over the rows minimises the dual phi (``tree_newton``) coordinate
by coordinate, which converges for a convex differentiable function with a bound on each coordinate (Tseng 2001), and it
knows no scale: weights may differ by 1e12, where an interior point that we tried first gave up on half of the ticks. It
is slow only where nested rows bind together, which is what Newton's method is for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.allocation.forest import Forest
from powerd.compiled import kernel
from powerd.limits import Floats, Ints

#: Evaluations for one price.
MOST_TRIES = 200


class Subtrees(NamedTuple):
    """EVSEs in depth-first order, so that those below node v are ``order[first[v]:last[v]]``."""

    order: Ints
    """(k,) positions in the forest's EVSE columns."""
    first: Ints
    """(N,)"""
    last: Ints
    """(N,)"""


@kernel
def subtrees(forest: Forest) -> Subtrees:
    """Lay the EVSEs out in depth-first order of their nodes."""
    nodes = forest.parent.shape[0]
    own = np.zeros(nodes, dtype=np.int64)
    for j in range(forest.group.shape[0]):
        if forest.group[j] >= 0:
            own[forest.group[j] // 8] += 1
    whole = own.copy()
    for v in range(nodes - 1, -1, -1):
        if forest.parent[v] >= 0:
            whole[forest.parent[v]] += whole[v]
    first = np.zeros(nodes, dtype=np.int64)
    filled = np.zeros(nodes, dtype=np.int64)  # within the parent's range: where its next child begins
    roots = 0
    for v in range(nodes):
        up = forest.parent[v]
        if up < 0:
            first[v] = roots
            roots += whole[v]
        else:
            first[v] = filled[up]
            filled[up] += whole[v]
        filled[v] = first[v] + own[v]
    order = np.empty(roots, dtype=np.int64)
    position = first.copy()
    for j in range(forest.group.shape[0]):
        if forest.group[j] >= 0:
            order[position[forest.group[j] // 8]] = j
            position[forest.group[j] // 8] += 1
    return Subtrees(order, first, first + whole)


@kernel
def _flow(forest: Forest, tree: Subtrees, v: int, k: int, cost: Floats, change: float) -> tuple[float, float]:
    """Flow of row (v, k) if its price changed by ``change``, and minus its derivative."""
    flow = 0.0
    curvature = 0.0
    for position in range(tree.first[v], tree.last[v]):
        j = tree.order[position]
        if not (forest.group[j] >> k) & 1:
            continue
        c = cost[j] + change
        w = forest.weight[j]
        if c * forest.upper[j] <= w:
            flow += forest.upper[j]
        elif c * forest.lower[j] >= w:
            flow += forest.lower[j]
        else:
            flow += w / c
            curvature += w / (c * c)
    return flow, curvature


@kernel
def _best_change(forest: Forest, tree: Subtrees, v: int, k: int, price: float, cost: Floats, accuracy: float) -> float:
    """Change of the row's price that minimises the dual: safeguarded Newton on flow = room."""
    room = forest.room[v, k]
    low = -price
    flow, _ = _flow(forest, tree, v, k, cost, low)
    if flow <= room:
        return low
    weight = 0.0
    for position in range(tree.first[v], tree.last[v]):
        j = tree.order[position]
        if (forest.group[j] >> k) & 1:
            weight += forest.weight[j]
    high = low + weight / room
    change = 0.0
    bracketed = False
    for _ in range(MOST_TRIES):
        if not low < change < high:
            change = 0.5 * (low + high) if bracketed else high
        flow, curvature = _flow(forest, tree, v, k, cost, change)
        if abs(flow - room) <= accuracy * accuracy * room:
            return float(change)
        if flow > room:
            low = change
            if change == high:
                high = low + 4.0 * (high + price)
        else:
            high = change
            bracketed = True
        if bracketed and high - low <= accuracy * (high + price):
            return float(high)
        # Newton on the reciprocal of the flow, which is nearly linear in the price
        change += (flow - room) / curvature * flow / room if curvature > 0.0 else np.inf
    return float(high)


@kernel
def sweep(forest: Forest, tree: Subtrees, price: Floats, from_root: bool, accuracy: float) -> None:
    """Minimise over every row price once.

    Args:
        forest: the stage.
        tree: its EVSEs in depth-first order.
        price: (N, 3) in place.
        from_root: parents first, or else children first.
        accuracy: relative accuracy of one price.
    """
    nodes = forest.parent.shape[0]
    cost = np.zeros(forest.group.shape[0])
    for v in range(nodes):
        for position in range(tree.first[v], tree.last[v]):
            j = tree.order[position]
            for k in range(3):
                if (forest.group[j] >> k) & 1:
                    cost[j] += price[v, k]
    for turn in range(nodes):
        v = turn if from_root else nodes - 1 - turn
        for k in range(3):
            if not forest.room[v, k] < np.inf:
                continue
            change = _best_change(forest, tree, v, k, price[v, k], cost, accuracy)
            if change == 0.0:
                continue
            price[v, k] = max(price[v, k] + change, 0.0)
            for position in range(tree.first[v], tree.last[v]):
                j = tree.order[position]
                if (forest.group[j] >> k) & 1:
                    cost[j] += change
