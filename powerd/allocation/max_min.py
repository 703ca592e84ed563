"""Weighted max-min under any rows: everybody rises at his weight until a row above him is full.

    raise the common level t; x_i = clip(weight_i t, lower_i, upper_i) for all that still rise; when a row is full,
    those who would fill it further stay where they are; go on with the others.

This is the definition itself (Bertsekas & Gallager, Data Networks, section 6.5.2), exact for linear and for phasor
rows, whose admitted sets are closed downward. The certificate is the condition there: each EVSE is at its upper bound,
or has a *bottleneck*, a full row on which nobody above his lower bound has a higher level.
"""

from __future__ import annotations

import numpy as np

from powerd.allocation.certificate import Certificate, Path, proves
from powerd.allocation.forest import Forest, Grove, grove_of, harvest, plant
from powerd.allocation.max_min_levels import settle
from powerd.allocation.max_min_tree import fill
from powerd.allocation.rows import Columns, add_flow
from powerd.allocation.shrink import shrink
from powerd.allocation.stage import Solution, Stage
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Limits, Tree
from powerd.units import ROW_TOLERANCE

#: Halvings of the interval in which the next row fills: from any level to the last digit.
HALVINGS = 200

#: Share of a ceiling that is rounding, of a level times a weight and of a change of unit.
ROUNDING = 1e-12

#: Share of an EVSE's current that has to add to a row's flow for the row to hold it back.
ALONG = 1e-12

#: EVSEs beyond which the rise would take longer than a tick.
LARGEST_RISE = 2000

#: Share of its headroom (and one unit more) by which a row counts as full.
FULL = 1e-11


@kernel
def _at_level(weight: Floats, lower: Floats, upper: Floats, rising: Bools, held: Floats, level: float) -> Floats:
    """(n,) ceilings when those that rise stand at ``level``."""
    x = held.copy()
    for i in range(x.shape[0]):
        if rising[i]:
            x[i] = min(max(weight[i] * level, lower[i]), upper[i])
    return x


@kernel
def _fits(columns: Columns, headroom: Floats, real: Floats, imag: Floats, x: Floats) -> bool:
    """Whether all rows hold, the base being (real, imag)."""
    flow_real, flow_imag = real.copy(), imag.copy()
    add_flow(columns, x, flow_real, flow_imag)
    return bool(np.all(np.hypot(flow_real, flow_imag) <= headroom))


@kernel
def _hold_back(
    columns: Columns,
    headroom: Floats,
    real: Floats,
    imag: Floats,
    x: Floats,
    upper: Floats,
    rising: Bools,
    level: float,
    price: Floats,
) -> int:
    """End the rise of those at their upper bound and of those who would fill a full row further; how many ended.

    The ``price`` of a row that stops somebody below his upper bound becomes 1 / level, as on a tree.
    """
    flow_real, flow_imag = real.copy(), imag.copy()
    add_flow(columns, x, flow_real, flow_imag)
    ended = 0
    for i in range(x.shape[0]):
        if not rising[i]:
            continue
        most = x[i] >= upper[i] * (1.0 - ROUNDING)
        stop = most
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            size = np.hypot(flow_real[r], flow_imag[r])
            further = columns.real[k] * flow_real[r] + columns.imag[k] * flow_imag[r] > 1e-12 * size
            if further and headroom[r] - size <= FULL * (1.0 + headroom[r]):
                stop = True
                if not most and price[r] == 0.0 and level > 0.0:
                    price[r] = 1.0 / level
        if stop:
            rising[i] = False
            ended += 1
    return ended


@kernel
def _rise(
    columns: Columns,
    headroom: Floats,
    real: Floats,
    imag: Floats,
    free: Bools,
    weight: Floats,
    lower: Floats,
    upper: Floats,
) -> tuple[Floats, Floats, int]:
    """The whole procedure; ceilings (n,), row prices (m,) and rounds, -1 where a round ended nobody's rise."""
    rising = free.copy()
    x = np.where(free, lower, 0.0)
    price = np.zeros(headroom.shape[0])
    level = 0.0
    rounds = 0
    while rising.any():
        rounds += 1
        top = level
        for i in range(x.shape[0]):
            if rising[i]:
                top = max(top, upper[i] / weight[i])
        good, bad = level, top
        if _fits(columns, headroom, real, imag, _at_level(weight, lower, upper, rising, x, top)):
            good = top
        else:
            for _ in range(HALVINGS):
                middle = 0.5 * (good + bad)
                if middle <= good or middle >= bad:
                    break
                if _fits(columns, headroom, real, imag, _at_level(weight, lower, upper, rising, x, middle)):
                    good = middle
                else:
                    bad = middle
        level = good
        x = _at_level(weight, lower, upper, rising, x, level)
        if _hold_back(columns, headroom, real, imag, x, upper, rising, level, price) == 0:
            return x, price, -1
    return x, price, rounds


@kernel
def _highest(
    columns: Columns, members: Ints, weight: Floats, lower: Floats, x: Floats, real: Floats, imag: Floats
) -> Floats:
    """Add the flows of ``x``; (m,) the highest level of one above his lower bound, per row."""
    highest = np.zeros(real.shape[0])
    start, row = columns.start, columns.row
    for position in range(members.shape[0]):
        i = members[position]
        level = x[i] / weight[i] if x[i] > lower[i] * (1.0 + ROUNDING) else 0.0
        for k in range(start[i], start[i + 1]):
            real[row[k]] += columns.real[k] * x[i]
            if not columns.is_linear:
                imag[row[k]] += columns.imag[k] * x[i]
            if columns.real[k] != 0.0 or columns.imag[k] != 0.0:
                highest[row[k]] = max(highest[row[k]], level)
    return highest


