"""Who says that a supply, a bus or a branch without a contact is lost, and what is believed of it.

Of two devices that disagree the one that says lost is believed, and nobody knows then why: limits hold, and nothing is
switched for it. What comes and goes counts as lost until it has been steady.
"""

from __future__ import annotations

from dataclasses import replace as changed
from typing import assert_never

import numpy as np

from powerd.control import switch_events as sw
from powerd.control.positions import DISPUTE_S, FLAP_WINDOW_S, FLAPS, cause_told, place_of, too_far_ahead
from powerd.limits import Bools, Ints
from powerd.network.electrical import Electrical
from powerd.state.columns import put, replace
from powerd.state.switchgear import NOT_LOST, REPORTERS, Cause, Flag, Switchgear
from powerd.units import Now

STEADY_S = 300.0
"""What came and went ``FLAPS`` times in ``FLAP_WINDOW_S`` counts as lost until nothing has changed for so long [s]."""


def outage_seen(
    electrical: Electrical, gear: Switchgear, event: sw.OutageSeen, now: Now
) -> tuple[Switchgear, list[str]]:
    """A word of a loss or a return; one that is late is dropped."""
    element, name = _element(electrical, event.kind, event.index)
    place = place_of(gear.told_by[element], gear.told_at_s[element], event.reporter, np.zeros(REPORTERS, np.bool_))
    known = gear.told_by[element, place] == event.reporter
    incarnation = event.incarnation
    alarms: list[str] = []
    if known and gear.told_incarnation[element, place] == incarnation:
        before_s = float(gear.told_clock_s[element, place])
        if event.clock_s < before_s:
            return gear, [f"late report of {name} by {event.reporter_id} dropped"]
        if too_far_ahead(event.clock_s, before_s, float(gear.told_at_s[element, place]), now):
            alarms.append(f"report of {name} by {event.reporter_id} is from the future")
            incarnation = 0  # its next report starts anew
    if alarms and not event.lost:  # a loss is believed, a return is not
        said = gear.told_loss[element, place] if known else NOT_LOST
        return _noted(gear, element, place, changed(event, incarnation=incarnation), int(said), now), alarms
    said = event.flags if event.lost else NOT_LOST
    gear = _noted(gear, element, place, changed(event, incarnation=incarnation), said, now)
    return _judged(gear, element, event, now), alarms


def settle(gear: Switchgear, now: Now) -> Switchgear:
    """What counted as lost because devices disagreed or it came and went is as they say once that is over."""
    heard = np.flatnonzero(np.isfinite(gear.told_at_s).any(axis=1))
    if not heard.shape[0]:
        return gear
    lost, disputed, _ = _standing(gear, heard, now.boottime_s)
    branches, supplies = gear.cause.shape[0], gear.supply_cause.shape[0]
    believed = np.concatenate([gear.lost, ~gear.supply_alive, gear.bus_dark])[heard]
    unclear = np.concatenate([gear.cause, gear.supply_cause, np.zeros_like(gear.culprit)])[heard] == Cause.UNKNOWN
    for element in heard[believed & (~lost | (unclear & ~disputed))].tolist():
        kind, index = sw.ElementKind.BRANCH, element
        if element >= branches + supplies:
            kind, index = sw.ElementKind.BUS, element - branches - supplies
        elif element >= branches:
            kind, index = sw.ElementKind.SUPPLY, element - branches
        again = sw.OutageSeen(
            reporter=0, reporter_id="", incarnation=0, clock_s=0.0, kind=kind, index=index, lost=False, flags=0
        )
        gear = _judged(gear, element, again, now)
    return gear


def forgiven(gear: Switchgear, elements: Ints) -> Switchgear:
    """A person returned these rows to service: that they came and went is over."""
    return replace(gear, turned_at_s=put(gear.turned_at_s, elements, -np.inf))


def loss_alarms(electrical: Electrical, gear: Switchgear, now_s: float) -> list[str]:
    """Says what counts as lost for want of agreement or of rest."""
    heard = np.flatnonzero(np.isfinite(gear.told_at_s).any(axis=1))
    if not heard.shape[0]:
        return []
    names = (*electrical.branches.ids, *electrical.supplies.ids, *electrical.buses.ids)
    _, disputed, restless = _standing(gear, heard, now_s)
    return [
        *(
            f"{names[e]} is reported lost by one device and not by another: it counts as lost until they agree"
            for e in heard[disputed].tolist()
        ),
        *(
            f"{names[e]} came and went {FLAPS} times in {FLAP_WINDOW_S:g} s: it counts as lost until that has "
            f"been over for {STEADY_S:g} s"
            for e in heard[restless].tolist()
        ),
    ]


