"""What else flows under each limit: meters of elements where they speak, the configured worst where they do not.

For a meter m, a phase k (or the power), and a reading I_mk with window T:

    U_mk = max(0, I_mk - sum_j ev[mk, j] d_j(T)),      d_j(T) = the smallest reading of post j whose window overlaps T

is the least that is certainly not charging: meters are not synchronous, so of the readings that may hold only the
smallest is taken off, and of a post without a reading in T nothing. U >= 0: what a generator feeds in makes no room.
For a limit l with the meters M(l) that speak, stand at or below l, and have no such meter above them,

    uncontrolled_l = sum over m in M(l), k of on_limit[l, mk] U_mk + sum over loads behind none of them of their worst

and headroom_l = capacity_l - uncontrolled_l. ``U`` is counted at once where it rises and follows by a low-pass where it
falls. While charging itself moves, the readings only bound it between ``I - sum ev * largest`` and ``I - sum ev *
smallest``: a value that was proved before and lies between the two stays for ``HOLD_S``, else every ramp of a car would
look like a load and take the car down again. Of a post that does not tell of all of T the largest is W, the most that
it could be drawing; a value that stays is at least what remains if it drew no more than it told of a part of T. A
reading above the element's own rating, or in kW above an import limit that it counts under, waits for nothing.

Posts that are read once in a minute, for windows of their own, tell of T a minute late. Until then U_mk is at least

    I_mk - sum_j ev[mk, j] W_j,

which needs none of their readings: what is not charging may be more only as far as charging is less than W, so both
together stay within every limit that holds W and what counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.control.compiled import CompiledSite
from powerd.limits import Bools, Floats, Ints
from powerd.network.metering import by_bus_phase
from powerd.state import meters as readings
from powerd.state.columns import put, replace
from powerd.state.meters import KEPT_S, Meters
from powerd.state.snapshot import Snapshot, standing_readings

SKEW_S = 1.5
"""Windows are known up to this: a tick of 1 s until a message is absorbed, and its transport [s]."""
LATE_S = 5.0
"""Age of a reading from which the meter's margin is added [s]: meters that are worth their name report within 5 s. One
whose windows are longer is late when its next one is."""
HOLD_S = 30.0
"""How long a proved value stays while charging moves [s]: cars lag up to 30 s (minceheid/openeo#13). Where posts are
read more slowly, for two of their windows: the first in which nothing moves proves it anew."""
RISE_S = 30.0
"""Time constant with which headroom that a load gave back comes into use [s]."""
BRISK_S = 5.0
"""Posts that are read slowly are waited for behind meters with windows up to this [s]: W of now is compared with what
flowed in the window, and cars have followed by the time it falls."""
NEAR_SHARE = 0.02
"""A value this close below the proved bound counts as proved: meters of class 1 differ by that (IEC 62053-21)."""


def watch_meters(site: CompiledSite, snapshot: Snapshot, worst: Floats, boottime_s: float) -> Snapshot:
    """Judges the readings whose windows are covered by now; after ``absorb``, with W (n,) of before the grants."""
    meters = snapshot.meters
    if not meters.stamp_s.shape[0]:
        return snapshot
    stands = standing_readings(snapshot)
    heard = np.flatnonzero((snapshot.leases.echo_at_s >= boottime_s) & stands)
    meters = readings.hear_posts(meters, heard, boottime_s)
    stood_s = _stood_s(snapshot, meters, boottime_s)
    slow = _waits_for_slow_posts(site, meters, stood_s)
    for m in np.flatnonzero(site.metering.works).tolist():
        inside = site.metering.behind[m]
        meters = _watch(site, meters, m, np.where(slow[m], stood_s, 0.0)[inside], worst, boottime_s)
    for m in np.flatnonzero(slow).tolist():
        meters = _at_least(site, meters, m, worst)
    return replace(snapshot, meters=meters)


def _waits_for_slow_posts(site: CompiledSite, meters: Meters, stood_s: Floats) -> Bools:
    """(M,) meters whose readings wait for posts that are read slowly; ``stood_s`` (n,) as in ``_stood_s``."""
    brisk = site.metering.works & (readings.windows_of(meters) <= BRISK_S)
    found: Bools = brisk & np.any(site.metering.behind & (stood_s > KEPT_S), axis=1)
    return found


def _stood_s(snapshot: Snapshot, meters: Meters, boottime_s: float) -> Floats:
    """(n,) how long each post's readings stand for [s]; 0 = until another one is told, or it has fallen silent."""
    if not meters.end_s.shape[0]:
        return np.zeros(snapshot.drawn_stands.shape[0])
    span_s = readings.spans_of(meters)
    due = boottime_s - meters.end_s[:, 0] <= KEPT_S + span_s
    return np.where(due & ~standing_readings(snapshot), span_s, 0.0)


def _at_least(site: CompiledSite, meters: Meters, m: int, worst: Floats) -> Meters:
    """What meter ``m`` shows beyond W (n,) is not charging, whatever the posts will tell of it."""
    inside = np.flatnonzero(site.metering.behind[m])
    beyond = meters.newest[m] - _at_meter(site, m, inside, _on_each_phase(site, worst)[inside])
    part = np.where(np.isnan(meters.part[m]), meters.part[m], np.fmax(meters.part[m], beyond))
    return replace(meters, part=put(meters.part, m, part))


def _watch(site: CompiledSite, meters: Meters, m: int, stood_s: Floats, worst: Floats, boottime_s: float) -> Meters:
    """One meter: an overload at once, else the waiting reading once it can be judged.

    ``stood_s`` (k,) is for how long a reading of the posts behind it stands; 0 = that is not waited for.
    """
    if np.isfinite(meters.waiting_end_s[m]):
        within = _charging_within(site, meters, m, stood_s, worst, boottime_s)
        slowest_s = float(stood_s.max(initial=0.0))
        if within.whole or boottime_s - meters.waiting_end_s[m] > KEPT_S + slowest_s:
            meters = readings.wait_with_newest(_judge(meters, m, within, max(HOLD_S, 2.0 * slowest_s)), m)
    newest = meters.newest[m]
    if not np.isfinite(meters.settled_end_s[m]):  # nothing judged yet: all of it counts
        return replace(meters, part=put(meters.part, m, np.fmax(meters.part[m], np.maximum(newest, 0.0))))
    limit = np.append(np.full(3, site.metering.rating_a[m]), site.metering.rating_kw[m])
    over = newest > limit
    if not over.any():
        return meters
    last = _last_charging(site, meters, m, boottime_s)
    at_once = np.where(over, np.fmax(meters.part[m], np.maximum(newest - last, 0.0)), meters.part[m])
    return replace(meters, part=put(meters.part, m, at_once))


def _judge(meters: Meters, m: int, within: _Charging, hold_s: float) -> Meters:
    """What the waiting reading says, given what charging drew ``within`` its window."""
    reading, end_s = meters.waiting[m], float(meters.waiting_end_s[m])
    most, least = np.maximum(reading - within.low, 0.0), reading - within.high
    now = meters.part[m]
    passed = end_s - float(meters.settled_end_s[m])
    known = np.isfinite(meters.settled_end_s[m]) & ~np.isnan(now) & ~np.isnan(most)
    falling = now + (most - now) * -np.expm1(-max(passed, 0.0) / RISE_S) if np.isfinite(passed) else most
    held = (least <= now) & (now < most) & (end_s - meters.sure_at_s[m] <= hold_s)
    stays = np.maximum(now, reading - within.told)
    after = np.where(~known, most, np.where(now >= most, falling, np.where(held, stays, most)))
    after = np.where(np.isnan(most), now, after)  # what a reading leaves out has not fallen
    proved = bool(np.all((after >= most * (1.0 - NEAR_SHARE) - 1e-9) | np.isnan(most)))
    return replace(
        meters,
        part=put(meters.part, m, after),
        settled_end_s=put(meters.settled_end_s, m, end_s),
        sure_at_s=put(meters.sure_at_s, m, end_s if proved else meters.sure_at_s[m]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Charging:
    """What charging behind a meter drew within its waiting window; (4,) each, three phases [A] and power [kW]."""

    low: Floats
    """At least."""
    high: Floats
    """At most."""
    told: Floats
    """At most, if who tells of a part of the window drew no more in the rest of it."""
    whole: bool
    """All posts tell of all of it, or are not waited for."""


def _charging_within(
    site: CompiledSite, meters: Meters, m: int, stood_s: Floats, worst: Floats, boottime_s: float
) -> _Charging:
    """What charging behind meter m drew in the waiting window.

    A post that does not cover the window counts between nothing and W. Who is read more slowly, ``stood_s`` (k,), is
    waited for until his next reading is due.
    """
    inside = np.flatnonzero(site.metering.behind[m])
    early, late = meters.waiting_start_s[m] - SKEW_S, meters.waiting_end_s[m] + SKEW_S
    start, end = meters.start_s[inside], meters.end_s[inside]
    overlaps = (end >= early) & (start <= late)
    covered = _covered(start, end, float(early), float(late))
    low = np.where(overlaps[:, :, None], meters.low[inside], np.inf).min(axis=1, initial=np.inf)
    high = np.where(overlaps[:, :, None], meters.high[inside], 0.0).max(axis=1, initial=0.0)
    low = np.where(covered[:, None] & np.isfinite(low), low, 0.0)
    rating, most = (_on_each_phase(site, column)[inside] for column in (site.electrical.posts.max_ceiling, worst))
    high = np.minimum(high, rating)
    return _Charging(
        low=_at_meter(site, m, inside, low),
        high=_at_meter(site, m, inside, np.where(covered[:, None], high, most)),
        told=_at_meter(site, m, inside, np.where(overlaps.any(axis=1)[:, None], high, most)),
        whole=not np.any(~covered & (boottime_s - end[:, 0] <= KEPT_S + stood_s)),
    )


def _on_each_phase(site: CompiledSite, ceiling: Floats) -> Floats:
    """(n, 3) readings of posts that draw their ceiling (n,) on every phase [A; DC: kW, 0, 0]."""
    return np.where(site.electrical.posts.is_dc[:, None], [1.0, 0.0, 0.0], 1.0) * ceiling[:, None]


def _covered(start: Floats, end: Floats, early: float, late: float) -> Bools:
    """(k,) True where a post's windows (k, WINDOWS), newest first, cover [early, late] without a gap."""
    covered: Bools = end[:, 0] >= late
    reach = start[:, 0].copy()
    for h in range(1, start.shape[1]):
        joined = (reach > early) & (end[:, h] >= reach - 1e-6)
        reach = np.where(joined, start[:, h], reach)
    return covered & (reach <= early)


def _at_meter(site: CompiledSite, m: int, inside: Ints, reading: Floats) -> Floats:
    """(4,) what readings (k, 3) of the posts ``inside`` put on the meter at least: three phases [A], power [kW]."""
    whole = np.zeros((site.electrical.evse_count, 3))
    whole[inside] = reading
    column = by_bus_phase(site.electrical, whole).ravel()
    metering, phases = site.metering, slice(3 * m, 3 * m + 3)
    current = metering.ev_current[phases] @ column - metering.ev_against[phases]
    return np.append(np.maximum(current, 0.0), metering.ev_power[[m]] @ column)


def _last_charging(site: CompiledSite, meters: Meters, m: int, boottime_s: float) -> Floats:
    """(4,) what charging behind meter m draws by the smallest of the posts' newest windows; silent posts: nothing."""
    inside = np.flatnonzero(site.metering.behind[m])
    fresh = boottime_s - meters.end_s[inside, 0] <= KEPT_S
    return _at_meter(site, m, inside, np.where(fresh[:, None], meters.low[inside, 0], 0.0))


def trusted(site: CompiledSite, meters: Meters, boottime_s: float) -> Bools:
    """(M,) meters that spoke recently enough."""
    age = boottime_s - meters.newest_end_s
    found: Bools = site.metering.works & (age <= site.electrical.meters.stale_after_s)
    return found


def uncontrolled(site: CompiledSite, meters: Meters, boottime_s: float) -> Floats:
    """(L,) load not under control that each limit must reckon with [limit unit]; see the module's inequality.

    A meter that fell silent, or leaves out what it told before, does not make room by that: what its loads are
    configured for and its last word with the margin are both reckoned with.
    """
    if not meters.stamp_s.shape[0]:
        return site.loads_worst
    points = site.electrical.meters
    late = boottime_s - meters.newest_end_s > np.maximum(LATE_S, readings.windows_of(meters) + SKEW_S)
    left_out = np.isnan(meters.newest)
    last = np.where(left_out, meters.part, np.abs(meters.newest))
    value = meters.part + np.where(late[:, None] | left_out, points.margin[:, None] * last, 0.0)
    left_out[:, 3] &= ~_known(meters.newest)[0]  # three currents tell of the power, too
    value[:, 3] = np.where(np.isnan(meters.newest[:, 3]) & ~left_out[:, 3], np.nan, value[:, 3])
    speaks = trusted(site, meters, boottime_s)[:, None] & ~left_out
    spoke = site.metering.works & np.isfinite(meters.newest_end_s)
    worst = np.where(np.isnan(points.worst_a), np.nan, points.worst_a)
    stated = np.column_stack([np.repeat(worst[:, None], 3, axis=1), np.full(worst.shape[0], np.nan)])
    now = _on_limits(site, np.where(speaks, value, stated))
    before = _on_limits(site, np.where(spoke[:, None], np.fmax(value, np.where(speaks, np.nan, stated)), stated))
    return np.maximum(now, before)


def _on_limits(site: CompiledSite, value: Floats) -> Floats:
    """(L,) the sum of the module's inequality for values (M, 4); nan = that meter does not speak."""
    metering = site.metering
    amps, power = _known(value)
    live = metering.reaches & np.where(metering.in_kw[None, :], (amps | power)[:, None], amps[:, None])
    live &= metering.works[:, None]
    hidden = (metering.above.astype(np.float64) @ live.astype(np.float64)) > 0.0
    chosen = live & ~hidden
    total = _loads_unseen(site, live)
    total += _blind(site, live)
    for m in np.flatnonzero(chosen.any(axis=1)):
        own = np.flatnonzero(chosen[m])
        current = metering.on_limit[own][:, [3 * m, 3 * m + 1, 3 * m + 2]] @ np.nan_to_num(value[m, :3])
        total[own] += np.where(metering.in_kw[own] & power[m], np.nan_to_num(value[m, 3]), current)
    return total


def _known(value: Floats) -> tuple[Bools, Bools]:
    """(M,) which meters show all three currents, and which the power."""
    known = np.isfinite(value)
    amps, power = known[:, :3].all(axis=1), known[:, 3]
    return np.asarray(amps), power


def _loads_unseen(site: CompiledSite, live: Bools) -> Floats:
    """(L,) worst of the loads that no speaking meter at or below the limit sees [limit unit]."""
    entry = site.load_on_limit.tocoo()
    seen = (live[:, entry.row] & site.metering.seen[:, entry.col]).any(axis=0)
    total = np.zeros(site.loads_worst.shape[0])
    np.add.at(total, entry.row, np.where(seen, 0.0, entry.data))
    return total


def _blind(site: CompiledSite, live: Bools) -> Floats:
    """(L,) for silent meters behind which no load is drawn: the whole limit of their element, at most the limit's own.

    A speaking meter above a silent one sees what that one does not tell.
    """
    metering, capacity = site.metering, site.limits.capacity
    total = np.zeros(capacity.shape[0])
    for m in np.flatnonzero(metering.works & ~site.meters_loads):
        own = metering.reaches[m] & ~live[m] & ~(metering.above[m][:, None] & live).any(axis=0)
        share = metering.on_limit[:, [3 * m, 3 * m + 1, 3 * m + 2]].sum(axis=1)
        most = share * metering.rating_a[m] if np.isfinite(metering.rating_a[m]) else np.full(share.shape, np.inf)
        total += np.where(own, np.minimum(capacity, np.where(own, most, 0.0)), 0.0)
    return total


def meter_alarms(site: CompiledSite, meters: Meters, boottime_s: float) -> tuple[str, ...]:
    """Meters that do not speak, or not of currents where those are limited, with what counts instead."""
    if not meters.stamp_s.shape[0]:
        return ()
    points, speaks = site.electrical.meters, trusted(site, meters, boottime_s)
    amps = (site.metering.reaches & ~site.metering.in_kw[None, :]).any(axis=1)
    blind = speaks & amps & ~_known(meters.newest)[0]
    silent = site.metering.works & ~speaks
    return (
        *(f"meter {points.ids[m]} is silent: {_instead(site, int(m))}" for m in np.flatnonzero(silent)),
        *(
            f"meter {points.ids[m]} does not tell three currents: under limits in A {_instead(site, int(m))}"
            for m in np.flatnonzero(blind)
        ),
    )


def _instead(site: CompiledSite, m: int) -> str:
    """What counts where meter ``m`` does not tell."""
    worst_a = site.electrical.meters.worst_a[m]
    if not np.isnan(worst_a):
        return f"its configured worst of {worst_a:g} A counts"
    return "the loads behind it count at their worst" if site.meters_loads[m] else "the whole limit counts as taken"
