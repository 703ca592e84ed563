"""What is known of the switchgear, as columns: E branches, S supplies, B buses, and the one order under way.

A position is *believed*: until somebody reports it, the site file's drawing counts; after that the reports do, and
where they disagree, are questionable or stop coming, it is unknown and limits hold for both positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.state.columns import put, replace

REPORTERS = 4
"""Devices remembered per element; a fifth replaces the one heard longest ago, but no switch's own controller."""
MOVES = 4
"""Movements nobody ordered that are remembered per switch."""
HOUR_S = 3600.0
"""Own operations count for this long [s]."""


NOT_LOST = -1
"""In ``Switchgear.told_loss``: nobody spoke, or it is there."""


class Position(IntEnum):
    """Where a contact stands."""

    UNKNOWN = -1
    OPEN = 0
    CLOSED = 1


class Flag(IntFlag):
    """What a report says of a switch besides its position."""

    PROTECTION = 1
    LOCK_OUT = 2
    UPSTREAM_LOST = 4
    TAGGED = 8
    EARTHED = 16
    LOCAL = 32
    SYNC = 64


TRIPPED = Flag.PROTECTION | Flag.LOCK_OUT
"""A fault may be behind it."""
RELAY = TRIPPED | Flag.UPSTREAM_LOST
"""What tells why it opened."""


class Cause(IntEnum):
    """Why something opened or lost its voltage."""

    NONE = 0
    """It has not."""
    ORDERED = 1
    """By order of powerd."""
    UPSTREAM = 2
    """The voltage upstream was lost, as reported, without protection or lock-out."""
    PROTECTION = 3
    """On protection or lock-out."""
    UNKNOWN = 4
    """Nobody said."""
    HAND = 5
    """An operator ordered it: an operator may undo it, powerd not."""


RELEASED = (Cause.NONE, Cause.ORDERED, Cause.UPSTREAM, Cause.HAND)
"""Causes that are no fault."""
_IS_FAULT = np.array([cause not in RELEASED for cause in Cause])
"""(causes,) the same, looked up many times faster than with ``np.isin``."""
BENIGN = (Cause.NONE, Cause.ORDERED, Cause.UPSTREAM)
"""Causes after which the part behind may be fed from elsewhere without an operator's release."""


class Phase(IntEnum):
    """Where the failure path stands."""

    IDLE = 0
    """Nothing to do."""
    MAKING_ROOM = 1
    """The next order waits until everything that could be drawing fits the state after it."""
    WAITING = 2
    """An order is out; its position has not been reported yet."""


