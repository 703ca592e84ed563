"""What would happen if: one switch moved, or elements were lost. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from powerd.control.decision import Decision
from powerd.control.metered import uncontrolled_now
from powerd.control.question import asked_for, question_of
from powerd.control.requested import against
from powerd.control.switching import answer
from powerd.control.topology import believed, feeding, load_factor, observe, surely_closed
from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import Electrical
from powerd.network.interlocks import Finding, Move
from powerd.network.moves import follow_source
from powerd.network.plan import EXACT_SWITCHES, Plan, Planner, Question
from powerd.network.states import seen_as
from powerd.state.envelopes import bound
from powerd.state.leases import reserve
from powerd.state.switchgear import Cause, Position, Switchgear


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecast:
    """What one movement would bring."""

    findings: tuple[Finding, ...]
    """What speaks against it; empty = nothing."""
    name: tuple[str, ...]
    """(L,) limits of the state after it, for people."""
    unit: tuple[str, ...]
    """(L,) "A" or "kW"."""
    capacity: Floats
    """(L,) [unit]."""
    reserved: Floats
    """(L,) what cannot be lowered: reserves and other loads [unit]."""
    worst: Floats
    """(L,) most that could be drawing right now [unit]."""
    lost: Ints
    """(k,) EVSEs that would lose their supply."""
    gained: Ints
    """(k,) EVSEs that would gain one."""
    deliverable_kva: float
    """Bound on what could be delivered then [kVA]."""


def forecast(decision: Decision, planner: Planner, move: Move) -> Forecast:
    """One switch moved, as the last tick left everything."""
    site, state, now = decision.site, decision.snapshot, decision.now
    electrical, gear = site.electrical, decision.snapshot.gear
    at, to = np.array([move.branch]), Position.CLOSED if move.close else Position.OPEN
    moved = replace(
        gear,
        position=_changed(gear.position, at, int(to)),
        cause=_changed(gear.cause, at, int(Cause.NONE if move.close else Cause.HAND)),
        held_down=np.zeros_like(gear.held_down),
    )
    after = observe(electrical, gear, moved, now)
    then = site.in_state(believed(electrical, after)).with_load_factor(load_factor(electrical, moved, now))
    then = then.within(bound(state.envelopes, electrical.failsafe_limit_kw, now))
    uncontrolled = uncontrolled_now(then, replace(state, gear=after), now.boottime_s)
    own = reserve(state.leases, site.terms, state.sessions.plugged)
    had, has = gear.bus_live[electrical.evse_bus], after.bus_live[electrical.evse_bus]
    question = question_of(electrical, after, asked_for(electrical, state.sessions), now.boottime_s)
    return Forecast(
        findings=against(electrical, gear, move, now.boottime_s),
        name=then.limits.name,
        unit=then.limits.unit,
        capacity=then.limits.capacity,
        reserved=then.limits.limit_flow(own) + uncontrolled,
        worst=then.limits.limit_flow(decision.worst) + uncontrolled,
        lost=np.flatnonzero(had & ~has),
        gained=np.flatnonzero(~had & has),
        deliverable_kva=planner.score(question, question.closed).deliverable,
    )


def planned(decision: Decision, planner: Planner, branches: Ints, supplies: Ints) -> tuple[Plan, Question, bool]:
    """What powerd would do if these branches and supplies were lost now, each without a fault.

    Transfer switches that move by themselves have moved before it plans.

    Returns:
        The plan, its question, and whether the playbook had it.
    """
    electrical, gear = decision.site.electrical, decision.snapshot.gear
    switchable = electrical.branches.switchable[branches]
    lost = replace(
        gear,
        supply_alive=_changed(gear.supply_alive, supplies, False),
        position=_changed(gear.position, branches[switchable], int(Position.OPEN)),
        lost=_changed(gear.lost, branches[~switchable], True),
        cause=_changed(gear.cause, branches, int(Cause.UPSTREAM)),
    )
    after = observe(electrical, gear, lost, decision.now)
    after = observe(electrical, after, _gone_over(electrical, gear, after), decision.now)
    asked = asked_for(electrical, decision.snapshot.sessions)
    question = question_of(electrical, after, asked, decision.now.boottime_s)
    known = any(entry.key == question.key for entry in gear.playbook)
    steps, unanswered = answer(electrical, planner, after, question, EXACT_SWITCHES)
    end = planner.end(question, steps)
    found_by = "exact" if unanswered is None else "heuristic"
    return Plan(closed=end, steps=steps, score=planner.score(question, end), found_by=found_by), question, known


def _gone_over(electrical: Electrical, before: Switchgear, after: Switchgear) -> Switchgear:
    """``after``, and then the transfer switches that lost their source between the two have gone over."""
    stuck = _following(electrical, before)
    pairs = [pair for pair in _following(electrical, after) if pair not in stuck]
    if not pairs:
        return after
    left, taken = np.array(pairs, np.int64).T
    position = _changed(_changed(after.position, left, int(Position.OPEN)), taken, int(Position.CLOSED))
    return replace(after, position=position)


def _following(electrical: Electrical, gear: Switchgear) -> list[tuple[int, int]]:
    """(half that opens, half that closes) of each transfer switch that is on a dead source and knows a live one."""
    usable = gear.in_service & ~gear.lost & ~gear.unknown
    return follow_source(seen_as(electrical, usable, feeding(gear)), surely_closed(electrical, gear))


Column = TypeVar("Column", Floats, Ints, Bools)


def _changed(column: Column, at: Ints, value: int) -> Column:
    """A copy of a column with ``value`` at some places."""
    changed = column.copy()
    changed[at] = value
    return changed
