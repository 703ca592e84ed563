"""The slow way to what phases differ by and neutrals carry, beside ``oracle``."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from powerd.network.electrical import BranchKind, Electrical
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import energise, normal_positions
from tests.network.drawings import Drawing
from tests.network.oracle import branch_currents

Complex = npt.NDArray[np.complex128]
KINDS = ("imbalance", "neutral")


def limited(drawing: Drawing) -> tuple[Electrical, Rows]:
    """The drawing with a limit for the imbalance at every bus and for the neutral of every feeder."""
    drawing.imbalance = dict.fromkeys(range(len(drawing.buses)), 20.0)
    feeders = [k for k, branch in enumerate(drawing.branches) if branch[1] is BranchKind.FEEDER]
    drawing.neutral = dict.fromkeys(feeders, 30.0)
    electrical = drawing.electrical()
    return electrical, build_rows(electrical, normal_positions(electrical))


def truth(electrical: Electrical, rows: Rows, taken: Complex) -> npt.NDArray[np.float64]:
    """(L,) what each imbalance and neutral limit really sees when the buses take ``taken``; nan for the others."""
    live = energise(electrical, normal_positions(electrical))
    sides = branch_currents(electrical, live, taken)
    at_bus = taken.copy()
    for bus in live.order.tolist():
        branch, above = int(live.parent_branch[bus]), int(live.parent_bus[bus])
        if branch >= 0:
            at_bus[above] += sides[branch, 0 if electrical.branches.from_bus[branch] == above else 1]
    found = np.full(len(rows.limits.name), np.nan)
    for l, (kind, name, element) in enumerate(
        zip(rows.limits.kind, rows.limits.name, rows.limits.element, strict=True)
    ):
        if kind == "neutral":
            found[l] = abs(sides[electrical.branches.ids.index(element), 0].sum())
        if kind == "imbalance":
            size = np.abs(at_bus[electrical.buses.ids.index(element)])
            high, low = _pair(name)
            found[l] = max(size[high] - size[q] for q in low)
    return found


def _pair(name: str) -> tuple[int, list[int]]:
    """The phase that is high, and those it is held against."""
    match = re.match(r"the imbalance of L(\d) over (L(\d)|the other phases) at bus", name)
    assert match is not None
    high = int(match[1]) - 1
    return high, [q for q in range(3) if q != high] if match[3] is None else [int(match[3]) - 1]
