"""Whether cars follow: the lag of each one, and who does not follow at all.

A car has its class's reaction time to follow a lowering; one that was seen to take longer gets what it takes, up to a
minute. It is *non-compliant* only when three readings in a row lie above every ceiling that it could rightly have
followed in at least the last minute: a slow car is none (LEASES trace 14). Then it counts at its rating, until its
readings have obeyed for a minute.
"""

from __future__ import annotations

import numpy as np

from powerd.limits import Bools, Floats
from powerd.state.columns import replace
from powerd.state.lease_book import LeaseBook
from powerd.state.lease_terms import LeaseTerms
from powerd.state.leases import excused, margin_of, permitted, reachable

REACTION_MAX_S = 60.0
"""No car is waited for longer than this [s]."""
DEFIANT_SAMPLES = 3
"""Readings in a row that make a car non-compliant; one or two may be old or wrong."""
WINDOW_S = 60.0
"""How long a ceiling of before still excuses a reading, at least [s] (up to twice as long)."""
OBEYED_S = 60.0
"""How long a non-compliant car has to obey before it is believed again [s]."""


def watch(
    book: LeaseBook, terms: LeaseTerms, plugged: Bools, drawn: Floats, drawn_at_s: Floats, now_s: float
) -> LeaseBook:
    """Judges the readings that stand at ``now_s``, once a tick.

    A controller that says nothing of a meter says that it has not changed: each tick with a stamp is one sample.

    Args:
        book: after the tick's events.
        terms: lease terms.
        plugged: (n,) a car is there.
        drawn: (n,) newest reading, largest phase [own unit].
        drawn_at_s: (n,) when it came; -inf = none of this car.
        now_s: the tick's instant.
    """
    allowed = permitted(book, terms, plugged, now_s)
    book = _turn_window(book, excused(book, allowed, now_s), now_s)
    sample = plugged & np.isfinite(drawn_at_s) & ((book.echo_at_s >= now_s) | (drawn_at_s >= now_s))
    margin = margin_of(drawn)
    obeys = drawn <= allowed + margin
    lag = np.where(sample & ~obeys, now_s - book.lowered_at_s, 0.0)
    within = drawn <= np.maximum(book.high, book.high_before) + margin
    above = np.where(sample, np.where(within, 0, book.above + 1), book.above)
    since = np.where(sample, np.where(obeys, np.minimum(book.obeyed_since_s, now_s), np.inf), book.obeyed_since_s)
    believed = reachable(book, terms, now_s) & (now_s - since >= OBEYED_S)
    return replace(
        book,
        reaction_s=np.maximum(book.reaction_s, np.minimum(lag, REACTION_MAX_S)),
        lowered_at_s=np.where(sample & obeys, np.inf, book.lowered_at_s),
        above=above,
        obeyed_since_s=since,
        defiant=(book.defiant | (above >= DEFIANT_SAMPLES)) & ~believed,
    )


def _turn_window(book: LeaseBook, allowed: Floats, now_s: float) -> LeaseBook:
    """Keeps the largest ceilings of the last one to two windows."""
    if now_s - book.window_at_s < WINDOW_S:
        return replace(book, high=np.maximum(book.high, allowed))
    return replace(book, high=allowed, high_before=np.maximum(book.high, allowed), window_at_s=now_s)
