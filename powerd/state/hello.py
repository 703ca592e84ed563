"""What a controller says of itself when it connects, against what the book and the site file know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.state.columns import put, put_news, replace
from powerd.state.lease_book import LeaseBook
from powerd.state.lease_slots import insert_hold
from powerd.state.lease_terms import LeaseTerms
from powerd.state.leases import life_of, sent, slack_s


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
    """It accepted a grant since the car came: its fallback is possible."""
    perhaps: Bools
    """It may have."""
    epoch: Ints
    """Epoch of that grant."""
    seq: Ints
    """Its seq."""


def reported(book: LeaseBook, terms: LeaseTerms, report: Report, now_s: float) -> LeaseBook:
    """A hello said which ceilings are in force for how long: W covers them, whoever granted them.

    Where this book knows no newer grant, the reported one is what the EVSE follows (so that a restarted daemon lowers
    from there and does not cut everybody off). A hello may come late: what this book granted itself is over at E, and
    what was granted before this leader a whole life after it began, whatever the hello says. To go on with that would
    be a raise, and what is lent on by now may not leave room for it.
    """
    evse, ceiling, remaining_s = report.evse, report.ceiling, report.remaining_s
    then = now_s - slack_s(book, terms)[evse]
    alive = (remaining_s > 0) & ~_over(book, report, then)
    until = np.where(alive, now_s + remaining_s + life_of(book, terms)[evse] - terms.ttl_s[evse], -np.inf)
    book = insert_hold(book, evse[alive], ceiling[alive], until[alive], then[alive])
    # A lease from before the car is none that a renewal can go on with: it ends, and the post is at its idle fallback.
    goes_on = alive & (_ours(book, report) | _still_held(book, terms, evse, then))
    adopt = goes_on & (report.accepted | report.perhaps) & np.isnan(book.sent_ceiling[evse])
    book = follows_no_more(book, evse, np.where(remaining_s > 0, ceiling, np.nan))
    return replace(
        book,
        sent_ceiling=put(book.sent_ceiling, evse[adopt], ceiling[adopt]),
        sent_until_s=put(book.sent_until_s, evse[adopt], until[adopt]),
        granted=put(book.granted, evse[report.accepted], True),
        perhaps_open=put_news(book.perhaps_open, evse[report.perhaps], True),
    )


def follows_no_more(book: LeaseBook, evse: Ints, ceiling: Floats) -> LeaseBook:
    """Before the first grant of our epoch ``evse`` (k,) said which lease is in force, ``ceiling`` (k,); nan = none is.

    The journal may tell of more: the last leader's decreases did not wait for the disk. To repeat what is journalled
    would then be a raise, which W hides and a full row has no room for. Who is at his fallback has no lease to go on
    with: that he was never told 0, so that it is nobody's turn that ended, is in that.
    """
    before, first = book.sent_ceiling[evse], (book.sent_seq[evse] == 0) & ~book.sent_latched[evse]
    less = first & ((ceiling < before) | np.isnan(ceiling))
    over = evse[first & np.isnan(ceiling)]
    return replace(
        book,
        sent_ceiling=put(book.sent_ceiling, evse[less], ceiling[less]),
        sent_until_s=put(book.sent_until_s, over, -np.inf),
    )


def _ours(book: LeaseBook, report: Report) -> Bools:
    """(k,) what a hello reports was granted by this book."""
    ours: Bools = (report.epoch == book.epoch) & (report.seq > 0) & (report.seq <= book.sent_seq[report.evse])
    return ours


def _over(book: LeaseBook, report: Report, then_s: Floats) -> Bools:
    """(k,) it was, and all that it granted there had ended by ``then_s`` (k,)."""
    last_s = np.maximum(book.acked_until_s[report.evse], book.slot_until_s[report.evse].max(axis=1))
    over: Bools = _ours(book, report) & (last_s <= then_s)
    return over


def _still_held(book: LeaseBook, terms: LeaseTerms, evse: Ints, then_s: Floats) -> Bools:
    """(k,) until ``then_s`` (k,) W held what could be left of leases of before this leader: nobody else has got it."""
    held: Bools = then_s - book.led_since_s < life_of(book, terms)[evse]
    return held


def unlatch(book: LeaseBook, evse: Ints) -> LeaseBook:
    """The posts ``evse`` (k,) took the order of a new process of their controller, which knows of no stop there.

    One that was sent to the process before was not taken: it is sent anew while it holds, and once it is released it
    is nothing that is in force.
    """
    free = evse[book.sent_latched[evse]]
    if free.shape[0] == 0:
        return book
    return replace(
        book,
        sent_ceiling=put(book.sent_ceiling, free, np.nan),
        sent_latched=put(book.sent_latched, free, False),
        sent_until_s=put(book.sent_until_s, free, -np.inf),
    )


def forget_ack(book: LeaseBook, evse: Ints) -> LeaseBook:
    """The posts ``evse`` (k,) took the first order of a new process: a stop, if that one knows of it.

    It has not said whether, and that the process before took one is no proof: it is said anew, until it is acked.
    """
    forgotten = evse[book.sent_latched[evse]]
    return replace(book, acked_seq=put(book.acked_seq, forgotten, 0)) if forgotten.shape[0] else book


def foreign_grant(book: LeaseBook, evse: Ints, epoch: Ints, seq: Ints) -> bool:
    """A grant that one of ``evse`` (k,) names, (k,) each, has our number and was never sent: another leader had it."""
    return bool(np.any((epoch == book.epoch) & ~sent(book, evse, epoch, seq)))


def foreign_epoch(book: LeaseBook, evse: Ints, highest: int) -> bool:
    """Whether the highest epoch that the controller of ``evse`` has heard is not ours.

    It is ahead, or it has our number although we have sent nothing there: a leader before us had it, without whose
    journal we start.
    """
    return highest > book.epoch or (highest == book.epoch and not bool(np.any(book.sent_seq[evse] > 0)))


def advance_epoch(book: LeaseBook, terms: LeaseTerms, ahead: int, now_s: float) -> LeaseBook:
    """A hello knew a higher epoch than ours (R4): lead with a still higher one, and wait as without state.

    Seqs go on counting; acks of the old epoch no longer retire anything, nor does one of our new number before we have
    sent something under it: yet another leader may have taken the same.
    """
    book = wait_for_others(book, terms, now_s)
    return replace(book, epoch=ahead + 1, sent_seq=np.zeros_like(book.sent_seq))


def wait_for_others(book: LeaseBook, terms: LeaseTerms, now_s: float) -> LeaseBook:
    """Another leader was here: anybody may hold anything until all of its grants are over."""
    everyone = np.arange(terms.rating.shape[0])
    return insert_hold(book, everyone, terms.rating, now_s + life_of(book, terms), now_s - slack_s(book, terms))


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """How a controller is configured, by its own words; (k,) each, nan = it did not say."""

    fallback: Floats
    """F [own unit]."""
    fallback_idle: Floats
    """Idle fallback [own unit]."""
    boot_current: Floats
    """After the post's own restart [own unit]."""
    watchdog_s: Floats
    """Time the EVSE needs to fall back by itself [s]; inf = it has no watchdog."""


