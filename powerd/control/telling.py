"""What controllers are told: who is named in this tick and at which ceiling, and whose leases are only renewed.

    lower    a ceiling below the one followed, or a stop that its post has not acked
    raise    one above it
    named    so also who must hear a ceiling again: a new stream, a lease that is over, a stop that has ended, phases
             that are still to be said, a grant whose ack never came
    renewed  all others whose lease is due, one message for a controller

A car's first grant opens the fallback of its post, so a first 0 waits until that fits; and a RenewAll, which a
controller would take for the lease of the car before, goes to no controller with a car that waits for its first grant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.compiled import kernel, read
from powerd.control.compiled import CompiledSite
from powerd.control.decision import GrantBatch, Renewal
from powerd.control.scene import Scene
from powerd.limits import Bools, Floats, Ints
from powerd.state import leases
from powerd.state.lease_book import LeaseBook
from powerd.state.lease_kernels import Handed, larger
from powerd.state.snapshot import Snapshot
from powerd.units import ROW_TOLERANCE, Now


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """The three messages of a tick, and the lease book with them."""

    book: LeaseBook
    lowered: GrantBatch
    raised: GrantBatch
    """Raises, and grants that are named again."""
    renewal: Renewal


def tell(site: CompiledSite, state: Snapshot, scene: Scene, ceiling: Floats, fresh: Bools, now: Now) -> Told:
    """Puts the ceilings into the lease book and onto the messages.

    Args:
        site: in the tick's switching state.
        state: what was heard.
        scene: who can be told what.
        ceiling: (n,) decided [own unit].
        fresh: (n,) must get a named grant.
        now: the tick's instant.
    """
    book, plugged, one = state.leases, state.sessions.plugged, state.contactors.one
    lower, name = _named_in(site, state, scene, ceiling, fresh, now.boottime_s)
    book, lowered = _batch(site, book, lower, ceiling, scene.stopped, one, now)
    book, raised = _batch(site, book, name, ceiling, scene.stopped, one, now)
    book, renewal = _renewals(site, book, plugged, scene, now)
    return Told(book=book, lowered=lowered, raised=raised, renewal=renewal)


def _named_in(
    site: CompiledSite, state: Snapshot, scene: Scene, ceiling: Floats, fresh: Bools, now_s: float
) -> tuple[Ints, Ints]:
    """Who is lowered, and who else is named."""
    book, none = state.leases, np.zeros(ceiling.shape[0])
    waiting = _with_waiting(site, book, state.sessions.plugged)
    lower, name = _named(
        (read(book.sent_latched), read(book.sent_ceiling), read(book.granted), read(book.said_fallback)),
        read(site.terms.fallback),
        (read(scene.stopped), read(scene.deliverable), read(scene.in_force)),
        read(state.sessions.plugged),
        read(state.contactors.said_seq),
        read(fresh),
        read(ceiling),
        read(leases.unacked(book)),
        read(leases.renewal_due(book, site.terms, now_s)),
        # What is held without end matters to a first grant alone.
        read(leases.held_without_end(book) if waiting.any() else none),
        read(waiting),
        read(site.electrical.posts.controller),
    )
    return lower.nonzero()[0], name.nonzero()[0]


@kernel
def _opens_what_fits(granted: bool, ceiling: float, in_force: float, endless: float, fallback: float) -> bool:
    """A grant of this ceiling opens nothing that does not fit.

    The fallback was granted before, or a raise was admitted with it, or what counts covers it. So does what is held
    without end, as of a car that an earlier leader granted to behind a controller without watchdog: only the ack of a
    grant ends it, so a post that waited for the row to have room would wait for ever.
    """
    return granted or ceiling > in_force + ROW_TOLERANCE or max(ceiling, endless) >= fallback


@kernel
def _named(
    book: Handed,
    fallback: Floats,
    scene: Handed,
    plugged: Bools,
    said_seq: Ints,
    fresh: Bools,
    ceiling: Floats,
    unacked: Bools,
    due: Bools,
    endless: Floats,
    waiting: Bools,
    owner: Ints,
) -> tuple[Bools, Bools]:
    """(n,) who gets a decrease, and (n,) who gets a raise or a repeated grant by name.

    Args:
        book: sent_latched, sent_ceiling, granted and said_fallback of it.
        fallback: (n,) as in the site file [own unit].
        scene: stopped, deliverable and in_force of it.
        plugged: (n,) a car is there.
        said_seq: (n,) see ``Contactors``.
        fresh: (n,) must get a named grant.
        ceiling: (n,) decided [own unit].
        unacked: (n,) the newest grant by name is not acked.
        due: (n,) its lease is to be renewed.
        endless: (n,) held until an ack comes [own unit].
        waiting: (C,) a car of the controller waits for its first grant.
        owner: (n,) the controller of each.
    """
    latched, sent, granted, said = book
    stopped, deliverable, in_force = scene
    lower, name = np.zeros(ceiling.shape[0], np.bool_), np.zeros(ceiling.shape[0], np.bool_)
    for i in range(ceiling.shape[0]):
        if not deliverable[i]:
            continue
        if plugged[i] and not stopped[i]:
            reserved = larger(fallback[i], said[i])
            if not _opens_what_fits(granted[i], ceiling[i], in_force[i], endless[i], reserved):
                continue
        if ceiling[i] < in_force[i] - ROW_TOLERANCE or (stopped[i] and (not latched[i] or unacked[i])):
            lower[i] = True
            continue
        raised, free_again = ceiling[i] > in_force[i] + ROW_TOLERANCE, latched[i] and not stopped[i]
        # A lease that lapsed or was never given must be named again before a RenewAll may carry it.
        unnamed, unsaid = plugged[i] and np.isnan(sent[i]), said_seq[i] == 0
        again = due[i] and (unacked[i] or waiting[owner[i]])
        name[i] = raised or free_again or fresh[i] or unsaid or unnamed or again
    return lower, name


def _with_waiting(site: CompiledSite, book: LeaseBook, plugged: Bools) -> Bools:
    """(C,) controllers with a car that waits for its first grant: a RenewAll would open that one's fallback."""
    return _owned(site, site.electrical.posts.controller[plugged & ~book.granted])


