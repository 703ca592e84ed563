"""The discrete answer against every combination of steps on small sites."""

from __future__ import annotations

from dataclasses import dataclass
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


def combinations_of(case: Case, on: Bools) -> Floats:
    """(k, n) every combination of steps for the cars of ``on`` that holds all rows."""
    minimum = case.demands.minimum
    choices = [
        case.steps[(case.steps >= minimum[i]) & (case.steps > 0)] if on[i] else np.zeros(1) for i in range(len(on))
    ]
    every = np.array(list(product(*choices)))
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


def judge(seed: int) -> tuple[float, float]:
    """Gap in utility and in ampere to the best combination of the first class, all claims of feasibility asserted."""
    case = case_of(seed)
    want = Allocator(posts(len(case.demands.weight), case.steps)).allocate(case.limits, case.demands).want
    assert feasible(case, want[None, :]).all()
    assert np.all(np.isin(want, case.steps))
    assert np.all((want == 0.0) | (want >= case.demands.minimum))
    first = case.demands.priority == case.demands.priority.max()
    on = first & (want > 0.0)
    if not on.any():
        return 0.0, 0.0
    every = combinations_of(case, on)
    value = utility(case, every, on)
    best = int(value.argmax())
    return float(value[best] - utility(case, want[None, :], on)[0]), float((every[best] - want)[on].sum())


def assert_near(gaps: list[tuple[float, float]]) -> None:
    """The stated gap, and most cases exact."""
    utility_gap, ampere_gap = np.array(gaps).T
    assert utility_gap.max() <= GAP
    assert np.mean(utility_gap <= 1e-9) >= 0.95
    assert ampere_gap.max() <= 8.0
    assert ampere_gap.sum() <= 0.0  # on the whole not an ampere less than the best


def test_steps_are_feasible_and_near_the_best_of_all_combinations() -> None:
    """On 150 small sites: within 3 % of the best in utility, exact in 95 % of the cases, on all steps and rows."""
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
    """What the first class gets does not depend on whether a second one is there."""
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
