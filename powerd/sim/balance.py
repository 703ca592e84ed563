"""What really flows differently in two phases, and in neutrals: the simulator's ratings beside those of phases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerd.network.electrical import Electrical
from powerd.network.supply import Energised

Complex = npt.NDArray[np.complex128]


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What two phases at a bus may differ by, or what a feeder's neutral may carry."""

    name: str
    element: str
    most: float
    bus: int
    """The bus, or the one at the feeder's lower end; -1 = it carries nothing."""
    phases: tuple[int, ...]
    """Phases that are added up."""
    less: int
    """Phase whose current is taken off; -1 = none."""


def balance_of(electrical: Electrical, live: Energised) -> list[Balance]:
    """Every pair of phases of every bus with an imbalance limit, and every neutral with a rating."""
    buses, branches = electrical.buses, electrical.branches
    found = [
        Balance(
            name=f"imbalance of L{p + 1} over L{q + 1} at bus {buses.ids[bus]}",
            element=buses.ids[bus],
            most=float(buses.max_imbalance_a[bus]),
            bus=bus,
            phases=(p,),
            less=q,
        )
        for bus in np.flatnonzero(~np.isnan(buses.max_imbalance_a)).tolist()
        for p in range(3)
        for q in range(3)
        if p != q
    ]
    for branch in np.flatnonzero(~np.isnan(branches.neutral_a)).tolist():
        ends = (int(branches.to_bus[branch]), int(branches.from_bus[branch]))
        below = next((end for end in ends if live.parent_branch[end] == branch), -1)
        name, most = branches.ids[branch], float(branches.neutral_a[branch])
        found.append(
            Balance(name=f"neutral of feeder {name}", element=name, most=most, bus=below, phases=(0, 1, 2), less=-1)
        )
    return found


def phases_of(balance: list[Balance], through: Complex, taps: int) -> tuple[Complex, Complex]:
    """(b, K) gains of the phases that are added up, and of the one that is taken off."""
    nothing = np.zeros(taps, dtype=np.complex128)
    high = [through[b.bus, list(b.phases)].sum(axis=0) if b.bus >= 0 else nothing for b in balance]
    less = [through[b.bus, b.less] if b.bus >= 0 and b.less >= 0 else nothing for b in balance]
    shape = (len(balance), taps)
    return np.array(high, dtype=np.complex128).reshape(shape), np.array(less, dtype=np.complex128).reshape(shape)
