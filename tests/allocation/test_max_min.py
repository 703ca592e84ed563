"""Weighted max-min: the kernel and the rise find what the definition says, and what cvxpy finds step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.allocation.allocate import Allocator
from powerd.allocation.forest import Forest, grove_of, harvest, plant
from powerd.allocation.max_min import MaxMinSolver, judge_levels, rise, solve_levels
from powerd.allocation.max_min_levels import settle
from powerd.allocation.max_min_tree import fill
from powerd.allocation.problem import LevelProgram
from powerd.allocation.rows import rows_of
from powerd.allocation.stage import Solution, Stage
from powerd.limits import Limits
from tests.allocation.sites import EIGHTS, WHOLE_AMPERES, delta_wye, demands, linear, one_limit, posts, random_tree
from tests.allocation.ticks import Case, cases


def _stage(limits: Limits, seed: int, *, spread: float = 1.0) -> Stage:
    rng = np.random.default_rng(seed)
    rows = rows_of(limits)
    count = limits.real.shape[1]
    return Stage(
        rows=rows,
        free=np.ones(count, dtype=np.bool_),
        weight=np.exp(rng.uniform(-spread, spread, count)),
        lower=np.where(rng.random(count) < 0.3, rng.uniform(0.0, 0.2, count), 0.0),
        upper=rng.uniform(6.0, 32.0, count),
        base_real=np.zeros(rows.row_count),
        base_imag=np.zeros(rows.row_count),
        headroom=limits.capacity[limits.limit_of_row],
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_every_answer_proves_itself_on_trees(seed: int) -> None:
    """Sizes, trees, phases, limits near zero, weights over twelve decades: each EVSE has its bottleneck."""
    for case in cases(seed, 3):
        _, certificate = MaxMinSolver().solve(case.limits, case.stage, np.zeros(case.limits.row_count))
        assert certificate.path != "guard"
        assert certificate.holds, certificate


def _forest(case: Case) -> Forest:
    stage = case.stage
    assert case.limits.tree is not None
    room = stage.headroom - stage.base_real
    return plant(grove_of(case.limits.tree), room, stage.free, stage.weight, stage.lower, stage.upper)


def _filled(case: Case) -> Solution:
    """By the filling alone."""
    stage, forest = case.stage, _forest(case)
    y, looks = fill(forest)
    price = np.zeros(case.limits.row_count)
    rows = forest.nodes["row"]
    price[rows[rows >= 0]] = forest.nodes["price"][rows >= 0]
    return Solution(x=harvest(forest, y, stage.free, stage.lower, stage.upper), price=price, iterations=looks)


def test_the_filling_always_settles() -> None:
    """Every filling proves itself, and looks at few rows more than once."""
    looks, rows = 0, 0
    for case in (case for seed in range(120) for case in cases(seed, 3, largest=150)):
        solution = _filled(case)
        assert judge_levels(case.stage, solution, "kernel").holds
        looks += solution.iterations
        rows += case.limits.row_count
    assert looks <= 3 * rows


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 3.0))
def test_levels_lead_to_the_same_answer_from_wherever_they_begin(seed: int, spread: float) -> None:
    """From nothing, from prices of any size, and from the answer's own: the answer is unique."""
    for case in cases(seed, 2, largest=80):
        filled = _filled(case)
        rng, stage, rows = np.random.default_rng(seed), case.stage, case.limits.row_count
        anything = rng.choice([0.0, 1.0], rows) * np.exp(rng.normal(0.0, spread, rows))
        for start in (np.zeros(rows), anything, filled.price):
            forest = _forest(case)
            y, rounds = settle(forest, start)
            if rounds >= 0:
                x = harvest(forest, y, stage.free, stage.lower, stage.upper)
                np.testing.assert_allclose(x, filled.x, rtol=1e-7, atol=1e-7)


def test_levels_are_mostly_found_without_filling() -> None:
    """From the prices of the answer itself at once, from nothing in most ticks."""
    cold, again, ticks = 0, 0, 0
    for case in (case for seed in range(60) for case in cases(seed, 3, largest=100)):
        if case.spread > 8:
            continue
        forest = _forest(case)
        roots = int((forest.nodes["parent"] < 0).sum())
        ticks += 1
        cold += settle(forest, np.zeros(case.limits.row_count))[1] >= 0
        assert case.limits.tree is not None
        solution, _ = solve_levels(case.limits.tree, case.stage, np.zeros(case.limits.row_count))
        again += settle(forest, solution.price)[1] == roots
    assert again == ticks
    assert cold >= 0.8 * ticks


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_the_kernel_and_the_definition_agree(seed: int) -> None:
    """Two methods that share no code, the answer of which is unique."""
    for case in cases(seed, 2, largest=60):
        assert case.limits.tree is not None
        (quick, _), plain = (
            solve_levels(case.limits.tree, case.stage, np.zeros(case.limits.row_count)),
            rise(case.stage),
        )
        assert plain is not None
        np.testing.assert_allclose(quick.x, plain.x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_cvxpy_agrees_on_trees(seed: int) -> None:
    """The statement, solved level by level."""
    for case in cases(seed + 50, 1, largest=20):
        if case.spread > 8:
            continue
        assert case.limits.tree is not None
        solution, _ = solve_levels(case.limits.tree, case.stage, np.zeros(case.limits.row_count))
        np.testing.assert_allclose(solution.x, LevelProgram(case.stage.rows).solve(case.stage), atol=2e-4)


@pytest.mark.parametrize("seed", range(6))
def test_cvxpy_agrees_on_phasor_rows(seed: int) -> None:
    """Line-to-line posts under a delta winding: the rise stops each group where its own cone is full."""
    limits = delta_wye(9, seed, 60.0)
    stage = _stage(limits, seed)
    solution, certificate = MaxMinSolver().solve(limits, stage, np.zeros(limits.row_count))
    assert certificate.path == "conic"
    assert certificate.holds, certificate
    np.testing.assert_allclose(solution.x, LevelProgram(stage.rows).solve(stage), atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.3, 1.0))
