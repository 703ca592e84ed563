"""How switches stand, from what is said of them: who is believed, what came by order, and why a contact opened."""

from __future__ import annotations

import numpy as np

from powerd.control import switch_events as sw
from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import Electrical
from powerd.state.columns import put, replace
from powerd.state.switchgear import RELAY, TRIPPED, Cause, Flag, Phase, Position, Switchgear
from powerd.units import Now

DISPUTE_S = 30.0
"""A reporter that contradicts another one is believed only when the other has been silent for this long [s]; the
controller of a switch is not silent as long as it is heard."""
FLAPS, FLAP_WINDOW_S = 4, 60.0
"""So many movements that nobody ordered within so many seconds lock a switch."""
SILENT_S = 15.0
"""Silence of a switchgear controller after which its positions count as unknown [s]; it speaks every 5 s."""
ARRIVES_S = 60.0
"""A movement to where an order wanted a switch is by that order until so long after it [s]: given up or not, whatever
was on its way has arrived or is void by then."""
AHEAD_S = 60.0
"""A stamp of a process is ahead of its last one by no more than the time since then and this [s]: what the last report
was late by. More is no word to go by."""


def switches_seen(
    electrical: Electrical, gear: Switchgear, event: sw.SwitchesSeen, now: Now
) -> tuple[Switchgear, list[str]]:
    """Late reports are dropped, contradictions make a position unknown, the rest is believed; with alarms."""
    alarms: list[str] = []
    for k in range(event.branch.shape[0]):
        gear, alarm = _one_seen(electrical, gear, event, k, now)
        alarms += alarm
    return gear, alarms


def heard(electrical: Electrical, gear: Switchgear, event: sw.GearHeard, now: Now) -> tuple[Switchgear, list[str]]:
    """A controller spoke on its stream: it takes orders for these switches, and they stand as it said last."""
    at = event.branch
    new = bool((~gear.linked[at] | (gear.link_incarnation[at] != event.incarnation)).any())
    gear, alarms = _order_lost(electrical, gear, event, now) if new else (gear, [])
    gear = replace(
        gear,
        linked=put(gear.linked, at, True),
        silent_at_s=put(gear.silent_at_s, at, now.boottime_s),
        link_clock_s=put(gear.link_clock_s, at, event.clock_s),
        link_incarnation=put(gear.link_incarnation, at, event.incarnation),
    )
    gear = replace(gear, flags=put(gear.flags, at, _flags(gear, at))) if new else gear
    unknown = at[gear.position[at] == Position.UNKNOWN]
    return _restored(electrical, gear, unknown, now, alarms) if unknown.shape[0] else (gear, alarms)


def stream_closed(gear: Switchgear, event: sw.GearClosed) -> Switchgear:
    """No orders for these switches any more, and nobody to permit a closed transition; one under way may be lost."""
    swallowed = gear.phase == Phase.WAITING and bool(np.isin(abs(gear.steps[0]) - 1, event.branch))
    gear = replace(gear, linked=put(gear.linked, event.branch, False), unheard=gear.unheard or swallowed)
    return replace(gear, flags=put(gear.flags, event.branch, _flags(gear, event.branch)))


def age(gear: Switchgear, now: Now) -> Switchgear:
    """Positions of a controller that has gone silent become unknown."""
    silent = (now.boottime_s - gear.silent_at_s > SILENT_S) & (gear.position != int(Position.UNKNOWN))
    if not silent.any():
        return gear
    return replace(gear, position=put(gear.position, np.flatnonzero(silent), int(Position.UNKNOWN)))


def dropped(gear: Switchgear, now: Now) -> Switchgear:
    """The steps are not taken any further; another way is looked for."""
    return replace(
        gear,
        held_down=np.zeros_like(gear.held_down),
        phase=int(Phase.IDLE),
        steps=(),
        since_s=now.boottime_s,
        manual=False,
        wants_plan=True,
    )


# --- who is believed --------------------------------------------------------------------------------------------------


