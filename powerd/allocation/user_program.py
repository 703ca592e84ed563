"""The convex program with users' terms, compiled once per set of rows; see ``user_terms``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from powerd.allocation import terms
from powerd.allocation.problem import part_of
from powerd.allocation.rows import Rows
from powerd.allocation.user_terms import FAILS, Source, UserSite
from powerd.errors import NotDpp, UnreadableInput
from powerd.limits import Bools, Floats, Posts

SOLVER_SHARE = 1e-6
"""Share of a lower bound that the solver may go below: what meets a constraint exactly has an interior then."""


class UserProgram:
    """(U) of ``user_terms`` for one set of rows, and how much of everybody's minimum the same constraints admit.

    Raises:
        NotDpp: at build, if a term is not convex or its parameters do not enter affinely.
        UnreadableInput: at build, if a user's function fails.
    """

    def __init__(self, rows: Rows, posts: Posts, sources: Sequence[Source]) -> None:
        count, cone = posts.count, rows.is_cone
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
        users: Any = 0.0
        site = UserSite(evse_ids=posts.ids, ceiling=self._x, rating=posts.max_ceiling)
        for source in sources:
            for number, term in enumerate(_terms_of(source, site), start=1):
                _check(source, number, term)
                if isinstance(term, cp.Constraint):
                    limits.append(term)
                else:
                    users = users + term
        self._fair = self._sharing(users, limits)
        self._most = self._counting(limits)

    def _sharing(self, users: Any, limits: list[Any]) -> Any:
        """(U)."""
        charging = cp.Variable(self._x.size)  # who is idle has x = 0 and weight 0: his logarithm is taken of 1
        utility: Any = terms.proportional_fairness(charging, self._weight) + users
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

    def enter(self, room: Floats) -> None:
        """What follows is about rows with this headroom (m,) [limit unit]."""
        self._linear.value, self._phasor.value = room[~self._cone], room[self._cone]

    def share(self, members: Bools, lower: Floats, upper: Floats, weight: Floats) -> Floats | None:
        """(n,) ceilings of (U) between the bounds, ``members`` alone having a weight; None where there are none."""
        self._weight.value = np.where(members, weight, 0.0) / weight[members].max()
        self._idle.value = np.where(members, 0.0, 1.0)
        return self._solved(self._fair, self._x, lower, upper)

    def minima_met(self, lower: Floats, upper: Floats, minimum: Floats, worth: Floats) -> Floats | None:
        """(n,) how much of each ``minimum`` the constraints admit between the bounds, as much as ``worth`` makes of it.

        None where no ceilings between the bounds meet the constraints.
        """
        self._minimum.value, self._worth.value = minimum, worth
        return self._solved(self._most, self._met, lower, upper)

    def _solved(self, problem: Any, variable: Any, lower: Floats, upper: Floats) -> Floats | None:
        self._lower.value, self._upper.value = lower * (1.0 - SOLVER_SHARE), upper
        try:
            problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9)
        except cp.SolverError:
            return None
        found: Floats | None = variable.value
        return found if problem.status == cp.OPTIMAL else None


def _terms_of(source: Source, site: UserSite) -> list[Any]:
    """What somebody's function yields for this site.

    Raises:
        UnreadableInput: it fails, or yields nothing that can be gone through.
    """
    try:
        return list(source.terms(site))
    except FAILS as error:
        raise UnreadableInput(f"{source.name}: terms(site) fails: {type(error).__name__}: {error}") from error


def _check(source: Source, number: int, term: Any) -> None:
    """A term must be convex, and its parameters must enter affinely.

    Raises:
        NotDpp: it is not; names the source and the term.
    """
    where = f"{source.name}: term {number}"
    if isinstance(term, cp.Constraint):
        good, kind = term.is_dcp(dpp=True), "a convex constraint"
    elif isinstance(term, cp.Expression):
        good, kind = term.is_scalar() and term.is_concave() and term.is_dpp("dcp"), "a concave number to maximise"
    else:
        raise NotDpp(f"{where} is {term!r}, neither a cvxpy constraint nor an expression")
    if not good:
        raise NotDpp(f"{where} is not {kind} with parameters that enter affinely: {term}")
