"""What meters of elements have shown, and what was made of it; the posts' own readings with their sample windows.

Times are on the daemon's boottime clock [s]. A *reading* of a meter is four numbers: the currents l1, l2, l3 [A] and
the power [kW], positive = away from the grid, nan = not measured. A *window* is the time that a reading stands for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Floats, Ints
from powerd.state.columns import put, replace
from powerd.state.gap import Gap

WINDOWS = 4
"""Windows remembered of each post."""
GRAIN_S = 2.0
"""A post's window shorter than this is joined with the next one (the smaller and the larger value of both count): so
``WINDOWS`` of them reach back far enough."""
KEPT_S = 10.0
"""How far back the posts' windows must reach, beyond the longest window of a meter: for so long a total reading waits
for posts that are read all the time [s]."""
SLOWEST_S = 60.0
"""A post is waited for no longer than this, however long its windows are: OCPP's usual sample interval [s]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Meters:
    """Columns over M meters and, where there is one, n posts."""

    incarnation: Ints
    """(M,) process that sent the newest reading, 0 = none."""
    stamp_s: Floats
    """(M,) its clock then; -inf = none."""
    newest: Floats
    """(M, 4) newest reading."""
    newest_start_s: Floats
    """(M,) its window."""
    newest_end_s: Floats
    """(M,) -inf = none."""
    waiting: Floats
    """(M, 4) reading that waits until the posts' windows cover its own; nan = none waits."""
    waiting_start_s: Floats
    """(M,) its window."""
    waiting_end_s: Floats
    """(M,) -inf = none."""
    part: Floats
    """(M, 4) what flows there besides charging, as it counts now, >= 0; nan = never known."""
    settled_end_s: Floats
    """(M,) end of the window that ``part`` was last judged by; -inf = none."""
    sure_at_s: Floats
    """(M,) end of the last window that proved ``part`` to be enough; -inf = none."""
    low: Floats
    """(n, WINDOWS, 3) smallest reading of each post in each of its windows, newest first [A; DC: kW, 0, 0]."""
    high: Floats
    """(n, WINDOWS, 3) largest one; inf = it may have been more than was told."""
    start_s: Floats
    """(n, WINDOWS) inf where empty."""
    end_s: Floats
    """(n, WINDOWS) -inf where empty."""


def open_meters(meters: int, posts: int) -> Meters:
    """Nothing measured yet; a site without meters keeps no windows of its posts."""
    never = np.full(meters, -np.inf)
    unknown = np.full((meters, 4), np.nan)
    n = posts if meters else 0
    return Meters(
        incarnation=np.zeros(meters, np.int64),
        stamp_s=never,
        newest=unknown,
        newest_start_s=never,
        newest_end_s=never,
        waiting=unknown,
        waiting_start_s=never,
        waiting_end_s=never,
        part=unknown,
        settled_end_s=never,
        sure_at_s=never,
        low=np.zeros((n, WINDOWS, 3)),
        high=np.zeros((n, WINDOWS, 3)),
        start_s=np.full((n, WINDOWS), np.inf),
        end_s=np.full((n, WINDOWS), -np.inf),
    )


def reopen_meters(meters: Meters, posts: int, gap: Gap) -> Meters:
    """After a restart of powerd: what each meter and post showed last, and what was made of it, as old as it is (R7).

    The same as if all had been silent meanwhile: a total that was read and not judged yet is judged by what the posts
    told of its window. After a restart of the machine nothing was measured yet: how long it was off the wall clock
    tells at best, and one without a battery goes on from where it stopped.
    """
    return meters if gap.same_boot else open_meters(meters.stamp_s.shape[0], posts)


def read_posts(meters: Meters, evse: Ints, reading: Floats, window_s: float | None, boottime_s: float) -> Meters:
    """New readings of posts.

    Args:
        meters: before.
        evse: (k,) posts.
        reading: (k, 3) [A; DC: kW, 0, 0].
        window_s: length of their windows, which end now; None = since each post was last heard [s].
        boottime_s: now.
    """
    if not meters.end_s.shape[0] or not evse.shape[0]:
        return meters
    low, high = meters.low[evse], meters.high[evse]
    start, end = meters.start_s[evse], meters.end_s[evse]
    since = np.where(np.isfinite(end[:, 0]), end[:, 0], boottime_s)
    begin = since if window_s is None else np.full(evse.shape[0], boottime_s - window_s)
    # Who tells the least of a long window, as he should, does not tell the most of it.
    most = reading if window_s is None or window_s <= GRAIN_S else np.full(reading.shape, np.inf)
    gap = begin > end[:, 0] + GRAIN_S
    short = end[:, 0] - start[:, 0] < GRAIN_S
    needed = end[:, -1] >= boottime_s - KEPT_S - windows_of(meters).max(initial=0.0)
    join = np.isfinite(end[:, 0]) & ~gap & (short | needed)
    shifted = ~join
    for column in (low, high, start, end):
        column[shifted, 1:] = column[shifted, :-1]
    low[:, 0] = np.where(join[:, None], np.minimum(low[:, 0], reading), reading)
    high[:, 0] = np.where(join[:, None], np.maximum(high[:, 0], most), most)
    start[:, 0] = np.where(join, np.minimum(start[:, 0], begin), begin)
    end[:, 0] = boottime_s
    return replace(
        meters,
        low=put(meters.low, evse, low),
        high=put(meters.high, evse, high),
        start_s=put(meters.start_s, evse, start),
        end_s=put(meters.end_s, evse, end),
    )


