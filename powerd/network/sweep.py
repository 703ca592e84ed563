"""Kernels of the AC power flow on a tree: currents are summed towards the supply, voltages follow away from it.

Backward/forward sweep (Shirmohammadi et al., IEEE Trans. Power Systems 3(2), 1988), in the frame of ``models`` where
every transformer is a plain impedance. A sweep multiplies the error by about the voltage drop that constant-power loads
cause, so three to eight sweeps reach 1e-9 on any network that a site would be built with.

When it stops: let a sweep move the voltages by m, the one before by m', and let q = m / m'. Where sweeps shrink any
difference at least by q < 1, those still to come move the voltages by no more than m (q + q^2 + ...) = m q / (1 - q)
together (Banach's bound). q is the larger of the last two, because it may change from sweep to sweep (power of one
sign on active, of the other on reactive power makes it alternate); until two are known, 1/2 is the least believed.
"""

from __future__ import annotations

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Floats, Ints
from powerd.network.phasors import Complex

#: What the sweeps that are not made may still move a voltage by [pu].
TOLERANCE_PU = 1e-9
#: Sweeps after which it will not settle any more.
MOST_SWEEPS = 100
#: Least ratio of two movements that is believed before two ratios are known.
FIRST_RATIO = 0.5

_HALF_SQRT3 = 0.8660254037844386


@kernel
def _is_close(moved: float, ratio: float, ratio_before: float) -> bool:
    """The sweeps to come move no voltage by more than the tolerance."""
    return moved <= TOLERANCE_PU * (1.0 / max(ratio, ratio_before) - 1.0)


@kernel
def sweep_balanced(
    parent: Ints, beyond: Ints, z: Floats, y: Floats, emf: Floats, taken: Floats, v: Floats, j: Floats
) -> int:
    """Positive sequence alone, from a flat start; depth first, per unit.

    A subtree is one piece of the order, so that the current into it is the difference of two running sums: no bus waits
    for its children. Row 0 is the real part, row 1 the imaginary one, so that four buses' currents are found at once.

    Args:
        parent: (N,) position above; a supply's bus hangs on itself, by no impedance.
        beyond: (N,) first position after the bus's subtree.
        z: (2, N) series impedance above the bus.
        y: (2, N) shunts at the bus.
        emf: (N,) voltage of the bus's supply, where it starts.
        taken: (3, N) constant active power, constant reactive power, constant current in phase with the voltage.
        v: (2, N) voltages, written.
        j: (2, N + 1) currents through the impedance above, written; the last column is nobody's.

    Returns:
        Sweeps made; -1 where the voltages do not settle.
    """
    count = parent.shape[0]
    # Rows by themselves: a place in two axes is reckoned anew at each access (18.1 instead of 17.0 us for 1 000 buses).
    r, x, g, b = z[0], z[1], y[0], y[1]
    active, reactive, in_phase = taken[0], taken[1], taken[2]
    v_real, v_imag, j_real, j_imag = v[0], v[1], j[0], j[1]
    v_real[:], v_imag[:] = emf, 0.0
    j_real[count] = j_imag[count] = 0.0
    moved_before, ratio_before = np.inf, FIRST_RATIO
    for sweep in range(MOST_SWEEPS):
        for k in range(count):
            per = 1.0 / (v_real[k] * v_real[k] + v_imag[k] * v_imag[k])
            real = active[k] * per + in_phase[k] * np.sqrt(per) + g[k]
            imag = b[k] - reactive[k] * per
            j_real[k] = real * v_real[k] - imag * v_imag[k]
            j_imag[k] = real * v_imag[k] + imag * v_real[k]
        sum_real, sum_imag = 0.0, 0.0
        for k in range(count - 1, -1, -1):
            sum_real += j_real[k]
            sum_imag += j_imag[k]
            j_real[k], j_imag[k] = sum_real, sum_imag
        square = 0.0
        for k in range(count):
            above, end = parent[k], beyond[k]
            own_real, own_imag = j_real[k] - j_real[end], j_imag[k] - j_imag[end]
            j_real[k], j_imag[k] = own_real, own_imag
            real = v_real[above] - (r[k] * own_real - x[k] * own_imag)
            imag = v_imag[above] - (r[k] * own_imag + x[k] * own_real)
            square = max(square, (real - v_real[k]) ** 2 + (imag - v_imag[k]) ** 2)
            v_real[k], v_imag[k] = real, imag
        moved = np.sqrt(square)
        # What is not a number at any bus is none in the sum over all.
        if not (moved < 10.0 and np.isfinite(sum_real + sum_imag)):
            return -1
        ratio = moved / moved_before if sweep > 0 else FIRST_RATIO
        if _is_close(moved, ratio, ratio_before):
            return sweep + 1
        moved_before, ratio_before = moved, ratio
    return -1