@dataclass(frozen=True, kw_only=True)
class PlanEntry:
    """The answer to one question of what to switch."""

    key: str
    """Of the question."""
    steps: tuple[int, ...]
    """As ``Switchgear.steps``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Switchgear:
    """All of it; replaced, never changed in place."""

    position: Ints
    """(E,) ``Position`` believed; CLOSED for what is not a switch."""
    reported_at_s: Floats
    """(E,) newest report [boottime s]; -inf = never."""
    known_position: Ints
    """(E,) ``Position`` that was believed last before nobody knew, else the present one; UNKNOWN = never known."""
    said: Ints
    """(E, REPORTERS) what each reporter said last."""
    said_flags: Ints
    """(E, REPORTERS) ``Flag`` bits of each reporter's newest report."""
    said_by: Ints
    """(E, REPORTERS) who; 0 = nobody."""
    said_at_s: Floats
    """(E, REPORTERS) when it arrived [boottime s]; -inf = never."""
    said_incarnation: Ints
    """(E, REPORTERS) the reporter's process."""
    said_clock_s: Floats
    """(E, REPORTERS) the reporter's clock then [s]."""
    told_by: Ints
    """(E + S + B, REPORTERS) who spoke of a loss: branch e, E + s for supply s, E + S + b for bus b; 0 = nobody."""
    told_at_s: Floats
    """(E + S + B, REPORTERS) when it arrived [boottime s]; -inf = never in this run."""
    told_loss: Ints
    """(E + S + B, REPORTERS) what each said last: ``Flag`` bits of the loss, ``NOT_LOST`` = there."""
    turned_at_s: Floats
    """(E + S + B, MOVES) when a word turned against the newest one, oldest first [boottime s]; -inf = never."""
    told_incarnation: Ints
    """(E + S + B, REPORTERS) the reporter's process."""
    told_clock_s: Floats
    """(E + S + B, REPORTERS) the reporter's clock then [s]."""
    flags: Ints
    """(E,) ``Flag`` bits that any reporter says; ``SYNC`` as the switch's own controller says it."""
    moved_at_s: Floats
    """(E, MOVES) newest movements that nobody ordered, oldest first [boottime s]; -inf = none."""
    operated: tuple[tuple[int, float], ...]
    """(branch, when) of every order of powerd, oldest first, for an hour from each [boottime s]."""
    ordered_to: Ints
    """(E,) ``Position`` of the newest order that has neither been seen carried out nor refused; UNKNOWN = none."""
    ordered_by_hand: Bools
    """(E,) that order was an operator's."""
    locked: Bools
    """(E,) flapped: held for both positions and never ordered until an operator releases it."""
    linked: Bools
    """(E,) the stream of a switchgear controller takes orders for it."""
    silent_at_s: Floats
    """(E,) when its controller was lost or last heard, whichever is later [boottime s]; inf = it needs no heartbeat."""
    link_incarnation: Ints
    """(E,) newest stamp of its controller: process."""
    link_clock_s: Floats
    """(E,) newest stamp of its controller: clock [s]."""
    in_service: Bools
    """(E,) as drawn, and not taken out by an operator."""
    lost: Bools
    """(E,) a branch that is no switch, reported as lost."""
    cause: Ints
    """(E,) ``Cause`` of its last opening or loss."""
    faulted_at_s: Floats
    """(E,) since when ``cause`` may be a fault [boottime s]; inf = it is none, or nobody has looked yet."""
    cleared: Bools
    """(E, 2) its two ends: had a voltage for long enough while it was apart, so that its fault is not there."""
    supply_alive: Bools
    """(S,) believed to have voltage."""
    supply_in_service: Bools
    """(S,) not taken out by an operator."""
    supply_cause: Ints
    """(S,) ``Cause`` of its loss."""
    supply_back_at_s: Floats
    """(S,) when it came back [boottime s]; -inf = it never was away."""
    bus_dark: Bools
    """(B,) reported without voltage."""
    bus_live: Bools
    """(B,) a supply reached it after the last step."""
    culprit: Ints
    """(B,) what took its voltage: branch e, E + s for supply s; -2 = nobody knows, -1 = it is live or released."""
    back_at_s: Floats
    """(B,) when its voltage came back [boottime s]; -inf = it never was away."""
    refused: Bools
    """(E,) did not obey in this incident: planned as if nobody could move it."""
    passed_until_s: Floats
    """(E,) no order was possible, though nothing is wrong with it: planned around until then [boottime s]."""
    held_down: Bools
    """(E,) the order under way, or the next one, concerns it: limits hold for both positions."""
    phase: int
    """``Phase``."""
    steps: tuple[int, ...]
    """What is still to be ordered: e + 1 closes branch e, -(e + 1) opens it."""
    since_s: float
    """When the present phase began [boottime s]."""
    order_id: int
    """Newest order given out."""
    order_clock_s: float
    """Clock of the controller that the newest order echoes [s]."""
    unheard: bool
    """The stream on which the order under way went out has ended: it may never have come."""
    deadline_s: float
    """When the order under way is given up [boottime s]."""
    changed_at_s: float
    """When the switching state changed last [boottime s]; -inf = never."""
    wants_plan: bool
    """Something changed that a plan may have to answer."""
    manual: bool
    """The steps are an operator's."""
    reason: str
    """Why the steps are taken, for people."""
    playbook_for: str
    """Key of the state that the playbook starts from; "" = none."""
    playbook: tuple[PlanEntry, ...]
    """Plans found in advance and in the background."""

    @property
    def unknown(self) -> Bools:
        """(E,) limits hold for both positions."""
        held: Bools = (self.position == int(Position.UNKNOWN)) | self.locked
        return held

    def confirmed(self, position: Position) -> Bools:
        """(E,) reported, undisputed, and there."""
        there: Bools = (self.position == position) & np.isfinite(self.reported_at_s) & ~self.locked
        return there

    @property
    def faults(self) -> Bools:
        """(E,) opened or lost on protection, or nobody knows why."""
        found: Bools = _IS_FAULT[self.cause]
        return found

    def has(self, flag: Flag) -> Bools:
        """(E,) the flag is set."""
        set_: Bools = (self.flags & int(flag)) != 0
        return set_


