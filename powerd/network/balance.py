"""Rows for what phases may differ by, and for neutral conductors thinner than the phases.

A *unit* is what draws in step: a one-phase current; both ends of a line-to-line current; the three equal currents of a
rectifier, or of a car that was seen to take the same on all its phases. A three-phase post whose car is not known is
three units, because its car may use any of its phases. Units draw whatever they like below their ceilings, so every
inequality here holds with all others at zero.

**Imbalance** at a bus, for each ordered pair of phases (p, q): with P = the units that load p and not q,

    |sum over P of a_ip x_i|  <=  limit        implies        |I_p| - |I_q| <= limit        for all 0 <= d <= x.

Let C be the units that load both. They load them alike, turned by equal and opposite angles of at most 30 degrees from
the phases' own axes (a line-to-line current by 30, a balanced one by 0), so |sum_C on p| = |sum_C on q|. What loads q
alone lies within 30 degrees of q's axis as well and so only adds to the length of the sum there: |I_q| >= |sum_C on q|,
while |I_p| <= |sum_C on p| + |sum_P on p|, and what lies within 60 degrees of one another only grows with each x_i. No
smaller set would do: with everybody but P off, the sum is reached. Where some current has been turned further (by two
windings in a row) all magnitudes are added, its own on p and on q: the triangle inequality carries the proof then.

**Neutral** of a feeder: |sum of the three phase currents| <= rating, a phasor row over the units' own sums. One-phase
units at 0, -120 and 120 degrees give one linear row a phase, the two others at zero; balanced units give nothing.
Fundamental only: triple harmonics of rectifiers add up in a neutral and are the cable's derating, not ours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from powerd.limits import Bools, Floats
from powerd.network.blocks import Block, block
from powerd.network.cones import ROUNDING, cones, without_dominated
from powerd.network.curves import Conductor
from powerd.network.electrical import Electrical
from powerd.network.phasors import PHASE_DEG, Complex, Places, carry
from powerd.network.supply import Energised
from powerd.network.taps import Taps, cross
from powerd.network.tolerance import Overload

#: Within this of its phase's axis a current only ever adds to that phase [deg]: a line-to-line current stands at 30.
CONE_DEG = 30.0 + 1e-6


def imbalance_limits(electrical: Electrical, live: Energised, place: Places, taps: Taps, loads: Taps) -> Block:
    """One linear limit for each pair of phases of each bus with a limit, where some EVSE loads one phase alone."""
    rows: list[sp.csr_array] = []
    load_rows: list[sp.csr_array] = []
    names: list[tuple[str, str, str]] = []
    capacity: list[float] = []
    buses = electrical.buses
    for bus in np.flatnonzero(~np.isnan(buses.max_imbalance_a) & live.bus_is_live).tolist():
        most = float(buses.max_imbalance_a[bus])
        kva = most * buses.voltage_v[bus] / np.sqrt(3.0) / 1000.0
        evses, others = (_one_sided(live, place, part, bus) for part in (taps, loads))
        for p in range(3):
            pairs = [q for q in range(3) if q != p]
            alike = np.array_equal(evses[p, pairs[0]], evses[p, pairs[1]])
            alike &= np.array_equal(others[p, pairs[0]], others[p, pairs[1]])
            for q in pairs[:1] if alike else pairs:
                if evses[p, q].any():
                    rows.append(_weighed(evses[p, q], taps))
                    load_rows.append(_weighed(np.abs(others[p, q]), loads))
                    over = "the other phases" if alike else f"L{q + 1}"
                    name = f"the imbalance of L{p + 1} over {over} at bus {buses.ids[bus]}"
                    names.append((name, buses.ids[bus], f"{kva:.3g} kVA between phases"))
                    capacity.append(most)
    return block(
        "imbalance",
        rows=_stacked(rows, electrical.evse_count),
        loads=_stacked(load_rows, electrical.loads.bus.shape[0]),
        limit_of_row=np.arange(len(rows), dtype=np.int64),
        capacity=np.array(capacity),
        names=names,
    )


def neutral_limits(electrical: Electrical, live: Energised, place: Places, taps: Taps, loads: Taps) -> Block:
    """One phasor limit for each feeder whose neutral has a rating of its own and carries something."""
    rated = ~np.isnan(electrical.branches.neutral_a)
    parts = []
    for part in (taps, loads):
        crossing = cross(electrical, live, place, part, rated)
        total = crossing.current.sum(axis=1)
        carries = (crossing.side == 0) & (np.abs(total) > ROUNDING * np.abs(crossing.current).sum(axis=1))
        parts.append((crossing.branch[carries], crossing.tap[carries], total[carries]))
    (branch, tap, value), (load_branch, load_tap, load_value) = parts
    feeders = np.unique(branch)
    limit = np.searchsorted(feeders, branch)
    rows, limit_of_row = cones(limit, tap, value, (feeders.shape[0], taps.bus.shape[0]))
    kept, limit_of_row = without_dominated(sp.csr_array(rows @ taps.share), limit_of_row)
    ours = np.isin(load_branch, feeders)
    at = np.searchsorted(feeders, load_branch[ours])
    bound = sp.csr_array((np.abs(load_value[ours]), (at, load_tap[ours])), shape=(feeders.shape[0], loads.bus.shape[0]))
    ids = [electrical.branches.ids[e] for e in feeders.tolist()]
    return block(
        "neutral",
        rows=kept,
        loads=sp.csr_array(bound @ loads.share),
        limit_of_row=limit_of_row,
        capacity=electrical.branches.neutral_a[feeders],
        names=[(f"the neutral of feeder {name}", name, "neutral conductor") for name in ids],
        overload=tuple(_conductor(electrical, e) for e in feeders.tolist()),
    )


def _conductor(electrical: Electrical, feeder: int) -> Overload:
    """A neutral heats like its feeder's phases, at its own rating; the fuses of the phases see nothing of it."""
    constants = [d.time_constant_s for d in electrical.overload[feeder].devices if isinstance(d, Conductor)]
    own = Conductor(ampacity_a=float(electrical.branches.neutral_a[feeder]))
    return Overload(devices=(replace(own, time_constant_s=constants[0]) if constants else own,))


