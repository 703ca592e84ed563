"""Which phases count as unused: only what readings have shown for a minute, and never longer than they show it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from powerd.state.phases import STEADY_S, Phases, forget_phases, open_phases, watch_phases

ONE, THREE = [16.0, 0.1, 0.0], [16.0, 15.8, 16.2]


def played(*readings: tuple[list[float], float]) -> Phases:
    """One post whose meter shows each reading for so many seconds, one reading a second."""
    phases, now_s = open_phases(1), 0.0
    for reading, seconds in readings:
        for _ in range(int(seconds)):
            phases = watch_phases(phases, np.array([True]), np.array([reading]), now_s)
            now_s += 1.0
    return phases


def used(*readings: tuple[list[float], float]) -> int:
    return int(played(*readings).used[0])


def test_a_minute_of_readings_tells_the_phases() -> None:
    """One, two or three phases are known after 60 s of readings of them, and not a second before."""
    for reading, bits in ((ONE, 1), ([0.0, 16.0, 0.2], 2), ([16.0, 0.0, 15.5], 5), (THREE, 7)):
        assert used((reading, STEADY_S)) == 0
        assert used((reading, STEADY_S + 1)) == bits


def test_a_current_on_an_unused_phase_ends_it_at_once() -> None:
    """In the tick of the reading the post counts on all its phases again, and that tick alone says so."""
    for back in ([16.0, 6.0, 0.0], [16.0, 0.6, 0.0], [0.0, 16.0, 0.0]):
        phases = played((ONE, 100), (back, 1))
        assert (int(phases.used[0]), bool(phases.returned[0])) == (0, True)
        assert not played((ONE, 100), (back, 2)).returned[0]


def test_a_pause_tells_nothing() -> None:
    """A car that stops drawing keeps what was known; one that has drawn nothing yet is not known."""
    quiet = [0.2, 0.1, 0.0]
    assert used((quiet, 200)) == 0
    assert used((ONE, 100), (quiet, 200)) == 1
    assert used((ONE, 30), (quiet, 200), (ONE, 31)) == 0  # the minute is one of charging


def test_a_car_that_no_longer_draws_in_step_is_not_known() -> None:
    """Three phases of which one falls behind: not in step; after a minute on two of them the two are known."""
    assert used((THREE, 100), ([16.0, 15.8, 12.0], 1)) == 0
    assert used((THREE, 100), ([16.0, 15.8, 0.0], 30)) == 0
    assert used((THREE, 100), ([16.0, 15.8, 0.0], STEADY_S + 2)) == 3


def test_neither_silence_nor_another_car_inherits_it() -> None:
    """When its controller falls silent or the car leaves nothing is known any more."""
    phases = played((ONE, 100))
    assert watch_phases(phases, np.array([False]), np.array([ONE]), 101.0).used[0] == 0
    assert forget_phases(phases, np.array([0])).used[0] == 0


readings = st.lists(
    st.tuples(st.lists(st.sampled_from([0.0, 0.4, 1.5, 6.0, 16.0, 31.9]), min_size=3, max_size=3), st.integers(1, 70)),
    max_size=6,
)


@given(readings)
def test_no_phase_with_current_ever_counts_as_unused(plays: list[tuple[list[float], int]]) -> None:
    """Whatever was read before: a phase on which the newest reading shows more than 0.5 A is among the used ones, and
    what counts as in step shows no two of its phases further apart than the meter's margin.
    """
    phases, now_s = open_phases(1), 0.0
    for reading, seconds in plays:
        for _ in range(seconds):
            phases = watch_phases(phases, np.array([True]), np.array([reading]), now_s)
            now_s += 1.0
            known = int(phases.used[0])
            drawn = [k for k in range(3) if reading[k] > 0.5]
            assert known == 0 or all(known >> k & 1 for k in drawn)
            inside = [reading[k] for k in range(3) if known >> k & 1]
            assert not drawn or not inside or max(inside) - min(inside) <= max(1.0, 0.05 * max(inside))
