"""What is never traded when a switch is operated: one rule a function, each naming itself in what it finds.

The same rules judge plans, dry runs, operators' orders and every order before it goes out.
They read what is *confirmed*: a switch that nobody has reported as open counts as closed wherever that is the danger.

Sources: back-feeding and isolation before re-energising, IEEE 1547 and EN 50110-1 (five safety rules); transfer
switches, IEC 60947-6-1; which trips permit an automatic transfer, the bus-transfer practice of IEEE C37.96.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from powerd.limits import Bools
from powerd.network.electrical import Electrical
from powerd.network.operation import By
from powerd.network.supply import joined
from powerd.state.switchgear import RELEASED, Cause, Flag, Position, Switchgear, operations


@dataclass(frozen=True, kw_only=True)
class Move:
    """One switch to one position."""

    branch: int
    """Branch index."""
    close: bool
    """True = close, False = open."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What speaks against a move."""

    rule: str
    """Name of the rule."""
    element: str
    """What it is about."""
    message: str
    """For people."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A move, with all that the rules look at."""

    electrical: Electrical
    gear: Switchgear
    move: Move
    now_s: float

    @property
    def name(self) -> str:
        """Id of the switch."""
        return self.electrical.branches.ids[self.move.branch]

    @cached_property
    def may_conduct(self) -> Bools:
        """(E,) could be conducting: everything drawn but the switches that are confirmed open."""
        branches = self.electrical.branches
        apart = branches.switchable & self.gear.confirmed(Position.OPEN)
        found: Bools = branches.in_service & ~apart
        return found

    @cached_property
    def _ends(self) -> tuple[Bools, Bools]:
        """(B,) twice: what could hang together with each end of the switch while that is open."""
        return self._both(self.may_conduct)

    def _both(self, conducts: Bools) -> tuple[Bools, Bools]:
        """(B,) twice: what hangs together with each end of the switch while that is open, through these (E,)."""
        branches = self.electrical.branches
        others = conducts.copy()
        others[self.move.branch] = False
        label = joined(self.electrical, others)
        one, other = label[branches.from_bus[self.move.branch]], label[branches.to_bus[self.move.branch]]
        return label == one, label == other

    @cached_property
    def fed(self) -> tuple[bool, bool]:
        """Which end has voltage."""
        branches, live = self.electrical.branches, self.gear.bus_live
        return bool(live[branches.from_bus[self.move.branch]]), bool(live[branches.to_bus[self.move.branch]])

    def _without_voltage(self, ends: tuple[Bools, Bools]) -> Bools:
        """(B,) the end that has none, or both."""
        (one, other), (from_fed, to_fed) = ends, self.fed
        return (one & (not from_fed)) | (other & (not to_fed))

    @cached_property
    def zone(self) -> Bools:
        """(B,) what the closing would put under voltage; both ends where neither has any; empty where both have."""
        return self._without_voltage(self._ends)

    @cached_property
    def reached(self) -> Bools:
        """(B,) ``zone`` as far as a fault could be reached in it.

        What is lost for a fault may come back by itself, but beside a part that kept its voltage it is apart from that.
        """
        shown = self.gear.lost & self.gear.faults & self.gear.cleared.any(axis=1)
        return self._without_voltage(self._both(self.may_conduct & ~shown)) if shown.any() else self.zone

    @cached_property
    def touching(self) -> Bools:
        """(E,) branches with an end in the zone, but for the switch itself."""
        branches = self.electrical.branches
        found: Bools = self.zone[branches.from_bus] | self.zone[branches.to_bus]
        found[self.move.branch] = False
        return found

    def sources(self, buses: Bools) -> tuple[int, ...]:
        """Supplies at these buses (B,), with or without voltage."""
        return tuple(np.flatnonzero(buses[self.electrical.supplies.bus]).tolist())

    @cached_property
    def end_sources(self) -> tuple[frozenset[int], frozenset[int]]:
        """Supplies that each end could be joined to."""
        return frozenset(self.sources(self._ends[0])), frozenset(self.sources(self._ends[1]))


Rule = Callable[[Question], Finding | None]


def _find(rule: str, element: str, message: str) -> Finding:
    return Finding(rule=rule, element=element, message=message)


# --- the switch itself ------------------------------------------------------------------------------------------------


