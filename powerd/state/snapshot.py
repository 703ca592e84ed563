"""What is GOING ON, as columns: sessions, measurements, stamps and the lease book. One array per word, n EVSEs long.

The snapshot is replaced, never changed in place: ``absorb`` and ``step`` return a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from powerd.limits import Bools, Floats, Ints, Posts
from powerd.state import envelopes
from powerd.state.columns import freeze, replace
from powerd.state.contactors import Contactors, open_contactors, reopen_contactors
from powerd.state.gap import gap_of
from powerd.state.impaired import Impaired, unimpaired
from powerd.state.lease_book import LeaseBook
from powerd.state.lease_terms import LeaseTerms
from powerd.state.leases import reopen_book, worst
from powerd.state.meters import Meters, open_meters, reopen_meters
from powerd.state.overshoot import Overshoot
from powerd.state.phases import Phases, open_phases
from powerd.state.switchgear import Switchgear, reopen_switchgear
from powerd.state.usage import Usage, open_usage, reopen_usage
from powerd.units import Now


@dataclass(frozen=True, kw_only=True, eq=False)
class Sessions:
    """(n,) what is known of the car at each EVSE."""

    plugged: Bools
    """A car is plugged in."""
    plug_incarnation: Ints
    """Process of the controller on whose clock ``leases.plug_boottime_s`` is; 0 = not known."""
    served: Bools
    """A session runs (a plug-in starts one; StopSession ends it, the car may stay)."""
    session_id: tuple[str, ...]
    """Id of the running session, "" = none."""
    started_utc_s: Floats
    """Start, POSIX seconds; nan = none."""
    requested_kwh: Floats
    """Energy the driver asked for; nan = not said."""
    departure_utc_s: Floats
    """Stated departure, POSIX seconds; nan = not said."""
    min_ceiling: Floats
    """Least the car can charge with, as said [own unit]; 0 = not said. ``bounds_of`` has what it comes to."""
    max_ceiling: Floats
    """Most the car can take, as said [own unit]; inf = not said."""
    priority: Ints
    """Class, higher first."""
    weight: Floats
    """Share among equals."""
    energy_kwh: Floats
    """Energy measured in this session."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stop:
    """A stop that holds."""

    stop_id: str
    element: str
    evse: Ints
    """(k,) EVSEs."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class SessionTold:
    """A session as it is told: what is known of the car and what it has got, of one instant."""

    started_utc_s: float
    """See ``Sessions``, here and below."""
    requested_kwh: float
    departure_utc_s: float
    min_ceiling: float
    max_ceiling: float
    priority: int
    weight: float
    energy_kwh: float


def session_told(sessions: Sessions, evse: int) -> SessionTold:
    """The session of the car at ``evse`` as it stands; one that was stopped, as it was then."""
    return SessionTold(**{own.name: getattr(sessions, own.name)[evse].item() for own in fields(SessionTold)})


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """A state-changing request that was done."""

    request_id: str
    """Its id."""
    key: str
    """Of what it concerned: session, stop, envelope."""
    contents: str
    """Digest of what was asked for; "" = not kept (a journal of layout 5)."""
    evse: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """(k,) EVSEs that the answer named; of the oldest answers that named many they are forgotten."""
    session: SessionTold | None = None
    """The session that the answer told; None = none (or a journal of layout 9)."""
    start_utc_s: float | None = None
    """Start of the envelope that the answer told, POSIX seconds; None = none (or a journal of layout 9)."""


ANSWERS_A_PAGE, ANSWER_PAGES = 64, 65
"""Answers are kept on pages, so that a new one changes one of them alone: the journal writes a page as one cell. One is
being filled, and the 64 others hold the 4096 before.
"""
Answers = tuple[tuple[Answered, ...], ...]
"""``ANSWER_PAGES`` pages in a ring, oldest answer first on each; the newest page is the first that is not full."""


def pages_of(answers: Sequence[Answered]) -> Answers:
    """At most 4096 answers, the oldest first, on their pages."""
    starts = range(0, ANSWER_PAGES * ANSWERS_A_PAGE, ANSWERS_A_PAGE)
    return tuple(tuple(answers[start : start + ANSWERS_A_PAGE]) for start in starts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """All that the next step depends on."""

    sessions: Sessions
    leases: LeaseBook
    usage: Usage
    meters: Meters
    phases: Phases
    contactors: Contactors
    gear: Switchgear
    impaired: Impaired
    """What is wrong outside of the step."""
    drawn: Floats
    """(n, 3) last measured current on L1, L2, L3 of the post [A]; DC: power [kW], 0, 0."""
    drawn_at_s: Floats
    """(n,) boottime of that measurement at the daemon [s]; -inf = none of this car."""
    drawn_stands: Bools
    """(n,) it stands until another one is told; False = it was of a time of its own, which is over. See
    ``standing_readings``."""
    stops: tuple[Stop, ...]
    """Stops in force, oldest first."""
    envelopes: envelopes.Envelopes
    """What grid operators allow the site to import."""
    overshoots: tuple[Overshoot, ...]
    """Declared overshoots: the newest ended ones, then those that last."""
    answered: Answers
    """The newest state-changing requests, for idempotence; bounded."""
    warm_stage: tuple[tuple[int, int], ...]
    """Stages of the last allocation; with ``warm_price`` where the next one starts from. Not kept over a restart."""
    warm_price: Floats
    """(stages, m) row prices of each [utility / limit unit]."""
    boot: str
    """Of which boot of the machine these boottimes are; "" = not known."""
    boottime_s: float
    """Boottime of the last step [s]; energy is counted from here."""
    tick: int
    """Steps so far."""


def open_snapshot(
    book: LeaseBook,
    gear: Switchgear,
    boottime_s: float,
    *,
    meters: int = 0,
    boot: str = "",
) -> Snapshot:
    """Nothing plugged in, nothing measured, nobody heard from; as many EVSEs as the book has."""
    n = book.sent_seq.shape[0]
    sessions = Sessions(
        plugged=np.zeros(n, np.bool_),
        plug_incarnation=np.zeros(n, np.int64),
        served=np.zeros(n, np.bool_),
        session_id=("",) * n,
        started_utc_s=np.full(n, np.nan),
        requested_kwh=np.full(n, np.nan),
        departure_utc_s=np.full(n, np.nan),
        min_ceiling=np.zeros(n),
        max_ceiling=np.full(n, np.inf),
        priority=np.zeros(n, np.int64),
        weight=np.ones(n),
        energy_kwh=np.zeros(n),
    )
    return Snapshot(
        sessions=sessions,
        leases=book,
        meters=open_meters(meters, n),
        phases=open_phases(n),
        contactors=open_contactors(n),
        gear=gear,
        impaired=unimpaired(n),
        usage=open_usage(n, boottime_s),
        drawn=np.zeros((n, 3)),
        drawn_at_s=np.full(n, -np.inf),
        drawn_stands=np.ones(n, np.bool_),
        stops=(),
        envelopes=(),
        overshoots=(),
        answered=pages_of(()),
        warm_stage=(),
        warm_price=np.zeros((0, 0)),
        boot=boot,
        boottime_s=boottime_s,
        tick=0,
    )


def reopen_snapshot(snapshot: Snapshot, terms: LeaseTerms, now: Now, boot: str = "") -> Snapshot:
    """The state of a restart: sessions, stops and W as journalled, times on this boot's clock.

    A controller that reconnects says who is plugged in; sessions go on where the same car still is.

    Args:
        snapshot: as journalled.
        terms: the site's.
        now: the start.
        boot: of which boot of the machine that is; "" = not known.
    """
    boottime_s = now.boottime_s
    gap = gap_of(snapshot.boottime_s, snapshot.impaired.utc_ahead_s, snapshot.boot, now, boot)
    n = snapshot.drawn.shape[0]
    drawn = largest_phase(snapshot.drawn)
    book = reopen_book(snapshot.leases, terms, snapshot.sessions.plugged, drawn, snapshot.boottime_s, boottime_s)
    return replace(
        snapshot,
        leases=book,
        meters=reopen_meters(snapshot.meters, n, gap),
        phases=open_phases(n),
        contactors=reopen_contactors(snapshot.contactors, snapshot.boottime_s, boottime_s),
        gear=reopen_switchgear(snapshot.gear, snapshot.boottime_s, boottime_s),
        impaired=unimpaired(n),
        usage=reopen_usage(snapshot.usage, snapshot.boottime_s, boottime_s),
        drawn=np.zeros_like(snapshot.drawn),
        drawn_at_s=np.full(n, -np.inf),
        drawn_stands=np.ones(n, np.bool_),
        envelopes=envelopes.reopen(snapshot.envelopes, gap),
        overshoots=(),  # their times were those of another boot; what still lasts is declared again
        boot=boot,
        boottime_s=boottime_s,
    )


GROUPS: dict[str, type[Sessions | LeaseBook | Usage | Meters | Phases | Contactors | Switchgear | Impaired]] = {
    "sessions": Sessions,
    "leases": LeaseBook,
    "usage": Usage,
    "meters": Meters,
    "phases": Phases,
    "contactors": Contactors,
    "gear": Switchgear,
    "impaired": Impaired,
}
"""The parts of a snapshot that hold columns."""


def columns_of(snapshot: Snapshot) -> dict[str, npt.NDArray[Any]]:
    """Every column of the snapshot by its path, e.g. "leases/sent_ceiling"."""
    own = ("drawn", "drawn_at_s", "drawn_stands")
    found: dict[str, npt.NDArray[Any]] = {name: getattr(snapshot, name) for name in own}
    for name in GROUPS:
        for own, value in vars(getattr(snapshot, name)).items():
            if isinstance(value, np.ndarray):
                found[f"{name}/{own}"] = value
    return found


_groups_of = attrgetter(*GROUPS)


def freeze_snapshot(snapshot: Snapshot, frozen: Snapshot | None = None) -> None:
    """Makes every column read-only; those of ``frozen`` are so already, and in most ticks most are the same."""
    if frozen is None:
        for group in (snapshot, *_groups_of(snapshot)):
            freeze(vars(group).values())
        return
    for group, already in zip((snapshot, *_groups_of(snapshot)), (frozen, *_groups_of(frozen)), strict=True):
        if group is not already:
            freeze(vars(group).values(), vars(already).values())


def worst_of(snapshot: Snapshot, terms: LeaseTerms) -> Floats:
    """(n,) W of a snapshot at its own instant [own unit]."""
    drawn = largest_phase(snapshot.drawn)
    return worst(snapshot.leases, terms, snapshot.sessions.plugged, drawn, snapshot.boottime_s)


def standing_readings(snapshot: Snapshot) -> Bools:
    """(n,) the newest reading stands, for a stream would tell another one: who calls says it with each call, or not."""
    return snapshot.drawn_stands & snapshot.leases.streamed


def bounds_of(sessions: Sessions, posts: Posts) -> tuple[Floats, Floats]:
    """(n,) least ceiling above 0 and largest one of each car [own unit]: what was said, within what its post can do.

    What was said stays as it was said: the site file may be another one by the time it counts.
    """
    return np.maximum(sessions.min_ceiling, posts.min_ceiling), np.minimum(sessions.max_ceiling, posts.max_ceiling)


def largest_phase(drawn: Floats) -> Floats:
    """(n,) the reading that a ceiling bounds: the largest phase [A], a DC post's power [kW]. ``drawn`` (n, 3)."""
    # Three columns: a reduction over a short axis costs five times as much.
    largest: Floats = np.maximum(np.maximum(drawn[:, 0], drawn[:, 1]), drawn[:, 2])
    return largest
