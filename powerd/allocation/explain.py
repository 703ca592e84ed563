"""The end of an allocation: the guard has the last word on the ceilings, and each learns which limit holds it."""

from __future__ import annotations

import numpy as np

from powerd.allocation.guard_kernels import shed_to_rows
from powerd.allocation.ledger import Book, Ledger, ledger_of
from powerd.allocation.rows import add_flow, size_of
from powerd.allocation.steps import PilotSteps
from powerd.compiled import kernel
from powerd.limits import Floats, Ints
from powerd.units import ROW_TOLERANCE

#: A row with more slack than this holds nobody: its price is left over from rounding [limit unit].
LEFT_OVER = 1.0


@kernel
def close_class(ledger: Ledger, order: Ints) -> None:
    """Write down which row stopped each EVSE of a class that has been served, and what the rows cost it.

    One that charges is stopped by the dearest row above it, by the prices of its own class: a row that a higher class
    has filled up to a step may still have room for a smaller one.
    """
    columns, price = ledger.columns, ledger.price
    for i in order:
        if not 0.0 < ledger.x[i] < ledger.upper[i] - ROW_TOLERANCE:
            continue
        dearest = 0.0
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            cost = size_of(columns.real[k], columns.imag[k]) * price[r]
            if cost > dearest and ledger.headroom[r] - size_of(ledger.real[r], ledger.imag[r]) <= LEFT_OVER:
                dearest = cost
                ledger.holder[i] = r
    for r in range(price.shape[0]):
        if price[r] > 0.0:
            ledger.last_price[r] = price[r]
            price[r] = 0.0


@kernel
def binding_limits(ledger: Ledger, want: Floats) -> Ints:
    """(n,) index of the limit that holds each EVSE below its upper bound; -1 where it has all it can take.

    One that charges is held by the row that stopped it; one that is off, or under free rows, by the tightest.
    """
    real, imag = np.zeros_like(ledger.real), np.zeros_like(ledger.imag)
    add_flow(ledger.columns, np.maximum(want, ledger.floor), real, imag)
    binding = np.full(want.shape[0], -1, dtype=np.int64)
    columns = ledger.columns
    for i in range(want.shape[0]):
        if ledger.upper[i] == 0.0 and ledger.holder[i] >= 0:
            binding[i] = ledger.limit_of_row[ledger.holder[i]]
            continue
        if not (ledger.upper[i] > 0.0 and want[i] < ledger.upper[i] - ROW_TOLERANCE):
            continue
        if want[i] > 0.0 and ledger.holder[i] >= 0:
            binding[i] = ledger.limit_of_row[ledger.holder[i]]
            continue
        tightest = np.inf
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            size, slack = size_of(columns.real[k], columns.imag[k]), ledger.headroom[r] - size_of(real[r], imag[r])
            if size > 0.0 and slack / size < tightest:
                tightest = slack / size
                binding[i] = ledger.limit_of_row[r]
    return binding


@kernel
def close_book(book: Book, order: Ints, steps: PilotSteps) -> tuple[Floats, Ints, Floats]:
    """Shed what does not fit.

    Args:
        book: with everything decided.
        order: EVSEs that may charge, first served first.
        steps: pilot steps.

    Returns:
        (n,) ceilings [own unit], the limit that holds each EVSE, and (m,) row prices.
    """
    ledger = ledger_of(book)
    want = shed_to_rows(
        ledger.columns,
        ledger.limit_of_row,
        ledger.headroom,
        ledger.limit_count,
        ledger.x,
        ledger.least,
        ledger.reserve,
        ledger.silent,
        order,
        steps,
    )
    return want, binding_limits(ledger, want), ledger.last_price.copy()
