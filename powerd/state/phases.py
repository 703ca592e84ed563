"""Which phases of a three-phase post its car uses, as far as its readings show it; columns over the n EVSEs.

A phase counts as unused only within one plug-in and after ``STEADY_S`` of readings that say so, and only while readings
come. A current on it ends that at once: the post counts on all its phases again, and what that brings over a limit is a
declared overshoot with the cause ``phase_return``. A car that took the same on all three phases for that long is known
too: it draws in step, which is what an imbalance limit asks (``network/balance``). Where it no longer does, as one that
is nearly full, the cause is ``out_of_step``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.state.columns import put, put_news

STEADY_S = 60.0
"""How long readings must show the same phases before the others count as unused [s]."""
CARRIES_A = 3.0
"""A phase with at least this is in use [A]: half of the least that a car charges with."""
QUIET_A = 0.5
"""A phase with at most this is not [A]: filters and meters leave some tenths. In between nothing is known."""
APART_A, APART_SHARE = 1.0, 0.05
"""Phases that differ by more than both of these do not draw in step [A, share of the largest]."""
EVERY = 7
"""All three phases, as bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Phases:
    """Bits: 1 = L1, 2 = L2, 4 = L3 of the post itself."""

    used: Ints
    """(n,) the phases that it counts on; 0 = not known: on all of them, each by itself."""
    steady: Ints
    """(n,) the phases that the newest readings agree on; 0 = none."""
    steady_since_s: Floats
    """(n,) since when; inf = not."""
    returned: Bools
    """(n,) the newest tick's reading contradicted ``used``."""


def open_phases(count: int) -> Phases:
    """Nothing known of ``count`` EVSEs."""
    none = np.zeros(count, np.int64)
    since = np.full(count, np.inf)
    return Phases(used=none, steady=none, steady_since_s=since, returned=np.zeros(count, np.bool_))


def forget_phases(phases: Phases, evse: Ints) -> Phases:
    """Cars came or left at ``evse``: the next one may be another."""
    return Phases(
        used=put_news(phases.used, evse, 0),  # the same object: nothing is compiled anew
        steady=put_news(phases.steady, evse, 0),
        steady_since_s=put(phases.steady_since_s, evse, np.inf),
        returned=put_news(phases.returned, evse, False),
    )


def watch_phases(phases: Phases, watched: Bools, drawn: Floats, now_s: float) -> Phases:
    """Judges the readings that stand at ``now_s``.

    Args:
        phases: of the tick before.
        watched: (n,) phases of this post are to be found out, a car is there, and its controller speaks.
        drawn: (n, 3) newest reading on L1, L2, L3 of the post [A].
        now_s: the tick's instant.
    """
    if not watched.any():
        anything = bool(phases.used.any() or phases.steady.any() or phases.returned.any())
        return open_phases(phases.used.shape[0]) if anything else phases
    steady = _shown(drawn)
    since = np.where(steady != phases.steady, now_s, phases.steady_since_s)
    since = np.where(steady == 0, np.inf, since)
    known = watched & (steady > 0) & (now_s - since >= STEADY_S)
    returned = watched & _contradicts(phases.used, drawn)
    used = np.where(known, steady, np.where(watched & ~returned, phases.used, 0))
    return Phases(
        used=phases.used if np.array_equal(used, phases.used) else used,  # the same object: nothing is compiled anew
        steady=np.where(watched, steady, 0),
        steady_since_s=np.where(watched, since, np.inf),
        returned=returned,
    )


def _shown(drawn: Floats) -> Ints:
    """(n,) bits of the phases that carry one and the same current while the others carry none; 0 = it tells nothing."""
    carries, quiet = drawn >= CARRIES_A, drawn <= QUIET_A
    bits: Ints = carries @ np.array([1, 2, 4])
    clear = (carries | quiet).all(axis=1) & _in_step(drawn, carries)
    return np.where(clear, bits, 0)


def _in_step(drawn: Floats, on: Bools) -> Bools:
    """(n,) the phases ``on`` (n, 3) carry the same."""
    high = np.where(on, drawn, 0.0).max(axis=1)
    low = np.where(on, drawn, np.inf).min(axis=1)
    close: Bools = high - low <= np.maximum(APART_A, APART_SHARE * high)
    return close | ~on.any(axis=1)


def _contradicts(used: Ints, drawn: Floats) -> Bools:
    """(n,) the reading contradicts what was known: a current where there was none, or no longer in step."""
    paused = (drawn <= QUIET_A).all(axis=1)
    contradicts: Bools = (used > 0) & ~paused & (came_back(used, drawn) | ~_in_step(drawn, _on(used)))
    return contradicts


def came_back(used: Ints, drawn: Floats) -> Bools:
    """(n,) the reading (n, 3) [A] shows a current on a phase other than those that were known as used."""
    back: Bools = (used > 0) & ((drawn > QUIET_A) & ~_on(used)).any(axis=1)
    return back


def _on(used: Ints) -> Bools:
    """(n, 3) the bits of each post, phase by phase."""
    on: Bools = (used[:, None] >> np.arange(3)) & 1 == 1
    return on
