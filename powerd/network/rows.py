"""What the wires allow in one switching state: every rating as rows on the EVSEs' ceilings.

Each EVSE's current phasor is carried up the tree to its supply (``taps``, ``phasors``); every rated side of every
branch it crosses becomes one limit per phase. The mathematics, with the proof that the rows suffice, is in
``docs/limits.md``.

Three conservative choices, each of which can only lower what is granted:
- a branch in a loop counts, with its magnitude, everything that hangs on or below the loop: the split is unknown;
- kW limits count AC posts at V_HIGH_PU, DC posts as the apparent power they take at worst efficiency and factor, and
  what all wires and transformers lose at full load, or, while loads come back, with these at their pick-up;
- uncontrolled loads draw constant power at V_LOW_PU, and their currents add arithmetically.
Limits below which no EVSE hangs are left out: nothing powerd grants can change them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from powerd.limits import Bools, Floats, Ints, Limits
from powerd.network.balance import imbalance_limits, neutral_limits
from powerd.network.blocks import Block, block
from powerd.network.cones import ROUNDING, cones, real_and_imaginary, without_dominated
from powerd.network.curves import Device
from powerd.network.electrical import V_HIGH_PU, V_LOW_PU, BranchKind, Electrical
from powerd.network.losses import worst_losses_kw
from powerd.network.names import describe
from powerd.network.phasors import Complex, Places, places
from powerd.network.supply import Energised, energise
from powerd.network.taps import Crossings, Taps, cross, evse_taps, load_taps
from powerd.network.tolerance import Overload
from powerd.network.tree import make_tree
from powerd.units import SQRT3


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The limits with what is needed to reckon loads and to find the branch again. L limits, D loads."""

    limits: Limits
    """What ``allocation`` reads."""
    load_share: sp.csr_array
    """(L, D) most that one kW of each uncontrolled load can put on each limit [limit unit per kW]."""
    branch: Ints
    """(L,) branch index; -1 for all that bounds no phase current."""
    side: Ints
    """(L,) 0 = from (high) side, 1 = to (low) side; -1 likewise."""
    phase: Ints
    """(L,) 0, 1, 2 for l1, l2, l3; -1 likewise."""
    supply: Ints
    """(L,) supply whose import a kW limit bounds; -1 for all others (the site's own import, too)."""
    losses: Floats
    """(L,) what is already taken off the capacity of a kW limit for losses at full load [kW]; 0 for all others."""
    overload: tuple[Overload, ...]
    """(L,) all that carries the limit's current, what is in series included, and how long it stands more than its
    rating; a contract has nothing that heats."""
    pickup_losses: Floats
    """(L,) what more is lost there at most while loads come back at their pick-up [kW]."""
    beside: Bools
    """(D,) loads with a voltage where no EVSE has one, so that the site's import limit is left out; else none."""
    beside_losses: float
    """What is lost there at most, with them at their pick-up [kW]."""


_LIMIT_COLUMNS = ("branch", "side", "phase", "supply", "losses", "pickup_losses")


def build_limits(electrical: Electrical, closed: Bools) -> Limits:
    """The limits of one switching state; ``closed`` (E,) as in ``supply.energise``."""
    return build_rows(electrical, closed).limits


def uncontrolled_worst(electrical: Electrical, closed: Bools, limits: Limits) -> Floats:
    """Most that the uncontrolled loads can put on each of the ``limits`` of this switching state (L,) [limit unit].

    Raises:
        ValueError: ``limits`` belong to another switching state.
    """
    rows = build_rows(electrical, closed)
    if rows.limits.name != limits.name:
        raise ValueError("these limits are of other switch positions; call build_rows once and use its load_share")
    worst: Floats = rows.load_share @ electrical.loads.worst_kw
    return worst


