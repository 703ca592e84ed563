"""Events into the snapshot: one small function per kind, in the order in which they came.

Nothing is decided here and nothing is lost: an event either takes effect, is harmlessly old, or is answered with what
does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never, cast

import numpy as np

from powerd.control import events as ev
from powerd.control.absorb_envelopes import envelope_set, envelope_withdrawn
from powerd.control.absorb_switchgear import absorb_gear
from powerd.control.compiled import CompiledSite
from powerd.control.merge import Joinable, joined, runs
from powerd.control.requests import SiteRequest, answer_again, answered
from powerd.control.switch_events import ServiceChanged, SwitchEvent, SwitchOrdered
from powerd.control.turns import off_in_silence
from powerd.limits import Bools, Floats, Ints
from powerd.state import contactors, hello, leases, meters
from powerd.state.columns import put, put_news, replace
from powerd.state.lease_book import LeaseBook
from powerd.state.phases import forget_phases
from powerd.state.snapshot import Sessions, Snapshot, Stop, session_told
from powerd.state.usage import forget_car
from powerd.units import ROW_TOLERANCE, Now

EPOCH_JUMP_MAX = 2**40
"""A hello that claims an epoch further ahead than this is that controller's fault alone (leases.md R4, trace 12)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Absorbed:
    """What the events made of the snapshot."""

    snapshot: Snapshot
    outcomes: tuple[ev.Outcome, ...]
    """One per event."""
    fresh: Bools
    """(n,) EVSEs that must get a named grant this tick."""
    greeted: Bools
    """(n,) EVSEs whose controller has connected in this tick."""
    alarms: tuple[str, ...]
    """What an operator should know."""


def absorb(site: CompiledSite, snapshot: Snapshot, events: Sequence[ev.Event], now: Now) -> Absorbed:
    """Applies the events, joined where nobody can tell, in order; pure."""
    nobody = np.zeros(site.electrical.evse_count, np.bool_)
    nobody.setflags(write=False)  # one column under two names, so each is copied by who first writes into it
    state = Absorbed(snapshot=snapshot, outcomes=(), fresh=nobody, greeted=nobody, alarms=())
    outcomes: list[ev.Outcome] = [ev.Done()] * len(events)
    for run in runs(events, site.electrical.evse_count):
        if len(run) == 1:
            state, outcomes[run[0]] = _apply(site, state, events[run[0]], now)
        else:
            state = _apply_run(site, state, [events[index] for index in run], now)
    return replace(state, outcomes=tuple(outcomes))


def _apply_run(site: CompiledSite, state: Absorbed, events: list[ev.Event], now: Now) -> Absorbed:
    """Several events of one kind at once; all of them are done."""
    stamps = [event for event in events if isinstance(event, ev.StampSeen)]
    if not stamps:
        return _apply(site, state, joined(cast(list[Joinable], events)), now)[0]
    size = [stamp.evse.shape[0] for stamp in stamps]
    book = leases.stamp(
        state.snapshot.leases,
        np.concatenate([stamp.evse for stamp in stamps]),
        np.repeat([stamp.incarnation for stamp in stamps], size),
        np.repeat([stamp.boottime_s for stamp in stamps], size),
        now.boottime_s,
    )
    return _with_book(state, book)


def _apply(site: CompiledSite, state: Absorbed, event: ev.Event, now: Now) -> tuple[Absorbed, ev.Outcome]:
    """One event."""
    match event:
        case ev.HelloReceived():
            return _hello(site, state, event, now), ev.Done()
        case ev.CallReceived():
            return _called(site, state, event, now), ev.Done()
        case ev.Acked():
            return _with(state, _acked(site, state.snapshot, event, now)), ev.Done()
        case ev.StampSeen() | ev.RenewalAcked() | ev.StreamClosed():
            return _with_book(state, _book_after(site, state.snapshot.leases, event, now)), ev.Done()
        case ev.FreshWanted():
            return _freshen(state, event.evse), ev.Done()
        case ev.Measured():
            return _with(state, _measured(state.snapshot, event, now)), ev.Done()
        case ev.MeterRead():
            return _with(state, _meter_read(state.snapshot, event, now)), ev.Done()
        case ev.PlugChanged():
            return _with(state, _plug_changed(site, state.snapshot, event, now)), ev.Done()
        case (
            ev.SessionStarted()
            | ev.SessionUpdated()
            | ev.SessionStopped()
            | ev.StopOrdered()
            | ev.StopReleased()
            | ev.EnvelopeSet()
            | ev.EnvelopeWithdrawn()
        ):
            after, outcome = _request(site, state.snapshot, event, now)
            return _with(state, after), outcome
        case ev.TroubleBegan() | ev.TroubleEnded() | ev.SolveSkipped():
            return _with(state, _troubled(state.snapshot, event)), ev.Done()
        case _:
            return _gear_news(site, state, event, now)


