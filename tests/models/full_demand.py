"""A site at powerd's own allocation with every post asking for all it can take, solved by pandapower."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from powerd.allocation.allocate import Allocation, Allocator
from powerd.allocation.demands import Demands
from powerd.limits import Floats
from powerd.network.electrical import Electrical
from powerd.network.load import load_site
from powerd.network.loading import ac_loading, loading_of_limits
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import normal_positions
from powerd.network.taken import Flow

MODELS = Path(__file__).parents[2] / "models"


@dataclass(frozen=True, kw_only=True, eq=False)
class FullDemand:
    """One site, its allocation and what the power flow says about it."""

    electrical: Electrical
    rows: Rows
    allocation: Allocation
    flow: Flow
    loading_percent: Floats
    """(L,) what pandapower puts on each limit, of its rating [%]; kW limits of the stated one, losses included."""


def full_demand(name: str) -> FullDemand:
    """Allocate for full demand under worst uncontrolled load, and solve the net with exactly that."""
    electrical = load_site(MODELS / name).must()
    closed = normal_positions(electrical)
    rows = build_rows(electrical, closed)
    posts, count = electrical.posts, electrical.evse_count
    worst = electrical.loads.worst_kw
    allocation = Allocator(posts).allocate(
        rows.limits,
        Demands(
            weight=np.ones(count),
            upper=posts.max_ceiling,
            minimum=posts.min_ceiling,
            floor=posts.fallback,
            silent=np.zeros_like(posts.fallback),
            opens=np.zeros(count),
            priority=np.zeros(count, dtype=np.int64),
            least_served=np.zeros(count),
            overdue=np.zeros(count, dtype=np.bool_),
            target=posts.max_ceiling,
            uncontrolled=rows.load_share @ worst,
        ),
    )
    flow = ac_loading(electrical, closed, allocation.want, loads_kw=worst)
    stated = rows.limits.capacity + rows.losses
    percent = 100 * loading_of_limits(rows, flow) / stated
    return FullDemand(electrical=electrical, rows=rows, allocation=allocation, flow=flow, loading_percent=percent)
