"""The guard's loops. Row flows are complex (real, imag); a linear row has no imaginary part.

Interpolation: a limit's largest row norm is convex in the ceilings, so between a state that fits (norm b) and one that
does not (norm t) the fraction (headroom - b) / (t - b) fits; and because a phasor limit is imposed on every subset of
its angle groups, the admitted set is closed downward: each EVSE may use the smallest fraction of the limits above it.
"""

from __future__ import annotations

import numpy as np

from powerd.allocation.rows import Columns, add_flow, fits, headroom_of, size_of, trust
from powerd.allocation.steps import PilotSteps, step_down, step_up
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints


@kernel
def overdrawn_limits(limit_of_row: Ints, headroom: Floats, limit_count: int, real: Floats, imag: Floats) -> Bools:
    """(L,) True where some row of the limit does not hold."""
    over = np.zeros(limit_count, dtype=np.bool_)
    for r in range(limit_of_row.shape[0]):
        if not fits(real[r], imag[r], headroom[r]):
            over[limit_of_row[r]] = True
    return over


@kernel
def under_limits(columns: Columns, limit_of_row: Ints, marked: Bools) -> Bools:
    """(n,) True where the EVSE loads a row of a marked limit."""
    under = np.zeros(columns.start.shape[0] - 1, dtype=np.bool_)
    if marked.any():
        for i in range(under.shape[0]):
            under[i] = under_limit(columns, limit_of_row, i, marked)
    return under


@kernel
def under_limit(columns: Columns, limit_of_row: Ints, i: int, marked: Bools) -> bool:
    """Whether EVSE ``i`` loads a row of a marked limit."""
    loads = False
    for k in range(columns.start[i], columns.start[i + 1]):
        loads = loads or marked[limit_of_row[columns.row[k]]]
    return loads


@kernel
def least_ceiling(minimum: float, steps: PilotSteps, i: int) -> float:
    """Smallest ceiling above 0 of EVSE ``i``; infinite (never on) where the minimum is not a number."""
    return step_up(steps, i, max(minimum, 0.0)) if -np.inf < minimum < np.inf else np.inf


@kernel
def column_fits(columns: Columns, i: int, step: float, headroom: Floats, real: Floats, imag: Floats) -> bool:
    """Whether EVSE ``i`` can add ``step`` to the flows (real, imag) and every row it loads still holds."""
    for k in range(columns.start[i], columns.start[i + 1]):
        r = columns.row[k]
        across = 0.0 if columns.is_linear else imag[r] + columns.imag[k] * step
        if not fits(real[r] + columns.real[k] * step, across, headroom[r]):
            return False
    return True


@kernel
def add_column(columns: Columns, i: int, step: float, real: Floats, imag: Floats) -> None:
    """Add ``step`` of EVSE ``i`` to the flows in place."""
    for k in range(columns.start[i], columns.start[i + 1]):
        real[columns.row[k]] += columns.real[k] * step
        if not columns.is_linear:
            imag[columns.row[k]] += columns.imag[k] * step


@kernel
def common_fractions(
    limit_of_row: Ints,
    headroom: Floats,
    limit_count: int,
    low_real: Floats,
    low_imag: Floats,
    high_real: Floats,
    high_imag: Floats,
) -> Floats:
    """(L,) how far each limit lets the flows go from low (which fits) to high: 0 ... 1."""
    fraction = np.ones(limit_count)
    for r in range(limit_of_row.shape[0]):
        high = size_of(high_real[r], high_imag[r])
        if fits(high_real[r], high_imag[r], headroom[r]):
            continue
        low = size_of(low_real[r], low_imag[r])
        room = headroom[r] - low
        share = room / (high - low) if room > 0.0 and high - low < np.inf else 0.0
        fraction[limit_of_row[r]] = min(fraction[limit_of_row[r]], share)
    return fraction


@kernel
def smallest_fraction(columns: Columns, limit_of_row: Ints, i: int, fraction: Floats) -> float:
    """The smallest ``fraction`` (L,) among the limits EVSE ``i`` loads; 1 where it loads none."""
    smallest = 1.0
    for k in range(columns.start[i], columns.start[i + 1]):
        smallest = min(smallest, fraction[limit_of_row[columns.row[k]]])
    return smallest