def _troubled(snapshot: Snapshot, event: ev.TroubleBegan | ev.TroubleEnded | ev.SolveSkipped) -> Snapshot:
    """What the daemon noticed of itself; an order to skip the solve concerns this tick alone."""
    match event:
        case ev.TroubleBegan():
            return replace(snapshot, impaired=snapshot.impaired.began(event.trigger, event.cap))
        case ev.TroubleEnded():
            return replace(snapshot, impaired=snapshot.impaired.ended(event.trigger))
        case ev.SolveSkipped():
            return snapshot
        case _:
            assert_never(event)


def _gear_news(site: CompiledSite, state: Absorbed, event: SwitchEvent, now: Now) -> tuple[Absorbed, ev.Outcome]:
    """The switchgear's news have a module of their own."""
    request = event if isinstance(event, SwitchOrdered | ServiceChanged) else None
    again = None if request is None else answer_again(state.snapshot, request)
    if again is not None:
        return state, again
    news = absorb_gear(site.electrical, state.snapshot.gear, event, now)
    after = replace(state.snapshot, gear=news.gear)
    if request is not None:
        after = answered(after, request, news.outcome)
    return replace(_with(state, after), alarms=(*state.alarms, *news.alarms)), news.outcome


def _with(state: Absorbed, snapshot: Snapshot) -> Absorbed:
    return replace(state, snapshot=snapshot)


def _with_book(state: Absorbed, book: LeaseBook) -> Absorbed:
    return _with(state, replace(state.snapshot, leases=book))


def _freshen(state: Absorbed, evse: Ints) -> Absorbed:
    return replace(state, fresh=put(state.fresh, evse, True))


# --- controllers ------------------------------------------------------------------------------------------------------


def _book_after(
    site: CompiledSite,
    book: LeaseBook,
    event: ev.StampSeen | ev.RenewalAcked | ev.StreamClosed,
    now: Now,
) -> LeaseBook:
    """News that only the lease book cares for."""
    match event:
        case ev.StampSeen():
            return leases.stamp(book, event.evse, event.incarnation, event.boottime_s, now.boottime_s)
        case ev.RenewalAcked():
            return leases.ack_renewal(book, site.terms, event.evse, event.epoch, event.seq, now.boottime_s)
        case ev.StreamClosed():
            return replace(book, streamed=put(book.streamed, event.evse, False))
        case _:
            assert_never(event)


def _acked(site: CompiledSite, snapshot: Snapshot, event: ev.Acked, now: Now) -> Snapshot:
    """Posts took ceilings, for the phases that they now connect."""
    book, state = snapshot.leases, snapshot.contactors
    if event.epoch == book.epoch and state.one.any():
        one = ev.or_none(event.one_phase, event.evse)
        state = contactors.heed(state, event.evse, event.seq, book.sent_seq[event.evse], one)
    book = leases.ack(book, site.terms, event.evse, event.epoch, event.seq, event.ceiling, now.boottime_s)
    return replace(snapshot, leases=book, contactors=state)


