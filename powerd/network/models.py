"""Branch models of the AC sweep: one radial switching state as columns in per unit, by symmetrical components.

All buses share one frame: volts are per unit of the rated voltage that the turns ratios carry down from the supply, and
every sequence is turned back by the clock numbers between. An ideal transformer then disappears: what is left of every
branch is a series impedance and a shunt at each end, and Kirchhoff's laws are sums down a tree. Powers are per unit of
``BASE_KVA`` three-phase.

The models are pandapower's (build.py), so that both can be held against each other to the last digits:

- feeder: pi, half of the capacitance at each end, the same capacitance in all sequences;
- transformer, positive and negative sequence: T, the magnetising branch (iron loss in parallel with the magnetising
  reactance) between two equal halves of the leakage, turned into a pi; the tap changes the ratio, not the impedance;
- zero sequence: YNyn is a T with 0.9 of the leakage on the high side and a magnetising reactance of 100 times the
  leakage; a delta (or any other winding that stops it) on one side earths the other side through the leakage;
- supply: its voltage in the positive sequence (no impedance, as ``runpp`` and ``runpp_3ph`` have it), its short-circuit
  impedance in the negative and zero sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.phasors import Complex, Places, places
from powerd.network.supply import Energised
from powerd.network.taken import SWITCH_PU, CannotSolve

#: Three-phase power base [kVA].
BASE_KVA = 1000.0
#: Voltage factor c of the maximum short-circuit power (IEC 60909-0, table 1).
VOLTAGE_FACTOR = 1.1
#: Zero over positive sequence reactance of a supply, and R0/X0; as in ``build``.
SUPPLY_X0_X, SUPPLY_R0_X0 = 1.0, 0.1
#: Share of a transformer's zero-sequence leakage on its high side, and magnetising over leakage; as in ``build``.
ZERO_HIGH_SHARE, ZERO_MAGNETISING = 0.9, 100.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Ladder:
    """A radial state: N energised buses in depth-first order, each with the branch above it.

    Columns 0, 1, 2 are the zero, positive and negative sequence.
    """

    bus: Ints
    """(N,) bus index of the drawing."""
    parent: Ints
    """(N,) position of the bus above; -1 at a supply's bus."""
    zero_parent: Ints
    """(N,) likewise for the zero sequence; -1 also below a winding that stops it."""
    branch: Ints
    """(N,) branch above; -1 at a supply's bus."""
    down: Bools
    """(N,) the branch's from (high) side is the upper one."""
    z: Complex
    """(N, 3) series impedance above the bus; the supply's own at its bus [pu]."""
    y: Complex
    """(N, 3) all shunts at the bus [pu]."""
    y_above: Complex
    """(N, 3) shunt of the branch above at its upper end [pu]."""
    y_below: Complex
    """(N, 3) shunt of the branch above at this bus [pu]."""
    emf: Floats
    """(N,) voltage behind the supply's impedance, positive sequence; 0 elsewhere [pu]."""
    volts: Floats
    """(N,) line-to-line voltage of 1 pu [V]."""
    turn: Complex
    """(N, 3) what a sequence voltage of the frame is multiplied by to become the bus's own."""
    supply: Ints
    """(N,) supply index at a supply's bus; -1 elsewhere."""


