"""News of the switchgear into the snapshot: positions, losses, orders, releases. Nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from powerd.control import switch_events as sw
from powerd.control.events import Done, Outcome, Refused
from powerd.control.losses import forgiven, outage_seen
from powerd.control.positions import dropped, heard, stream_closed, switches_seen
from powerd.control.requested import against
from powerd.limits import Ints
from powerd.network.electrical import Electrical
from powerd.network.interlocks import Move
from powerd.state.columns import put, replace
from powerd.state.switchgear import Cause, Phase, Position, Switchgear
from powerd.units import Now

PLANS_KEPT = 5000
"""Plans that a playbook may hold."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What one event made of the switchgear."""

    gear: Switchgear
    """After it."""
    outcome: Outcome
    """For whoever sent it."""
    alarms: tuple[str, ...] = ()
    """What an operator should know."""


def absorb_gear(electrical: Electrical, gear: Switchgear, event: sw.SwitchEvent, now: Now) -> News:
    """One event; pure."""
    match event:
        case sw.SwitchesSeen():
            gear, alarms = switches_seen(electrical, gear, event, now)
            return News(gear=gear, outcome=Done(), alarms=tuple(alarms))
        case sw.OutageSeen():
            gear, alarms = outage_seen(electrical, gear, event, now)
            return News(gear=gear, outcome=Done(), alarms=tuple(alarms))
        case sw.GearHeard():
            gear, alarms = heard(electrical, gear, event, now)
            return News(gear=gear, outcome=Done(), alarms=tuple(alarms))
        case sw.GearClosed():
            return News(gear=stream_closed(gear, event), outcome=Done())
        case sw.OrderRefused():
            return _order_refused(electrical, gear, event, now)
        case sw.SwitchOrdered():
            return _switch_ordered(electrical, gear, event, now)
        case sw.ServiceChanged():
            return News(gear=_service_changed(electrical, gear, event), outcome=Done(key=event.request_id))
        case sw.PlansReady():
            return News(gear=_plans_ready(gear, event), outcome=Done())
        case _:
            assert_never(event)


# --- what is planned --------------------------------------------------------------------------------------------------


def _plans_ready(gear: Switchgear, event: sw.PlansReady) -> Switchgear:
    """A playbook replaces the one before; a single answer joins it, and may be better than what was done so far."""
    if event.base:
        return replace(gear, playbook_for=event.base, playbook=event.entries)
    return replace(gear, playbook=(*gear.playbook, *event.entries)[-PLANS_KEPT:], wants_plan=True)


# --- what is ordered --------------------------------------------------------------------------------------------------


def _order_refused(electrical: Electrical, gear: Switchgear, event: sw.OrderRefused, now: Now) -> News:
    """The order under way is over; the switch is planned around from now on."""
    if gear.phase != Phase.WAITING or event.order_id != gear.order_id:
        return News(gear=gear, outcome=Done())
    branch = abs(gear.steps[0]) - 1
    gear = replace(gear, ordered_to=put(gear.ordered_to, branch, int(Position.UNKNOWN)))
    return News(
        gear=give_up(gear, now),
        outcome=Done(),
        alarms=(f"{electrical.branches.ids[branch]} refused its order: {event.reason[:200]}",),
    )


def give_up(gear: Switchgear, now: Now) -> Switchgear:
    """The first step is not going to happen: plan without that switch."""
    branch = abs(gear.steps[0]) - 1
    return dropped(replace(gear, refused=put(gear.refused, branch, True)), now)


def _switch_ordered(electrical: Electrical, gear: Switchgear, event: sw.SwitchOrdered, now: Now) -> News:
    """An operator's order becomes the one step to take, if nothing speaks against it."""
    found = against(electrical, gear, Move(branch=event.branch, close=event.close), now.boottime_s)
    if found:
        return News(gear=gear, outcome=Refused("switch_id", f"nothing that speaks against it: {found[0].message}"))
    step = event.branch + 1 if event.close else -(event.branch + 1)
    gear = replace(
        gear,
        steps=(step,),
        phase=int(Phase.MAKING_ROOM),
        since_s=now.boottime_s,
        manual=True,
        reason=f"operator: {event.reason}",
        refused=put(gear.refused, event.branch, False),
    )
    return News(gear=gear, outcome=Done(key=event.request_id))


def _service_changed(electrical: Electrical, gear: Switchgear, event: sw.ServiceChanged) -> Switchgear:
    """Out, or back and released."""
    at: Ints = np.array(event.indices, np.int64)
    gear = replace(gear, wants_plan=True)
    match event.kind:
        case sw.ElementKind.SUPPLY:
            gear = replace(gear, supply_in_service=put(gear.supply_in_service, at, event.in_service))
            if not event.in_service:
                return gear
            gear = replace(gear, supply_cause=put(gear.supply_cause, at, int(Cause.NONE)))
            gear = forgiven(gear, at + electrical.branches.kind.shape[0])
            return _released(gear, at + electrical.branches.kind.shape[0])
        case sw.ElementKind.BRANCH:
            gear = replace(gear, in_service=put(gear.in_service, at, event.in_service))
            return _branch_released(forgiven(gear, at), at) if event.in_service else gear
        case sw.ElementKind.BUS:
            return replace(gear, culprit=put(gear.culprit, at, -1)) if event.in_service else gear
        case _:
            assert_never(event.kind)


def _branch_released(gear: Switchgear, at: Ints) -> Switchgear:
    """A person has looked: no fault there."""
    gear = replace(
        gear,
        lost=put(gear.lost, at, False),
        locked=put(gear.locked, at, False),
        refused=put(gear.refused, at, False),
        cause=put(gear.cause, at, int(Cause.NONE)),
    )
    moved_at = gear.moved_at_s.copy()
    moved_at[at] = -np.inf
    return _released(replace(gear, moved_at_s=moved_at), at)


def _released(gear: Switchgear, culprits: Ints) -> Switchgear:
    """Buses that these had taken down may be fed again."""
    return replace(gear, culprit=np.where(np.isin(gear.culprit, culprits), -1, gear.culprit))