def _hello(site: CompiledSite, state: Absorbed, event: ev.HelloReceived, now: Now) -> Absorbed:
    """Reconciles: epoch, plugs, ceilings in force; every EVSE then gets a named grant."""
    book = state.snapshot.leases
    if event.said is not None:
        book = hello.reconcile(book, site.terms, event.evse, event.said)
    highest = event.heard
    if highest > book.epoch + EPOCH_JUMP_MAX:
        return _with_book(state, hello.bar(book, event.evse, event.ceiling))
    other = hello.foreign_grant(book, event.evse, event.epoch, event.seq)
    foreign = other or hello.foreign_epoch(book, event.evse, highest)
    if foreign and state.snapshot.impaired.disk:
        return _put_off(site, _with_book(state, book), event.evse, event.ceiling, now)
    book = hello.trust(book, event.evse)
    if foreign:
        state = _advanced(site, _with_book(state, book), highest, now)
        book = state.snapshot.leases
    unheard = ~np.isfinite(book.echo_at_s[event.evse]) & event.plugged
    book = leases.linger(book, site.terms, event.evse[unheard], now.boottime_s)
    opened, perhaps = _opened(book, leases.idle_of(book, site.terms)[event.evse], event)
    first = event.evse[book.echo_incarnation[event.evse] != event.incarnation]
    book = leases.stamp(book, event.evse, event.incarnation, event.boottime_s, now.boottime_s)
    unsettled = ev.or_none(event.unsettled, event.evse)
    known = ~unsettled
    state = _with_book(state, replace(book, streamed=put(book.streamed, event.evse, True)))
    plugs = ev.PlugChanged(
        evse=event.evse[known], plugged=event.plugged[known], plug_boottime_s=event.plug_boottime_s[known]
    )
    snapshot = _plug_changed(site, state.snapshot, plugs, now)
    book = hello.settle(snapshot.leases, event.evse, unsettled)
    snapshot = replace(snapshot, leases=hello.unlatch(book, event.evse[known & (event.epoch == 0) & ~event.latched]))
    report = hello.Report(
        evse=event.evse,
        ceiling=event.ceiling,
        remaining_s=np.where(event.plugged, event.remaining_s, 0.0),
        accepted=opened,
        perhaps=perhaps,
        epoch=event.epoch,
        seq=event.seq,
    )
    book = hello.reported(snapshot.leases, site.terms, report, now.boottime_s)
    able, one = (ev.or_none(said, event.evse) for said in (event.switches, event.one_phase))
    before = snapshot.contactors
    greeted = contactors.greet(before, event.evse, able, event.ceiling, one, now.boottime_s)
    # What was seen of a post while another leader had it on other phases says nothing of its car.
    phases = forget_phases(snapshot.phases, np.flatnonzero(greeted.one != before.one))
    seen = meters.interrupt_posts(snapshot.meters, event.evse, now.boottime_s)
    usage = off_in_silence(snapshot.usage, event.evse[(event.ceiling <= 0.0) & (event.remaining_s <= 0.0)])
    # What another process read says nothing of now, until this one tells what it reads.
    stands = put_news(snapshot.drawn_stands, first, False)
    snapshot = replace(
        snapshot, leases=book, contactors=greeted, phases=phases, meters=seen, usage=usage, drawn_stands=stands
    )
    state = replace(_with(state, snapshot), greeted=put(state.greeted, event.evse, True))
    return _freshen(state, event.evse[known])


