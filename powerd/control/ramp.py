"""Ramps: down at once, up at most so much a second, where the site file says so.

A post at ceiling g may be raised to ``reach``, which grows by ramp x time from g on. While a raise waits for the next
pilot step the reach goes on growing, but never beyond that step: a pause is not saved up for a jump later. From 0 a
raise goes straight to the minimum, since nothing between can be granted. The ramp holds a *grant* back, not the want:
who ramps keeps his share.
"""

from __future__ import annotations

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Floats

JUST_ABOVE = 1e-6
"""Finds the step after one that is itself a step [own unit]."""


@kernel
def reach_after(reach: float, ceiling: float, ramp: float, next_step: float, seconds: float) -> float:
    """Up to where an EVSE may be raised now [own unit].

    Args:
        reach: as of the last step.
        ceiling: in force.
        ramp: most that it may rise [own unit/s]; inf = at will.
        next_step: smallest ceiling that the post can take above ``ceiling``; just above it where it is continuous.
        seconds: since the last step.
    """
    if not np.isfinite(ramp):
        return np.inf
    saved = np.maximum(ceiling, np.minimum(reach, next_step))
    return float(saved + ramp * seconds)


def ramped(want: Floats, ceiling: Floats, minimum: Floats, reach: Floats) -> Floats:
    """(n,) the want as far as the ramps let it: decreases whole, increases up to ``reach`` or the minimum."""
    return np.where(want > ceiling, np.minimum(want, np.maximum(reach, minimum)), want)
