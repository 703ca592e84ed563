"""R5 in planned states for people: what each plan has to hold ready, fullest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from powerd.network.admission import Reserved
from powerd.network.planned import Planned

SHOWN = 8
"""How many losses the summary shows."""


def planned_text(found: Sequence[Planned]) -> list[str]:
    """The losses whose plans leave least; nothing where powerd moves no switch."""
    if not found:
        return []
    broken = sum(not one.fits for one in found)
    verdict = f"in {broken} it does NOT" if broken else "in all of them"
    lines = [f"Held ready after each single loss, in the {len(found)} states planned; it fits {verdict}:"]
    for one in sorted(found, key=lambda one: -_percent(one.fullest))[:SHOWN]:
        orders = ", ".join(one.steps) or "nothing moves"
        limit = one.fullest
        name = "no limit" if limit is None else f"of {limit.capacity:.4g} {limit.unit}  {limit.name}"
        without = f"; R5 forbids {one.cost_kva:.4g} kVA more" if one.forbidden is not None else ""
        lines.append(f"  {_percent(limit):5.1f} % {name}: {one.lost} lost, {orders}{without}")
    return lines


def planned_json(one: Planned) -> dict[str, Any]:
    """One plan."""
    return {
        "lost": one.lost,
        "steps": list(one.steps),
        "found_by": one.found_by,
        "fits": one.fits,
        "fullest": None if one.fullest is None else limit_json(one.fullest),
        "forbidden": None if one.forbidden is None else limit_json(one.forbidden),
        "cost_kva": one.cost_kva,
    }


def limit_json(one: Reserved) -> dict[str, Any]:
    """A limit with what it has to hold ready, for ``--json``."""
    return {
        "name": one.name,
        "element": one.element,
        "unit": one.unit,
        "capacity": one.capacity,
        "uncontrolled": one.uncontrolled,
        "reserve": one.reserve,
    }


def _percent(one: Reserved | None) -> float:
    if one is None:
        return 0.0
    return 100 * (one.reserve + one.uncontrolled) / one.capacity if one.capacity > 0 else float("inf")
