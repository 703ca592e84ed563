"""Faults against R5 of LEASES.md: what charges without powerd's word does not fit; each with its place and mend.

Apart from ``admission``, which the tick reads too: a warm start must not load what reads site files.
"""

from __future__ import annotations

from powerd.faults import Severity
from powerd.network.admission import TOLERANCE, Reserved, reserved
from powerd.network.drawing import Drawing, Findings
from powerd.network.electrical import Electrical
from powerd.site.codes import Code
from powerd.site.schema import SiteFile
from powerd.site.tree import Path


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
            findings.add(Code.LOAD_ABOVE_RATING, place, element, message, mend_of(one), Severity.WARNING)
            continue
        message = (
            f"{one.name}{when}: EVSEs without a grant can draw {one.reserve:.4g} {one.unit}, other loads "
            f"{one.uncontrolled:.4g} {one.unit}, together {holds}"
        )
        findings.add(Code.FALLBACK_SUM, place, element, message, mend_of(one))


def _excess(one: Reserved) -> float:
    return one.reserve + one.uncontrolled - one.capacity


def _badness(one: Reserved) -> tuple[bool, float]:
    """What powerd is answerable for comes first."""
    return one.reserve > TOLERANCE, _excess(one)


def mend_of(one: Reserved) -> str:
    """What would make it fit."""
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
