"""What every bus takes and what a power flow says, in the words that all power flows of the house share.

``loading`` (pandapower) and ``flow`` (the sweep of the tick) both take ``Drawn`` and give ``Flow``; this module imports
neither, so that the tick needs no pandapower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.errors import PowerdError
from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import V_LOW_PU, Electrical
from powerd.network.phasors import Complex
from powerd.units import SQRT3

#: Resistance and reactance of a closed switch, per unit at 1 MVA: 1.6 micro-ohm at 400 V, below any real contact's.
SWITCH_PU = 1e-5


class CannotSolve(PowerdError):
    """The power flow has no solution, or pandapower cannot state the problem; the message says which and the mend."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """What a power flow says. B buses, E branches, S supplies."""

    from_a: Floats
    """(E, 3) current at the from (high) side on l1, l2, l3 [A]."""
    to_a: Floats
    """(E, 3) current at the to (low) side [A]."""
    voltage_pu: Complex
    """(B, 3) phase-to-neutral voltage of l1, l2, l3, of nominal; nan on dead buses."""
    import_kw: Floats
    """(S,) active power taken from each supply [kW]."""

    @property
    def lowest_pu(self) -> float:
        """Lowest phase voltage of any live bus."""
        return float(np.nanmin(np.abs(self.voltage_pu)))

    @property
    def highest_pu(self) -> float:
        """Highest phase voltage of any live bus."""
        return float(np.nanmax(np.abs(self.voltage_pu)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What every bus takes: B buses."""

    wye_a: Floats
    """(B, 3) constant current from l1, l2, l3 to neutral [A], unity power factor at the bus's actual voltage."""
    delta_a: Floats
    """(B, 3) constant current from l1 to l2, l2 to l3, l3 to l1 [A], unity power factor at that actual voltage."""
    balanced_kw: Floats
    """(B,) constant three-phase power of DC posts: their worst apparent power, taken as active [kW]."""
    load_kw: Floats
    """(B, 3) uncontrolled load on l1, l2, l3 [kW]."""
    load_kvar: Floats
    """(B, 3) its reactive power [kvar]."""

    @property
    def is_balanced(self) -> bool:
        """True if the three phases take the same everywhere, so that the balanced power flow tells all."""
        level = all(np.allclose(t, t[:, :1], rtol=1e-12) for t in (self.wye_a, self.load_kw, self.load_kvar))
        return level and not self.delta_a.any()


def drawn_at_buses(
    electrical: Electrical, drawn: Floats, *, phases: Bools | None = None, loads_kw: Floats | None = None
) -> Drawn:
    """Gather by bus what every EVSE and load takes; arguments as in ``ac_loading``."""
    count, bus, dc = electrical.buses.voltage_v.shape[0], electrical.evse_bus, electrical.posts.is_dc
    on: Bools = ~np.isnan(electrical.evse_phasor_deg)
    pair = (on.sum(axis=1) == 2) & ~dc
    single = ~pair & ~dc
    guessed = ~(electrical.evse_unknown[:, None] & np.array([False, True, True]))
    used = on & (guessed if phases is None else phases)
    wye, delta = np.zeros((count, 3)), np.zeros((count, 3))
    np.add.at(wye, bus[single], (drawn[:, None] * used)[single])
    np.add.at(delta, (bus[pair], _pair_index(on[pair])), drawn[pair])
    volts = electrical.buses.voltage_v[bus[dc]] * V_LOW_PU
    kw = drawn[dc] * electrical.evse_amps_per_unit[dc] * SQRT3 * volts / 1000
    load_kw, load_kvar = _loads_at_buses(electrical, loads_kw, count)
    return Drawn(
        wye_a=wye,
        delta_a=delta,
        balanced_kw=np.bincount(bus[dc], kw, minlength=count).astype(np.float64),
        load_kw=load_kw,
        load_kvar=load_kvar,
    )


def _pair_index(on: Bools) -> Ints:
    """0, 1, 2 for l1-l2, l2-l3, l3-l1: the phase after the one that is not loaded."""
    spare: Ints = np.argmin(on, axis=1)
    return (spare + 1) % 3


def _loads_at_buses(electrical: Electrical, loads_kw: Floats | None, count: int) -> tuple[Floats, Floats]:
    """(B, 3) active [kW] and reactive power [kvar] of the uncontrolled loads, split evenly over their phases."""
    loads = electrical.loads
    total = np.zeros(loads.bus.shape[0]) if loads_kw is None else loads_kw
    on = (loads.phase_bits[:, None] >> np.arange(3)) & 1
    each = total[:, None] * on / np.maximum(on.sum(axis=1, keepdims=True), 1)
    kw, kvar = np.zeros((count, 3)), np.zeros((count, 3))
    np.add.at(kw, loads.bus, each)
    np.add.at(kvar, loads.bus, each * np.tan(np.arccos(loads.power_factor))[:, None])
    return kw, kvar
