"""The convex program with users' terms, compiled once per set of rows; see ``user_terms``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from powerd.allocation import terms
from powerd.allocation.problem import part_of
from powerd.allocation.rows import Rows
from powerd.allocation.user_bounds import part_of_users
from powerd.allocation.user_code import UserCode
from powerd.allocation.user_terms import Source, UserSite
from powerd.errors import NotDpp
from powerd.limits import Bools, Floats, Posts

SOLVER_SHARE = 1e-6
"""Share of a lower bound that the solver may go below: what meets a constraint exactly has an interior then."""
MET = 1e-5
"""A term is met by ceilings that miss it by no more [its own unit]; ceilings are exact to 1e-6."""
NEARLY_A = 1e-3
"""The same of terms that only a solve can judge: by ceilings no further from some that meet them [own unit]."""
SURE = (cp.OPTIMAL, cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE)
"""Answers that say something about the terms; all others are about the solver."""


class UserProgram:
    """(U) of ``user_terms`` for one set of rows, and how much of everybody's minimum the same constraints admit.

    Raises:
        NotDpp: at build, if a term is not convex or its parameters do not enter affinely.
        UnreadableInput: at build and in every question, if what a user wrote fails.
    """

    def __init__(self, rows: Rows, posts: Posts, sources: Sequence[Source]) -> None:
        count, cone = posts.count, rows.is_cone
        self._files = tuple(source.file for source in sources)
        self._cone = cone
        self._x = cp.Variable(count)
        self._weight, self._idle = cp.Parameter(count, nonneg=True), cp.Parameter(count, nonneg=True)
        self._lower, self._upper = cp.Parameter(count), cp.Parameter(count)
        self._linear, self._phasor = cp.Parameter(int((~cone).sum())), cp.Parameter(int(cone.sum()))
        limits: list[Any] = [terms.at_least(self._x, self._lower), terms.at_most(self._x, self._upper)]
        nothing = np.zeros(rows.row_count)
        if not cone.all():
            real = part_of(rows, rows.columns.real, ~cone)
            limits.append(terms.linear_rows(real, self._x, nothing[~cone], self._linear))
        if cone.any():
            real, imag = (part_of(rows, part, cone) for part in (rows.columns.real, rows.columns.imag))
            limits.append(terms.phasor_rows(real, imag, self._x, nothing[cone], nothing[cone], self._phasor))
        self._users = part_of_users(sources, UserSite(evse_ids=posts.ids, ceiling=self._x, rating=posts.max_ceiling))
        limits += self._users.cones
        held = [*limits, *(one.excess <= one.loose for one in self._users.bounds)]
        self._fair, self._most, self._least = self._sharing(held), self._counting(held), self._loosening(limits)
        self.left_out: list[str] = []
        """Terms of which a part is left out, since ``enter``."""
        self.unsure = ""
        """What the solver said last, if it was no answer, since ``enter``."""

    def _sharing(self, limits: list[Any]) -> Any:
        """(U)."""
        charging = cp.Variable(self._x.size)  # who is idle has weight 0, and may have x = 0: his logarithm is of x + 1
        utility: Any = terms.proportional_fairness(charging, self._weight) + self._users.utility
        problem = cp.Problem(cp.Maximize(utility), [charging == self._x + self._idle, *limits])
        if not problem.is_dpp():
            raise NotDpp("the program with the users' terms has parameters that do not enter affinely")
        return problem

    def _counting(self, limits: list[Any]) -> Any:
        """maximise sum_i worth_i met_i, met_i <= x_i and minimum_i, subject to the constraints of (U)."""
        self._met = cp.Variable(self._x.size)
        self._worth, self._minimum = cp.Parameter(self._x.size, nonneg=True), cp.Parameter(self._x.size)
        counted = [self._met <= self._x, self._met <= self._minimum]
        return cp.Problem(cp.Maximize(self._worth @ self._met), [*counted, *limits])

    def _loosening(self, limits: list[Any]) -> Any:
        """minimise by how much the users' bounds are missed in all, subject to all else."""
        bounds = self._users.bounds
        missed: Any = sum((cp.sum(one.slack) for one in bounds), cp.Constant(0.0))
        return cp.Problem(cp.Minimize(missed), [*limits, *(one.excess <= one.loose + one.slack for one in bounds)])

    def enter(self, room: Floats, upper: Floats) -> None:
        """What follows is about rows with headroom ``room`` (m,) and cars that can take ``upper`` (n,).

        A bound on posts of which none can be given anything says nothing, even where it wants more than 0.
        """
        self._linear.value, self._phasor.value = room[~self._cone], room[self._cone]
        self.left_out, self.unsure = [], ""
        self._x.value = np.zeros(self._x.size)
        for one in self._users.bounds:
            one.loose.value = np.zeros(one.loose.size)
            off: Bools = ~np.any(one.members[:, upper > 0.0], axis=1, keepdims=False)
            if off.any():
                with UserCode(self._files, "its terms cannot be reckoned"):
                    one.leave_out(off, one.above())

    def meets(self, x: Floats) -> bool:
        """Whether ceilings (n,) meet all constraints of the users; the limits are not asked."""
        if not self._users.variables:
            return not self.missed(x).any()
        near = np.maximum(x - NEARLY_A, 0.0), x + NEARLY_A
        return self.minima_met(*near, np.zeros_like(x), np.zeros_like(x)) is not None

    def missed(self, x: Floats) -> Bools:
        """(n,) the EVSEs in constraints that ceilings ``x`` (n,) do not meet; all where it is not known."""
        if self._users.variables:
            return np.full(x.shape[0], not self.meets(x))
        self._x.value = x
        found = np.zeros(x.shape[0], dtype=np.bool_)
        with UserCode(self._files, "its terms cannot be reckoned"):
            for one in self._users.bounds:
                found |= one.members[one.above() > MET].any(axis=0)
            for cone in self._users.cones:
                found |= bool(np.any(cone.violation() > MET))
        return found

    @property
    def has_utility(self) -> bool:
        """Whether the users want something else than the fairest ceilings that meet their constraints."""
        return self._users.has_utility

    def share(self, members: Bools, lower: Floats, upper: Floats, weight: Floats) -> Floats | None:
        """(n,) ceilings of (U) between the bounds, ``members`` alone having a weight; None where there are none."""
        self._weigh(members, weight)
        return self._solved(self._fair, self._x, lower, upper)

    def _weigh(self, members: Bools, weight: Floats) -> None:
        self._weight.value = np.where(members, weight, 0.0) / weight[members].max()
        self._idle.value = np.where(members, 0.0, 1.0)

    def minima_met(self, lower: Floats, upper: Floats, minimum: Floats, worth: Floats) -> Floats | None:
        """(n,) how much of each ``minimum`` the constraints admit between the bounds, as much as ``worth`` makes of it.

        None where no ceilings between the bounds meet the constraints.
        """
        self._minimum.value, self._worth.value = minimum, worth
        return self._solved(self._most, self._met, lower, upper)

    def loosen(self, lower: Floats, upper: Floats) -> bool:
        """Leave out those users' bounds that no ceilings between the bounds meet; whether there are any."""
        if not self._users.bounds or self._solved(self._least, self._x, lower, upper) is None:
            return False
        before = len(self.left_out)
        for one in self._users.bounds:
            over = np.asarray(one.slack.value, dtype=np.float64)
            if (over > MET).any():
                one.leave_out(over > MET, over)
                self.left_out.append(one.place)
        return len(self.left_out) > before

    def try_out(self, rating: Floats, room: Floats) -> None:
        """Solve once, a car at each post and limits that hold nobody.

        Raises:
            NotDpp: there is no answer, so there will be none in a tick.
        """
        self.enter(room, rating)
        self._weigh(rating > 0.0, np.ones(rating.shape[0]))
        status = self._status(self._fair, np.zeros(rating.shape[0]), rating)
        if status == cp.OPTIMAL:
            return
        where = ", ".join(self._files)
        if status in SURE:
            raise NotDpp(f"{where}: no ceilings up to the posts' ratings meet all terms: do two exclude each other?")
        if status in (cp.UNBOUNDED, cp.UNBOUNDED_INACCURATE):
            raise NotDpp(f"{where}: the expressions grow without end: bound every variable of your own")
        raise NotDpp(f"{where}: the solver finds no answer ({status}): keep the factors between 1e-4 and 1e4")

    def _solved(self, problem: Any, variable: Any, lower: Floats, upper: Floats) -> Floats | None:
        status = self._status(problem, lower, upper)
        self.unsure = self.unsure if status in SURE else status
        found: Floats | None = variable.value
        return found if status == cp.OPTIMAL else None

    def _status(self, problem: Any, lower: Floats, upper: Floats) -> str:
        """Solve; what cvxpy says of it."""
        self._lower.value, self._upper.value = lower * (1.0 - SOLVER_SHARE), upper
        with UserCode(self._files, "its terms cannot be solved"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": the status says so too
                    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9)
            except cp.SolverError:
                return str(cp.SOLVER_ERROR)
        return str(problem.status)
