"""Weighted max-min on a tree: every row gets a level, an EVSE the lowest of the rows above it.

The answer is y_i = clip(v_i T_g, lower_i, upper_i), where v_i is the EVSE's weight in reference amperes and T_g the
smallest level T_r of the rows above its group g (same node, same phases). A row *controls* the groups whose smallest
level is its own. At the optimum a row is either full, or all that it controls have their upper bound:

    flow_r(T) <= room_r,   and flow_r(T) = room_r where some EVSE that r controls is below its upper bound.

flow is piecewise linear in the levels, so Newton's method, each row by the slope of what it controls, ends exactly.
What a row does not control stands at lower levels, of rows that do not depend on this one: the steps are triangular in
the order of the levels and settle from the lowest level up, one pass over the EVSEs a step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.allocation.forest import Forest, Grove, grove_of, plant, sum_by_phase
from powerd.allocation.stage import Solution, Stage
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Tree

#: Share of a row's room by which it may be missed; rounding of sums of 50 000 terms stays below.
EXACT = 1e-12

#: Share of a row's room that is still a good answer where rounding allows no better.
GOOD_ENOUGH = 1e-10

#: A level is set this much beyond a bend, so that rounding does not leave it on the wrong side.
PAST = 1.0 + 1e-15

#: Steps before bends are no longer jumped.
FREE_STEPS = 12

#: Steps before the general method takes over: as many as rows depend on one another, 5 to 20 on real trees.
MOST_STEPS = 400


class Levels(NamedTuple):
    """Work arrays over N nodes."""

    row: Floats
    """(N, 3) level of each row; infinite where there is none."""
    path: Floats
    """(N, 3) smallest level of a row at or above the node."""
    owner: Ints
    """(N, 3) which node's row that is; -1 = none."""
    flow: Floats
    """(N, 8) sum of y by group; (N, 8) for the next three likewise."""
    slope: Floats
    """d flow / d level by group."""
    ahead: Floats
    """Smallest level above the present one at which an EVSE of the group leaves its lower bound; infinite = none."""
    behind: Floats
    """Largest level at which one of the group reached its upper bound; 0 = none."""


@kernel
def _spread(forest: Forest, levels: Levels) -> None:
    """Write ``path`` and ``owner`` from ``row``."""
    for v in range(forest.parent.shape[0]):
        up = forest.parent[v]
        for k in range(3):
            own = levels.row[v, k]
            above = levels.path[up, k] if up >= 0 else np.inf
            if own < above:
                levels.path[v, k] = own
                levels.owner[v, k] = v
            else:
                levels.path[v, k] = above
                levels.owner[v, k] = levels.owner[up, k] if up >= 0 else -1


@kernel
def _lowest_phase(levels: Levels, v: int, bits: int) -> int:
    """Which of the phases of a group at node v has the smallest level."""
    best = -1
    for k in range(3):
        if bits >> k & 1 and (best < 0 or levels.path[v, k] < levels.path[v, best]):
            best = k
    return best


@kernel
def _respond(forest: Forest, share: Floats, levels: Levels, y: Floats) -> None:
    """What every EVSE takes at the present levels; writes ``y`` and the group sums."""
    nodes = forest.parent.shape[0]
    level = np.empty(8 * nodes)
    for v in range(nodes):
        for bits in range(1, 8):
            level[8 * v + bits] = levels.path[v, _lowest_phase(levels, v, bits)]
            levels.flow[v, bits] = 0.0
            levels.slope[v, bits] = 0.0
            levels.ahead[v, bits] = np.inf
            levels.behind[v, bits] = 0.0
    flow = levels.flow.reshape(-1)
    slope = levels.slope.reshape(-1)
    ahead = levels.ahead.reshape(-1)
    behind = levels.behind.reshape(-1)
    for j in range(y.shape[0]):
        g = forest.group[j]
        wish = share[j] * level[g]
        if wish < forest.lower[j]:
            y[j] = forest.lower[j]
            ahead[g] = min(ahead[g], forest.lower[j] / share[j])
        elif wish > forest.upper[j]:
            y[j] = forest.upper[j]
            behind[g] = max(behind[g], forest.upper[j] / share[j])
        else:
            y[j] = wish
            slope[g] += share[j]
        flow[g] += y[j]