def _one_seen(
    electrical: Electrical, gear: Switchgear, event: sw.SwitchesSeen, k: int, now: Now
) -> tuple[Switchgear, list[str]]:
    """One switch of a report."""
    branch, position = int(event.branch[k]), int(event.position[k])
    name = electrical.branches.ids[branch]
    place = place_of(gear.said_by[branch], gear.said_at_s[branch], event.reporter, _own(gear, branch))
    known = gear.said_by[branch, place] == event.reporter
    alarms: list[str] = []
    incarnation = event.incarnation
    if known and gear.said_incarnation[branch, place] == incarnation:
        before_s = float(gear.said_clock_s[branch, place])
        if event.clock_s < before_s:
            return gear, [f"late report of {name} by {event.reporter_id} dropped"]
        if too_far_ahead(event.clock_s, before_s, float(gear.said_at_s[branch, place]), now):
            alarms.append(f"report of {name} by {event.reporter_id} is from the future: its position counts as unknown")
            position, incarnation = int(Position.UNKNOWN), 0  # its next report starts anew
    gear = _noted(gear, branch, place, position, int(event.flags[k]), event, incarnation, now)
    against = _fresh(gear, branch, now) & (gear.said[branch] != Position.UNKNOWN) & (gear.said[branch] != position)
    if position != Position.UNKNOWN and against.any():
        alarms.append(f"{name} is reported open and closed by two devices: limits hold for both until they agree")
        position = int(Position.UNKNOWN)
    gear = replace(gear, reported_at_s=put(gear.reported_at_s, branch, now.boottime_s))
    gear, moved = _believed(electrical, gear, branch, position, now)
    return gear, alarms + moved


def too_far_ahead(clock_s: float, before_s: float, before_at_s: float, now: Now) -> bool:
    """A stamp is further ahead of the one before, which came at ``before_at_s``, than the time since explains."""
    return clock_s - before_s > now.boottime_s - before_at_s + AHEAD_S


def place_of(by: Ints, at_s: Floats, reporter: int, kept: Bools) -> int:
    """The column in which a reporter's word is kept; (REPORTERS,) each.

    Its own, else a free one, else that of whoever was heard longest ago, ``kept`` ones apart.
    """
    mine = np.flatnonzero(by == reporter)
    return int(mine[0]) if mine.shape[0] else int(np.lexsort((at_s, by != 0, kept))[0])


def _own(gear: Switchgear, branch: int) -> Bools:
    """(REPORTERS,) the word of the switch's own controller, which is heard."""
    theirs = (gear.said_by[branch] != 0) & (gear.said_incarnation[branch] == gear.link_incarnation[branch])
    own: Bools = theirs & gear.linked[branch]
    return own


def _fresh(gear: Switchgear, branch: int, now: Now) -> Bools:
    """(REPORTERS,) still says what it said: not long ago, or it is the switch's controller and is heard.

    A controller reports what moves; of what stays as it is it need not speak.
    """
    heard_now = _own(gear, branch) & (now.boottime_s - gear.silent_at_s[branch] <= SILENT_S)
    fresh: Bools = heard_now | (now.boottime_s - gear.said_at_s[branch] <= DISPUTE_S)
    return fresh


def _noted(
    gear: Switchgear,
    branch: int,
    place: int,
    position: int,
    flags: int,
    event: sw.SwitchesSeen,
    incarnation: int,
    now: Now,
) -> Switchgear:
    """What this reporter said last."""
    at = (branch, place)
    return replace(
        gear,
        said=put(gear.said, at, position),
        said_flags=put(gear.said_flags, at, flags),
        said_by=put(gear.said_by, at, event.reporter),
        said_at_s=put(gear.said_at_s, at, now.boottime_s),
        said_incarnation=put(gear.said_incarnation, at, incarnation),
        said_clock_s=put(gear.said_clock_s, at, event.clock_s),
    )


def _flags(gear: Switchgear, at: Ints) -> Ints:
    """(k,) what anybody says of the switches ``at``; a sync check is believed of the switch's own controller alone."""
    theirs = gear.linked[at, None] & (gear.said_incarnation[at] == gear.link_incarnation[at, None])
    said = np.where(theirs, gear.said_flags[at], gear.said_flags[at] & ~int(Flag.SYNC))
    found: Ints = np.bitwise_or.reduce(np.where(gear.said_by[at] != 0, said, 0), axis=1)
    return found


