"""Real chargers: 0 or at least the car's minimum, and pilot steps.

``choose_on`` picks who charges when not all minima fit. ``to_steps`` turns the continuous optimum into pilot steps and
hands the remainder out where a step is worth most; it never leaves a row or an upper bound.
"""

from __future__ import annotations

import heapq

import numpy as np

from powerd.allocation.guard_kernels import add_column, column_fits, largest_step
from powerd.allocation.rows import Columns
from powerd.allocation.steps import SNAP, PilotSteps, step_down, step_up
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints

#: A solver may stop this far short of a step that is optimal; such a step is offered back first [own unit].
SOLVER_ROUNDING = 1e-6


@kernel
def choose_on(
    columns: Columns,
    headroom: Floats,
    candidates: Ints,
    needed: Floats,
    reserved: Floats,
    real: Floats,
    imag: Floats,
) -> Bools:
    """Who of ``candidates`` (first served first) gets its minimum: each one that still fits; no other could be added.

    Args:
        columns: rows by EVSE.
        headroom: (m,) what the rows may carry.
        candidates: EVSE indices in the order of service.
        needed: (n,) smallest ceiling above 0 [own unit].
        reserved: (n,) part of it that the flows already hold.
        real: (m,) flow of everything decided so far; grows in place by what is switched on.
        imag: (m,) likewise.

    Returns:
        (n,) True for those switched on.
    """
    on = np.zeros(needed.shape[0], dtype=np.bool_)
    for position in range(candidates.shape[0]):
        i = candidates[position]
        step = max(needed[i] - reserved[i], 0.0)
        if step == 0.0:
            on[i] = True
        elif column_fits(columns, i, step, headroom, real, imag):
            add_column(columns, i, step, real, imag)
            on[i] = True
    return on


@kernel
def _cost(columns: Columns, i: int, price: Floats, real: Floats, imag: Floats) -> float:
    """Marginal cost of one own unit of EVSE ``i``: sum of price x d|flow| / d x_i [utility / own unit]."""
    cost = 0.0
    for k in range(columns.start[i], columns.start[i + 1]):
        r = columns.row[k]
        if price[r] > 0.0:
            size = np.hypot(real[r], imag[r])
            if columns.imag[k] == 0.0 and imag[r] == 0.0:
                cost += price[r] * columns.real[k]
            elif size > 0.0:
                cost += price[r] * (columns.real[k] * real[r] + columns.imag[k] * imag[r]) / size
    return cost


@kernel
def _rank(weight: float, now: float, after: float, cost: float) -> float:
    """Negative utility gained per cost of going from ``now`` to ``after``; the smallest goes first."""
    gain = weight * np.log(after / now) / (after - now) if now > 0.0 else np.inf
    return -gain / cost if cost > 0.0 else -np.inf


@kernel
def _next_step(steps: PilotSteps, i: int, x: float) -> float:
    """The step after ``x``, which is itself a step; infinite after the last."""
    return step_up(steps, i, x + 2.0 * SNAP)


@kernel
def to_steps(
    columns: Columns,
    headroom: Floats,
    members: Ints,
    x: Floats,
    least: Floats,
    upper: Floats,
    weight: Floats,
    price: Floats,
    steps: PilotSteps,
    real: Floats,
    imag: Floats,
) -> Floats:
    """Round the EVSEs of ``members`` down to their steps, then raise them step by step while the rows hold.

    The next step goes where it gains most utility per cost (the row prices of the optimum): greedy, exact on a single
    row with equal steps (concave separable resource allocation, Fox 1966). Continuous posts take what is left last.

    Args:
        columns: rows by EVSE.
        headroom: (m,) what the rows may carry.
        members: EVSE indices that are on, in the order of service.
        x: (n,) continuous optimum; changed in place.
        least: (n,) smallest ceiling above 0, on a step.
        upper: (n,) largest ceiling.
        weight: (n,) utility weight.
        price: (m,) row prices of the optimum.
        steps: pilot steps.
        real: (m,) row flows without the members; in place, with them on return.
        imag: (m,) likewise.

    Returns:
        ``x``.
    """
    queue = [(0.0, 0, 0) for _ in range(0)]
    for position in range(members.shape[0]):
        i = members[position]
        optimum = x[i]
        if steps.start[i] < steps.start[i + 1]:
            x[i] = max(least[i], step_down(steps, i, optimum))
            after = _next_step(steps, i, x[i])
            if after <= upper[i]:
                rank = -np.inf if after <= optimum + SOLVER_ROUNDING else 0.0
                queue.append((rank, position, i))
        add_column(columns, i, x[i], real, imag)
    for entry in range(len(queue)):
        rank, position, i = queue[entry]
        if rank == 0.0:
            rank = _rank(weight[i], x[i], _next_step(steps, i, x[i]), _cost(columns, i, price, real, imag))
            queue[entry] = (rank, position, i)
    if len(queue) == 0:
        return x
    heapq.heapify(queue)
    while len(queue) > 0:
        _, position, i = heapq.heappop(queue)
        after = _next_step(steps, i, x[i])
        if not column_fits(columns, i, after - x[i], headroom, real, imag):
            continue
        add_column(columns, i, after - x[i], real, imag)
        x[i] = after
        after = _next_step(steps, i, x[i])
        if after <= upper[i]:
            heapq.heappush(queue, (_rank(weight[i], x[i], after, _cost(columns, i, price, real, imag)), position, i))
    for position in range(members.shape[0]):
        i = members[position]
        if steps.start[i] == steps.start[i + 1]:
            raised = min(upper[i], x[i] + largest_step(columns, i, headroom, real, imag))
            if raised > x[i] and column_fits(columns, i, raised - x[i], headroom, real, imag):
                add_column(columns, i, raised - x[i], real, imag)
                x[i] = raised
    return x
