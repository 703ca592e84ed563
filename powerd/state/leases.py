"""The lease book: W, the most that each EVSE could be drawing, whatever was lost on the way.

Rule: everything that lets W fall is in this file (an ack, an expiry, an unplug report); everything else only raises it.

Columns over the n EVSEs, all ceilings in the EVSE's own unit (A per phase for AC, kW for DC), all times on the daemon's
boottime clock [s]. W is the largest of

    reserve               what the post may do by itself (fallback, boot current, idle fallback)
    acked ceiling         until its expiry
    every later grant     until its expiry (the *slots*)
    value before lowering until ack + reaction (the *holds*)
    drawn + margin        while the meter shows more than all of these ceilings, by more than the margin

A grant expires at E = sent + ttl (1 + drift) + watchdog + reaction, and never where the class has no watchdog.
Slots and holds are few and fixed: when they are full, two are merged into one that covers both (larger ceiling, later
expiry, newer seq), which can only raise W. Source of the rules: docs/leases.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.state.columns import put
from powerd.state.lease_book import LeaseBook, open_book
from powerd.state.lease_slots import insert_hold, insert_slot
from powerd.state.lease_terms import LeaseTerms

MARGIN_A = 1.0
"""Least margin on a measurement above the ceiling [own unit]: max(1 A, 5 %), meters and cars round."""
MARGIN_SHARE = 0.05
"""Relative part of the same margin."""


def reopen_book(
    book: LeaseBook, terms: LeaseTerms, plugged: Bools, drawn: Floats, was_s: float, now_s: float
) -> LeaseBook:
    """The book of a leader that starts again with the journal of the last one (R3).

    Journalled grants count as sent at the restart: whatever W covered then is held for a whole life from now. The epoch
    is incremented, nobody has been heard from, and every EVSE follows its last sent ceiling until it says otherwise.

    Args:
        book: as journalled.
        terms: lease terms.
        plugged: (n,) as journalled.
        drawn: (n,) newest readings, as journalled [own unit].
        was_s: boottime of the journalled state, on its own boot's clock [s].
        now_s: this instant, on this boot's clock [s].
    """
    covered = worst(book, terms, plugged, drawn, was_s)
    live = (book.sent_until_s > was_s - slack_s(book, terms)) & ~np.isnan(book.sent_ceiling)
    fresh = open_book(terms, epoch=book.epoch + 1, unknown_until_s=now_s + life_of(book, terms))
    hold_ceiling = fresh.hold_ceiling.copy()
    hold_ceiling[:, 0] = covered
    return replace(
        fresh,
        hold_ceiling=hold_ceiling,
        sent_ceiling=np.where(live | book.sent_latched, book.sent_ceiling, np.nan),
        sent_latched=book.sent_latched,
        sent_until_s=np.where(live, now_s + life_of(book, terms), -np.inf),
        plug_boottime_s=book.plug_boottime_s,
        granted=book.granted,
        reaction_s=book.reaction_s,
        high=np.maximum(book.high, book.high_before),
        defiant=book.defiant,
        said_fallback=book.said_fallback,
        said_idle=book.said_idle,
        said_boot=book.said_boot,
        late_s=book.late_s,
        unsettled=book.unsettled,
        barred_ceiling=book.barred_ceiling,
        window_at_s=now_s,
    )


# --- what W is --------------------------------------------------------------------------------------------------------


def slack_s(book: LeaseBook, terms: LeaseTerms) -> Floats:
    """(n,) by how much every end is later than written: a car that was seen to lag moves all of its."""
    return book.reaction_s - terms.reaction_s


def life_of(book: LeaseBook, terms: LeaseTerms) -> Floats:
    """(n,) E - sent, with the slower of the watchdogs that the site file and the controller speak of."""
    return terms.life_s + book.late_s


def fallback_of(book: LeaseBook, terms: LeaseTerms) -> Floats:
    """(n,) F: the larger of the site file's and what the controller said."""
    return np.fmax(terms.fallback, book.said_fallback)


def idle_of(book: LeaseBook, terms: LeaseTerms) -> Floats:
    """(n,) idle fallback, likewise."""
    return np.fmax(terms.fallback_idle, book.said_idle)