@kernel
def counted(
    columns: Columns, x: Floats, floor: Floats, silent: Floats, bare: Bools, limit_of_row: Ints, headroom: Floats
) -> tuple[Floats, Floats]:
    """Row flows of max(x, floor), and of max(x, silent) in rows of ``bare`` limits (floors that do not fit)."""
    rows = headroom.shape[0]
    real = np.zeros(rows)
    imag = np.zeros(rows)
    for i in range(x.shape[0]):
        reserved, live = max(x[i], floor[i]), max(x[i], silent[i])
        if reserved == 0.0:
            continue
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            amount = live if bare[limit_of_row[r]] else reserved
            if amount != 0.0:
                real[r] += columns.real[k] * amount
                if not columns.is_linear:
                    imag[r] += columns.imag[k] * amount
    return real, imag


@kernel
def _admit_minima(
    columns: Columns,
    limit_of_row: Ints,
    headroom: Floats,
    bare: Bools,
    on: Bools,
    kept: Floats,
    floor: Floats,
    silent: Floats,
    order: Ints,
    real: Floats,
    imag: Floats,
) -> None:
    """Go through the EVSEs in ``order`` and let each keep ``kept[i]`` if all its rows hold; else switch it off."""
    for position in range(order.shape[0]):
        i = order[position]
        if not on[i]:
            continue
        ok = True
        above_floor, above_silent = max(kept[i] - floor[i], 0.0), max(kept[i] - silent[i], 0.0)
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            step = above_silent if bare[limit_of_row[r]] else above_floor
            if step > 0.0 and not fits(real[r] + columns.real[k] * step, imag[r] + columns.imag[k] * step, headroom[r]):
                ok = False
                break
        if not ok:
            on[i] = False
            kept[i] = 0.0
            continue
        for k in range(columns.start[i], columns.start[i + 1]):
            r = columns.row[k]
            step = above_silent if bare[limit_of_row[r]] else above_floor
            real[r] += columns.real[k] * step
            imag[r] += columns.imag[k] * step


@kernel
def _fall_back(
    columns: Columns,
    limit_of_row: Ints,
    headroom: Floats,
    limit_count: int,
    x: Floats,
    kept: Floats,
    floor: Floats,
    silent: Floats,
    bare: Bools,
) -> Floats:
    """Should a row not hold after scaling (a cone without its subsets): its EVSEs go to ``kept``, or else all do.

    ``kept`` itself was admitted row by row, so it holds.
    """
    real, imag = counted(columns, x, floor, silent, bare, limit_of_row, headroom)
    over = overdrawn_limits(limit_of_row, headroom, limit_count, real, imag)
    if not over.any():
        return x
    lowered = np.where(under_limits(columns, limit_of_row, over), np.minimum(x, kept), x)
    real, imag = counted(columns, lowered, floor, silent, bare, limit_of_row, headroom)
    over = overdrawn_limits(limit_of_row, headroom, limit_count, real, imag)
    return np.minimum(x, kept) if over.any() else lowered


@kernel
def shed_to_rows(
    columns: Columns,
    limit_of_row: Ints,
    headroom: Floats,
    limit_count: int,
    asked: Floats,
    least: Floats,
    floor: Floats,
    silent: Floats,
    order: Ints,
    steps: PilotSteps,
) -> Floats:
    """See ``guard.shed``; all arrays clean, ``least`` possibly infinite."""
    n = asked.shape[0]
    nothing = np.zeros(n)
    no_limit = np.zeros(limit_count, dtype=np.bool_)
    real, imag = counted(columns, nothing, floor, silent, no_limit, limit_of_row, headroom)
    bare = overdrawn_limits(limit_of_row, headroom, limit_count, real, imag)
    under_bare = under_limits(columns, limit_of_row, bare)
    x = np.zeros(n)
    kept = np.zeros(n)
    on = np.zeros(n, dtype=np.bool_)
    for i in range(n):
        reachable = step_down(steps, i, asked[i])
        if reachable > 0.0 and reachable >= least[i]:
            on[i] = True
            x[i] = reachable
            kept[i] = least[i] if under_bare[i] else min(reachable, max(least[i], step_down(steps, i, floor[i])))
    real, imag = counted(columns, x, floor, silent, bare, limit_of_row, headroom)
    if not overdrawn_limits(limit_of_row, headroom, limit_count, real, imag).any():
        return x
    low_real, low_imag = counted(columns, nothing, floor, silent, bare, limit_of_row, headroom)
    full = overdrawn_limits(limit_of_row, headroom, limit_count, low_real, low_imag)  # by what silent posts hold
    on &= ~under_limits(columns, limit_of_row, full)
    kept = np.where(on, kept, 0.0)
    _admit_minima(columns, limit_of_row, headroom, bare, on, kept, floor, silent, order, low_real, low_imag)
    x = np.where(on, x, 0.0)
    real, imag = counted(columns, x, floor, silent, bare, limit_of_row, headroom)
    fraction = common_fractions(limit_of_row, headroom, limit_count, low_real, low_imag, real, imag)
    for i in range(n):
        share = smallest_fraction(columns, limit_of_row, i, fraction)
        if share < 1.0:
            x[i] = max(kept[i], step_down(steps, i, kept[i] + share * (x[i] - kept[i])))
    return _fall_back(columns, limit_of_row, headroom, limit_count, x, kept, floor, silent, bare)