def _called(site: CompiledSite, state: Absorbed, event: ev.CallReceived, now: Now) -> Absorbed:
    """Reconciles epoch, plug and fallback of one EVSE; which ceiling is in force there a call does not say."""
    book, evse, plug, (epoch, seq) = state.snapshot.leases, event.seen.evse, event.plug, event.order
    first = book.echo_incarnation[evse] != event.seen.incarnation
    applied = np.full(evse.shape, np.nan) if event.ack is None else event.ack.ceiling
    highest = max(epoch, event.highest_epoch)
    if highest > book.epoch + EPOCH_JUMP_MAX:
        return _with_book(state, hello.bar(book, evse, np.nan_to_num(applied)))
    # One of our number that we have not sent: a leader before us had it, without whose journal we start.
    other = epoch >= book.epoch and not bool(leases.sent(book, evse, epoch, seq).all())
    owner = site.electrical.posts.controller
    foreign = other or hello.foreign_epoch(book, np.flatnonzero(owner == owner[evse]), highest)
    if foreign and state.snapshot.impaired.disk:
        return _put_off(site, state, evse, np.nan_to_num(applied), now)
    opened, perhaps = _opened_by_call(state.snapshot, event)
    perhaps |= plug.plugged & foreign
    if event.ack is not None and not other:
        state = _with(state, _acked(site, state.snapshot, event.ack, now))
    state = _with_book(state, hello.trust(state.snapshot.leases, evse))
    if foreign:
        name = site.electrical.posts.ids[int(evse[0])]
        alarm = f"{name} has heard another leader, epoch {highest}: nothing rises until all of its grants are over"
        state = replace(_advanced(site, state, highest, now), alarms=(*state.alarms, alarm))
    book = state.snapshot.leases
    unheard = evse[~np.isfinite(book.echo_at_s[evse]) & plug.plugged]
    book = leases.linger(book, site.terms, unheard, now.boottime_s)
    book = leases.stamp(book, evse, event.seen.incarnation, event.seen.boottime_s, now.boottime_s)
    snapshot = replace(state.snapshot, leases=hello.settle(book, evse, np.array([True])))
    if not event.unsettled:
        snapshot = _plug_changed(site, replace(state.snapshot, leases=book), plug, now)
    snapshot = _without_hello(snapshot, evse[first | snapshot.contactors.able[evse]], now)
    book = hello.follows_no_more(snapshot.leases, evse, applied)
    idles = evse[(event.ack is None) & (leases.idle_of(book, site.terms)[evse] <= 0.0)]
    book = replace(
        book,
        granted=put_news(book.granted, evse[opened], True),
        perhaps_open=put_news(book.perhaps_open, evse[perhaps], True),
    )
    return _with(state, replace(snapshot, leases=book, usage=off_in_silence(snapshot.usage, idles)))


def _without_hello(snapshot: Snapshot, evse: Ints, now: Now) -> Snapshot:
    """A process that asks for ``evse`` (k,) by single calls says nothing of phases or readings of before.

    Nor is it told of phases, though it may have said on its stream before that it knows of them.
    """
    no = np.zeros(evse.shape, np.bool_)
    greeted = contactors.greet(snapshot.contactors, evse, no, np.zeros(evse.shape), no, now.boottime_s)
    return replace(snapshot, contactors=greeted, drawn_stands=put_news(snapshot.drawn_stands, evse, False))


def _opened_by_call(snapshot: Snapshot, event: ev.CallReceived) -> tuple[Bools, Bools]:
    """(1,) the car has accepted a grant before this call: its fallback is possible; (1,) it may have.

    A process that is new to us and found the car there may have forgotten one. One that names a grant of before our
    epoch may have it for this car, unless this book was told of the car before, and has sent it none.
    """
    book, evse, plug = snapshot.leases, event.seen.evse, event.plug
    first = book.echo_incarnation[evse] != event.seen.incarnation
    came = ~snapshot.sessions.plugged[evse] | (plug.plug_boottime_s > book.plug_boottime_s[evse])
    named = (0 < event.order[0] < book.epoch) & (first | came)
    found = first & (plug.plug_boottime_s == 0)
    accepted = event.accepted & ~_only_stopped(book, evse, event.order)
    return plug.plugged & accepted, plug.plugged & (named | found | event.unsettled)


def _only_stopped(book: LeaseBook, evse: Ints, order: tuple[Ints | int, Ints | int]) -> Bools:
    """(k,) what is named, (epoch, seq) each or none (epoch 0), is of this book, which has sent the car stops alone.

    A stop opens no fallback: after it the post is at 0, and what stays open is what was before.
    """
    epoch, seq = order
    ours = leases.sent(book, evse, epoch, seq) | (np.asarray(epoch) == 0)
    stopped: Bools = ours & book.sent_latched[evse] & ~book.granted[evse]
    return stopped


