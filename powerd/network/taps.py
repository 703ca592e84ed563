"""Where current is taken, and every branch it crosses on its way from the supply.

A *tap* is one current phasor per phase at one bus. All EVSEs of one bus that load the phases alike share taps, so the
climb costs as many steps as there are kinds of taps, not EVSEs. An AC post that loads more than one phase against
neutral gives one tap a phase, because its car may use any subset of its phases; a line-to-line post, the rectifier of a
DC post and a car that is known to draw in step give a single tap, a one-phase post on an unknown phase one on each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from powerd.limits import Bools, Floats, Ints
from powerd.network.cones import ROUNDING
from powerd.network.electrical import V_LOW_PU, BranchKind, Electrical
from powerd.network.phasors import PHASE_DEG, Complex, Places, carry
from powerd.network.supply import Energised

TWO_OF_THREE = (4.0 + 7.0**0.5) / 6.0
"""Most that a way of a loop carries on a phase, of a car that takes 1 A on each: of two phases, |I - z| = sqrt(7)/3."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Taps:
    """K taps and what each owner (EVSE or load) puts through them."""

    bus: Ints
    """(K,) bus index."""
    current: Complex
    """(K, 3) phasor a unit current puts on each phase, in the bus's frame."""
    whole: Bools
    """(K,) False where its owner has a tap on each of the three phases: a loop bounds those at once."""
    share: sp.csr_array
    """(K, owners) ampere per own unit of the owner (EVSE: A or kW; load: kW)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crossings:
    """Which tap loads which side of which branch; K entries, only branches asked for."""

    branch: Ints
    """(K,) branch."""
    side: Ints
    """(K,) 0 = from (high) side, 1 = to (low) side."""
    tap: Ints
    """(K,) tap."""
    current: Complex
    """(K, 3) phasor there; real and >= 0 (a bound on the magnitude) where the branch is part of a loop."""


def evse_taps(electrical: Electrical) -> Taps:
    """Taps of all EVSEs; a unit is one ampere at the bus's nominal voltage."""
    deg = np.where(np.isnan(electrical.evse_phasor_deg), np.inf, electrical.evse_phasor_deg)
    key = np.column_stack([np.round(deg, 9), electrical.evse_in_step, electrical.evse_unknown])
    patterns, pattern_of = np.unique(key, axis=0, return_inverse=True)
    owners: list[Ints] = []
    currents: list[Complex] = []
    whole: list[Bools] = []
    for index, pattern in enumerate(patterns):
        members = np.flatnonzero(pattern_of.reshape(-1) == index)
        split = _split(pattern[:3], whole=bool(pattern[3]))
        for current in split:
            owners.append(members)
            whole.append(np.full(members.shape[0], len(split) < 3))
            currents.append(np.tile(current, (members.shape[0], 1)))
    owner = np.concatenate(owners) if owners else np.zeros(0, dtype=np.int64)
    current = np.concatenate(currents) if currents else np.zeros((0, 3), dtype=np.complex128)
    kind = np.concatenate([np.full(o.shape[0], k) for k, o in enumerate(owners)]) if owners else owner
    merged, tap = np.unique(electrical.evse_bus[owner] * (len(owners) + 1) + kind, return_inverse=True)
    first = np.zeros(merged.shape[0], dtype=np.int64)
    first[tap[::-1]] = np.arange(tap.shape[0])[::-1]
    amps = electrical.evse_amps_per_unit[owner]
    share = sp.csr_array((amps, (tap, owner)), shape=(merged.shape[0], electrical.evse_count))
    of_each = np.concatenate(whole)[first] if whole else np.zeros(0, dtype=np.bool_)
    return Taps(bus=electrical.evse_bus[owner][first], current=current[first], whole=of_each, share=share)


def _split(deg: Floats, *, whole: bool) -> list[Complex]:
    """Tap phasors (3,) of a post whose unit current stands at ``deg`` (inf = phase not loaded)."""
    used = np.isfinite(deg)
    current = np.where(used, np.exp(1j * np.radians(np.where(used, deg, 0.0))), 0)
    if whole or (used.sum() == 2 and abs(current.sum()) < 1e-6):
        return [current]
    return [np.where(np.arange(3) == phase, current, 0) for phase in np.flatnonzero(used)]


def load_taps(electrical: Electrical) -> Taps:
    """Taps of the uncontrolled loads [A per kW], constant power at V_LOW_PU, so the most current they can draw."""
    loads = electrical.loads
    on: Ints = (loads.phase_bits[:, None] >> np.arange(3)) & 1
    three_phase: Bools = on.sum(axis=1) == 3
    phases = np.exp(1j * np.radians(PHASE_DEG))
    even = np.flatnonzero(three_phase)
    bus, current, owner = [loads.bus[even]], [np.tile(phases, (even.shape[0], 1))], [even]
    for phase in range(3):
        members = np.flatnonzero(~three_phase & (on[:, phase] == 1))
        bus.append(loads.bus[members])
        current.append(np.tile(np.where(np.arange(3) == phase, phases, 0), (members.shape[0], 1)))
        owner.append(members)
    of = np.concatenate(owner)
    volts = electrical.buses.voltage_v[loads.bus[of]] * V_LOW_PU
    per_kw = 1000.0 / (np.sqrt(3.0) * volts * loads.power_factor[of])
    per_kw = per_kw * np.where(three_phase[of], 1.0, 3.0 / on.sum(axis=1)[of])
    share = sp.csr_array((per_kw, (np.arange(of.shape[0]), of)), shape=(of.shape[0], loads.bus.shape[0]))
    whole = np.ones(of.shape[0], dtype=np.bool_)
    return Taps(bus=np.concatenate(bus), current=np.concatenate(current), whole=whole, share=share)


