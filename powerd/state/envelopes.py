"""What grid operators allow the site to import, in time windows: dynamic operating envelopes.

An *envelope* is an import limit of one source for a window [start, end). Several may hold at once, of one source or of
many: the lowest counts. Windows are on the wall clock, as the operator's own; silence is counted on the boottime clock.
A wall clock may be stepped: a window begins when the first of both clocks says so and ends when both do, the boottime
clock reckoning from the instant in which the envelope was said, or in which the machine's new boot found it.

A silent operator never means "unlimited" (docs/leases.md R7). A source may promise to say an envelope again within a
``heartbeat``; once it has been silent for longer, the lower one of its limit and the site's failsafe limit holds, at
once and without an end, until the source speaks again (EEBUS LPC: failsafe is left by a heartbeat *and* a new limit).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from powerd.state.gap import Gap
from powerd.units import ROW_TOLERANCE, Now

ENVELOPES_MAX = 1000
"""Envelopes that are kept at once: three days of five-minute windows."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """One import limit, as it was last said, and what became of it."""

    envelope_id: str
    """Who says the same id again replaces it."""
    source: str
    """Who says so, for people."""
    reason: str
    """Why, for the record."""
    import_limit_kw: float
    """Most that the site may import [kW], >= 0."""
    start_utc_s: float
    """The window's first instant, POSIX seconds."""
    end_utc_s: float
    """The first instant after it; inf = until it is replaced or withdrawn."""
    heartbeat_s: float
    """It is said again within this; inf = no promise [s]."""
    heard_s: float
    """Boottime at which it was last said [s]."""
    starts_s: float
    """Boottime of the window's first instant, as reckoned then [s]; -inf = it had begun before a restart."""
    ends_s: float
    """Boottime of the first instant after it, as reckoned then [s]; -inf = the wall clock alone tells, since it was
    behind at a restart."""
    in_force_utc_s: float | None = None
    """Since when it holds; None = it waits for its window."""
    kept_utc_s: float | None = None
    """Since when the most that could be imported has been within it, without a break; None = it is not now."""


Envelopes: TypeAlias = tuple[Envelope, ...]
"""All that are known, in the order in which they were first said."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What the site may import now."""

    import_limit_kw: float
    """[kW]"""
    source: str
    """Whose word that is, for people."""


def put(envelopes: Envelopes, said: Envelope) -> Envelopes | None:
    """With a new envelope, or with the one of that id replaced; None: there are too many.

    One that is said again just as it was goes on as it stands: its window begins with the first of the times reckoned
    for it, and ends with the last, or a wall clock that was set in between would lift it.
    """
    known = {one.envelope_id: k for k, one in enumerate(envelopes)}
    at = known.get(said.envelope_id)
    if at is None:
        return (*envelopes, said) if len(envelopes) < ENVELOPES_MAX else None
    before = envelopes[at]
    after = _again(said, before) if _repeats(said, before) else said
    return (*envelopes[:at], after, *envelopes[at + 1 :])


def _again(said: Envelope, before: Envelope) -> Envelope:
    """The same words: what became of them stays. An end that a restart left open is as it is reckoned now."""
    return replace(
        said,
        starts_s=min(said.starts_s, before.starts_s),
        ends_s=max(said.ends_s, before.ends_s) if np.isfinite(before.ends_s) else said.ends_s,
        in_force_utc_s=before.in_force_utc_s,
        kept_utc_s=before.kept_utc_s,
    )


def going_on(envelopes: Envelopes, said: Envelope) -> Envelope:
    """What was said without a start, that is from now on: with the start of what it repeats, where that has begun.

    A source that says the same again each heartbeat sets one envelope, not one a beat.
    """
    for before in envelopes:
        again = replace(said, start_utc_s=before.start_utc_s, starts_s=before.starts_s)
        if _repeats(again, before) and (before.start_utc_s <= said.start_utc_s or before.in_force_utc_s is not None):
            return again
    return said


def _repeats(said: Envelope, before: Envelope) -> bool:
    """The same words; when they were heard, and what became of them, are none."""
    noted = replace(
        said,
        heard_s=before.heard_s,
        starts_s=before.starts_s,
        ends_s=before.ends_s,
        in_force_utc_s=before.in_force_utc_s,
        kept_utc_s=before.kept_utc_s,
    )
    return noted == before


def without(envelopes: Envelopes, envelope_id: str) -> Envelopes | None:
    """Without the envelope of that id; None: there is none."""
    left = tuple(one for one in envelopes if one.envelope_id != envelope_id)
    return None if len(left) == len(envelopes) else left


def is_silent(one: Envelope, now: Now) -> bool:
    """Its source has not said it again in time."""
    return now.boottime_s - one.heard_s > one.heartbeat_s