def make_ladder(electrical: Electrical, live: Energised) -> Ladder:
    """The columns of a radial switching state.

    Raises:
        CannotSolve: the state has a loop or two supplies in parallel.
    """
    if live.loop_count or live.parallel.shape[0]:
        raise CannotSolve("this switching state has loops: a sweep needs a tree")
    place = places(electrical, live)
    bus = _depth_first(live)
    at = np.full(live.supply.shape[0], -1, dtype=np.int64)
    at[bus] = np.arange(bus.shape[0])
    above, branch = live.parent_bus[bus], live.parent_branch[bus]
    parent = np.where(above >= 0, at[above], -1)
    series, shunt_high, shunt_low, passes = _branches(electrical, place)
    down = (branch >= 0) & (electrical.branches.to_bus[branch] == bus)
    root = branch < 0
    z = np.where(root[:, None], 0, series[branch])
    y_above = np.where(root[:, None], 0, np.where(down[:, None], shunt_high[branch], shunt_low[branch]))
    y_below = np.where(root[:, None], 0, np.where(down[:, None], shunt_low[branch], shunt_high[branch]))
    supply = np.where(root, live.supply[bus], -1)
    z[root] = _source_impedance(electrical)[supply[root]]
    y = y_below.copy()
    np.add.at(y, parent[~root], y_above[~root])
    emf = np.where(root, electrical.supplies.voltage_pu[supply], 0.0)
    volts = place.volts[bus]
    emf[root] *= electrical.buses.voltage_v[bus[root]] / volts[root]
    return Ladder(
        bus=bus,
        parent=parent,
        zero_parent=np.where(root | ~passes[branch], -1, parent),
        branch=branch,
        down=down,
        z=z,
        y=y,
        y_above=y_above,
        y_below=y_below,
        emf=emf,
        volts=volts,
        turn=_turns(electrical, live, place)[bus],
        supply=supply,
    )


def _depth_first(live: Energised) -> Ints:
    """The energised buses, every subtree in one piece, parents first: neighbours in the tree are so in memory."""
    size = np.ones(live.supply.shape[0], dtype=np.int64)
    for bus in live.order[::-1].tolist():
        if live.parent_bus[bus] >= 0:
            size[live.parent_bus[bus]] += size[bus]
    first = np.zeros_like(size)
    top = 0
    free = np.zeros_like(size)
    for bus in live.order.tolist():
        above = live.parent_bus[bus]
        if above < 0:
            first[bus], top = top, top + size[bus]
        else:
            first[bus] = free[above]
            free[above] += size[bus]
        free[bus] = first[bus] + 1
    order = np.empty(live.order.shape[0], dtype=np.int64)
    order[first[live.order]] = live.order
    return order


def _branches(electrical: Electrical, place: Places) -> tuple[Complex, Complex, Complex, Bools]:
    """Series impedance, shunt at the from and at the to side (E, 3) [pu], and where the zero sequence passes (E,)."""
    branches, of = electrical.branches, electrical.impedances
    count = branches.kind.shape[0]
    low_volts = place.volts[branches.to_bus]
    ohm = low_volts**2 / (BASE_KVA * 1000)
    contact = np.where(branches.switchable, SWITCH_PU, 0.0) * electrical.buses.voltage_v[branches.from_bus] ** 2
    contact = contact / (BASE_KVA * 1000)
    line1 = (of.r_ohm + contact + 1j * (of.x_ohm + contact)) / ohm
    line0 = (of.r0_ohm + contact + 1j * (of.x0_ohm + contact)) / ohm
    series: Complex = np.stack([line0, line1, line1], axis=1)
    charging = np.pi * electrical.frequency_hz * of.c_nf * 1e-9 * ohm
    high = np.repeat(charging[:, None], 3, axis=1).astype(np.complex128) * 1j
    low = high.copy()
    passes: Bools = np.ones(count, dtype=np.bool_)
    for e in np.flatnonzero(branches.kind == BranchKind.TRANSFORMER).tolist():
        series[e], high[e], low[e], passes[e] = _transformer(electrical, e, float(low_volts[e]))
    return series, high, low, passes


