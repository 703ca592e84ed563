"""What is GOING ON, as columns: sessions, measurements, stamps and the lease book. One array per word, n EVSEs long.

The snapshot is replaced, never changed in place: ``absorb`` and ``step`` return a new one.
"""

from __future__ import annotations

from dataclasses import dataclass

from powerd.limits import Bools, Floats, Ints
from powerd.state.leases import LeaseBook


@dataclass(frozen=True, kw_only=True, eq=False)
class Sessions:
    """(n,) what is known of the car at each EVSE."""

    plugged: Bools
    """A car is plugged in."""
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
    """Least the car can charge with [own unit]."""
    max_ceiling: Floats
    """Most the car can take [own unit]."""
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """All that the next step depends on."""

    sessions: Sessions
    leases: LeaseBook
    drawn: Floats
    """(n, 3) last measured current on L1, L2, L3 of the post [A]; DC: power [kW], 0, 0."""
    drawn_at_s: Floats
    """(n,) boottime of that measurement at the daemon [s]; -inf = never."""
    stops: tuple[Stop, ...]
    """Stops in force, oldest first."""
    answered: tuple[tuple[str, str], ...]
    """(request_id, key) of the newest state-changing requests, for idempotence; bounded."""
    boottime_s: float
    """Boottime of the last step [s]; energy is counted from here."""
    tick: int
    """Steps so far."""
