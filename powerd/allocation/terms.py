"""The convex program's terms, one function each; the docstring is the inequality.

Symbols: ``x`` (n,) ceilings [A per phase, or kW for DC]; ``active`` (n,) 1 where the EVSE is a variable of this stage,
0 where it is decided (its part is then in ``base``); ``base`` (m,) flow of what is decided [limit unit]; ``headroom``
(m,) capacity minus uncontrolled load [limit unit]. All but ``x`` are parameters or constants, and every function keeps
to disciplined parametrised programming (Agrawal et al. 2019), so the program compiles once.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import scipy.sparse as sp

from powerd.limits import Floats


def linear_rows(real: sp.csr_array, active_x: Any, base: cp.Parameter | Floats, headroom: cp.Parameter | Floats) -> Any:
    """sum_i real_ri x_i + base_r <= headroom_r for each linear row r [limit unit]."""
    return real @ active_x + base <= headroom


def phasor_rows(
    real: sp.csr_array,
    imag: sp.csr_array,
    active_x: Any,
    base_real: cp.Parameter | Floats,
    base_imag: cp.Parameter | Floats,
    headroom: cp.Parameter | Floats,
) -> Any:
    """hypot(sum_i real_ri x_i + base_real_r, sum_i imag_ri x_i + base_imag_r) <= headroom_r for each cone row r [A].

    One row for each undominated subset of a limit's angle groups, so that it holds for whatever is drawn below x.
    """
    return cp.norm(cp.vstack([real @ active_x + base_real, imag @ active_x + base_imag]), 2, axis=0) <= headroom


def imbalance_rows(
    real: sp.csr_array,
    imag: sp.csr_array,
    active_x: Any,
    base_real: cp.Parameter | Floats,
    base_imag: cp.Parameter | Floats,
    headroom: cp.Parameter | Floats,
) -> Any:
    """|sum over i that load phase p and not, in step, phase q, of a_ip x_i + base_r| <= headroom_r [A].

    One row r for each ordered pair (p, q) of a bus; headroom = stated imbalance - one-phase loads on p. It bounds
    |I_p| - |I_q| for whatever is drawn below x, for those that load q alone may draw nothing.
    """
    return phasor_rows(real, imag, active_x, base_real, base_imag, headroom)


def neutral_rows(
    real: sp.csr_array,
    imag: sp.csr_array,
    active_x: Any,
    base_real: cp.Parameter | Floats,
    base_imag: cp.Parameter | Floats,
    headroom: cp.Parameter | Floats,
) -> Any:
    """|sum_i (a_i1 + a_i2 + a_i3) x_i + base_r| <= headroom_r [A] for each undominated subset r of angle groups.

    One-phase cars alone: sum over i on phase p of x_i <= headroom for each p, the other phases at zero.
    """
    return phasor_rows(real, imag, active_x, base_real, base_imag, headroom)


def at_least(x: cp.Variable, lower: cp.Parameter) -> Any:
    """x_i >= lower_i [own unit]: the car's minimum, and what an earlier stage has promised."""
    return x >= lower


def at_most(x: cp.Variable, upper: cp.Parameter) -> Any:
    """x_i <= upper_i [own unit]: the rating, the car, or in the first level the scheduled target."""
    return x <= upper


def proportional_fairness(x: cp.Variable, weight: cp.Parameter) -> Any:
    """sum_i weight_i log(x_i): weighted proportional fairness (Kelly 1997) [utility].

    ``weight`` is 0 where EVSE i is no variable of this stage; its slot then floats in [1, 2], so no log(0) arises.
    """
    return cp.sum(cp.multiply(weight, cp.log(x)))


def at_level(x: cp.Variable, share: cp.Parameter, level: cp.Variable) -> Any:
    """x_i >= share_i level: whoever still rises (share_i = weight_i, else 0) stands at the common level [own unit]."""
    return x >= cp.multiply(share, level)
