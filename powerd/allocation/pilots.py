"""Real chargers: 0 or at least the car's minimum, and pilot steps.

``choose_on`` picks who charges when not all minima fit. ``to_steps`` turns the continuous optimum into pilot steps and
hands the remainder out where a step is worth most; it never leaves a row or an upper bound.
"""

from __future__ import annotations

import heapq

import numpy as np

from powerd.allocation.guard_kernels import add_column, column_fits, largest_step
from powerd.allocation.rows import Columns
from powerd.allocation.steps import SNAP, PilotSteps, is_continuous, step_down, step_up
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints

#: A solver may stop this far short of a step that is optimal; such a step is offered back first [own unit].
SOLVER_ROUNDING = 1e-6
#: Largest class in which pairs exchange steps: 64 x 64 tries cost 0.1 ms; in larger ones a step is little of the whole.
EXCHANGE_MEMBERS = 64
#: Classes up to this size look at exchanges of more than two steps, up to the second number.
DEEP_MEMBERS, DEEP_STEPS = 16, 32
#: Most rounds of exchanges, so that the time is bounded; two or three settle nearly every case.
EXCHANGE_ROUNDS = 8
#: Smallest utility per weight worth an exchange: equal cars must not swap steps by rounding.
GAIN_MIN = 1e-9


@kernel
def choose_on(
    columns: Columns,
    headroom: Floats,
    candidates: Ints,
    needed: Floats,
    reserved: Floats,
    overdue: Bools,
    real: Floats,
    imag: Floats,
) -> Bools:
    """Who of ``candidates`` (first served first) gets its minimum: each one that still fits beside those before it.

    The minimum of an overdue one that would fit alone is counted even while it does not fit, so that those behind it
    cannot keep it out for ever; without overdue ones nobody could be added to the answer.

    Args:
        columns: rows by EVSE.
        headroom: (m,) what the rows may carry.
        candidates: EVSE indices in the order of service.
        needed: (n,) smallest ceiling above 0 [own unit].
        reserved: (n,) part of it that the flows already hold.
        overdue: (n,) whose minimum is kept free.
        real: (m,) flow of everything decided so far; grows in place by what is switched on.
        imag: (m,) likewise.

    Returns:
        (n,) True for those switched on.
    """
    on = np.zeros(needed.shape[0], dtype=np.bool_)
    alone_real, alone_imag = real.copy(), imag.copy()
    for position in range(candidates.shape[0]):
        i = candidates[position]
        step = max(needed[i] - reserved[i], 0.0)
        if step == 0.0:
            on[i] = True
        elif column_fits(columns, i, step, headroom, real, imag):
            add_column(columns, i, step, real, imag)
            on[i] = True
        elif overdue[i] and column_fits(columns, i, step, headroom, alone_real, alone_imag):
            add_column(columns, i, step, real, imag)
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
def _turn(by_level: bool, weight: float, now: float, after: float, cost: float) -> float:
    """Whose step goes first, the smallest: by level the lowest x / weight, else the most utility per cost."""
    return now / weight if by_level else _rank(weight, now, after, cost)


@kernel
def _next_step(steps: PilotSteps, i: int, x: float) -> float:
    """The step after ``x``, which is itself a step; infinite after the last."""
    return step_up(steps, i, x + 2.0 * SNAP)


@kernel
def _more(floor: Floats, i: int, x: float, after: float) -> float:
    """By how much more EVSE ``i`` counts at ``after`` than at ``x``: rows count max(ceiling, floor) [own unit]."""
    more: float = max(after, floor[i]) - max(x, floor[i])
    return more


@kernel
def _round_down(
    columns: Columns,
    members: Ints,
    x: Floats,
    least: Floats,
    floor: Floats,
    steps: PilotSteps,
    real: Floats,
    imag: Floats,
) -> None:
    """Every member to the step below its optimum, at least its smallest; ``x`` and the flows in place."""
    for position in range(members.shape[0]):
        i = members[position]
        x[i] = x[i] if is_continuous(steps, i) else max(least[i], step_down(steps, i, x[i]))
        add_column(columns, i, max(x[i], floor[i]), real, imag)


