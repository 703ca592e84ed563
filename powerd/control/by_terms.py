"""Whom the users' terms hold back: who would be granted more if there were none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.allocation.allocate import Allocation, Allocator
from powerd.allocation.demands import Demands
from powerd.allocation.max_min import MaxMinSolver
from powerd.control.decision import BY_TERMS
from powerd.limits import Limits, Posts

NOTICED = 0.05
"""Whoever would be granted no more than this more without the terms is not held by them [own unit]."""


class WithoutTerms:
    """What the limits alone would leave. It explains a tick and decides nothing in it.

    Args:
        posts: the EVSEs. Their pilot steps are left out: of a sum that is stepped down nobody is held by a term.
        max_min: how the site shares.
    """

    def __init__(self, posts: Posts, *, max_min: bool) -> None:
        continuous = replace(posts, pilot_steps=tuple(np.zeros(0) for _ in posts.ids))
        self._allocator = Allocator(continuous, MaxMinSolver() if max_min else None)

    def explain(self, allocation: Allocation, limits: Limits, wanted: Demands, asked: Demands) -> Allocation:
        """The allocation with what holds each EVSE, and with the prices of limits that hold somebody.

        The terms' answer keeps to the rows as well, so the allocation, which is given it as a bound, finds everybody
        at his bound and no limit to name.

        Args:
            allocation: what was made of ``asked``.
            limits: under which it was made.
            wanted: what was asked for before the terms.
            asked: what they left of it.
        """
        if not bool(np.any(asked.upper < wanted.upper - NOTICED)):
            return allocation
        held = asked.upper < self._allocator.allocate(limits, wanted).want - NOTICED
        upper = np.where(held, asked.upper, wanted.upper)
        beside = self._allocator.allocate(limits, replace(wanted, upper=upper, target=np.minimum(wanted.target, upper)))
        return replace(allocation, binding_limit=np.where(held, BY_TERMS, beside.binding_limit), price=beside.price)
