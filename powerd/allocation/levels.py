"""The turns of a class, compiled: who is on, what nobody contests, the stage, its proof, and what is written down.

Everything here touches only the EVSEs of the class and the rows that they load, and keeps the row flows up to date
instead of summing them anew: a tick is a few passes over the EVSEs, however many stages it has.
"""

from __future__ import annotations

import numpy as np

from powerd.allocation.certificate import proves
from powerd.allocation.explain import close_class
from powerd.allocation.forest import Grove
from powerd.allocation.guard_kernels import add_column, overdrawn_limits, under_limit
from powerd.allocation.ledger import Book, Ledger, Service, ledger_of
from powerd.allocation.pilots import choose_on, to_steps
from powerd.allocation.rows import add_flow, size_of
from powerd.allocation.steps import PilotSteps, step_down
from powerd.allocation.tree_kernel import solve_and_judge
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints
from powerd.units import ROW_TOLERANCE

#: The levels of a class, in order: up to what the schedule wants, then what is left.
TARGET, SURPLUS, LEVELS = 0, 1, 2

#: Its turns: the levels, then pilot steps, and what is written down of it.
CLOSING, TURNS = LEVELS, LEVELS + 1

#: A row with more room than this after its stage stopped nobody: what a solver says of its price is noise, for a price
#: times the row's room is 0 at the optimum [limit unit].
ROOM_LEFT = 1e-3


@kernel
def _give(ledger: Ledger, chosen: Ints, x: Floats) -> None:
    """Write the ceilings ``x`` (n,) of the chosen EVSEs and count them in the rows."""
    columns, real, imag, counted = ledger.columns, ledger.real, ledger.imag, ledger.counted
    for i in chosen:
        ledger.x[i] = x[i]
        counts = max(x[i], ledger.floor[i])
        if counts != counted[i]:
            add_column(columns, i, counts - counted[i], real, imag)
            counted[i] = counts


@kernel
def _participants(ledger: Ledger, order: Ints, level: int) -> Ints:
    """Who has a say in this level: at the target level those for whom the schedule wants something."""
    if level == SURPLUS:
        return order
    below = False
    for i in order:
        below = below or ledger.target[i] < ledger.upper[i]
    scheduled = order[ledger.target[order] > 0.0]
    return scheduled if below else order[:0]


@kernel
def _switch_on(ledger: Ledger, order: Ints, steps: PilotSteps) -> None:
    """Of those that are off, switch on whose minimum fits, first served first; with what its first grant opens."""
    waiting = order[~ledger.on[order]]
    if waiting.shape[0] == 0:
        return
    real, imag = ledger.real.copy(), ledger.imag.copy()
    needed = np.maximum(ledger.least, ledger.opens)
    chosen = choose_on(ledger.columns, ledger.headroom, waiting, needed, ledger.counted, ledger.overdue, real, imag)
    for i in waiting:
        ledger.on[i] = chosen[i]
        if chosen[i] and ledger.opens[i] > ledger.floor[i]:
            ledger.floor[i] = ledger.opens[i]
            ledger.free_floor[i] = step_down(steps, i, min(ledger.floor[i], ledger.upper[i]))
            add_column(ledger.columns, i, ledger.floor[i] - ledger.counted[i], ledger.real, ledger.imag)
            ledger.counted[i] = ledger.floor[i]


@kernel
def _bound(ledger: Ledger, taking: Ints, level: int) -> None:
    """Write the bounds of this level, and give everybody the lower one."""
    upper, least, lower = ledger.upper, ledger.least, ledger.lower
    for i in taking:
        ceiling = upper[i] if level == SURPLUS else min(max(ledger.target[i], least[i]), upper[i])
        lower[i] = max(ledger.x[i], least[i], min(ledger.free_floor[i], ceiling))
        ledger.ceiling[i] = max(lower[i], ceiling)
    _give(ledger, taking, lower)


@kernel
def _contested_limits(ledger: Ledger, taking: Ints) -> Bools:
    """(L,) True for limits that would not hold if all of ``taking`` got their ceiling."""
    real, imag = ledger.real.copy(), ledger.imag.copy()
    columns, ceiling, counted = ledger.columns, ledger.ceiling, ledger.counted
    for i in taking:
        if ceiling[i] > counted[i]:
            add_column(columns, i, ceiling[i] - counted[i], real, imag)
    return overdrawn_limits(ledger.limit_of_row, ledger.headroom, ledger.limit_count, real, imag)


@kernel
def _full_limits(ledger: Ledger) -> Bools:
    """(L,) True for limits with a row without room: nobody under them can rise, they leave the problem."""
    full = np.zeros(ledger.limit_count, dtype=np.bool_)
    headroom, real, imag = ledger.headroom, ledger.real, ledger.imag
    for r in range(headroom.shape[0]):
        if headroom[r] - size_of(real[r], imag[r]) <= ROW_TOLERANCE:
            full[ledger.limit_of_row[r]] = True
    return full


@kernel
def _take_out(ledger: Ledger, taking: Ints) -> Ints:
    """Take the free EVSEs of ``taking`` out of the flows, and say which they are."""
    members: Ints = taking[ledger.free[taking]]
    columns, counted, real, imag = ledger.columns, ledger.counted, ledger.real, ledger.imag
    for i in members:
        add_column(columns, i, -counted[i], real, imag)
    return members


