"""The lease book: W, the most that each EVSE could be drawing, whatever was lost on the way.

Rule: everything that lets W fall is in this file (an ack, an expiry, an unplug report); everything else only raises it.

Columns over the n EVSEs, all ceilings in the EVSE's own unit (A per phase for AC, kW for DC), all times on the daemon's
boottime clock [s]. W is the largest of

    reserve               what the post may do by itself (fallback, boot current, idle fallback)
    acked ceiling         until its expiry
    every later grant     until its expiry (the *slots*)
    value before lowering until ack + reaction (the *holds*)
    drawn + margin        while the meter shows more than the ceiling

A grant expires at E = sent + ttl (1 + drift) + watchdog + reaction, and never where the class has no watchdog.
Slots and holds are few and fixed: when they are full, two are merged into one that covers both (larger ceiling, later
expiry, newer seq), which can only raise W. Source of the rules: docs/leases.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    live = (book.sent_until_s > was_s) & ~np.isnan(book.sent_ceiling)
    fresh = open_book(terms, epoch=book.epoch + 1, unknown_until_s=now_s + terms.life_s)
    hold_ceiling = fresh.hold_ceiling.copy()
    hold_ceiling[:, 0] = covered
    return replace(
        fresh,
        hold_ceiling=hold_ceiling,
        sent_ceiling=np.where(live | book.sent_latched, book.sent_ceiling, np.nan),
        sent_latched=book.sent_latched,
        sent_until_s=np.where(live, now_s + terms.life_s, -np.inf),
        plug_boottime_s=book.plug_boottime_s,
        granted=book.granted,
    )


# --- what W is --------------------------------------------------------------------------------------------------------


def reserve(book: LeaseBook, terms: LeaseTerms, plugged: Bools) -> Floats:
    """(n,) what each post may do by itself at any moment, held also under a lower grant.

    With a car: the boot current (it may restart at any moment) and, from the first grant sent after the plug-in, F.
    A post never heard from counts at F, at its rating where it has no watchdog.
    """
    heard = np.isfinite(book.echo_at_s)
    with_car = np.maximum(terms.boot, np.where(book.granted, terms.fallback, 0.0))
    known = np.maximum(terms.fallback_idle, np.where(plugged, with_car, 0.0))
    silent = np.where(terms.has_watchdog, np.maximum(terms.fallback, terms.fallback_idle), terms.rating)
    return np.where(heard, known, silent)


def worst(book: LeaseBook, terms: LeaseTerms, plugged: Bools, drawn: Floats, now_s: float) -> Floats:
    """(n,) W at ``now_s``. ``drawn`` (n,) is the newest reading, largest phase [own unit]."""
    w = reserve(book, terms, plugged)
    w = np.maximum(w, np.where(book.acked_until_s > now_s, book.acked_ceiling, 0.0))
    w = np.maximum(w, _live(book.slot_ceiling, book.slot_until_s, now_s))
    w = np.maximum(w, _live(book.hold_ceiling, book.hold_until_s, now_s))
    margin = np.maximum(MARGIN_A, MARGIN_SHARE * drawn)
    over = drawn > in_force(book, terms, plugged, now_s) + margin
    return np.maximum(w, np.where(over, drawn + margin, 0.0))


def _live(ceiling: Floats, until_s: Floats, now_s: float) -> Floats:
    """(n,) largest ceiling of the columns that have not expired."""
    largest: Floats = np.where(until_s > now_s, ceiling, 0.0).max(axis=1)
    return largest


def in_force(book: LeaseBook, terms: LeaseTerms, plugged: Bools, now_s: float) -> Floats:
    """(n,) the ceiling each EVSE follows if nothing was lost: the newest sent, after its end the fallback.

    A latched stop never ends by itself.
    """
    live = (book.sent_until_s > now_s) | book.sent_latched
    fallback = np.where(plugged & book.granted, terms.fallback, terms.fallback_idle)
    return np.where(live & ~np.isnan(book.sent_ceiling), np.nan_to_num(book.sent_ceiling), fallback)


def reachable(book: LeaseBook, terms: LeaseTerms, now_s: float) -> Bools:
    """(n,) its controller spoke within one ttl: a grant that echoes that stamp can still be accepted."""
    return now_s - book.echo_at_s <= terms.ttl_s


def renewal_due(book: LeaseBook, terms: LeaseTerms, now_s: float) -> Bools:
    """(n,) a live lease that was last renewed a quarter ttl ago (the bound is ttl/3; a tick may be late)."""
    live = (book.sent_until_s > now_s) & ~np.isnan(book.sent_ceiling)
    return live & (now_s - book.sent_at_s >= 0.25 * terms.ttl_s)


# --- what changes it --------------------------------------------------------------------------------------------------


def send(book: LeaseBook, terms: LeaseTerms, evse: Ints, ceiling: Floats, latched: Bools, now_s: float) -> LeaseBook:
    """Grants of one message, seq = book.seq + 1, to ``evse`` (k,) with ``ceiling`` (k,): counted from now on."""
    seq = book.seq + 1
    book = insert_slot(book, evse, seq, ceiling, now_s + terms.life_s[evse], now_s)
    return replace(
        book,
        seq=seq,
        sent_seq=put(book.sent_seq, evse, seq),
        explicit_seq=put(book.explicit_seq, evse, seq),
        sent_ceiling=put(book.sent_ceiling, evse, ceiling),
        sent_latched=put(book.sent_latched, evse, latched),
        sent_at_s=put(book.sent_at_s, evse, now_s),
        sent_until_s=put(book.sent_until_s, evse, now_s + terms.life_s[evse]),
        granted=put(book.granted, evse, book.granted[evse] | ~latched),
    )


def renew(book: LeaseBook, terms: LeaseTerms, evse: Ints, now_s: float) -> LeaseBook:
    """A RenewAll of seq = book.seq + 1 that concerns ``evse`` (k,): the same ceilings for another life.

    EVSEs without a live lease are not renewed by a RenewAll and must not be in ``evse``.
    """
    seq = book.seq + 1
    until = now_s + terms.life_s[evse]
    book = insert_slot(book, evse, seq, book.sent_ceiling[evse], until, now_s)
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
    slot_seq, until = book.slot_seq[evse], book.slot_until_s[evse]
    live = (until > now_s) & (slot_seq > 0)
    # The slot that holds seq is the first whose seq is not smaller (merged slots keep their newest seq).
    holder = live & (slot_seq >= seq)
    held_until = until[np.arange(evse.shape[0]), holder.argmax(axis=1)]
    own_until = np.where(holder.any(axis=1), held_until, book.acked_until_s[evse])
    old = live & (slot_seq <= seq)
    before = np.maximum(
        np.where(old, book.slot_ceiling[evse], 0.0).max(axis=1, initial=0.0),
        np.where(book.acked_until_s[evse] > now_s, book.acked_ceiling[evse], 0.0),
    )
    lowered = before > ceiling
    book = insert_hold(book, evse[lowered], before[lowered], now_s + terms.reaction_s[evse[lowered]], now_s)
    gone = book.slot_seq[evse] <= seq
    return replace(
        book,
        acked_seq=put(book.acked_seq, evse, seq),
        acked_ceiling=put(book.acked_ceiling, evse, ceiling),
        acked_until_s=put(book.acked_until_s, evse, own_until),
        slot_seq=put(book.slot_seq, evse, np.where(gone, 0, book.slot_seq[evse])),
        slot_ceiling=put(book.slot_ceiling, evse, np.where(gone, 0.0, book.slot_ceiling[evse])),
        slot_until_s=put(book.slot_until_s, evse, np.where(gone, -np.inf, book.slot_until_s[evse])),
    )


def stamp(book: LeaseBook, evse: Ints, incarnation: int, boottime_s: float, now_s: float) -> LeaseBook:
    """A stamp of the EVSEs' controller arrived; within one incarnation an older one is ignored."""
    same = book.echo_incarnation[evse] == incarnation
    newer = evse[~same | (boottime_s >= book.echo_boottime_s[evse])]
    return replace(
        book,
        echo_incarnation=put(book.echo_incarnation, newer, incarnation),
        echo_boottime_s=put(book.echo_boottime_s, newer, boottime_s),
        echo_at_s=put(book.echo_at_s, newer, now_s),
    )


