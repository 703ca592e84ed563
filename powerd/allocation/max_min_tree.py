"""Weighted max-min on a tree by progressive filling: one level rises, and each row stops those below it when full.

At level T an EVSE takes clip(v_i T, lower_i, upper_i), where v_i is its weight in reference amperes. Flows bend only
where somebody leaves his lower bound or reaches his upper one; sorted by level, these bends and the levels at which
rows fill are the events, and between two of them each flow is a line. A row that fills stops all that still rise below
it; nothing that happens later concerns it. So the answer is exact after one pass over the events (Bertsekas & Gallager,
Data Networks, section 6.5.2), O(n log n) from any start.

When a row will be full is kept as a bound from below, in a heap, and computed anew only when it comes first: while
others stop, that level can only rise. It is computed from the sums of the runs below it, and those from their EVSEs
whenever one of them changed, so that no difference of large sums decides anything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.allocation.forest import Forest
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints

#: Below this many numbers a plain sort is faster than one by digits.
SHORT = 400

#: Digits of a level that are sorted by counting, and how many of them: exponent and 22 bits; the rest by insertion.
DIGIT_BITS, DIGITS = 11, 3

#: What an EVSE does.
WAITING, RISING, HELD = 0, 1, 2


class Filling(NamedTuple):
    """N nodes, R runs, k EVSEs; levels are in own unit per weight."""

    run: Ints
    """(k,) run of each EVSE; -1 in none."""
    share: Floats
    """(k,) reference ampere per level."""
    state: Ints
    """(k,) ``WAITING``, ``RISING`` or ``HELD``."""
    y: Floats
    """(k,) where those that do not rise stand [reference A]."""
    sums: Floats
    """(R, 3) flow of those that do not rise [reference A], shares of those that rise, and of those that will."""
    stale: Bools
    """(R,) where one of the run changed since."""
    key: Floats
    """Heap: levels before which rows are not full, lowest first."""
    row: Ints
    """Which row that is: 3 x node + phase."""


@kernel
def sorted_by_level(level: Floats) -> Ints:
    """Order of positive numbers, smallest first."""
    count = level.shape[0]
    if count < SHORT:
        return np.argsort(level)
    digits = level.view(np.uint64)
    order, other = np.arange(count), np.empty(count, dtype=np.int64)
    shift = 64 - 1 - DIGIT_BITS * DIGITS  # the sign is 0
    for _ in range(DIGITS):
        begin = np.zeros((1 << DIGIT_BITS) + 1, dtype=np.int64)
        for j in range(count):
            begin[((digits[j] >> np.uint64(shift)) & np.uint64((1 << DIGIT_BITS) - 1)) + np.uint64(1)] += 1
        begin = np.cumsum(begin)
        for position in range(count):
            digit = (digits[order[position]] >> np.uint64(shift)) & np.uint64((1 << DIGIT_BITS) - 1)
            other[begin[digit]] = order[position]
            begin[digit] += 1
        order, other = other, order
        shift += DIGIT_BITS
    for position in range(1, count):
        j, place = order[position], position
        while place > 0 and level[order[place - 1]] > level[j]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = j
    return order


@kernel
def _sift(filling: Filling, size: int, at: int) -> None:
    """Let the heap's entry ``at`` sink to its place."""
    key, row = filling.key, filling.row
    level, which = key[at], row[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and key[child + 1] < key[child]:
            child += 1
        if key[child] >= level:
            break
        key[at], row[at] = key[child], row[child]
        at = child
    key[at], row[at] = level, which


@kernel
def _begin(forest: Forest) -> Filling:
    """Everybody at the lower bound, at level 0."""
    evses, runs = forest.evse.shape[0], forest.runs.shape[0]
    filling = Filling(
        np.full(evses, -1, np.int64),
        forest.weight * forest.gain,
        np.full(evses, HELD, np.int64),
        np.zeros(evses),
        np.zeros((runs, 3)),
        np.ones(runs, np.bool_),
        np.empty(3 * forest.nodes.shape[0]),
        np.empty(3 * forest.nodes.shape[0], np.int64),
    )
    for q in range(runs):
        for j in range(forest.runs[q]["first"], forest.runs[q]["last"]):
            filling.run[j] = q
            filling.state[j] = WAITING if forest.lower[j] > 0.0 else RISING
            filling.y[j] = forest.lower[j]
    return filling


@kernel
def _sum_run(forest: Forest, filling: Filling, q: int) -> None:
    """The sums of a run, from its EVSEs."""
    base, slope, waiting = 0.0, 0.0, 0.0
    for j in range(forest.runs[q]["first"], forest.runs[q]["last"]):
        rises = filling.state[j] == RISING
        base += 0.0 if rises else filling.y[j]
        slope += filling.share[j] if rises else 0.0
        waiting += filling.share[j] if filling.state[j] == WAITING else 0.0
    filling.sums[q, 0], filling.sums[q, 1], filling.sums[q, 2] = base, slope, waiting
    filling.stale[q] = False


@kernel
def _sum_row(forest: Forest, filling: Filling, v: int, k: int) -> tuple[float, float, float]:
    """The sums of a row, from its runs."""
    base, slope, waiting = 0.0, 0.0, 0.0
    for q in range(forest.nodes[v]["first"], forest.nodes[v]["last"]):
        if forest.runs[q]["bits"] >> k & 1:
            if filling.stale[q]:
                _sum_run(forest, filling, q)
            base += filling.sums[q, 0]
            slope += filling.sums[q, 1]
            waiting += filling.sums[q, 2]
    return base, slope, waiting


@kernel
def _heap_up(forest: Forest, filling: Filling) -> int:
    """Write the heap of all rows; how many there are."""
    size = 0
    for v in range(forest.nodes.shape[0]):
        for k in range(3):
            room = forest.nodes[v]["room"][k]
            if room < np.inf:
                base, slope, waiting = _sum_row(forest, filling, v, k)
                filling.key[size] = (room - base) / (slope + waiting)
                filling.row[size] = 3 * v + k
                size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sift(filling, size, at)
    return size


@kernel
def _bends(forest: Forest, filling: Filling) -> tuple[Floats, Ints]:
    """Levels at which EVSEs leave their lower and reach their upper bound, and whose they are (j, or -1 - j: lower)."""
    evses = filling.run.shape[0]
    level, whose = np.empty(2 * evses), np.empty(2 * evses, np.int64)
    count = 0
    for j in range(evses):
        if filling.state[j] == HELD:
            continue
        level[count] = forest.upper[j] / filling.share[j]
        whose[count] = j
        count += 1
        if filling.state[j] == WAITING:
            level[count] = forest.lower[j] / filling.share[j]
            whose[count] = -1 - j
            count += 1
    return level[:count].copy(), whose[:count]


@kernel
def _bend(forest: Forest, filling: Filling, whose: int) -> None:
    """Somebody leaves his lower bound or reaches his upper one."""
    j = whose if whose >= 0 else -1 - whose
    if whose < 0 and filling.state[j] == WAITING:
        filling.state[j] = RISING
        filling.stale[filling.run[j]] = True
    elif whose >= 0 and filling.state[j] == RISING:
        filling.state[j] = HELD
        filling.y[j] = forest.upper[j]
        filling.stale[filling.run[j]] = True


@kernel
def _stop(forest: Forest, filling: Filling, v: int, k: int, level: float) -> None:
    """Hold all that still rise or wait below a row."""
    for q in range(forest.nodes[v]["first"], forest.nodes[v]["last"]):
        run = forest.runs[q]
        if run["bits"] >> k & 1 and filling.sums[q, 1] + filling.sums[q, 2] > 0.0:
            for j in range(run["first"], run["last"]):
                if filling.state[j] == RISING:
                    filling.y[j] = min(max(filling.share[j] * level, forest.lower[j]), forest.upper[j])
                filling.state[j] = HELD
            filling.stale[q] = True


@kernel
def _look_at_first(forest: Forest, filling: Filling, size: int, level: float, bend: float) -> bool:
    """Look at the row that may be full first: stop those below it, or say anew when it may be full.

    Args:
        forest: the stage.
        filling: in place.
        size: of the heap.
        level: reached so far.
        bend: level of the next bend.

    Returns:
        Whether the row is done with.
    """
    v, k = filling.row[0] // 3, filling.row[0] % 3
    base, slope, waiting = _sum_row(forest, filling, v, k)
    if slope + waiting == 0.0:
        return True  # all below it are held by others
    others = bend
    for child in range(1, min(3, size)):
        others = min(others, filling.key[child])
    room = forest.nodes[v]["room"][k]
    full = (room - base) / slope if slope > 0.0 else np.inf
    if full <= others:
        _stop(forest, filling, v, k, full)
        forest.nodes[v]["price"][k] = 1.0 / full if full > 0.0 else 0.0
        return True
    if full > bend:  # somebody may begin to rise before
        full = max(level + (room - base - slope * level) / (slope + waiting), bend)
    filling.key[0] = full
    return False


@kernel
def fill(forest: Forest) -> tuple[Floats, int]:
    """Raise the level until nobody rises any more.

    Returns:
        What every EVSE takes (k,) [reference A], and how many rows were looked at; ``price`` of a row is written:
        1 / level where the row stopped somebody.
    """
    forest.nodes["price"][:] = 0.0
    filling = _begin(forest)
    bends, whose = _bends(forest, filling)
    order = sorted_by_level(bends)
    size = _heap_up(forest, filling)
    level = 0.0
    looks = 0
    passed = 0
    while passed < order.shape[0]:
        bend = bends[order[passed]]
        if size > 0 and filling.key[0] < bend:
            looks += 1
            level = max(level, filling.key[0])
            if _look_at_first(forest, filling, size, level, bend):
                size -= 1
                filling.key[0], filling.row[0] = filling.key[size], filling.row[size]
            _sift(filling, size, 0)
        else:
            level = bend
            _bend(forest, filling, whose[order[passed]])
            passed += 1
    return filling.y, looks
