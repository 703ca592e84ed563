"""What each EVSE asks for this tick, from what drivers said and what meters show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.allocation.demands import Demands
from powerd.control.compiled import CompiledSite
from powerd.control.turns import overdue, resting, service_order, watch_turns
from powerd.limits import Bools, Floats
from powerd.state import leases
from powerd.state.snapshot import Snapshot, largest_phase

SETTLE_S = 60.0
"""A car that draws less than offered for this long does not want more (cars lag up to 30 s: openeo#13)."""
IDLE_S = 300.0
"""A car that draws nothing for this long is served after all others (longer than WARP's 210 s for a wake-up)."""
IDLE_CLASS = -1
"""Priority of such cars: below every class that can be asked for."""
PROBE_S = 3600.0
"""An idle car that got nothing for this long is offered its minimum again like any other: it may have woken up."""
HEADROOM = 2.0
"""Left above what such a car draws, so that it can show that it wants more [own unit]."""
PRESSING = 0.75
"""Closer than this to its ceiling a car is taken to want more [own unit]; less than one pilot step of 1 A."""


def watch_usage(site: CompiledSite, snapshot: Snapshot, boottime_s: float) -> Snapshot:
    """Energy and usage since the last step, from the readings that held meanwhile."""
    drawn = largest_phase(snapshot.drawn)
    ceiling = leases.in_force(snapshot.leases, site.terms, snapshot.sessions.plugged, boottime_s)
    metered = np.isfinite(snapshot.drawn_at_s)  # a post that never sent a reading of this car tells nothing
    slack = snapshot.sessions.plugged & metered & (drawn < ceiling - PRESSING)
    before = snapshot.usage.slack_since_s
    # At 0 A a car cannot show what it wants: what was known stays, for a while.
    unasked = (ceiling == 0.0) & (boottime_s - before < IDLE_S + PROBE_S)
    since = np.where(slack, np.minimum(before, boottime_s), np.where(unasked, before, np.inf))
    settled = boottime_s - since >= SETTLE_S
    bound = site.next_step_up(np.maximum(drawn + HEADROOM, snapshot.sessions.min_ceiling))
    usable = np.where(settled, bound, np.where(np.isfinite(since), snapshot.usage.usable, np.inf))
    usage = replace(snapshot.usage, slack_since_s=since, usable=usable)
    hours = (boottime_s - snapshot.boottime_s) / 3600.0
    sessions = snapshot.sessions
    energy = sessions.energy_kwh + np.where(sessions.plugged, power_kw(site, snapshot.drawn) * hours, 0.0)
    watched = replace(snapshot, usage=usage, sessions=replace(sessions, energy_kwh=energy))
    charging = sessions.plugged & (ceiling > 0.0)
    waiting = sessions.plugged & sessions.served & ~charging & ~idle(watched, boottime_s)
    return replace(watched, usage=watch_turns(usage, charging, waiting, energy, snapshot.boottime_s, boottime_s))


def power_kw(site: CompiledSite, drawn: Floats) -> Floats:
    """(n,) power of a reading (n, 3) at nominal voltage and unity power factor [kW]."""
    posts = site.electrical.posts
    three_phase = (posts.phase_count == 3) & ~posts.is_dc
    units = np.where(three_phase, drawn.sum(axis=1) / 3.0, drawn.max(axis=1))
    power: Floats = units * posts.kw_per_unit
    return power


def idle(snapshot: Snapshot, boottime_s: float) -> Bools:
    """(n,) cars that have drawn nothing of what they were offered for ``IDLE_S``."""
    return (boottime_s - snapshot.usage.slack_since_s >= IDLE_S) & (largest_phase(snapshot.drawn) < PRESSING)


def demands_of(
    site: CompiledSite, snapshot: Snapshot, takes: Bools, worst: Floats, uncontrolled: Floats, boottime_s: float
) -> Demands:
    """The columns for the allocation.

    Args:
        site: the compiled site.
        snapshot: after ``watch_usage``.
        takes: (n,) EVSEs that can be granted something now; the others count at what they may do by themselves.
        worst: (n,) W [own unit].
        uncontrolled: (L,) load not under control [limit unit].
        boottime_s: the tick's instant.
    """
    sessions = snapshot.sessions
    reserve = leases.reserve(snapshot.leases, site.terms, sessions.plugged)
    silent = ~leases.reachable(snapshot.leases, site.terms, boottime_s) & np.isfinite(snapshot.leases.echo_at_s)
    may_charge = takes & ~resting(snapshot.usage, boottime_s)
    upper = np.where(may_charge, np.minimum(sessions.max_ceiling, snapshot.usage.usable), 0.0)
    return Demands(
        weight=sessions.weight,
        upper=upper,
        minimum=sessions.min_ceiling,
        floor=np.where(silent, worst, reserve),
        priority=np.where(idle(snapshot, boottime_s), IDLE_CLASS, sessions.priority),
        least_served=service_order(snapshot.usage, boottime_s),
        overdue=overdue(snapshot.usage),
        target=upper,
        uncontrolled=uncontrolled,
    )