def _owned(site: CompiledSite, controllers: Ints) -> Bools:
    """(C,) True for these controllers."""
    named = np.zeros(len(site.electrical.controllers.ids), np.bool_)
    named[controllers] = True
    return named


def _batch(
    site: CompiledSite, book: LeaseBook, evse: Ints, ceiling: Floats, stopped: Bools, one: Bools, now: Now
) -> tuple[LeaseBook, GrantBatch]:
    """Grants to ``evse`` under one new seq; an empty batch uses none."""
    if evse.shape[0]:
        book = leases.send(book, site.terms, evse, ceiling[evse], stopped[evse], now.boottime_s)
    return book, GrantBatch(
        epoch=book.epoch,
        seq=book.seq,
        evse=evse,
        ceiling=ceiling[evse],
        latched=stopped[evse],
        one_phase=one[evse],
        ttl_s=site.terms.ttl_s[evse],
        echo_incarnation=book.echo_incarnation[evse],
        echo_boottime_s=book.echo_boottime_s[evse],
    )


def _renewals(site: CompiledSite, book: LeaseBook, plugged: Bools, scene: Scene, now: Now) -> tuple[LeaseBook, Renewal]:
    """RenewAll for each streaming controller with a lease that is due, and no car that waits for its first grant.

    Where the post's lease of before that car lives, the controller would take the RenewAll for it: its fallback would
    be open, and no row would count it. What is due beside it is renewed by name. A post that has taken no order since
    its controller started refuses both, and its lease ends.
    """
    owner = site.electrical.posts.controller
    renewable = np.isnan(book.barred_ceiling) & ~book.unsettled
    due = leases.renewal_due(book, site.terms, now.boottime_s) & scene.reachable & book.streamed & renewable
    concerned = _owned(site, owner[due]) & ~_with_waiting(site, book, plugged)
    controllers = np.flatnonzero(concerned)
    if controllers.shape[0]:
        members = concerned[owner] & renewable & ~np.isnan(book.sent_ceiling)
        book = leases.renew(book, site.terms, np.flatnonzero(members), now.boottime_s)
    return book, Renewal(epoch=book.epoch, seq=book.seq, controller=controllers)
