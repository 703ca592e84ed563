"""The path for phasor rows whose weights lie too far apart for a conic solver: Newton on a smoothed dual.

With a vector price q_r (its length the row's price, its direction that of the row's flow) for each row, complex numbers
as pairs of reals, the dual of a stage is to minimise

    D(q) = sum_i max over lower_i <= z <= upper_i of (w_i log z - P_i z) + sum_r (headroom_r |q_r| - base_r . q_r),
    P_i = sum_r a_ri . q_r.

|q_r| is replaced by sqrt(|q_r|^2 + eps_r^2), which makes D smooth and keeps the answer inside the rows: at the minimum
|flow_r| = headroom_r |q_r| / sqrt(|q_r|^2 + eps_r^2). That costs at most sum_r eps_r headroom_r, and eps goes to 1e-13
of the price that a row would have alone, step by step, each minimum the start of the next. No complementarity is
balanced by one number for all rows, so weights over twelve decades do not hurt. The price is a dense system of twice
the rows, so this path comes last, and only for stages of few rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from powerd.allocation.stage import Solution, Stage
from powerd.limits import Floats, Ints

#: Rows beyond which the dense systems would take longer than a tick.
MOST_ROWS = 300

#: Decades by which eps shrinks from one minimum to the next: quick first, then careful.
PACES = (1.0, 0.4)

#: Where eps begins and ends, as powers of ten.
FIRST, LAST = 0.5, 13.0

#: Newton steps for one eps; about five are usual.
MOST_STEPS = 60

#: Largest flow that may be missed or exceeded at a minimum, as a share of the headroom and one unit.
STILL = 1e-9

#: Smallest share of a Newton step that is tried.
SHORTEST = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class _Dual:
    """A stage with k free EVSEs under m rows, real and imaginary parts one under the other."""

    rows: Floats
    """(2 m, k)."""
    base: Floats
    """(2 m,)."""
    headroom: Floats
    """(m,)."""
    weight: Floats
    """(k,) the largest is 1."""
    lower: Floats
    """(k,)."""
    upper: Floats
    """(k,)."""

    def answer(self, q: Floats) -> tuple[Floats, Floats, Floats]:
        """Unit costs P, ceilings and -dx/dP, (k,) each."""
        cost = self.rows.T @ q
        dear = cost * self.upper > self.weight
        x = np.where(dear, np.maximum(self.lower, self.weight / np.where(dear, cost, 1.0)), self.upper)
        inside = (x < self.upper) & (x > self.lower)
        return cost, x, np.where(inside, x * x / self.weight, 0.0)

    def length(self, q: Floats, eps: Floats) -> Floats:
        """(m,) smoothed length of each row's price."""
        m = self.headroom.shape[0]
        return np.sqrt(q[:m] ** 2 + q[m:] ** 2 + eps**2)

    def value(self, q: Floats, eps: Floats) -> float:
        """D."""
        cost, x, _ = self.answer(q)
        own = np.sum(self.weight * np.log(x) - cost * x) if np.all(x > 0.0) else np.inf
        return float(own + self.headroom @ self.length(q, eps) - self.base @ q)

    def slope(self, q: Floats, eps: Floats) -> Floats:
        """(2 m,) gradient of D: what the smoothed rows allow less what flows."""
        share = np.tile(self.headroom / self.length(q, eps), 2) * q
        flow: Floats = share - self.rows @ self.answer(q)[1] - self.base
        return flow

    def step(self, q: Floats, eps: Floats, slope: Floats) -> Floats | None:
        """(2 m,) Newton's step, scaled to a unit diagonal; None where there is none."""
        m = self.headroom.shape[0]
        every = np.arange(m)
        length = self.length(q, eps)
        curvature = (self.rows * self.answer(q)[2]) @ self.rows.T
        for a in (0, m):
            for b in (0, m):
                same = self.headroom / length if a == b else 0.0
                curvature[every + a, every + b] += same - self.headroom * q[every + a] * q[every + b] / length**3
        diagonal = np.diag(curvature)
        if not np.all(diagonal > 0.0):
            return None
        scale = 1.0 / np.sqrt(diagonal)
        scaled = curvature * scale[:, None] * scale[None, :] + 1e-13 * np.eye(2 * m)
        try:
            found: Floats = -scale * np.linalg.solve(scaled, scale * slope)
        except np.linalg.LinAlgError:
            return None
        return found if np.all(np.isfinite(found)) else None


def _dual_of(stage: Stage) -> tuple[_Dual, Ints, Ints]:
    """The dual, which EVSEs are free, and which rows they load."""
    columns = stage.rows.columns
    free = np.flatnonzero(stage.free)
    shape = (stage.rows.row_count, stage.free.shape[0])
    whole = sp.csc_array((columns.real + 1j * columns.imag, columns.row, columns.start), shape=shape)
    chosen = whole[:, free].tocsr()
    used = np.flatnonzero(np.diff(chosen.indptr) > 0)
    dense = chosen[used].toarray()
    dual = _Dual(
        rows=np.vstack([dense.real, dense.imag]),
        base=np.concatenate([stage.base_real[used], stage.base_imag[used]]),
        headroom=stage.headroom[used],
        weight=stage.weight[free] / stage.weight[free].max(),
        lower=stage.lower[free],
        upper=stage.upper[free],
    )
    return dual, free, used


def _minimise(dual: _Dual, q: Floats, eps: Floats) -> tuple[Floats, int]:
    """The minimum for one eps from ``q``, and the steps it took."""
    tolerance = STILL * (1.0 + np.tile(dual.headroom, 2))
    for steps in range(MOST_STEPS):
        slope = dual.slope(q, eps)
        if np.all(np.abs(slope) <= tolerance):
            return q, steps
        step = dual.step(q, eps, slope)
        if step is None:
            return q, steps
        before, share = dual.value(q, eps), 1.0
        enough = 1e-4 * float(slope @ step)
        while share > SHORTEST and not dual.value(q + share * step, eps) <= before + share * enough + 1e-14 * abs(
            before
        ):
            share *= 0.5
        q = q + share * step
    return q, MOST_STEPS


def solve_smoothed(stage: Stage, pace: float) -> Solution | None:
    """Solve one stage; ``pace`` in decades of eps. None where there are too many rows or no finite answer."""
    dual, free, used = _dual_of(stage)
    m = used.shape[0]
    if m > MOST_ROWS or not m:
        return None
    loads = np.hypot(dual.rows[:m], dual.rows[m:]) > 0.0
    alone = (loads @ dual.weight) / np.maximum(dual.headroom, 1e-9)
    full = dual.rows @ dual.upper + dual.base
    size = np.maximum(np.hypot(full[:m], full[m:]), 1e-12)
    q = np.tile(alone / size, 2) * full / m
    total = 0
    with np.errstate(all="ignore"):  # what is not finite is not an answer
        for power in np.arange(FIRST, LAST + pace, pace):
            q, steps = _minimise(dual, q, alone * 10.0 ** -min(float(power), LAST))
            total += steps
        x, price = dual.answer(q)[1], np.hypot(q[:m], q[m:])
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(price))):
        return None
    whole, prices = np.zeros(stage.free.shape[0]), np.zeros(stage.rows.row_count)
    whole[free], prices[used] = x, price * stage.weight[free].max()
    return Solution(x=whole, price=prices, iterations=total)