def build_rows(electrical: Electrical, closed: Bools) -> Rows:
    """The limits of one switching state together with the uncontrolled loads' share in each.

    Args:
        electrical: the compiled drawing.
        closed: (E,) switch positions; only read where ``switchable``.

    Returns:
        Limits ordered from the supply outwards: kW limits first, then branches by depth, side, phase; then imbalance
        and neutral limits.
    """
    live = energise(electrical, closed)
    place = places(electrical, live)
    taps, loads = evse_taps(electrical), load_taps(electrical)
    stands_for, capacity, series = _chains(electrical, live, taps, loads)
    wanted = stands_for == np.arange(stands_for.shape[0])
    crossings = cross(electrical, live, place, taps, wanted)
    losses, at_pickup = _losses(electrical, live, place, taps, loads)
    power = _power_limits(electrical, live, losses, at_pickup)
    current = _current_limits(
        electrical, live, taps, crossings, loads, cross(electrical, live, place, loads, wanted), capacity, series
    )
    blocks = [power, current]
    if not np.isnan(electrical.buses.max_imbalance_a).all():
        blocks.append(imbalance_limits(electrical, live, place, taps, loads))
    if not np.isnan(electrical.branches.neutral_a).all():
        blocks.append(neutral_limits(electrical, live, place, taps, loads))
    rows = _beside(electrical, live, _join(electrical, live, blocks), at_pickup)
    tree = make_tree(electrical, live, place, rows.limits, rows.branch, rows.side, rows.supply)
    return replace(rows, limits=replace(rows.limits, tree=tree))


def _chains(
    electrical: Electrical, live: Energised, taps: Taps, loads: Taps
) -> tuple[Ints, Floats, dict[int, Overload]]:
    """Branches in series with nothing in between carry the same current: the weakest stands for all.

    Returns:
        (E,) the branch that stands for each (-1 = no rating in its chain); (E, 2) rating per side [A], nan = none;
        what all of a chain together stands, by the branch that stands for it, where it stands for others, too.
    """
    branches = electrical.branches
    capacity = np.column_stack([branches.capacity_from_a, branches.capacity_to_a])
    capacity[~np.isfinite(capacity)] = np.nan
    plain = branches.kind != BranchKind.TRANSFORMER
    capacity[plain, 0] = np.fmin(capacity[plain, 0], capacity[plain, 1])
    capacity[plain, 1] = np.nan
    child = np.flatnonzero(live.parent_branch >= 0)
    below = np.bincount(live.parent_bus[child], minlength=live.supply.shape[0])
    busy = (below != 1) | (live.depth == 0)
    busy[taps.bus] = True
    busy[loads.bus] = True
    chain = np.arange(capacity.shape[0])
    for bus in live.order[::-1].tolist():
        above, branch = live.parent_bus[bus], live.parent_branch[bus]
        if branch < 0 or busy[above]:
            continue
        upper = live.parent_branch[above]
        if plain[branch] and plain[upper] and live.loop[branch] < 0 and live.loop[upper] < 0:
            chain[upper] = chain[branch]
    rated = np.flatnonzero(~np.isnan(capacity).all(axis=1))
    order = rated[np.lexsort((capacity[rated, 0], chain[rated]))]
    first = np.unique(chain[order], return_index=True)[1]
    stands_for = np.full(capacity.shape[0], -1, dtype=np.int64)
    weakest = np.full(capacity.shape[0], -1, dtype=np.int64)
    weakest[chain[order][first]] = order[first]
    stands_for[rated] = weakest[chain[rated]]
    return stands_for, capacity, _in_series(electrical, stands_for)


def _in_series(electrical: Electrical, stands_for: Ints) -> dict[int, Overload]:
    """What is in series gives in with the first of its devices: the lowest rating need not be the fastest to trip."""
    devices: dict[int, tuple[Device, ...]] = {}
    for e in np.flatnonzero((stands_for >= 0) & (stands_for != np.arange(stands_for.shape[0]))).tolist():
        first = int(stands_for[e])
        devices[first] = devices.get(first, electrical.overload[first].devices) + electrical.overload[e].devices
    return {first: Overload(devices=tuple(dict.fromkeys(every))) for first, every in devices.items()}