@kernel
def _note(top: Floats, v: int, k: int, level: float) -> None:
    """Keep the two highest different levels."""
    if level > top[v, k, 0]:
        top[v, k, 1] = top[v, k, 0]
        top[v, k, 0] = level
    elif top[v, k, 1] < level < top[v, k, 0]:
        top[v, k, 1] = level


@kernel
def _own(forest: Forest, levels: Levels, top: Floats, slope: Floats, ahead: Floats, behind: Floats) -> Floats:
    """Sum up what each row controls into the (N, 3) arrays given; returns the flow of each row (N, 3).

    ``top`` (N, 3, 2) gets the two highest levels at which somebody below a row stands above his lower bound.
    """
    nodes = forest.parent.shape[0]
    below = np.empty((nodes, 3))
    top[:] = 0.0
    slope[:] = 0.0
    ahead[:] = np.inf
    behind[:] = 0.0
    for v in range(nodes):
        for k in range(3):
            below[v, k] = sum_by_phase(levels.flow, v, k)
        for bits in range(1, 8):
            if levels.slope[v, bits] == 0.0 and levels.ahead[v, bits] == np.inf and levels.behind[v, bits] == 0.0:
                continue
            k = _lowest_phase(levels, v, bits)
            if levels.slope[v, bits] > 0.0 or levels.behind[v, bits] > 0.0:
                for phase in range(3):
                    if bits >> phase & 1:
                        _note(top, v, phase, levels.path[v, k])
            owner = levels.owner[v, k]
            if owner >= 0:
                slope[owner, k] += levels.slope[v, bits]
                ahead[owner, k] = min(ahead[owner, k], levels.ahead[v, bits])
                behind[owner, k] = max(behind[owner, k], levels.behind[v, bits])
    for v in range(nodes - 1, -1, -1):
        up = forest.parent[v]
        if up >= 0:
            for k in range(3):
                below[up, k] += below[v, k]
                _note(top, up, k, top[v, k, 0])
                _note(top, up, k, top[v, k, 1])
    return below


@kernel
def _step(
    forest: Forest,
    levels: Levels,
    flow: Floats,
    top: Floats,
    slope: Floats,
    ahead: Floats,
    behind: Floats,
    careful: bool,
) -> float:
    """One Newton step of every level; returns the largest share of a room that was missed before it.

    With ``careful`` no level rises past a bend where others begin to rise, too: there Newton's step would be too long.
    """
    worst = 0.0
    for v in range(flow.shape[0]):
        for k in range(3):
            room = forest.room[v, k]
            if not room < np.inf:
                continue
            slack = room - flow[v, k]
            if slack > 0.0 and slope[v, k] == 0.0 and ahead[v, k] == np.inf:
                continue  # all that it controls have what they can take
            missed = abs(slack) / room
            worst = max(worst, missed)
            if missed <= EXACT:
                continue
            if slope[v, k] > 0.0:
                level = levels.row[v, k] + slack / slope[v, k]
                if careful and level > ahead[v, k]:
                    level = ahead[v, k] * PAST
                if slack < 0.0:  # on the way down it takes control of what stood at the next level, too
                    level = max(level, top[v, k, 1] / PAST, 0.1 * levels.row[v, k])
                levels.row[v, k] = level
            elif slack > 0.0:
                levels.row[v, k] = ahead[v, k] * PAST
            elif behind[v, k] > 0.0:
                levels.row[v, k] = behind[v, k] / PAST
            else:  # what stands at lower levels overfills it: it takes control of the highest of them
                levels.row[v, k] = min(top[v, k, 0], levels.row[v, k]) / PAST
    return worst


