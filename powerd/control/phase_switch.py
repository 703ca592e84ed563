"""One phase instead of a pause: where a car's minimum does not fit on three phases, its post connects L1 alone.

    to L1          the car has waited at 0 for ``waits_s``; not all cars' minima fit on all phases above it; its own
                   does on L1, beside those of cars whose turn it is, or beside everybody's if all who can are there
    to all phases  all cars' minima have fitted on all phases above it for ``roomy_s``; or its car has left

One post a tick goes to L1, the first in the order of service; nobody who charges is interrupted for it. Going and
coming back exclude each other, so nothing flaps while cars and limits stay, and no post changes within ``between_s`` of
its last change. Every change happens at W = 0: ``state/contactors`` says what is counted meanwhile, and why.

What is decided here is who switches, never what may flow: that is the rows' and R1's, with each post on the phases that
``counted_on`` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from powerd.control.compiled import CompiledSite
from powerd.control.reclaim import idle
from powerd.control.turns import service_order
from powerd.limits import Bools, Floats, Ints, Limits
from powerd.state import leases
from powerd.state.columns import replace
from powerd.state.contactors import grant_for
from powerd.state.lease_kernels import MARGIN_A
from powerd.state.phases import forget_phases
from powerd.state.snapshot import Snapshot
from powerd.units import ROW_TOLERANCE

L1 = 1
"""Bit of a post's first phase."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long things take before a post changes its phases [s]."""

    waits_s: float = 60.0
    """A car waits at 0 before its post goes to L1 alone."""
    roomy_s: float = 60.0
    """There is room on all phases before it goes back."""
    between_s: float = 600.0
    """Between two changes while the car stays. KEBA's own switch keeps 300 s (ioBroker.kecontact, pull request 235),
    EVerest waits 600 s (EVerest#1038): contactors wear, and cars take each change for a new beginning."""
    confirm_s: float = 300.0
    """For the post to say that it has; a switch may pause for 120 s by itself (Mennekes, evcc#29359)."""


PATIENCE = Patience()
"""As it is in the field."""


@dataclass(frozen=True, eq=False)
class Room:
    """Limits with what is left of them beside loads that are not controlled."""

    limits: Limits
    free: Floats
    """(L,) [limit unit]."""


RoomOf = Callable[[Ints], Room]
"""The room with cars on these phases (n,), 0 = on all of their post's."""


def counted_on(snapshot: Snapshot) -> Ints:
    """(n,) the phases that each post counts on, as bits of its own; 0 = on all, each by itself."""
    state = snapshot.contactors
    if not state.one.any():
        return snapshot.phases.used
    return np.where(state.one, np.where(state.proved, L1, 0), snapshot.phases.used)


def within_contactors(site: CompiledSite, snapshot: Snapshot, upper: Floats, now_s: float) -> Floats:
    """(n,) ``upper`` (n,) [A] where it waits for no contactor: nothing rises before the proof, or on the way back."""
    state = snapshot.contactors
    if not state.one.any():
        return upper
    ceiling = leases.in_force(snapshot.leases, site.terms, snapshot.sessions.plugged, now_s)
    bounded: Floats = np.where(state.one & ~state.proved, np.minimum(upper, ceiling), upper)
    return np.where(state.leaving, 0.0, bounded)


def watch_contactors(
    site: CompiledSite, snapshot: Snapshot, patience: Patience, now_s: float
) -> tuple[Snapshot, tuple[str, ...]]:
    """Posts that must not go on with L1 alone -> the snapshot, and what an operator should know; in every tick.

    The car left; the post cannot or does not switch, or does more than powerd says by itself; or a reading shows other
    phases. What it may do by itself it does on all phases, so then nothing is proved either.
    """
    state = snapshot.contactors
    if not state.one.any():
        return snapshot, ()
    able = _able(site, snapshot)
    astray = state.proved & (snapshot.drawn[:, 1:] > MARGIN_A).any(axis=1)
    late = state.one & ~state.proved & ~state.leaving & (now_s - state.changed_s >= patience.confirm_s)
    leaving = state.one & (state.leaving | ~snapshot.sessions.plugged | ~able | astray | late)
    ids = site.electrical.posts.ids
    alarms = [f"EVSE {ids[i]} draws on more than L1, which it says is all that it has connected" for i in _of(astray)]
    alarms += [f"EVSE {ids[i]} has not said in {patience.confirm_s:g} s that it connected L1 alone" for i in _of(late)]
    contactors = replace(state, leaving=leaving, proved=state.proved & able & ~astray)
    return replace(snapshot, contactors=contactors), tuple(alarms)


