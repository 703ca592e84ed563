"""One stage of the lexicographic allocation: a single concave program over one class and one level.

    maximise    sum_i weight_i log x_i                          over the free EVSEs i
    subject to  hypot(base_real_r + sum_i real_ri x_i, base_imag_r + sum_i imag_ri x_i) <= headroom_r   for each row r
                lower_i <= x_i <= upper_i

Everything decided before (higher classes, reserves of the others) is in ``base``. Every free EVSE has lower < upper and
room above its lower bound in all of its rows, so the program always has a strictly feasible point.
"""

from __future__ import annotations

from dataclasses import dataclass

from powerd.allocation.rows import Rows
from powerd.limits import Bools, Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Data of one stage; n EVSEs, m rows."""

    rows: Rows
    """Coefficients."""
    free: Bools
    """(n,) which EVSEs are variables of this stage."""
    weight: Floats
    """(n,) > 0 where free."""
    lower: Floats
    """(n,) [own unit]."""
    upper: Floats
    """(n,) [own unit]."""
    base_real: Floats
    """(m,) real flow of everything that is not free [limit unit]."""
    base_imag: Floats
    """(m,) imaginary flow of everything that is not free [limit unit]."""
    headroom: Floats
    """(m,) capacity - uncontrolled [limit unit]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """What a solver says about a stage; nothing in it is believed before ``certificate.judge`` has seen it."""

    x: Floats
    """(n,) the free EVSEs' ceilings; 0 elsewhere [own unit]."""
    price: Floats
    """(m,) multiplier of each row, >= 0 [utility / limit unit]."""
    iterations: int
    """Iterations of the solver."""