def may_operate(q: Question) -> Finding | None:
    """Only switches that the site file gives to powerd are ordered."""
    if q.electrical.operation.by[q.move.branch] == By.POWERD:
        return None
    return _find("may_operate", q.name, f"the site file does not let powerd operate {q.name}")


def known_position(q: Question) -> Finding | None:
    """A switch whose own position is not reported, or disputed, is not ordered."""
    reported = np.isfinite(q.gear.reported_at_s[q.move.branch])
    if reported and q.gear.position[q.move.branch] != Position.UNKNOWN:
        return None
    return _find("known_position", q.name, f"the position of {q.name} is not known")


def available(q: Question) -> Finding | None:
    """A switch that is tagged out, in local, locked out, out of service or locked is left alone."""
    at = q.move.branch
    reasons = (
        (bool(q.gear.has(Flag.TAGGED)[at]), "tagged out"),
        (bool(q.gear.has(Flag.LOCAL)[at]), "in local"),
        (not q.gear.in_service[at] or not q.electrical.branches.in_service[at], "out of service"),
        (bool(q.gear.has(Flag.LOCK_OUT)[at]), "locked out"),
        (bool(q.gear.locked[at]), "locked after too many movements"),
    )
    found = [word for true, word in reasons if true]
    return _find("available", q.name, f"{q.name} is {' and '.join(found)}") if found else None


def operations_left(q: Question) -> Finding | None:
    """No more operations an hour than the site file allows."""
    most = int(q.electrical.operation.max_operations[q.move.branch])
    done = int(operations(q.gear, q.now_s)[q.move.branch])
    return (
        None if done < most else _find("operations_left", q.name, f"{q.name} has been operated {done} times this hour")
    )


def linked(q: Question) -> Finding | None:
    """A switch whose controller has no stream open is not ordered: nobody would hear it."""
    if q.gear.linked[q.move.branch]:
        return None
    return _find("linked", q.name, f"no switchgear controller is connected that takes orders for {q.name}")


# --- what a closing joins ---------------------------------------------------------------------------------------------


def interlock_group(q: Question) -> Finding | None:
    """Of each ``interlocks`` entry no more are closed than it says; what is not confirmed open counts as closed."""
    if not q.move.close:
        return None
    for lock in q.electrical.interlocks:
        if q.move.branch not in lock.branches or _transition(q, lock.branches):
            continue
        shut = [b for b in lock.branches if b == q.move.branch or q.may_conduct[b]]
        if len(shut) > lock.at_most_closed:
            names = ", ".join(q.electrical.branches.ids[b] for b in shut)
            return _find(
                "interlock_group", q.name, f"{names} could be closed together, at most {lock.at_most_closed} may"
            )
    return None


def _transition(q: Question, branches: tuple[int, ...]) -> bool:
    """The interlock is a transfer switch's own, and its sync check permits a closed transition now."""
    partner = int(q.electrical.operation.partner[q.move.branch])
    allowed = bool(q.electrical.operation.closed_transition[q.move.branch])
    return set(branches) == {q.move.branch, partner} and allowed and bool(q.gear.has(Flag.SYNC)[q.move.branch])


def break_before_make(q: Question) -> Finding | None:
    """A transfer switch opens one side before it closes the other, unless its sync check permits otherwise."""
    partner = int(q.electrical.operation.partner[q.move.branch])
    if not q.move.close or partner < 0 or not q.may_conduct[partner] or _transition(q, (q.move.branch, partner)):
        return None
    other = q.electrical.branches.ids[partner]
    return _find("break_before_make", q.name, f"{other} is not confirmed open")


def no_parallel(q: Question) -> Finding | None:
    """Two supplies are connected together only where the site allows it and the sync check permits it now."""
    if not q.move.close or not all(q.fed):
        return None
    one, other = q.end_sources
    if len(one | other) < 2 or (one == other and len(one) < 2):
        return None
    may = q.electrical.parallel_supplies or bool(q.electrical.operation.closed_transition[q.move.branch])
    if may and q.gear.has(Flag.SYNC)[q.move.branch]:
        return None
    names = ", ".join(q.electrical.supplies.ids[s] for s in sorted(one | other))
    why = "no sync check permits it" if may else "the site does not allow it"
    return _find("no_parallel", q.name, f"{names} would be connected together: {why}")