def _restored(
    electrical: Electrical, gear: Switchgear, at: Ints, now: Now, alarms: list[str]
) -> tuple[Switchgear, list[str]]:
    """Unknown positions ``at`` (k,) of a controller that is heard again.

    A stream loses nothing, and a controller reports what moves: what it said last holds, once an order that it has not
    answered cannot arrive any more, unless somebody contradicts.
    """
    theirs = (gear.said_by[at] != 0) & (gear.said_incarnation[at] == gear.link_incarnation[at, None])
    word = np.where(theirs, gear.said[at], int(Position.UNKNOWN)).max(axis=1)
    others = ~theirs & (gear.said[at] != Position.UNKNOWN) & (gear.said[at] != word[:, None])
    against = others & (now.boottime_s - gear.said_at_s[at] <= DISPUTE_S)
    pending = [branch for branch, at_s in gear.operated if now.boottime_s - at_s <= ARRIVES_S]
    known = (word != Position.UNKNOWN) & ~against.any(axis=1) & ~np.isin(at, np.array(pending, np.int64))
    for branch, position in zip(at[known].tolist(), word[known].tolist(), strict=True):
        gear, moved = _believed(electrical, gear, branch, position, now)
        alarms = alarms + moved
    return gear, alarms


def _order_lost(
    electrical: Electrical, gear: Switchgear, event: sw.GearHeard, now: Now
) -> tuple[Switchgear, list[str]]:
    """A new process of the controller drops what its last one was ordered; the switch is not to blame."""
    branch = abs(gear.steps[0]) - 1 if gear.phase == Phase.WAITING else -1
    if branch not in event.branch or gear.link_incarnation[branch] == event.incarnation:
        return gear, []
    if gear.confirmed(Position.CLOSED if gear.steps[0] > 0 else Position.OPEN)[branch]:
        return gear, []
    name = electrical.branches.ids[branch]
    return dropped(gear, now), [f"the controller of {name} started anew: its order is void"]


# --- what a position means --------------------------------------------------------------------------------------------


def _believed(
    electrical: Electrical, gear: Switchgear, branch: int, position: int, now: Now
) -> tuple[Switchgear, list[str]]:
    """The position that counts from now on, and what follows from it."""
    before, flags_before = int(gear.position[branch]), int(gear.flags[branch])
    known = int(gear.known_position[branch])
    gear = replace(gear, position=put(gear.position, branch, position))
    if position == Position.CLOSED:
        gear = _no_trip_behind(gear, branch, now)
    gear = replace(gear, flags=put(gear.flags, branch, int(_flags(gear, np.array([branch]))[0])))
    if position == Position.UNKNOWN:
        if before == position:
            return gear, []
        name = electrical.branches.ids[branch]
        return replace(gear, wants_plan=True), [f"{name} has no clear position: limits hold for both"]
    gear = replace(
        gear,
        known_position=put(gear.known_position, branch, position),
        wants_plan=gear.wants_plan or before == Position.UNKNOWN,
    )
    if known == Position.UNKNOWN:
        return _first_seen(electrical, gear, branch), []
    if known != position:
        return _moved(electrical, gear, branch, now)
    return _word_of_relay(gear, branch, flags_before), []


def _no_trip_behind(gear: Switchgear, branch: int, now: Now) -> Switchgear:
    """A contact that is closed has tripped for nobody: what others said of its last opening is over."""
    if not (gear.said_flags[branch] & int(RELAY)).any():
        return gear
    spoke = gear.said_at_s[branch] >= now.boottime_s
    said_flags = gear.said_flags.copy()
    said_flags[branch] = np.where(spoke, said_flags[branch], said_flags[branch] & ~int(RELAY))
    return replace(gear, said_flags=said_flags)


def _first_seen(electrical: Electrical, gear: Switchgear, branch: int) -> Switchgear:
    """Nobody ever said before how it stands; open where it is drawn open needs no cause."""
    cause = Cause.NONE
    if gear.position[branch] == Position.OPEN:
        flags, before = Flag(int(gear.flags[branch])), Cause(int(gear.cause[branch]))
        needs = electrical.branches.normally_closed[branch] or flags & RELAY or before != Cause.NONE
        cause = cause_told(flags, before) if needs else Cause.NONE
    return replace(gear, cause=put(gear.cause, branch, int(cause)))


