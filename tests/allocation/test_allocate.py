"""What the tick calls, end to end, on cases that can be solved by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.allocation.allocate import Allocator
from powerd.limits import Tree
from powerd.network.rows import build_rows
from powerd.network.supply import normal_positions
from tests.allocation.sites import (
    CONTINUOUS,
    EIGHTS,
    WHOLE_AMPERES,
    delta_wye,
    demands,
    linear,
    one_limit,
    posts,
    random_tree,
)
from tests.network.drawings import Drawing


def test_weights_share_one_limit() -> None:
    """48 A, weights 1 : 1 : 2: shares 12, 12, 24 A; the price is sum of weights / limit; the limit is named."""
    answer = Allocator(posts(3)).allocate(one_limit(3, 48.0), demands(3, 1, weight=[1.0, 1.0, 2.0]))
    np.testing.assert_allclose(answer.want, [12.0, 12.0, 24.0], atol=1e-3)
    np.testing.assert_allclose(answer.price, [4.0 / 48.0], rtol=1e-4)
    np.testing.assert_array_equal(answer.binding_limit, [0, 0, 0])
    assert answer.certificate.holds


def test_nested_limits() -> None:
    """Two under 20 A, one beside them, all under 50 A: 10, 10, 30 A, each with its own binding limit."""
    answer = Allocator(posts(3)).allocate(linear([[1, 1, 0], [1, 1, 1]], [20.0, 50.0]), demands(3, 2))
    np.testing.assert_allclose(answer.want, [10.0, 10.0, 30.0], atol=1e-3)
    np.testing.assert_array_equal(answer.binding_limit, [0, 0, 1])


def test_plenty_binds_nobody() -> None:
    """With room for all, all get their upper bound and no limit is named."""
    answer = Allocator(posts(2)).allocate(one_limit(2, 100.0), demands(2, 1, upper=[16.0, 32.0]))
    np.testing.assert_array_equal(answer.want, [16.0, 32.0])
    np.testing.assert_array_equal(answer.binding_limit, [-1, -1])


def test_classes_are_strict() -> None:
    """The higher class takes its surplus before the lower one gets even its minimum."""
    answer = Allocator(posts(3)).allocate(
        one_limit(3, 40.0), demands(3, 1, priority=[1, 0, 0], target=[6.0, 32.0, 32.0])
    )
    np.testing.assert_allclose(answer.want, [32.0, 8.0, 0.0], atol=1e-3)


def test_target_before_surplus() -> None:
    """Inside a class 30 A first fill the targets 8 and 16 A, then what is left lifts the lower one."""
    answer = Allocator(posts(2)).allocate(one_limit(2, 30.0), demands(2, 1, target=[8.0, 16.0]))
    np.testing.assert_allclose(answer.want, [14.0, 16.0], atol=1e-3)


def test_no_target_waits_for_the_surplus() -> None:
    """A car the schedule wants nothing for stays off while the others' targets use the limit."""
    allocator = Allocator(posts(2))
    tight = allocator.allocate(one_limit(2, 18.0), demands(2, 1, target=[16.0, 0.0]))
    np.testing.assert_allclose(tight.want, [18.0, 0.0], atol=1e-3)
    wide = allocator.allocate(one_limit(2, 26.0), demands(2, 1, target=[16.0, 0.0]))
    np.testing.assert_allclose(wide.want, [16.0, 10.0], atol=1e-3)


def test_least_served_goes_on_first() -> None:
    """Three cars of 6 A minimum under 13 A: the two least served charge."""
    answer = Allocator(posts(3)).allocate(one_limit(3, 13.0), demands(3, 1, least_served=[0.9, 0.1, 0.5]))
    np.testing.assert_allclose(answer.want, [0.0, 6.5, 6.5], atol=1e-3)


def test_a_dead_row_leaves_the_problem() -> None:
    """EVSEs under a limit with no capacity left get 0, the others are not held back."""
    site = linear([[1, 1, 0], [1, 1, 1]], [0.0, 20.0])
    answer = Allocator(posts(3)).allocate(site, demands(3, 2))
    np.testing.assert_allclose(answer.want, [0.0, 0.0, 20.0], atol=1e-3)
    np.testing.assert_array_equal(answer.binding_limit, [0, 0, 1])
    assert answer.certificate.holds


def test_reserve_is_free() -> None:
    """A reserve of 10 A that the row counts anyway is granted; the rest of 30 A goes to the other car."""
    answer = Allocator(posts(2)).allocate(one_limit(2, 30.0), demands(2, 1, floor=[10.0, 0.0], weight=[0.01, 1.0]))
    np.testing.assert_allclose(answer.want, [10.0, 20.0], atol=1e-3)