@kernel
def shed_untrusted(
    columns: Columns,
    limit_of_row: Ints,
    capacity: Floats,
    uncontrolled: Floats,
    energized: Bools,
    ceilings: Floats,
    minimum: Floats,
    floor: Floats,
    silent: Floats,
    order: Ints,
    steps: PilotSteps,
) -> Floats:
    """Clean every column, then ``shed_to_rows``."""
    headroom, limit_count = headroom_of(limit_of_row, capacity, uncontrolled), capacity.shape[0]
    least = np.empty_like(minimum)
    asked = np.empty_like(ceilings)
    reserve = np.empty_like(floor)
    holds = np.empty_like(silent)
    for i in range(ceilings.shape[0]):
        least[i] = least_ceiling(minimum[i], steps, i)
        asked[i] = trust(ceilings[i]) if energized[i] else 0.0
        reserve[i] = trust(floor[i])
        holds[i] = min(trust(silent[i]), reserve[i])
    return shed_to_rows(columns, limit_of_row, headroom, limit_count, asked, least, reserve, holds, order, steps)


@kernel
def largest_step(columns: Columns, i: int, headroom: Floats, real: Floats, imag: Floats) -> float:
    """Largest t >= 0 with |flow_r + a_r t| <= headroom_r on every row EVSE ``i`` loads; infinite if it loads none."""
    largest = np.inf
    for k in range(columns.start[i], columns.start[i + 1]):
        r = columns.row[k]
        if columns.imag[k] == 0.0 and imag[r] == 0.0 and columns.real[k] > 0.0:
            step = (headroom[r] - real[r]) / columns.real[k]
        else:
            square = columns.real[k] ** 2 + columns.imag[k] ** 2
            if square == 0.0:
                continue
            half = real[r] * columns.real[k] + imag[r] * columns.imag[k]
            short = headroom[r] ** 2 - real[r] ** 2 - imag[r] ** 2
            step = (np.sqrt(max(half * half + square * short, 0.0)) - half) / square
        largest = min(largest, step)
    return max(largest, 0.0)


@kernel
def _jump_to_minimum(
    columns: Columns,
    headroom: Floats,
    x: Floats,
    worst: Floats,
    opens: Floats,
    least: Floats,
    order: Ints,
    rising: Bools,
    real: Floats,
    imag: Floats,
) -> None:
    """Raise EVSEs to their minimum, in ``order``, where every row still holds, with what a first grant opens.

    Ceilings, flows and ``worst`` change in place; those that do not get there are struck from ``rising``.
    """
    for position in range(order.shape[0]):
        i = order[position]
        if not rising[i]:
            continue
        counts = max(x[i], worst[i])
        step = max(least[i], counts, opens[i]) - counts
        if step > 0.0 and not column_fits(columns, i, step, headroom, real, imag):
            rising[i] = False
            continue
        x[i] = max(x[i], least[i])
        worst[i] = max(worst[i], opens[i])
        if step > 0.0:
            add_column(columns, i, step, real, imag)