def decide_phases(
    site: CompiledSite, snapshot: Snapshot, worst: Floats, room_of: RoomOf, patience: Patience, now_s: float
) -> Snapshot:
    """Whose ceilings are for L1 alone from now on.

    Args:
        site: the compiled site, in any state.
        snapshot: after ``watch_contactors``.
        worst: (n,) W before this tick's grants [A].
        room_of: the limits of this tick.
        patience: how long things take.
        now_s: the tick's instant.
    """
    state = snapshot.contactors
    if not (site.electrical.evse_switches.any() or state.one.any()):
        return snapshot
    able = _able(site, snapshot)
    if not (able.any() or state.one.any()):
        return snapshot
    still = worst <= ROW_TOLERANCE
    rested = now_s - state.changed_s >= patience.between_s
    waits = able & ~state.one & still & rested & snapshot.leases.streamed
    waits &= now_s - snapshot.usage.waiting_since_s >= patience.waits_s
    settled = state.one & state.proved & ~state.leaving & rested
    if waits.any() or settled.any():
        asks = _asks(site, snapshot, worst, now_s)
        roomy = _fit(room_of(np.where(state.one, 0, snapshot.phases.used)), asks.least)
        since = np.where(settled & roomy, np.minimum(state.roomy_since_s, now_s), np.inf)
        leaving = state.leaving | (settled & (now_s - since >= patience.roomy_s))
        state = replace(state, roomy_since_s=since, leaving=leaving)
        first = _first_on_one(site, snapshot, waits & asks.charges & ~roomy, asks, room_of)
        if first.shape[0]:
            state = grant_for(state, first, True, now_s)
            snapshot = replace(snapshot, phases=forget_phases(snapshot.phases, first))
    back = np.flatnonzero(state.leaving & still)
    return replace(snapshot, contactors=grant_for(state, back, False, now_s))


def _able(site: CompiledSite, snapshot: Snapshot) -> Bools:
    """(n,) it can be switched: it charges by powerd's word alone, and its controller listens."""
    book, terms = snapshot.leases, site.terms
    own = np.maximum(leases.fallback_of(book, terms), leases.idle_of(book, terms))
    silent = np.maximum(own, np.fmax(terms.boot, book.said_boot)) <= 0.0
    able: Bools = site.electrical.evse_switches & snapshot.contactors.able & silent
    return able


def _of(evse: Bools) -> list[int]:
    found: list[int] = np.flatnonzero(evse).tolist()
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asks:
    """(n,) who needs how much."""

    charges: Bools
    """A car that would take a turn now."""
    least: Floats
    """What it charges with at least, or its fallback; what may be drawn of old grants where it cannot be told [A]."""
    begun: Floats
    """The same of those whose turn it is, who are silent, or whose post goes to L1; the reserve of those who wait."""


def _asks(site: CompiledSite, snapshot: Snapshot, worst: Floats, now_s: float) -> _Asks:
    sessions, state = snapshot.sessions, snapshot.contactors
    stopped = np.zeros(worst.shape, np.bool_)
    for stop in snapshot.stops:
        stopped[stop.evse] = True
    heard = leases.reachable(snapshot.leases, site.terms, now_s)
    charges = sessions.plugged & sessions.served & heard & ~stopped & ~idle(snapshot.usage, now_s)
    charges &= np.isnan(snapshot.leases.barred_ceiling) & ~snapshot.leases.unsettled
    book, terms = snapshot.leases, site.terms
    ceiling = leases.in_force(book, terms, sessions.plugged, now_s)
    reserve = leases.reserve(book, terms, sessions.plugged)
    once_on = np.maximum(reserve, np.where(book.granted, 0.0, leases.fallback_of(book, terms)))
    least = np.where(charges, np.maximum(site.bounds_of(sessions)[0], once_on), np.where(heard, 0.0, worst))
    waits = charges & (ceiling <= 0.0) & (~state.one | state.leaving)
    return _Asks(charges=charges, least=least, begun=np.where(waits, reserve, least))


def _fit(room: Room, least: Floats) -> Bools:
    """(n,) ``least`` (n,) of everybody together [A] is within every limit above it."""
    over = room.limits.limit_flow(least) > room.free + ROW_TOLERANCE
    above, evse, _ = room.limits.entries()
    fit: Bools = np.ones(least.shape, np.bool_)
    fit[evse[over[above]]] = False
    return fit


def _first_on_one(site: CompiledSite, snapshot: Snapshot, waits: Bools, asks: _Asks, room_of: RoomOf) -> Ints:
    """(0 or 1,) the first of those who wait, in the order of service, whose minimum fits on L1.

    Beside the minima of those whose turn it is; or beside everybody's, once all that can have connected L1 alone.
    """
    if not waits.any():
        return np.zeros(0, np.int64)
    now, one = room_of(counted_on(snapshot)), room_of(np.where(site.electrical.evse_switches, L1, 0))
    left = one.free - _onto(one.limits, now.limits, now.limits.limit_flow(asks.begun))
    above, evse, size = one.limits.entries()
    beside: Bools = np.ones(waits.shape, np.bool_)
    beside[evse[size * asks.least[evse] > left[above] + ROW_TOLERANCE]] = False
    fits = waits & (beside | _fit(one, asks.least))
    order = np.lexsort((service_order(snapshot.usage, snapshot.boottime_s), -snapshot.sessions.priority))
    return order[fits[order]][:1]


def _onto(limits: Limits, other: Limits, flow: Floats) -> Floats:
    """(L,) the flows (L',) of ``other`` under the limits of the same names; 0 where there is none such."""
    largest: dict[str, float] = {}
    for name, value in zip(other.name, flow.tolist(), strict=True):
        largest[name] = max(value, largest.get(name, 0.0))
    return np.array([largest.get(name, 0.0) for name in limits.name])
