"""From what is known of the switchgear to the state that limits are made for, and to what lost its voltage and why."""

from __future__ import annotations

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import Electrical
from powerd.network.states import Uncertain, seen_as
from powerd.network.supply import Energised, energise
from powerd.state.columns import replace
from powerd.state.switchgear import BENIGN, Cause, Position, Switchgear
from powerd.units import Now

PICKUP_S = 600.0
"""How long a load takes more than usual after its voltage came back [s]: thermostats and drives start at once."""
PROOF_S = 30.0
"""So long a part has its voltage beside something that opened for a fault, and the fault is not there [s]: all that one
incident brings is reported by then."""
NOBODY_KNOWS = -2
"""Culprit of a bus that lost its voltage without anything having been reported."""


def believed(electrical: Electrical, gear: Switchgear) -> Uncertain:
    """The state that limits must hold for now."""
    return Uncertain(
        closed=may_be_closed(electrical, gear),
        held=gear.unknown | gear.held_down,
        in_service=gear.in_service & ~gear.lost,
        supply_alive=feeding(gear),
        dark=gear.bus_dark,
    )


def feeding(gear: Switchgear) -> Bools:
    """(S,) supplies that can be reckoned with."""
    alive: Bools = gear.supply_alive & gear.supply_in_service
    return alive


def may_be_closed(electrical: Electrical, gear: Switchgear) -> Bools:
    """(E,) closed, or nobody knows."""
    closed: Bools = (gear.position != Position.OPEN) | ~electrical.branches.switchable
    return closed | gear.locked


def surely_closed(electrical: Electrical, gear: Switchgear) -> Bools:
    """(E,) closed as far as known."""
    closed: Bools = ((gear.position == Position.CLOSED) & ~gear.locked) | ~electrical.branches.switchable
    return closed


def load_factor(electrical: Electrical, gear: Switchgear, now: Now) -> Floats:
    """(D,) the pick-up factor of loads without voltage, and of those that have had it back for a short time (R8)."""
    bus = electrical.loads.bus
    cold = ~gear.bus_live[bus] | (now.boottime_s - gear.back_at_s[bus] < PICKUP_S)
    return np.where(cold, electrical.loads.pickup_factor, 1.0)


def observe(electrical: Electrical, before: Switchgear, after: Switchgear, now: Now) -> Switchgear:
    """Notes which buses lost or regained their voltage between two states of knowledge, and what took it.

    A bus counts as dead when no combination of positions feeds it, as live again when every combination does.
    """
    if after is before or believed(electrical, before).key() == believed(electrical, after).key():
        return after
    after = replace(after, changed_at_s=now.boottime_s)
    here = seen_as(electrical, after.in_service & ~after.lost, feeding(after))
    perhaps, surely = may_be_closed(electrical, after), surely_closed(electrical, after)
    maybe = energise(here, perhaps)
    sure = maybe if np.array_equal(perhaps, surely) else energise(here, surely)
    live = sure.bus_is_live | (before.bus_live & maybe.bus_is_live)
    died, came = before.bus_live & ~live, live & ~before.bus_live
    if not (died.any() or came.any()):
        return after
    culprit = np.where(live, -1, after.culprit)
    culprit[died] = _culprits(electrical, before, after, np.flatnonzero(died))
    return replace(
        after,
        bus_live=live,
        culprit=culprit,
        back_at_s=np.where(came, now.boottime_s, after.back_at_s),
    )


def proven(electrical: Electrical, gear: Switchgear, now: Now) -> Switchgear:
    """Notes which ends of what opened or was lost for a fault have shown since that the fault is not there.

    What is not confirmed open proves nothing, and what opens for a fault again is proven anew.
    """
    fault = gear.faults
    if not (fault.any() or np.isfinite(gear.faulted_at_s).any()):
        return gear
    branches, now_s = electrical.branches, now.boottime_s
    anew = gear.moved_at_s[:, -1] >= now_s
    since_s = np.where(fault, np.where(anew, now_s, np.minimum(gear.faulted_at_s, now_s)), np.inf)
    apart = fault & ~anew & (gear.lost | (branches.switchable & gear.confirmed(Position.OPEN)))
    fed = gear.bus_live & ~gear.bus_dark & (now_s - gear.back_at_s >= PROOF_S)
    shown = np.column_stack([fed[branches.from_bus], fed[branches.to_bus]]) & (now_s - since_s >= PROOF_S)[:, None]
    return replace(gear, faulted_at_s=since_s, cleared=(gear.cleared | shown) & apart[:, None])


def _culprits(electrical: Electrical, before: Switchgear, after: Switchgear, died: Ints) -> Ints:
    """What took the voltage of the buses ``died`` (k,): on their way to the supply, the worst of what is gone now."""
    was = energise(
        seen_as(electrical, before.in_service & ~before.lost, feeding(before)), may_be_closed(electrical, before)
    )
    conducts = electrical.branches.in_service & after.in_service & ~after.lost & may_be_closed(electrical, after)
    return np.array([_culprit(electrical, was, conducts, after, bus) for bus in died.tolist()], np.int64)


def _culprit(electrical: Electrical, was: Energised, conducts: Bools, after: Switchgear, bus: int) -> int:
    """One bus; the way up is the one it was fed by."""
    found: list[tuple[bool, int]] = []
    at = bus
    while was.parent_branch[at] >= 0:
        branch = int(was.parent_branch[at])
        if not conducts[branch]:
            found.append((Cause(int(after.cause[branch])) in BENIGN, branch))
        at = int(was.parent_bus[at])
    supply = int(was.supply[at])
    if supply >= 0 and not feeding(after)[supply]:
        benign = Cause(int(after.supply_cause[supply])) in BENIGN
        found.append((benign, electrical.branches.kind.shape[0] + supply))
    return min(found, key=lambda one: one[0])[1] if found else NOBODY_KNOWS
