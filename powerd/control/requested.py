"""What speaks against an operator's order: all that speaks against one of powerd, and what a plan would never ask."""

from __future__ import annotations

from powerd.control.topology import feeding, may_be_closed
from powerd.network.admission import broken_by
from powerd.network.electrical import Electrical
from powerd.network.interlocks import Finding, Move, objections
from powerd.network.states import seen_as
from powerd.state.switchgear import Switchgear


def against(electrical: Electrical, gear: Switchgear, move: Move, now_s: float) -> tuple[Finding, ...]:
    """Why an operator's order would be refused now; empty = it would be taken up."""
    found = [*_under_way(electrical, gear), *objections(electrical, gear, move, now_s)]
    return tuple(found or _breaks_reserve(electrical, gear, move))


def _under_way(electrical: Electrical, gear: Switchgear) -> list[Finding]:
    """One order at a time."""
    if not gear.steps:
        return []
    name = electrical.branches.ids[abs(gear.steps[0]) - 1]
    return [Finding(rule="order_under_way", element=name, message=f"powerd is switching {name}, see GetPlan")]


def _breaks_reserve(electrical: Electrical, gear: Switchgear, move: Move) -> list[Finding]:
    """R5: a state in which what EVSEs draw without a grant may not fit is entered by no order, unless it is there."""
    closed = may_be_closed(electrical, gear)
    after = closed.copy()
    after[move.branch] = move.close
    here = seen_as(electrical, gear.in_service & ~gear.lost, feeding(gear))
    broken = next(broken_by(here, after), None)
    if broken is None or next(broken_by(here, closed), None) is not None:
        return []
    message = f"what EVSEs may draw without a grant and other loads at their worst would exceed {broken}"
    return [Finding(rule="keeps_reserve", element=electrical.branches.ids[move.branch], message=message)]
