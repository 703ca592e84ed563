"""From what is known of the switchgear to the planner's question, and the plans that are found in advance."""

from __future__ import annotations

import numpy as np

from powerd.control.topology import feeding, may_be_closed, surely_closed
from powerd.limits import Bools
from powerd.network.electrical import Electrical
from powerd.network.interlocks import HOUR_S
from powerd.network.operation import By
from powerd.network.plan import Question
from powerd.network.states import seen_as
from powerd.network.supply import energise
from powerd.state.switchgear import BENIGN, Cause, Flag, Position, Switchgear


def question_of(electrical: Electrical, gear: Switchgear, now_s: float) -> Question:
    """What the planner is asked now."""
    branches = electrical.branches
    closed, certain = may_be_closed(electrical, gear), ~gear.unknown
    usable = branches.in_service & gear.in_service & ~gear.lost
    movable = _movable(electrical, gear, now_s)
    apart = branches.switchable & gear.confirmed(Position.OPEN)
    live = energise(seen_as(electrical, gear.in_service & ~gear.lost, feeding(gear)), surely_closed(electrical, gear))
    dead = ~live.bus_is_live
    return Question(
        closed=closed,
        known=usable & certain,
        shadow=branches.in_service & ~apart & ~(movable & usable),
        movable=movable,
        alive=feeding(gear),
        barred=dead & _suspect(electrical, gear),
        dead=dead & ~gear.bus_live,
    )


def _movable(electrical: Electrical, gear: Switchgear, now_s: float) -> Bools:
    """(E,) powerd may order it: the rules of ``interlocks`` that are about the switch alone."""
    known = np.isfinite(gear.reported_at_s) & (gear.position != Position.UNKNOWN) & ~gear.locked
    free = ~(gear.has(Flag.TAGGED) | gear.has(Flag.LOCAL) | gear.has(Flag.EARTHED) | gear.refused)
    done = (now_s - gear.operated_at_s < HOUR_S).sum(axis=1)
    left = done < electrical.operation.max_operations
    ours: Bools = (electrical.operation.by == By.POWERD) & electrical.branches.in_service & gear.in_service
    found: Bools = ours & known & free & left & gear.linked
    return found


def _suspect(electrical: Electrical, gear: Switchgear) -> Bools:
    """(B,) what lost its voltage by a fault or for an unknown cause, and what is earthed."""
    branches = electrical.branches
    faulty = np.array([Cause(c) not in BENIGN for c in gear.cause.tolist()], np.bool_)
    supply_faulty = np.array([Cause(c) not in BENIGN for c in gear.supply_cause.tolist()], np.bool_)
    by = np.concatenate([faulty, supply_faulty])
    suspect: Bools = (gear.culprit < -1) | ((gear.culprit >= 0) & by[np.maximum(gear.culprit, 0)])
    marked = faulty | gear.has(Flag.EARTHED)
    suspect[branches.from_bus[marked]] = True
    suspect[branches.to_bus[marked]] = True
    return suspect