def windows_of(meters: Meters) -> Floats:
    """(M,) length of the window of each meter's newest reading, at most ``SLOWEST_S`` [s]; 0 = none yet."""
    known = np.isfinite(meters.newest_end_s)
    length: Floats = np.where(known, meters.newest_end_s - np.where(known, meters.newest_start_s, 0.0), 0.0)
    return np.minimum(length, SLOWEST_S)


def spans_of(meters: Meters) -> Floats:
    """(n,) longest remembered window of each post, at most ``SLOWEST_S`` [s]; 0 = none."""
    known = np.isfinite(meters.end_s)
    length = np.where(known, meters.end_s - np.where(known, meters.start_s, 0.0), 0.0)
    longest: Floats = length.max(axis=1, initial=0.0)
    return np.minimum(longest, SLOWEST_S)


def interrupt_posts(meters: Meters, evse: Ints, boottime_s: float) -> Meters:
    """Posts that are heard from again: after ``KEPT_S`` neither reading, before or after, speaks for the time between.

    A shorter silence is bridged by the reading before it, which readings of totals still wait for.
    """
    silent = evse[meters.end_s[evse, 0] < boottime_s - KEPT_S] if meters.end_s.shape[0] else evse[:0]
    if not silent.shape[0]:
        return meters
    return replace(
        meters,
        low=put(meters.low, silent, _begun_anew(meters.low[silent], 0.0)),
        high=put(meters.high, silent, _begun_anew(meters.high[silent], 0.0)),
        start_s=put(meters.start_s, silent, _begun_anew(meters.start_s[silent], np.inf)),
        end_s=put(meters.end_s, silent, _begun_anew(meters.end_s[silent], -np.inf)),
    )


def _begun_anew(windows: Floats, empty: float) -> Floats:
    """(k, WINDOWS, …) windows with an empty one in front; the oldest goes."""
    moved = np.roll(windows, 1, axis=1)
    moved[:, 0] = empty
    return moved


def hear_posts(meters: Meters, evse: Ints, boottime_s: float) -> Meters:
    """Posts that were heard from without a new reading: the last one still stands."""
    known = evse[np.isfinite(meters.end_s[evse, 0])] if meters.end_s.shape[0] else evse[:0]
    if not known.shape[0]:
        return meters
    end = meters.end_s[known]
    end[:, 0] = boottime_s
    return replace(meters, end_s=put(meters.end_s, known, end))


def read_meter(
    meters: Meters, m: int, incarnation: int, stamp_s: float, reading: Floats, start_s: float, end_s: float
) -> Meters:
    """A new reading (4,) of meter ``m`` with its window; one that is older than the newest changes nothing."""
    if incarnation == meters.incarnation[m] and stamp_s <= meters.stamp_s[m]:
        return meters
    if end_s < meters.newest_end_s[m]:
        return meters
    idle = not np.isfinite(meters.waiting_end_s[m])
    found = replace(
        meters,
        incarnation=put(meters.incarnation, m, incarnation),
        stamp_s=put(meters.stamp_s, m, stamp_s),
        newest=put(meters.newest, m, reading),
        newest_start_s=put(meters.newest_start_s, m, start_s),
        newest_end_s=put(meters.newest_end_s, m, end_s),
    )
    return wait_with_newest(found, m) if idle else found


def wait_with_newest(meters: Meters, m: int) -> Meters:
    """The newest reading of meter ``m`` is judged next, if it is newer than the last one judged."""
    newer = meters.newest_end_s[m] > meters.settled_end_s[m]
    return replace(
        meters,
        waiting=put(meters.waiting, m, meters.newest[m] if newer else np.nan),
        waiting_start_s=put(meters.waiting_start_s, m, meters.newest_start_s[m] if newer else -np.inf),
        waiting_end_s=put(meters.waiting_end_s, m, meters.newest_end_s[m] if newer else -np.inf),
    )