@kernel
def _raise_by_steps(
    columns: Columns,
    headroom: Floats,
    members: Ints,
    x: Floats,
    optimum: Floats,
    floor: Floats,
    upper: Floats,
    weight: Floats,
    price: Floats,
    steps: PilotSteps,
    by_level: bool,
    real: Floats,
    imag: Floats,
) -> None:
    """Hand out single steps, best first, until none fits; ``x`` and the flows in place.

    A step that the optimum itself takes up to the solver's rounding goes before all others.
    """
    queue = [(0.0, 0, 0) for _ in range(0)]
    for position in range(members.shape[0]):
        i = members[position]
        if is_continuous(steps, i):
            continue
        after = _next_step(steps, i, x[i])
        if after > upper[i] or not column_fits(columns, i, _more(floor, i, x[i], after), headroom, real, imag):
            continue
        rank = -np.inf
        if after > optimum[i] + SOLVER_ROUNDING:
            rank = _turn(by_level, weight[i], x[i], after, _cost(columns, i, price, real, imag))
        queue.append((rank, position, i))
    if len(queue) == 0:
        return
    heapq.heapify(queue)
    while len(queue) > 0:
        _, position, i = heapq.heappop(queue)
        after = _next_step(steps, i, x[i])
        if not column_fits(columns, i, _more(floor, i, x[i], after), headroom, real, imag):
            continue
        add_column(columns, i, _more(floor, i, x[i], after), real, imag)
        x[i] = after
        after = _next_step(steps, i, x[i])
        if after <= upper[i] and column_fits(columns, i, _more(floor, i, x[i], after), headroom, real, imag):
            rank = _turn(by_level, weight[i], x[i], after, _cost(columns, i, price, real, imag))
            heapq.heappush(queue, (rank, position, i))


@kernel
def _previous_step(steps: PilotSteps, i: int, x: float) -> float:
    """The step before ``x``, which is itself a step; 0 before the first."""
    return step_down(steps, i, x - 2.0 * SNAP)


@kernel
def _furthest(
    columns: Columns,
    headroom: Floats,
    i: int,
    x: float,
    floor: Floats,
    upper: float,
    steps: PilotSteps,
    real: Floats,
    imag: Floats,
) -> float:
    """Largest step of EVSE ``i`` from ``x`` up to which every row holds."""
    reached = x
    while True:
        after = _next_step(steps, i, reached)
        if after > upper or not column_fits(columns, i, _more(floor, i, x, after), headroom, real, imag):
            return reached
        reached = after


@kernel
def _could_pay(
    by_level: bool, weight_i: float, now_i: float, before: float, weight_j: float, now_j: float, most: float
) -> bool:
    """Whether EVSE i may go down to ``before`` for j: by level it stays above j, else j's utility can outweigh it."""
    if by_level:
        return before / weight_i > now_j / weight_j
    return bool(most + weight_i * np.log(before / now_i) > 0.0)


@kernel
def _pays(
    by_level: bool, weight_i: float, now_i: float, before: float, weight_j: float, now_j: float, after: float
) -> bool:
    """Whether the pair is better off: by level the lower of both is higher, else the sum of w log x is larger."""
    if by_level:
        lowest = min(now_i / weight_i, now_j / weight_j)
        return min(before / weight_i, after / weight_j) > lowest * (1.0 + GAIN_MIN)
    gain = weight_j * np.log(after / now_j) + weight_i * np.log(before / now_i)
    return bool(gain > GAIN_MIN * (weight_i + weight_j))