def _advanced(site: CompiledSite, state: Absorbed, ahead: int, now: Now) -> Absorbed:
    """Another leader was here, of epoch ``ahead`` (R4)."""
    book = hello.advance_epoch(state.snapshot.leases, site.terms, ahead, now.boottime_s)
    doubted = contactors.doubt(state.snapshot.contactors, now.boottime_s)
    return _with(state, replace(state.snapshot, leases=book, contactors=doubted))


def _put_off(site: CompiledSite, state: Absorbed, evse: Ints, ceiling: Floats, now: Now) -> Absorbed:
    """Another leader was here, and the disk cannot take an epoch above its: so long these ``evse`` (k,) get no grants.

    Under an epoch that is not durable nothing may leave (R4), not even a stop, and to nobody; under the one that is,
    all others go on. A hello once the disk is well again is followed.
    """
    book = hello.wait_for_others(state.snapshot.leases, site.terms, now.boottime_s)
    return _with_book(state, hello.bar(book, evse, ceiling))


def is_put_off(snapshot: Snapshot, evse: Ints, highest: int) -> bool:
    """The last hello of ``evse`` (k,), with the highest epoch it named, was put off; it would be followed now."""
    book = snapshot.leases
    barred = not np.isnan(book.barred_ceiling[evse]).all()
    return barred and not snapshot.impaired.disk and highest <= book.epoch + EPOCH_JUMP_MAX


def _opened(book: LeaseBook, idle: Floats, event: ev.HelloReceived) -> tuple[Bools, Bools]:
    """(k,) a car has accepted a grant: its fallback is possible; (k,) it may have. ``idle`` (k,): the fallback without.

    A process names what it has accepted; of the ones before it, it knows nothing. What those accepted is over once the
    post has taken its first order, and may be in force until then. Whoever allows more than an idle post does has it
    from somebody. A post under a latched stop cannot reach its fallback: the grant after it will open that.
    """
    forgotten = ev.or_none(event.unsettled, event.evse) | (event.ceiling > idle + ROW_TOLERANCE)
    accepted = (event.epoch > 0) & ~_only_stopped(book, event.evse, (event.epoch, event.seq))
    named = accepted & ~_before_the_car(book, event) & ~event.latched
    return event.plugged & named, event.plugged & (event.epoch == 0) & forgotten


def _before_the_car(book: LeaseBook, event: ev.HelloReceived) -> Bools:
    """(k,) the grant that a hello names was accepted before this car came, so it has not opened its fallback.

    It is ours, and every grant of ours echoes a stamp from before the plug-in.
    """
    same = (book.echo_incarnation[event.evse] == event.incarnation) & (event.epoch == book.epoch)
    found: Bools = same & (event.plug_boottime_s > book.echo_boottime_s[event.evse])
    return found


def _measured(snapshot: Snapshot, event: ev.Measured, now: Now) -> Snapshot:
    """The newest reading wins; where no car is, one of a past window may be of the last car: nothing of now."""
    of_now = snapshot.sessions.plugged[event.evse] | (event.window_s is None)
    evse, drawn = event.evse[of_now], event.drawn[of_now]
    return replace(
        snapshot,
        meters=meters.read_posts(snapshot.meters, event.evse, event.drawn, event.window_s, now.boottime_s),
        drawn=put(snapshot.drawn, evse, drawn),
        drawn_at_s=put(snapshot.drawn_at_s, evse, now.boottime_s),
        # Who asks by single calls says with each what is measured, or that nothing is.
        drawn_stands=put_news(snapshot.drawn_stands, evse, snapshot.leases.streamed[evse] & (event.window_s is None)),
    )


def _meter_read(snapshot: Snapshot, event: ev.MeterRead, now: Now) -> Snapshot:
    """Windows come over to the daemon's clock: the stamp is taken to have been read now."""
    found = snapshot.meters
    for k, m in enumerate(event.meter.tolist()):
        window = now.boottime_s - event.start_age_s[k], now.boottime_s - event.end_age_s[k]
        reading = np.append(event.current[k], event.power_kw[k])
        found = meters.read_meter(found, m, event.incarnation, event.boottime_s, reading, *window)
    return replace(snapshot, meters=found)