@kernel
def _hand_out(
    columns: Columns,
    headroom: Floats,
    x: Floats,
    goal: Floats,
    worst: Floats,
    order: Ints,
    rising: Bools,
    steps: PilotSteps,
    real: Floats,
    imag: Floats,
) -> None:
    """Raise EVSEs in ``order``, each as far as its rows hold and its goal goes; x and flows in place."""
    for position in range(order.shape[0]):
        i = order[position]
        if not rising[i] or goal[i] <= x[i]:
            continue
        now = max(x[i], worst[i])
        reach = step_down(steps, i, min(goal[i], now + largest_step(columns, i, headroom, real, imag)))
        step = max(reach, worst[i]) - now
        if reach > x[i] and (step <= 0.0 or column_fits(columns, i, step, headroom, real, imag)):
            if step > 0.0:
                add_column(columns, i, step, real, imag)
            x[i] = reach


@kernel
def raise_within_rows(
    columns: Columns,
    limit_of_row: Ints,
    headroom: Floats,
    limit_count: int,
    held: Floats,
    goal: Floats,
    worst: Floats,
    opens: Floats,
    least: Floats,
    order: Ints,
    steps: PilotSteps,
) -> Floats:
    """See ``guard.admit_raises``; ``held`` already contains every decrease, ``worst`` may be infinite, and grows."""
    n = held.shape[0]
    rows = headroom.shape[0]
    low_real = np.zeros(rows)
    low_imag = np.zeros(rows)
    add_flow(columns, np.maximum(held, worst), low_real, low_imag)
    over = overdrawn_limits(limit_of_row, headroom, limit_count, low_real, low_imag)
    rising = (goal > held) & ~under_limits(columns, limit_of_row, over)
    jumped = held.copy()
    _jump_to_minimum(columns, headroom, jumped, worst, opens, least, order, rising, low_real, low_imag)
    x = np.where(rising, goal, jumped)
    real = np.zeros(rows)
    imag = np.zeros(rows)
    add_flow(columns, np.maximum(x, worst), real, imag)
    fraction = common_fractions(limit_of_row, headroom, limit_count, low_real, low_imag, real, imag)
    for i in range(n):
        if rising[i]:
            share = smallest_fraction(columns, limit_of_row, i, fraction)
            reach = min(goal[i], jumped[i] + share * (goal[i] - jumped[i]))  # a + (b - a) may round to above b
            x[i] = max(jumped[i], step_down(steps, i, reach))
    real[:] = 0.0
    imag[:] = 0.0
    add_flow(columns, np.maximum(x, worst), real, imag)
    over_now = overdrawn_limits(limit_of_row, headroom, limit_count, real, imag)
    if (over_now & ~over).any():
        return jumped
    _hand_out(columns, headroom, x, goal, worst, order, rising, steps, real, imag)
    return x


@kernel
def raise_untrusted(
    columns: Columns,
    limit_of_row: Ints,
    capacity: Floats,
    uncontrolled: Floats,
    energized: Bools,
    worst: Floats,
    opens: Floats,
    current: Floats,
    wanted: Floats,
    minimum: Floats,
    order: Ints,
    steps: PilotSteps,
) -> Floats:
    """Clean every column and take every decrease, then ``raise_within_rows``."""
    headroom, limit_count = headroom_of(limit_of_row, capacity, uncontrolled), capacity.shape[0]
    least = np.empty_like(minimum)
    goal = np.empty_like(wanted)
    held = np.empty_like(current)
    known_worst = np.empty_like(worst)
    opened = np.empty_like(opens)
    for i in range(wanted.shape[0]):
        least[i] = least_ceiling(minimum[i], steps, i)
        goal[i] = trust(wanted[i]) if energized[i] else 0.0
        if goal[i] < least[i]:
            goal[i] = 0.0
        held[i] = step_down(steps, i, min(trust(current[i]), goal[i]))
        if held[i] < least[i]:
            held[i] = 0.0
        known_worst[i] = max(worst[i], 0.0) if -np.inf < worst[i] < np.inf else np.inf
        opened[i] = max(opens[i], 0.0) if -np.inf < opens[i] < np.inf else np.inf
    return raise_within_rows(
        columns, limit_of_row, headroom, limit_count, held, goal, known_worst, opened, least, order, steps
    )
