"""News of the switchgear into the snapshot: positions believed, causes, lock-outs. Nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from powerd.control import switch_events as sw
from powerd.control.events import Done, Outcome, Refused
from powerd.limits import Floats, Ints
from powerd.network.electrical import Electrical
from powerd.network.interlocks import Move, findings
from powerd.state.columns import put, replace
from powerd.state.switchgear import Cause, Flag, Phase, Position, Switchgear
from powerd.units import Now

DISPUTE_S = 30.0
"""A reporter that contradicts another one is believed only when the other has been silent for this long [s]; the
controller of a switch is not silent as long as it is heard."""
FLAPS, FLAP_WINDOW_S = 4, 60.0
"""So many movements that nobody ordered within so many seconds lock a switch."""
PLANS_KEPT = 5000
"""Plans that a playbook may hold."""
SILENT_S = 15.0
"""Silence of a switchgear controller after which its positions count as unknown [s]; it speaks every 5 s."""


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
            return _switches_seen(electrical, gear, event, now)
        case sw.OutageSeen():
            return _outage_seen(electrical, gear, event, now)
        case sw.GearHeard():
            linked = put(gear.linked, event.branch, True)
            gear = replace(gear, linked=linked, silent_at_s=put(gear.silent_at_s, event.branch, now.boottime_s))
            clock = put(gear.link_clock_s, event.branch, event.clock_s)
            gear = replace(gear, link_clock_s=clock)
            return News(
                gear=replace(gear, link_incarnation=put(gear.link_incarnation, event.branch, event.incarnation)),
                outcome=Done(),
            )
        case sw.GearClosed():
            return News(gear=replace(gear, linked=put(gear.linked, event.branch, False)), outcome=Done())
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


def age(gear: Switchgear, now: Now) -> Switchgear:
    """Positions of a controller that has gone silent become unknown."""
    silent = (now.boottime_s - gear.silent_at_s > SILENT_S) & (gear.position != Position.UNKNOWN)
    if not silent.any():
        return gear
    return replace(gear, position=put(gear.position, np.flatnonzero(silent), int(Position.UNKNOWN)))


# --- what is seen -----------------------------------------------------------------------------------------------------


def _switches_seen(electrical: Electrical, gear: Switchgear, event: sw.SwitchesSeen, now: Now) -> News:
    """Late reports are dropped, contradictions make a position unknown, the rest is believed."""
    alarms: list[str] = []
    for k in range(event.branch.shape[0]):
        gear, alarm = _one_seen(electrical, gear, event, k, now)
        alarms += alarm
    return News(gear=gear, outcome=Done(), alarms=tuple(alarms))


def _one_seen(
    electrical: Electrical, gear: Switchgear, event: sw.SwitchesSeen, k: int, now: Now
) -> tuple[Switchgear, list[str]]:
    """One switch of a report."""
    name = electrical.branches.ids[int(event.branch[k])]
    branch, position, flags = int(event.branch[k]), int(event.position[k]), int(event.flags[k])
    place = _place(gear.said_by[branch], gear.said_at_s[branch], event.reporter)
    known = gear.said_by[branch, place] == event.reporter
    same_process = known and gear.said_incarnation[branch, place] == event.incarnation
    if same_process and event.clock_s < gear.said_clock_s[branch, place]:
        return gear, [f"late report of {name} by {event.reporter_id} dropped"]
    gear = _noted(gear, branch, place, position, event, now)
    other = gear.said[branch, 1 - place]
    fresh = _stands_by(gear, branch, 1 - place, now)
    alarms: list[str] = []
    if fresh and other != position and Position.UNKNOWN not in (other, position):
        alarms.append(f"{name} is reported open and closed by two devices: limits hold for both until they agree")
        position = int(Position.UNKNOWN)
    before = int(gear.position[branch])
    flags_before = int(gear.flags[branch])
    gear = replace(
        gear,
        position=put(gear.position, branch, position),
        reported_at_s=put(gear.reported_at_s, branch, now.boottime_s),
        flags=put(gear.flags, branch, flags),
    )
    if position != before:
        gear, moved = _moved(electrical, gear, branch, before, now)
        alarms += moved
    elif position == Position.OPEN and flags != flags_before:
        # The relay's word may come after the contact's: it says why the switch opened.
        gear = replace(gear, cause=put(gear.cause, branch, int(_cause_told(Flag(flags), int(gear.cause[branch])))))
    return gear, alarms


def _stands_by(gear: Switchgear, branch: int, place: int, now: Now) -> bool:
    """The reporter in that column still says what it said: not long ago, or it is the switch's controller and is heard.

    A controller reports what moves; of what stays as it is it need not speak.
    """
    if gear.said_by[branch, place] == 0:
        return False
    theirs = gear.linked[branch] and gear.said_incarnation[branch, place] == gear.link_incarnation[branch]
    heard = theirs and now.boottime_s - gear.silent_at_s[branch] <= SILENT_S
    return bool(heard or now.boottime_s - gear.said_at_s[branch, place] <= DISPUTE_S)


def _place(by: Ints, at_s: Floats, reporter: int) -> int:
    """The column in which this reporter's word is kept: its own, else the one heard longest ago; (REPORTERS,) each."""
    mine = np.flatnonzero(by == reporter)
    return int(mine[0]) if mine.shape[0] else int(np.argmin(at_s))


