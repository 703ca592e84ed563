"""The loops over columns that a tick is made durable with: one way over memory each, for that is what they wait for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from powerd.compiled import kernel
from powerd.limits import Floats, Ints

Counts = npt.NDArray[np.uint32]
"""Steps or places."""

BLOCK = 256
"""So many words are looked at together: the processor compares them several at a time, and most are equal."""
MOST_STEPS = 4294967295.0
"""More do not fit in ``Counts``."""


@kernel
def differing(words: Ints, width: int, most: int) -> Counts:
    """(k,) places of the words (n,) that are others than the one ``width`` before; above ``most``, some of them."""
    # Two views, for of each ``words[i - width]`` it would be asked whether the place is below 0, one word after the
    # other: 134 us instead of 13 for 10 000 x 6 words.
    above, own = words[: words.shape[0] - width], words[width:]
    found = np.empty(most + BLOCK, np.uint32)
    count = 0
    for block in range((own.shape[0] + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        one, other = above[first : first + BLOCK], own[first : first + BLOCK]
        differs = 0
        for i in range(one.shape[0]):
            differs |= one[i] ^ other[i]
        if differs != 0:
            for i in range(one.shape[0]):
                found[count] = width + first + i
                count += one[i] != other[i]
            if count > most:
                break
    return found[:count]


@kernel
def counted(column: Floats, step: float, up: bool) -> tuple[Counts, bool]:
    """(n,) steps of the largest entry of each row (n, k), so many to one unit, and whether all of them have a count.

    Args:
        column: (n, k) any floats.
        step: how many make one unit.
        up: the next step that is not below, of whole steps the same; else the nearest.
    """
    counts = np.empty(column.shape[0], np.uint32)
    all_have_one = True
    for i in range(column.shape[0]):  # without a way out: the processor takes several rows at a time
        most = column[i, 0]
        for k in range(1, column.shape[1]):
            other = column[i, k]
            most = other if other > most or np.isnan(other) else most
        count = np.floor(most * step) if up else np.rint(most * step)
        if up and count / step < most:
            count += 1.0
        all_have_one &= 0.0 <= count <= MOST_STEPS  # also nan
        counts[i] = np.uint32(count)
    return counts, all_have_one