@kernel
def _shortfall(
    columns: Columns,
    members: Ints,
    weight: Floats,
    lower: Floats,
    upper: Floats,
    headroom: Floats,
    real: Floats,
    imag: Floats,
    x: Floats,
) -> tuple[float, float]:
    """Largest overshoot of a row or bound, and largest distance of an EVSE from having a bottleneck, over its range."""
    highest = _highest(columns, members, weight, lower, x, real, imag)
    size, spare = np.hypot(real, imag), np.empty(headroom.shape[0])
    primal = 0.0
    for r in range(headroom.shape[0]):
        spare[r] = headroom[r] - size[r]
        primal = max(primal, -spare[r])
        real[r] = real[r] / size[r] if size[r] > 0.0 else 0.0  # from here on the flow's direction
        imag[r] = imag[r] / size[r] if size[r] > 0.0 else 0.0
    worst = 0.0
    for position in range(members.shape[0]):
        i = members[position]
        if not np.isfinite(x[i]):
            return np.nan, np.nan
        primal = max(primal, lower[i] - x[i], x[i] - upper[i])
        nearest = upper[i] - x[i]
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            above = weight[i] * highest[r] - x[i]
            if above < nearest:
                along = columns.real[k] * real[r] + columns.imag[k] * imag[r]
                if along > ALONG and spare[r] < nearest * along:
                    nearest = max(spare[r] / along, above)
        worst = max(worst, nearest / upper[i])
    return primal, worst


def judge_levels(stage: Stage, solution: Solution, path: Path) -> Certificate:
    """Proves a max-min answer from x alone: ``gap`` is by how much of its bound the worst EVSE lacks a bottleneck.

    A phasor row holds back only those whose current adds to what flows there.
    """
    primal, gap = _shortfall(
        stage.rows.columns,
        stage.free.nonzero()[0],
        stage.weight,
        stage.lower,
        stage.upper,
        stage.headroom,
        stage.base_real.copy(),
        stage.base_imag.copy(),
        solution.x,
    )
    return Certificate(primal_residual=primal, dual_residual=gap, gap=gap, iterations=solution.iterations, path=path)


@kernel
def _prices_of(forest: Forest, rows: int) -> Floats:
    """(m,) row prices, 1 / level."""
    price = np.zeros(rows)
    for v in range(forest.nodes.shape[0]):
        for k in range(3):
            r = forest.nodes[v]["row"][k]
            if r >= 0:
                price[r] = forest.nodes[v]["price"][k]
    return price


@kernel
def _answer_and_judge(
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
) -> tuple[Floats, Floats, int, float, float]:
    """Ceilings (n,), row prices (m,), rounds, and the certificate's primal residual and gap.

    From the last tick's levels where they lead to an answer that proves itself, else by filling.
    """
    forest = plant(grove, headroom - base_real, free, weight, lower, upper)
    y, rounds = settle(forest, start)
    x, primal, gap = upper, np.inf, np.inf
    for settled in (True, False):
        if not settled:
            y, rounds = fill(forest)
        if rounds >= 0:
            x = harvest(forest, y, free, lower, upper)
            real, imag = base_real.copy(), base_imag.copy()
            primal, gap = _shortfall(columns, members, weight, lower, upper, headroom, real, imag, x)
            if proves(primal, gap):
                break
    return x, _prices_of(forest, headroom.shape[0]), rounds, primal, gap


def solve_levels(tree: Tree, stage: Stage, start: Floats) -> tuple[Solution, Certificate]:
    """The weighted max-min answer of a stage whose rows form ``tree``, and its certificate.

    The price of a row that holds somebody is 1 / level, the marginal utility of a logarithm there; ``start`` (m,) are
    those of the last tick, 0 = cold.
    """
    x, price, rounds, primal, gap = _answer_and_judge(
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
    certificate = Certificate(primal_residual=primal, dual_residual=gap, gap=gap, iterations=rounds, path="kernel")
    return Solution(x=x, price=price, iterations=rounds), certificate


def rise(stage: Stage) -> Solution | None:
    """The max-min answer under any rows; None where rounding left a round without a full row."""
    x, price, rounds = _rise(
        stage.rows.columns,
        np.maximum(stage.headroom, np.hypot(stage.base_real, stage.base_imag) + 0.5 * ROW_TOLERANCE),
        stage.base_real,
        stage.base_imag,
        stage.free,
        stage.weight,
        stage.lower,
        stage.upper,
    )
    return Solution(x=x, price=price, iterations=rounds) if rounds >= 0 else None


class MaxMinSolver:
    """Solves stages by weighted max-min; a ``StageSolver``."""

    by_level = True

    def solve(self, limits: Limits, stage: Stage, start: Floats) -> tuple[Solution, Certificate]:
        """On a tree from the levels of ``start``, else by filling; the rise under other rows; at the end the guard."""
        if limits.tree is not None:
            filled = solve_levels(limits.tree, stage, start)
            if filled[1].holds:
                return filled
        risen = rise(stage) if int(stage.free.sum()) <= LARGEST_RISE else None
        if risen is not None:
            certificate = judge_levels(stage, risen, "conic")
            if certificate.holds:
                return risen, certificate
        shrunk = shrink(stage)
        return shrunk, judge_levels(stage, shrunk, "guard")
