"""What a power flow says about given ceilings, to be held against the limits on the side where each is defined.

AC cars take a constant current: their charger follows the pilot, not the voltage. pandapower knows constant power only,
so the power is set from the solved voltage and solved again until no voltage moves by more than the tolerance.
"""

from __future__ import annotations

import numpy as np

from powerd.limits import Bools, Floats
from powerd.network.build import Built, build_net, put, solve
from powerd.network.electrical import Electrical
from powerd.network.rows import Rows
from powerd.network.taken import CannotSolve, Drawn, Flow, drawn_at_buses
from powerd.units import SQRT3

#: Largest change of any voltage between two rounds at which the currents count as settled.
TOLERANCE_PU = 1e-4
#: Rounds after which it will not settle any more; three to five are usual.
MAX_ROUNDS = 30


def ac_loading(
    electrical: Electrical,
    closed: Bools,
    drawn: Floats,
    *,
    phases: Bools | None = None,
    loads_kw: Floats | None = None,
) -> Flow:
    """Currents and voltages when every EVSE takes ``drawn``.

    Args:
        electrical: the compiled drawing.
        closed: (E,) switch positions.
        drawn: (n,) what each EVSE takes [A or kW].
        phases: (n, 3) bus phases that each car loads; default all that its post has, l1 where nobody knows.
        loads_kw: (D,) uncontrolled loads [kW]; default none.

    Raises:
        CannotSolve: the power flow has no solution.
    """
    taken = drawn_at_buses(electrical, drawn, phases=phases, loads_kw=loads_kw)
    return solve_constant_current(build_net(electrical, closed), electrical, taken)


def solve_constant_current(built: Built, electrical: Electrical, drawn: Drawn) -> Flow:
    """Power flow with constant-current cars: at the solution |S| = |V| * I at every post, to ``TOLERANCE_PU``.

    The net is changed in place; a second call starts from its last solution's loads, not from its voltages.

    Raises:
        CannotSolve: a power flow does not converge, or the voltages do not settle in ``MAX_ROUNDS`` rounds.
    """
    nominal = electrical.buses.voltage_v[:, None]
    voltage = np.exp(1j * np.radians([[0.0, -120.0, 120.0]])) * np.ones((nominal.shape[0], 1))
    balanced = drawn.is_balanced
    for _ in range(MAX_ROUNDS):
        star = np.abs(voltage) * nominal / SQRT3 * drawn.wye_a / 1000
        pair = np.abs(voltage - np.roll(voltage, -1, axis=1)) * nominal / SQRT3 * drawn.delta_a / 1000
        if balanced:
            level = drawn.balanced_kw + star.sum(axis=1) + drawn.load_kw.sum(axis=1)
            put(built, star_kw=0 * star, star_kvar=0 * star, delta_kw=0 * star, level_kw=level,
                level_kvar=drawn.load_kvar.sum(axis=1))  # fmt: skip
        else:
            put(built, star_kw=star + drawn.load_kw, star_kvar=drawn.load_kvar, delta_kw=pair,
                level_kw=drawn.balanced_kw, level_kvar=0 * drawn.balanced_kw)  # fmt: skip
        flow = solve(built, balanced=balanced)
        live = ~np.isnan(flow.voltage_pu)
        moved = np.abs(np.abs(flow.voltage_pu) - np.abs(voltage))[live].max(initial=0.0)
        voltage = np.where(live, flow.voltage_pu, 0.0)
        if moved <= TOLERANCE_PU:
            return flow
    raise CannotSolve(f"voltages still move after {MAX_ROUNDS} rounds: a load far above its feeder")


def loading_of_limits(rows: Rows, flow: Flow) -> Floats:
    """What each limit really carries, on the side where its rating is defined (L,) [limit unit].

    kW limits: import of their supply, for the site's own limit that of all supplies; supplies in parallel share one
    value, because how they split is not powerd's to say. Imbalance and neutral limits: nan, a flow of magnitudes cannot
    tell.
    """
    result = np.zeros(rows.branch.shape[0])
    amps = rows.branch >= 0
    sides = np.stack([flow.from_a, flow.to_a])
    result[amps] = sides[rows.side[amps], rows.branch[amps], rows.phase[amps]]
    single = ~amps & (rows.supply >= 0)
    result[single] = flow.import_kw[rows.supply[single]]
    result[~amps & (rows.supply < 0)] = flow.import_kw.sum()
    result[[kind in ("imbalance", "neutral") for kind in rows.limits.kind]] = np.nan
    return result
