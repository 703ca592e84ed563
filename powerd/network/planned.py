"""R5 of docs/leases.md in the states that powerd itself makes: what its plan after each single loss has to hold ready.

A plan never ends where R5 does not hold (``plan``), unless it did not hold before either. So a state that is not
planned is told as well: where the best one but for R5 is better, the limit that forbids it, and what that costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from powerd.faults import Severity
from powerd.limits import Bools
from powerd.network.admission import TOLERANCE, Reserved, reserved_from
from powerd.network.admission_faults import mend_of, place_of
from powerd.network.drawing import Findings
from powerd.network.electrical import Electrical
from powerd.network.operation import By
from powerd.network.plan import Plan, Planner, Question
from powerd.network.plan_grid import grid_of
from powerd.network.playbook import as_designed, contingencies
from powerd.network.states import seen_as
from powerd.site.codes import Code
from powerd.site.schema import SiteFile

EXACT_HERE = 10
"""Up to so many switches that may move the plans are those of the playbook; beyond, the search's, within seconds."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The plan after one loss, for a full house, and R5 in it."""

    lost: str
    """Id of what is lost."""
    steps: tuple[str, ...]
    """The orders: "open main-a", "close tie"; none = it stays as the loss leaves it."""
    found_by: str
    """"exact" or "heuristic"."""
    fullest: Reserved | None
    """The limit that has least left before anything is granted; None = nothing is limited."""
    forbidden: Reserved | None
    """The limit by which R5 forbids a better state; None = R5 costs nothing here."""
    cost_kva: float
    """What the forbidden state could deliver more [kVA]."""

    @property
    def fits(self) -> bool:
        """Whether R5 holds in the state planned."""
        return self.fullest is None or self.fullest.excess <= TOLERANCE


def planned(electrical: Electrical) -> Iterator[Planned]:
    """The plan after the loss of each supply, branch and closed switch; nothing where powerd moves no switch."""
    careful, bold = Planner.of(electrical), Planner(grid_of(electrical))
    question = as_designed(electrical, careful)
    if question.movable.any():
        for (loss,), asked in contingencies(electrical, question, pairs=False):
            yield _planned(electrical, loss.name, asked, _plan(careful, asked), _plan(bold, asked))


def find_planned_faults(found: tuple[Planned, ...], site: SiteFile, electrical: Electrical, findings: Findings) -> None:
    """One warning, its worst case, for each element that breaks R5 in a planned state or forbids a better one."""
    worst: dict[str, tuple[Planned, Reserved]] = {}
    for one in found:
        for limit in (None if one.fits else one.fullest, one.forbidden):
            if limit is not None and (limit.element not in worst or limit.excess > worst[limit.element][1].excess):
                worst[limit.element] = one, limit
    for element, (one, limit) in worst.items():
        what = "in the state that is planned" if limit is one.fullest else "in a better state than the one planned"
        gain = f" ({one.cost_kva:.4g} kVA more)" if limit is one.forbidden and one.cost_kva > 0 else ""
        message = (
            f"{limit.name}, {one.lost} lost, {what}{gain}: EVSEs without a grant can draw {limit.reserve:.4g} "
            f"{limit.unit}, other loads {limit.uncontrolled:.4g} {limit.unit}, together above the "
            f"{limit.capacity:.4g} {limit.unit} that it holds"
        )
        mend = mend_of(limit, electrical)
        findings.add(Code.FALLBACK_SUM, place_of(site, element), element, message, mend, Severity.WARNING)


def _plan(planner: Planner, question: Question) -> Plan:
    few = int(question.movable.sum()) <= EXACT_HERE
    return planner.exact(question) if few else planner.heuristic(question)


def _planned(electrical: Electrical, lost: str, asked: Question, plan: Plan, bold: Plan) -> Planned:
    ids = electrical.branches.ids
    better = bold.score > plan.score
    return Planned(
        lost=lost,
        steps=tuple(f"{'close' if step > 0 else 'open'} {ids[abs(step) - 1]}" for step in plan.steps),
        found_by=plan.found_by,
        fullest=_fullest(electrical, asked, plan.closed),
        forbidden=_fullest(electrical, asked, bold.closed) if better else None,
        cost_kva=max(0.0, bold.score.deliverable - plan.score.deliverable),
    )


def _fullest(electrical: Electrical, asked: Question, closed: Bools) -> Reserved | None:
    """The limit with least left in a state (E,) and in those that switches moving by themselves make of it."""
    here = seen_as(electrical, asked.known, asked.alive)
    return max(reserved_from(here, closed, By.ITSELF), key=_share, default=None)


def _share(one: Reserved) -> float:
    """What is held ready, of the rating."""
    held = one.reserve + one.uncontrolled
    return held / one.capacity if one.capacity > 0 else float("inf") if held > 0 else 0.0
