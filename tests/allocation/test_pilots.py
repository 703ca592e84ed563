"""The discrete answer against every combination of steps on small sites."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest

from powerd.allocation.allocate import Allocator
from powerd.allocation.demands import Demands
from powerd.limits import Bools, Floats, Limits
from tests.allocation.sites import WHOLE_AMPERES, delta_wye, demands, one_limit, posts, random_tree

COARSE = np.array([0.0, 8.0, 16.0, 24.0, 32.0])
FINE = np.array([0.0, *range(6, 17)])
GAP = 0.03
"""Stated gap: utility of the best combination less ours, over the sum of weights (3 % of everybody's ceiling)."""
TOTAL_MEAN, TOTAL_LEAST = 0.95, 0.2
"""Stated gap of the total, on the whole and on each site: our ampere over the most that any combination of any cars
gives. Far from 1 is where few fit and the first in the order of service are those who cost a limit most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A small site and what its cars ask for."""

    limits: Limits
    steps: Floats
    demands: Demands


def case_of(seed: int) -> Case:
    """2 to 5 EVSEs on a random tree or behind a delta-wye transformer, steps of 8 A or 1 A, one or two classes."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 6))
    steps = COARSE if seed % 2 else FINE
    if seed % 3 == 0:
        limits = delta_wye(count, seed, float(rng.uniform(12.0, 60.0)))
    else:
        limits = random_tree(count, seed, tightness=float(rng.choice([0.4, 0.7, 1.0])))
    asked = demands(
        count,
        len(limits.capacity),
        weight=np.exp(rng.uniform(-1.0, 1.0, count)),
        minimum=rng.choice([6.0, 8.0], count),
        least_served=rng.random(count),
        upper=np.full(count, steps[-1]),
        target=np.full(count, steps[-1]),
        priority=rng.integers(0, 2, count) if seed % 5 == 0 else np.zeros(count, dtype=np.int64),
    )
    return Case(limits=limits, steps=steps, demands=asked)


def combinations_of(case: Case, may: Bools, beside: Floats, *, off: bool = False) -> Floats:
    """(k, n) every combination of steps for the cars of ``may`` that holds all rows, the others at ``beside``.

    With ``off`` each of them may also get nothing.
    """
    minimum, steps = case.demands.minimum, case.steps
    every = np.array(
        list(
            product(
                *(
                    steps[(steps >= minimum[i]) | ((steps == 0.0) & off)] if may[i] else beside[i : i + 1]
                    for i in range(len(may))
                )
            )
        )
    )
    return every[feasible(case, every)]


def feasible(case: Case, ceilings: Floats) -> Bools:
    """(k,) which of the ceilings (k, n) hold every row."""
    limits = case.limits
    flow = np.hypot(ceilings @ limits.real.toarray().T, ceilings @ limits.imag.toarray().T)
    holds: Bools = (flow <= limits.capacity[limits.limit_of_row] + 1e-6).all(axis=1)
    return holds


def utility(case: Case, ceilings: Floats, on: Bools) -> Floats:
    """(k,) sum of w log x over the cars of ``on``, over the sum of weights."""
    weight = np.where(on, case.demands.weight, 0.0)
    value: Floats = np.log(np.where(on, ceilings, 1.0)) @ weight / weight.sum()
    return value


def who_is_on(case: Case, members: Bools, beside: Floats) -> Bools:
    """(n,) of all sets of ``members`` whose minima hold every row, the one that leaves out nobody for a later one.

    The order of service decides before the number: every set is tried, and the first in the order of a dictionary is
    right. It is empty only where no minimum fits.
    """
    order = [i for i in np.lexsort((np.arange(len(members)), case.demands.least_served)) if members[i]]
    least = np.array([min(case.steps[case.steps >= minimum]) for minimum in case.demands.minimum])
    sets = np.array(list(product([True, False], repeat=len(order))))
    ceilings = np.tile(beside, (len(sets), 1))
    ceilings[:, order] = np.where(sets, least[order], 0.0)
    on = np.zeros(len(members), dtype=np.bool_)
    on[order] = sets[int(feasible(case, ceilings).argmax())]
    return on


def assert_right_cars(case: Case, want: Floats) -> None:
    """In each class those charge who should, beside what the higher ones have; and no step that fits is left."""
    beside = np.zeros(len(want))
    for priority in np.unique(case.demands.priority)[::-1]:
        members = case.demands.priority == priority
        np.testing.assert_array_equal((want > 0.0)[members], who_is_on(case, members, beside)[members])
        beside = np.where(members, want, beside)
    for i in range(len(want)):
        above = case.steps[(case.steps > want[i]) & (case.steps >= case.demands.minimum[i])]
        more = np.tile(want, (len(above), 1))
        more[:, i] = above
        assert not feasible(case, more).any()


@dataclass(frozen=True)
class Gap:
    """How far an answer is from the best."""

    utility: float
    """Of the first class, its best combination with the same cars on less ours, over the sum of weights."""
    ampere: float
    """The ampere of that combination less ours [A]."""
    total: float
    """Our total over the most that any combination of any cars gives, whatever order, classes and weights."""


def judge(seed: int) -> Gap:
    """The gaps of one site; who is on, the steps and the rows are asserted."""
    case = case_of(seed)
    want = Allocator(posts(len(case.demands.weight), case.steps)).allocate(case.limits, case.demands).want
    assert feasible(case, want[None, :]).all()
    assert np.all(np.isin(want, case.steps))
    assert np.all((want == 0.0) | (want >= case.demands.minimum))
    assert_right_cars(case, want)
    most = combinations_of(case, np.ones(len(want), dtype=np.bool_), want, off=True).sum(axis=1).max()
    total = 1.0 if most == 0.0 else float(want.sum() / most)
    first = case.demands.priority == case.demands.priority.max()
    on = first & (want > 0.0)
    if not on.any():  # right, as no minimum fits: ``assert_right_cars``
        return Gap(0.0, 0.0, total)
    every = combinations_of(case, on, np.zeros(len(want)))
    value = utility(case, every, on)
    best = int(value.argmax())
    return Gap(float(value[best] - utility(case, want[None, :], on)[0]), float((every[best] - want)[on].sum()), total)


def assert_near(gaps: list[Gap]) -> None:
    """The stated gaps, and most cases exact."""
    utility_gap, ampere_gap = np.array([gap.utility for gap in gaps]), np.array([gap.ampere for gap in gaps])
    total = np.array([gap.total for gap in gaps])
    assert utility_gap.max() <= GAP
    assert np.mean(utility_gap <= 1e-9) >= 0.95
    assert ampere_gap.max() <= 8.0
    assert ampere_gap.sum() <= 0.0  # on the whole not an ampere less than the best
    assert total.min() >= TOTAL_LEAST
    assert total.mean() >= TOTAL_MEAN


def test_steps_are_feasible_and_near_the_best_of_all_combinations() -> None:
    """On 150 small sites: who should charge, within 3 % of the best in utility, exact in 95 %, 95 % of all ampere."""
    assert_near([judge(seed) for seed in range(150)])


@pytest.mark.slow
def test_steps_are_feasible_and_near_the_best_of_all_combinations_at_length() -> None:
    """The same on 2 350 more sites."""
    assert_near([judge(seed) for seed in range(150, 2500)])


FRESH = range(1_000_000, 1_001_000)
"""Seeds on which nothing was ever tried before the gap had been stated."""
SHARE = 0.003
"""Share of such sites that may exceed the stated gap. Of n sites drawn alike of which none exceeds it the true share is
at most 3 / n with a confidence of 95 %, as (1 - 3/n)^n <= 0.05 (the "rule of three", Hanley & Lippman-Hand 1983)."""


@pytest.mark.slow
def test_the_stated_gap_holds_on_sites_that_it_was_not_chosen_on() -> None:
    """None of 1 000 fresh sites exceeds 3 %: with a confidence of 95 % no more than 3 of 1 000 sites drawn alike do."""
    assert len(FRESH) * SHARE >= 3.0
    assert_near([judge(seed) for seed in FRESH])


@pytest.mark.parametrize("seed", range(40))
def test_a_lower_class_never_takes_from_a_higher(seed: int) -> None:
    """What the first class gets does not depend on whether a second one is there; in both those charge who should."""
    case = case_of(seed)
    count = len(case.demands.weight)
    higher = np.arange(count) < (count + 1) // 2
    both = demands(
        count,
        len(case.limits.capacity),
        weight=case.demands.weight,
        minimum=case.demands.minimum,
        upper=case.demands.upper,
        target=case.demands.target,
        priority=higher.astype(np.int64),
    )
    alone = demands(
        count,
        len(case.limits.capacity),
        weight=case.demands.weight,
        minimum=case.demands.minimum,
        upper=np.where(higher, case.demands.upper, 0.0),
        target=np.where(higher, case.demands.target, 0.0),
        priority=higher.astype(np.int64),
    )
    allocator = Allocator(posts(count, case.steps))
    got = allocator.allocate(case.limits, both).want
    assert_right_cars(replace(case, demands=both), got)
    assert np.array_equal(got[higher], allocator.allocate(case.limits, alone).want[higher])


def test_an_overdue_minimum_is_kept_free_and_only_where_it_could_fit() -> None:
    """20 A of 24 A: beside a 6 A car that has its turn it does not fit yet, and nobody else starts in the meantime."""
    asked = demands(
        3,
        1,
        minimum=[6.0, 20.0, 6.0],
        least_served=[0.0, 1.0, 2.0],
        overdue=np.array([False, True, False]),
    )
    want = Allocator(posts(3)).allocate(one_limit(3, 24.0), asked).want
    assert want[0] == pytest.approx(24.0, abs=1e-5)
    assert want[1] == want[2] == 0.0
    never = Allocator(posts(3)).allocate(one_limit(3, 18.0), asked).want
    assert never[2] > 0.0


@pytest.mark.parametrize(
    ("steps", "capacity", "count", "taking", "upper"),
    [(WHOLE_AMPERES, 59.0, 5, 1, 10.0), (WHOLE_AMPERES, 157.0, 12, 2, 6.0), (COARSE, 120.0, 7, 3, 8.0)],
)
def test_a_reserve_above_what_its_car_takes_costs_the_others_nothing(
    steps: Floats, capacity: float, count: int, taking: int, upper: float
) -> None:
    """Rows count the reserve, 16 A: the others share what is left, as if it had been taken off the limit."""
    floor = np.where(np.arange(count) < taking, 16.0, 0.0)
    most = np.where(floor > 0.0, upper, 32.0)
    asked = demands(count, 1, upper=most, target=most, floor=floor)
    beside = demands(count - taking, 1, target=np.full(count - taking, 32.0))
    together = Allocator(posts(count, steps)).allocate(one_limit(count, capacity), asked)
    alone = Allocator(posts(count - taking, steps)).allocate(one_limit(count - taking, capacity - floor.sum()), beside)
    np.testing.assert_array_equal(together.want[taking:], alone.want)
