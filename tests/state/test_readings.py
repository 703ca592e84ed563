"""The grain of readings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from powerd.state.readings import STEP, STEPS, rounded_down


@given(drawn=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=9))
def test_a_reading_is_rounded_to_the_step_below(drawn: list[float]) -> None:
    """Never above what was shown, less than a step below it, and a whole number of steps."""
    shown = np.array(drawn)
    rounded = rounded_down(shown)
    assert (rounded <= shown).all()
    assert (shown < rounded + STEP * (1.0 + 1e-6)).all()
    assert np.array_equal(np.rint(rounded * STEPS) / STEPS, rounded)


@given(steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=9))
def test_what_is_whole_steps_stays(steps: list[int]) -> None:
    """As it is read from a text of three decimals: 4.35 A is 4.35 A, although 4.35 * 1000 is less than 4350."""
    shown = np.array([float(f"{step // 1000}.{step % 1000:03}") for step in steps])
    assert rounded_down(shown).tobytes() == shown.tobytes()