def _moved(electrical: Electrical, gear: Switchgear, branch: int, now: Now) -> tuple[Switchgear, list[str]]:
    """It stands where it did not: by order, or by itself, which has a cause and is counted."""
    name, is_open = electrical.branches.ids[branch], gear.position[branch] == Position.OPEN
    flags = Flag(int(gear.flags[branch]))
    by_order = _came_by_order(gear, branch, now) and not (is_open and flags & TRIPPED)
    by_hand = bool(by_order and is_open and gear.ordered_by_hand[branch])
    tripped = gear.phase == Phase.WAITING and abs(gear.steps[0]) - 1 == branch and not by_order
    gear = replace(
        gear,
        ordered_to=put(gear.ordered_to, branch, int(Position.UNKNOWN)),
        refused=put(gear.refused, branch, by_hand),  # what an operator opened stays open until an operator closes it
    )
    if by_order:
        opened = Cause.HAND if by_hand else Cause.ORDERED
        return replace(gear, cause=put(gear.cause, branch, int(opened if is_open else Cause.NONE))), []
    cause = cause_told(flags, Cause.NONE) if is_open else Cause.NONE
    gear = replace(gear, cause=put(gear.cause, branch, int(cause)), wants_plan=True)
    gear = _changed_over(electrical, gear, branch)
    gear = dropped(gear, now) if tripped else gear
    moved_at = gear.moved_at_s.copy()
    moved_at[branch] = np.append(moved_at[branch][1:], now.boottime_s)
    gear = replace(gear, moved_at_s=moved_at)
    alarms = [f"{name} {'opened' if is_open else 'closed'} without an order"]
    if np.sum(now.boottime_s - moved_at[branch] <= FLAP_WINDOW_S) >= FLAPS and not gear.locked[branch]:
        gear = replace(gear, locked=put(gear.locked, branch, True))
        alarms.append(f"{name} moved {FLAPS} times in {FLAP_WINDOW_S:g} s: locked until an operator releases it")
    return gear, alarms


def _came_by_order(gear: Switchgear, branch: int, now: Now) -> bool:
    """The position is where the newest order wanted it, not long ago; also where the order was given up since."""
    if gear.ordered_to[branch] != gear.position[branch]:
        return False
    at_s = max((at_s for one, at_s in gear.operated if one == branch), default=-np.inf)
    return bool(now.boottime_s - at_s <= ARRIVES_S)


def _changed_over(electrical: Electrical, gear: Switchgear, branch: int) -> Switchgear:
    """One half of a transfer switch opened and the other one closed, in either order: that is why."""
    partner = int(electrical.operation.partner[branch])
    if partner < 0 or gear.position[branch] == gear.position[partner]:
        return gear
    opened = branch if gear.position[branch] == Position.OPEN else partner
    over = Position.UNKNOWN not in gear.position[[branch, partner]] and gear.cause[opened] == Cause.UNKNOWN
    return replace(gear, cause=put(gear.cause, opened, int(Cause.NONE))) if over else gear


def _word_of_relay(gear: Switchgear, branch: int, flags_before: int) -> Switchgear:
    """The relay's word may come after the contact's: it says why the switch opened. Other flags say nothing of that."""
    new = Flag(int(gear.flags[branch]) & ~flags_before) & RELAY
    before = Cause(int(gear.cause[branch]))
    if gear.position[branch] != Position.OPEN or not new or (before == Cause.NONE and not new & TRIPPED):
        return gear
    told = cause_told(new, before)
    return gear if told == before else replace(gear, cause=put(gear.cause, branch, int(told)), wants_plan=True)


def cause_told(flags: Flag, before: Cause) -> Cause:
    """Why something opened or was lost, from a relay's word and the cause so far.

    A fault stays one until a person has looked, and what is known is not unlearnt by a word without a reason; the loss
    of a voltage explains only what nothing else does.
    """
    if flags & TRIPPED:
        return Cause.PROTECTION
    if before in (Cause.NONE, Cause.UNKNOWN):
        return Cause.UPSTREAM if flags & Flag.UPSTREAM_LOST else Cause.UNKNOWN
    return before
