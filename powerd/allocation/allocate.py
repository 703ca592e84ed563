"""``Allocator``: the one way from limits and demands to what every EVSE should get now.

    dead EVSEs out -> each class, highest first: who is on -> up to the target -> the surplus -> pilot steps -> guard

The answer is a pure function of its arguments; the allocator only keeps compiled things and its last answer (in most
ticks nothing changes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.allocation.certificate import NOTHING_TO_DECIDE, Certificate, worst_of
from powerd.allocation.demands import Demands
from powerd.allocation.explain import close_book
from powerd.allocation.forest import NO_GROVE, grove_of
from powerd.allocation.ledger import Book, Ledger, Service, open_book, view
from powerd.allocation.levels import LEVELS, TURNS, close_stage, serve
from powerd.allocation.rows import rows_of
from powerd.allocation.solve import Solver, StageSolver
from powerd.allocation.stage import Stage
from powerd.allocation.steps import pack_steps
from powerd.compiled import read
from powerd.limits import Bools, Floats, Ints, Limits, Posts

Column = Floats | Ints | Bools


@dataclass(frozen=True, kw_only=True, eq=False)
class Warm:
    """Where the next tick's solves may start; part of the snapshot, so that a tick is a function of its inputs."""

    stage: tuple[tuple[int, int], ...]
    """(priority class, level) of each stage."""
    price: Floats
    """(stages, m) its row prices [utility / limit unit]; 0 where there was nothing to solve."""

    def starts(self, stages: tuple[tuple[int, int], ...], rows: int) -> Floats:
        """(S, m) prices to start ``stages`` from; zeros where nothing fits."""
        if self.price.shape[1] != rows:
            return np.zeros((len(stages), rows))
        if self.stage == stages:
            return self.price
        known = dict(zip(self.stage, self.price, strict=True))
        nothing = np.zeros(rows)
        return np.array([known.get(stage, nothing) for stage in stages]).reshape(len(stages), rows)