def reserve(book: LeaseBook, terms: LeaseTerms, plugged: Bools) -> Floats:
    """(n,) what each post may do by itself at any moment, held also under a lower grant.

    With a car: the boot current (it may restart at any moment) and, from the first grant sent after the plug-in, F.
    A post never heard from counts at the most of these, at its rating where it has no watchdog.
    """
    heard = np.isfinite(book.echo_at_s) & ~book.unsettled
    fallback, idle, boot = fallback_of(book, terms), idle_of(book, terms), np.fmax(terms.boot, book.said_boot)
    with_car = np.maximum(boot, np.where(book.granted, fallback, 0.0))
    known = np.maximum(idle, np.where(plugged, with_car, 0.0))
    alone = np.maximum(np.maximum(fallback, boot), idle)
    silent = np.where(terms.has_watchdog & np.isfinite(book.late_s), alone, terms.rating)
    return np.where(heard, known, silent)


def worst(book: LeaseBook, terms: LeaseTerms, plugged: Bools, drawn: Floats, now_s: float) -> Floats:
    """(n,) W at ``now_s``. ``drawn`` (n,) is the newest reading, largest phase [own unit]."""
    then = now_s - slack_s(book, terms)
    lawful = np.maximum(_granted(book, then), _live(book.hold_ceiling, book.hold_until_s, then))
    w = np.maximum(reserve(book, terms, plugged), lawful)
    margin = margin_of(drawn)
    # What it may still be following is no excess: a lowering must not raise W by the margin.
    over = drawn > np.maximum(lawful, in_force(book, terms, plugged, now_s)) + margin
    w = np.maximum(w, np.where(over, drawn + margin, 0.0))
    mute = ~(terms.has_watchdog & np.isfinite(book.late_s)) & ~reachable(book, terms, now_s)
    w = np.maximum(w, np.where(mute, drawn, np.nan_to_num(book.barred_ceiling)))
    return np.where(book.defiant, np.maximum(w, terms.rating), w)


def margin_of(drawn: Floats) -> Floats:
    """By how much a reading may exceed a ceiling and still count as obedient [own unit]: meters and cars round."""
    return np.maximum(MARGIN_A, MARGIN_SHARE * drawn)


def _live(ceiling: Floats, until_s: Floats, then_s: Floats) -> Floats:
    """(n,) largest ceiling of the columns that have not expired."""
    largest = np.zeros(then_s.shape[0])
    for k in range(ceiling.shape[1]):  # a reduction over a short axis costs three times as much
        np.maximum(largest, np.where(until_s[:, k] > then_s, ceiling[:, k], 0.0), out=largest)
    return largest


def _granted(book: LeaseBook, then_s: Floats) -> Floats:
    """(n,) the largest grant that may be in force: the acked one and every later one that has not expired."""
    acked = np.where(book.acked_until_s > then_s, book.acked_ceiling, 0.0)
    return np.maximum(acked, _live(book.slot_ceiling, book.slot_until_s, then_s))


def permitted(book: LeaseBook, terms: LeaseTerms, plugged: Bools, now_s: float) -> Floats:
    """(n,) the largest ceiling that may be in force at the post, whatever was lost on the way."""
    return np.maximum(in_force(book, terms, plugged, now_s), _granted(book, now_s - slack_s(book, terms)))


def excused(book: LeaseBook, allowed: Floats, now_s: float) -> Floats:
    """(n,) the same with what is held: lowerings within the class's reaction time, and what others may have granted."""
    return np.maximum(allowed, _live(book.hold_ceiling, book.hold_until_s, np.full_like(allowed, now_s)))


def in_force(book: LeaseBook, terms: LeaseTerms, plugged: Bools, now_s: float) -> Floats:
    """(n,) the ceiling each EVSE follows if nothing was lost: the newest sent, after its end the fallback.

    A latched stop never ends by itself.
    """
    live = (book.sent_until_s > now_s - slack_s(book, terms)) | book.sent_latched
    fallback = np.where(plugged & book.granted, fallback_of(book, terms), idle_of(book, terms))
    return np.where(live & ~np.isnan(book.sent_ceiling), book.sent_ceiling, fallback)


def reachable(book: LeaseBook, terms: LeaseTerms, now_s: float) -> Bools:
    """(n,) its controller spoke within one ttl: a grant that echoes that stamp can still be accepted."""
    return now_s - book.echo_at_s <= terms.ttl_s


def renewal_due(book: LeaseBook, terms: LeaseTerms, now_s: float) -> Bools:
    """(n,) a live lease that was last renewed a quarter ttl ago (the bound is ttl/3; a tick may be late)."""
    live = (book.sent_until_s > now_s - slack_s(book, terms)) & ~np.isnan(book.sent_ceiling)
    return live & (now_s - book.sent_at_s >= 0.25 * terms.ttl_s)