def _plug_changed(site: CompiledSite, snapshot: Snapshot, event: ev.PlugChanged, now: Now) -> Snapshot:
    """A car that came starts a session (or meets the announced one); one that left ends it and voids its lease."""
    was = snapshot.sessions.plugged[event.evse]
    swapped = was & event.plugged & _plugged_anew(snapshot, event)
    left = event.evse[was & (~event.plugged | swapped)]
    came = event.evse[event.plugged & (~was | swapped)]
    changed = event.evse[(was != event.plugged) | swapped]
    was_unsettled = snapshot.leases.unsettled[event.evse]
    settles = was_unsettled & event.plugged
    book = leases.linger(snapshot.leases, site.terms, event.evse[swapped | settles], now.boottime_s)
    book = hello.unlatch(book, event.evse[was_unsettled & leases.unacked(book)[event.evse]])
    book = hello.forget_ack(book, event.evse[was_unsettled])
    if changed.shape[0]:
        book = leases.void(book, site.terms, changed)
    book = hello.settle(book, event.evse, np.zeros(event.evse.shape, np.bool_))
    # It took its controller's order for an idle post; grants of before are refused there, and none was sent meanwhile.
    book = replace(
        book,
        granted=put_news(book.granted, event.evse[settles], False),
        perhaps_open=put_news(book.perhaps_open, event.evse[settles], False),
    )
    book = replace(book, plug_boottime_s=put(book.plug_boottime_s, event.evse, event.plug_boottime_s))
    sessions = _end_sessions(snapshot.sessions, left)
    usage = forget_car(snapshot.usage, left)
    drawn, drawn_at = put(snapshot.drawn, left, 0.0), put(snapshot.drawn_at_s, left, -np.inf)
    teller = snapshot.leases.echo_incarnation[event.evse]
    sessions = replace(
        sessions,
        plugged=put(sessions.plugged, came, True),
        plug_incarnation=put_news(sessions.plug_incarnation, event.evse, teller),
    )
    unannounced = came[~sessions.served[came]]
    # Ticks begin anew where the journal is lost, and a wall clock may be set back: both together name a car once.
    came_at = f"{now.utc:%Y%m%dT%H%M%SZ}-{snapshot.tick}"
    names = {i: f"{site.electrical.posts.ids[i]}-{came_at}" for i in unannounced.tolist()}
    sessions = _begin_sessions(sessions, unannounced, names, now)
    seen = meters.read_posts(snapshot.meters, left, np.zeros((left.shape[0], 3)), None, now.boottime_s)
    return replace(
        snapshot,
        sessions=sessions,
        leases=book,
        usage=usage,
        meters=seen,
        phases=forget_phases(snapshot.phases, changed),
        drawn=drawn,
        drawn_at_s=drawn_at,
        drawn_stands=put_news(snapshot.drawn_stands, left, True),
    )


def _plugged_anew(snapshot: Snapshot, event: ev.PlugChanged) -> Bools:
    """(k,) the plug has changed since it was last told.

    Times are compared within one process of a controller: another one may have another clock. What that one saw come
    (a time above 0) is another car; what it found there (0) is taken to be the one that is known.
    """
    told_s, teller = snapshot.leases.plug_boottime_s[event.evse], snapshot.leases.echo_incarnation[event.evse]
    before = snapshot.sessions.plug_incarnation[event.evse]
    another = (before != 0) & (teller != 0) & (teller != before)
    anew: Bools = np.isfinite(told_s) & (event.plug_boottime_s > np.where(another, 0.0, told_s))
    return anew


# --- sessions and stops -----------------------------------------------------------------------------------------------


def _begin_sessions(sessions: Sessions, evse: Ints, names: dict[int, str], now: Now) -> Sessions:
    """Serves these EVSEs under these names."""
    if evse.shape[0] == 0:
        return sessions
    ids = list(sessions.session_id)
    for i, name in names.items():
        ids[i] = name
    return replace(
        sessions,
        served=put(sessions.served, evse, True),
        started_utc_s=put(sessions.started_utc_s, evse, now.utc.timestamp()),
        session_id=tuple(ids),
    )


