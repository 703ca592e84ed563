"""Declared overshoots (R6): a limit fell below what is already granted; logged, shown, and over within a bound.

Or a car took current on a phase that it had left unused, or no longer the same on all (``phases``): causes of their
own, under the same bound, counted from the reading that showed it.

The bound is the latest instant at which what lies above the lowered ceilings must have ended by itself: for each EVSE
under the limit its E, or ack + reaction where the lowering is acked. Where even the reserves do not fit there is none:
the overshoot lasts as long as the limit stays there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from powerd.limits import Bools, Floats, Limits
from powerd.state.lease_book import LeaseBook
from powerd.state.lease_terms import LeaseTerms
from powerd.state.leases import Standing, settled, slack_s
from powerd.units import ROW_TOLERANCE

Cause = Literal["limit_fell", "phase_return", "out_of_step"]
"""Why W exceeds a limit: there is less room than before, a car uses a phase that it had not used, or it no longer takes
the same on all of its phases."""
ENDED_KEPT = 16
"""Ended overshoots that are remembered, for people."""


@dataclass(frozen=True, kw_only=True)
class Overshoot:
    """One limit that could carry more than it may."""

    limit: str
    """The limit, for people; unique in a switching state."""
    element: str
    """What it protects."""
    unit: str
    """Of the limit."""
    since_s: float
    """Boottime of its start [s]."""
    until_s: float
    """It must be over by then [s]; inf = not before the limit rises or a controller speaks."""
    over: float
    """Most by which W and the uncontrolled load exceeded the limit [unit]."""
    available: float
    """Lowest limit minus uncontrolled load in it [unit]."""
    ended_s: float
    """When it was over [s]; inf = it lasts."""
    cause: Cause = "limit_fell"
    """What began it."""
    peak: float = 0.0
    """Largest sum of the posts' readings and the uncontrolled load in it [unit]."""
    room: float = np.inf
    """Limit minus uncontrolled load in the newest tick [unit]."""
    complied_s: float = np.inf
    """Since when that sum is within the limit [s]; inf = it is not. Time to compliance is ``complied_s - since_s``."""

    @property
    def lasts(self) -> bool:
        """It is not over."""
        return not np.isfinite(self.ended_s)


def track(
    past: tuple[Overshoot, ...],
    limits: Limits,
    flow: Floats,
    measured: Floats,
    available: Floats,
    bound_s: Floats,
    now_s: float,
    *,
    anew: Bools,
    returned: Bools,
    uneven: Bools,
) -> tuple[Overshoot, ...]:
    """The overshoots after this tick, the open ones last.

    Args:
        past: of the tick before.
        limits: of this tick.
        flow: (L,) flow of W [unit].
        measured: (L,) flow of the newest readings [unit].
        available: (L,) capacity minus uncontrolled load [unit].
        bound_s: (L,) by when each would be over if nothing else happened.
        now_s: the tick's instant.
        anew: (L,) something was heard in this tick that makes its earlier bound void: a hello, a new epoch, a slower
            car, or what raised W below it, as a car that came.
        returned: (L,) a car below was seen in this tick on a phase that it had not used.
        uneven: (L,) one was seen to take no longer the same on all of its phases.
    """
    over = {int(l): float(flow[l] - available[l]) for l in np.flatnonzero(flow > available + limits.trace)}
    if not over and not any(one.lasts for one in past):
        return past
    open_now = {one.limit: one for one in past if one.lasts}
    ended = [one for one in past if not one.lasts]
    names = {limits.name[l] for l in over}
    # W covers the readings: what it no longer exceeds, they do not either.
    ended += [
        replace(one, ended_s=now_s, complied_s=min(one.complied_s, now_s))
        for name, one in open_now.items()
        if name not in names
    ]
    standing = []
    for l, excess in over.items():
        name, room, bound = limits.name[l], float(available[l]), float(bound_s[l])
        if name in open_now:
            one = _continued(open_now[name], excess, room, bound, anew=bool(anew[l]))
        else:
            cause: Cause = "phase_return" if returned[l] else "out_of_step" if uneven[l] else "limit_fell"
            one = _declared(limits, l, excess, room, bound, now_s, cause)
        seen = _measured(one, float(measured[l]), room, float(limits.capacity[l]), float(limits.trace[l]), now_s)
        standing.append(seen)
    return (*ended[-ENDED_KEPT:], *standing)


