"""The convex program with users' terms, compiled once per set of rows; see ``user_terms``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from powerd.allocation import terms
from powerd.allocation.demands import Demands
from powerd.allocation.problem import part_of
from powerd.allocation.rows import Rows
from powerd.allocation.user_terms import FAILS, Source, UserSite
from powerd.errors import NotDpp, UnreadableInput
from powerd.limits import Bools, Floats, Posts


class UserProgram:
    """(U) of ``user_terms`` for one set of rows.

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
        # Who is idle has x = 0 and weight 0: his logarithm is taken of 1.
        charging = cp.Variable(count)
        utility: Any = terms.proportional_fairness(charging, self._weight)
        limits: list[Any] = [
            charging == self._x + self._idle,
            terms.at_least(self._x, self._lower),
            terms.at_most(self._x, self._upper),
        ]
        nothing = np.zeros(rows.row_count)
        if not cone.all():
            real = part_of(rows, rows.columns.real, ~cone)
            limits.append(terms.linear_rows(real, self._x, nothing[~cone], self._linear))
        if cone.any():
            real, imag = (part_of(rows, part, cone) for part in (rows.columns.real, rows.columns.imag))
            limits.append(terms.phasor_rows(real, imag, self._x, nothing[cone], nothing[cone], self._phasor))
        site = UserSite(evse_ids=posts.ids, ceiling=self._x, rating=posts.max_ceiling)
        for source in sources:
            for number, term in enumerate(_terms_of(source, site), start=1):
                _check(source, number, term)
                if isinstance(term, cp.Constraint):
                    limits.append(term)
                else:
                    utility = utility + term
        self._problem = cp.Problem(cp.Maximize(utility), limits)
        if not self._problem.is_dpp():
            raise NotDpp("the program with the users' terms has parameters that do not enter affinely")

    def solve(self, room: Floats, upper: Floats, demands: Demands) -> Floats | None:
        """(n,) ceilings, class after class; None where there are none."""
        self._linear.value, self._phasor.value = room[~self._cone], room[self._cone]
        x = np.zeros(upper.shape[0])
        for priority in np.unique(demands.priority[upper > 0.0])[::-1]:
            members = (demands.priority == priority) & (upper > 0.0)
            found = self._solve_class(members, x, np.where(members, upper, x), demands.weight)
            if found is None:
                return None
            x = np.where(members, np.clip(found, 0.0, upper), x)
        return x

    def _solve_class(self, members: Bools, lower: Floats, upper: Floats, weight: Floats) -> Floats | None:
        self._weight.value = np.where(members, weight, 0.0) / weight[members].max()
        self._idle.value = np.where(members, 0.0, 1.0)
        self._lower.value, self._upper.value = lower * (1.0 - 1e-6), upper
        try:
            self._problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9)
        except cp.SolverError:
            return None
        return self._x.value if self._problem.status == cp.OPTIMAL else None


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
