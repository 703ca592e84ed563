"""The slow, obvious way to the current on every branch side: sum below it, winding by winding.

Nothing of ``powerd.network.phasors`` or ``rows`` is used here; only trees, only groups YNyn0 and Dyn1, 5, 7, 11.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from powerd.network.electrical import BranchKind, Electrical
from powerd.network.supply import Energised

Complex = npt.NDArray[np.complex128]
A, B, C = np.eye(3)
#: Line currents A, B, C of a delta winding whose star side carries a, b, c, for winding ratio 1 (rows of coefficients).
DELTA = {
    1: np.array([A - B, B - C, C - A]),
    11: np.array([A - C, B - A, C - B]),
    5: np.array([C - A, A - B, B - C]),
    7: np.array([B - A, C - B, A - C]),
}


def through_transformer(currents: Complex, ratio: float, delta: bool, clock: int) -> Complex:
    """Low-side currents (3,) in the low bus's frame to high-side currents (3,) in the high bus's frame."""
    if not delta:
        return currents / ratio
    absolute = currents * np.exp(-1j * np.pi * clock / 6)
    lines: Complex = DELTA[clock] @ absolute / (np.sqrt(3) * ratio)
    return lines


def branch_currents(electrical: Electrical, live: Energised, taken: Complex) -> dict[tuple[int, int], Complex]:
    """Currents (3,) of every (branch, 0 = from or 1 = to side) when the buses take ``taken`` (B, 3) in their frames."""
    branches = electrical.branches
    below = {bus: taken[bus].copy() for bus in range(taken.shape[0])}
    result = {}
    for bus in live.order[::-1].tolist():
        branch, above = int(live.parent_branch[bus]), int(live.parent_bus[bus])
        if branch < 0:
            continue
        near, far = below[bus], below[bus]
        if branches.kind[branch] == BranchKind.TRANSFORMER:
            assert branches.to_bus[branch] == bus
            far = through_transformer(
                near, branches.turns_ratio[branch], bool(branches.high_delta[branch]), int(branches.clock[branch])
            )
        side = int(branches.to_bus[branch] == bus)
        result[branch, side], result[branch, 1 - side] = near, far
        below[above] = below[above] + far
    return result


def taken_at_buses(electrical: Electrical, drawn: npt.NDArray[np.float64], used: npt.NDArray[np.bool_]) -> Complex:
    """(B, 3) currents when EVSE i takes ``drawn[i]`` (n,) on the phases ``used[i]`` (n, 3) of those it has."""
    deg = electrical.evse_phasor_deg
    unit = np.where(np.isnan(deg), 0, np.exp(1j * np.radians(np.nan_to_num(deg))))
    taken = np.zeros((electrical.buses.voltage_v.shape[0], 3), dtype=np.complex128)
    amps = drawn * electrical.evse_amps_per_unit
    np.add.at(taken, electrical.evse_bus, unit * used * amps[:, None])
    return taken
