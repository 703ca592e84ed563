"""Plans that are found in advance and off the tick: the playbook, and better answers to what it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from powerd.control.decision import Decision
from powerd.control.question import asked_for, question_of
from powerd.control.switch_events import PlansReady
from powerd.control.switching import settled
from powerd.network.electrical import Electrical
from powerd.network.plan import Planner, Question
from powerd.network.playbook import contingencies
from powerd.state.switchgear import Phase, PlanEntry

ENDS_KEPT = 3
"""Ends that the playbook keeps for one question, the best for a full house first: the cars of that day choose."""


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
    if decision.unanswered is not None:
        return PlanWork(electrical=electrical, question=decision.unanswered, ahead=False)
    if gear.phase != Phase.IDLE or not gear.linked.any() or not settled(electrical, gear):
        return None
    asked = asked_for(electrical, decision.snapshot.sessions)
    question = question_of(electrical, gear, asked, decision.now.boottime_s)
    question = replace(question, fresh=np.zeros_like(question.fresh))  # the plans are for longer than a pick-up lasts
    if question.key == gear.playbook_for or not question.movable.any():
        return None
    return PlanWork(electrical=electrical, question=question, ahead=True)


def playbook(planner: Planner, electrical: Electrical, question: Question) -> Iterator[PlanEntry]:
    """The plans for every loss of one supply or branch, and of two where affordable: for a full house."""
    full = replace(question, demand=planner.grid.rating)
    for _, asked in contingencies(electrical, full):
        for plan in planner.some(asked, ENDS_KEPT):
            yield PlanEntry(key=asked.key, steps=plan.steps)