def test_nobody_gains_but_from_those_who_have_more(seed: int, factor: float) -> None:
    """The definition itself, tried on random admitted points: who gets more takes it from one at no higher level."""
    rng = np.random.default_rng(seed)
    limits = replace(one_limit(6, 0.0), capacity=np.array([100.0 * factor]))
    stage = _stage(limits, seed)
    solution, _ = MaxMinSolver().solve(limits, stage, np.zeros(1))
    other = np.clip(solution.x + rng.normal(0.0, 2.0, 6), stage.lower, stage.upper)
    other = stage.lower + (other - stage.lower) * min(
        1.0, float((stage.headroom[0] - stage.lower.sum()) / max(1e-9, (other - stage.lower).sum()))
    )
    level = solution.x / stage.weight
    for i in np.flatnonzero(other > solution.x + 1e-9):
        losers = other < solution.x - 1e-12
        assert np.any(level[losers] <= level[i] + 1e-9)


def test_an_answer_with_a_planted_error_does_not_prove_itself() -> None:
    """A level too low, one too high, and a row overdrawn are all seen."""
    limits = one_limit(5, 60.0)
    stage = _stage(limits, 3)
    solution, certificate = MaxMinSolver().solve(limits, stage, np.zeros(1))
    assert certificate.holds
    inside = int(np.argmax((solution.x < stage.upper - 1.0) & (solution.x > stage.lower)))
    for change in (-0.01, 0.01):
        x = solution.x.copy()
        x[inside] += change
        assert not judge_levels(stage, replace(solution, x=x), "kernel").holds
    assert not judge_levels(stage, replace(solution, x=np.full(5, np.nan)), "kernel").holds


def test_pilot_steps_keep_to_max_min() -> None:
    """2 x0 + x1 <= 33: 11 A each, on steps too; the sum of logarithms would give 8 A and 17 A."""
    want = Allocator(posts(2, WHOLE_AMPERES), MaxMinSolver()).allocate(linear([[2.0, 1.0]], [33.0]), demands(2, 1)).want
    assert want.tolist() == [11.0, 11.0]


def test_what_is_left_goes_to_the_lowest_in_a_large_class() -> None:
    """70 equal cars under 763 A, no tree: 63 get 11 A and 7 get 10 A, not two of them 32 A."""
    answer = Allocator(posts(70, WHOLE_AMPERES), MaxMinSolver()).allocate(one_limit(70, 763.0), demands(70, 1))
    assert np.sort(answer.want).tolist() == [10.0] * 7 + [11.0] * 63
    assert answer.price[0] == pytest.approx(1.0 / 10.9, rel=1e-6)


def test_a_large_step_of_the_lowest_comes_before_small_ones_of_the_others() -> None:
    """70 cars under 728 A, every second one in steps of 8 A: 10.4 A each, 10 and 8 A in steps, and 98 A are left.

    Twelve of those at 8 A rise to 16 A, and two of those at 10 A take what is left: 0.087 of utility an ampere for the
    one, 0.095 for the other, which proportional fairness would go by.
    """
    mixed = replace(posts(70), pilot_steps=(WHOLE_AMPERES, EIGHTS) * 35)
    x = Allocator(mixed, MaxMinSolver()).allocate(one_limit(70, 728.0), demands(70, 1)).want
    assert np.sort(x[1::2]).tolist() == [8.0] * 23 + [16.0] * 12
    assert np.sort(x[0::2]).tolist() == [10.0] * 33 + [11.0] * 2


@pytest.mark.parametrize("seed", range(40))
def test_no_step_goes_to_one_who_has_more_while_one_who_has_less_could_take_it(seed: int) -> None:
    """Trees and phasor rows, weights: who could rise by a step, if one at a higher level gave any, stays above him."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 9))
    limits = delta_wye(count, seed, float(rng.uniform(20.0, 80.0))) if seed % 2 else random_tree(count, seed)
    asked = demands(count, len(limits.capacity), weight=np.exp(rng.uniform(-0.7, 0.7, count)))
    x = Allocator(posts(count, WHOLE_AMPERES), MaxMinSolver()).allocate(limits, asked).want
    level = x / asked.weight
    for j in np.flatnonzero((x > 0.0) & (x < 32.0)):
        for i in np.flatnonzero(x > 6.0):
            other = x.copy()
            other[i] -= 1.0
            other[j] += 1.0
            if i != j and other[i] / asked.weight[i] > level[j] * (1.0 + 1e-9):
                assert np.any(limits.limit_flow(other) > limits.capacity * (1.0 + 1e-9))
