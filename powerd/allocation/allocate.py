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
from powerd.allocation.ledger import Book, Ledger, open_book, view
from powerd.allocation.levels import LEVELS, classes_of, close_stage, serve_stages
from powerd.allocation.pilots import to_steps
from powerd.allocation.rows import rows_of
from powerd.allocation.solve import Solver, StageSolver
from powerd.allocation.stage import Stage
from powerd.allocation.steps import pack_steps
from powerd.limits import Floats, Ints, Limits, Posts


@dataclass(frozen=True, kw_only=True, eq=False)
class Warm:
    """Where the next tick's solves may start; part of the snapshot, so that a tick is a function of its inputs."""

    stage: tuple[tuple[int, int], ...]
    """(priority class, level) of each stage that was solved."""
    price: Floats
    """(stages, m) its row prices [utility / limit unit]."""

    def starts(self, priorities: list[int], rows: int) -> Floats:
        """(S, m) prices to start the stages of these classes from; zeros where nothing fits."""
        start = np.zeros((len(priorities) * LEVELS, rows))
        if self.price.shape[1] == rows:
            place = {priority: LEVELS * position for position, priority in enumerate(priorities)}
            known = [at for at, (priority, _) in enumerate(self.stage) if priority in place]
            stages = [place[self.stage[at][0]] + self.stage[at][1] for at in known]
            start[stages] = self.price if len(known) == len(self.stage) else self.price[known]
        return start


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
        self.priorities = priorities
        self.start = warm.starts(priorities, rows)
        self.solved = np.zeros(len(self.start), dtype=np.bool_)
        self.price = np.zeros_like(self.start)
        self.figures = np.zeros(4)
        self.others = NOTHING_TO_DECIDE

    def certificate(self) -> Certificate:
        """The worst over all stages."""
        steps, primal, dual, gap = self.figures.tolist()
        own = Certificate(primal_residual=primal, dual_residual=dual, gap=gap, iterations=int(steps), path="kernel")
        return own if self.others is NOTHING_TO_DECIDE else worst_of(own, self.others)

    def warm(self) -> Warm:
        """Where the next tick may start."""
        stages = [(self.priorities[stage // LEVELS], stage % LEVELS) for stage in np.flatnonzero(self.solved).tolist()]
        return Warm(stage=tuple(stages), price=self.price[self.solved])


@dataclass(frozen=True, eq=False)
class _Memo:
    """The last question and its answer."""

    rows: tuple[object, ...]
    """Compared by identity or, a tuple, by value; and kept: a freed object's id may come again."""
    question: Floats
    """All else that was asked, one after the other."""
    answer: Allocation

    def asks(self, rows: tuple[object, ...], question: Floats) -> bool:
        """Whether a tick asks the same under the very same rows; where the first number differs nothing is compared."""
        others = zip(self.rows[:-1], rows[:-1], strict=True)
        if self.rows[-1] != rows[-1] or any(one is not other for one, other in others):
            return False
        kept = self.question
        alike = kept.size == question.size and kept[:1].tolist() == question[:1].tolist()
        return alike and bool((kept == question).all())


class Allocator:
    """Allocates for one site. Not shared between threads.

    Args:
        posts: the EVSEs.
        solver: how stages are solved; by default the kernel, then the conic path, then the guard.
    """

    def __init__(self, posts: Posts, solver: StageSolver | None = None) -> None:
        self._steps = pack_steps(posts)
        self._stepped = len(self._steps.value) > 0
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
        columns = (limits.capacity, limits.energized, *demands.columns(), warm.price.ravel())
        question = np.concatenate(columns, dtype=np.float64)
        memo = self._memo
        if memo is not None and memo.asks(rows, question):
            return memo.answer
        answer = self._decide(limits, demands, warm)
        self._memo = _Memo(rows, question, answer)
        return answer

    def _decide(self, limits: Limits, demands: Demands, warm: Warm) -> Allocation:
        """The pipeline, without the memo."""
        book = open_book(limits, demands, self._steps)
        live, begin = classes_of(book, demands.order, np.array(demands.priority))
        proofs = _Proofs(demands.priority[live[begin[:-1]]].tolist(), book.rows.shape[1], warm)
        self._serve(limits, book, demands, live, begin, proofs)
        want, binding = close_book(book, live, self._steps)
        return Allocation(
            want=want,
            certificate=proofs.certificate(),
            price=view(book).price.copy(),
            binding_limit=binding,
            warm=proofs.warm(),
        )

    def _serve(self, limits: Limits, book: Book, demands: Demands, live: Ints, begin: Ints, proofs: _Proofs) -> None:
        """All stages: as many as it can in one call of the kernel, which stops for other paths and for pilot steps."""
        grove = NO_GROVE if limits.tree is None or not self._by_kernel else grove_of(limits.tree)
        start, solved, price, figures = proofs.start, proofs.solved, proofs.price, proofs.figures
        stage, stages = 0, len(start)
        while stage < stages:
            until = stage - stage % LEVELS + LEVELS if self._stepped else stages
            stage = serve_stages(book, grove, live, begin, stage, until, start, solved, price, figures)
            if stage < until:
                self._solve_otherwise(limits, book, proofs, stage)
                stage += 1
            if self._stepped and stage % LEVELS == 0:
                place = stage // LEVELS - 1
                self._round(view(book), demands, live[begin[place] : begin[place + 1]])

    def _solve_otherwise(self, limits: Limits, book: Book, proofs: _Proofs, stage: int) -> None:
        """The open stage, by the solver."""
        program = _stage_of(limits, view(book))
        solution, certificate = self._solver.solve(limits, program, proofs.start[stage])
        close_stage(book, np.flatnonzero(program.free), solution.x, solution.price)
        proofs.solved[stage] = True
        proofs.price[stage] = solution.price
        proofs.others = worst_of(proofs.others, certificate)

    def _round(self, ledger: Ledger, demands: Demands, order: Ints) -> None:
        """Pilot steps of one class, and its remainder handed out in steps."""
        on = order[ledger.on[order]]
        chosen = np.zeros_like(ledger.on)
        chosen[on] = True
        real, imag = ledger.flow_without(chosen)
        rounded = to_steps(
            ledger.columns,
            ledger.headroom,
            on,
            ledger.x.copy(),
            np.maximum(ledger.least, ledger.free_floor),
            ledger.upper,
            demands.weight,
            ledger.price,
            self._steps,
            real,
            imag,
        )
        ledger.settle(chosen, rounded)


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
