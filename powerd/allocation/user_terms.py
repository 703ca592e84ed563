"""Terms that users bring: a Python file or an installed package adds constraints or utility, within the limits.

A file (site file: ``terms: [my_terms.py]``) or an entry point of the group ``powerd.terms`` is a function

    def terms(site: UserSite) -> Iterable[cvxpy constraint or concave cvxpy expression]

It is called once for each set of rows; what it yields joins

    maximise sum_i weight_i log x_i + the user's expressions
    subject to the rows of the limits, 0 <= x_i <= upper_i, and the user's constraints                             (U)

which is compiled once (disciplined parametrised programming) and solved for one priority class after the other. The
answer bounds ``Demands.upper``: minima, classes, pilot steps, grants and the guard come after it and only go below. So
a term can take, and never give beyond a limit. ``control/by_terms.py`` asks only where the terms change anything, and
bounds only those whom they hold.
"""

from __future__ import annotations

import hashlib
import runpy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from powerd.allocation.demands import Demands
from powerd.allocation.rows import Rows, headroom_of, readable, rows_of
from powerd.allocation.steps import all_up, pack_steps
from powerd.allocation.user_code import UserCode
from powerd.allocation.user_service import TRIES, Search, admitted_by_rows
from powerd.errors import UnreadableInput
from powerd.limits import Bools, Floats, Ints, Limits, Posts

if TYPE_CHECKING:
    from powerd.allocation.user_program import UserProgram

GROUP = "powerd.terms"
"""Entry points that are asked for terms."""
DIGITS = 16
"""So many of a digest are told."""
KEPT = 16
"""How many switching states stay compiled."""
SNAP_A = 1e-3
"""An answer of the solver this little below a pilot step is that step: it is off by up to 3e-4 [own unit]."""


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
    digest: str = ""
    """Of the file that it is in, and of the version of its package; "" = it is in none."""

    @property
    def file(self) -> str:
        """The file as its code calls itself; the name where it has no code of its own."""
        code = getattr(self.terms, "__code__", None)
        return self.name if code is None else str(code.co_filename)

    @property
    def line(self) -> int:
        """Where the function begins; 1 where it has no code of its own."""
        code = getattr(self.terms, "__code__", None)
        return 1 if code is None else int(code.co_firstlineno)


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


def identity_of(sources: Sequence[Source]) -> str:
    """Whose terms, and which, for others decide otherwise; where the files lie does not matter. "" = there are none."""
    return ", ".join(f"{Path(source.name).name} {source.digest[:DIGITS]}" for source in sources)


def _load(point: EntryPoint) -> Source:
    name = f"{point.name} ({point.value})"
    with UserCode([name], "cannot be loaded"):
        found = Source(name, point.load())
        file = Path(found.file)
        code = file.read_bytes() if file.is_file() else b""
    package = "" if point.dist is None else f"{point.dist.name} {point.dist.version}\n"
    return replace(found, digest=_digest(package.encode() + code))


