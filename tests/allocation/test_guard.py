"""The guard is safe on any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.allocation.demands import order_of_service
from powerd.allocation.guard import admit_raises, shed
from powerd.allocation.steps import PilotSteps, no_steps
from powerd.limits import Floats, Limits
from tests.allocation.sites import delta_wye, demands, limits, linear, one_limit, random_tree

NASTY = st.one_of(
    st.floats(0.0, 80.0),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 6.0, 32.0, -1.0, np.nan, np.inf, -np.inf, 1e300, 5e-324]),
)


def _columns(draw: st.DrawFn, count: int, values: st.SearchStrategy[float] = NASTY) -> Floats:
    return np.array(draw(st.lists(values, min_size=count, max_size=count)), dtype=np.float64)


def _whole_amperes(count: int) -> PilotSteps:
    return PilotSteps(first=np.zeros(count, np.int64), last=np.full(count, 27), value=np.arange(6.0, 33.0))


@st.composite
def sites(draw: st.DrawFn) -> Limits:
    """A tree or a delta-wye garage; capacities may be anything at all."""
    count = draw(st.integers(1, 20))
    seed = draw(st.integers(0, 10**6))
    site = random_tree(count, seed) if draw(st.booleans()) else delta_wye(count, seed, 90.0)
    if draw(st.booleans()):
        site = limits(site.real.toarray(), site.imag.toarray(), site.limit_of_row, _columns(draw, len(site.capacity)))
    site.energized[:] = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return site


def _clean(values: Floats) -> Floats:
    return np.where(np.isfinite(values) & (values > 0.0), values, 0.0)


def _headroom(site: Limits, uncontrolled: Floats) -> Floats:
    load = np.where(np.isfinite(uncontrolled), np.maximum(uncontrolled, 0.0), np.inf)
    return np.maximum(_clean(site.capacity) - load, 0.0)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_shed_holds_every_row_whatever_comes_in(data: st.DataObject) -> None:
    """Any floats in: ceilings out are never above those given, 0 or >= the minimum, on a step, and within each row."""
    site = data.draw(sites())
    count = site.real.shape[1]
    ceilings, minimum, floor, silent = (data.draw(st.composite(_columns)(count)) for _ in range(4))
    uncontrolled = data.draw(st.composite(_columns)(len(site.capacity)))
    priority = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count)))
    steps = _whole_amperes(count) if data.draw(st.booleans()) else no_steps(count)
    result = shed(site, uncontrolled, ceilings, minimum, floor, order_of_service(priority), silent=silent, steps=steps)
    assert np.all(result >= 0.0)
    assert np.all(result <= _clean(ceilings))
    assert np.all((result == 0.0) | (result >= minimum - 1e-9) | (minimum < 0.0))
    assert np.all(result[~site.energized] == 0.0)
    headroom = _headroom(site, uncontrolled)
    assert np.all(site.limit_flow(result) <= headroom + 1e-9 * (1.0 + headroom))
    if steps.value.size:
        assert set(result) <= {0.0, *np.arange(6.0, 33.0)}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 25), st.integers(0, 10**6), st.booleans())
def test_shed_counts_the_reserve_wherever_it_fits(count: int, seed: int, cones: bool) -> None:
    """Rows whose floors fit hold for max(x, floor); and what holds already is returned unchanged."""
    rng = np.random.default_rng(seed)
    site = delta_wye(count, seed, 20.0 * count) if cones else random_tree(count, seed)
    floor = np.where(rng.random(count) < 0.5, rng.uniform(0.0, 8.0, count), 0.0)
    nothing, minimum, priority = np.zeros(len(site.capacity)), np.full(count, 6.0), rng.integers(0, 3, count)
    result = shed(site, nothing, rng.uniform(0.0, 40.0, count), minimum, floor, order_of_service(priority))
    fits = site.limit_flow(floor) <= site.capacity
    counted = site.limit_flow(np.maximum(result, floor))
    assert np.all(counted[fits] <= site.capacity[fits] + 1e-9 * (1.0 + site.capacity[fits]))
    np.testing.assert_array_equal(shed(site, nothing, result, minimum, floor, order_of_service(priority)), result)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 25), st.integers(0, 10**6), st.booleans())
def test_shed_counts_what_silent_posts_hold_under_every_limit(count: int, seed: int, cones: bool) -> None:
    """Also where the floors do not fit: the others get what is left beside it, nothing where it is too much alone."""
    rng = np.random.default_rng(seed)
    site = delta_wye(count, seed, 10.0 * count) if cones else random_tree(count, seed)
    silent = np.where(rng.random(count) < 0.3, rng.uniform(6.0, 32.0, count), 0.0)
    floor = np.maximum(silent, 8.0)
    asked = np.where(silent > 0.0, 0.0, rng.uniform(0.0, 40.0, count))
    nothing, minimum = np.zeros(len(site.capacity)), np.full(count, 6.0)
    result = shed(site, nothing, asked, minimum, floor, silent=silent)
    fits = site.limit_flow(silent) <= site.capacity
    counted = site.limit_flow(np.maximum(result, silent))
    assert np.all(counted[fits] <= site.capacity[fits] + 1e-9 * (1.0 + site.capacity[fits]))
    assert np.all(site.limit_flow(result)[~fits] == 0.0)


def test_ten_cars_under_59_amperes_keep_nine() -> None:
    """A limit that drops to 59 A under ten cars at 6 A switches one off, though their reserves alone are 60 A."""
    six = np.full(10, 6.0)
    result = shed(one_limit(10, 59.0), np.zeros(1), six, six, six, order_of_service(np.arange(10)))
    np.testing.assert_array_equal(result, [0.0] + [6.0] * 9)


def test_exactly_full_switches_nobody_off() -> None:
    """Ten cars at 6 A under 60 A all stay, although the row has no room at all."""
    six = np.full(10, 6.0)
    np.testing.assert_array_equal(shed(one_limit(10, 60.0), np.zeros(1), six, six, six), six)


def test_scaling_is_proportional_above_the_minimum() -> None:
    """30 A for ceilings 16 and 26 with minimum 6: both keep 6 and the same share of what is above it."""
    result = shed(one_limit(2, 30.0), np.zeros(1), np.array([16.0, 26.0]), np.full(2, 6.0), np.zeros(2))
    np.testing.assert_allclose(result, [12.0, 18.0])


def test_shedding_spares_what_is_not_under_the_limit() -> None:
    """Only cars under the fallen limit are touched."""
    site = linear([[1, 1, 0], [1, 1, 1]], [10.0, 96.0])
    result = shed(
        site, np.zeros(2), np.full(3, 16.0), np.full(3, 6.0), np.zeros(3), order_of_service(np.array([0, 1, 0]))
    )
    np.testing.assert_allclose(result, [0.0, 10.0, 16.0])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_raises_fit_the_worst_case(data: st.DataObject) -> None:
    """Where a ceiling rose, all its rows hold for max(x, W); a row that W alone exceeds lets nothing rise."""
    site = data.draw(sites())
    count = site.real.shape[1]
    current, wanted, minimum = (data.draw(st.composite(_columns)(count)) for _ in range(3))
    worst = data.draw(st.composite(_columns)(count, st.one_of(st.floats(0.0, 10.0), NASTY)))
    uncontrolled = data.draw(st.composite(_columns)(len(site.capacity), st.one_of(st.floats(0.0, 5.0), NASTY)))
    result = admit_raises(site, uncontrolled, worst, current, wanted, minimum)
    rose = result > _clean(current)
    assert np.all(result >= 0.0)
    assert np.all(result <= np.maximum(_clean(wanted), 0.0))
    assert np.all((result == 0.0) | (result >= minimum - 1e-9) | (minimum < 0.0))
    known_worst = np.where(np.isfinite(worst), np.maximum(worst, 0.0), np.inf)
    headroom = _headroom(site, uncontrolled)
    for r in range(site.row_count):
        loads = (site.real[[r]].toarray()[0] != 0.0) | (site.imag[[r]].toarray()[0] != 0.0)
        if np.any(rose & loads):
            assert np.all(np.isfinite(known_worst[loads]))
            flow = site.flow(np.where(loads, np.maximum(result, known_worst), 0.0))[r]
            limit = headroom[site.limit_of_row[r]]
            assert flow <= limit + 1e-9 * (1.0 + limit)


def test_a_raise_ends_at_what_is_wanted_to_the_last_bit() -> None:
    """a + (b - a) is above b for some a and b."""
    rng = np.random.default_rng(1)
    current, wanted = rng.uniform(0.0, 6.0, 2000), rng.uniform(6.0, 40.0, 2000)
    assert (current + (wanted - current) > wanted).any()
    nothing = np.zeros(2000)
    result = admit_raises(one_limit(2000, 1e6), np.zeros(1), nothing, current, wanted, nothing)
    np.testing.assert_array_equal(result, wanted)


def test_decreases_are_never_delayed() -> None:
    """A wanted ceiling below the current one is granted at once, even where W forbids every raise."""
    result = admit_raises(
        one_limit(2, 20.0), np.zeros(1), np.full(2, 32.0), np.array([16.0, 6.0]), np.array([8.0, 12.0]), np.full(2, 6.0)
    )
    np.testing.assert_array_equal(result, [8.0, 6.0])


def test_raises_share_what_is_free() -> None:
    """Two equal raisers under 32 A with W = 6 each end at 16 A, not first come first served."""
    six = np.full(2, 6.0)
    result = admit_raises(one_limit(2, 32.0), np.zeros(1), six, six, np.full(2, 32.0), six)
    np.testing.assert_allclose(result, [16.0, 16.0])


def test_a_raise_from_zero_jumps_to_the_minimum_or_stays() -> None:
    """With 9 A free only one of two newcomers starts, at no less than its minimum; the higher class first."""
    zero = np.zeros(2)
    result = admit_raises(
        one_limit(2, 9.0), zero[:1], zero, zero, np.full(2, 16.0), np.full(2, 6.0), order_of_service(np.array([0, 1]))
    )
    np.testing.assert_allclose(result, [0.0, 9.0])


def test_raises_land_on_pilot_steps() -> None:
    """31.5 A free for two cars from 6 A: 16 A and 15 A, whole amperes."""
    six = np.full(2, 6.0)
    result = admit_raises(one_limit(2, 31.5), np.zeros(1), six, six, np.full(2, 32.0), six, steps=_whole_amperes(2))
    np.testing.assert_array_equal(result, [16.0, 15.0])


def test_what_is_followed_between_two_steps_goes_down_to_one() -> None:
    """Another leader granted 10.5 A to a post of whole amperes, beside which nothing may rise: the guard finds 10 A."""
    now, six = np.array([10.5, 6.0]), np.full(2, 6.0)
    result = admit_raises(one_limit(2, 16.5), np.zeros(1), now, now, np.full(2, 32.0), six, steps=_whole_amperes(2))
    np.testing.assert_array_equal(result, [10.0, 6.0])


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_an_unknown_worst_case_stops_every_raise_beside_it(worst: float) -> None:
    """W that is not a number counts as unbounded: nobody rises under the rows of that EVSE."""
    result = admit_raises(
        one_limit(2, 100.0),
        np.zeros(1),
        np.array([worst, 6.0]),
        np.full(2, 6.0),
        np.full(2, 16.0),
        demands(2, 1).minimum,
    )
    np.testing.assert_array_equal(result, [6.0, 6.0])


def test_below_the_reserve_sessions_shrink_before_any_goes_off() -> None:
    """Five reserves of 10 A do not fit 40 A: the limit is obeyed with live ceilings, 8 A each, nobody off."""
    ten = np.full(5, 10.0)
    result = shed(one_limit(5, 40.0), np.zeros(1), ten, np.full(5, 6.0), ten)
    np.testing.assert_allclose(result, 8.0)