def _end_sessions(sessions: Sessions, evse: Ints) -> Sessions:
    """The cars are gone: nothing is known there any more."""
    if evse.shape[0] == 0:
        return sessions
    ids = list(sessions.session_id)
    for i in evse.tolist():
        ids[i] = ""
    return replace(
        _undemanded(sessions, evse),
        plugged=put(sessions.plugged, evse, False),
        served=put(sessions.served, evse, False),
        session_id=tuple(ids),
        started_utc_s=put(sessions.started_utc_s, evse, np.nan),
        energy_kwh=put(sessions.energy_kwh, evse, 0.0),
    )


def _request(site: CompiledSite, snapshot: Snapshot, event: SiteRequest, now: Now) -> tuple[Snapshot, ev.Outcome]:
    """A request of a person or a program; the same one again gets the same answer and changes nothing."""
    again = answer_again(snapshot, event)
    if again is not None:
        return snapshot, again
    match event:
        case ev.SessionStarted():
            after, outcome = _session_started(site, snapshot, event, now)
        case ev.SessionUpdated():
            after, outcome = _session_updated(site, snapshot, event)
        case ev.SessionStopped():
            after, outcome = _session_stopped(snapshot, event)
        case ev.StopOrdered():
            stop = Stop(stop_id=event.stop_id, element=event.element, evse=event.evse, reason=event.reason)
            after = replace(snapshot, stops=(*snapshot.stops, stop))
            outcome = ev.Done(event.stop_id, tuple(int(i) for i in event.evse))
        case ev.StopReleased():
            after, outcome = _stop_released(snapshot, event)
        case ev.EnvelopeSet():
            after, outcome = envelope_set(site, snapshot, event, now)
        case ev.EnvelopeWithdrawn():
            after, outcome = envelope_withdrawn(snapshot, event)
        case _:
            assert_never(event)
    return answered(after, event, outcome), outcome


def _session_started(
    site: CompiledSite, snapshot: Snapshot, event: ev.SessionStarted, now: Now
) -> tuple[Snapshot, ev.Outcome]:
    """Begins or replaces the session of an EVSE; energy already measured for a car that is plugged in stays."""
    sessions = snapshot.sessions
    if event.session_id in sessions.session_id and sessions.session_id.index(event.session_id) != event.evse:
        where = site.electrical.posts.ids[sessions.session_id.index(event.session_id)]
        return snapshot, ev.Refused("session_id", f"an id not in use; {event.session_id!r} runs at {where}")
    refused = _demand_misfit(site, event.evse, event.demand)
    if refused is not None:
        return snapshot, refused
    evse = np.array([event.evse])
    sessions = _begin_sessions(sessions, evse, {event.evse: event.session_id}, now)
    sessions = _demanded(_undemanded(sessions, evse), event.evse, event.demand)
    return replace(snapshot, sessions=sessions), _done(sessions, event.session_id, event.evse)


def _session_updated(site: CompiledSite, snapshot: Snapshot, event: ev.SessionUpdated) -> tuple[Snapshot, ev.Outcome]:
    """Changes what was said."""
    if event.session_id not in snapshot.sessions.session_id:
        return snapshot, ev.NotFound(f"session {event.session_id!r}")
    i = snapshot.sessions.session_id.index(event.session_id)
    known = float(snapshot.sessions.min_ceiling[i]), float(snapshot.sessions.max_ceiling[i])
    refused = _demand_misfit(site, i, event.demand, *known)
    if refused is not None:
        return snapshot, refused
    sessions = _demanded(snapshot.sessions, i, event.demand)
    return replace(snapshot, sessions=sessions), _done(sessions, event.session_id, i)


def _session_stopped(snapshot: Snapshot, event: ev.SessionStopped) -> tuple[Snapshot, ev.Outcome]:
    """Ends the service; the car may stay plugged in and is no longer served."""
    sessions = snapshot.sessions
    if event.session_id not in sessions.session_id:
        return snapshot, ev.NotFound(f"session {event.session_id!r}")
    i = sessions.session_id.index(event.session_id)
    ids = tuple("" if k == i else own for k, own in enumerate(sessions.session_id))
    sessions = replace(sessions, served=put(sessions.served, i, False), session_id=ids)
    return replace(snapshot, sessions=sessions), _done(sessions, event.session_id, i)