@kernel
def _first_levels(forest: Forest, share: Floats, start: Floats, levels: Levels) -> None:
    """From the last tick's prices, where there are any: a row that held nobody then is taken to hold nobody now.

    Else each row as if it alone bound and nobody had a bound: room / sum of shares; from there levels mostly rise.
    """
    groups = np.zeros((forest.parent.shape[0], 8))
    flat = groups.reshape(-1)
    for j in range(share.shape[0]):
        flat[forest.group[j]] += share[j]
    below = np.zeros((forest.parent.shape[0], 3))
    warm = start.max() > 0.0
    for v in range(forest.parent.shape[0] - 1, -1, -1):
        for k in range(3):
            below[v, k] += sum_by_phase(groups, v, k)
            if forest.parent[v] >= 0:
                below[forest.parent[v], k] += below[v, k]
            limited = forest.room[v, k] < np.inf and below[v, k] > 0.0
            levels.row[v, k] = forest.room[v, k] / below[v, k] if limited else np.inf
            if limited and warm:
                before = start[forest.row[v, k]] / forest.weight_scale
                levels.row[v, k] = 1.0 / before if before > 0.0 else np.inf


@kernel
def fill(forest: Forest, levels: Levels, share: Floats, start: Floats, y: Floats, slope: Floats) -> int:
    """Find the levels of all rows.

    Args:
        forest: the stage.
        levels: work space; the levels on return.
        share: (k,) weight of each EVSE in reference amperes.
        start: (m,) prices to start from.
        y: (k,) the answer, written [reference A].
        slope: (N, 3) written: d flow / d level of what each row controls.

    Returns:
        Newton steps; -1 if it gave up.
    """
    nodes = forest.parent.shape[0]
    top = np.empty((nodes, 3, 2))
    ahead = np.empty((nodes, 3))
    behind = np.empty((nodes, 3))
    _first_levels(forest, share, start, levels)
    for step in range(MOST_STEPS):
        _spread(forest, levels)
        _respond(forest, share, levels, y)
        flow = _own(forest, levels, top, slope, ahead, behind)
        missed = _step(forest, levels, flow, top, slope, ahead, behind, step >= FREE_STEPS)
        if missed <= EXACT or (step > 20 and missed <= GOOD_ENOUGH):
            return step + 1
    return -1


@kernel
def _solve(
    grove: Grove, room: Floats, free: Bools, weight: Floats, lower: Floats, upper: Floats, start: Floats
) -> tuple[Floats, Floats, int]:
    """Plant, fill, read back; the price of a row that holds somebody is 1 / level."""
    forest = plant(grove, room, free, weight, lower, upper)
    nodes, evses = forest.parent.shape[0], forest.evse.shape[0]
    levels = Levels(
        np.empty((nodes, 3)),
        np.empty((nodes, 3)),
        np.empty((nodes, 3), dtype=np.int64),
        np.zeros((nodes, 8)),
        np.zeros((nodes, 8)),
        np.zeros((nodes, 8)),
        np.zeros((nodes, 8)),
    )
    y = np.empty(evses)
    slope = np.zeros((nodes, 3))
    steps = fill(forest, levels, forest.weight * forest.gain, start, y, slope)
    x = np.where(free, upper, 0.0)
    price = np.zeros(room.shape[0])
    for j in range(evses):
        i = forest.evse[j]
        x[i] = min(max(y[j] / forest.gain[j], lower[i]), upper[i])
    for v in range(nodes):
        for k in range(3):
            if forest.row[v, k] >= 0 and slope[v, k] > 0.0:
                price[forest.row[v, k]] = forest.weight_scale / levels.row[v, k]
    return x, price, steps


def fill_tree(tree: Tree, stage: Stage, start: Floats) -> Solution | None:
    """The weighted max-min answer of a stage whose rows form ``tree``; None if the levels did not settle.

    The price of a row that holds somebody is 1 / level, the marginal utility of a logarithm there; ``start`` (m,) are
    such prices of an earlier tick, all 0 = cold.
    """
    room = stage.headroom - stage.base_real
    x, price, steps = _solve(grove_of(tree), room, stage.free, stage.weight, stage.lower, stage.upper, start)
    return Solution(x=x, price=price, iterations=steps) if steps >= 0 else None