@kernel
def sweep_phases(
    parent: Ints, zero_parent: Ints, z: Complex, y: Complex, emf: Floats, turn: Complex, loaded: Ints,
    wye: Complex, wye_c: Floats, delta_c: Floats, v: Complex, j: Complex,
) -> int:  # fmt: skip
    """All three sequences, coupled where the phases take unlike currents; per unit; v and j are written.

    Args:
        parent: (N,) position above, -1 at a supply's bus.
        zero_parent: (N,) likewise for the zero sequence; -1 where it is earthed through ``z``.
        z: (N, 3) series impedance above the bus, by sequence.
        y: (N, 3) shunts at the bus.
        emf: (N,) voltage behind the supply's impedance, positive sequence.
        turn: (N, 3) frame to bus.
        loaded: (K,) positions where something is taken.
        wye: (K, 3) constant power p + jq from each phase to neutral, per unit of a third of the power base.
        wye_c: (K, 3) constant current from each phase to neutral, in phase with its voltage.
        delta_c: (K, 3) constant current between l1-l2, l2-l3, l3-l1, in phase with the voltage between.
        v: (N, 3) sequence voltages in the frame; at the start the guess.
        j: (N, 3) sequence currents through the impedance above.

    Returns:
        Sweeps made; -1 where the voltages do not settle.
    """
    count = parent.shape[0]
    moved_before, ratio_before = np.inf, FIRST_RATIO
    for sweep in range(MOST_SWEEPS):
        for k in range(count):
            for s in range(3):
                j[k, s] = y[k, s] * v[k, s]
        for m in range(loaded.shape[0]):
            _take(loaded[m], m, turn, wye, wye_c, delta_c, v, j)
        for k in range(count - 1, -1, -1):
            above = parent[k]
            if above >= 0:
                j[above, 1] += j[k, 1]
                j[above, 2] += j[k, 2]
                if zero_parent[k] >= 0:
                    j[above, 0] += j[k, 0]
        moved = 0.0
        for k in range(count):
            above = parent[k]
            for s in range(3):
                u = v[above, s] if (s > 0 and above >= 0) or (s == 0 and zero_parent[k] >= 0) else 0j
                if s == 1 and above < 0:
                    u += emf[k]
                u -= z[k, s] * j[k, s]
                moved = max(moved, abs(u.real - v[k, s].real), abs(u.imag - v[k, s].imag))
                v[k, s] = u
        if not moved < 10.0:
            return -1
        ratio = moved / moved_before if sweep > 0 else FIRST_RATIO
        if _is_close(moved, ratio, ratio_before):
            return sweep + 1
        moved_before, ratio_before = moved, ratio
    return -1


@kernel
def _take(k: int, m: int, turn: Complex, wye: Complex, wye_c: Floats, delta_c: Floats, v: Complex, j: Complex) -> None:
    """Add what is taken at position ``k`` (row ``m`` of the loads) to its sequence currents."""
    a = complex(-0.5, _HALF_SQRT3)
    b = complex(-0.5, -_HALF_SQRT3)
    v0, v1, v2 = v[k, 0] * turn[k, 0], v[k, 1] * turn[k, 1], v[k, 2] * turn[k, 2]
    u1, u2, u3 = v0 + v1 + v2, v0 + b * v1 + a * v2, v0 + a * v1 + b * v2
    i1 = _current(u1, wye[m, 0], wye_c[m, 0])
    i2 = _current(u2, wye[m, 1], wye_c[m, 1])
    i3 = _current(u3, wye[m, 2], wye_c[m, 2])
    i12 = _current(u1 - u2, 0j, delta_c[m, 0])
    i23 = _current(u2 - u3, 0j, delta_c[m, 1])
    i31 = _current(u3 - u1, 0j, delta_c[m, 2])
    i1 += i12 - i31
    i2 += i23 - i12
    i3 += i31 - i23
    j[k, 0] += (i1 + i2 + i3) / 3.0 * turn[k, 0].conjugate()
    j[k, 1] += (i1 + a * i2 + b * i3) / 3.0 * turn[k, 1].conjugate()
    j[k, 2] += (i1 + b * i2 + a * i3) / 3.0 * turn[k, 2].conjugate()


@kernel
def _current(u: complex, power: complex, amps: float) -> complex:
    """conj(S / U) plus a constant current in phase with U; nothing where nothing is taken."""
    if power == 0 and amps == 0.0:
        return 0j
    per = 1.0 / (u.real * u.real + u.imag * u.imag)
    return complex(power.real * per + amps * np.sqrt(per), -power.imag * per) * u
