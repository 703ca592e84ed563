"""What each EVSE asks for this tick, from what drivers said and what meters show."""

from __future__ import annotations

import numpy as np

from powerd.allocation.demands import Demands
from powerd.control.compiled import CompiledSite
from powerd.control.phase_switch import within_contactors
from powerd.control.ramp import watch_reach
from powerd.control.reclaim import idle, watch_draw
from powerd.control.turns import overdue, resting, service_order, watch_turns
from powerd.limits import Bools, Floats, Limits
from powerd.state import leases
from powerd.state.columns import kept, replace
from powerd.state.snapshot import Snapshot, largest_phase

IDLE_CLASS = -1
"""Priority of cars that draw nothing: below every class that can be asked for."""


def watch_usage(site: CompiledSite, snapshot: Snapshot, boottime_s: float) -> Snapshot:
    """Energy, usage and turns since the last step, from the readings and ceilings that held meanwhile."""
    sessions, book, drawn = snapshot.sessions, snapshot.leases, largest_phase(snapshot.drawn)
    ceiling = leases.in_force(book, site.terms, sessions.plugged, boottime_s)
    least, _ = site.bounds_of(sessions)
    metered = sessions.plugged & np.isfinite(snapshot.drawn_at_s)
    stands = snapshot.drawn_stands & leases.reachable(book, site.terms, boottime_s)
    fresh = stands | (snapshot.drawn_at_s >= snapshot.boottime_s)
    usage = watch_draw(snapshot.usage, drawn, ceiling, metered, fresh, least, site.next_step_up, boottime_s)
    # A reading says nothing of what its car draws once the lease that its controller could renew is over.
    known_s = np.minimum(boottime_s, book.echo_at_s + site.terms.ttl_s) - snapshot.boottime_s
    hours = np.maximum(known_s, 0.0) / 3600.0
    energy = sessions.energy_kwh + np.where(sessions.plugged, power_kw(site, snapshot.drawn) * hours, 0.0)
    charging = sessions.plugged & (ceiling > 0.0)
    waiting = sessions.plugged & sessions.served & ~charging & ~idle(usage, boottime_s)
    # A stop before the first grant turns nobody off until its post has taken it: that is at its idle fallback.
    told_off = (book.sent_ceiling == 0.0) & (book.granted | (book.acked_seq >= book.explicit_seq))
    usage = watch_turns(usage, charging, told_off, waiting, energy, snapshot.boottime_s, boottime_s)
    reach = watch_reach(
        usage.reach, ceiling, site.electrical.evse_ramp, site.next_step_up, boottime_s - snapshot.boottime_s
    )
    usage = replace(usage, reach=kept(usage.reach, reach))
    sessions = replace(sessions, energy_kwh=kept(sessions.energy_kwh, energy))
    return replace(snapshot, usage=usage, sessions=sessions)


def power_kw(site: CompiledSite, drawn: Floats) -> Floats:
    """(n,) power of a reading (n, 3) at nominal voltage and unity power factor [kW]."""
    posts = site.electrical.posts
    three_phase = (posts.phase_count == 3) & ~posts.is_dc
    together = drawn[:, 0] + drawn[:, 1] + drawn[:, 2]
    units = np.where(three_phase, together / 3.0, largest_phase(drawn))
    power: Floats = units * posts.kw_per_unit
    return power


def pausing(site: CompiledSite, snapshot: Snapshot, boottime_s: float) -> Bools:
    """(n,) was switched off so lately that it stays off."""
    # A car that was off because its voltage was gone has had its pause.
    returned = snapshot.gear.back_at_s[site.electrical.evse_bus] >= snapshot.usage.off_since_s
    return resting(snapshot.usage, boottime_s) & ~returned


def demands_of(
    site: CompiledSite,
    snapshot: Snapshot,
    takes: Bools,
    stands: leases.Standing,
    uncontrolled: Floats,
    boottime_s: float,
) -> Demands:
    """The columns for the allocation.

    Args:
        site: the compiled site.
        snapshot: after ``watch_usage``.
        takes: (n,) EVSEs that can be granted something now; the others count at what they may do by themselves.
        stands: how every EVSE stands before this tick's grants.
        uncontrolled: (L,) load not under control [limit unit].
        boottime_s: the tick's instant.
    """
    sessions = snapshot.sessions
    silent = ~leases.reachable(snapshot.leases, site.terms, boottime_s) & np.isfinite(snapshot.leases.echo_at_s)
    may_charge = takes & ~pausing(site, snapshot, boottime_s)
    least, most = site.bounds_of(sessions)
    # What a car has left unused does not bound it below what it needs to charge at all, which may have risen since.
    upper = np.where(may_charge, np.minimum(most, np.maximum(snapshot.usage.usable, least)), 0.0)
    upper = within_contactors(site, snapshot, upper, boottime_s)
    return Demands(
        weight=sessions.weight,
        upper=upper,
        minimum=least,
        floor=np.where(silent, stands.worst, stands.reserve),
        silent=np.where(silent, stands.worst, 0.0),
        opens=np.where(takes & ~snapshot.leases.granted, leases.fallback_of(snapshot.leases, site.terms), 0.0),
        priority=np.where(idle(snapshot.usage, boottime_s), IDLE_CLASS, sessions.priority),
        least_served=service_order(snapshot.usage, boottime_s),
        overdue=overdue(snapshot.usage),
        target=upper,
        uncontrolled=uncontrolled,
    )


def over_reserved(limits: Limits, least: Floats, uncontrolled: Floats, snapshot: Snapshot) -> Bools:
    """(L,) limits that do not hold what EVSEs may draw without a grant, as under an envelope below the fallbacks.

    W exceeds such a limit, so an overshoot of it is told: without one nobody has to look. ``least`` (n,) is that
    [own unit], ``uncontrolled`` (L,) the load not under control [limit unit].
    """
    if not any(one.lasts for one in snapshot.overshoots):
        return np.zeros(limits.capacity.shape, np.bool_)
    over: Bools = limits.limit_flow(least) > limits.capacity - uncontrolled + limits.trace
    return over


def unopened(limits: Limits, demands: Demands, over: Bools) -> Demands:
    """Who was granted nothing yet asks for nothing under a limit of ``over`` (L,): his fallback would open, and W grow.

    To ask would only take from others what he cannot get.
    """
    if not over.any():
        return demands
    limit, evse, _ = limits.entries()
    below = np.isin(np.arange(demands.floor.shape[0]), evse[over[limit]])
    upper = np.where(below & (demands.opens > demands.floor), 0.0, demands.upper)
    return replace(demands, upper=upper, target=np.minimum(demands.target, upper))