def test_an_idle_reserve_takes_room() -> None:
    """An idle post whose reserve is 8 A leaves 22 of 30 A."""
    answer = Allocator(posts(2)).allocate(one_limit(2, 30.0), demands(2, 1, floor=[8.0, 0.0], upper=[0.0, 32.0]))
    np.testing.assert_allclose(answer.want, [0.0, 22.0], atol=1e-3)


@pytest.mark.parametrize(("held", "left"), [(0.0, 30.0), (20.0, 10.0), (26.0, 0.0), (40.0, 0.0)])
def test_what_a_silent_post_holds_counts_where_the_reserves_do_not_fit(held: float, left: float) -> None:
    """Reserves of 24 + max(12, held) A under 30: the limit is obeyed with live ceilings, and the silent post's is one.

    What is left, 4 A, is below the minimum; and what exceeds the limit alone leaves nothing. The limit is told.
    """
    asked = demands(3, 1, floor=[max(held, 12.0), 12.0, 12.0], silent=[held, 0.0, 0.0], upper=[0.0, 32.0, 0.0])
    answer = Allocator(posts(3)).allocate(one_limit(3, 30.0), asked)
    np.testing.assert_allclose(answer.want, [0.0, left, 0.0], atol=1e-6)
    assert answer.binding_limit[1] == 0


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(WHOLE_AMPERES, [11.0, 10.0, 10.0]), (EIGHTS, [8.0, 8.0, 8.0]), (CONTINUOUS, [31.0 / 3] * 3)],
)
def test_pilot_steps_use_the_limit(steps: np.ndarray, expected: list[float]) -> None:
    """31 A for three equal cars: whole amperes leave nothing over; steps of 8 A leave 7."""
    answer = Allocator(posts(3, steps)).allocate(one_limit(3, 31.0), demands(3, 1))
    total = one_limit(3, 31.0).limit_flow(answer.want)[0]
    assert total <= 31.0 + 1e-6
    np.testing.assert_allclose(sorted(answer.want, reverse=True), expected, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 24), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_allocation_is_safe_and_proved(count: int, seed: int, cones: bool, stepped: bool) -> None:
    """Random sites and demands: rows hold with the reserve, bounds hold, 0 or >= minimum, and the certificate holds."""
    rng = np.random.default_rng(seed)
    site = delta_wye(count, seed, 8.0 * count) if cones else random_tree(count, seed)
    wish = demands(
        count,
        len(site.capacity),
        weight=np.exp(rng.normal(0.0, 1.0, count)),
        upper=np.where(rng.random(count) < 0.2, 0.0, rng.uniform(4.0, 32.0, count)),
        minimum=rng.choice([6.0, 8.0], count),
        floor=np.where(rng.random(count) < 0.2, 2.0, 0.0),
        priority=rng.integers(0, 2, count),
        target=np.where(rng.random(count) < 0.5, 32.0, 10.0),
        uncontrolled=np.where(rng.random(len(site.capacity)) < 0.2, 0.3, 0.0) * site.capacity,
    )
    answer = Allocator(posts(count, WHOLE_AMPERES if stepped else CONTINUOUS)).allocate(site, wish)
    assert np.all(answer.want <= wish.upper)
    assert np.all((answer.want == 0.0) | (answer.want >= wish.minimum - 1e-9))
    headroom = site.capacity - wish.uncontrolled
    fits = site.limit_flow(wish.floor) <= headroom
    counted = site.limit_flow(np.maximum(answer.want, wish.floor))
    assert np.all(counted[fits] <= headroom[fits] + 1e-6)
    assert np.all(site.limit_flow(answer.want) <= headroom + 1e-6)
    assert answer.certificate.holds
    held = (wish.upper >= wish.minimum) & (answer.want < np.floor(wish.upper))
    assert np.all(answer.binding_limit[held] >= 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10**6), st.booleans(), st.sampled_from([CONTINUOUS, WHOLE_AMPERES, EIGHTS]))
def test_a_lower_class_takes_nothing_from_a_higher(count: int, seed: int, cones: bool, steps: np.ndarray) -> None:
    """The higher class gets what it would get alone, on trees and cones, continuous or in steps."""
    rng = np.random.default_rng(seed)
    site = delta_wye(count, seed, float(rng.uniform(3.0, 20.0) * count)) if cones else random_tree(count, seed)
    wish = demands(
        count,
        len(site.capacity),
        weight=np.exp(rng.normal(0.0, 1.0, count)),
        upper=rng.choice([16.0, 32.0], count),
        minimum=np.full(count, 6.0),
        priority=rng.integers(0, 2, count),
        least_served=rng.uniform(0.0, 20.0, count),
    )
    higher = wish.priority == 1
    upper = np.where(higher, wish.upper, 0.0)
    alone = replace(wish, upper=upper, target=upper)
    both, own = (Allocator(posts(count, steps)).allocate(site, one).want for one in (wish, alone))
    np.testing.assert_allclose(both[higher], own[higher], atol=1e-3)