def _declared(
    limits: Limits, l: int, over: float, available: float, bound_s: float, now_s: float, cause: Cause
) -> Overshoot:
    """A new one."""
    return Overshoot(
        limit=limits.name[l],
        element=limits.element[l],
        unit=limits.unit[l],
        since_s=now_s,
        until_s=bound_s,
        over=over,
        available=available,
        room=available,
        ended_s=np.inf,
        cause=cause,
    )


def _measured(
    one: Overshoot, measured: float, available: float, capacity: float, trace: float, now_s: float
) -> Overshoot:
    """The same with what the posts' readings show now."""
    peak = max(one.peak, measured + capacity - available)
    if measured > available + trace:
        return one if peak == one.peak and one.complied_s == np.inf else replace(one, peak=peak, complied_s=np.inf)
    return replace(one, peak=peak, complied_s=min(one.complied_s, now_s))


def _continued(one: Overshoot, over: float, available: float, bound_s: float, *, anew: bool) -> Overshoot:
    """The same overshoot a tick later: only what makes it worse, or news, moves its bound.

    A limit that falls is worse than the tick before, also where it was as low before that: what was granted under the
    higher one is lowered from now on.
    """
    worse = over > one.over + ROW_TOLERANCE or available < one.room - ROW_TOLERANCE
    moves = anew or worse or bound_s == np.inf  # readings above a ceiling have no end
    return replace(
        one,
        until_s=max(one.until_s, bound_s) if moves else one.until_s,
        over=max(one.over, over),
        available=min(one.available, available),
        room=available,
    )


def bounds(
    book: LeaseBook,
    terms: LeaseTerms,
    limits: Limits,
    stands: Standing,
    available: Floats,
    now_s: float,
) -> Floats:
    """(L,) by when W under each limit has fallen to what the EVSEs now follow, at the latest [s].

    Args:
        book: after this tick's grants.
        terms: lease terms.
        limits: of this tick.
        stands: how every EVSE stands with it.
        available: (L,) capacity minus uncontrolled load [unit].
        now_s: the tick's instant.
    """
    follows, worst = settled(book, terms, stands, now_s), stands.worst
    ends = np.where(worst > follows + ROW_TOLERANCE, _ends(book, terms, follows, worst, now_s), now_s)
    bound = np.full(limits.capacity.shape[0], now_s)
    for part in (limits.real, limits.imag):
        filled = np.flatnonzero(np.diff(part.indptr))
        if filled.shape[0]:
            latest = np.maximum.reduceat(ends[part.indices], part.indptr[filled])
            np.maximum.at(bound, limits.limit_of_row[filled], latest)
    return np.where(limits.limit_flow(follows) > available + limits.trace, np.inf, bound)


def _ends(book: LeaseBook, terms: LeaseTerms, settled: Floats, worst: Floats, now_s: float) -> Floats:
    """(n,) when the last entry above ``settled`` ends; inf where W is more than the entries: a reading has no end."""
    ceiling = np.column_stack((book.slot_ceiling, book.hold_ceiling, book.acked_ceiling))
    until = np.column_stack((book.slot_until_s, book.hold_until_s, book.acked_until_s)) + slack_s(book, terms)[:, None]
    counts = (ceiling > settled[:, None] + ROW_TOLERANCE) & (until > now_s)
    latest: Floats = np.where(counts, until, -np.inf).max(axis=1)
    covered = np.where(counts, ceiling, -np.inf).max(axis=1) >= worst - ROW_TOLERANCE
    return np.where(covered, latest, np.inf)