def reconcile(book: LeaseBook, terms: LeaseTerms, evse: Ints, said: Said) -> LeaseBook:
    """Keeps what ``evse`` (k,) said of themselves: where it differs from the site file the larger value is reserved.

    What is not said stays as it was said before: the post is the same.
    """
    own = np.where(terms.has_watchdog, terms.watchdog_s, np.inf)[evse]
    with np.errstate(invalid="ignore"):
        slower = np.where(np.isfinite(own), np.fmax(said.watchdog_s - own, 0.0), 0.0)
        slower = np.where(np.isnan(said.watchdog_s), book.late_s[evse], slower)
        moved = np.where(slower > book.late_s[evse], slower - book.late_s[evse], 0.0)
    return replace(
        book,
        slot_until_s=put(book.slot_until_s, evse, _later(book.slot_until_s[evse], moved[:, None])),
        hold_until_s=put(book.hold_until_s, evse, _later(book.hold_until_s[evse], moved[:, None])),
        acked_until_s=put(book.acked_until_s, evse, _later(book.acked_until_s[evse], moved)),
        sent_until_s=put(book.sent_until_s, evse, _later(book.sent_until_s[evse], moved)),
        said_fallback=put(book.said_fallback, evse, _or_before(said.fallback, book.said_fallback[evse])),
        said_idle=put(book.said_idle, evse, _or_before(said.fallback_idle, book.said_idle[evse])),
        said_boot=put(book.said_boot, evse, _or_before(said.boot_current, book.said_boot[evse])),
        late_s=put(book.late_s, evse, slower),
    )


def _or_before(said: Floats, before: Floats) -> Floats:
    """(k,) what was said; where nothing was (nan), what was said before."""
    return np.where(np.isnan(said), before, said)


def _later(until_s: Floats, moved_s: Floats) -> Floats:
    """Ends moved by so much; what is over for ever stays so."""
    return until_s + np.where(until_s == -np.inf, 0.0, moved_s)


def settle(book: LeaseBook, evse: Ints, unsettled: Bools) -> LeaseBook:
    """Which posts have taken an order of their controller since it started."""
    return replace(book, unsettled=put_news(book.unsettled, evse, unsettled))


def bar(book: LeaseBook, evse: Ints, ceiling: Floats) -> LeaseBook:
    """A hello that cannot be followed: its EVSEs get no grants, count as never heard from, and at no less than it said.

    It cannot be true, or nothing could be sent under the epoch after the one that it names.
    """
    return replace(book, barred_ceiling=put(book.barred_ceiling, evse, ceiling))


def trust(book: LeaseBook, evse: Ints) -> LeaseBook:
    """A hello that can be followed ends that."""
    return replace(book, barred_ceiling=put(book.barred_ceiling, evse, np.nan))