def _noted(gear: Switchgear, branch: int, place: int, position: int, event: sw.SwitchesSeen, now: Now) -> Switchgear:
    """What this reporter said last."""
    said, by, at = gear.said.copy(), gear.said_by.copy(), gear.said_at_s.copy()
    incarnation, clock = gear.said_incarnation.copy(), gear.said_clock_s.copy()
    said[branch, place], by[branch, place], at[branch, place] = position, event.reporter, now.boottime_s
    incarnation[branch, place], clock[branch, place] = event.incarnation, event.clock_s
    return replace(gear, said=said, said_by=by, said_at_s=at, said_incarnation=incarnation, said_clock_s=clock)


def _moved(
    electrical: Electrical, gear: Switchgear, branch: int, before: int, now: Now
) -> tuple[Switchgear, list[str]]:
    """A believed position changed: by order, or by itself, which has a cause and is counted."""
    name, position = electrical.branches.ids[branch], int(gear.position[branch])
    ordered = gear.phase == Phase.WAITING and bool(gear.steps) and abs(gear.steps[0]) - 1 == branch
    ordered = ordered and position == int(gear.steps[0] > 0)
    gear = replace(gear, refused=put(gear.refused, branch, False))  # it moves, after all
    if ordered:
        by_hand = gear.manual and position == Position.OPEN
        opened = Cause.HAND if by_hand else Cause.ORDERED
        cause = opened if position == Position.OPEN else Cause.NONE
        refused = put(gear.refused, branch, by_hand)  # what an operator opened stays open until an operator closes it
        return replace(gear, cause=put(gear.cause, branch, int(cause)), refused=refused), []
    known = Cause(int(gear.cause[branch]))
    told = _cause_told(Flag(int(gear.flags[branch])), int(known))
    gear = replace(gear, wants_plan=True)
    if position == Position.UNKNOWN:
        return gear, [f"{name} has no clear position: limits hold for both"]
    if before == Position.UNKNOWN:
        # Nobody saw it move. Open where it is drawn open needs no cause.
        settled = position == Position.CLOSED or not electrical.branches.normally_closed[branch]
        return replace(gear, cause=put(gear.cause, branch, int(Cause.NONE if settled else told))), []
    cause = Cause.NONE if position == Position.CLOSED else told
    moved_at = gear.moved_at_s.copy()
    moved_at[branch] = np.append(moved_at[branch][1:], now.boottime_s)
    gear = replace(gear, cause=put(gear.cause, branch, int(cause)), moved_at_s=moved_at)
    alarms = [f"{name} {'opened' if position == Position.OPEN else 'closed'} without an order"]
    if np.sum(now.boottime_s - moved_at[branch] <= FLAP_WINDOW_S) >= FLAPS and not gear.locked[branch]:
        gear = replace(gear, locked=put(gear.locked, branch, True))
        alarms.append(f"{name} moved {FLAPS} times in {FLAP_WINDOW_S:g} s: locked until an operator releases it")
    return gear, alarms


def _cause_told(flags: Flag, before: int) -> Cause:
    """Why a switch opened, as its newest report says; what an order opened stays ordered unless a relay speaks."""
    if flags & (Flag.PROTECTION | Flag.LOCK_OUT):
        return Cause.PROTECTION
    if flags & Flag.UPSTREAM_LOST:
        return Cause.UPSTREAM if before != Cause.PROTECTION else Cause.PROTECTION
    return Cause.UNKNOWN if before == Cause.NONE else Cause(before)