def _digest(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def source_in(path: Path) -> Source:
    """The function of one file.

    Raises:
        UnreadableInput: it cannot be run, or has no function ``terms``.
    """
    with UserCode([str(path)], "cannot be run"):
        digest = _digest(path.read_bytes())
        function = runpy.run_path(str(path)).get("terms")
    if not callable(function):
        raise UnreadableInput(f"{path}: has no function terms(site)")
    return Source(str(path), function, digest)


def refuse_max_min(sources: Sequence[Source]) -> None:
    """A site that shares by max-min takes no terms: (U) is about the sum of weight log x, and would undo it unsaid.

    Raises:
        UnreadableInput: there are terms.
    """
    if sources:
        names = ", ".join(source.name for source in sources)
        raise UnreadableInput(
            f"{names}: terms share by the sum of weight log x, which is not fairness: max_min: take one of the two out"
        )


class UserTerms:
    """Bounds demands by the users' terms; compiled once per set of rows.

    Args:
        posts: the EVSEs.
        sources: whose terms.
    """

    def __init__(self, posts: Posts, sources: Sequence[Source]) -> None:
        self._posts, self._sources, self._steps = posts, tuple(sources), pack_steps(posts)
        self._compiled: OrderedDict[int, tuple[Rows, UserProgram]] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        """Whose terms, for people: files without their folders, and entry points."""
        return tuple(Path(source.name).name for source in self._sources)

    def compile(self, limits: Limits) -> None:
        """Compiles the program of these rows now rather than in a tick, and solves it once.

        Raises:
            NotDpp: a term is not convex or its parameters do not enter affinely, or there is no answer to the terms;
                names the file, the line and the term.
            UnreadableInput: a function fails, or what it gave to cvxpy does.
        """
        if not self._sources:
            return
        rating = np.where(limits.energized, self._posts.max_ceiling, 0.0)
        if rating.any():
            enough = 1.0 + np.asarray(limits.flow(rating), dtype=np.float64)
            self._program(rows_of(limits)).try_out(rating, enough)

    def met(self, limits: Limits, demands: Demands, x: Floats) -> bool:
        """Whether ceilings ``x`` (n,), shared out without the terms, are what they want as well.

        Raises:
            UnreadableInput: what a user wrote fails.
        """
        program, _ = self._entered(limits, demands)
        return not program.has_utility and program.meets(x)

    def missed(self, limits: Limits, x: Floats) -> Bools:
        """(n,) the EVSEs in terms that ceilings ``x`` (n,) do not meet, of those that the last ``bound`` kept.

        Raises:
            UnreadableInput: what a user wrote fails.
        """
        return self._program(rows_of(limits)).missed(x)

    def _entered(self, limits: Limits, demands: Demands) -> tuple[UserProgram, Floats]:
        """The program of these limits, and (n,) the most that each EVSE can be given."""
        upper = np.where(limits.energized & (demands.upper >= demands.minimum), np.maximum(demands.upper, 0.0), 0.0)
        rows = rows_of(limits)
        program = self._program(rows)
        program.enter(headroom_of(rows.limit_of_row, readable(limits.capacity), readable(demands.uncontrolled)), upper)
        return program, upper

    def bound(self, limits: Limits, demands: Demands) -> tuple[Demands, tuple[str, ...]]:
        """Demands that ask for no more than (U) leaves; and alarms where terms have no answer.

        What no ceilings meet is left out of this tick, if need be all: what is safe does not hang on the terms.

        Raises:
            UnreadableInput: what a user wrote fails.
        """
        if not self._sources:
            return demands, ()
        rows = rows_of(limits)
        room = headroom_of(rows.limit_of_row, readable(limits.capacity), readable(demands.uncontrolled))
        program, upper = self._entered(limits, demands)
        x = np.zeros(upper.shape[0])
        names, alarms = ", ".join(source.name for source in self._sources), []
        served = demands.order[upper[demands.order] > 0.0]
        for priority in np.unique(demands.priority[served])[::-1]:
            order, later = served[demands.priority[served] == priority], served[demands.priority[served] < priority]
            search = Search(program=program, settled=x, upper=upper, minimum=demands.minimum, later=later)
            found = self._class(search, admitted_by_rows(rows, room, x, order, demands), demands.weight)
            if found is None:
                return demands, (_no_answer(names, program.unsure),)
            x, unsure = found
            if unsure:
                alarms.append(
                    f"under the terms of {names} nobody of priority {priority} was found who can charge: "
                    f"{TRIES} of {order.shape[0]} cars were tried one by one"
                )
        alarms += [f"{place}: no ceilings meet it beside the others: it is left out" for place in program.left_out]
        x = self._snapped(x)
        return replace(demands, upper=np.minimum(demands.upper, x), target=np.minimum(demands.target, x)), tuple(alarms)

    def _snapped(self, x: Floats) -> Floats:
        """(n,) ceilings that end a hair below a pilot step, where the solver meant the step, on it."""
        above = all_up(self._steps, x)
        return np.where(above - x <= SNAP_A, above, x)

    def _class(self, search: Search, order: Ints, weight: Floats) -> tuple[Floats, bool] | None:
        """(n,) ceilings with this class, and whether it is at 0 without a proof; None where none meet the terms.

        Terms that ask something of the class are left out first where nobody could meet them, and then where nobody
        could charge with them.
        """
        if not order.shape[0]:
            return search.settled, False
        x = search.share(order, weight)
        if x is not None:
            return x, False
        nobody, asks = order[:0], not search.program.meets(search.settled)
        if asks and search.program.loosen(*search.bounds(nobody, order)):
            x = search.share(order, weight)
            if x is not None:
                return x, False
        found = self._searched(search, order, weight)
        if asks and (found is None or not found[0][order].any()):
            search.program.loosen(*search.bounds(nobody, nobody))
            found = self._searched(search, order, weight)
        return found

    def _searched(self, search: Search, order: Ints, weight: Floats) -> tuple[Floats, bool] | None:
        """As ``_class``, where not all of ``order`` can charge."""
        found = search.run(order)
        if found is None:
            return None
        if not found.on.shape[0]:
            return search.settled, found.unsure
        x = search.share(found.on, weight)
        if x is None:  # what fits beside somebody may not fit without him, where a term asks for more of one
            x = search.share(search.proven, weight)
        return None if x is None else (x, False)

    def _program(self, rows: Rows) -> UserProgram:
        from powerd.allocation.user_program import UserProgram  # cvxpy takes a second to import: only for those who ask

        kept = self._compiled.get(id(rows))
        if kept is None:
            kept = (rows, UserProgram(rows, self._posts, self._sources))  # rows held: their id may not come again
            self._compiled[id(rows)] = kept
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        return kept[1]


def _no_answer(names: str, unsure: str) -> str:
    """The alarm where all terms are left out; ``unsure`` is what the solver said if it gave up."""
    if unsure:
        return f"the solver gave up on the terms of {names} ({unsure}): they are left out"
    return f"no ceilings meet the terms of {names}: they are left out"
