"""The paths of one stage, best first: each answer is judged, and one that does not prove itself is not an answer."""

from __future__ import annotations

import numpy as np

from powerd.allocation.certificate import Certificate, judge
from powerd.allocation.compiled import kernel
from powerd.allocation.guard_kernels import common_fractions, smallest_fraction
from powerd.allocation.problem import Program
from powerd.allocation.rows import Columns, Rows, add_flow
from powerd.allocation.stage import Solution, Stage
from powerd.limits import Bools, Floats, Ints, Limits


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


class Solver:
    """Solves stages; keeps the compiled programs of the rows it has seen last."""

    def __init__(self) -> None:
        self._program: tuple[Rows, Program] | None = None

    def _program_of(self, rows: Rows) -> Program:
        """The compiled statement of ``rows``."""
        if self._program is None or self._program[0] is not rows:
            self._program = (rows, Program(rows))
        return self._program[1]

    def solve(self, limits: Limits, stage: Stage) -> tuple[Solution, Certificate]:
        """Solve one stage by the first path whose answer proves itself; the guard's answer stands at the end."""
        solution = self._program_of(stage.rows).solve(stage)
        if solution is not None:
            certificate = judge(stage, solution, "conic")
            if certificate.holds:
                return solution, certificate
        shrunk = shrink(stage)
        return shrunk, judge(stage, shrunk, "guard")
