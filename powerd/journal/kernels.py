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
def changes(words: Ints, width: int) -> int:
    """How many words (k,) are others than the one ``width`` before."""
    found = 0
    for i in range(width, words.shape[0]):
        found += words[i] != words[i - width]
    return found


@kernel
def places(words: Ints, width: int, count: int) -> Counts:
    """(count,) where these are, ``count`` being what ``changes`` found."""
    found = np.empty(count, np.uint32)
    k = 0
    for first in range(width, words.shape[0], BLOCK):
        last = min(first + BLOCK, words.shape[0])
        other = 0
        for i in range(first, last):
            other |= words[i] ^ words[i - width]
        if other != 0:
            for i in range(first, last):
                if words[i] != words[i - width]:
                    found[k] = i
                    k += 1
    return found


@kernel
def counted(column: Floats, step: float, up: bool) -> tuple[Counts, bool]:
    """(n,) steps of the largest entry of each row (n, k), so many to one unit, and whether all of them have a count.

    Args:
        column: (n, k) any floats.
        step: how many make one unit.
        up: the next step that is not below, of whole steps the same; else the nearest.
    """
    counts = np.zeros(column.shape[0], np.uint32)
    for i in range(column.shape[0]):
        most = column[i, 0]
        for k in range(1, column.shape[1]):
            most = np.maximum(most, column[i, k])
        count = np.floor(most * step) if up else np.rint(most * step)
        if up and count / step < most:
            count += 1.0
        if not 0.0 <= count <= MOST_STEPS:  # also nan
            return counts, False
        counts[i] = np.uint32(count)
    return counts, True
