"""Pilot steps: the ceilings a post can really take, packed so that kernels can search them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Floats, Ints, Posts

#: A minimum this little above a step is met by that step [own unit]: 6.2 and 62 x 0.1 differ by rounding alone.
SNAP = 1e-9


class PilotSteps(NamedTuple):
    """Ascending steps of all posts; those of EVSE i are at ``start[i]:start[i + 1]``, none = continuous."""

    start: Ints
    """(n + 1,)"""
    value: Floats
    """Steps above 0 [own unit]."""


def pack_steps(posts: Posts) -> PilotSteps:
    """The steps above 0 of every post, packed."""
    above_zero = [np.asarray(steps, dtype=np.float64)[np.asarray(steps) > 0.0] for steps in posts.pilot_steps]
    # A post whose only step is 0 can be granted nothing: keep it discrete with a step nobody reaches.
    above_zero = [
        np.array([np.inf]) if given.size and not kept.size else kept
        for given, kept in zip(posts.pilot_steps, above_zero, strict=True)
    ]
    start = np.zeros(posts.count + 1, dtype=np.int64)
    np.cumsum([kept.shape[0] for kept in above_zero], out=start[1:])
    value = np.concatenate(above_zero) if above_zero else np.zeros(0)
    return PilotSteps(start=start, value=np.ascontiguousarray(value, dtype=np.float64))


def no_steps(count: int) -> PilotSteps:
    """``count`` continuous posts."""
    return PilotSteps(start=np.zeros(count + 1, dtype=np.int64), value=np.zeros(0))


@kernel
def step_down(steps: PilotSteps, i: int, x: float) -> float:
    """Largest ceiling EVSE ``i`` can take that is <= x (0 if none)."""
    first = steps.start[i]
    last = steps.start[i + 1]
    if first == last:
        return x
    position = first + np.searchsorted(steps.value[first:last], x, side="right")
    return steps.value[position - 1] if position > first else 0.0


@kernel
def step_up(steps: PilotSteps, i: int, x: float) -> float:
    """Smallest ceiling EVSE ``i`` can take that is >= x; infinite if none, x itself if continuous."""
    first = steps.start[i]
    last = steps.start[i + 1]
    if first == last or x <= 0.0:
        return x
    position = first + np.searchsorted(steps.value[first:last], x - SNAP, side="left")
    return steps.value[position] if position < last else np.inf


@kernel
def up_if_any(steps: PilotSteps, i: int, x: float) -> float:
    """``step_up``; x itself where the post has no such step."""
    above = step_up(steps, i, x)
    return above if above < np.inf else x


@kernel
def all_down(steps: PilotSteps, x: Floats) -> Floats:
    """``step_down`` for every EVSE (n,)."""
    result = np.empty_like(x)
    for i in range(x.shape[0]):
        result[i] = step_down(steps, i, x[i])
    return result


@kernel
def all_up(steps: PilotSteps, x: Floats) -> Floats:
    """``up_if_any`` for every EVSE (n,)."""
    result = np.empty(x.shape[0])
    for i in range(x.shape[0]):
        result[i] = up_if_any(steps, i, x[i])
    return result