# --- what a closing puts under voltage --------------------------------------------------------------------------------


def no_close_after_trip(q: Question) -> Finding | None:
    """Nothing is fed again that tripped on protection or for an unknown cause, until an operator releases it."""
    if not q.move.close:
        return None
    branches, zone = q.electrical.branches, q.reached
    unproven = (zone[branches.from_bus] & ~q.gear.cleared[:, 0]) | (zone[branches.to_bus] & ~q.gear.cleared[:, 1])
    suspect = q.gear.faults & unproven
    suspect[q.move.branch] = q.gear.faults[q.move.branch]
    if suspect.any():
        name = branches.ids[int(np.argmax(suspect))]
        return _find("no_close_after_trip", name, f"{name} tripped on protection or for an unknown cause")
    for bus in np.flatnonzero(zone & (q.gear.culprit != -1)).tolist():
        if not _benign(q, int(q.gear.culprit[bus])):
            name = q.electrical.buses.ids[bus]
            return _find("no_close_after_trip", name, f"nobody has said that {name} lost its voltage without a fault")
    return None


def _benign(q: Question, culprit: int) -> bool:
    """Whether what took a bus's voltage was no fault there."""
    count = q.electrical.branches.kind.shape[0]
    if culprit < 0:
        return False
    cause = q.gear.cause[culprit] if culprit < count else q.gear.supply_cause[culprit - count]
    return Cause(int(cause)) in RELEASED


def no_back_feed(q: Question) -> Finding | None:
    """Every other source of what would be fed is confirmed open first; a dead one would be fed backwards.

    Nor are two parts without voltage joined that each hang on a source of their own: the first to come back would feed
    the other backwards, and then both are connected together.
    """
    if not q.move.close:
        return None
    if any(q.fed):
        sources = q.sources(q.zone)
    else:
        one, other = q.end_sources
        sources = tuple(sorted(one | other)) if one and other and one != other else ()
    if not sources:
        return None
    name = q.electrical.supplies.ids[sources[0]]
    return _find("no_back_feed", name, f"{name} is not confirmed open towards what would be fed")


def no_earthed_part(q: Question) -> Finding | None:
    """Nothing is fed that is earthed, tagged out, in local or taken out of service."""
    if not q.move.close:
        return None
    earthed = q.gear.has(Flag.EARTHED)
    busy = (q.gear.has(Flag.TAGGED) | q.gear.has(Flag.LOCAL)) & ~q.gear.confirmed(Position.OPEN)
    out = ~q.gear.in_service & q.electrical.branches.in_service & ~q.gear.confirmed(Position.OPEN)
    bad = q.touching & (earthed | busy | out)
    bad[q.move.branch] = earthed[q.move.branch]
    if not bad.any():
        return None
    name = q.electrical.branches.ids[int(np.argmax(bad))]
    return _find("no_earthed_part", name, f"{name} is earthed, tagged out, in local or out of service")


RULES: tuple[Rule, ...] = (
    may_operate,
    known_position,
    available,
    operations_left,
    interlock_group,
    break_before_make,
    no_parallel,
    no_close_after_trip,
    no_back_feed,
    no_earthed_part,
)
"""What must not happen, in the order in which it is told."""


def findings(
    electrical: Electrical, gear: Switchgear, move: Move, now_s: float, *, rules: tuple[Rule, ...] = RULES
) -> tuple[Finding, ...]:
    """What speaks against a move now; empty = nothing.

    Args:
        electrical: the drawing.
        gear: what is known of the switchgear.
        move: the operation in question.
        now_s: this instant [boottime s].
        rules: which rules to ask.
    """
    question = Question(electrical=electrical, gear=gear, move=move, now_s=now_s)
    return tuple(found for rule in rules if (found := rule(question)) is not None)


def objections(electrical: Electrical, gear: Switchgear, move: Move, now_s: float) -> tuple[Finding, ...]:
    """What speaks against an order now: ``findings``, and that nobody would hear it."""
    unheard = linked(Question(electrical=electrical, gear=gear, move=move, now_s=now_s))
    return (*findings(electrical, gear, move, now_s), *((unheard,) if unheard is not None else ()))
