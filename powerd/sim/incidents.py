"""What ``--trip T1@08:15`` and ``--return T1@10:00`` mean, and a full house of cars around them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from powerd.errors import UnreadableInput
from powerd.network.electrical import Electrical
from powerd.sim.grid import Incident
from powerd.sim.outage import Cause, elements_of
from powerd.sim.sessions import RecordedSession

_FORM = re.compile(r"(?P<element>.+?)@(?P<hour>\d{1,2}):(?P<minute>\d\d)(:(?P<second>\d\d))?(:(?P<cause>[a-z]+))?")
#: The day of a run without recorded sessions: a Monday.
DAY = date(2026, 1, 12)
#: Cars come within so many minutes before the first incident, and stay so many after the last one.
COME_MIN, QUIET_MIN, STAY_MIN = 12, 8, 20


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """An incident as the user wrote it."""

    text: str
    """As written."""
    element: str
    """Id."""
    at: time
    """Local time of the run's first day."""
    lost: bool
    """False = it comes back."""
    cause: Cause
    """Why it is lost."""


def parse_incident(text: str, *, lost: bool) -> Clocked:
    """``ELEMENT@HH:MM[:SS][:protection]``.

    Raises:
        UnreadableInput: it is not written like that.
    """
    match = _FORM.fullmatch(text)
    cause = match["cause"] or Cause.UPSTREAM.value if match else ""
    if match is None or cause not in list(Cause) or int(match["hour"]) > 23 or int(match["minute"]) > 59:
        option = "--trip" if lost else "--return"
        raise UnreadableInput(f"{option} {text}: write ELEMENT@HH:MM, e.g. T1@08:15 or T1@08:15:protection")
    at = time(int(match["hour"]), int(match["minute"]), min(59, int(match["second"] or 0)))
    return Clocked(text=text, element=match["element"], at=at, lost=lost, cause=Cause(cause))


def incidents_of(
    clocked: Sequence[Clocked], electrical: Electrical, start: datetime, timezone: ZoneInfo
) -> tuple[Incident, ...]:
    """The incidents in seconds of a run that begins at ``start``.

    Raises:
        UnreadableInput: there is no such element, or the time is before the start.
    """
    known = {element.name: element for element in elements_of(electrical)}
    found = []
    for one in clocked:
        if one.element not in known:
            names = ", ".join(list(known)[:8])
            raise UnreadableInput(f"{one.text}: {electrical.site_id} has no {one.element}; it has {names} ...")
        local = start.astimezone(timezone)
        # In UTC: two instants of one zone are subtracted as their clocks show them, which is wrong by what was changed.
        at_s = round((datetime.combine(local.date(), one.at, timezone).astimezone(UTC) - start).total_seconds())
        if at_s < 0:
            raise UnreadableInput(f"{one.text}: the run begins at {local:%H:%M:%S}; name a later time")
        before = {trip.element for trip in clocked if trip.lost and trip.at < one.at}
        if not one.lost and one.element not in before:
            raise UnreadableInput(f"--return {one.text}: {one.element} is not lost before; give its --trip as well")
        found.append(Incident(at_s=at_s, element=known[one.element], lost=one.lost, cause=one.cause))
    return tuple(found)


def full_house(
    electrical: Electrical, clocked: Sequence[Clocked], timezone: ZoneInfo, seed: int
) -> tuple[RecordedSession, ...]:
    """A car at every post before the first incident, none of them full before the last one is over."""
    first, last = min(one.at for one in clocked), max(one.at for one in clocked)
    posts, rng = electrical.posts, np.random.default_rng(seed)
    begin = datetime.combine(DAY, first, timezone).astimezone(UTC) - timedelta(minutes=COME_MIN)
    end = datetime.combine(DAY, last, timezone).astimezone(UTC) + timedelta(minutes=STAY_MIN)
    sessions = []
    for evse, name in enumerate(posts.ids):
        arrival = begin + timedelta(seconds=int(rng.integers(0, (COME_MIN - QUIET_MIN) * 60)))
        hours = (end - arrival).total_seconds() / 3600.0
        most = float(posts.max_ceiling[evse] * posts.kw_per_unit[evse]) * hours
        sessions.append(
            RecordedSession(
                session_id=f"house-{name}",
                evse_id=name,
                arrival=arrival,
                departure=end,
                day=DAY,
                energy_kwh=most,
                said_energy_kwh=None,
                said_departure=None,
            )
        )
    return tuple(sessions)
