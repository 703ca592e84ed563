"""The drawing as the planner reckons with it: kVA a phase at each bus and branch, kW at the supplies.

As in the rows of the tick, uncontrolled loads count in currents at V_LOW_PU, AC posts in kW at V_HIGH_PU and DC posts
as the apparent power they take at worst efficiency. Phases are not mixed through delta windings, and losses are left
out: whether R5 holds in a state is asked of the rows themselves.
"""

from __future__ import annotations

import numpy as np

from powerd.limits import Floats, Ints
from powerd.network.electrical import V_HIGH_PU, V_LOW_PU, Electrical, least_import_kw, reserve_of
from powerd.network.plan_kernels import Grid
from powerd.units import SQRT3


def grid_of(electrical: Electrical) -> Grid:
    """The columns of a site."""
    branches, buses, loads = electrical.branches, electrical.buses.voltage_v.shape[0], electrical.loads
    ends = np.concatenate([branches.from_bus, branches.to_bus])
    posts, reserve = post_kva(electrical, electrical.posts.max_ceiling), reserve_of(electrical)
    critical = _load_kva(electrical, loads.critical.astype(np.float64))
    load = _load_kva(electrical, np.full(loads.bus.shape[0], 1 / V_LOW_PU))
    start, branch, most = _locks(electrical)
    whole = float(electrical.site_import_limit_kw)
    return Grid(
        from_bus=branches.from_bus,
        to_bus=branches.to_bus,
        start=np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=buses))]).astype(np.int64),
        links=(np.argsort(ends, kind="stable") % max(branches.kind.shape[0], 1)).astype(np.int64),
        capacity=_capacity_kva(electrical),
        rating=posts,
        reserve=post_kva(electrical, reserve),
        reserve_kw=_post_kw(electrical, reserve),
        load=load,
        load_kw=_load_kw(electrical, np.ones(loads.bus.shape[0])),
        pickup=_load_kva(electrical, loads.pickup_factor / V_LOW_PU),
        pickup_kw=_load_kw(electrical, loads.pickup_factor),
        worth=np.column_stack([critical.sum(axis=1), posts.sum(axis=1) + load.sum(axis=1)]),
        supply_bus=electrical.supplies.bus,
        import_kw=electrical.supplies.import_limit_kw,
        site_kw=whole,
        least_kw=least_import_kw(electrical),
        lock_start=start,
        lock_branch=branch,
        lock_most=most,
    )


def _capacity_kva(electrical: Electrical) -> Floats:
    """(E, 3) rating of each branch, the smaller of its sides; inf = none."""
    branches, volts = electrical.branches, electrical.buses.voltage_v
    one = branches.capacity_from_a * volts[branches.from_bus]
    other = branches.capacity_to_a * volts[branches.to_bus]
    smaller = np.fmin(one, other) / SQRT3 / 1000
    return np.repeat(np.where(np.isfinite(smaller), smaller, np.inf)[:, None], 3, axis=1)


def _locks(electrical: Electrical) -> tuple[Ints, Ints, Ints]:
    """See ``Grid.locks``."""
    groups = electrical.interlocks
    start = np.cumsum([0] + [len(group.branches) for group in groups]).astype(np.int64)
    branches = np.array([b for group in groups for b in group.branches], np.int64)
    return start, branches, np.array([group.at_most_closed for group in groups], np.int64)


def post_kva(electrical: Electrical, ceiling: Floats) -> Floats:
    """(B, 3) what EVSEs at these ceilings (n,) put on their bus's phases [kVA]."""
    on = ~np.isnan(electrical.evse_phasor_deg)
    posts, volts = electrical.posts, electrical.buses.voltage_v[electrical.evse_bus]
    dc = electrical.evse_amps_per_unit * SQRT3 * volts / 1000
    whole = ceiling * np.where(posts.is_dc, dc, posts.kw_per_unit)
    total = np.zeros((electrical.buses.voltage_v.shape[0], 3))
    np.add.at(total, electrical.evse_bus, whole[:, None] * on / np.maximum(on.sum(axis=1, keepdims=True), 1))
    return total


def _load_kva(electrical: Electrical, factor: Floats) -> Floats:
    """(B, 3) uncontrolled loads at ``factor`` (D,) times their worst [kVA]."""
    loads = electrical.loads
    on = (loads.phase_bits[:, None] >> np.arange(3)) & 1
    share = loads.worst_kw * factor / loads.power_factor / np.maximum(on.sum(axis=1), 1)
    total = np.zeros((electrical.buses.voltage_v.shape[0], 3))
    np.add.at(total, loads.bus, share[:, None] * on)
    return total


def _post_kw(electrical: Electrical, ceiling: Floats) -> Floats:
    """(B,) what EVSEs at these ceilings (n,) count in limits in kW."""
    posts, volts = electrical.posts, electrical.buses.voltage_v[electrical.evse_bus]
    apparent = electrical.evse_amps_per_unit * SQRT3 * V_LOW_PU * volts / 1000
    kw = ceiling * np.where(posts.is_dc, apparent, posts.kw_per_unit * V_HIGH_PU)
    return np.bincount(electrical.evse_bus, kw, minlength=electrical.buses.voltage_v.shape[0]).astype(np.float64)


def _load_kw(electrical: Electrical, factor: Floats) -> Floats:
    """(B,) uncontrolled loads at ``factor`` (D,) times their worst [kW]."""
    loads, buses = electrical.loads, electrical.buses.voltage_v.shape[0]
    return np.bincount(loads.bus, loads.worst_kw * factor, minlength=buses).astype(np.float64)