def _outage_seen(electrical: Electrical, gear: Switchgear, event: sw.OutageSeen, now: Now) -> News:
    """A supply, a bus or a branch without a contact of its own; a late word of it is dropped."""
    element, name = _element(electrical, event.kind, event.index)
    place = _place(gear.told_by[element], gear.told_at_s[element], event.reporter)
    known = gear.told_by[element, place] == event.reporter
    same_process = known and gear.told_incarnation[element, place] == event.incarnation
    if same_process and event.clock_s < gear.told_clock_s[element, place]:
        return News(gear=gear, outcome=Done(), alarms=(f"late report of {name} by {event.reporter_id} dropped",))
    by, at = gear.told_by.copy(), gear.told_at_s.copy()
    incarnation, clock = gear.told_incarnation.copy(), gear.told_clock_s.copy()
    by[element, place], at[element, place] = event.reporter, now.boottime_s
    incarnation[element, place], clock[element, place] = event.incarnation, event.clock_s
    gear = replace(gear, told_by=by, told_at_s=at, told_incarnation=incarnation, told_clock_s=clock)
    return News(gear=_lost_or_back(gear, event, now), outcome=Done())


def _element(electrical: Electrical, kind: sw.ElementKind, index: int) -> tuple[int, str]:
    """Row of an element in ``Switchgear.told_by``, and its id."""
    branches, supplies, buses = electrical.branches.ids, electrical.supplies.ids, electrical.buses.ids
    match kind:
        case sw.ElementKind.BRANCH:
            return index, branches[index]
        case sw.ElementKind.SUPPLY:
            return len(branches) + index, supplies[index]
        case sw.ElementKind.BUS:
            return len(branches) + len(supplies) + index, buses[index]
        case _:
            assert_never(kind)


def _lost_or_back(gear: Switchgear, event: sw.OutageSeen, now: Now) -> Switchgear:
    """What a word of a loss that is not late changes."""
    told = _cause_told(Flag(event.flags), int(Cause.NONE)) if event.lost else Cause.NONE
    match event.kind:
        case sw.ElementKind.BUS:
            return replace(gear, bus_dark=put(gear.bus_dark, event.index, event.lost))
        case sw.ElementKind.BRANCH:
            if not event.lost and gear.cause[event.index] == Cause.PROTECTION:
                told = Cause.PROTECTION  # a relay that resets has not looked at the cable
            changed = bool(gear.lost[event.index]) != event.lost
            return replace(
                gear,
                lost=put(gear.lost, event.index, event.lost),
                cause=put(gear.cause, event.index, int(told)),
                wants_plan=gear.wants_plan or changed,
            )
        case sw.ElementKind.SUPPLY:
            if event.lost and told == Cause.UNKNOWN:
                told = Cause.UPSTREAM  # a service without voltage is upstream of everything
            back = not event.lost and not gear.supply_alive[event.index]
            changed = bool(gear.supply_alive[event.index]) == event.lost
            back_at = put(gear.supply_back_at_s, event.index, now.boottime_s) if back else gear.supply_back_at_s
            return replace(
                gear,
                supply_alive=put(gear.supply_alive, event.index, not event.lost),
                supply_cause=put(gear.supply_cause, event.index, int(told)),
                supply_back_at_s=back_at,
                wants_plan=gear.wants_plan or changed,
            )
        case _:
            assert_never(event.kind)


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
    return News(
        gear=give_up(gear, now),
        outcome=Done(),
        alarms=(f"{electrical.branches.ids[abs(gear.steps[0]) - 1]} refused its order: {event.reason[:200]}",),
    )


def give_up(gear: Switchgear, now: Now) -> Switchgear:
    """The first step is not going to happen: plan without that switch."""
    branch = abs(gear.steps[0]) - 1
    return replace(
        gear,
        refused=put(gear.refused, branch, True),
        held_down=np.zeros_like(gear.held_down),
        phase=int(Phase.IDLE),
        steps=(),
        since_s=now.boottime_s,
        manual=False,
        wants_plan=True,
    )


def _switch_ordered(electrical: Electrical, gear: Switchgear, event: sw.SwitchOrdered, now: Now) -> News:
    """An operator's order becomes the one step to take, if nothing speaks against it."""
    if gear.steps:
        return News(gear=gear, outcome=Refused("switch_id", "no order under way; powerd is switching, see GetPlan"))
    found = findings(electrical, gear, Move(branch=event.branch, close=event.close), now.boottime_s)
    if found:
        return News(gear=gear, outcome=Refused("switch_id", f"no interlock against it: {found[0].message}"))
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
            return _released(gear, at + electrical.branches.kind.shape[0]) if event.in_service else gear
        case sw.ElementKind.BRANCH:
            gear = replace(gear, in_service=put(gear.in_service, at, event.in_service))
            return _branch_released(gear, at) if event.in_service else gear
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
