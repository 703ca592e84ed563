"""One damped semismooth Newton step on the dual of a stage, over one tree of its forest.

The dual of the stage (``docs/allocation.md``) is min over prices p >= 0 of the convex, once differentiable

    phi(p) = sum_i max over lower_i <= y <= upper_i of (w_i log y - P_i y) + sum_r p_r room_r,  d phi / d p_r = slack_r,

where P_i sums the prices on i's path. Each EVSE answers to its price alone: y_i = clip(w_i / P_i, lower_i, upper_i).
The optimum is where min(kappa p, slack) = 0 on every row; the generalised Newton step for that equation (primal-dual
active set, Hintermueller, Ito & Kunisch 2002) needs one solve of the tree's Newton system and is exact once the active
rows and the clipped EVSEs are known, which after a warm start they nearly are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.allocation.forest import Forest, sum_below
from powerd.allocation.tree_recursion import System, empty_system, solve_system
from powerd.compiled import kernel
from powerd.limits import Floats

#: Halvings of one step; where that many do not help, a sweep (``tree_sweep``) does.
MOST_HALVINGS = 12

#: Least damping, as a share of a row's kappa: pivots stay away from 0.
LEAST_DAMPING = 1e-14


class Point(NamedTuple):
    """Prices and what they lead to; N nodes, k EVSEs. One for where the search is, one for where it might go."""

    price: Floats
    """(N, 3) >= 0."""
    y: Floats
    """(k,) what every EVSE takes [reference A]."""
    slack: Floats
    """(N, 3) room - flow of each row [reference A]; infinite where unlimited."""
    curvature: Floats
    """(N, 8) sum of -dy/dP by group; 0 for clipped EVSEs."""


class Work(NamedTuple):
    """Work space for one forest."""

    path: Floats
    """(N, 3) sum of the prices from the root to each node."""
    cost: Floats
    """(8 N,) price of each group."""
    flow: Floats
    """(N, 8) sum of y by group."""
    weight: Floats
    """(N, 3) sum of the weights below, by phase."""
    kappa: Floats
    """(N, 3) room^2 / weight below, the curvature of a row as if it alone bound; 0 where unlimited or empty."""
    system: System
    """The Newton system."""


@kernel
def empty_point(nodes: int, evses: int) -> Point:
    """A point to be written into."""
    return Point(np.zeros((nodes, 3)), np.empty(evses), np.empty((nodes, 3)), np.empty((nodes, 8)))


@kernel
def empty_work(nodes: int) -> Work:
    """Work space to be written into."""
    return Work(
        np.empty((nodes, 3)),
        np.empty(8 * nodes),
        np.empty((nodes, 8)),
        np.empty((nodes, 3)),
        np.empty((nodes, 3)),
        empty_system(nodes),
    )


@kernel
def weigh(forest: Forest, root: int, work: Work) -> None:
    """Write the weights and kappa of the tree of ``root``."""
    own = work.flow.reshape(-1)
    own[8 * root : 8 * forest.end[root]] = 0.0
    for j in range(forest.first[root], forest.last[root]):
        own[forest.group[j]] += forest.weight[j]
    sum_below(forest, root, work.flow, work.weight)
    for v in range(root, forest.end[root]):
        for k in range(3):
            limited = work.weight[v, k] > 0.0 and forest.room[v, k] < np.inf
            work.kappa[v, k] = forest.room[v, k] ** 2 / work.weight[v, k] if limited else 0.0


@kernel
def _price_groups(forest: Forest, root: int, price: Floats, work: Work) -> None:
    """Write the price of every group."""
    for v in range(root, forest.end[root]):
        up = forest.parent[v]
        for k in range(3):
            work.path[v, k] = price[v, k] + (work.path[up, k] if up >= 0 else 0.0)
        for bits in range(8):
            work.cost[8 * v + bits] = (
                (work.path[v, 0] if bits & 1 else 0.0)
                + (work.path[v, 1] if bits & 2 else 0.0)
                + (work.path[v, 2] if bits & 4 else 0.0)
            )


@kernel
def respond(forest: Forest, root: int, point: Point, work: Work) -> float:
    """What every EVSE of the tree of ``root`` takes at ``point.price``: y, curvature and slack are written.

    Returns:
        The residual: the largest |min(kappa p, slack)| / room over all limited rows; infinite where anything is NaN.
    """
    _price_groups(forest, root, point.price, work)
    work.flow[root : forest.end[root]] = 0.0
    point.curvature[root : forest.end[root]] = 0.0
    flow = work.flow.reshape(-1)
    curvature = point.curvature.reshape(-1)
    group, weight, lower, upper, cost, y = forest.group, forest.weight, forest.lower, forest.upper, work.cost, point.y
    for j in range(forest.first[root], forest.last[root]):
        g = group[j]
        w = weight[j]
        c = cost[g]
        if c * upper[j] <= w:
            y[j] = upper[j]
        elif c * lower[j] >= w:
            y[j] = lower[j]
        else:
            y[j] = w / c
            curvature[g] += y[j] / c
        flow[g] += y[j]
    sum_below(forest, root, work.flow, point.slack)
    residual = 0.0
    price, slack, room, kappa = point.price, point.slack, forest.room, work.kappa
    for v in range(root, forest.end[root]):
        for k in range(3):
            slack[v, k] = room[v, k] - slack[v, k]
            residual = max(residual, share_missing(kappa[v, k], price[v, k], slack[v, k], room[v, k]))
    return residual


@kernel
def share_missing(kappa: float, price: float, slack: float, room: float) -> float:
    """|min(kappa p, slack)| / room of one row: 0 where it is as it should be; infinite where NaN."""
    if kappa == 0.0:
        return 0.0
    share = abs(min(kappa * price, slack)) / room
    return share if share >= 0.0 else np.inf


@kernel
def _set_up(forest: Forest, root: int, point: Point, work: Work) -> None:
    """Active rows are to be filled (df = slack); the price of the others goes to 0.

    A row is damped by its own share missing: where most EVSEs are clipped the flow hardly answers to the price, and an
    undamped step would throw all of them to the other bound. Damping vanishes with the residual, so the last steps are
    exact.
    """
    system = work.system
    price, slack = point.price, point.slack
    for v in range(root, forest.end[root]):
        for k in range(3):
            kappa = work.kappa[v, k]
            on = kappa > 0.0 and kappa * price[v, k] > slack[v, k]
            missing = share_missing(kappa, price[v, k], slack[v, k], forest.room[v, k])
            system.active[v, k] = on
            system.damping[v, k] = max(LEAST_DAMPING, min(1.0, missing)) * kappa
            system.wanted[v, k] = slack[v, k] if on else 0.0
            system.fixed[v, k] = 0.0 if on else -price[v, k]


@kernel
def _slope(forest: Forest, root: int, before: Floats, after: Floats, slack: Floats) -> float:
    """Directional derivative of phi along ``after - before`` where the slack is ``slack``."""
    total = 0.0
    for v in range(root, forest.end[root]):
        for k in range(3):
            if after[v, k] != before[v, k]:
                total += slack[v, k] * (after[v, k] - before[v, k])
    return total


@kernel
def newton_step(
    forest: Forest, root: int, point: Point, trial: Point, work: Work, enough: float, strict: bool
) -> float:
    """Go one damped step from ``point``; where it leads is written into ``trial``.

    The step is halved until the residual is ``enough`` or phi is no more than half as steep uphill as it was downhill;
    strictly: until phi still falls, which for a convex function means that it fell all the way.

    Args:
        forest: the stage.
        root: of which tree.
        point: where the search is, as ``respond`` left it.
        trial: written.
        work: written.
        enough: residual of ``trial`` with which the step is good in any case.
        strict: see above.

    Returns:
        The residual of ``trial``; infinite if halving did not help.
    """
    _set_up(forest, root, point, work)
    solve_system(forest.parent, root, forest.end[root], point.curvature, work.system)
    share = 1.0
    for _ in range(MOST_HALVINGS):
        for v in range(root, forest.end[root]):
            for k in range(3):
                trial.price[v, k] = max(point.price[v, k] + share * work.system.delta[v, k], 0.0)
        downhill = _slope(forest, root, point.price, trial.price, point.slack)
        reached = respond(forest, root, trial, work)
        if reached < enough:
            return reached
        uphill = _slope(forest, root, point.price, trial.price, trial.slack)
        if reached < np.inf and uphill <= (0.0 if strict else -0.5 * downhill):
            return reached
        share *= 0.5
    return np.inf
