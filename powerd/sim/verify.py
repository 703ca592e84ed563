"""Settled loads once more, through the electrical model of record: an unbalanced power flow with losses and voltages.

Each load is solved on the wires as they stood then.

Cars take a constant current at the solved voltage (``network.loading``). Every rating is checked on the side and in the
unit in which it is defined. The tolerance covers what limit rows leave out on purpose: magnetising current, and losses
where a rating counts power.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from powerd.limits import Floats
from powerd.network.build import Built, build_net
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.loading import solve_constant_current
from powerd.network.taken import Flow, drawn_at_buses
from powerd.sim.run import SettledLoad
from powerd.sim.wires import GridState, seen_in

#: Relative overshoot of a rating that a power flow may show.
TOLERANCE = 0.005


@dataclass(frozen=True, kw_only=True)
class AcVerdict:
    """What the power flows said."""

    loads_checked: int
    """Distinct settled loads that were solved."""
    loads_failed: int
    """Those with a rating broken by more than the tolerance."""
    worst_percent: float
    """Highest loading of any rating in any of them [%]; 0 where nothing is rated."""
    worst_name: str
    """Which rating that was."""
    worst_s: int
    """When that load first stood, seconds from the start of the run."""
    lowest_voltage_pu: float
    """Lowest phase voltage seen, of nominal."""

    @property
    def passed(self) -> bool:
        """No rating was broken."""
        return self.loads_failed == 0


def verify_ac(
    electrical: Electrical, settled: Sequence[SettledLoad], progress: Callable[[int], None] = lambda _: None
) -> AcVerdict:
    """Solves every settled load; ``progress`` hears how many are done.

    Raises:
        CannotSolve: a power flow has no solution.
    """
    nets: dict[bytes, tuple[Electrical, Built]] = {}
    names, capacity = _ratings(electrical)
    failed, worst, worst_name, worst_s, lowest = 0, 0.0, "", 0, np.inf
    for done, load in enumerate(settled, start=1):
        seen, built = _net(electrical, load.state, nets)
        loads_kw = electrical.loads.typical_kw * load.state.load_factor
        flow = solve_constant_current(built, seen, drawn_at_buses(seen, load.drawn, loads_kw=loads_kw))
        share = _carried(flow) / capacity
        tightest = int(np.argmax(share)) if share.shape[0] else -1
        most = float(share[tightest]) if tightest >= 0 else 0.0
        failed += most > 1.0 + TOLERANCE
        if most > worst:
            worst, worst_name, worst_s = most, names[tightest], load.first_s
        lowest = min(lowest, flow.lowest_pu)
        progress(done)
    return AcVerdict(
        loads_checked=len(settled),
        loads_failed=int(failed),
        worst_percent=100.0 * worst,
        worst_name=worst_name,
        worst_s=worst_s,
        lowest_voltage_pu=float(lowest) if np.isfinite(lowest) else 1.0,
    )


def _net(
    electrical: Electrical, state: GridState, nets: dict[bytes, tuple[Electrical, Built]]
) -> tuple[Electrical, Built]:
    """The drawing with what is lost out of service, and its wires in ``state``; made once for each state."""
    key = replace(state, load_factor=np.zeros(0)).key
    if key not in nets:
        seen = seen_in(electrical, state)
        nets[key] = seen, build_net(seen, state.closed)
    return nets[key]


def _ratings(electrical: Electrical) -> tuple[list[str], Floats]:
    """Names and ratings, in the order of ``_carried``: from sides, to sides, supplies, the site; unrated = inf."""
    branches, supplies = electrical.branches, electrical.supplies
    names = []
    for side in ("high", "low"):
        for element, kind in zip(branches.ids, branches.kind.tolist(), strict=True):
            end = f", {side} side" if kind == BranchKind.TRANSFORMER else ""
            names += [f"phase L{phase} of {BranchKind(kind).name.lower()} {element}{end}" for phase in (1, 2, 3)]
    names += [f"import from supply {s}" for s in supplies.ids] + ["import of the site"]
    sides = np.concatenate([branches.capacity_from_a, branches.capacity_to_a]).repeat(3)
    capacity = np.concatenate([sides, supplies.import_limit_kw, [electrical.site_import_limit_kw]])
    return names, np.where(np.isnan(capacity) | (capacity <= 0.0), np.inf, capacity)


def _carried(flow: Flow) -> Floats:
    """What every rating of ``_ratings`` carries [A or kW]; 0 where nothing flows."""
    site = np.array([flow.import_kw.sum()])
    carried: Floats = np.concatenate([flow.from_a.ravel(), flow.to_a.ravel(), flow.import_kw, site])
    return np.where(np.isnan(carried), 0.0, carried)
