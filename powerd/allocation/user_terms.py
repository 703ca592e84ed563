"""Terms that users bring: a Python file or an installed package adds constraints or utility, within the limits.

A file (site file: ``terms: [my_terms.py]``) or an entry point of the group ``powerd.terms`` is a function

    def terms(site: UserSite) -> Iterable[cvxpy constraint or concave cvxpy expression]

It is called once for each set of rows; what it yields joins

    maximise sum_i weight_i log x_i + the user's expressions
    subject to the rows of the limits, 0 <= x_i <= upper_i, and the user's constraints                             (U)

which is compiled once (disciplined parametrised programming) and solved for one priority class after the other. The
answer bounds ``Demands.upper``: minima, classes, pilot steps, grants and the guard come after it and only go below. So
a term can take, and never give beyond a limit.
"""

from __future__ import annotations

import runpy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from powerd.allocation.demands import Demands
from powerd.allocation.rows import Rows, fresh, headroom_of, rows_of
from powerd.allocation.user_service import TRIES, Search, admitted_by_rows
from powerd.errors import UnreadableInput
from powerd.limits import Floats, Ints, Limits, Posts

if TYPE_CHECKING:
    from powerd.allocation.user_program import UserProgram

GROUP = "powerd.terms"
"""Entry points that are asked for terms."""
KEPT = 16
"""How many switching states stay compiled."""
FAILS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""With what a program of somebody else's fails."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UserSite:
    """What a term is made of; n EVSEs."""

    evse_ids: tuple[str, ...]
    """Their ids, in the order of ``ceiling``."""
    ceiling: Any
    """cvxpy variable (n,): the ceilings [A per phase; DC: kW]."""
    rating: Floats
    """(n,) largest ceiling of each post [own unit]."""


Terms = Callable[[UserSite], Iterable[Any]]


@dataclass(frozen=True)
class Source:
    """Somebody's function."""

    name: str
    """The file or the entry point, for messages."""
    terms: Terms


def find_sources(files: Sequence[str]) -> tuple[Source, ...]:
    """The functions of the files and of all installed entry points.

    Raises:
        UnreadableInput: one cannot be run or loaded, or has no function ``terms``.
    """
    return (*(source_in(Path(name)) for name in files), *installed_sources())


def installed_sources() -> tuple[Source, ...]:
    """The functions of all installed entry points.

    Raises:
        UnreadableInput: one cannot be loaded.
    """
    return tuple(_load(point) for point in entry_points(group=GROUP))


def _load(point: EntryPoint) -> Source:
    name = f"{point.name} ({point.value})"
    try:
        return Source(name, point.load())
    except FAILS as error:
        raise UnreadableInput(f"{name}: cannot be loaded: {type(error).__name__}: {error}") from error


def source_in(path: Path) -> Source:
    """The function of one file.

    Raises:
        UnreadableInput: it cannot be run, or has no function ``terms``.
    """
    try:
        function = runpy.run_path(str(path)).get("terms")
    except FAILS as error:
        raise UnreadableInput(f"{path}: cannot be run: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise UnreadableInput(f"{path}: has no function terms(site)")
    return Source(str(path), function)


class UserTerms:
    """Bounds demands by the users' terms; compiled once per set of rows.

    Args:
        posts: the EVSEs.
        sources: whose terms.
    """

    def __init__(self, posts: Posts, sources: Sequence[Source]) -> None:
        self._posts, self._sources = posts, tuple(sources)
        self._compiled: OrderedDict[int, tuple[Rows, UserProgram]] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        """Whose terms, for people: files without their folders, and entry points."""
        return tuple(Path(source.name).name for source in self._sources)

    def compile(self, limits: Limits) -> None:
        """Compiles the program of these rows now rather than in a tick.

        Raises:
            NotDpp: a term is not convex or its parameters do not enter affinely; names file and term.
            UnreadableInput: a function fails.
        """
        if self._sources:
            self._program(rows_of(limits))

    def bound(self, limits: Limits, demands: Demands) -> tuple[Demands, tuple[str, ...]]:
        """Demands that ask for no more than the terms leave; and an alarm where the terms have no answer.

        Where no ceilings meet the terms they are left out of this tick: what is safe does not hang on them.
        """
        if not self._sources:
            return demands, ()
        rows = rows_of(limits)
        room = headroom_of(rows.limit_of_row, fresh(limits.capacity), fresh(demands.uncontrolled))
        program = self._program(rows)
        program.enter(room)
        upper = np.where(limits.energized & (demands.upper >= demands.minimum), np.maximum(demands.upper, 0.0), 0.0)
        x = np.zeros(upper.shape[0])
        names = ", ".join(source.name for source in self._sources)
        alarms: list[str] = []
        served = demands.order[upper[demands.order] > 0.0]
        for priority in np.unique(demands.priority[served])[::-1]:
            order = served[demands.priority[served] == priority]
            search = Search(program=program, settled=x, upper=upper, minimum=demands.minimum)
            found = self._class(search, admitted_by_rows(rows, room, x, order, demands), demands)
            if found is None:
                return demands, (f"no ceilings meet the terms of {names}: they are left out",)
            x, unsure = found
            if unsure:
                alarms.append(
                    f"under the terms of {names} nobody of priority {priority} was found who can charge: "
                    f"{TRIES} of {order.shape[0]} cars were tried one by one"
                )
        return replace(demands, upper=np.minimum(demands.upper, x), target=np.minimum(demands.target, x)), tuple(alarms)

    def _class(self, search: Search, order: Ints, demands: Demands) -> tuple[Floats, bool] | None:
        """(n,) ceilings with this class, and whether it is at 0 without a proof; None where none meet the terms."""
        if not order.shape[0]:
            return search.settled, False
        x = search.share(order, demands.weight)
        if x is not None:
            return x, False
        found = search.run(order)
        if found is None:
            return None
        if not found.on.shape[0]:
            return search.settled, found.unsure
        x = search.share(found.on, demands.weight)
        if x is None:  # what fits beside somebody may not fit without him, where a term asks for more of one
            x = search.share(search.proven, demands.weight)
        return None if x is None else (x, False)

    def _program(self, rows: Rows) -> UserProgram:
        from powerd.allocation.user_program import UserProgram  # cvxpy takes a second to import: only for those who ask

        kept = self._compiled.get(id(rows))
        if kept is None:
            kept = (
                rows,
                UserProgram(rows, self._posts, self._sources),
            )  # held: their id may not come again
            self._compiled[id(rows)] = kept
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        return kept[1]
