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
from powerd.state.lease_kernels import Handed, Lines, all_held, followed, granted, held, margin
from powerd.state.lease_terms import LeaseTerms
from powerd.state.leases import lines_of

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
    turns = now_s - book.window_at_s >= WINDOW_S
    reaction_s, lowered_at_s, above, obeyed_since_s, defiant, high, high_before = _judged(
        lines_of(book, terms, plugged),
        read(sample),
        read(drawn),
        read(book.lowered_at_s),
        read(book.above),
        read(book.high),
        read(book.high_before),
        turns,
        now_s,
    )
    return replace(
        book,
        reaction_s=kept(book.reaction_s, reaction_s),
        lowered_at_s=kept(book.lowered_at_s, lowered_at_s),
        above=kept(book.above, above),
        obeyed_since_s=kept(book.obeyed_since_s, obeyed_since_s),
        defiant=kept(book.defiant, defiant),
        high=kept(book.high, high),
        high_before=kept(book.high_before, high_before),
        window_at_s=now_s if turns else book.window_at_s,
    )


@kernel
def _judged(
    handed: Handed,
    sample: Bools,
    drawn: Floats,
    lowered_at_s: Floats,
    above: Ints,
    high: Floats,
    high_before: Floats,
    turns: bool,
    now_s: float,
) -> tuple[Floats, Floats, Ints, Floats, Bools, Floats, Floats]:
    """What each reading says of its car; (n,) each.

    Args:
        handed: the lines of the book.
        sample: there is a reading of this tick.
        drawn: it, largest phase [own unit].
        lowered_at_s: see ``LeaseBook``, likewise the others; the columns that are judged are returned anew.
        above: of it.
        high: of it.
        high_before: of it.
        turns: a new window begins.
        now_s: the tick's instant.
    """
    lines = Lines(*handed)
    follows, grants, holds = followed(handed, now_s), granted(handed, now_s), held(handed, now_s)
    # Also lowerings within the class's reaction time excuse, and what others may have granted.
    excuses = all_held(lines.hold_ceiling, lines.hold_until_s, now_s)
    reaction_s, lowered_at_s, above = lines.reaction_s.copy(), lowered_at_s.copy(), above.copy()
    obeyed_since_s, defiant = lines.obeyed_since_s.copy(), lines.defiant.copy()
    high, high_before = high.copy(), high_before.copy()
    for i in range(sample.shape[0]):
        allowed = np.maximum(follows[i], grants[i])
        excused = np.maximum(allowed, excuses[i])
        longest = np.maximum(high[i], excused)
        if turns:
            high[i], high_before[i] = excused, longest
        else:
            high[i] = longest
        if sample[i]:
            least = drawn[i] - margin(drawn[i])
            if least <= allowed:
                lowered_at_s[i] = np.inf
            else:
                reaction_s[i] = max(reaction_s[i], min(now_s - lowered_at_s[i], REACTION_MAX_S))
            lawful = least <= np.maximum(allowed, holds[i])
            obeyed_since_s[i] = min(obeyed_since_s[i], now_s) if lawful else np.inf
            above[i] = 0 if least <= np.maximum(high[i], high_before[i]) else above[i] + 1
        heard = now_s - lines.echo_at_s[i] <= lines.ttl_s[i]
        believed = heard and now_s - obeyed_since_s[i] >= OBEYED_S
        defiant[i] = (defiant[i] or above[i] >= DEFIANT_SAMPLES) and not believed
    return reaction_s, lowered_at_s, above, obeyed_since_s, defiant, high, high_before