def void(book: LeaseBook, evse: Ints) -> LeaseBook:
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
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What a hello says of its EVSEs, (k,) each."""

    evse: Ints
    """Which."""
    ceiling: Floats
    """Ceiling in force [own unit]."""
    remaining_s: Floats
    """For how long, 0 = it is at its fallback [s]."""
    accepted: Bools
    """It accepted a grant since the car came (or may have): its fallback is possible."""


def reported(book: LeaseBook, terms: LeaseTerms, report: Report, now_s: float) -> LeaseBook:
    """A hello said which ceilings are in force for how long: W covers them, whoever granted them.

    Where this book knows no newer grant, the reported one is what the EVSE follows (so that a restarted daemon lowers
    from there and does not cut everybody off).
    """
    evse, ceiling, remaining_s = report.evse, report.ceiling, report.remaining_s
    alive = remaining_s > 0
    until = np.where(alive, now_s + remaining_s + terms.life_s[evse] - terms.ttl_s[evse], -np.inf)
    book = insert_hold(book, evse[alive], ceiling[alive], until[alive], now_s)
    adopt = alive & np.isnan(book.sent_ceiling[evse])
    return replace(
        book,
        sent_ceiling=put(book.sent_ceiling, evse[adopt], ceiling[adopt]),
        sent_until_s=put(book.sent_until_s, evse[adopt], until[adopt]),
        granted=put(book.granted, evse[report.accepted], True),
    )


def lapse(book: LeaseBook, now_s: float) -> LeaseBook:
    """Forgets sent ceilings whose life is over: no RenewAll may revive what W no longer counts (trace 8)."""
    over = (book.sent_until_s <= now_s) & ~book.sent_latched
    return replace(book, sent_ceiling=np.where(over, np.nan, book.sent_ceiling))


def advance_epoch(book: LeaseBook, terms: LeaseTerms, ahead: int, now_s: float) -> LeaseBook:
    """A hello knew a higher epoch than ours (R4): lead with a still higher one, and wait as without state.

    Seqs go on counting, acks of the old epoch no longer retire anything.
    """
    everyone = np.arange(terms.rating.shape[0])
    book = insert_hold(book, everyone, terms.rating, now_s + terms.life_s, now_s)
    return replace(book, epoch=ahead + 1)
