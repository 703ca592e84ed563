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

from powerd.limits import Bools, Controllers, Floats, Ints, Posts
from powerd.state.columns import put

SLOTS = 6
"""Unacked grants remembered per EVSE before two are merged."""
HOLDS = 4
"""Lowerings under way remembered per EVSE before two are merged."""
MARGIN_A = 1.0
"""Least margin on a measurement above the ceiling [own unit]: max(1 A, 5 %), meters and cars round."""
MARGIN_SHARE = 0.05
"""Relative part of the same margin."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LeaseTerms:
    """What the site file says about leases, spread from controllers to EVSEs; (n,) each."""

    ttl_s: Floats
    """Lease length."""
    life_s: Floats
    """E - sent: ttl (1 + drift) + watchdog + reaction; inf without watchdog."""
    reaction_s: Floats
    """From an applied lower ceiling until the car has followed."""
    has_watchdog: Bools
    """The EVSE falls back by itself."""
    fallback: Floats
    """F, on silence with a car."""
    fallback_idle: Floats
    """On silence without a car."""
    boot: Floats
    """After the post's own restart."""
    rating: Floats
    """Largest ceiling."""

    @staticmethod
    def of(posts: Posts, controllers: Controllers) -> LeaseTerms:
        """Spreads the controllers' terms over their EVSEs."""
        owner = posts.controller
        watchdog = controllers.watchdog_s[owner]
        life = controllers.ttl_s[owner] * (1 + controllers.drift[owner]) + watchdog + controllers.reaction_s[owner]
        return LeaseTerms(
            ttl_s=controllers.ttl_s[owner],
            life_s=np.where(np.isnan(watchdog), np.inf, life),
            reaction_s=controllers.reaction_s[owner],
            has_watchdog=~np.isnan(watchdog),
            fallback=posts.fallback,
            fallback_idle=posts.fallback_idle,
            boot=posts.boot_current,
            rating=posts.max_ceiling,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LeaseBook:
    """All leases of a site; replaced, never changed in place."""

    epoch: int
    """Who leads: ours."""
    seq: int
    """Newest seq given out in this epoch."""
    sent_seq: Ints
    """(n,) newest message that concerned the EVSE, 0 = none in this epoch."""
    explicit_seq: Ints
    """(n,) newest message that named its ceiling (not a RenewAll)."""
    sent_ceiling: Floats
    """(n,) newest ceiling sent; nan = none."""
    sent_latched: Bools
    """(n,) that was a stop."""
    sent_at_s: Floats
    """(n,) when."""
    sent_until_s: Floats
    """(n,) its E."""
    slot_seq: Ints
    """(n, SLOTS) unacked grants, ascending by seq from the left; 0 = empty."""
    slot_ceiling: Floats
    """(n, SLOTS) their ceilings; 0 where empty."""
    slot_until_s: Floats
    """(n, SLOTS) their E; -inf where empty."""
    acked_seq: Ints
    """(n,) newest acked seq of this epoch."""
    acked_ceiling: Floats
    """(n,) ceiling applied with it."""
    acked_until_s: Floats
    """(n,) its E."""
    hold_ceiling: Floats
    """(n, HOLDS) values before a lowering."""
    hold_until_s: Floats
    """(n, HOLDS) ack + reaction; -inf where empty."""
    echo_incarnation: Ints
    """(n,) newest stamp absorbed: process, 0 = none."""
    echo_boottime_s: Floats
    """(n,) newest stamp absorbed: its clock."""
    echo_at_s: Floats
    """(n,) when that stamp was absorbed; -inf = never heard from."""
    streamed: Bools
    """(n,) a stream can carry grants to it."""
    plug_boottime_s: Floats
    """(n,) controller's clock at the newest plug change known."""
    granted: Bools
    """(n,) a grant that is no stop was sent since the car came: its fallback is possible from now on."""


def open_book(terms: LeaseTerms, *, epoch: int, unknown_until_s: float | Floats) -> LeaseBook:
    """A book without state: until ``unknown_until_s`` any EVSE may hold a lease of an earlier leader, up to its rating.

    Pass -inf where it is known that nobody granted anything before (first start of a site).
    """
    n = terms.rating.shape[0]
    hold_ceiling = np.zeros((n, HOLDS))
    hold_until_s = np.full((n, HOLDS), -np.inf)
    hold_ceiling[:, 0] = terms.rating
    hold_until_s[:, 0] = unknown_until_s
    return LeaseBook(
        epoch=epoch,
        seq=0,
        sent_seq=np.zeros(n, np.int64),
        explicit_seq=np.zeros(n, np.int64),
        sent_ceiling=np.full(n, np.nan),
        sent_latched=np.zeros(n, np.bool_),
        sent_at_s=np.full(n, -np.inf),
        sent_until_s=np.full(n, -np.inf),
        slot_seq=np.zeros((n, SLOTS), np.int64),
        slot_ceiling=np.zeros((n, SLOTS)),
        slot_until_s=np.full((n, SLOTS), -np.inf),
        acked_seq=np.zeros(n, np.int64),
        acked_ceiling=np.zeros(n),
        acked_until_s=np.full(n, -np.inf),
        hold_ceiling=hold_ceiling,
        hold_until_s=hold_until_s,
        echo_incarnation=np.zeros(n, np.int64),
        echo_boottime_s=np.zeros(n),
        echo_at_s=np.full(n, -np.inf),
        streamed=np.zeros(n, np.bool_),
        plug_boottime_s=np.full(n, -np.inf),
        granted=np.zeros(n, np.bool_),
    )


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
    book = _insert_slot(book, evse, seq, ceiling, now_s + terms.life_s[evse], now_s)
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
    book = _insert_slot(book, evse, seq, book.sent_ceiling[evse], until, now_s)
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
    book = _insert_hold(book, evse[lowered], before[lowered], now_s + terms.reaction_s[evse[lowered]], now_s)
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
    book = _insert_hold(book, evse[alive], ceiling[alive], until[alive], now_s)
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
    book = _insert_hold(book, everyone, terms.rating, now_s + terms.life_s, now_s)
    return replace(book, epoch=ahead + 1)


def _insert_slot(book: LeaseBook, evse: Ints, seq: int, ceiling: Floats, until_s: Floats, now_s: float) -> LeaseBook:
    """Adds an unacked grant at the right end of the slots of ``evse`` (k,).

    A repeat of the newest slot's ceiling extends that slot (a renewal costs no slot and loses nothing: an ack of the
    older seq leaves the same ceiling). Otherwise expired slots are squeezed out, and if there is still no room the two
    oldest are merged.
    """
    k = np.arange(evse.shape[0])
    slot_seq, slot_ceiling, slot_until = book.slot_seq[evse], book.slot_ceiling[evse], book.slot_until_s[evse]
    live = (slot_seq > 0) & (slot_until > now_s)
    order = np.argsort(~live, axis=1, kind="stable")  # live ones to the left, in their order
    slot_seq = np.take_along_axis(np.where(live, slot_seq, 0), order, axis=1)
    slot_ceiling = np.take_along_axis(np.where(live, slot_ceiling, 0.0), order, axis=1)
    slot_until = np.take_along_axis(np.where(live, slot_until, -np.inf), order, axis=1)
    used = live.sum(axis=1)
    last = np.maximum(used - 1, 0)
    repeat = (used > 0) & (slot_ceiling[k, last] == ceiling)
    full = (used == SLOTS) & ~repeat
    if full.any():
        slot_ceiling[full, 1] = np.maximum(slot_ceiling[full, 0], slot_ceiling[full, 1])
        slot_until[full, 1] = np.maximum(slot_until[full, 0], slot_until[full, 1])
        for column in (slot_seq, slot_ceiling, slot_until):
            column[full, :-1] = column[full, 1:]
    place = np.where(repeat, last, np.minimum(used, SLOTS - 1))
    slot_until[k, place] = np.where(repeat, np.maximum(slot_until[k, place], until_s), until_s)
    slot_seq[k, place] = seq
    slot_ceiling[k, place] = ceiling
    return replace(
        book,
        slot_seq=put(book.slot_seq, evse, slot_seq),
        slot_ceiling=put(book.slot_ceiling, evse, slot_ceiling),
        slot_until_s=put(book.slot_until_s, evse, slot_until),
    )


def _insert_hold(book: LeaseBook, evse: Ints, ceiling: Floats, until_s: Floats, now_s: float) -> LeaseBook:
    """Adds a value to be held until ``until_s``: into an expired place, else merged with the one that ends first."""
    if evse.shape[0] == 0:
        return book
    k = np.arange(evse.shape[0])
    held, until = book.hold_ceiling[evse], book.hold_until_s[evse]
    place = until.argmin(axis=1)
    merge = until[k, place] > now_s
    held[k, place] = np.where(merge, np.maximum(held[k, place], ceiling), ceiling)
    until[k, place] = np.where(merge, np.maximum(until[k, place], until_s), until_s)
    return replace(
        book,
        hold_ceiling=put(book.hold_ceiling, evse, held),
        hold_until_s=put(book.hold_until_s, evse, until),
    )