def _standing(gear: Switchgear, elements: Ints, now_s: float) -> tuple[Bools, Bools, Bools]:
    """(k,) of these rows: counts as lost, devices disagree, comes and goes."""
    at_s, word = gear.told_at_s[elements], gear.told_loss[elements]
    told = gear.told_by[elements] != 0
    fresh = told & (now_s - at_s <= DISPUTE_S)
    newest = told & (at_s == at_s.max(axis=1, keepdims=True))
    says = newest | fresh
    some_lost, some_not = (says & (word != NOT_LOST)).any(axis=1), (says & (word == NOT_LOST)).any(axis=1)
    turned = gear.turned_at_s[elements]
    many = np.isfinite(turned[:, 0])
    span = np.where(many, turned[:, -1] - np.where(many, turned[:, 0], 0.0), np.inf)
    restless = (span <= FLAP_WINDOW_S) & (now_s - turned[:, -1] < STEADY_S)
    return some_lost | restless, some_lost & some_not, restless


def _noted(gear: Switchgear, element: int, place: int, event: sw.OutageSeen, said: int, now: Now) -> Switchgear:
    """What this reporter said last; a turn is another word than its own one before, and than anyone's newest."""
    own = gear.told_loss[element, place] if gear.told_by[element, place] == event.reporter else NOT_LOST
    newest = int(np.argmax(gear.told_at_s[element]))
    before = gear.told_loss[element, newest] if gear.told_by[element, newest] else NOT_LOST
    turned = gear.turned_at_s
    if NOT_LOST in (said, own) and said != own and (before == NOT_LOST) != (said == NOT_LOST):
        turned = put(turned, element, np.append(turned[element][1:], now.boottime_s))
    by, at, loss = gear.told_by.copy(), gear.told_at_s.copy(), gear.told_loss.copy()
    incarnation, clock = gear.told_incarnation.copy(), gear.told_clock_s.copy()
    by[element, place], at[element, place], loss[element, place] = event.reporter, now.boottime_s, said
    incarnation[element, place], clock[element, place] = event.incarnation, event.clock_s
    return replace(
        gear,
        told_by=by,
        told_at_s=at,
        told_loss=loss,
        told_incarnation=incarnation,
        told_clock_s=clock,
        turned_at_s=turned,
    )


def _judged(gear: Switchgear, element: int, event: sw.OutageSeen, now: Now) -> Switchgear:
    """What is believed after a word, or when one has lost its weight."""
    lost, disputed, _ = (bool(one[0]) for one in _standing(gear, np.array([element]), now.boottime_s))
    words = gear.told_loss[element][(gear.told_by[element] != 0) & (gear.told_loss[element] != NOT_LOST)]
    flags = event.flags if event.lost else int(np.bitwise_or.reduce(words, initial=0))
    gear = _lost_or_back(gear, changed(event, lost=lost, flags=flags if lost else 0), now)
    if not disputed:
        return gear
    match event.kind:
        case sw.ElementKind.BRANCH if gear.cause[event.index] != Cause.PROTECTION:
            return replace(gear, cause=put(gear.cause, event.index, int(Cause.UNKNOWN)))
        case sw.ElementKind.SUPPLY if gear.supply_cause[event.index] != Cause.PROTECTION:
            return replace(gear, supply_cause=put(gear.supply_cause, event.index, int(Cause.UNKNOWN)))
        case _:
            return gear


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
    match event.kind:
        case sw.ElementKind.BUS:
            return replace(gear, bus_dark=put(gear.bus_dark, event.index, event.lost))
        case sw.ElementKind.BRANCH:
            before = Cause(int(gear.cause[event.index]))
            told = cause_told(Flag(event.flags), before)
            if not event.lost:  # a relay that resets has not looked at the cable
                told = Cause.PROTECTION if before == Cause.PROTECTION else Cause.NONE
            changed = bool(gear.lost[event.index]) != event.lost or told != before
            return replace(
                gear,
                lost=put(gear.lost, event.index, event.lost),
                cause=put(gear.cause, event.index, int(told)),
                wants_plan=gear.wants_plan or changed,
            )
        case sw.ElementKind.SUPPLY:
            before = Cause(int(gear.supply_cause[event.index]))
            told = cause_told(Flag(event.flags), before) if event.lost else Cause.NONE
            if told == Cause.UNKNOWN:
                told = Cause.UPSTREAM  # a service without voltage is upstream of everything
            was_alive = bool(gear.supply_alive[event.index])
            back = not event.lost and not was_alive
            back_at = put(gear.supply_back_at_s, event.index, now.boottime_s) if back else gear.supply_back_at_s
            return replace(
                gear,
                supply_alive=put(gear.supply_alive, event.index, not event.lost),
                supply_cause=put(gear.supply_cause, event.index, int(told)),
                supply_back_at_s=back_at,
                wants_plan=gear.wants_plan or was_alive == event.lost or told != before,
            )
        case _:
            assert_never(event.kind)
