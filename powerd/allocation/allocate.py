"""``Allocator``: the one way from limits and demands to what every EVSE should get now.

    dead EVSEs out -> each class, highest first: who is on -> up to the target -> the surplus -> pilot steps -> guard

The answer is a pure function of its arguments; the allocator only keeps compiled things and its last answer (in most
ticks nothing changes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.allocation.certificate import Certificate
from powerd.allocation.demands import Demands
from powerd.allocation.explain import binding_limits
from powerd.allocation.guard import shed
from powerd.allocation.ledger import Ledger, open_ledger
from powerd.allocation.pilots import choose_on, to_steps
from powerd.allocation.solve import Solver, StageSolver
from powerd.allocation.stage import Stage
from powerd.allocation.steps import pack_steps
from powerd.limits import Bools, Floats, Ints, Limits, Posts
from powerd.units import ROW_TOLERANCE

#: The two levels inside a class.
TARGET, SURPLUS = 0, 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Warm:
    """Where the next tick's solves may start; part of the snapshot, so that a tick is a function of its inputs."""

    stage: tuple[tuple[int, int], ...]
    """(priority class, level) of each stage that was solved."""
    price: Floats
    """(stages, m) its row prices [utility / limit unit]."""

    def start_of(self, priority: int, level: int, rows: int) -> Floats:
        """(m,) prices to start a stage from; zeros where nothing fits."""
        if self.price.shape[1] == rows and (priority, level) in self.stage:
            start: Floats = self.price[self.stage.index((priority, level))]
            return start
        return np.zeros(rows)


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


@dataclass(frozen=True, eq=False)
class _Memo:
    """The last question and its answer."""

    question: tuple[object, ...]
    """Compared by identity, and kept: a freed object's id may come again."""
    stage: tuple[tuple[int, int], ...]
    columns: tuple[Floats | Ints | Bools, ...]
    answer: Allocation


class Allocator:
    """Allocates for one site. Not shared between threads.

    Args:
        posts: the EVSEs.
        solver: how stages are solved; by default the kernel, then the conic path, then the guard.
    """

    def __init__(self, posts: Posts, solver: StageSolver | None = None) -> None:
        self._steps = pack_steps(posts)
        self._solver: StageSolver = Solver() if solver is None else solver
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
        question = (limits.real, limits.imag, limits.limit_of_row, limits.tree)
        columns = (limits.capacity, limits.energized, *demands.columns(), warm.price)
        memo = self._memo
        same = memo is not None and memo.stage == warm.stage and _same(memo.question, question)
        if memo is not None and same and _equal(memo.columns, columns):
            return memo.answer
        answer = self._decide(limits, demands, warm)
        self._memo = _Memo(question, warm.stage, tuple(column.copy() for column in columns), answer)
        return answer

    def _decide(self, limits: Limits, demands: Demands, warm: Warm) -> Allocation:
        """The pipeline, without the memo."""
        ledger = open_ledger(limits, demands, self._steps)
        for priority in np.unique(demands.priority[ledger.upper > 0.0])[::-1]:
            self._serve_class(limits, ledger, demands, warm, int(priority))
        want = shed(
            limits,
            demands.uncontrolled,
            ledger.x,
            demands.minimum,
            demands.floor,
            demands.priority,
            least_served=demands.least_served,
            steps=self._steps,
        )
        ledger.settle(np.ones(len(want), dtype=np.bool_), want)
        return Allocation(
            want=want,
            certificate=ledger.certificate,
            price=ledger.price,
            binding_limit=binding_limits(ledger, want),
            warm=Warm(stage=tuple(ledger.stage_prices), price=_stacked(ledger)),
        )

    def _serve_class(self, limits: Limits, ledger: Ledger, demands: Demands, warm: Warm, priority: int) -> None:
        """One class: up to the target, then the surplus, then its pilot steps; all in the ledger."""
        members = demands.priority == priority
        order = np.lexsort((np.arange(len(members)), demands.least_served)).astype(np.int64)
        order = order[(members & (ledger.upper > 0.0))[order]]
        target = np.minimum(np.maximum(demands.target, ledger.least), ledger.upper)
        scheduled = demands.target > 0.0
        if np.any(demands.target[order] < ledger.upper[order]):
            wanted = order[scheduled[order]]
            self._serve_level(limits, ledger, demands, warm, wanted, target, (priority, TARGET))
        self._serve_level(limits, ledger, demands, warm, order, ledger.upper, (priority, SURPLUS))
        self._round(ledger, demands, order)

    def _serve_level(
        self,
        limits: Limits,
        ledger: Ledger,
        demands: Demands,
        warm: Warm,
        order: Ints,
        ceiling: Floats,
        stage_id: tuple[int, int],
    ) -> None:
        """Share out ``ceiling`` at most among the EVSEs of ``order`` (first served first), above what they have."""
        waiting = order[~ledger.on[order]]
        if len(waiting):
            flow = ledger.flow()
            ledger.on |= choose_on(
                ledger.rows.columns, ledger.headroom, waiting, ledger.least, ledger.counted, demands.overdue, *flow
            )
        taking = np.zeros_like(ledger.on)
        taking[order] = True
        taking &= ledger.on
        lower = np.maximum(ledger.x, np.maximum(ledger.least, np.minimum(ledger.free_floor, ceiling)))
        ledger.settle(taking, lower)
        contested = ledger.under_contested_limit(taking, ceiling)
        ledger.settle(taking & ~contested, np.maximum(lower, ceiling))
        if not np.any(taking & contested):
            return
        free = taking & contested & (ceiling > lower + ROW_TOLERANCE) & ~ledger.under_full_row()
        if not free.any():
            return
        base_real, base_imag = ledger.flow_without(free)
        stage = Stage(
            rows=ledger.rows,
            free=free,
            weight=demands.weight,
            lower=lower,
            upper=ceiling,
            base_real=base_real,
            base_imag=base_imag,
            headroom=ledger.headroom,
        )
        solution, certificate = self._solver.solve(limits, stage, warm.start_of(*stage_id, ledger.rows.row_count))
        ledger.settle(free, solution.x)
        ledger.record(stage_id, solution.price, certificate)

    def _round(self, ledger: Ledger, demands: Demands, order: Ints) -> None:
        """Pilot steps of one class, and its remainder handed out in steps."""
        on = order[ledger.on[order]]
        if not np.any(self._steps.start[on] < self._steps.start[on + 1]):
            return
        chosen = np.zeros_like(ledger.on)
        chosen[on] = True
        real, imag = ledger.flow_without(chosen)
        rounded = to_steps(
            ledger.rows.columns,
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


def _stacked(ledger: Ledger) -> Floats:
    """(stages, m) the prices of all stages."""
    rows = ledger.rows.row_count
    return np.array(list(ledger.stage_prices.values()), dtype=np.float64).reshape(len(ledger.stage_prices), rows)


def _same(kept: tuple[object, ...], asked: tuple[object, ...]) -> bool:
    """Whether two ticks stood under the very same rows."""
    return all(one is other for one, other in zip(kept, asked, strict=True))


def _equal(kept: tuple[Floats | Ints | Bools, ...], columns: tuple[Floats | Ints | Bools, ...]) -> bool:
    """Whether two ticks asked the same."""
    return all(np.array_equal(one, other) for one, other in zip(kept, columns, strict=True))
