"""pandapower at the powers that a found solution takes: constant currents are constant powers at their own solution."""

from __future__ import annotations

import numpy as np

from powerd.limits import Bools
from powerd.network.build import build_net, put, solve
from powerd.network.electrical import Electrical
from powerd.network.taken import Drawn, Flow
from powerd.units import SQRT3


def pandapower_at(electrical: Electrical, closed: Bools, taken: Drawn, found: Flow) -> Flow:
    """``runpp`` or ``runpp_3ph`` with every car at |V| * I of the voltages ``found``: right ones stay."""
    nominal, v = electrical.buses.voltage_v[:, None], np.nan_to_num(found.voltage_pu)
    star = np.abs(v) * nominal / SQRT3 * taken.wye_a / 1000
    pair = np.abs(v - np.roll(v, -1, axis=1)) * nominal / SQRT3 * taken.delta_a / 1000
    built = build_net(electrical, closed)
    if taken.is_balanced:
        level = taken.balanced_kw + star.sum(axis=1) + taken.load_kw.sum(axis=1)
        put(built, star_kw=0 * star, star_kvar=0 * star, delta_kw=0 * star, level_kw=level,
            level_kvar=taken.load_kvar.sum(axis=1))  # fmt: skip
    else:
        put(built, star_kw=star + taken.load_kw, star_kvar=taken.load_kvar, delta_kw=pair,
            level_kw=taken.balanced_kw, level_kvar=0 * taken.balanced_kw)  # fmt: skip
    return solve(built, balanced=taken.is_balanced)