def cross(electrical: Electrical, live: Energised, place: Places, taps: Taps, wanted: Bools) -> Crossings:
    """Climb from every tap to its supply and note each side of each ``wanted`` (E,) branch it crosses.

    Between feeders and switches both sides carry the same, so only side 0 is noted. On a branch in a loop the split
    of the current is unknown: every tap at or below the loop counts there with its whole magnitude.
    """
    steps = [_empty()]
    loops: list[tuple[Ints, Ints, Ints]] = []
    # A drawing may have no branch at all: posts on the supply's own bus cross nothing.
    tap = np.flatnonzero((live.supply[taps.bus] >= 0) & (wanted.shape[0] > 0))
    at = taps.bus[tap]
    while tap.shape[0]:
        branch = live.parent_branch[at]
        ring = np.where(branch >= 0, live.loop[branch], live.supply_loop[live.supply[at]])
        loops.append((ring[ring >= 0], tap[ring >= 0], at[ring >= 0]))
        take = (branch >= 0) & (ring < 0) & wanted[branch]
        steps.extend(_both_sides(electrical, place, taps, branch[take], tap[take]))
        up = branch >= 0
        tap, at = tap[up], live.parent_bus[at[up]]
    steps.extend(_in_loops(electrical, live, place, taps, loops, wanted))
    return Crossings(
        branch=np.concatenate([s.branch for s in steps]),
        side=np.concatenate([s.side for s in steps]),
        tap=np.concatenate([s.tap for s in steps]),
        current=np.concatenate([s.current for s in steps]),
    )


def _empty() -> Crossings:
    """No crossings, so that concatenation has a type."""
    none = np.zeros(0, dtype=np.int64)
    return Crossings(branch=none, side=none, tap=none, current=np.zeros((0, 3), dtype=np.complex128))


def _both_sides(electrical: Electrical, place: Places, taps: Taps, branch: Ints, tap: Ints) -> list[Crossings]:
    """Crossings of the given pairs: side 0 of all, side 1 of transformers."""
    branches = electrical.branches
    wound = branches.kind[branch] == BranchKind.TRANSFORMER
    result = []
    for side, ends, chosen in ((0, branches.from_bus, np.ones_like(wound)), (1, branches.to_bus, wound)):
        b, t = branch[chosen], tap[chosen]
        current = carry(taps.current[t], place, taps.bus[t], ends[b])
        result.append(Crossings(branch=b, side=np.full(b.shape[0], side), tap=t, current=current))
    return result


def _in_loops(
    electrical: Electrical,
    live: Energised,
    place: Places,
    taps: Taps,
    entries: list[tuple[Ints, Ints, Ints]],
    wanted: Bools,
) -> list[Crossings]:
    """Crossings of loop branches: for each loop, all its wanted branches x all taps that entered it, as magnitudes."""
    if not entries:
        return []
    ring, tap = (np.concatenate([e[k] for e in entries]) for k in (0, 1))
    pairs = np.unique(np.stack([ring, tap], axis=1), axis=0)
    result = []
    for label in range(live.loop_count):
        members = np.flatnonzero((live.loop == label) & wanted)
        entered = pairs[pairs[:, 0] == label, 1]
        branch, of = np.repeat(members, entered.shape[0]), np.tile(entered, members.shape[0])
        for part in _both_sides(electrical, place, taps, branch, of):
            bound = _split_bound(part.current, taps.whole[part.tap]).astype(np.complex128)
            result.append(Crossings(branch=part.branch, side=part.side, tap=part.tap, current=bound))
    return result


def _split_bound(current: Complex, whole: Bools) -> Floats:
    """(K, 3) most that each phase of a loop's branch can carry of the currents (K, 3) that enter the loop.

    A share a of the positive and negative sequence and another one b of the zero sequence goes this way, for their
    paths have different impedances, each anywhere in the circle over [0, 1]. With z the zero sequence,

        |a (I - z) + b z|  <=  (|I| + |I - z| + |z|) / 2,

    which is reached. So a one-phase current also shows, with a third, on the other two phases. Taps of a post that has
    one on each phase are not ``whole`` and count at once: the worst of its cars is one on two phases, on each of them.
    """
    zero = current.mean(axis=1, keepdims=True)
    size, rest = np.abs(current), np.abs(zero)
    split = rest > ROUNDING * size.max(axis=1, initial=0.0, keepdims=True)
    at_once = size * np.where(split, TWO_OF_THREE, 1.0)
    bound: Floats = np.where(whole[:, None], 0.5 * (size + np.abs(current - zero) + rest), at_once)
    return bound