def _current_limits(
    electrical: Electrical,
    live: Energised,
    taps: Taps,
    crossings: Crossings,
    loads: Taps,
    load_crossings: Crossings,
    capacity: Floats,
    series: dict[int, Overload],
) -> Block:
    """One limit for each rated branch side and phase that some EVSE loads."""
    key, tap, value = _entries(electrical, live, crossings, capacity)
    keys = np.unique(key)
    limit = np.searchsorted(keys, key)
    parts, limit_of_row = cones(limit, tap, value, (keys.shape[0], taps.bus.shape[0]))
    load_key, load_tap, load_value = _entries(electrical, live, load_crossings, capacity)
    at = np.where(np.isin(load_key, keys), np.searchsorted(keys, load_key), -1)
    bound = sp.csr_array(
        (np.abs(load_value[at >= 0]), (at[at >= 0], load_tap[at >= 0])), shape=(keys.shape[0], loads.bus.shape[0])
    )
    branch, side, phase = keys // 6 % capacity.shape[0], keys // 3 % 2, keys % 3
    dominating, limit_of_row = without_dominated(sp.csr_array(parts @ taps.share), limit_of_row)
    none = np.full(keys.shape[0], -1, dtype=np.int64)
    at_side = zip(branch.tolist(), side.tolist(), phase.tolist(), strict=True)
    return Block(
        kind="current",
        rows=dominating,
        limit_of_row=limit_of_row,
        loads=sp.csr_array(bound @ loads.share),
        capacity=capacity[branch, side],
        names=[describe(electrical, live, *where, -1) for where in at_side],
        branch=branch,
        side=side,
        phase=phase,
        supply=none,
        losses=np.zeros(keys.shape[0]),
        overload=tuple(series.get(e, electrical.overload[e]) for e in branch.tolist()),
        pickup_losses=np.zeros(keys.shape[0]),
    )


def _entries(
    electrical: Electrical, live: Energised, crossings: Crossings, capacity: Floats
) -> tuple[Ints, Ints, Complex]:
    """Crossings as (sort key, tap, phasor), one entry a phase; only rated sides and phases that carry something.

    The key orders by depth, branch, side, phase: ((depth * E + branch) * 2 + side) * 3 + phase.
    """
    branches, count = electrical.branches, capacity.shape[0]
    depth = np.maximum(live.depth[branches.from_bus], live.depth[branches.to_bus])
    base = ((depth[crossings.branch] * count + crossings.branch) * 2 + crossings.side) * 3
    key = base[:, None] + np.arange(3)
    carries = np.abs(crossings.current) > ROUNDING * np.abs(crossings.current).max(axis=1, keepdims=True, initial=0.0)
    carries &= ~np.isnan(capacity[crossings.branch, crossings.side])[:, None]
    tap = np.broadcast_to(crossings.tap[:, None], key.shape)
    return key[carries], tap[carries], crossings.current[carries]


def _losses(electrical: Electrical, live: Energised, place: Places, taps: Taps, loads: Taps) -> tuple[Floats, Floats]:
    """(E,) most that each branch can lose [kW], and with all loads at their pick-up.

    0 where no limit in kW asks for it or no supply reaches it.
    """
    branches, worst = electrical.branches, electrical.loads.worst_kw
    if not np.isfinite(np.append(electrical.supplies.import_limit_kw, electrical.site_import_limit_kw)).any():
        return np.zeros(branches.kind.shape[0]), np.zeros(branches.kind.shape[0])
    every = np.ones(branches.kind.shape[0], dtype=np.bool_)
    posts = (taps, cross(electrical, live, place, taps, every), electrical.posts.max_ceiling)
    at_loads = cross(electrical, live, place, loads, every)
    reached = live.conducting & (live.supply[branches.from_bus] >= 0)
    full, cold = (
        np.where(reached, worst_losses_kw(electrical, [posts, (loads, at_loads, most)]), 0.0)
        for most in (worst, worst * electrical.loads.pickup_factor)
    )
    return full, cold


def _beside(electrical: Electrical, live: Energised, rows: Rows, at_pickup: Floats) -> Rows:
    """The rows with what the site imports where its limit is left out; ``at_pickup`` (E,) as ``_losses`` has it."""
    if not np.isfinite(electrical.site_import_limit_kw) or fed_by(electrical, live, -1, electrical.evse_bus).any():
        return rows
    lost = at_pickup[fed_by(electrical, live, -1, electrical.branches.from_bus)].sum()
    return replace(rows, beside=fed_by(electrical, live, -1, electrical.loads.bus), beside_losses=float(lost))