@kernel
def _exchange(
    columns: Columns,
    headroom: Floats,
    members: Ints,
    x: Floats,
    least: Floats,
    floor: Floats,
    upper: Floats,
    weight: Floats,
    steps: PilotSteps,
    by_level: bool,
    real: Floats,
    imag: Floats,
) -> bool:
    """Each pair once: a few steps less for one, as many more as fit for the other, where that gains; in place.

    Few is two, in the smallest classes as many as could pay. By level the other rises by one step: who is lowest is
    raised first, and that may be a third one.

    Returns:
        Whether anything changed.
    """
    changed = False
    for receiving in range(members.shape[0]):
        j = members[receiving]
        if is_continuous(steps, j):
            continue
        for giving in range(members.shape[0]):
            i = members[giving]
            if i == j or is_continuous(steps, i):
                continue
            before = x[i]
            most = upper[j] / weight[j] if by_level else weight[j] * np.log(upper[j] / x[j])
            for _ in range(DEEP_STEPS if members.shape[0] <= DEEP_MEMBERS else 2):
                before = _previous_step(steps, i, before)
                if before <= 0.0 or before < least[i] or _next_step(steps, j, x[j]) > upper[j]:
                    break
                if not _could_pay(by_level, weight[i], x[i], before, weight[j], x[j], most):
                    break
                add_column(columns, i, _more(floor, i, x[i], before), real, imag)
                most_now = min(upper[j], _next_step(steps, j, x[j])) if by_level else upper[j]
                after = _furthest(columns, headroom, j, x[j], floor, most_now, steps, real, imag)
                if _pays(by_level, weight[i], x[i], before, weight[j], x[j], after):
                    add_column(columns, j, _more(floor, j, x[j], after), real, imag)
                    x[i], x[j] = before, after
                    changed = True
                    break
                add_column(columns, i, _more(floor, i, before, x[i]), real, imag)
    return changed


@kernel
def to_steps(
    columns: Columns,
    headroom: Floats,
    members: Ints,
    x: Floats,
    least: Floats,
    floor: Floats,
    upper: Floats,
    weight: Floats,
    price: Floats,
    steps: PilotSteps,
    by_level: bool,
    real: Floats,
    imag: Floats,
) -> Floats:
    """Round the EVSEs of ``members`` down to their steps, then raise them step by step while the rows hold.

    The next step goes where it gains most utility per cost (the row prices of the optimum): greedy, exact on a single
    row with equal steps (concave separable resource allocation, Fox 1966). By level (weighted max-min) it goes to the
    lowest x / weight for which one still fits, and an exchange has to raise the lower of the two. Continuous posts
    take what is left last.
    Near-linear: one look at every coefficient to round down, and a queue of those for whom a step still fits.

    Args:
        columns: rows by EVSE.
        headroom: (m,) what the rows may carry.
        members: EVSE indices that are on, in the order of service.
        x: (n,) continuous optimum; changed in place.
        least: (n,) smallest ceiling above 0, on a step.
        floor: (n,) what the rows count of each at least.
        upper: (n,) largest ceiling.
        weight: (n,) utility weight.
        price: (m,) row prices of the optimum.
        steps: pilot steps.
        by_level: whether the optimum is the max-min one.
        real: (m,) row flows without the members; in place, with them on return.
        imag: (m,) likewise.

    Returns:
        ``x``.
    """
    optimum = x.copy()
    _round_down(columns, members, x, least, floor, steps, real, imag)
    _raise_by_steps(columns, headroom, members, x, optimum, floor, upper, weight, price, steps, by_level, real, imag)
    rounds = EXCHANGE_ROUNDS if members.shape[0] <= EXCHANGE_MEMBERS else 0
    for _ in range(rounds):
        if not _exchange(columns, headroom, members, x, least, floor, upper, weight, steps, by_level, real, imag):
            break
        _raise_by_steps(columns, headroom, members, x, x, floor, upper, weight, price, steps, by_level, real, imag)
    for position in range(members.shape[0]):
        i = members[position]
        if is_continuous(steps, i):
            raised = min(upper[i], max(x[i], floor[i]) + largest_step(columns, i, headroom, real, imag))
            if raised > x[i] and column_fits(columns, i, _more(floor, i, x[i], raised), headroom, real, imag):
                add_column(columns, i, _more(floor, i, x[i], raised), real, imag)
                x[i] = raised
    return x
