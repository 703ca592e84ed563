"""The guard's answer to a stage, where no solver has one."""

from __future__ import annotations

import numpy as np

from powerd.allocation.guard_kernels import common_fractions, smallest_fraction
from powerd.allocation.rows import Columns, add_flow
from powerd.allocation.stage import Solution, Stage
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints


@kernel
def _between(
    columns: Columns, limit_of_row: Ints, free: Bools, lower: Floats, upper: Floats, fraction: Floats
) -> Floats:
    """(n,) for free EVSEs lower + the smallest fraction of their limits x (upper - lower); 0 elsewhere."""
    x = np.zeros(free.shape[0])
    for i in range(free.shape[0]):
        if free[i]:
            x[i] = lower[i] + smallest_fraction(columns, limit_of_row, i, fraction) * (upper[i] - lower[i])
    return x


def shrink(stage: Stage) -> Solution:
    """The guard's answer to a stage: upper bounds, scaled towards the lower ones by one fraction per limit."""
    rows, free = stage.rows, stage.free
    low_real, low_imag = stage.base_real.copy(), stage.base_imag.copy()
    add_flow(rows.columns, np.where(free, stage.lower, 0.0), low_real, low_imag)
    high_real, high_imag = stage.base_real.copy(), stage.base_imag.copy()
    add_flow(rows.columns, np.where(free, stage.upper, 0.0), high_real, high_imag)
    limit_count = int(rows.limit_of_row.max(initial=-1)) + 1
    fraction = common_fractions(
        rows.limit_of_row, stage.headroom, limit_count, low_real, low_imag, high_real, high_imag
    )
    x = _between(rows.columns, rows.limit_of_row, free, stage.lower, stage.upper, fraction)
    return Solution(x=x, price=np.zeros(rows.row_count), iterations=0)
