"""R5 of docs/leases.md: what charges without powerd's word must fit under every limit, in every possible state.

The states are the normal one, those that automatic or commanded transfer switches can reach, and those that other
switches make which close by themselves; islands of the drawing that a playbook may order come with the playbook.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from powerd.limits import Bools
from powerd.network.electrical import Electrical, least_import_kw, reserve_of
from powerd.network.moves import possible_moves
from powerd.network.operation import By
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import normal_positions

#: Rounding of sums of a few thousand ceilings.
TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """What one limit has to hold ready in one switching state, whatever powerd grants."""

    state: str
    """"" for the normal state, else what differs: "ATS1 at alternate"."""
    name: str
    """The limit, for people."""
    element: str
    """Element it protects."""
    unit: str
    """A or kW."""
    capacity: float
    """Its rating [unit]."""
    uncontrolled: float
    """Most that loads which powerd does not control can put on it [unit]."""
    reserve: float
    """Most that EVSEs can draw without a live grant [unit]."""
    boot_share: float
    """What of ``reserve`` is there only because posts may restart above their fallback [unit]."""

    @property
    def excess(self) -> float:
        """By how much what is held ready exceeds the limit [unit]; negative = what is left."""
        return self.reserve + self.uncontrolled - self.capacity


def reserved(electrical: Electrical) -> Iterator[Reserved]:
    """Every limit of every reachable state with what it has to hold ready."""
    yield from reserved_from(electrical, normal_positions(electrical), By.ITSELF, By.POWERD)


def reserved_from(electrical: Electrical, closed: Bools, *by: By) -> Iterator[Reserved]:
    """Every limit of a state (E,), and of those that switches operated ``by`` these make of it, at the least import."""
    least = replace(electrical, site_import_limit_kw=least_import_kw(electrical))
    yield from reserved_in(least, "", closed)
    for move in possible_moves(least, closed, *by):
        yield from reserved_in(move.electrical, move.name, move.closed)


def reserved_in(electrical: Electrical, state: str, closed: Bools) -> Iterator[Reserved]:
    """Every limit of one state with what it has to hold ready."""
    own, posts = reserve_of(electrical), electrical.posts
    without_boot = np.maximum(posts.fallback, posts.fallback_idle)
    bare = np.where(own > np.maximum(posts.boot_current, without_boot), own, without_boot)
    rows = build_rows(electrical, closed)
    limits = rows.limits
    uncontrolled = rows.load_share @ electrical.loads.worst_kw
    with_boot, steady = limits.limit_flow(own), limits.limit_flow(bare)
    for l in range(limits.capacity.shape[0]):
        yield Reserved(
            state=state,
            name=limits.name[l],
            element=limits.element[l],
            unit=limits.unit[l],
            capacity=float(limits.capacity[l]),
            uncontrolled=float(uncontrolled[l]),
            reserve=float(with_boot[l]),
            boot_share=float(with_boot[l] - steady[l]),
        )


def overbooked(electrical: Electrical, rows: Rows) -> list[str]:
    """Names of the limits of a state that break R5, at the smallest import that powerd answers for."""
    limits = rows.limits
    own_import = (rows.branch < 0) & (rows.supply < 0)
    spare = electrical.site_import_limit_kw - least_import_kw(electrical) if own_import.any() else 0.0
    capacity = limits.capacity - np.where(own_import, spare, 0.0)
    taken = limits.limit_flow(reserve_of(electrical)) + rows.load_share @ electrical.loads.worst_kw
    return [limits.name[l] for l in np.flatnonzero(taken > capacity + TOLERANCE)]


def keeps_reserve(electrical: Electrical, closed: Bools) -> bool:
    """R5 in a state (E,), and in those that switches moving by themselves make of it."""
    return next(broken_by(electrical, closed), None) is None


def broken_by(electrical: Electrical, closed: Bools) -> Iterator[str]:
    """Names of the limits that break R5 in a state (E,), and in those that switches moving by themselves make of it."""
    least = replace(electrical, site_import_limit_kw=least_import_kw(electrical))
    yield from overbooked(least, build_rows(least, closed))
    for move in possible_moves(least, closed, By.ITSELF):
        yield from overbooked(move.electrical, build_rows(move.electrical, move.closed))
