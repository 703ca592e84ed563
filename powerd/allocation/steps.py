"""Pilot steps: the ceilings a post can really take, packed so that kernels can search them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Floats, Ints, Posts

#: A minimum this little above a step is met by that step [own unit]: 6.2 and 62 x 0.1 differ by rounding alone.
SNAP = 1e-9


class PilotSteps(NamedTuple):
    """Ascending steps of all posts; those of EVSE i are at ``first[i]:last[i]``, none = continuous.

    Posts of one kind share their steps: a site has few kinds, whose steps stay in the processor's nearest memory.
    """

    first: Ints
    """(n,)"""
    last: Ints
    """(n,)"""
    value: Floats
    """Steps above 0 of each kind [own unit]."""


def pack_steps(posts: Posts) -> PilotSteps:
    """The steps above 0 of every post, packed."""
    first, last = np.zeros(posts.count, dtype=np.int64), np.zeros(posts.count, dtype=np.int64)
    kinds: dict[bytes, tuple[int, int]] = {}
    values: list[Floats] = []
    packed = 0
    for i, given in enumerate(posts.pilot_steps):
        steps = np.asarray(given, dtype=np.float64)
        found = kinds.get(steps.tobytes())
        if found is None:
            above_zero = steps[steps > 0.0]
            if steps.size and not above_zero.size:
                # A post whose only step is 0 can be granted nothing: keep it discrete with a step nobody reaches.
                above_zero = np.array([np.inf])
            values.append(above_zero)
            found = kinds[steps.tobytes()] = packed, packed + above_zero.shape[0]
            packed = found[1]
        first[i], last[i] = found
    return PilotSteps(first=first, last=last, value=np.concatenate([*values, np.zeros(0)]))


def no_steps(count: int) -> PilotSteps:
    """``count`` continuous posts."""
    nowhere = np.zeros(count, dtype=np.int64)
    return PilotSteps(first=nowhere, last=nowhere, value=np.zeros(0))


@kernel
def is_continuous(steps: PilotSteps, i: int) -> bool:
    """EVSE ``i`` can take any ceiling above its minimum."""
    return bool(steps.first[i] == steps.last[i])


@kernel
def step_down(steps: PilotSteps, i: int, x: float) -> float:
    """Largest ceiling EVSE ``i`` can take that is <= x (0 if none)."""
    first, last = steps.first[i], steps.last[i]
    if first == last:
        return x
    position = first + np.searchsorted(steps.value[first:last], x, side="right")
    return steps.value[position - 1] if position > first else 0.0


@kernel
def step_up(steps: PilotSteps, i: int, x: float) -> float:
    """Smallest ceiling EVSE ``i`` can take that is >= x; infinite if none, x itself if continuous."""
    first, last = steps.first[i], steps.last[i]
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
