"""The exact kernel for limits that form a tree: Newton from the last tick's prices, helped by sweeps where it errs."""

from __future__ import annotations

import numpy as np

from powerd.allocation.certificate import Certificate, figures_of
from powerd.allocation.forest import Forest, Grove, Grown, grove_of, harvest, plant, tree_at
from powerd.allocation.rows import Columns
from powerd.allocation.stage import Solution, Stage
from powerd.allocation.tree_newton import cost_of, for_one, go_back, newton_step, respond
from powerd.allocation.tree_sweep import sweep
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Tree

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
def _prices_in(forest: Forest, start: Floats) -> None:
    """Write node prices from row prices (m,)."""
    for v in range(forest.nodes.shape[0]):
        node = forest.nodes[v]
        for k in range(3):
            r = node["row"][k]
            if r >= 0:
                node["price"][k] = max(start[r], 0.0) * node["scale"]
                node["arrived"][k] = node["price"][k]


@kernel
def _prices_out(forest: Forest, start: Floats, price: Floats) -> None:
    """Write row prices (m,) from node prices; one that did not move goes out as it came in, bit for bit."""
    for v in range(forest.nodes.shape[0]):
        node = forest.nodes[v]
        for k in range(3):
            r = node["row"][k]
            if r >= 0:
                moved = node["price"][k] != node["arrived"][k]
                price[r] = node["price"][k] / node["scale"] if moved else max(start[r], 0.0)


@kernel
def optimise(tree: Grown) -> int:
    """Bring the prices of one tree from where they are to the optimum.

    Returns:
        Newton steps taken; -1 if it gave up.
    """
    residual = respond(tree)
    best = residual
    strays = 0
    for step in range(MOST_STEPS):
        if residual <= EXACT:
            return step
        if residual > FAR or strays > 0:
            for _ in range(1 + strays // 4):
                accuracy = max(1e-10, ROUGH ** max(1, strays - MOST_STRAYS + 1))
                sweep(tree, FAR if strays == 0 else accuracy, accuracy)
                residual = respond(tree)
        reached = newton_step(tree, residual, 0.5 * best, strays >= MOST_STRAYS)
        if residual <= GOOD_ENOUGH and reached >= residual:
            go_back(tree)
            return step
        residual = reached if reached < np.inf else go_back(tree)
        if not residual < 0.5 * best:
            strays += 1
        best = min(best, residual)
    return -1


@kernel
def _take(forest: Forest, tree: Grown, y: Floats) -> None:
    """Write what every EVSE of a tree takes (k,) [reference A]."""
    for q in range(tree.runs.shape[0]):
        run = tree.runs[q]
        each = for_one(cost_of(tree.nodes[run["node"]]["path"], run["bits"]))
        for j in range(run["first"], run["last"]):
            y[j] = min(max(forest.weight[j] * each, forest.lower[j]), forest.upper[j])


@kernel
def _repair(forest: Forest, y: Floats) -> None:
    """Where a row is overdrawn by what rounding left, its EVSEs between their bounds give it back, in proportion."""
    upper, lower = forest.upper, forest.lower
    for v in range(forest.nodes.shape[0]):
        node = forest.nodes[v]
        for k in range(3):
            if not node["slack"][k] < -OVERSHOOT * node["room"][k]:
                continue
            above = 0.0
            for q in range(node["first"], node["last"]):
                run = forest.runs[q]
                if run["bits"] >> k & 1:
                    for j in range(run["first"], run["last"]):
                        above += y[j] - lower[j] if y[j] < upper[j] else 0.0
            share = min(1.0, -node["slack"][k] / above) if above > 0.0 else 0.0
            for q in range(node["first"], node["last"]):
                run = forest.runs[q]
                if run["bits"] >> k & 1:
                    for j in range(run["first"], run["last"]):
                        y[j] -= share * (y[j] - lower[j]) if y[j] < upper[j] else 0.0


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
    _prices_in(forest, start)
    prices = np.zeros(room.shape[0])
    y = np.empty(forest.evse.shape[0])
    total = 0
    root = 0
    while root < forest.nodes.shape[0]:
        tree = tree_at(forest, root)
        steps = optimise(tree)
        if steps < 0:
            return np.zeros_like(upper), prices, -1
        _take(forest, tree, y)
        total += steps
        root = forest.nodes[root]["end"]
    _repair(forest, y)
    _prices_out(forest, start, prices)
    return harvest(forest, y, free, lower, upper), prices, total


@kernel
def solve_and_judge(
    columns: Columns,
    grove: Grove,
    members: Ints,
    weight: Floats,
    lower: Floats,
    upper: Floats,
    free: Bools,
    headroom: Floats,
    base_real: Floats,
    base_imag: Floats,
    start: Floats,
) -> tuple[Floats, Floats, int, float, float, float]:
    """Solve a stage, and judge the answer by the rows as they stand in ``columns``.

    Returns:
        Ceilings (n,), row prices (m,), Newton steps (-1: gave up), primal residual, dual residual and gap.
    """
    x, price, steps = solve_forest(grove, headroom - base_real, free, weight, lower, upper, start)
    real, imag = base_real.copy(), base_imag.copy()
    primal, dual, gap = figures_of(columns, members, weight, lower, upper, headroom, real, imag, x, price)
    return x, price, steps, primal, dual, gap


def solve_tree(tree: Tree, stage: Stage, start: Floats) -> tuple[Solution, Certificate] | None:
    """Solve a stage whose rows form ``tree``.

    Args:
        tree: the rows as a tree.
        stage: the program.
        start: (m,) row prices to start from; all 0 = cold [utility / limit unit].

    Returns:
        The answer with its prices, and its certificate; None if no method got close.
    """
    x, price, steps, primal, dual, gap = solve_and_judge(
        stage.rows.columns,
        grove_of(tree),
        stage.free.nonzero()[0],
        stage.weight,
        stage.lower,
        stage.upper,
        stage.free,
        stage.headroom,
        stage.base_real,
        stage.base_imag,
        start,
    )
    if steps < 0:
        return None
    certificate = Certificate(primal_residual=primal, dual_residual=dual, gap=gap, iterations=steps, path="kernel")
    return Solution(x=x, price=price, iterations=steps), certificate
