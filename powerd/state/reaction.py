"""Whether cars follow: the lag of each one, and who does not follow at all.

A car has its class's reaction time to follow a lowering; one that was seen to take longer gets what it takes, up to a
minute. It is *non-compliant* only when three readings in a row lie above every ceiling that it could rightly have
followed in at least the last minute: a slow car is none (docs/leases.md, trace 14). Then it counts at its rating, until
its readings have obeyed for a minute.
"""

from __future__ import annotations

import numpy as np

from powerd.compiled import kernel, read
from powerd.limits import Bools, Floats, Ints
from powerd.state.columns import kept, replace
from powerd.state.lease_book import LeaseBook
from powerd.state.lease_kernels import margin
from powerd.state.lease_terms import LeaseTerms
from powerd.state.leases import excused, permitted, reachable, rightful

REACTION_MAX_S = 60.0
"""No car is waited for longer than this [s]."""
DEFIANT_SAMPLES = 3
"""Readings in a row that make a car non-compliant; one or two may be old or wrong."""
WINDOW_S = 60.0
"""How long a ceiling of before still excuses a reading, at least [s] (up to twice as long)."""
OBEYED_S = 60.0
"""How long a non-compliant car has to obey before it is believed again [s]."""


def sampled(book: LeaseBook, plugged: Bools, drawn_at_s: Floats, stands: Bools, now_s: float) -> Bools:
    """(n,) there is a reading of this instant: each tick with a stamp is one sample.

    A controller that says nothing of a meter says that it has not changed. Not so in a hello, which carries no
    readings: one from before it may be older than the lease under which it was lawful. Nor where the reading was said
    to be of a time of its own: that is over.

    Args:
        book: after the tick's events.
        plugged: (n,) a car is there.
        drawn_at_s: (n,) when its newest reading came; -inf = none of this car.
        stands: (n,) a stamp of its controller says that the reading has not changed.
        now_s: the tick's instant.
    """
    unchanged = (book.echo_at_s >= now_s) & stands
    return plugged & np.isfinite(drawn_at_s) & (unchanged | (drawn_at_s >= now_s))


def watch(book: LeaseBook, terms: LeaseTerms, plugged: Bools, drawn: Floats, sample: Bools, now_s: float) -> LeaseBook:
    """Judges the readings of ``now_s``, once a tick.

    Args:
        book: after the tick's events.
        terms: lease terms.
        plugged: (n,) a car is there.
        drawn: (n,) newest reading, largest phase [own unit].
        sample: (n,) it is of this tick, see ``sampled``.
        now_s: the tick's instant.
    """
    allowed = permitted(book, terms, plugged, now_s)
    book = _turn_window(book, excused(book, allowed, now_s), now_s)
    reaction_s, lowered_at_s, above, obeyed_since_s, defiant = _judged(
        read(sample),
        read(drawn),
        read(allowed),
        read(rightful(book, terms, plugged, now_s)),
        read(np.maximum(book.high, book.high_before)),
        read(reachable(book, terms, now_s)),
        read(book.reaction_s),
        read(book.lowered_at_s),
        read(book.above),
        read(book.obeyed_since_s),
        read(book.defiant),
        now_s,
    )
    return replace(
        book,
        reaction_s=kept(book.reaction_s, reaction_s),
        lowered_at_s=kept(book.lowered_at_s, lowered_at_s),
        above=kept(book.above, above),
        obeyed_since_s=kept(book.obeyed_since_s, obeyed_since_s),
        defiant=kept(book.defiant, defiant),
    )


@kernel
def _judged(
    sample: Bools,
    drawn: Floats,
    allowed: Floats,
    rightful: Floats,
    excuse: Floats,
    heard: Bools,
    reaction_s: Floats,
    lowered_at_s: Floats,
    above: Ints,
    obeyed_since_s: Floats,
    defiant: Bools,
    now_s: float,
) -> tuple[Floats, Floats, Ints, Floats, Bools]:
    """What each reading says of its car; (n,) each.

    Args:
        sample: there is a reading of this tick.
        drawn: it, largest phase [own unit].
        allowed: the largest ceiling that may be in force.
        rightful: the same with what is held for the car's reaction time.
        excuse: the largest one that was in the last one or two windows.
        heard: its controller is reachable.
        reaction_s: see ``LeaseBook``, likewise the others; they are returned anew, in this order.
        lowered_at_s: of it.
        above: of it.
        obeyed_since_s: of it.
        defiant: of it.
        now_s: the tick's instant.
    """
    reaction_s, lowered_at_s, above = reaction_s.copy(), lowered_at_s.copy(), above.copy()
    obeyed_since_s, defiant = obeyed_since_s.copy(), defiant.copy()
    for i in range(sample.shape[0]):
        if sample[i]:
            least = drawn[i] - margin(drawn[i])
            if least <= allowed[i]:
                lowered_at_s[i] = np.inf
            else:
                reaction_s[i] = max(reaction_s[i], min(now_s - lowered_at_s[i], REACTION_MAX_S))
            obeyed_since_s[i] = min(obeyed_since_s[i], now_s) if least <= rightful[i] else np.inf
            above[i] = 0 if least <= excuse[i] else above[i] + 1
        believed = heard[i] and now_s - obeyed_since_s[i] >= OBEYED_S
        defiant[i] = (defiant[i] or above[i] >= DEFIANT_SAMPLES) and not believed
    return reaction_s, lowered_at_s, above, obeyed_since_s, defiant


def _turn_window(book: LeaseBook, allowed: Floats, now_s: float) -> LeaseBook:
    """Keeps the largest ceilings of the last one to two windows."""
    if now_s - book.window_at_s < WINDOW_S:
        return replace(book, high=kept(book.high, np.maximum(book.high, allowed)))
    return replace(book, high=allowed, high_before=np.maximum(book.high, allowed), window_at_s=now_s)
