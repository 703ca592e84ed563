"""Which limit holds each EVSE."""

from __future__ import annotations

import numpy as np

from powerd.allocation.ledger import Ledger
from powerd.allocation.rows import Columns
from powerd.compiled import kernel
from powerd.limits import Floats, Ints
from powerd.units import ROW_TOLERANCE


@kernel
def _holding_rows(columns: Columns, held: Ints, want: Floats, price: Floats, slack: Floats) -> Ints:
    """(n,) for each EVSE of ``held`` the row that holds it; -1 if it loads none.

    One that charges is held by the dearest row above it; one that is off, or under free rows, by the tightest.
    """
    row = np.full(want.shape[0], -1, dtype=np.int64)
    for i in held:
        dearest = 0.0
        tightest = np.inf
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            size = np.hypot(columns.real[k], columns.imag[k])
            if want[i] > 0.0 and size * price[r] > dearest:
                dearest = size * price[r]
                row[i] = r
            elif dearest == 0.0 and size > 0.0 and slack[r] / size < tightest:
                tightest = slack[r] / size
                row[i] = r
    return row


def binding_limits(ledger: Ledger, want: Floats) -> Ints:
    """(n,) index of the limit that holds each EVSE below its upper bound; -1 where it has all it can take."""
    held = np.flatnonzero((ledger.upper > 0.0) & (want < ledger.upper - ROW_TOLERANCE))
    slack = ledger.headroom - np.hypot(*ledger.flow())
    full_price = np.where(slack <= 1.0, ledger.price, 0.0)  # a price left over from rounding holds nobody
    row = _holding_rows(ledger.rows.columns, held, want, full_price, slack)
    limit_of_row = np.append(ledger.rows.limit_of_row, -1)
    binding: Ints = limit_of_row[row]
    return binding
