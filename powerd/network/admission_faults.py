"""Faults against R5 of docs/leases.md: what charges without powerd's word does not fit; each with its place and mend.

Apart from ``admission``, which the tick reads too: a warm start must not load what reads site files.
"""

from __future__ import annotations

import math

import numpy as np

from powerd.faults import Severity
from powerd.network.admission import TOLERANCE, Reserved, reserved
from powerd.network.drawing import Drawing, Findings
from powerd.network.electrical import Electrical
from powerd.site.codes import Code
from powerd.site.schema import SiteFile
from powerd.site.tree import Path

GRID: Path = ("grid_connection",)
"""Where the site's import is written."""


def find_admission_faults(drawing: Drawing, electrical: Electrical, findings: Findings) -> None:
    """One fault, its worst case, for each element that cannot hold what charges without powerd's word.

    Where nothing charges without powerd's word and other loads alone are too much, powerd can only grant nothing: that
    is a warning.
    """
    worst: dict[str, Reserved] = {}
    for one in reserved(electrical):
        before = worst.get(one.element)
        if one.excess > TOLERANCE and (before is None or _badness(one) > _badness(before)):
            worst[one.element] = one
    for element, one in worst.items():
        when = f" with {one.state}" if one.state else ""
        holds = f"above the {one.capacity:.4g} {one.unit} that it holds"
        place, mend = place_of(drawing.site, element), mend_of(one, electrical)
        if place == GRID:
            key, kw = _promise(electrical)
            place = (*GRID, key)
            holds = f"above the {one.capacity:.4g} {one.unit} that {key}, {kw:.4g} kW, leaves after losses"
            mend = f"write at least {math.ceil(kw + one.excess)} there, or {mend}"
        if one.reserve <= TOLERANCE:
            message = f"{one.name}{when}: other loads alone can draw {one.uncontrolled:.4g} {one.unit}, {holds}"
            findings.add(Code.LOAD_ABOVE_RATING, place, element, message, mend, Severity.WARNING)
            continue
        message = (
            f"{one.name}{when}: EVSEs without a grant can draw {one.reserve:.4g} {one.unit}, other loads "
            f"{one.uncontrolled:.4g} {one.unit}, together {holds}"
        )
        findings.add(Code.FALLBACK_SUM, place, element, message, mend)


def _badness(one: Reserved) -> tuple[bool, float]:
    """What powerd is answerable for comes first."""
    return one.reserve > TOLERANCE, one.excess


def _promise(electrical: Electrical) -> tuple[str, float]:
    """The key that promises the smallest import, and what it says [kW]; see ``least_import_kw``."""
    promised = {
        "import_limit_kw": electrical.site_import_limit_kw,
        "min_envelope_kw": electrical.min_envelope_kw,
        "failsafe_limit_kw": electrical.failsafe_limit_kw,
    }
    return min(((key, kw) for key, kw in promised.items() if not np.isnan(kw)), key=lambda one: one[1])


def mend_of(one: Reserved, electrical: Electrical) -> str:
    """What would make it fit."""
    if one.uncontrolled > one.capacity:
        return f"raise the rating, or lower worst_kw of the loads behind it, by {one.excess:.4g} {one.unit}"
    left = one.capacity - one.uncontrolled
    lower = f"lower fallback and boot current of the EVSEs behind it until they sum to {left:.4g} {one.unit}"
    without = bool(np.isnan(electrical.controllers.watchdog_s).any())
    return f"{lower}, and give every controller class a watchdog_s" if without else lower


def place_of(site: SiteFile, element: str) -> Path:
    """Where an element of a limit is written."""
    name = element.removesuffix("/preferred").removesuffix("/alternate")
    for section in ("transformers", "feeders", "switches", "transfer_switches", "supplies", "buses"):
        for index, drawn in enumerate(getattr(site, section)):
            if drawn.id == name:
                return (section, index)
    return GRID
