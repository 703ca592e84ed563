"""Who is on under users' terms: found in few solves, for a site of any size.

A term says nothing about how it was made, so whether some minima fit together is asked of the solver. One answer costs
milliseconds, so a class asks at most 3 + log2(n) + 2 ``TRIES`` times, and once where all fit:

1. the minima that the rows admit, in the order of service (``pilots.choose_on``, no solve);
2. the longest beginning of that order whose minima the terms admit too, by bisection;
3. of the rest, as much of all minima as fits beside them, in one linear program: who gets his whole minimum is on;
4. those before, beside or between these who did not, one after the other, as long as tries are left.

So nobody is passed over for one behind him whom step 3 alone lets in unless the tries are used up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from powerd.allocation.demands import Demands
from powerd.allocation.guard_kernels import overdrawn_limits, under_limits
from powerd.allocation.pilots import choose_on
from powerd.allocation.rows import Rows, add_flow
from powerd.limits import Floats, Ints

if TYPE_CHECKING:
    from powerd.allocation.user_program import UserProgram

LEEWAY = 1e-7
"""Share by which an answer of the solver may miss a bound that it meets exactly."""
TRIES = 8
"""Cars that are tried one by one in a class and a tick."""
WHOLE = 1e-6
"""Share of a minimum that a solver's answer may miss."""
PREFERENCE = 0.1
"""How much more an ampere of the first in the order is worth than one of the last, in the linear program."""


@dataclass(frozen=True, eq=False)
class Found:
    """The cars of a class that are on."""

    on: Ints
    """EVSEs whose minima the terms admit together."""
    unsure: bool = False
    """Nobody is on, and it is not proven that nobody could be."""


@dataclass(frozen=True)
class Beside:
    """Who could join those that are on."""

    whole: frozenset[int]
    """EVSEs that can have their minimum, all these together."""
    some: bool
    """Whether one more might; False is proven."""


@dataclass(eq=False)
class Search:
    """One class in one tick. The ceilings of the higher classes stand; those of the lower ones are still open.

    A term may ask for something of a lower class, as ``ceiling[0] >= 16``: with it at 0 nothing would meet that.
    """

    program: UserProgram
    settled: Floats
    """(n,) ceilings of the higher classes [own unit]."""
    upper: Floats
    """(n,) the most that each car can take [own unit]."""
    minimum: Floats
    """(n,) smallest ceiling above 0, on a pilot step [own unit]."""
    later: Ints
    """EVSEs of the lower classes."""
    proven: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The last set that the terms were seen to admit with everybody else at 0."""

    def bounds(self, on: Ints, rising: Ints) -> tuple[Floats, Floats]:
        """(n,) bounds with ``on`` at their minimum at least, ``rising`` anywhere below their upper bound."""
        lower, upper = self.settled.copy(), self.settled.copy()
        lower[on] = self.minimum[on]
        upper[self.later] = self.upper[self.later]
        upper[on], upper[rising] = self.upper[on], self.upper[rising]
        return lower, upper

    def share(self, on: Ints, weight: Floats) -> Floats | None:
        """(n,) ceilings with ``on`` at their minimum at least, others of the class at 0; None where none meet that."""
        if not on.shape[0]:
            return self.settled
        members = np.zeros(weight.shape[0], dtype=np.bool_)
        members[on] = True
        lower, upper = self.bounds(on, on[:0])
        found = self.program.share(members, lower, upper, weight)
        if found is None:
            return None
        # A bound that the solver meets up to its tolerance is met: below a step by a rounding is a step less.
        return np.where(members, np.clip(found * (1.0 + LEEWAY) + LEEWAY, lower, upper), self.settled)

    def _admits(self, on: Ints) -> bool:
        """Whether the terms and rows admit these minima while everybody else of the class is at 0."""
        nothing = np.zeros_like(self.settled)
        admitted = self.program.minima_met(*self.bounds(on, on[:0]), nothing, nothing) is not None
        self.proven = on if admitted else self.proven
        return admitted

    def _beginning(self, order: Ints) -> int:
        """How many of ``order``, from the first on, the terms admit; not all of them."""
        most, too_many = 0, order.shape[0]
        while too_many - most > 1:
            middle = (most + too_many) // 2
            if self._admits(order[:middle]):
                most = middle
            else:
                too_many = middle
        return most

    def _beside(self, on: Ints, rest: Ints) -> Beside | None:
        """Who of ``rest`` can have his minimum beside ``on``; None where the terms cannot be met at all."""
        worth, minimum = np.zeros_like(self.settled), np.zeros_like(self.settled)
        worth[rest] = np.linspace(1.0 + PREFERENCE, 1.0, rest.shape[0])
        minimum[rest] = self.minimum[rest]
        met = self.program.minima_met(*self.bounds(on, rest), minimum, worth)
        if met is None:
            return None
        # One car alone at its minimum would be worth so much: less in all, and none fits.
        one = float((worth * minimum)[rest].min(initial=np.inf))
        whole = met[rest] >= self.minimum[rest] * (1.0 - WHOLE)
        return Beside(frozenset(rest[whole].tolist()), float(worth @ met) >= one * (1.0 - WHOLE))

    def run(self, order: Ints) -> Found | None:
        """Who of ``order`` (first served first) is on; None where no ceilings at all meet the terms."""
        if self._admits(order):
            return Found(order)
        count = self._beginning(order)
        return self._fill(order[:count], order[count + 1 :])

    def _fill(self, on: Ints, rest: Ints) -> Found | None:
        """Steps 3 and 4."""
        beside = self._beside(on, rest)
        if beside is None:
            return None
        tries = TRIES if beside.some else 0
        untried = False
        for place, i in enumerate(rest):
            if i in beside.whole:
                on = np.append(on, i)
            elif tries > 0 and self._admits(np.append(on, i)):
                on, tries = np.append(on, i), tries - 1
                beside = self._beside(on, rest[place + 1 :]) or beside
            else:
                untried |= tries == 0 and beside.some
                tries = max(tries - 1, 0)
        return Found(on, unsure=untried and on.shape[0] == 0)


def admitted_by_rows(rows: Rows, room: Floats, settled: Floats, order: Ints, demands: Demands) -> Ints:
    """Those of ``order`` whose minima fit the rows (headroom ``room`` (m,)), each beside those before it.

    The rows hold the higher classes' ceilings ``settled`` (n,), and what is reserved of everybody anyway.
    """
    columns, limit_of_row = rows.columns, rows.limit_of_row
    floor = np.array(demands.floor)
    real, imag = np.zeros(rows.row_count), np.zeros(rows.row_count)
    add_flow(columns, floor, real, imag)
    over = overdrawn_limits(limit_of_row, room, int(demands.uncontrolled.shape[0]), real, imag)
    if over.any():  # as in the ledger: there the limit is obeyed with live ceilings
        floor = np.where(under_limits(columns, limit_of_row, over), demands.silent, floor)
    real, imag = np.zeros(rows.row_count), np.zeros(rows.row_count)
    add_flow(columns, np.maximum(settled, floor), real, imag)
    overdue = np.array(demands.overdue)
    needed = np.maximum(demands.minimum, demands.opens)
    on = choose_on(columns, room, order, needed, floor, overdue, real, imag)
    chosen: Ints = order[on[order]]
    return chosen
