"""Plans that are found in advance and off the tick: the playbook, and exact answers to what it lacks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from powerd.control.decision import Decision
from powerd.control.question import question_of
from powerd.control.switch_events import PlansReady
from powerd.control.switching import nothing_lost
from powerd.network.electrical import Electrical
from powerd.network.plan import EXACT_SWITCHES, Planner, Question, without
from powerd.network.states import seen_as
from powerd.network.supply import energise
from powerd.state.switchgear import Phase, PlanEntry

PAIRS_MAX = 20_000
"""Double outages are planned in advance where states times pairs stay below this: seconds of one core."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanWork:
    """Something to be planned in the background."""

    electrical: Electrical
    """The drawing."""
    question: Question
    """From where, or what."""
    ahead: bool
    """True: every loss that may come; False: this question alone."""

    def run(self, planner: Planner) -> PlansReady:
        """Finds the plans; takes its time, and lets go of the interpreter meanwhile."""
        if self.ahead:
            return PlansReady(base=self.question.key, entries=tuple(playbook(planner, self.electrical, self.question)))
        entry = PlanEntry(key=self.question.key, steps=planner.plan(self.question).steps)
        return PlansReady(base="", entries=(entry,))


def plans_wanted(decision: Decision) -> PlanWork | None:
    """What the background should find after this tick; None = nothing."""
    electrical, gear = decision.site.electrical, decision.snapshot.gear
    if decision.unanswered is not None and int(decision.unanswered.movable.sum()) <= EXACT_SWITCHES:
        return PlanWork(electrical=electrical, question=decision.unanswered, ahead=False)
    if gear.phase != Phase.IDLE or not gear.linked.any() or not nothing_lost(electrical, gear):
        return None
    question = question_of(electrical, gear, decision.now.boottime_s)
    if question.key == gear.playbook_for or not question.movable.any():
        return None
    return PlanWork(electrical=electrical, question=question, ahead=True)


def playbook(planner: Planner, electrical: Electrical, question: Question) -> Iterator[PlanEntry]:
    """The plans for every loss of one supply or branch, and of two where affordable; made in the background."""
    losses = _losses(electrical, question)
    doubles = list(itertools.combinations(losses, 2))
    after = [_lose(electrical, question, loss) for loss in losses]
    if len(doubles) * 2 ** int(question.movable.sum()) <= PAIRS_MAX:
        after += [_lose(electrical, _lose(electrical, question, one), other) for one, other in doubles]
    for asked in after:
        yield PlanEntry(key=asked.key, steps=planner.plan(asked).steps)


def _losses(electrical: Electrical, question: Question) -> list[tuple[str, int]]:
    """Everything that can be lost: feeding supplies, branches that are no switch, closed switches."""
    found = [("supply", int(s)) for s in np.flatnonzero(question.alive)]
    branches = electrical.branches
    found += [("branch", int(e)) for e in np.flatnonzero(question.known & ~branches.switchable)]
    found += [("opened", int(e)) for e in np.flatnonzero(question.known & branches.switchable & question.closed)]
    return found


def _lose(electrical: Electrical, question: Question, loss: tuple[str, int]) -> Question:
    """The question after one loss without a fault in what it fed."""
    kind, index = loss
    if kind == "supply":
        after = without(question, supply=index)
    elif kind == "branch":
        after = without(question, branch=index)
    else:
        closed, shadow = question.closed.copy(), question.shadow.copy()
        closed[index] = False
        shadow[index] = False
        after = replace(question, closed=closed, shadow=shadow)
    supplies = seen_as(electrical, after.known, after.alive)
    dead = ~energise(supplies, after.closed).bus_is_live
    return replace(after, barred=after.barred & dead, dead=dead)