#: Nothing to start from.
COLD = Warm(stage=(), price=np.zeros((0, 0)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Allocation:
    """What every EVSE should get now, how good that is, and what holds each one back."""

    want: Floats
    """(n,) ceilings [own unit], on pilot steps, within every row."""
    certificate: Certificate
    """Proof of the continuous optimum, the worst over its stages."""
    price: Floats
    """(m,) shadow price of each row in the last stage in which it bound [utility / limit unit]."""
    binding_limit: Ints
    """(n,) index of the limit that holds each EVSE; -1 = none, it has all it can take."""
    warm: Warm
    """For the next tick."""


class _Proofs:
    """What the S stages of a tick start from, and what each proved; m rows."""

    def __init__(self, priorities: list[int], rows: int, warm: Warm) -> None:
        self._stages = tuple((priority, level) for priority in priorities for level in range(LEVELS))
        self.start = read(warm.starts(self._stages, rows))
        self.price = np.zeros((len(self._stages), rows))
        self.figures = np.zeros(4)
        self.others = NOTHING_TO_DECIDE

    def certificate(self) -> Certificate:
        """The worst over all stages."""
        steps, primal, dual, gap = self.figures.tolist()
        own = Certificate(primal_residual=primal, dual_residual=dual, gap=gap, iterations=int(steps), path="kernel")
        return own if self.others is NOTHING_TO_DECIDE else worst_of(own, self.others)

    def warm(self) -> Warm:
        """Where the next tick may start."""
        return Warm(stage=self._stages, price=self.price)


@dataclass(frozen=True, eq=False)
class _Memo:
    """The last question and its answer."""

    rows: tuple[object, ...]
    """Compared by identity or, a tuple, by value; and kept: a freed object's id may come again."""
    question: Floats
    """All else that was asked, one after the other."""
    answer: Allocation

    def asks(self, rows: tuple[object, ...], columns: tuple[Column, ...]) -> bool:
        """Whether a tick asks the same under the very same rows."""
        others = zip(self.rows[:-1], rows[:-1], strict=True)
        if self.rows[-1] != rows[-1] or any(one is not other for one, other in others):
            return False
        begin, kept = 0, self.question
        for column in columns:
            end = begin + column.shape[0]
            if end > kept.shape[0] or not (kept[begin:end] == column).all():
                return False
            begin = end
        return bool(begin == kept.shape[0])


class Allocator:
    """Allocates for one site. Not shared between threads.

    Args:
        posts: the EVSEs.
        solver: how stages are solved; by default the kernel, then the conic path, then the guard.
    """

    def __init__(self, posts: Posts, solver: StageSolver | None = None) -> None:
        self._steps = pack_steps(posts)
        self._solver: StageSolver = Solver() if solver is None else solver
        self._by_kernel = solver is None
        self._memo: _Memo | None = None

    def allocate(self, limits: Limits, demands: Demands, warm: Warm = COLD) -> Allocation:
        """Who gets what now.

        Args:
            limits: rows of this switching state with the capacities of this tick.
            demands: what the EVSEs ask for.
            warm: ``Allocation.warm`` of an earlier tick; makes it faster, and is an input like the others.

        Returns:
            The allocation; something safe always comes out, and ``certificate.path`` says how it came about.
        """
        rows = (limits.real, limits.imag, limits.limit_of_row, limits.tree, warm.stage)
        columns: tuple[Column, ...] = (limits.capacity, limits.energized, *demands.columns(), warm.price.ravel())
        memo = self._memo
        if memo is not None and memo.asks(rows, columns):
            return memo.answer
        self._memo = memo = None  # of many EVSEs it takes as much room as the work below
        answer = self._decide(limits, demands, warm)
        self._memo = _Memo(rows, np.concatenate(columns, dtype=np.float64), answer)
        return answer

    def _decide(self, limits: Limits, demands: Demands, warm: Warm) -> Allocation:
        """The pipeline, without the memo."""
        book, service = open_book(limits, demands, self._steps)
        first_served = service.evse[service.begin[:-1]]
        proofs = _Proofs(demands.priority[first_served].tolist(), book.rows.shape[1], warm)
        self._serve(limits, book, service, proofs)
        want, binding, price = close_book(book, service.evse, self._steps)
        return Allocation(
            want=want, certificate=proofs.certificate(), price=price, binding_limit=binding, warm=proofs.warm()
        )

    def _serve(self, limits: Limits, book: Book, service: Service, proofs: _Proofs) -> None:
        """All turns: as many as it can in one call of the kernel, which stops where another path has to solve."""
        grove = NO_GROVE if limits.tree is None or not self._by_kernel else grove_of(limits.tree)
        todo = (proofs.start, proofs.price, proofs.figures)
        turn = serve(book, grove, service, self._steps, self._solver.by_level, 0, *todo)
        while turn >= 0:
            self._solve_otherwise(limits, book, proofs, turn // TURNS * LEVELS + turn % TURNS)
            turn = serve(book, grove, service, self._steps, self._solver.by_level, turn + 1, *todo)

    def _solve_otherwise(self, limits: Limits, book: Book, proofs: _Proofs, stage: int) -> None:
        """The open stage, by the solver."""
        program = _stage_of(limits, view(book))
        solution, certificate = self._solver.solve(limits, program, proofs.start[stage].copy())
        close_stage(book, np.flatnonzero(program.free), solution.x, solution.price)
        proofs.price[stage] = solution.price
        proofs.others = worst_of(proofs.others, certificate)


def _stage_of(limits: Limits, ledger: Ledger) -> Stage:
    """The open level as a program of its own."""
    return Stage(
        rows=rows_of(limits),
        free=ledger.free.copy(),
        weight=ledger.weight,
        lower=ledger.lower.copy(),
        upper=ledger.ceiling.copy(),
        base_real=ledger.real.copy(),
        base_imag=ledger.imag.copy(),
        headroom=ledger.headroom,
    )
