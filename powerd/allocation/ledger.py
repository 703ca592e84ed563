"""The running account of one allocation: who is on, what is decided, and what the rows already carry.

Between kernels it is a ``Book`` of three tables: each array that is handed to a kernel or back costs as much as the
work on some dozen EVSEs. Inside, ``Ledger`` names their lines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.allocation.demands import Demands
from powerd.allocation.guard_kernels import least_ceiling, overdrawn_limits, under_limits
from powerd.allocation.rows import Columns, add_flow, headroom_of, rows_of, trust
from powerd.allocation.steps import PilotSteps, step_down
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Limits


class Book(NamedTuple):
    """A ledger as it is handed around; the lines stand in the order of ``Ledger``."""

    columns: Columns
    """Coefficients by EVSE."""
    limit_of_row: Ints
    """(m,)"""
    limit_count: int
    """L."""
    numbers: Floats
    """(13, n)"""
    marks: Bools
    """(3, n)"""
    rows: Floats
    """(5, m)"""
    holder: Ints
    """(n,)"""


class Ledger(NamedTuple):
    """Arrays that the stages change in place, one after the other. n EVSEs, m rows, L limits."""

    columns: Columns
    """Coefficients by EVSE."""
    limit_of_row: Ints
    """(m,)"""
    limit_count: int
    """L."""
    weight: Floats
    """(n,) as in ``Demands``."""
    target: Floats
    """(n,) as in ``Demands``."""
    least: Floats
    """(n,) smallest ceiling above 0 that is also a pilot step [own unit]."""
    upper: Floats
    """(n,) largest ceiling now, on a pilot step; 0 = nothing can be granted."""
    reserve: Floats
    """(n,) what the demands reserve."""
    floor: Floats
    """(n,) reserve counted in the rows; ``silent`` under a limit that not even the reserves fit."""
    opens: Floats
    """(n,) as in ``Demands``, until it is on."""
    free_floor: Floats
    """(n,) the part of the reserve that a ceiling can use, on a pilot step: costs nothing."""
    x: Floats
    """(n,) decided so far [own unit]."""
    counted: Floats
    """(n,) max(x, floor)."""
    lower: Floats
    """(n,) of the level being decided [own unit]."""
    ceiling: Floats
    """(n,) of the level being decided [own unit]."""
    silent: Floats
    """(n,) as in ``Demands``."""
    overdue: Bools
    """(n,) as in ``Demands``."""
    on: Bools
    """(n,) who charges."""
    free: Bools
    """(n,) whose ceilings the level being decided is about."""
    headroom: Floats
    """(m,) [limit unit]."""
    real: Floats
    """(m,) row flows of what is counted, real part [limit unit]; without ``free`` while their level is open."""
    imag: Floats
    """(m,) imaginary part."""
    price: Floats
    """(m,) shadow price in the last stage of the class being served in which the row bound; 0 = none."""
    last_price: Floats
    """(m,) the same of any class."""
    holder: Ints
    """(n,) row that stopped it when its class had been served, by that class's prices, or that bars it; -1 = none."""


class Service(NamedTuple):
    """Who can be granted anything."""

    evse: Ints
    """EVSEs, first served first."""
    begin: Ints
    """(classes + 1,) where each class begins among them, and the end."""


def view(book: Book) -> Ledger:
    """The book's lines by name."""
    numbers, marks, rows = book.numbers, book.marks, book.rows
    return Ledger(
        book.columns,
        book.limit_of_row,
        book.limit_count,
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4],
        numbers[5],
        numbers[6],
        numbers[7],
        numbers[8],
        numbers[9],
        numbers[10],
        numbers[11],
        numbers[12],
        marks[0],
        marks[1],
        marks[2],
        rows[0],
        rows[1],
        rows[2],
        rows[3],
        rows[4],
        book.holder,
    )


#: ``view`` for kernels.
ledger_of = kernel(view)


@kernel
def _served(upper: Floats, order: Ints, priority: Ints) -> Service:
    """Those of ``order`` with something above 0 to be had, class after class."""
    evse = order[upper[order] > 0.0]
    begin = np.empty(evse.shape[0] + 1, dtype=np.int64)
    count = 0
    for position in range(evse.shape[0]):
        if position == 0 or priority[evse[position]] != priority[evse[position - 1]]:
            begin[count] = position
            count += 1
    begin[count] = evse.shape[0]
    return Service(evse, begin[: count + 1].copy())


