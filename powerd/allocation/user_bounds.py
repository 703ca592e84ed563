"""What users' functions yield, checked, and in a form in which a part of it can be left out of a tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from powerd.allocation.user_code import UserCode
from powerd.allocation.user_terms import Source, UserSite
from powerd.errors import NotDpp
from powerd.limits import Bools, Floats


@dataclass(frozen=True, eq=False)
class UserBound:
    """A user's inequality or equality as excess <= loose, element by element (k of them); n EVSEs."""

    place: str
    """The file, the line and the number of the term."""
    excess: Any
    """(k,) cvxpy: left minus right, of an equality its size."""
    loose: Any
    """(k,) parameter: 0 = the element holds."""
    slack: Any
    """(k,) variable: by how much the element cannot be met."""
    members: Bools
    """(k, n) the EVSEs that are in an element; all where that is not known."""
    reach: Floats
    """(k,) from its smallest to its largest value, ceilings between 0 and the ratings; 0 where that is not known."""

    def above(self) -> Floats:
        """(k,) by how much each element is not met, at the values that the variables have.

        Raises:
            ValueError: a parameter has no value, or none that is a number.
        """
        value = np.asarray(self.excess.value, dtype=np.float64)  # None becomes nan
        if np.isnan(value).any():
            raise ValueError("a parameter has no value")
        above: Floats = np.maximum(value - self.loose.value, 0.0)
        return above

    def leave_out(self, chosen: Bools, over: Floats) -> None:
        """Loosen the chosen elements, which are met up to ``over`` (k,), so far that they hold nobody."""
        self.loose.value = np.where(chosen, self.loose.value + 1.001 * over + self.reach, self.loose.value)


@dataclass(frozen=True, eq=False)
class UserPart:
    """All that the users' functions yield for one set of rows."""

    bounds: tuple[UserBound, ...]
    """Inequalities and equalities."""
    cones: tuple[Any, ...]
    """Constraints of any other form: they hold, or all terms are left out."""
    utility: Any
    """The sum of the expressions."""
    has_utility: bool
    """Whether there are any."""
    variables: tuple[Any, ...]
    """Their own."""


def part_of_users(sources: Sequence[Source], site: UserSite) -> UserPart:
    """Ask all functions.

    Raises:
        NotDpp: a term is not convex, is about nobody, has a parameter without a value, or an integer variable.
        UnreadableInput: a function fails.
    """
    bounds: list[UserBound] = []
    cones: list[Any] = []
    utility: list[Any] = []
    own: dict[int, Any] = {}
    for source in sources:
        for number, (line, term) in enumerate(_terms_of(source, site), start=1):
            place = f"{source.name}:{line}: term {number}"
            with UserCode([source.file], f"term {number} cannot be used", f"{source.name}:{line}"):
                _check(place, term)
                members = _members(term, site)
                if not members.any():
                    raise NotDpp(f"{place} is about no post: are the ids those of the site? {term}")
                if isinstance(term, cp.Expression):
                    utility.append(term)
                elif isinstance(term, (cp.constraints.Inequality, cp.constraints.Equality)) and term.is_real():
                    bounds.append(_bound(place, term, members, site))
                else:
                    cones.append(term)
                own |= {one.id: one for one in term.variables() if one is not site.ceiling}
    return UserPart(tuple(bounds), tuple(cones), sum(utility), bool(utility), tuple(own.values()))


def _terms_of(source: Source, site: UserSite) -> list[tuple[int, Any]]:
    """(line, term): what somebody's function yields for this site, and where.

    Raises:
        UnreadableInput: it fails, or yields nothing that can be gone through.
    """
    with UserCode([source.file], "terms(site) fails", f"{source.name}:{source.line}"):
        given = source.terms(site)
        frame = getattr(given, "gi_frame", None)  # a generator stands at its yield
        return [(source.line if frame is None else frame.f_lineno, term) for term in given]


def _check(place: str, term: Any) -> None:
    """A term must be convex, its parameters must have values and enter affinely.

    Raises:
        NotDpp: it is not; names the place.
    """
    if isinstance(term, cp.Constraint):
        good, kind = term.is_dcp(dpp=True), "a convex constraint"
    elif isinstance(term, cp.Expression):
        good, kind = term.is_scalar() and term.is_concave() and term.is_dpp("dcp"), "a concave number to maximise"
    else:
        raise NotDpp(f"{place} is {term!r}, neither a cvxpy constraint nor an expression")
    if not good:
        raise NotDpp(f"{place} is not {kind} with parameters that enter affinely: {term}")
    if any(one.attributes["boolean"] or one.attributes["integer"] for one in term.variables()):
        raise NotDpp(f"{place} has a variable of whole numbers, which a convex program cannot have: {term}")
    for leaf in (*term.parameters(), *term.constants()):
        if leaf.value is None:
            raise NotDpp(f"{place} has a parameter without a value, {leaf.name()}: give it one where it is made")
        value = leaf.value.data if sp.issparse(leaf.value) else leaf.value
        if np.isnan(np.asarray(value, dtype=np.complex128)).any():
            raise NotDpp(f"{place} has a number that is none (nan): {term}")


def _slope(expression: Any, site: UserSite) -> Floats | None:
    """(k, n) by how much each element grows with each ceiling; None where that depends on the ceilings or is not told.

    An expression of several variables is not asked: the others have no values.
    """
    if not expression.is_affine() or any(one is not site.ceiling for one in expression.variables()):
        return None
    if not expression.variables():
        return np.zeros((expression.size, len(site.evse_ids)))
    site.ceiling.value = site.rating
    slope = expression.grad[site.ceiling]
    dense = slope.toarray() if sp.issparse(slope) else np.asarray(slope)
    found: Floats = np.real(dense).reshape(len(site.evse_ids), expression.size).T
    return found


def _members(term: Any, site: UserSite) -> Bools:
    """(k, n) as in ``UserBound``; in one line for what is no inequality or equality."""
    told = isinstance(term, (cp.constraints.Inequality, cp.constraints.Equality))
    slope = _slope(term.expr if told else term, site) if told or isinstance(term, cp.Expression) else None
    count = term.expr.size if told else 1
    return np.ones((count, len(site.evse_ids)), dtype=np.bool_) if slope is None else slope != 0.0


def _bound(place: str, term: Any, members: Bools, site: UserSite) -> UserBound:
    """An inequality or equality in the form that can be left out."""
    slope = _slope(term.expr, site)
    excess = cp.vec(term.expr, order="F")
    return UserBound(
        place=place,
        excess=cp.abs(excess) if isinstance(term, cp.constraints.Equality) else excess,
        loose=cp.Parameter(excess.size, nonneg=True, value=np.zeros(excess.size)),
        slack=cp.Variable(excess.size, nonneg=True),
        members=members,
        reach=np.zeros(excess.size) if slope is None else np.abs(slope) @ site.rating,
    )
