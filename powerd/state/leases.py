"""The lease book: W, the most that each EVSE could be drawing, whatever was lost on the way.

Rule: everything that lets W fall is in this file (an ack, an expiry, an unplug report); everything else only raises it.

Columns over the n EVSEs, all ceilings in the EVSE's own unit (A per phase for AC, kW for DC), all times on the daemon's
boottime clock [s]. W is the largest of

    reserve               what the post may do by itself (fallback, boot current, idle fallback)
    acked ceiling         until its expiry
    every later grant     until its expiry (the *slots*)
    value before lowering until ack + reaction (the *holds*)
    drawn + margin        while the meter shows more than all of these ceilings, by more than the margin
    drawn + 1 mA (W)      of a post without watchdog whose controller is silent, where the meter showed more than them

A grant expires at E = sent + ttl (1 + drift) + watchdog + reaction, and never where the class has no watchdog.
Slots and holds are few and fixed: when they are full, two are merged into one that covers both (larger ceiling, later
expiry, newer seq), which can only raise W. Source of the rules: docs/leases.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from powerd.compiled import read
from powerd.limits import Bools, Floats, Ints
from powerd.state import lease_kernels
from powerd.state.columns import own, put, put_news, replace
from powerd.state.lease_book import LeaseBook, open_book
from powerd.state.lease_kernels import Handed, Lines, all_held, followed, reserved, retire
from powerd.state.lease_slots import insert_hold, insert_slot
from powerd.state.lease_terms import LeaseTerms


def reopen_book(
    book: LeaseBook, terms: LeaseTerms, plugged: Bools, drawn: Floats, was_s: float, now_s: float
) -> LeaseBook:
    """The book of a leader that starts again with the journal of the last one (R3).

    Journalled grants count as sent at the restart: whatever W covered then is held for a whole life from now, that of
    the site file or that of the terms it was granted under, whichever is longer. The epoch is incremented, nobody has
    been heard from, and every EVSE follows its last sent ceiling until it says otherwise.

    Args:
        book: as journalled.
        terms: lease terms, as the site file has them now.
        plugged: (n,) as journalled.
        drawn: (n,) newest readings, as journalled [own unit].
        was_s: boottime of the journalled state, on its own boot's clock [s].
        now_s: this instant, on this boot's clock [s].
    """
    before = _terms_of_before(book, terms)
    covered = worst(book, before, plugged, drawn, was_s)
    alive = (book.sent_until_s > was_s - slack_s(book, before)) & ~np.isnan(book.sent_ceiling)
    until_s = now_s + _left_of_before(book, before, terms, was_s)
    fresh = open_book(terms, epoch=book.epoch + 1, unknown_until_s=until_s, led_since_s=now_s)
    hold_ceiling = fresh.hold_ceiling.copy()
    hold_ceiling[:, 0] = covered
    return replace(
        fresh,
        hold_ceiling=hold_ceiling,
        sent_ceiling=np.where(alive | book.sent_latched, book.sent_ceiling, np.nan),
        sent_latched=book.sent_latched,
        sent_until_s=np.where(alive, until_s, -np.inf),
        plug_boottime_s=book.plug_boottime_s,
        granted=book.granted,
        perhaps_open=book.perhaps_open,
        reaction_s=np.maximum(book.reaction_s, terms.reaction_s),
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


def _terms_of_before(book: LeaseBook, terms: LeaseTerms) -> LeaseTerms:
    """The terms under which a journalled book was granted, as far as they say when something ends."""
    # No car reacts faster than its class: a journal that did not keep the class's time tells at least that.
    return dataclasses.replace(terms, life_s=book.life_s, reaction_s=np.minimum(book.class_reaction_s, book.reaction_s))


def _left_of_before(book: LeaseBook, before: LeaseTerms, terms: LeaseTerms, was_s: float) -> Floats:
    """(n,) how long after a restart a lease of before may still be in force, as E - sent of the new ``terms`` [s].

    A whole life of before, for what was renewed and not yet journalled; or what was still to come of what was
    journalled, which may be of terms before these.
    """
    left = np.maximum(life_of(book, before), last_end_s(book) - was_s) + slack_s(book, before)
    slack = np.maximum(book.reaction_s - terms.reaction_s, 0.0)
    longest: Floats = np.maximum(life_of(book, terms), left - slack)
    return longest


# --- what W is --------------------------------------------------------------------------------------------------------


def slack_s(book: LeaseBook, terms: LeaseTerms) -> Floats:
    """(n,) by how much every end is later than written: a car that was seen to lag moves all of its."""
    return book.reaction_s - terms.reaction_s


def last_end_s(book: LeaseBook) -> Floats:
    """(n,) when the last of all that was granted or is held ends, as written [s]; -inf = nothing."""
    ends = (book.sent_until_s, book.acked_until_s, book.slot_until_s, book.hold_until_s)
    last: Floats = np.column_stack(ends).max(axis=1)
    return last


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
    return reserved(lines_of(book, terms, plugged))


class Standing(NamedTuple):
    """What counts of every EVSE at an instant; (n,) each [own unit]."""

    reserve: Floats
    """See ``reserve``."""
    in_force: Floats
    """See ``in_force``."""
    worst: Floats
    """W."""


def standing(book: LeaseBook, terms: LeaseTerms, plugged: Bools, drawn: Floats, now_s: float) -> Standing:
    """How every EVSE stands at ``now_s``. ``drawn`` (n,) is the newest reading, largest phase [own unit]."""
    return Standing._make(lease_kernels.standing(lines_of(book, terms, plugged), read(drawn), now_s))


def worst(book: LeaseBook, terms: LeaseTerms, plugged: Bools, drawn: Floats, now_s: float) -> Floats:
    """(n,) W at ``now_s``. ``drawn`` (n,) is the newest reading, largest phase [own unit]."""
    return standing(book, terms, plugged, drawn, now_s).worst


#: The book's part of ``Lines``, which ends where ``plugged`` begins.
_OF_BOOK: Callable[[LeaseBook], tuple[Any, ...]] = attrgetter(*Lines._fields[: Lines._fields.index("plugged")])


def lines_of(book: LeaseBook, terms: LeaseTerms, plugged: Bools) -> Handed:
    """What the loops read: ``Lines``, as a plain tuple."""
    return (*map(read, _OF_BOOK(book)), read(plugged), *terms.lines)


def live_grants(book: LeaseBook, terms: LeaseTerms, plugged: Bools, now_s: float) -> Floats:
    """(n,) the largest grant that a post may be following, without what it may do by itself [own unit]."""
    lines = lines_of(book, terms, plugged)
    most: Floats = np.maximum(lease_kernels.granted(lines, now_s), lease_kernels.held(lines, now_s))
    return most


def held_without_end(book: LeaseBook) -> Floats:
    """(n,) the largest ceiling held until an ack comes, however long that takes [own unit]; 0 = none."""
    return all_held(read(book.hold_ceiling), read(book.hold_until_s), float(np.finfo(np.float64).max))


def in_force(book: LeaseBook, terms: LeaseTerms, plugged: Bools, now_s: float) -> Floats:
    """(n,) the ceiling each EVSE follows if nothing was lost: the newest sent, after its end the fallback.

    A latched stop never ends by itself.
    """
    return followed(lines_of(book, terms, plugged), now_s)


def reachable(book: LeaseBook, terms: LeaseTerms, now_s: float) -> Bools:
    """(n,) its controller spoke within one ttl: a grant that echoes that stamp can still be accepted."""
    return now_s - book.echo_at_s <= terms.ttl_s


def settled(book: LeaseBook, terms: LeaseTerms, stands: Standing, now_s: float) -> Floats:
    """(n,) what each falls to when nothing else happens: its ceiling, of a silent controller what is its own."""
    least = stands.reserve
    follows: Floats = np.where(reachable(book, terms, now_s), np.maximum(least, stands.in_force), least)
    return follows


def renewal_due(book: LeaseBook, terms: LeaseTerms, now_s: float) -> Bools:
    """(n,) a live lease that was last renewed a quarter ttl ago (the bound is ttl/3; a tick may be late)."""
    alive = (book.sent_until_s > now_s - slack_s(book, terms)) & ~np.isnan(book.sent_ceiling)
    return alive & (now_s - book.sent_at_s >= 0.25 * terms.ttl_s)


def unacked(book: LeaseBook) -> Bools:
    """(n,) the newest grant by name is not acked: it is named again, for the ack of a RenewAll says nothing of it.

    It may have been lost; or its ack was, as on a way into a new epoch, and then what is held without end would stay.
    """
    return book.acked_seq < book.explicit_seq


def sent(book: LeaseBook, evse: Ints, epoch: Ints | int, seq: Ints | int) -> Bools:
    """(k,) this book has sent grant (epoch, seq), one or (k,), to ``evse`` (k,), or may have: it knows the newest."""
    found: Bools = (epoch == book.epoch) & (seq <= book.sent_seq[evse])
    return found


# --- what changes it --------------------------------------------------------------------------------------------------


def send(book: LeaseBook, terms: LeaseTerms, evse: Ints, ceiling: Floats, latched: Bools, now_s: float) -> LeaseBook:
    """Grants of one message, seq = book.seq + 1, to ``evse`` (k,) with ``ceiling`` (k,): counted from now on.

    A stop that is said again is the same stop: who acked it has acked it, but for one of another epoch, which another
    leader may have ended.
    """
    seq = book.seq + 1
    here = (book.explicit_seq[evse] > 0) & (book.sent_seq[evse] > 0)
    same_stop = latched & book.sent_latched[evse] & here
    then = now_s - slack_s(book, terms)[evse]
    until = now_s + life_of(book, terms)[evse]
    book = insert_slot(book, evse, seq, ceiling, until, then)
    return replace(
        book,
        seq=seq,
        sent_seq=put(book.sent_seq, evse, seq),
        explicit_seq=put(book.explicit_seq, evse, np.where(same_stop, book.explicit_seq[evse], seq)),
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
    slot_seq, slot_ceiling, slot_until = own(book.slot_seq), own(book.slot_ceiling), own(book.slot_until_s)
    acked_seq, acked_ceiling, acked_until = own(book.acked_seq), own(book.acked_ceiling), own(book.acked_until_s)
    hold_ceiling, hold_until, lowered_at = own(book.hold_ceiling), own(book.hold_until_s), own(book.lowered_at_s)
    then, reaction = (now_s - slack_s(book, terms))[evse], terms.reaction_s[evse]
    retire(
        slot_seq, slot_ceiling, slot_until, acked_seq, acked_ceiling, acked_until, hold_ceiling, hold_until, lowered_at,
        read(evse), seq, read(ceiling), read(then), read(reaction), now_s,
    )  # fmt: skip
    return replace(
        book,
        slot_seq=slot_seq, slot_ceiling=slot_ceiling, slot_until_s=slot_until,
        acked_seq=acked_seq, acked_ceiling=acked_ceiling, acked_until_s=acked_until,
        hold_ceiling=hold_ceiling, hold_until_s=hold_until, lowered_at_s=lowered_at,
    )  # fmt: skip


def stamp(book: LeaseBook, evse: Ints, incarnation: Ints | int, boottime_s: Floats | float, now_s: float) -> LeaseBook:
    """A stamp for ``evse`` (k,), or one for each, arrived; within one incarnation an older one is ignored."""
    fresh = (book.echo_incarnation[evse] != incarnation) | (boottime_s >= book.echo_boottime_s[evse])
    if not fresh.all():
        incarnation, boottime_s = (np.broadcast_to(said, evse.shape)[fresh] for said in (incarnation, boottime_s))
        evse = evse[fresh]
    return replace(
        book,
        echo_incarnation=put_news(book.echo_incarnation, evse, incarnation),
        echo_boottime_s=put(book.echo_boottime_s, evse, boottime_s),
        echo_at_s=put(book.echo_at_s, evse, now_s),
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
        perhaps_open=put_news(book.perhaps_open, evse, False),
        reaction_s=put(book.reaction_s, evse, terms.reaction_s[evse]),
        lowered_at_s=put(book.lowered_at_s, evse, np.inf),
        above=put(book.above, evse, 0),
        defiant=put(book.defiant, evse, False),
    )


def linger(book: LeaseBook, terms: LeaseTerms, evse: Ints, now_s: float) -> LeaseBook:
    """A car may have seen more than counts for it from now on: it has its reaction time to follow.

    It came soon after another, or its post was heard of, or took its controller's first order, only now.

    Not beyond the end of that one's leases, which has a reaction time in it, and each by itself: no bound that was
    declared moves. To be called before ``void``, with the grants of the car before.

    Args:
        book: before the swap.
        terms: lease terms.
        evse: (k,) where that is so.
        now_s: the instant of the report.
    """
    if evse.shape[0] == 0:
        return book
    then = (now_s - slack_s(book, terms))[evse]
    soon = now_s + terms.reaction_s[evse]
    alone = reserve(book, terms, np.ones(book.granted.shape, np.bool_))[evse]
    grants = zip(
        np.column_stack((book.acked_ceiling, book.slot_ceiling))[evse].T,
        np.column_stack((book.acked_until_s, book.slot_until_s))[evse].T,
        strict=True,
    )
    for ceiling, until_s in grants:
        alive = until_s > then
        book = insert_hold(book, evse[alive], ceiling[alive], np.minimum(soon, until_s)[alive], then[alive])
    return insert_hold(book, evse, alone, soon, then)


def lapse(book: LeaseBook, terms: LeaseTerms, now_s: float) -> LeaseBook:
    """Forgets sent ceilings whose life is over: no RenewAll may revive what W no longer counts (trace 8)."""
    over = (book.sent_until_s <= now_s - slack_s(book, terms)) & ~book.sent_latched & ~np.isnan(book.sent_ceiling)
    evse = np.flatnonzero(over)
    return replace(book, sent_ceiling=put(book.sent_ceiling, evse, np.nan)) if evse.shape[0] else book
