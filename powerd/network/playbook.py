"""What may be lost, and the question that each loss asks of the planner: N-1, and N-2 where affordable."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from powerd.network.electrical import Electrical
from powerd.network.moves import follow_source
from powerd.network.operation import By
from powerd.network.plan import EXACT_SWITCHES, Planner, Question
from powerd.network.states import seen_as
from powerd.network.supply import energise, normal_positions

PAIRS_MAX = 20_000
"""Double outages are planned in advance where states times pairs stay below this: seconds of one core."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One thing that can be lost."""

    kind: str
    """"supply", "branch" (no switch), or "opened" (a switch that opens by itself)."""
    index: int
    """Which."""
    name: str
    """Its id."""


def as_designed(electrical: Electrical, planner: Planner) -> Question:
    """Everything as drawn, reported, and every switch of powerd's ready: what a playbook starts from on paper."""
    branches, closed = electrical.branches, normal_positions(electrical)
    movable = (electrical.operation.by == By.POWERD) & branches.in_service
    dead = ~energise(electrical, closed).bus_is_live
    return Question(
        closed=closed,
        known=branches.in_service.copy(),
        shadow=branches.in_service & (closed | ~branches.switchable) & ~movable,
        movable=movable,
        alive=electrical.supplies.in_service.copy(),
        barred=np.zeros_like(dead),
        dead=dead,
        fresh=np.zeros_like(dead),
        sync=np.zeros_like(movable),
        demand=planner.grid.rating,
    )


def contingencies(
    electrical: Electrical, question: Question, *, pairs: bool = True
) -> Iterator[tuple[tuple[Loss, ...], Question]]:
    """Every single loss with the question after it, then every pair where wanted and affordable."""
    losses = _losses(electrical, question)
    after = [(loss, lose(electrical, question, loss)) for loss in losses]
    yield from (((loss,), asked) for loss, asked in after)
    count, movable = len(losses) * (len(losses) - 1) // 2, int(question.movable.sum())
    if pairs and movable <= EXACT_SWITCHES and count * 2**movable <= PAIRS_MAX:
        for (one, asked), (other, _) in itertools.combinations(after, 2):
            yield (one, other), lose(electrical, asked, other)


def _losses(electrical: Electrical, question: Question) -> list[Loss]:
    """Everything that can be lost: feeding supplies, branches that are no switch, closed switches."""
    branches, supplies = electrical.branches, electrical.supplies
    opened = question.known & branches.switchable & question.closed
    still = question.known & ~branches.switchable
    return [
        *(Loss(kind="supply", index=s, name=supplies.ids[s]) for s in np.flatnonzero(question.alive).tolist()),
        *(Loss(kind="branch", index=e, name=branches.ids[e]) for e in np.flatnonzero(still).tolist()),
        *(Loss(kind="opened", index=e, name=branches.ids[e]) for e in np.flatnonzero(opened).tolist()),
    ]


def lose(electrical: Electrical, question: Question, loss: Loss) -> Question:
    """The question after one loss without a fault in what it fed, and after what moves by itself then."""
    closed, known = question.closed.copy(), question.known.copy()
    shadow, alive = question.shadow.copy(), question.alive.copy()
    match loss.kind:
        case "supply":
            alive[loss.index] = False
        case "branch":
            known[loss.index], shadow[loss.index] = False, True
        case _:
            closed[loss.index] = shadow[loss.index] = False
    here = seen_as(electrical, known, alive)
    for left, taken in follow_source(here, closed):
        closed[left] = shadow[left] = False
        closed[taken] = shadow[taken] = True
    dead = ~energise(here, closed).bus_is_live
    return replace(
        question,
        closed=closed,
        known=known,
        shadow=shadow,
        alive=alive,
        barred=question.barred & dead,
        dead=dead,
    )