def _power_limits(electrical: Electrical, live: Energised, losses: Floats, at_pickup: Floats) -> Block:
    """One linear limit for each limited supply and one for the site, less the ``losses`` (E,) [kW] below it.

    ``at_pickup`` (E,) are these with all loads at their pick-up.
    """
    supplies, posts = electrical.supplies, electrical.posts
    volts = electrical.buses.voltage_v[electrical.evse_bus]
    apparent = electrical.evse_amps_per_unit * SQRT3 * V_LOW_PU * volts / 1000.0
    kw = np.where(posts.is_dc, apparent, posts.kw_per_unit * V_HIGH_PU)
    limited = [s for s in range(len(supplies.ids)) if np.isfinite(supplies.import_limit_kw[s])]
    scope = [(s, float(supplies.import_limit_kw[s])) for s in limited]
    if np.isfinite(electrical.site_import_limit_kw):
        scope.insert(0, (-1, electrical.site_import_limit_kw))
    lost, cold = (
        np.array([each[fed_by(electrical, live, s, electrical.branches.from_bus)].sum() for s, _ in scope])
        for each in (losses, at_pickup)
    )
    evses = [fed_by(electrical, live, s, electrical.evse_bus) for s, _ in scope]
    kept = [k for k, fed in enumerate(evses) if fed.any()]
    return block(
        "power",
        rows=_stack([np.where(evses[k], kw, 0.0) for k in kept], electrical.evse_count),
        limit_of_row=np.arange(len(kept), dtype=np.int64),
        loads=_stack(
            [fed_by(electrical, live, scope[k][0], electrical.loads.bus).astype(float) for k in kept],
            electrical.loads.bus.shape[0],
        ),
        capacity=np.array([max(0.0, scope[k][1] - lost[k]) for k in kept], dtype=np.float64),
        names=[describe(electrical, live, -1, -1, -1, scope[k][0]) for k in kept],
        supply=np.array([scope[k][0] for k in kept], dtype=np.int64),
        losses=lost[kept].astype(np.float64),
        pickup_losses=(cold - lost)[kept].astype(np.float64),
    )


def fed_by(electrical: Electrical, live: Energised, supply: int, bus: Ints) -> Bools:
    """Which of the buses the supply may feed, alone or in parallel with others; -1 = any supply."""
    if supply < 0:
        return live.supply[bus] >= 0
    fed: Bools = live.supply[bus] == supply
    if supply in live.parallel:
        fed |= live.island[bus] == live.island[electrical.supplies.bus[supply]]
    return fed


def _stack(rows: list[Floats], width: int) -> sp.csr_array:
    """Dense rows as a sparse matrix (len(rows), width)."""
    return sp.csr_array(np.array(rows)) if rows else sp.csr_array((0, width))


def _join(electrical: Electrical, live: Energised, blocks: list[Block]) -> Rows:
    """All blocks as one."""
    real, imag = real_and_imaginary(sp.csr_array(sp.vstack([part.rows for part in blocks])))
    columns = {f: np.concatenate([getattr(part, f) for part in blocks]) for f in _LIMIT_COLUMNS}
    size = [part.capacity.shape[0] for part in blocks]
    offset = np.cumsum([0, *size])
    names = [name for part in blocks for name in part.names]
    kinds = tuple(part.kind for part, count in zip(blocks, size, strict=True) for _ in range(count))
    limits = Limits(
        real=real,
        imag=imag,
        limit_of_row=np.concatenate([part.limit_of_row + offset[k] for k, part in enumerate(blocks)]),
        capacity=np.concatenate([part.capacity for part in blocks]),
        unit=tuple("kW" if kind == "power" else "A" for kind in kinds),
        kind=kinds,
        name=tuple(n[0] for n in names),
        element=tuple(n[1] for n in names),
        phase=tuple("" if p < 0 else f"l{p + 1}" for p in columns["phase"].tolist()),
        source=tuple(n[2] for n in names),
        energized=live.supply[electrical.evse_bus] >= 0,
        tree=None,
    )
    loads = sp.csr_array(sp.vstack([part.loads for part in blocks]))
    none = np.zeros(electrical.loads.bus.shape[0], np.bool_)
    overload = tuple(overload for part in blocks for overload in part.overload)
    return Rows(limits=limits, load_share=loads, overload=overload, beside=none, beside_losses=0.0, **columns)
