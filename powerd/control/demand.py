"""What each EVSE asks for this tick, from what drivers said and what meters show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.allocation.demands import Demands
from powerd.control.compiled import CompiledSite
from powerd.limits import Bools, Floats
from powerd.state import leases
from powerd.state.snapshot import Snapshot, Usage, largest_phase

SETTLE_S = 60.0
"""A car that draws less than offered for this long does not want more (cars lag up to 30 s: openeo#13)."""
IDLE_S = 900.0
"""A car that draws nothing for this long goes last when not all minima fit."""
HEADROOM = 2.0
"""Left above what such a car draws, so that it can show that it wants more [own unit]."""
PRESSING = 0.75
"""Closer than this to its ceiling a car is taken to want more [own unit]; less than one pilot step of 1 A."""
ROTATION_S = 900.0
"""Period in which the order of service is renewed: WARP's 15 minutes, long against minimum on-times."""


def watch_usage(site: CompiledSite, snapshot: Snapshot, boottime_s: float) -> Snapshot:
    """Energy and usage since the last step, from the readings that held meanwhile."""
    drawn = largest_phase(snapshot.drawn)
    ceiling = leases.in_force(snapshot.leases, site.terms, snapshot.sessions.plugged, boottime_s)
    metered = np.isfinite(snapshot.drawn_at_s)  # a post that never sent a reading of this car tells nothing
    slack = snapshot.sessions.plugged & metered & (drawn < ceiling - PRESSING)
    since = np.where(slack, np.minimum(snapshot.usage.slack_since_s, boottime_s), np.inf)
    settled = boottime_s - since >= SETTLE_S
    bound = site.next_step_up(np.maximum(drawn + HEADROOM, snapshot.sessions.min_ceiling))
    usable = np.where(settled, bound, np.where(slack, snapshot.usage.usable, np.inf))
    usage = replace(snapshot.usage, slack_since_s=since, usable=usable)
    hours = (boottime_s - snapshot.boottime_s) / 3600.0
    sessions = snapshot.sessions
    energy = sessions.energy_kwh + np.where(sessions.plugged, power_kw(site, snapshot.drawn) * hours, 0.0)
    sessions = replace(sessions, energy_kwh=energy)
    return _renew_order(replace(snapshot, usage=usage, sessions=sessions), boottime_s)


def power_kw(site: CompiledSite, drawn: Floats) -> Floats:
    """(n,) power of a reading (n, 3) at nominal voltage and unity power factor [kW]."""
    posts = site.electrical.posts
    three_phase = (posts.phase_count == 3) & ~posts.is_dc
    units = np.where(three_phase, drawn.sum(axis=1) / 3.0, drawn.max(axis=1))
    power: Floats = units * posts.kw_per_unit
    return power


def _renew_order(snapshot: Snapshot, boottime_s: float) -> Snapshot:
    """Once a rotation period: least energy per stated need first, cars that take nothing last."""
    usage = snapshot.usage
    if boottime_s - usage.order_at_s < ROTATION_S:
        return snapshot
    idle = boottime_s - usage.slack_since_s >= IDLE_S
    idle &= largest_phase(snapshot.drawn) < PRESSING
    key = np.where(idle, 1e9, 0.0) + snapshot.sessions.energy_kwh
    return replace(snapshot, usage=_reordered(usage, key, boottime_s))


def _reordered(usage: Usage, key: Floats, boottime_s: float) -> Usage:
    return replace(usage, order_key=key, order_at_s=boottime_s)


def demands_of(site: CompiledSite, snapshot: Snapshot, takes: Bools, worst: Floats, boottime_s: float) -> Demands:
    """The columns for the allocation.

    Args:
        site: the compiled site.
        snapshot: after ``watch_usage``.
        takes: (n,) EVSEs that can be granted something now; the others count at what they may do by themselves.
        worst: (n,) W [own unit].
        boottime_s: the tick's instant.
    """
    sessions = snapshot.sessions
    reserve = leases.reserve(snapshot.leases, site.terms, sessions.plugged)
    silent = ~leases.reachable(snapshot.leases, site.terms, boottime_s) & np.isfinite(snapshot.leases.echo_at_s)
    upper = np.where(takes, np.minimum(sessions.max_ceiling, snapshot.usage.usable), 0.0)
    return Demands(
        weight=sessions.weight,
        upper=upper,
        minimum=sessions.min_ceiling,
        floor=np.where(silent, worst, reserve),
        priority=sessions.priority,
        least_served=snapshot.usage.order_key,
        target=upper,
        uncontrolled=site.loads_worst,
    )
