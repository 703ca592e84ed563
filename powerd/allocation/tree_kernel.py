"""The exact kernel for limits that form a tree: Newton from the last tick's prices, or from prices found by sweeps."""

from __future__ import annotations

import numpy as np

from powerd.allocation.forest import Forest, plant
from powerd.allocation.stage import Solution, Stage
from powerd.allocation.tree_newton import newton
from powerd.allocation.tree_sweep import subtrees, sweep
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Tree

#: Sweeps over all rows before the conic path takes over; 1 is usual.
MOST_SWEEPS = 1000


@kernel
def _prices_in(forest: Forest, start: Floats) -> Floats:
    """Node prices (N, 3) from row prices (m,)."""
    price = np.zeros_like(forest.room)
    for v in range(price.shape[0]):
        for k in range(3):
            if forest.row[v, k] >= 0:
                price[v, k] = max(start[forest.row[v, k]], 0.0) / (forest.price_scale[v, k] * forest.weight_scale)
    return price


@kernel
def _prices_out(forest: Forest, price: Floats, rows: int) -> Floats:
    """Row prices (m,) from node prices (N, 3)."""
    out = np.zeros(rows)
    for v in range(price.shape[0]):
        for k in range(3):
            if forest.row[v, k] >= 0:
                out[forest.row[v, k]] = price[v, k] * forest.price_scale[v, k] * forest.weight_scale
    return out


@kernel
def _ceilings_out(forest: Forest, y: Floats, lower: Floats, upper: Floats) -> Floats:
    """Ceilings (n,) [own unit] from y (k,) [reference A], exactly inside their bounds."""
    x = np.zeros(lower.shape[0])
    for j in range(y.shape[0]):
        i = forest.evse[j]
        x[i] = min(max(y[j] / forest.gain[j], lower[i]), upper[i])
    return x


@kernel
def _optimise(forest: Forest, price: Floats, y: Floats) -> int:
    """Newton from ``price`` unless that is all zero; if it gives up, from prices that more and more sweeps found."""
    if price.any():
        start = price.copy()
        steps = newton(forest, price, y)
        if steps >= 0:
            return steps
        price[:] = start  # still the best guess: where a limit fell, a sweep mends it
    tree = subtrees(forest)
    total = 0
    while total < MOST_SWEEPS:
        # One sweep is nearly always enough; where it is not, sweeps get finer, and later more come between attempts.
        for _ in range(max(1, total // 8)):
            sweep(forest, tree, price, total % 2 == 1, 1e-4 if total < 4 else 1e-10)
            total += 1
        swept = price.copy()
        steps = newton(forest, price, y)
        if steps >= 0:
            return total + steps
        price[:] = swept
    return -1


@kernel
def _solve_columns(
    parent: Ints,
    node: Ints,
    phase_bits: Ints,
    gain: Floats,
    row: Ints,
    scale: Floats,
    room: Floats,
    free: Bools,
    weight: Floats,
    lower: Floats,
    upper: Floats,
    start: Floats,
) -> tuple[Floats, Floats, int]:
    """Plant, optimise, and read the answer back: x (n,), row prices (m,), steps (-1: gave up)."""
    forest = plant(parent, node, phase_bits, gain, row, scale, room, free, weight, lower, upper)
    price = _prices_in(forest, start)
    before = price.copy()
    y = np.empty(forest.evse.shape[0])
    steps = _optimise(forest, price, y)
    out = _prices_out(forest, price, room.shape[0])
    if np.array_equal(before, price):
        # Prices that were exact already go out as they came in: an unchanged question gets bit-equal prices back.
        out = np.where(out > 0.0, start, 0.0)
    return _ceilings_out(forest, y, lower, upper), out, steps


def solve_tree(tree: Tree, stage: Stage, start: Floats) -> Solution | None:
    """Solve a stage whose rows form ``tree``.

    Args:
        tree: the rows as a tree.
        stage: the program.
        start: (m,) row prices to start from; all 0 = cold [utility / limit unit].

    Returns:
        The answer with its prices; None if no method got close.
    """
    x, price, steps = _solve_columns(
        tree.parent,
        tree.node,
        tree.phase_bits,
        tree.gain,
        tree.row,
        tree.scale,
        stage.headroom - stage.base_real,
        stage.free,
        stage.weight,
        stage.lower,
        stage.upper,
        start,
    )
    return Solution(x=x, price=price, iterations=steps) if steps >= 0 else None