def _transformer(electrical: Electrical, e: int, low_volts: float) -> tuple[Complex, Complex, Complex, bool]:
    """Series impedance, high and low shunt (3,) of a transformer [pu], and whether its zero sequence passes."""
    of = electrical.impedances
    leakage, _ = _leakage_and_iron(electrical, e, low_volts)
    along, both = transformer_pi(electrical, e, low_volts)
    zero, zero_high, zero_low = _pi_of_t(leakage, ZERO_HIGH_SHARE, 1 / (1j * ZERO_MAGNETISING * abs(leakage)))
    letters, clock = of.vector_group[e], int(electrical.branches.clock[e])
    passes = letters == "YNyn" and clock % 2 == 0
    if not passes:
        # The side with the neutral is earthed through the leakage; nothing of it is seen on the other side.
        earthed_low = letters != "YNd"
        zero, zero_high, zero_low = (
            (1 / (1 / zero + zero_low), 0, 0) if earthed_low else (1 / (1 / zero + zero_high), 0, 0)
        )
    as_row = np.array
    return (
        as_row([zero, along, along]),
        as_row([zero_high, both, both]),
        as_row([zero_low, both, both]),
        passes,
    )


def transformer_pi(electrical: Electrical, e: int, low_volts: float) -> tuple[complex, complex]:
    """Positive sequence of transformer ``e``: series impedance and the shunt at either end [pu of ``low_volts``]."""
    leakage, magnetising = _leakage_and_iron(electrical, e, low_volts)
    series, shunt, _ = _pi_of_t(leakage, 0.5, magnetising)
    return series, shunt


def _leakage_and_iron(electrical: Electrical, e: int, low_volts: float) -> tuple[complex, complex]:
    """Leakage impedance and magnetising admittance of a transformer [pu]."""
    of = electrical.impedances
    scale = float((of.low_v[e] / low_volts) ** 2 * BASE_KVA / of.rated_kva[e])
    iron = float(of.iron_loss_kw[e] / of.rated_kva[e])
    idle = max(float(of.no_load_current_percent[e] / 100) ** 2 - iron**2, 0.0)
    leakage = _impedance(float(of.vk_percent[e]), float(of.vkr_percent[e])) * scale
    return leakage, complex(iron, -math.sqrt(idle)) / scale


def _impedance(vk_percent: float, vkr_percent: float) -> complex:
    """Leakage per unit of the rated power from the short-circuit voltages."""
    reactive = float(np.sqrt(max(vk_percent**2 - vkr_percent**2, 0.0)))
    return complex(vkr_percent, reactive) / 100


def _pi_of_t(leakage: complex, high_share: float, magnetising: complex) -> tuple[complex, complex, complex]:
    """Star to delta (Kennelly 1899): series impedance, high and low shunt of a T with this magnetising admittance."""
    if magnetising == 0:
        return leakage, 0j, 0j
    high, low, middle = high_share * leakage, (1 - high_share) * leakage, 1 / magnetising
    around = high * low + low * middle + high * middle
    return around / middle, low / around, high / around


def _source_impedance(electrical: Electrical) -> Complex:
    """(S, 3) impedance of each supply: nothing in the positive sequence [pu]."""
    supplies = electrical.supplies
    size = VOLTAGE_FACTOR / (supplies.short_circuit_mva * 1000 / BASE_KVA)
    x = size / np.sqrt(supplies.rx_ratio**2 + 1)
    negative = supplies.rx_ratio * x + 1j * x
    x0 = SUPPLY_X0_X * x
    return np.stack([SUPPLY_R0_X0 * x0 + 1j * x0, np.zeros_like(negative), negative], axis=1)


def _turns(electrical: Electrical, live: Energised, place: Places) -> Complex:
    """(B, 3) frame to bus: clock k delays the positive sequence by 30k degrees and advances the negative one.

    A YNyn of clock 2, 6 or 10 also reverses the zero sequence.
    """
    branches = electrical.branches
    sign = np.ones(live.supply.shape[0])
    for bus in live.order.tolist():
        branch = live.parent_branch[bus]
        if branch >= 0:
            reverses = branches.kind[branch] == BranchKind.TRANSFORMER and branches.clock[branch] % 4 == 2
            sign[bus] = sign[live.parent_bus[bus]] * (-1.0 if reverses else 1.0)
    delay = np.exp(-1j * np.pi * place.clock / 6)
    return np.stack([sign.astype(np.complex128), delay, delay.conj()], axis=1)