def test_the_same_question_gets_the_same_answer_object() -> None:
    """Nothing changed: the memo answers; a change of one capacity is noticed."""
    allocator, site, wish = Allocator(posts(3)), one_limit(3, 48.0), demands(3, 1)
    first = allocator.allocate(site, wish)
    assert allocator.allocate(replace(site, capacity=site.capacity.copy()), wish) is first
    assert allocator.allocate(replace(site, capacity=np.array([24.0])), wish) is not first


def test_warm_prices_settle() -> None:
    """Fed back its own prices, an unchanged tick returns bit-equal prices and wants, so that replays agree."""
    allocator, site = Allocator(posts(30)), random_tree(30, 4)
    wish = demands(30, len(site.capacity), target=np.full(30, 9.0), priority=np.arange(30) % 2)
    first = allocator.allocate(site, wish)
    second = Allocator(posts(30)).allocate(site, wish, first.warm)
    third = Allocator(posts(30)).allocate(site, wish, second.warm)
    np.testing.assert_array_equal(third.warm.price, second.warm.price)
    np.testing.assert_array_equal(third.want, second.want)
    np.testing.assert_allclose(second.want, first.want, atol=1e-9)
    assert second.certificate.iterations <= first.certificate.iterations
    assert first.certificate.path == "kernel"


def test_minima_that_fill_a_row_leave_nothing_to_solve() -> None:
    """Two minima of 6 A under exactly 12 A: both are on at 6 A, and no solver ran for them."""
    answer = Allocator(posts(2)).allocate(one_limit(2, 12.0), demands(2, 1))
    np.testing.assert_array_equal(answer.want, [6.0, 6.0])
    assert answer.certificate.iterations == 0
    np.testing.assert_array_equal(answer.binding_limit, [0, 0])


TENTHS = np.array([0.0, *np.arange(60, 321) / 10.0])
"""Ceilings in steps of 0.1 A."""
ON_A_TREE = Tree(
    parent=np.array([-1, 0]),
    node=np.array([0, 1]),
    phase_bits=np.array([1, 1]),
    gain=np.ones(2),
    row=np.array([[0, -1, -1], [1, -1, -1]]),
    scale=np.ones(2),
)


@pytest.mark.parametrize("tree", [ON_A_TREE, None], ids=["kernel", "conic"])
def test_each_is_held_by_the_limit_that_stopped_its_own_class(tree: Tree | None) -> None:
    """23.4 A for both, of which EVSE 1 may have 6.55: 16 A for the higher class by its steps, 6.5 A for the lower.

    The higher one was stopped by the first limit, at weight / 23.4. That has 0.9 A left, nine steps of the lower one,
    which its own limit holds, at 1 / 6.55.
    """
    both = replace(posts(2), pilot_steps=(EIGHTS, TENTHS))
    limits = replace(linear([[1.0, 1.0], [0.0, 1.0]], [23.4, 6.55]), tree=tree)
    answer = Allocator(both).allocate(limits, demands(2, 2, priority=np.array([5, 0]), weight=np.array([100.0, 1.0])))
    np.testing.assert_allclose(answer.want, [16.0, 6.5])
    np.testing.assert_array_equal(answer.binding_limit, [0, 1])
    np.testing.assert_allclose(answer.price, [100.0 / 23.4, 1.0 / 6.55], rtol=1e-4)


@pytest.mark.parametrize(("high_a", "path"), [(10.0, "kernel"), (0.9, "conic")])
def test_cones_that_hold_nobody_are_only_looked_at(high_a: float, path: str) -> None:
    """One-phase posts behind a delta winding: the feeder's sums decide alone, or the high side does, too.

    Either way the answer is the one of all rows together, which says so itself.
    """
    drawing = Drawing()
    high, low, panel = drawing.bus(20_000.0), drawing.bus(400.0), drawing.bus(400.0)
    drawing.supply(high)
    drawing.transformer(high, low, high_a, 500.0, "Dyn5")
    drawing.feeder(low, panel, 60.0)
    for connection in ("l1", "l1", "l1", "l2", "l2", "l123", "l123"):
        drawing.evse(panel, connection)
    electrical = drawing.electrical()
    limits = build_rows(electrical, normal_positions(electrical)).limits
    assert limits.imag.nnz > 0
    asked = demands(7, len(limits.capacity), weight=np.array([1.0, 2.0, 1.0, 1.0, 3.0, 1.0, 2.0]))
    with_tree = Allocator(posts(7)).allocate(limits, asked)
    without = Allocator(posts(7)).allocate(replace(limits, tree=None), asked)
    assert with_tree.certificate.path == path
    assert without.certificate.path == "conic"
    assert with_tree.certificate.holds
    np.testing.assert_allclose(with_tree.want, without.want, atol=1e-4)
    assert np.all(limits.limit_flow(with_tree.want) <= limits.capacity + 1e-6)
