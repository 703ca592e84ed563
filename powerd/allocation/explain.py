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
def binding_limits(ledger: Ledger, want: Floats) -> Ints:
    """(n,) index of the limit that holds each EVSE below its upper bound; -1 where it has all it can take.

    One that charges is held by the dearest row above it; one that is off, or under free rows, by the tightest.
    """
    real, imag = np.zeros_like(ledger.real), np.zeros_like(ledger.imag)
    add_flow(ledger.columns, np.maximum(want, ledger.floor), real, imag)
    slack = np.empty_like(ledger.headroom)
    for r in range(slack.shape[0]):
        slack[r] = ledger.headroom[r] - size_of(real[r], imag[r])
    binding = np.full(want.shape[0], -1, dtype=np.int64)
    columns = ledger.columns
    for i in range(want.shape[0]):
        if not (ledger.upper[i] > 0.0 and want[i] < ledger.upper[i] - ROW_TOLERANCE):
            continue
        dearest = 0.0
        tightest = np.inf
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            size = size_of(columns.real[k], columns.imag[k])
            price = ledger.price[r] if slack[r] <= LEFT_OVER else 0.0
            if want[i] > 0.0 and size * price > dearest:
                dearest = size * price
                binding[i] = ledger.limit_of_row[r]
            elif dearest == 0.0 and size > 0.0 and slack[r] / size < tightest:
                tightest = slack[r] / size
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
        order,
        steps,
    )
    return want, binding_limits(ledger, want), ledger.price.copy()