def open_switchgear(
    *, normally_closed: Bools, in_service: Bools, reported: Bools, supply_alive: Bools, bus_live: Bools
) -> Switchgear:
    """Everything as drawn, nothing reported.

    Args:
        normally_closed: (E,) positions of the drawing.
        in_service: (E,) commissioned.
        reported: (E,) unknown until reported.
        supply_alive: (S,) feeding in the normal state.
        bus_live: (B,) has voltage in the normal state.
    """
    e, s, buses = normally_closed.shape[0], supply_alive.shape[0], bus_live.shape[0]
    position = np.where(reported, int(Position.UNKNOWN), normally_closed.astype(np.int64))
    return Switchgear(
        position=position,
        reported_at_s=np.full(e, -np.inf),
        known_position=position.copy(),
        said=np.full((e, REPORTERS), int(Position.UNKNOWN), np.int64),
        said_flags=np.zeros((e, REPORTERS), np.int64),
        said_by=np.zeros((e, REPORTERS), np.int64),
        said_at_s=np.full((e, REPORTERS), -np.inf),
        said_incarnation=np.zeros((e, REPORTERS), np.int64),
        said_clock_s=np.zeros((e, REPORTERS)),
        told_by=np.zeros((e + s + buses, REPORTERS), np.int64),
        told_at_s=np.full((e + s + buses, REPORTERS), -np.inf),
        told_loss=np.full((e + s + buses, REPORTERS), NOT_LOST, np.int64),
        turned_at_s=np.full((e + s + buses, MOVES), -np.inf),
        told_incarnation=np.zeros((e + s + buses, REPORTERS), np.int64),
        told_clock_s=np.zeros((e + s + buses, REPORTERS)),
        flags=np.zeros(e, np.int64),
        moved_at_s=np.full((e, MOVES), -np.inf),
        operated=(),
        ordered_to=np.full(e, int(Position.UNKNOWN), np.int64),
        ordered_by_hand=np.zeros(e, np.bool_),
        locked=np.zeros(e, np.bool_),
        linked=np.zeros(e, np.bool_),
        silent_at_s=np.full(e, np.inf),
        link_incarnation=np.zeros(e, np.int64),
        link_clock_s=np.zeros(e),
        in_service=in_service.copy(),
        lost=np.zeros(e, np.bool_),
        cause=np.zeros(e, np.int64),
        faulted_at_s=np.full(e, np.inf),
        cleared=np.zeros((e, 2), np.bool_),
        supply_alive=supply_alive.copy(),
        supply_in_service=np.ones(s, np.bool_),
        supply_cause=np.zeros(s, np.int64),
        supply_back_at_s=np.full(s, -np.inf),
        bus_dark=np.zeros(buses, np.bool_),
        bus_live=bus_live.copy(),
        culprit=np.full(buses, -1, np.int64),
        back_at_s=np.full(buses, -np.inf),
        refused=np.zeros(e, np.bool_),
        passed_until_s=np.full(e, -np.inf),
        held_down=np.zeros(e, np.bool_),
        phase=int(Phase.IDLE),
        steps=(),
        since_s=-np.inf,
        order_id=0,
        order_clock_s=-np.inf,
        unheard=False,
        deadline_s=-np.inf,
        changed_at_s=-np.inf,
        wants_plan=False,
        manual=False,
        reason="",
        playbook_for="",
        playbook=(),
    )


