"""What users' terms leave of a tick, whom they hold, and who would be granted more if there were none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from powerd.allocation.allocate import Allocation, Allocator
from powerd.allocation.demands import Demands
from powerd.allocation.steps import all_up, pack_steps
from powerd.allocation.user_terms import Source, UserTerms
from powerd.control.decision import BY_TERMS
from powerd.errors import NotDpp, UnreadableInput
from powerd.limits import Floats, Limits, Posts

TELLING = 1e-3
"""Ceilings of cvxpy and of the kernel that differ by no more are the same [own unit]."""
TRIES = 3
"""How often others in a term are bounded as well, who rise into what it took from one, before everybody is."""
NOTICED = 0.05
"""Whoever would be granted no more than this more without the terms is not held by them [own unit]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnderTerms:
    """What is asked for and shared out under the terms."""

    demands: Demands
    """Within what the terms leave to those whom they hold."""
    allocation: Allocation
    """What is made of them."""
    alarms: tuple[str, ...] = ()
    """Of terms that are left out."""
    without: Floats | None = None
    """(n,) what the limits alone would leave, pilot steps left out; None where the terms hold nobody [own unit]."""


class ByTerms:
    """Holds the users' terms where they hold somebody, and changes nothing where they do not.

    Args:
        posts: the EVSEs.
        sources: whose terms.
        limits: of the normal switching state, for which they are compiled at once.

    Raises:
        NotDpp: a term is not convex or its parameters do not enter affinely, or there is no answer to the terms.
        UnreadableInput: what a user wrote fails.
    """

    def __init__(self, posts: Posts, sources: Sequence[Source], limits: Limits) -> None:
        self._terms = UserTerms(posts, sources)
        self._terms.compile(limits)
        self._allocator, self._steps = Allocator(posts), pack_steps(posts)
        # Of a sum that is stepped down nobody is held by a term: (U) knows no steps, so it is compared without them.
        self._continuous = Allocator(replace(posts, pilot_steps=tuple(np.zeros(0) for _ in posts.ids)))
        self._any = bool(sources)

    @property
    def names(self) -> tuple[str, ...]:
        """Whose terms, for people."""
        return self._terms.names

    def share(self, limits: Limits, wanted: Demands, plain: Allocation) -> UnderTerms:
        """What the terms leave of what is ``wanted``; ``plain`` is what the limits alone do.

        A program of somebody else's may fail in any tick. Then that tick goes without terms, and an alarm says so.
        """
        if not self._any:
            return UnderTerms(demands=wanted, allocation=plain)
        try:
            return self._share(limits, wanted, plain)
        except (NotDpp, UnreadableInput) as error:
            return UnderTerms(demands=wanted, allocation=plain, alarms=(f"{error}: the terms are left out",))

    def _share(self, limits: Limits, wanted: Demands, plain: Allocation) -> UnderTerms:
        if self._terms.met(limits, wanted, plain.want):
            return UnderTerms(demands=wanted, allocation=plain)
        # A car that the terms leave less than the first step at or above its minimum would not charge at all.
        on_steps = replace(wanted, minimum=all_up(self._steps, wanted.minimum))
        asked, alarms = self._terms.bound(limits, on_steps)
        if asked is on_steps:
            return UnderTerms(demands=wanted, allocation=plain, alarms=alarms)
        without = self._continuous.allocate(limits, on_steps).want
        held = asked.upper < without - TELLING
        for _ in range(TRIES):
            upper = np.where(held, asked.upper, wanted.upper)
            under = replace(self._bounded(limits, wanted, plain, upper), alarms=alarms, without=without)
            risen = under.allocation.want > asked.upper + TELLING
            missed = self._terms.missed(limits, under.allocation.want) if risen.any() else risen
            if not missed.any():
                return under
            held |= missed if (missed & ~held).any() else risen
        return replace(self._bounded(limits, wanted, plain, asked.upper), alarms=alarms, without=without)

    def _bounded(self, limits: Limits, wanted: Demands, plain: Allocation, upper: Floats) -> UnderTerms:
        """Shared out with nobody above ``upper`` (n,); the next tick's plain shares start where this one's ended."""
        demands = replace(wanted, upper=upper, target=np.minimum(wanted.target, upper))
        allocation = self._allocator.allocate(limits, demands, plain.warm)
        return UnderTerms(demands=demands, allocation=replace(allocation, warm=plain.warm))

    def explain(self, under: UnderTerms, limits: Limits, wanted: Demands) -> Allocation:
        """The allocation with what holds each EVSE, and with the prices of limits that hold somebody.

        The terms' answer keeps to the rows as well, so the allocation, which is given it as a bound, finds those whom
        they hold at their bound and no limit to name.

        Args:
            under: what was shared out.
            limits: under which it was.
            wanted: what was asked for before the terms.
        """
        if under.without is None:
            return under.allocation
        held = under.demands.upper < under.without - NOTICED
        upper = np.where(held, under.demands.upper, wanted.upper)
        beside = self._continuous.allocate(
            limits, replace(wanted, upper=upper, target=np.minimum(wanted.target, upper))
        )
        binding = np.where(held, BY_TERMS, beside.binding_limit)
        return replace(under.allocation, binding_limit=binding, price=beside.price)
