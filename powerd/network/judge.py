"""Kernels of the AC check: gather what ceilings take, and find what leaves its band. All per unit, as in ``sweep``."""

from __future__ import annotations

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Floats, Ints
from powerd.network.phasors import Complex

#: How an EVSE takes its current.
WYE, DELTA, POWER = 0, 1, 2

_HALF_SQRT3 = 0.8660254037844386


@kernel
def gather(
    x: Floats, row: Ints, mode: Ints, which: Ints, gain: Floats, wye: Complex, wye_c: Floats, delta_c: Floats
) -> None:
    """Add what every EVSE takes at its ceiling to the load rows, in place.

    Args:
        x: (n,) ceilings [own unit].
        row: (n,) load row; -1 where no supply reaches it.
        mode: (n,) WYE, DELTA or POWER.
        which: (n,) phase bits; for DELTA 0, 1, 2 for l1-l2, l2-l3, l3-l1.
        gain: (n,) per unit of one own unit (POWER: of one phase).
        wye: (K, 3) constant power.
        wye_c: (K, 3) constant current to neutral.
        delta_c: (K, 3) constant current between phases.
    """
    for i in range(x.shape[0]):
        k = row[i]
        if k < 0 or x[i] == 0.0:
            continue
        amount = x[i] * gain[i]
        if mode[i] == DELTA:
            delta_c[k, which[i]] += amount
        else:
            for phase in range(3):
                if mode[i] == POWER:
                    wye[k, phase] += amount
                elif which[i] >> phase & 1:
                    wye_c[k, phase] += amount


@kernel
def judge_voltages(loaded: Ints, turn: Complex, v: Complex, low: Floats, high: Floats, short: Floats) -> int:
    """Write to ``short`` (K, 3) by how much each phase is too low (> 0) or too high (< 0); count those that are."""
    found = 0
    for m in range(loaded.shape[0]):
        k = loaded[m]
        for phase in range(3):
            size = abs(_phase(phase, v[k, 0] * turn[k, 0], v[k, 1] * turn[k, 1], v[k, 2] * turn[k, 2]))
            short[m, phase] = max(low[m, phase] - size, 0.0) - max(size - high[m, phase], 0.0)
            found += short[m, phase] != 0.0
    return found


@kernel
def judge_currents(
    parent: Ints, zero_parent: Ints, y_above: Complex, y_below: Complex, turn: Complex, allowed: Floats, v: Complex,
    j: Complex, over: Floats,
) -> None:  # fmt: skip
    """Write to ``over`` (N, 2, 3) how far each end of each branch is above what is ``allowed``.

    The last but one index is 0 for the upper and 1 for the lower end, each in its own per unit; an ``allowed`` of inf
    is not looked at.
    """
    for k in range(parent.shape[0]):
        above = parent[k]
        if above < 0:
            continue
        for end in range(2):
            if not np.isfinite(allowed[k, end]).any():
                continue
            at = above if end == 0 else k
            zero = j[k, 0] - y_below[k, 0] * v[k, 0]
            if end == 0:
                zero = (j[k, 0] if zero_parent[k] >= 0 else 0j) + y_above[k, 0] * v[above, 0]
            one = j[k, 1] + (y_above[k, 1] * v[above, 1] if end == 0 else -y_below[k, 1] * v[k, 1])
            two = j[k, 2] + (y_above[k, 2] * v[above, 2] if end == 0 else -y_below[k, 2] * v[k, 2])
            for phase in range(3):
                size = abs(_phase(phase, zero * turn[at, 0], one * turn[at, 1], two * turn[at, 2]))
                over[k, end, phase] = max(size - allowed[k, end, phase], 0.0)


@kernel
def _phase(phase: int, zero: complex, one: complex, two: complex) -> complex:
    """Phase 0, 1 or 2 of three sequences."""
    if phase == 0:
        return zero + one + two
    lag = complex(-0.5, -_HALF_SQRT3)
    lead = complex(-0.5, _HALF_SQRT3)
    if phase == 1:
        return zero + lag * one + lead * two
    return zero + lead * one + lag * two
