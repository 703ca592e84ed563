"""Transformers by symmetrical components against their windings; the subsets of angles against all subsets."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from powerd.network.phasors import Places, carry, worst_subsets
from tests.network.oracle import through_transformer

GRID = st.lists(st.integers(-5, 6).map(lambda k: 30.0 * k), min_size=1, max_size=6, unique=True)
ANY = st.lists(st.floats(-179.0, 180.0), min_size=1, max_size=6)


@pytest.mark.parametrize("clock", [1, 5, 7, 11])
def test_delta_star_equals_its_windings(clock: int) -> None:
    """A delta-star transformer of clock k turns any three currents as the equations of its six windings do."""
    rng = np.random.default_rng(clock)
    place = Places(volts=np.array([20_000.0, 400.0]), clock=np.array([0, clock]), zone=np.array([0, 1]))
    low = rng.normal(size=(5, 3)) + 1j * rng.normal(size=(5, 3))
    got = carry(low, place, np.full(5, 1), np.zeros(5, dtype=np.int64))
    expected = np.array([through_transformer(row, 50.0, True, clock) for row in low])
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_star_star_passes_all_three_currents() -> None:
    """YNyn0 only divides by the ratio, and back again multiplies by it."""
    place = Places(
        volts=np.array([20_000.0, 400.0]), clock=np.zeros(2, dtype=np.int64), zone=np.zeros(2, dtype=np.int64)
    )
    low = np.array([[1.0, 0.0, 0.0]], dtype=np.complex128)
    high = carry(low, place, np.array([1]), np.array([0]))
    np.testing.assert_allclose(high, low / 50, atol=1e-15)
    np.testing.assert_allclose(carry(high, place, np.array([0]), np.array([1])), low, atol=1e-14)


def test_balanced_current_stays_in_phase_through_every_clock() -> None:
    """Whatever the clock, a balanced current in phase with its voltage is in phase with the voltage above."""
    balanced = np.exp(1j * np.radians([[0.0, -120.0, 120.0]]))
    for clock in range(12):
        zone = np.array([0, clock % 2])
        place = Places(volts=np.array([400.0, 400.0]), clock=np.array([0, clock]), zone=zone)
        np.testing.assert_allclose(carry(balanced, place, np.array([1]), np.array([0])), balanced, atol=1e-12)


def _norm(sizes: np.ndarray, theta: np.ndarray, subset: tuple[int, ...]) -> float:
    chosen = list(subset)
    return float(abs((sizes[chosen] * np.exp(1j * theta[chosen])).sum()))


@given(st.one_of(GRID, ANY), st.integers(0, 2**31))
def test_worst_subsets_hold_the_largest_of_all_subsets(angles: list[float], seed: int) -> None:
    """For random magnitudes, zeros among them, no subset of the groups exceeds the largest of those returned."""
    spread = np.sort(angles)
    assume(len(angles) == 1 or np.diff(np.append(spread, spread[0] + 360)).min() > 1e-3)
    theta = np.radians(angles)
    subsets = worst_subsets(tuple(angles))
    every = list(chain.from_iterable(combinations(range(len(angles)), k) for k in range(1, len(angles) + 1)))
    rng = np.random.default_rng(seed)
    for _ in range(20):
        sizes = rng.uniform(0, 1, len(angles)) * rng.integers(0, 2, len(angles))
        largest = max(_norm(sizes, theta, s) for s in every)
        assert max(_norm(sizes, theta, s) for s in subsets) >= largest - 1e-9


@given(GRID)
def test_few_subsets_are_enough(angles: list[float]) -> None:
    """At most 2m sets for m angles; one where all lie within 90 degrees of one another."""
    subsets = worst_subsets(tuple(angles))
    assert len(subsets) <= 2 * len(angles)
    spread = (np.array(angles)[:, None] - np.array(angles)[None, :] + 180) % 360 - 180
    if np.abs(spread).max() <= 90:
        assert subsets == (tuple(range(len(angles))),)


def test_delta_primary_needs_three_cones() -> None:
    """Groups at -60, 0 and 60 degrees: all three, and the middle one with each of the others."""
    assert worst_subsets((-60.0, 0.0, 60.0)) == ((0, 1, 2), (0, 1), (1, 2))
