"""From what is known of the switchgear and of the cars to the planner's question."""

from __future__ import annotations

import numpy as np

from powerd.control.topology import PICKUP_S, feeding, may_be_closed, surely_closed
from powerd.limits import Bools, Floats
from powerd.network.electrical import Electrical
from powerd.network.operation import By
from powerd.network.plan import Question
from powerd.network.plan_grid import post_kva
from powerd.network.states import seen_as
from powerd.network.supply import energise
from powerd.state.snapshot import Sessions
from powerd.state.switchgear import BENIGN, Cause, Flag, Phase, Position, Switchgear, operations


def asked_for(electrical: Electrical, sessions: Sessions) -> Floats:
    """(n,) most that each car that is there could take; 0 where there is none [own unit]."""
    most = np.minimum(sessions.max_ceiling, electrical.posts.max_ceiling)
    return np.where(sessions.plugged & sessions.served, most, 0.0)


def question_of(electrical: Electrical, gear: Switchgear, demand: Floats, now_s: float) -> Question:
    """What the planner is asked now, with cars that could take ``demand`` (n,) [own unit]."""
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
        fresh=gear.bus_live & (now_s - gear.back_at_s < PICKUP_S),
        sync=_made_first(electrical, gear),
        demand=post_kva(electrical, demand),
    )


def _made_first(electrical: Electrical, gear: Switchgear) -> Bools:
    """(E,) two supplies may meet at it for a moment: as the site file permits, and its own sync check does so now."""
    may: Bools = electrical.operation.closed_transition | electrical.parallel_supplies
    return may & gear.has(Flag.SYNC)


def may_now(electrical: Electrical, before: Switchgear, before_s: float, after: Switchgear, now_s: float) -> bool:
    """What an order needs is there that was not there a tick before: it is worth to plan again.

    A stream, a tag that is gone, an hour or a pick-up that is over, a relay's word why something opened. What an order
    of powerd brought about is no news: the rest of the steps was planned with it.
    """
    able = _movable(electrical, after, now_s) & ~_movable(electrical, before, before_s)
    apart = after.confirmed(Position.OPEN) & ~before.confirmed(Position.OPEN)
    if before.phase == Phase.WAITING:
        able[abs(before.steps[0]) - 1] = apart[abs(before.steps[0]) - 1] = False
    freed = _suspect(electrical, before) & ~_suspect(electrical, after) & ~after.bus_live
    return bool(able.any() or apart.any() or freed.any()) or cooled(after, before_s, now_s)


def cooled(gear: Switchgear, before_s: float, now_s: float) -> bool:
    """Between two instants loads have come down from their pick-up, while something has no voltage."""
    ends = gear.back_at_s + PICKUP_S
    return bool(((ends > before_s) & (ends <= now_s)).any() and not gear.bus_live.all())


def _movable(electrical: Electrical, gear: Switchgear, now_s: float) -> Bools:
    """(E,) powerd may order it: the rules of ``interlocks`` that are about the switch alone."""
    known = np.isfinite(gear.reported_at_s) & (gear.position != Position.UNKNOWN) & ~gear.locked
    free = ~(gear.has(Flag.TAGGED) | gear.has(Flag.LOCAL) | gear.has(Flag.EARTHED) | gear.refused)
    free &= (gear.cause != Cause.HAND) & (now_s >= gear.passed_until_s)
    free &= ~(gear.has(Flag.LOCK_OUT) | (gear.cause == Cause.PROTECTION) | (gear.cause == Cause.UNKNOWN))
    left = operations(gear, now_s) < electrical.operation.max_operations
    ours: Bools = (electrical.operation.by == By.POWERD) & electrical.branches.in_service & gear.in_service
    found: Bools = ours & known & free & left & gear.linked
    return found


def _suspect(electrical: Electrical, gear: Switchgear) -> Bools:
    """(B,) what must not be fed while it has no voltage.

    It lost it by a fault, for an unknown cause or by an operator's hand, is earthed, or has something faulty beside it
    and has not shown since that the fault is not there.
    """
    branches, earthed = electrical.branches, gear.has(Flag.EARTHED)
    by = np.concatenate([~np.isin(gear.cause, BENIGN), ~np.isin(gear.supply_cause, BENIGN)])
    suspect: Bools = (gear.culprit < -1) | ((gear.culprit >= 0) & by[np.maximum(gear.culprit, 0)])
    suspect[branches.from_bus[earthed | (gear.faults & ~gear.cleared[:, 0])]] = True
    suspect[branches.to_bus[earthed | (gear.faults & ~gear.cleared[:, 1])]] = True
    return suspect
