"""Weighted max-min under any rows: everybody rises at his weight until a row above him is full.

    raise the common level t; x_i = clip(weight_i t, lower_i, upper_i) for all that still rise; when a row is full,
    those who would fill it further stay where they are; go on with the others.

This is the definition itself (Bertsekas & Gallager, Data Networks, section 6.5.2), exact for linear and for phasor
rows, whose admitted sets are closed downward. The certificate is the condition there: each EVSE is at its upper bound,
or has a *bottleneck*, a full row on which nobody above his lower bound has a higher level.
"""

from __future__ import annotations

import numpy as np

from powerd.allocation.certificate import Certificate, Path
from powerd.allocation.max_min_tree import fill_tree
from powerd.allocation.rows import Columns, add_flow
from powerd.allocation.shrink import shrink
from powerd.allocation.stage import Solution, Stage
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Limits
from powerd.units import ROW_TOLERANCE

#: Halvings of the interval in which the next row fills: from any level to the last digit.
HALVINGS = 200

#: Share of a ceiling that is rounding, of a level times a weight and of a change of unit.
ROUNDING = 1e-12

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
    columns: Columns, headroom: Floats, real: Floats, imag: Floats, x: Floats, upper: Floats, rising: Bools
) -> int:
    """End the rise of those at their upper bound and of those who would fill a full row further; how many ended."""
    flow_real, flow_imag = real.copy(), imag.copy()
    add_flow(columns, x, flow_real, flow_imag)
    ended = 0
    for i in range(x.shape[0]):
        if not rising[i]:
            continue
        stop = x[i] >= upper[i] * (1.0 - ROUNDING)
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            size = np.hypot(flow_real[r], flow_imag[r])
            further = columns.real[k] * flow_real[r] + columns.imag[k] * flow_imag[r] > 1e-12 * size
            if further and headroom[r] - size <= FULL * (1.0 + headroom[r]):
                stop = True
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
) -> tuple[Floats, int]:
    """The whole procedure; ceilings (n,) and rounds, -1 where a round ended nobody's rise."""
    rising = free.copy()
    x = np.where(free, lower, 0.0)
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
        if _hold_back(columns, headroom, real, imag, x, upper, rising) == 0:
            return x, -1
    return x, rounds


@kernel
def _shortfall(
    columns: Columns,
    headroom: Floats,
    real: Floats,
    imag: Floats,
    free: Bools,
    weight: Floats,
    lower: Floats,
    upper: Floats,
    x: Floats,
) -> tuple[float, float]:
    """Largest overshoot of a row or bound, and largest distance of an EVSE from having a bottleneck, over its range."""
    add_flow(columns, np.where(free, x, 0.0), real, imag)
    size = np.hypot(real, imag)
    highest = np.zeros(headroom.shape[0])
    primal = 0.0
    for r in range(headroom.shape[0]):
        primal = max(primal, size[r] - headroom[r])
    for i in range(x.shape[0]):
        if free[i]:
            primal = max(primal, lower[i] - x[i], x[i] - upper[i])
            if x[i] > lower[i] * (1.0 + ROUNDING):
                for k in range(columns.start[i], columns.start[i + 1]):
                    if columns.real[k] != 0.0 or columns.imag[k] != 0.0:
                        highest[columns.row[k]] = max(highest[columns.row[k]], x[i] / weight[i])
    worst = 0.0
    for i in range(x.shape[0]):
        if not free[i]:
            continue
        nearest = upper[i] - x[i]
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            along = columns.real[k] * real[r] + columns.imag[k] * imag[r]
            if along > 1e-12 * size[r]:
                spare = (headroom[r] - size[r]) * size[r] / along
                nearest = min(nearest, max(spare, weight[i] * highest[r] - x[i]))
        worst = max(worst, nearest / upper[i])
    return primal, worst


def judge_levels(stage: Stage, solution: Solution, path: Path) -> Certificate:
    """Proves a max-min answer from x alone: ``gap`` is by how much of its bound the worst EVSE lacks a bottleneck.

    A phasor row holds back only those whose current adds to what flows there.
    """
    if not np.all(np.isfinite(solution.x)):
        return Certificate(primal_residual=np.nan, dual_residual=np.nan, gap=np.nan, iterations=0, path=path)
    primal, gap = _shortfall(
        stage.rows.columns,
        stage.headroom,
        stage.base_real.copy(),
        stage.base_imag.copy(),
        stage.free,
        stage.weight,
        stage.lower,
        stage.upper,
        solution.x,
    )
    return Certificate(primal_residual=primal, dual_residual=gap, gap=gap, iterations=solution.iterations, path=path)


def rise(stage: Stage) -> Solution | None:
    """The max-min answer under any rows; None where rounding left a round without a full row."""
    x, rounds = _rise(
        stage.rows.columns,
        np.maximum(stage.headroom, np.hypot(stage.base_real, stage.base_imag) + 0.5 * ROW_TOLERANCE),
        stage.base_real,
        stage.base_imag,
        stage.free,
        stage.weight,
        stage.lower,
        stage.upper,
    )
    return Solution(x=x, price=np.zeros(stage.rows.row_count), iterations=rounds) if rounds >= 0 else None


class MaxMinSolver:
    """Solves stages by weighted max-min; a ``StageSolver``."""

    def solve(self, limits: Limits, stage: Stage, start: Floats) -> tuple[Solution, Certificate]:
        """Levels on a tree, the rise under other rows, the guard's answer at the end; ``start`` as in ``fill_tree``."""
        if limits.tree is not None:
            filled = fill_tree(limits.tree, stage, start)
            if filled is not None:
                certificate = judge_levels(stage, filled, "kernel")
                if certificate.holds:
                    return filled, certificate
        risen = rise(stage) if int(stage.free.sum()) <= LARGEST_RISE else None
        if risen is not None:
            certificate = judge_levels(stage, risen, "conic")
            if certificate.holds:
                return risen, certificate
        shrunk = shrink(stage)
        return shrunk, judge_levels(stage, shrunk, "guard")