def _one_sided(live: Energised, place: Places, taps: Taps, bus: int) -> Complex:
    """(3, 3, K) [p, q]: what one ampere through each tap adds to phase p at ``bus`` and not, alike, to phase q [A]."""
    behind = _behind(live, bus)[taps.bus]
    current = np.zeros((taps.bus.shape[0], 3), dtype=np.complex128)
    here = taps.bus[behind]
    current[behind] = carry(taps.current[behind], place, here, np.full(here.shape[0], bus))
    size = np.abs(current)
    loaded = size > ROUNDING * size.max(axis=1, initial=0.0, keepdims=True)
    turn = np.where(loaded, np.degrees(np.angle(current * np.exp(-1j * np.radians(PHASE_DEG)))), 0.0)
    upright = (np.abs(turn) <= CONE_DEG).all(axis=1)
    found = np.zeros((3, 3, taps.bus.shape[0]), dtype=np.complex128)
    for p in range(3):
        for q in range(3):
            alike = np.isclose(size[:, p], size[:, q], rtol=1e-9) & (np.abs(turn[:, p] + turn[:, q]) <= 1e-6)
            in_step = upright & loaded[:, p] & loaded[:, q] & alike
            lifts = current[:, p] if upright.all() else np.where(upright, size[:, p], size[:, p] + size[:, q])
            found[p, q] = np.where(in_step | (p == q), 0.0, lifts)
    return found


def _behind(live: Energised, bus: int) -> Bools:
    """(B,) buses whose current may pass ``bus``: those below it; in a network with loops all of its island."""
    if live.loop_count:
        island: Bools = live.island == live.island[bus]
        return island
    found = np.zeros(live.supply.shape[0], dtype=np.bool_)
    found[bus] = True
    for below in live.order.tolist():  # parents come before children
        found[below] |= live.parent_bus[below] >= 0 and found[live.parent_bus[below]]
    return found


def _weighed(per_tap: Floats | Complex, taps: Taps) -> sp.csr_array:
    """(1, owners) the same by own unit of the owners, whose units add up."""
    return sp.csr_array(sp.csr_array(per_tap[None, :]) @ taps.share)


def _stacked(rows: list[sp.csr_array], width: int) -> sp.csr_array:
    """The rows one below the other."""
    return sp.csr_array(sp.vstack(rows)) if rows else sp.csr_array((0, width))
