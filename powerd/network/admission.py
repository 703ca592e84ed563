"""R5 of LEASES.md: what charges without powerd's word must fit under every limit, in every state that can come about.

The states are the normal one and those that automatic or commanded transfer switches can reach; islands of the drawing
that a playbook may order come with the playbook.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from powerd.faults import Severity
from powerd.limits import Bools
from powerd.network.drawing import Drawing, Findings
from powerd.network.electrical import Electrical, least_import_kw, reserve_of
from powerd.network.moves import transfers
from powerd.network.operation import By
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import normal_positions
from powerd.site.codes import Code
from powerd.site.schema import SiteFile
from powerd.site.tree import Path

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


def reachable_states(electrical: Electrical) -> Iterator[tuple[str, Bools]]:
    """The normal positions (E,), and those after transfer switches have moved that move by themselves or by powerd."""
    normal = normal_positions(electrical)
    yield "", normal
    for move in transfers(electrical, normal, By.ITSELF, By.POWERD):
        yield move.name, move.closed


def reserved(electrical: Electrical) -> Iterator[Reserved]:
    """Every limit of every reachable state with what it has to hold ready."""
    least = replace(electrical, site_import_limit_kw=least_import_kw(electrical))
    for state, closed in reachable_states(electrical):
        yield from reserved_in(least, state, closed)


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
    states = (closed, *(move.closed for move in transfers(electrical, closed, By.ITSELF)))
    least = replace(electrical, site_import_limit_kw=least_import_kw(electrical))
    return not any(overbooked(least, build_rows(least, positions)) for positions in states)


def find_admission_faults(drawing: Drawing, electrical: Electrical, findings: Findings) -> None:
    """One fault, its worst case, for each element that cannot hold what charges without powerd's word.

    Where nothing charges without powerd's word and other loads alone are too much, powerd can only grant nothing: that
    is a warning.
    """
    worst: dict[str, Reserved] = {}
    for one in reserved(electrical):
        before = worst.get(one.element)
        if _excess(one) > TOLERANCE and (before is None or _badness(one) > _badness(before)):
            worst[one.element] = one
    for element, one in worst.items():
        when = f" with {one.state}" if one.state else ""
        holds = f"above the {one.capacity:.4g} {one.unit} that it holds"
        place = place_of(drawing.site, element)
        if one.reserve <= TOLERANCE:
            message = f"{one.name}{when}: other loads alone can draw {one.uncontrolled:.4g} {one.unit}, {holds}"
            findings.add(Code.LOAD_ABOVE_RATING, place, element, message, _mend(one), Severity.WARNING)
            continue
        message = (
            f"{one.name}{when}: EVSEs without a grant can draw {one.reserve:.4g} {one.unit}, other loads "
            f"{one.uncontrolled:.4g} {one.unit}, together {holds}"
        )
        findings.add(Code.FALLBACK_SUM, place, element, message, _mend(one))


def _excess(one: Reserved) -> float:
    return one.reserve + one.uncontrolled - one.capacity


def _badness(one: Reserved) -> tuple[bool, float]:
    """What powerd is answerable for comes first."""
    return one.reserve > TOLERANCE, _excess(one)


def _mend(one: Reserved) -> str:
    if one.uncontrolled > one.capacity:
        over = one.uncontrolled - one.capacity
        return f"raise the rating, or lower worst_kw of the loads behind it by {over:.4g} {one.unit}"
    left = one.capacity - one.uncontrolled
    return (
        f"lower fallback and boot current of the EVSEs behind it until they sum to {left:.4g} {one.unit}, "
        "and give every controller class a watchdog_s"
    )


def place_of(site: SiteFile, element: str) -> Path:
    """Where an element of a limit is written."""
    name = element.removesuffix("/preferred").removesuffix("/alternate")
    for section in ("transformers", "feeders", "switches", "transfer_switches", "supplies", "buses"):
        for index, drawn in enumerate(getattr(site, section)):
            if drawn.id == name:
                return (section, index)
    return ("grid_connection",)