@kernel
def _count(ledger: Ledger, floor: Floats) -> None:
    """The rows carry ``floor`` (n,), and nothing else."""
    ledger.floor[:] = floor
    ledger.real[:] = 0.0
    ledger.imag[:] = 0.0
    add_flow(ledger.columns, floor, ledger.real, ledger.imag)


@kernel
def _bar(ledger: Ledger, marked: Bools) -> None:
    """Nobody gets anything under the ``marked`` limits (L,), which hold those who would; nor is anything counted."""
    floor = ledger.floor.copy()
    for i in range(floor.shape[0]):
        for k in range(ledger.columns.start[i], ledger.columns.start[i + 1]):
            r = ledger.columns.row[k]
            if marked[ledger.limit_of_row[r]]:
                ledger.holder[i] = r if ledger.upper[i] > 0.0 or ledger.holder[i] >= 0 else -1
                ledger.upper[i] = 0.0
                floor[i] = 0.0
    _count(ledger, floor)


@kernel
def _open(
    book: Book, capacity: Floats, uncontrolled: Floats, energized: Bools, steps: PilotSteps, order: Ints, priority: Ints
) -> Service:
    """See ``open_book``; the lines of the demands are written, and are cleaned in place."""
    ledger = ledger_of(book)
    columns, limit_of_row, limit_count = ledger.columns, ledger.limit_of_row, ledger.limit_count
    least, upper, reserve, real, imag = ledger.least, ledger.upper, ledger.reserve, ledger.real, ledger.imag
    ledger.headroom[:] = headroom_of(limit_of_row, capacity, uncontrolled)
    for i in range(upper.shape[0]):
        least[i] = least_ceiling(least[i], steps, i)
        upper[i] = step_down(steps, i, trust(upper[i]))
        if upper[i] < least[i] or not energized[i]:
            upper[i] = 0.0
        reserve[i] = trust(reserve[i])
        ledger.silent[i] = min(trust(ledger.silent[i]), reserve[i])
        ledger.opens[i] = trust(ledger.opens[i])
        ledger.floor[i] = reserve[i]
    add_flow(columns, reserve, real, imag)
    over = overdrawn_limits(limit_of_row, ledger.headroom, limit_count, real, imag)
    if over.any():
        # Under a limit that not even the reserves fit, it is obeyed with live ceilings, silent posts' among them.
        _count(ledger, np.where(under_limits(columns, limit_of_row, over), ledger.silent, reserve))
        over = overdrawn_limits(limit_of_row, ledger.headroom, limit_count, real, imag)
        if over.any():
            # What silent posts hold fills it alone: nobody else gets anything there.
            _bar(ledger, over)
    for i in range(upper.shape[0]):
        ledger.free_floor[i] = step_down(steps, i, min(ledger.floor[i], upper[i]))
        ledger.counted[i] = ledger.floor[i]
    return _served(upper, order, priority)


def open_book(limits: Limits, demands: Demands, steps: PilotSteps) -> tuple[Book, Service]:
    """An account with nothing granted: rows carry the reserves alone; and who can be granted anything."""
    rows = rows_of(limits)
    count = demands.weight.shape[0]
    numbers, marks = np.zeros((13, count)), np.zeros((3, count), dtype=np.bool_)
    numbers[0], numbers[1], numbers[2] = demands.weight, demands.target, demands.minimum
    numbers[3], numbers[4], numbers[6], marks[0] = demands.upper, demands.floor, demands.opens, demands.overdue
    numbers[12] = demands.silent
    load = np.empty((2, limits.capacity.shape[0]))  # of one kind, whatever kind of array the limits hold
    load[0], load[1] = limits.capacity, demands.uncontrolled
    book = Book(
        columns=rows.columns,
        limit_of_row=rows.limit_of_row,
        limit_count=limits.capacity.shape[0],
        numbers=numbers,
        marks=marks,
        rows=np.zeros((5, rows.row_count)),
        holder=np.full(count, -1),
    )
    energized, priority = np.array(limits.energized), np.array(demands.priority)
    return book, _open(book, load[0], load[1], energized, steps, demands.order, priority)