# --- what changes it --------------------------------------------------------------------------------------------------


def send(book: LeaseBook, terms: LeaseTerms, evse: Ints, ceiling: Floats, latched: Bools, now_s: float) -> LeaseBook:
    """Grants of one message, seq = book.seq + 1, to ``evse`` (k,) with ``ceiling`` (k,): counted from now on."""
    seq = book.seq + 1
    then = now_s - slack_s(book, terms)[evse]
    until = now_s + life_of(book, terms)[evse]
    book = insert_slot(book, evse, seq, ceiling, until, then)
    return replace(
        book,
        seq=seq,
        sent_seq=put(book.sent_seq, evse, seq),
        explicit_seq=put(book.explicit_seq, evse, seq),
        sent_ceiling=put(book.sent_ceiling, evse, ceiling),
        sent_latched=put(book.sent_latched, evse, latched),
        sent_at_s=put(book.sent_at_s, evse, now_s),
        sent_until_s=put(book.sent_until_s, evse, until),
        granted=put(book.granted, evse, book.granted[evse] | ~latched),
    )


def renew(book: LeaseBook, terms: LeaseTerms, evse: Ints, now_s: float) -> LeaseBook:
    """A RenewAll of seq = book.seq + 1 that concerns ``evse`` (k,): the same ceilings for another life.

    EVSEs without a live lease are not renewed by a RenewAll and must not be in ``evse``.
    """
    seq = book.seq + 1
    until = now_s + life_of(book, terms)[evse]
    book = insert_slot(book, evse, seq, book.sent_ceiling[evse], until, now_s - slack_s(book, terms)[evse])
    return replace(
        book,
        seq=seq,
        sent_seq=put(book.sent_seq, evse, seq),
        sent_at_s=put(book.sent_at_s, evse, now_s),
        sent_until_s=put(book.sent_until_s, evse, until),
    )


def ack(
    book: LeaseBook, terms: LeaseTerms, evse: Ints, epoch: int, seq: int, ceiling: Floats, now_s: float
) -> LeaseBook:
    """The actuators of ``evse`` (k,) took message (epoch, seq) with ``ceiling`` (k,): retires what is not newer.

    Acks of another epoch (trace 11), of a seq never sent, or not newer than the last one change nothing.
    """
    if epoch != book.epoch:
        return book
    good = (seq <= book.sent_seq[evse]) & (seq > book.acked_seq[evse])
    return _retire(book, terms, evse[good], seq, ceiling[good], now_s)


def ack_renewal(book: LeaseBook, terms: LeaseTerms, evse: Ints, epoch: int, seq: int, now_s: float) -> LeaseBook:
    """A RenewAll was taken: it counts only where the last named ceiling was acked before, or W could fall too early."""
    if epoch != book.epoch:
        return book
    newer = (seq <= book.sent_seq[evse]) & (seq > book.acked_seq[evse])
    good = newer & (book.acked_seq[evse] >= book.explicit_seq[evse]) & (book.explicit_seq[evse] > 0)
    chosen = evse[good]
    return _retire(book, terms, chosen, seq, book.acked_ceiling[chosen], now_s)


def _retire(book: LeaseBook, terms: LeaseTerms, evse: Ints, seq: int, ceiling: Floats, now_s: float) -> LeaseBook:
    """Moves grants <= seq of ``evse`` from the slots into the acked column; what they allowed before is held a bit."""
    if evse.shape[0] == 0:
        return book
    slot_seq, until = book.slot_seq[evse], book.slot_until_s[evse]
    then = now_s - slack_s(book, terms)[evse]
    live = (until > then[:, None]) & (slot_seq > 0)
    # The slot that holds seq is the first whose seq is not smaller (merged slots keep their newest seq).
    holder = live & (slot_seq >= seq)
    held_until = until[np.arange(evse.shape[0]), holder.argmax(axis=1)]
    own_until = np.where(holder.any(axis=1), held_until, book.acked_until_s[evse])
    old = live & (slot_seq <= seq)
    before = np.maximum(
        np.where(old, book.slot_ceiling[evse], 0.0).max(axis=1, initial=0.0),
        np.where(book.acked_until_s[evse] > then, book.acked_ceiling[evse], 0.0),
    )
    # Nothing outlives its own end: at E the car has followed, acked or not.
    ended = np.maximum(np.where(old, until, -np.inf).max(axis=1, initial=-np.inf), book.acked_until_s[evse])
    lowered = before > ceiling
    place = evse[lowered]
    hold_until = np.minimum(now_s + terms.reaction_s[place], ended[lowered])
    # What an earlier leader granted is older than any ack of ours: where it would never end by itself, it ends so.
    held = book.hold_until_s[evse]
    soonest = np.where(held == np.inf, (now_s + terms.reaction_s[evse])[:, None], held)
    book = replace(book, hold_until_s=put(book.hold_until_s, evse, soonest))
    book = insert_hold(book, place, before[lowered], hold_until, then[lowered])
    gone = book.slot_seq[evse] <= seq
    return replace(
        book,
        acked_seq=put(book.acked_seq, evse, seq),
        acked_ceiling=put(book.acked_ceiling, evse, ceiling),
        acked_until_s=put(book.acked_until_s, evse, own_until),
        slot_seq=put(book.slot_seq, evse, np.where(gone, 0, book.slot_seq[evse])),
        slot_ceiling=put(book.slot_ceiling, evse, np.where(gone, 0.0, book.slot_ceiling[evse])),
        slot_until_s=put(book.slot_until_s, evse, np.where(gone, -np.inf, book.slot_until_s[evse])),
        lowered_at_s=put(book.lowered_at_s, place, np.minimum(book.lowered_at_s[place], now_s)),
    )


