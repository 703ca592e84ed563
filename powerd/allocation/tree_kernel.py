"""The exact kernel for limits that form a tree: Newton from the last tick's prices, helped by sweeps where it errs."""

from __future__ import annotations

import numpy as np

from powerd.allocation.forest import Forest, Grove, grove_of, plant
from powerd.allocation.stage import Solution, Stage
from powerd.allocation.tree_newton import Point, Work, empty_point, empty_work, newton_step, respond, weigh
from powerd.allocation.tree_sweep import sweep
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Tree

#: Residual (share of a row's room) at which prices count as exact.
EXACT = 1e-12

#: Residual that is good enough where rounding allows no better; the certificate still has the last word.
GOOD_ENOUGH = 1e-9

#: Above this residual a sweep comes before each Newton step: rows far from their room mislead it.
FAR = 0.1

#: How exactly such a sweep fills a row.
ROUGH = 0.01

#: Newton steps that did not halve the residual before sweeps get finer and more, and steps must lower phi.
MOST_STRAYS = 3

#: Overshoot (share of a row's room) above which an answer is repaired: what rounding leaves with weights far apart.
OVERSHOOT = 1e-11

#: Newton steps on one tree before the conic path takes over; five are usual.
MOST_STEPS = 200


@kernel
def _prices_in(forest: Forest, start: Floats, price: Floats) -> None:
    """Write node prices (N, 3) from row prices (m,)."""
    for v in range(price.shape[0]):
        for k in range(3):
            r = forest.row[v, k]
            price[v, k] = max(start[r], 0.0) / (forest.price_scale[v, k] * forest.weight_scale) if r >= 0 else 0.0


@kernel
def _prices_out(forest: Forest, price: Floats, before: Floats, start: Floats, out: Floats) -> None:
    """Write row prices (m,) from node prices (N, 3); one that did not move goes out as it came in, bit for bit."""
    for v in range(price.shape[0]):
        for k in range(3):
            r = forest.row[v, k]
            if r >= 0:
                moved = price[v, k] != before[v, k]
                out[r] = price[v, k] * forest.price_scale[v, k] * forest.weight_scale if moved else max(start[r], 0.0)


@kernel
def _copy_part(forest: Forest, root: int, source: Point, target: Point) -> None:
    """Copy what belongs to the tree of ``root``."""
    nodes = slice(root, forest.end[root])
    evses = slice(forest.first[root], forest.last[root])
    target.price[nodes] = source.price[nodes]
    target.slack[nodes] = source.slack[nodes]
    target.curvature[nodes] = source.curvature[nodes]
    target.y[evses] = source.y[evses]


@kernel
def optimise(forest: Forest, root: int, point: Point, trial: Point, work: Work, cost: Floats) -> int:
    """Bring the prices of one tree from where they are to the optimum.

    Args:
        forest: the stage.
        root: of which tree.
        point: its prices are the start; the optimum on return.
        trial: work space.
        work: work space.
        cost: (k,) work space.

    Returns:
        Newton steps taken; -1 if it gave up.
    """
    weigh(forest, root, work)
    residual = respond(forest, root, point, work)
    best = residual
    strays = 0
    for step in range(MOST_STEPS):
        if residual <= EXACT:
            return step
        if residual > FAR or strays > 0:
            for _ in range(1 + strays // 4):
                sweep(forest, root, point, work, cost, max(1e-10, ROUGH ** max(1, strays - MOST_STRAYS + 1)))
                residual = respond(forest, root, point, work)
        reached = newton_step(forest, root, point, trial, work, 0.5 * best, strays >= MOST_STRAYS)
        if residual <= GOOD_ENOUGH and reached >= residual:
            return step
        if reached < np.inf:
            residual = reached
            _copy_part(forest, root, trial, point)
        if not residual < 0.5 * best:
            strays += 1
        best = min(best, residual)
    return -1


@kernel
def _repair(forest: Forest, point: Point) -> None:
    """Where a row is overdrawn by what rounding left, its EVSEs between their bounds give it back, in proportion."""
    for v in range(forest.parent.shape[0]):
        for k in range(3):
            if not point.slack[v, k] < -OVERSHOOT * forest.room[v, k]:
                continue
            above = 0.0
            for j in range(forest.first[v], forest.last[v]):
                if (forest.group[j] >> k) & 1 and point.y[j] < forest.upper[j]:
                    above += point.y[j] - forest.lower[j]
            share = min(1.0, -point.slack[v, k] / above) if above > 0.0 else 0.0
            for j in range(forest.first[v], forest.last[v]):
                if (forest.group[j] >> k) & 1 and point.y[j] < forest.upper[j]:
                    point.y[j] -= share * (point.y[j] - forest.lower[j])


@kernel
def solve_forest(
    grove: Grove, room: Floats, free: Bools, weight: Floats, lower: Floats, upper: Floats, start: Floats
) -> tuple[Floats, Floats, int]:
    """Plant, optimise each tree, and read the answer back.

    Args:
        grove: the tree of the limits.
        room: (m,) headroom - base of each row [limit unit].
        free: (n,) which EVSEs are variables.
        weight: (n,)
        lower: (n,) [own unit].
        upper: (n,) [own unit].
        start: (m,) row prices to start from.

    Returns:
        Ceilings (n,) of the free EVSEs, exactly inside their bounds, 0 elsewhere; row prices (m,); Newton steps of all
        trees together, -1 if one gave up.
    """
    forest = plant(grove, room, free, weight, lower, upper)
    nodes, evses = forest.parent.shape[0], forest.evse.shape[0]
    point, trial, work = empty_point(nodes, evses), empty_point(nodes, evses), empty_work(nodes)
    cost = np.empty(evses)
    _prices_in(forest, start, point.price)
    before = point.price.copy()
    x = np.where(free, upper, 0.0)
    prices = np.zeros(room.shape[0])
    total = 0
    root = 0
    while root < nodes:
        steps = optimise(forest, root, point, trial, work, cost)
        if steps < 0:
            return x, prices, -1
        total += steps
        root = forest.end[root]
    _repair(forest, point)
    for j in range(evses):
        i = forest.evse[j]
        x[i] = min(max(point.y[j] / forest.gain[j], lower[i]), upper[i])
    _prices_out(forest, point.price, before, start, prices)
    return x, prices, total


def solve_tree(tree: Tree, stage: Stage, start: Floats) -> Solution | None:
    """Solve a stage whose rows form ``tree``.

    Args:
        tree: the rows as a tree.
        stage: the program.
        start: (m,) row prices to start from; all 0 = cold [utility / limit unit].

    Returns:
        The answer with its prices; None if no method got close.
    """
    x, price, steps = solve_forest(
        grove_of(tree),
        stage.headroom - stage.base_real,
        stage.free,
        stage.weight,
        stage.lower,
        stage.upper,
        start,
    )
    return Solution(x=x, price=price, iterations=steps) if steps >= 0 else None