def is_over(one: Envelope, now: Now) -> bool:
    """Both clocks say that its window has ended."""
    return now.utc.timestamp() >= one.end_utc_s and now.boottime_s >= one.ends_s


def is_left(one: Envelope, now: Now) -> bool:
    """It holds, or will: its window is not over, or its source is silent."""
    return not is_over(one, now) or is_silent(one, now)


def holds(one: Envelope, now: Now) -> bool:
    """It counts now: in its window, or because its source is silent."""
    begun = now.utc.timestamp() >= one.start_utc_s or now.boottime_s >= one.starts_s
    return (begun and not is_over(one, now)) or is_silent(one, now)


def limit_kw(one: Envelope, failsafe_kw: float, now: Now) -> float:
    """What an envelope that holds allows [kW]: min(limit, failsafe) while its source is silent.

    Args:
        one: the envelope.
        failsafe_kw: the site's failsafe limit; nan = none [kW].
        now: this instant.
    """
    return float(np.fmin(one.import_limit_kw, failsafe_kw)) if is_silent(one, now) else one.import_limit_kw


def bound(envelopes: Envelopes, failsafe_kw: float, now: Now) -> Bound | None:
    """The lowest limit that holds now, the first of equals; None where none holds."""
    holding = [one for one in envelopes if holds(one, now)]
    if not holding:
        return None
    lowest = min(holding, key=lambda one: limit_kw(one, failsafe_kw, now))
    word = f"envelope {lowest.envelope_id} of {lowest.source}"
    if is_silent(lowest, now):
        word += ", which is silent"
    return Bound(import_limit_kw=limit_kw(lowest, failsafe_kw, now), source=word)


def watch(envelopes: Envelopes, failsafe_kw: float, imported_kw: float, now: Now) -> Envelopes:
    """After a tick: windows that are over are forgotten, and of the others it is noted whether they are kept.

    Args:
        envelopes: before.
        failsafe_kw: the site's failsafe limit; nan = none [kW].
        imported_kw: the most that the site could be importing: W, loads that are not under control, losses [kW].
        now: the tick's instant.
    """
    if not envelopes:
        return envelopes
    left = [one for one in envelopes if is_left(one, now)]
    noted = tuple(_noted(one, limit_kw(one, failsafe_kw, now), imported_kw, now) for one in left)
    return envelopes if noted == envelopes else noted


def _noted(one: Envelope, allowed_kw: float, imported_kw: float, now: Now) -> Envelope:
    """The same envelope with what this tick tells of it."""
    if not holds(one, now):
        return replace(one, in_force_utc_s=None, kept_utc_s=None)
    utc_s = now.utc.timestamp()
    since = utc_s if one.in_force_utc_s is None else one.in_force_utc_s
    if imported_kw > allowed_kw + ROW_TOLERANCE:
        return replace(one, in_force_utc_s=since, kept_utc_s=None)
    return replace(one, in_force_utc_s=since, kept_utc_s=utc_s if one.kept_utc_s is None else one.kept_utc_s)


def reopen(envelopes: Envelopes, gap: Gap) -> Envelopes:
    """After a restart: nobody could be heard meanwhile, so silence counts from now; windows went on.

    A restart is no word of a source: who was silent stays so. Nor does it end a window before whose end its source
    still owed a word: that one holds until the source speaks, or is silent. Nor does it end one that holds, or put off
    one that is to come, because the wall clock is behind now (a machine without one of its own): the window that was
    running goes on, and another begins at the latest after the time that was left before its start.
    """
    return tuple(_reopened(one, gap) for one in envelopes)


def _reopened(one: Envelope, gap: Gap) -> Envelope:
    due_s = one.heard_s + one.heartbeat_s
    owed = np.isfinite(one.heartbeat_s) and not due_s >= one.end_utc_s - gap.utc_ahead_s
    owed |= one.ends_s == np.inf and np.isfinite(one.end_utc_s)  # since a restart before; heard_s is of that one
    starts_s = one.starts_s if gap.same_boot else gap.now.boottime_s + one.starts_s - gap.was_s
    return replace(
        one,
        heard_s=-np.inf if gap.was_s > due_s else gap.now.boottime_s,
        starts_s=-np.inf if one.in_force_utc_s is not None else starts_s,
        ends_s=np.inf if owed else _ends_s(one, gap),
        kept_utc_s=None,
    )


def _ends_s(one: Envelope, gap: Gap) -> float:
    """Boottime at which a window ends, as it was reckoned before, or anew on another boot's clock.

    -inf where the wall clock is behind: of how long the machine was off it alone will tell, once it is set.
    """
    if gap.same_boot:
        return one.ends_s
    if np.isnan(gap.down_s):
        return -np.inf
    return gap.now.boottime_s + one.end_utc_s - gap.now.utc.timestamp()