def _done(sessions: Sessions, session_id: str, i: int) -> ev.Done:
    """The session as a request left it."""
    return ev.Done(session_id, (i,), session_told(sessions, i))


def _demand_misfit(
    site: CompiledSite, i: int, demand: ev.Demand, known_min: float = 0.0, known_max: float = np.inf
) -> ev.Refused | None:
    """What of the demand this post cannot do, or does not go with the bounds that were said before [own unit]."""
    posts = site.electrical.posts
    unit = "kW" if posts.is_dc[i] else "A"
    if demand.min_ceiling is not None and demand.min_ceiling > posts.max_ceiling[i]:
        return ev.Refused("demand.min_current_a", f"at most the post's rating, {posts.max_ceiling[i]:g} {unit}")
    if demand.max_ceiling is not None and demand.max_ceiling < posts.min_ceiling[i]:
        field = "demand.max_power_kw" if posts.is_dc[i] else "demand.max_current_a"
        return ev.Refused(field, f"at least the post's minimum, {posts.min_ceiling[i]:g} {unit}")
    low = demand.min_ceiling if demand.min_ceiling is not None else known_min
    if demand.max_ceiling is not None and demand.max_ceiling < low:
        return ev.Refused("demand.max_current_a", f"at least min_current_a, {low:g} {unit}")
    if demand.max_ceiling is None and demand.min_ceiling is not None and demand.min_ceiling > known_max:
        return ev.Refused("demand.min_current_a", f"at most max_current_a, which is {known_max:g} {unit}")
    return None


def _undemanded(sessions: Sessions, evse: Ints) -> Sessions:
    """Nothing was said of the cars at ``evse`` (k,)."""
    return replace(
        sessions,
        requested_kwh=put(sessions.requested_kwh, evse, np.nan),
        departure_utc_s=put(sessions.departure_utc_s, evse, np.nan),
        min_ceiling=put(sessions.min_ceiling, evse, 0.0),
        max_ceiling=put(sessions.max_ceiling, evse, np.inf),
        priority=put(sessions.priority, evse, 0),
        weight=put(sessions.weight, evse, 1.0),
    )


def _demanded(sessions: Sessions, i: int, demand: ev.Demand) -> Sessions:
    """What was said replaces what was known; what was not said stays."""
    changes: dict[str, object] = {}
    if demand.requested_energy_kwh is not None:
        changes["requested_kwh"] = put(sessions.requested_kwh, i, demand.requested_energy_kwh)
    if demand.departure_time is not None:
        changes["departure_utc_s"] = put(sessions.departure_utc_s, i, demand.departure_time.timestamp())
    if demand.min_ceiling is not None:
        changes["min_ceiling"] = put(sessions.min_ceiling, i, demand.min_ceiling)
    if demand.max_ceiling is not None:
        changes["max_ceiling"] = put(sessions.max_ceiling, i, demand.max_ceiling)
    if demand.priority is not None:
        changes["priority"] = put(sessions.priority, i, demand.priority)
    if demand.weight is not None:
        changes["weight"] = put(sessions.weight, i, demand.weight)
    return replace(sessions, **changes)  # type: ignore[arg-type]


def _stop_released(snapshot: Snapshot, event: ev.StopReleased) -> tuple[Snapshot, ev.Outcome]:
    """Ends a stop; EVSEs that no other stop holds are free."""
    over = [stop for stop in snapshot.stops if stop.stop_id == event.stop_id]
    if not over:
        return snapshot, ev.NotFound(f"stop {event.stop_id!r}")
    left = tuple(stop for stop in snapshot.stops if stop.stop_id != event.stop_id)
    still = {int(i) for stop in left for i in stop.evse}
    free = tuple(int(i) for i in over[0].evse if int(i) not in still)
    return replace(snapshot, stops=left), ev.Done(event.stop_id, free)