@kernel
def open_level(ledger: Ledger, order: Ints, level: int, steps: PilotSteps) -> Ints:
    """Begin a level of a class: decide all that needs no optimisation.

    Args:
        ledger: changed in place; ``lower``, ``ceiling`` and ``free`` describe the stage that remains, and its EVSEs are
            taken out of the flows.
        order: the class, first served first.
        level: ``TARGET`` or ``SURPLUS``.
        steps: pilot steps.

    Returns:
        The EVSEs that the stage is about; none = the level is done.
    """
    participants = _participants(ledger, order, level)
    _switch_on(ledger, participants, steps)
    taking = participants[ledger.on[participants]]
    _bound(ledger, taking, level)
    contested = _contested_limits(ledger, taking)
    if not contested.any():
        _give(ledger, taking, ledger.ceiling)
        return order[:0]
    columns, limit_of_row, free = ledger.columns, ledger.limit_of_row, ledger.free
    for i in taking:
        free[i] = under_limit(columns, limit_of_row, i, contested)
    _give(ledger, taking[~free[taking]], ledger.ceiling)
    full = _full_limits(ledger)
    for i in taking:
        rises = free[i] and ledger.ceiling[i] > ledger.lower[i] + ROW_TOLERANCE
        free[i] = rises and not under_limit(columns, limit_of_row, i, full)
    return _take_out(ledger, taking)


@kernel
def close_level(ledger: Ledger, members: Ints, x: Floats, price: Floats) -> None:
    """Write down what a stage decided, and bring its EVSEs back into the flows."""
    for i in members:
        ledger.free[i] = False
        ledger.counted[i] = 0.0
    _give(ledger, members, x)
    for r in range(price.shape[0]):
        if price[r] > 0.0 and ledger.headroom[r] - size_of(ledger.real[r], ledger.imag[r]) <= ROOM_LEFT:
            ledger.price[r] = price[r]


@kernel
def close_stage(book: Book, members: Ints, x: Floats, price: Floats) -> None:
    """``close_level`` for a stage that another path solved."""
    close_level(ledger_of(book), members, x, price)


@kernel
def _solve_level(
    ledger: Ledger, grove: Grove, members: Ints, start: Floats, price: Floats, figures: Floats
) -> tuple[Floats, bool]:
    """The kernel's answer to the open level, and whether it proves itself; ``price`` is written, ``figures`` grow."""
    x, price[:], steps, primal, dual, gap = solve_and_judge(
        ledger.columns,
        grove,
        members,
        ledger.weight,
        ledger.lower,
        ledger.ceiling,
        ledger.free,
        ledger.headroom,
        ledger.real,
        ledger.imag,
        start,
    )
    proven = steps >= 0 and proves(primal, gap)
    if proven:
        figures[0] += steps
        figures[1] = max(figures[1], primal)
        figures[2] = max(figures[2], dual)
        figures[3] = max(figures[3], gap)
    return x, proven


@kernel
def _round(ledger: Ledger, order: Ints, steps: PilotSteps, by_level: bool) -> None:
    """Put those of a class that are on to pilot steps, hand its remainder out in steps, and count all flows anew."""
    on = order[ledger.on[order]]
    others = ledger.counted.copy()
    others[on] = 0.0
    real, imag = np.zeros_like(ledger.real), np.zeros_like(ledger.imag)
    add_flow(ledger.columns, others, real, imag)
    to_steps(
        ledger.columns,
        ledger.headroom,
        on,
        ledger.x,
        np.maximum(ledger.least, ledger.free_floor),
        ledger.floor,
        ledger.upper,
        ledger.weight,
        ledger.price,
        steps,
        by_level,
        real,
        imag,
    )
    ledger.counted[:] = np.maximum(ledger.x, ledger.floor)
    ledger.real[:] = 0.0
    ledger.imag[:] = 0.0
    add_flow(ledger.columns, ledger.counted, ledger.real, ledger.imag)


@kernel
def serve(
    book: Book,
    grove: Grove,
    service: Service,
    steps: PilotSteps,
    by_level: bool,
    first: int,
    start: Floats,
    price: Floats,
    figures: Floats,
) -> int:
    """Take turn after turn: turn t is ``TARGET``, ``SURPLUS`` or ``CLOSING`` (t % TURNS) of class t // TURNS.

    Args:
        book: the account; changed in place.
        grove: the limits as a tree; without nodes where they are none.
        service: who is served, class after class.
        steps: pilot steps.
        by_level: whether steps are handed out by level (weighted max-min) instead of by utility.
        first: turn to begin with.
        start: (S, m) row prices to start the S stages from; level l of class c is stage c * LEVELS + l.
        price: (S, m) written: their row prices, where a stage was solved.
        figures: (4,) steps in all, worst primal residual, dual residual and gap; they grow.

    Returns:
        The turn whose stage another path has to solve, which is open then; -1 when all is done.
    """
    ledger = ledger_of(book)
    begin = service.begin
    for turn in range(first, TURNS * (begin.shape[0] - 1)):
        place, level = turn // TURNS, turn % TURNS
        order = service.evse[begin[place] : begin[place + 1]]
        if level == CLOSING:
            if steps.value.shape[0] > 0:
                _round(ledger, order, steps, by_level)
            close_class(ledger, order)
            continue
        members = open_level(ledger, order, level, steps)
        if members.shape[0] == 0:
            continue
        if grove.spots.shape[0] == 0:
            return turn
        stage = place * LEVELS + level
        x, proven = _solve_level(ledger, grove, members, start[stage], price[stage], figures)
        if not proven:
            return turn
        close_level(ledger, members, x, price[stage])
    return -1
