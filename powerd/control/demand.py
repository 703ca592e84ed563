"""What each EVSE asks for this tick, from what drivers said and what meters show."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from powerd.allocation.demands import Demands
from powerd.allocation.steps import PilotSteps, up_if_any
from powerd.compiled import kernel, read
from powerd.control import turns
from powerd.control.compiled import CompiledSite, PostLines
from powerd.control.phase_switch import within_contactors
from powerd.control.ramp import JUST_ABOVE, reach_after
from powerd.control.reclaim import headroom, is_idle, note_draw
from powerd.control.turns import is_overdue, note_turn, renew_order, rests, service_order
from powerd.limits import Bools, Floats, Ints, Limits
from powerd.state import leases
from powerd.state.columns import kept, replace
from powerd.state.lease_kernels import Handed, Lines, followed, larger
from powerd.state.snapshot import Snapshot

IDLE_CLASS = -1
"""Priority of cars that draw nothing: below every class that can be asked for."""


class _Seen(NamedTuple):
    """What the loop over usage reads besides book and posts, as read-only columns; (n,) unless said otherwise."""

    slack_since_s: Floats
    """See ``Usage``, likewise those up to ``waiting_since_s``."""
    dry_since_s: Floats
    usable: Floats
    reach: Floats
    on_since_s: Floats
    off_since_s: Floats
    waiting_since_s: Floats
    served: Bools
    """See ``Sessions``, likewise the next two."""
    min_ceiling: Floats
    energy_kwh: Floats
    acked_seq: Ints
    """See ``LeaseBook``, likewise the next one."""
    explicit_seq: Ints
    drawn: Floats
    """(n, 3) see ``Snapshot``, likewise the next two."""
    drawn_at_s: Floats
    drawn_stands: Bools
    streamed: Bools
    """See ``LeaseBook``."""


#: Where they are found.
_SEEN: Callable[[Snapshot], tuple[Any, ...]] = attrgetter(
    *(f"usage.{name}" for name in _Seen._fields[: _Seen._fields.index("served")]),
    *("sessions.served", "sessions.min_ceiling", "sessions.energy_kwh", "leases.acked_seq", "leases.explicit_seq"),
    *("drawn", "drawn_at_s", "drawn_stands", "leases.streamed"),
)


def watch_usage(site: CompiledSite, snapshot: Snapshot, boottime_s: float) -> Snapshot:
    """Energy, usage and turns since the last step, from the readings and ceilings that held meanwhile."""
    usage, sessions = snapshot.usage, snapshot.sessions
    book = leases.lines_of(snapshot.leases, site.terms, sessions.plugged)
    seen = (*map(read, _SEEN(snapshot)),)
    energy, slack, dry, usable, reach, on, off, waiting = _watched(
        book, seen, site.post_lines, site.steps, snapshot.boottime_s, boottime_s
    )
    energy = kept(sessions.energy_kwh, energy)
    usage = replace(
        usage,
        slack_since_s=kept(usage.slack_since_s, slack),
        dry_since_s=kept(usage.dry_since_s, dry),
        usable=kept(usage.usable, usable),
        reach=kept(usage.reach, reach),
        on_since_s=kept(usage.on_since_s, on),
        off_since_s=kept(usage.off_since_s, off),
        waiting_since_s=kept(usage.waiting_since_s, waiting),
    )
    usage = renew_order(usage, energy, boottime_s)
    return replace(snapshot, usage=usage, sessions=replace(sessions, energy_kwh=energy))


@kernel
def _power_kw(three_phase: bool, l1: float, l2: float, l3: float, kw_per_unit: float) -> float:
    """Power of a reading at nominal voltage and unity power factor [kW]."""
    return ((l1 + l2 + l3) / 3.0 if three_phase else max(l1, l2, l3)) * kw_per_unit


@kernel
def _watched(
    book: Handed, seen: Handed, posts: Handed, steps: PilotSteps, was_s: float, now_s: float
) -> tuple[Floats, ...]:
    """(n,) each: energy, then usage in the order of its columns, after what was read and allowed since ``was_s``."""
    held, lines, post, ceiling = Lines(*book), _Seen(*seen), PostLines(*posts), followed(book, now_s)
    energy, after = np.empty(ceiling.shape[0]), np.empty((7, ceiling.shape[0]))
    for i in range(ceiling.shape[0]):
        l1, l2, l3 = lines.drawn[i]
        drawn, plugged = max(l1, l2, l3), held.plugged[i]
        # A reading says nothing of what its car draws once the lease that its controller could renew is over.
        known_s = min(now_s, held.echo_at_s[i] + held.ttl_s[i]) - was_s
        power = _power_kw(post.three_phase[i], l1, l2, l3, post.kw_per_unit[i]) if plugged else 0.0
        energy[i] = lines.energy_kwh[i] + power * (max(known_s, 0.0) / 3600.0)

        slack_s, dry_s, usable = lines.slack_since_s[i], lines.dry_since_s[i], lines.usable[i]
        metered = plugged and np.isfinite(lines.drawn_at_s[i])
        stands = lines.drawn_stands[i] and lines.streamed[i] and now_s - held.echo_at_s[i] <= held.ttl_s[i]
        if not metered or stands or lines.drawn_at_s[i] >= was_s:  # else what was known of it stays
            least = up_if_any(steps, i, max(lines.min_ceiling[i], post.least[i]))
            up = up_if_any(steps, i, max(drawn + headroom(drawn), least))
            slack_s, dry_s, usable = note_draw(slack_s, dry_s, usable, drawn, ceiling[i], metered, up, least, now_s)
        after[0, i], after[1, i], after[2, i] = slack_s, dry_s, usable

        next_step = up_if_any(steps, i, ceiling[i] + JUST_ABOVE)
        after[3, i] = reach_after(lines.reach[i], ceiling[i], post.ramp[i], next_step, now_s - was_s)

        charging = plugged and ceiling[i] > 0.0
        waits = plugged and lines.served[i] and not charging and not is_idle(dry_s, now_s)
        # A stop before the first grant turns nobody off until its post has taken it: that is at its idle fallback.
        told = held.granted[i] or lines.acked_seq[i] >= lines.explicit_seq[i]
        told_off = held.sent_ceiling[i] == 0.0 and told
        after[4, i], after[5, i], after[6, i] = note_turn(
            lines.on_since_s[i], lines.off_since_s[i], lines.waiting_since_s[i], charging, told_off, waits, was_s, now_s
        )
    return energy, after[0], after[1], after[2], after[3], after[4], after[5], after[6]


def pausing(site: CompiledSite, snapshot: Snapshot, i: int, boottime_s: float) -> bool:
    """EVSE ``i`` was switched off so lately that it stays off."""
    back_at_s = float(snapshot.gear.back_at_s[site.electrical.evse_bus[i]])
    return _pauses(float(snapshot.usage.off_since_s[i]), back_at_s, turns.MIN_OFF_S, boottime_s)


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
    sessions, usage = snapshot.sessions, snapshot.usage
    upper, least, floor, silent, opens, priority, overdue = _asked(
        (*map(read, _ASKED(snapshot)),),
        site.post_lines,
        site.terms.lines,
        site.steps,
        read(takes),
        read(stands.reserve),
        read(stands.worst),
        turns.MIN_OFF_S,
        boottime_s,
    )
    upper = within_contactors(site, snapshot, upper, boottime_s)
    return Demands(
        weight=sessions.weight,
        upper=upper,
        minimum=least,
        floor=floor,
        silent=silent,
        opens=opens,
        priority=priority,
        least_served=service_order(usage, boottime_s),
        overdue=overdue,
        target=upper,
        uncontrolled=uncontrolled,
    )


class _Asked(NamedTuple):
    """What the loop over demands reads besides posts and terms, as read-only columns; (n,) unless said otherwise."""

    usable: Floats
    """See ``Usage``, likewise those up to ``order_key``."""
    dry_since_s: Floats
    off_since_s: Floats
    order_key: Floats
    min_ceiling: Floats
    """See ``Sessions``, likewise the next two."""
    max_ceiling: Floats
    priority: Ints
    back_at_s: Floats
    """(B,) see ``Switchgear``."""
    echo_at_s: Floats
    """See ``LeaseBook``, likewise the next two."""
    granted: Bools
    said_fallback: Floats


#: Where they are found.
_ASKED: Callable[[Snapshot], tuple[Any, ...]] = attrgetter(
    *(f"usage.{name}" for name in _Asked._fields[: _Asked._fields.index("min_ceiling")]),
    *("sessions.min_ceiling", "sessions.max_ceiling", "sessions.priority", "gear.back_at_s"),
    *("leases.echo_at_s", "leases.granted", "leases.said_fallback"),
)


@kernel
def _pauses(off_since_s: float, back_at_s: float, min_off_s: float, now_s: float) -> bool:
    """Was switched off so lately that it stays off; a car that was off because its voltage was gone has had that."""
    return rests(off_since_s, min_off_s, now_s) and not back_at_s >= off_since_s


@kernel
def _asked(
    asked: Handed,
    posts: Handed,
    terms: Handed,
    steps: PilotSteps,
    takes: Bools,
    reserve: Floats,
    worst: Floats,
    min_off_s: float,
    now_s: float,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Ints, Bools]:
    """(n,) each: upper, minimum, floor, silent, opens, priority and overdue, as in ``Demands``."""
    lines, post, n = _Asked(*asked), PostLines(*posts), takes.shape[0]
    ttl_s, _, _, fallback, _, _, _ = terms
    upper, least, floor, silent, opens = np.zeros(n), np.empty(n), reserve.copy(), np.zeros(n), np.zeros(n)
    priority, overdue = lines.priority.copy(), np.empty(n, np.bool_)
    for i in range(n):
        least[i] = up_if_any(steps, i, max(lines.min_ceiling[i], post.least[i]))
        if takes[i] and not _pauses(lines.off_since_s[i], lines.back_at_s[post.bus[i]], min_off_s, now_s):
            # What a car has left unused does not bound it below what it needs to charge, which may have risen since.
            most = min(lines.max_ceiling[i], post.most[i])
            upper[i] = min(most, max(lines.usable[i], least[i]))
        if np.isfinite(lines.echo_at_s[i]) and not now_s - lines.echo_at_s[i] <= ttl_s[i]:
            floor[i] = silent[i] = worst[i]
        if takes[i] and not lines.granted[i]:
            opens[i] = larger(fallback[i], lines.said_fallback[i])
        if is_idle(lines.dry_since_s[i], now_s):
            priority[i] = IDLE_CLASS
        overdue[i] = is_overdue(lines.order_key[i])
    return upper, least, floor, silent, opens, priority, overdue


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
