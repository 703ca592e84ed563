"""Ramps: down at once, up at most so much a second, where the site file says so.

A post at ceiling g may be raised to ``reach``, which grows by ramp x time from g on. While a raise waits for the next
pilot step the reach goes on growing, but never beyond that step: a pause is not saved up for a jump later. From 0 a
raise goes straight to the minimum, since nothing between can be granted. The ramp holds a *grant* back, not the want:
who ramps keeps his share.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from powerd.limits import Floats

JUST_ABOVE = 1e-6
"""Finds the step after one that is itself a step [own unit]."""


def watch_reach(
    reach: Floats, ceiling: Floats, ramp: Floats, next_step_up: Callable[[Floats], Floats], seconds: float
) -> Floats:
    """(n,) up to where each EVSE may be raised now [own unit].

    Args:
        reach: (n,) as of the last step.
        ceiling: (n,) in force.
        ramp: (n,) most that it may rise [own unit/s]; inf = at will.
        next_step_up: (n,) -> (n,) smallest ceiling the posts can take that is not below; itself where continuous.
        seconds: since the last step.
    """
    free = ~np.isfinite(ramp)
    if free.all():
        return np.full(ceiling.shape, np.inf)
    next_step = next_step_up(ceiling + JUST_ABOVE)
    saved = np.maximum(ceiling, np.minimum(reach, next_step))
    grown: Floats = saved + np.where(free, 0.0, ramp) * seconds
    return np.where(free, np.inf, grown)


def ramped(want: Floats, ceiling: Floats, minimum: Floats, reach: Floats) -> Floats:
    """(n,) the want as far as the ramps let it: decreases whole, increases up to ``reach`` or the minimum."""
    return np.where(want > ceiling, np.minimum(want, np.maximum(reach, minimum)), want)