def stamp(book: LeaseBook, evse: Ints, incarnation: Ints | int, boottime_s: Floats | float, now_s: float) -> LeaseBook:
    """A stamp for ``evse`` (k,), or one for each, arrived; within one incarnation an older one is ignored."""
    incarnation, boottime_s = np.broadcast_to(incarnation, evse.shape), np.broadcast_to(boottime_s, evse.shape)
    fresh = (book.echo_incarnation[evse] != incarnation) | (boottime_s >= book.echo_boottime_s[evse])
    newer = evse[fresh]
    return replace(
        book,
        echo_incarnation=put(book.echo_incarnation, newer, incarnation[fresh]),
        echo_boottime_s=put(book.echo_boottime_s, newer, boottime_s[fresh]),
        echo_at_s=put(book.echo_at_s, newer, now_s),
    )


def void(book: LeaseBook, terms: LeaseTerms, evse: Ints) -> LeaseBook:
    """Cars came or left: no lease of before counts for them.

    The controller voids them too, and refuses grants in flight, which echo an older stamp (trace 6). A latched stop
    stays. Holds stay: they are about the post.
    """
    return replace(
        book,
        sent_ceiling=put(book.sent_ceiling, evse, np.where(book.sent_latched[evse], 0.0, np.nan)),
        sent_until_s=put(book.sent_until_s, evse, -np.inf),
        slot_seq=put(book.slot_seq, evse, 0),
        slot_ceiling=put(book.slot_ceiling, evse, 0.0),
        slot_until_s=put(book.slot_until_s, evse, -np.inf),
        acked_until_s=put(book.acked_until_s, evse, -np.inf),
        granted=put(book.granted, evse, False),
        reaction_s=put(book.reaction_s, evse, terms.reaction_s[evse]),
        lowered_at_s=put(book.lowered_at_s, evse, np.inf),
        above=put(book.above, evse, 0),
        defiant=put(book.defiant, evse, False),
    )


def linger(book: LeaseBook, terms: LeaseTerms, evse: Ints, now_s: float) -> LeaseBook:
    """A car came so soon after another that it may have seen that one's ceiling: it has its reaction time to follow.

    Not beyond the end of that one's leases, which has a reaction time in it: no bound that was declared moves. To be
    called before ``void``, with the grants of the car before.

    Args:
        book: before the swap.
        terms: lease terms.
        evse: (k,) where cars were swapped.
        now_s: the instant of the report.
    """
    then = now_s - slack_s(book, terms)
    soon = now_s + terms.reaction_s[evse]
    granted, ends = _granted(book, then)[evse], np.column_stack((book.acked_until_s, book.slot_until_s)).max(axis=1)
    alone = reserve(book, terms, np.ones(then.shape, np.bool_))[evse]
    book = insert_hold(book, evse, granted, np.minimum(soon, ends[evse]), then[evse])
    return insert_hold(book, evse, alone, soon, then[evse])


def lapse(book: LeaseBook, terms: LeaseTerms, now_s: float) -> LeaseBook:
    """Forgets sent ceilings whose life is over: no RenewAll may revive what W no longer counts (trace 8)."""
    over = (book.sent_until_s <= now_s - slack_s(book, terms)) & ~book.sent_latched
    return replace(book, sent_ceiling=np.where(over, np.nan, book.sent_ceiling))