def operations(gear: Switchgear, now_s: float) -> Ints:
    """(E,) orders of powerd in the last hour."""
    recent = [branch for branch, at_s in gear.operated if now_s - at_s < HOUR_S]
    return np.bincount(np.array(recent, np.int64), minlength=gear.position.shape[0])


def ordered(gear: Switchgear, branch: int, position: Position, now_s: float) -> Switchgear:
    """Notes an order that goes out; by hand where the steps are an operator's."""
    recent = tuple(one for one in gear.operated if now_s - one[1] < HOUR_S)
    return replace(
        gear,
        operated=(*recent, (branch, now_s)),
        ordered_to=put(gear.ordered_to, branch, int(position)),
        ordered_by_hand=put(gear.ordered_by_hand, branch, gear.manual),
    )


def redrawn(gear: Switchgear, drawn: Switchgear) -> Switchgear:
    """The switchgear of a site that was drawn anew: what nobody has ever told is as the new drawing has it.

    Args:
        gear: as journalled under the old drawing.
        drawn: as the new one has it, of as many elements.
    """
    told = np.isfinite(gear.reported_at_s) | (gear.said_by != 0).any(axis=1)
    if not told.any() and not gear.told_by.any():
        return drawn
    # A switch of which nobody knows how it stands stays so, also where the new drawing expects no report of it.
    kept = told | (gear.position == int(Position.UNKNOWN))
    first, count = gear.position.shape[0], gear.supply_alive.shape[0]
    heard = (gear.told_by[first : first + count] != 0).any(axis=1)
    return replace(
        gear,
        position=np.where(kept, gear.position, drawn.position),
        known_position=np.where(kept, gear.known_position, drawn.known_position),
        in_service=gear.in_service & drawn.in_service,
        supply_alive=np.where(heard, gear.supply_alive, drawn.supply_alive),
    )


def reopen_switchgear(gear: Switchgear, was_s: float, now_s: float) -> Switchgear:
    """After a restart: whatever was ever reported may have moved meanwhile, and orders under way are given up.

    Causes, culprits, lock-outs, losses, marks (tagged, earthed, local) and what operators took out of service stay, and
    an order that is out may have been carried out. Spans go on as if no time had passed: pick-ups and an hour of
    operations last as long as they can. Times of the reporters' own clocks stay: a late word is as late afterwards.

    Args:
        gear: as journalled.
        was_s: instant of it [s of that boot].
        now_s: instant of the restart [boottime s].
    """
    known, on = np.isfinite(gear.reported_at_s), now_s - was_s
    return replace(
        gear,
        position=np.where(known, int(Position.UNKNOWN), gear.position),
        reported_at_s=np.full_like(gear.reported_at_s, -np.inf),
        said=np.full_like(gear.said, int(Position.UNKNOWN)),
        said_at_s=np.full_like(gear.said_at_s, -np.inf),
        told_at_s=np.full_like(gear.told_at_s, -np.inf),
        turned_at_s=gear.turned_at_s + on,
        moved_at_s=gear.moved_at_s + on,
        operated=tuple((branch, at_s + on) for branch, at_s in gear.operated),
        linked=np.zeros_like(gear.linked),
        silent_at_s=np.full_like(gear.silent_at_s, np.inf),
        supply_back_at_s=gear.supply_back_at_s + on,
        back_at_s=gear.back_at_s + on,
        faulted_at_s=np.full_like(gear.faulted_at_s, np.inf),
        passed_until_s=np.full_like(gear.passed_until_s, -np.inf),
        held_down=np.zeros_like(gear.held_down),
        phase=int(Phase.IDLE),
        steps=(),
        since_s=-np.inf,
        unheard=False,
        deadline_s=-np.inf,
        changed_at_s=-np.inf,
        wants_plan=True,
        manual=False,
        reason="",
        playbook_for="",
        playbook=(),
    )
