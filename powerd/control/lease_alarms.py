"""What the lease book has to say to an operator: overshoots, silence, cars that disobey, controllers that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from powerd.allocation.allocate import Allocation
from powerd.compiled import kernel, read
from powerd.control.compiled import CompiledSite
from powerd.limits import Bools, Floats, Ints, Limits
from powerd.network.electrical import Electrical
from powerd.network.tolerance import tolerated_s
from powerd.state import leases
from powerd.state.lease_book import LeaseBook
from powerd.state.overshoot import Cause, Overshoot
from powerd.state.reaction import OBEYED_S
from powerd.state.snapshot import Snapshot
from powerd.units import ROW_TOLERANCE

LONG_WAIT_S = 7200.0
"""A car that has waited for so long waits for longer than a turn of eight cars one after the other takes [s]."""

WHY: dict[Cause, str] = {
    "limit_fell": "",
    "phase_return": ", for a car came back on a phase that it had not used",
    "out_of_step": ", for a car no longer takes the same on all of its phases",
}
"""What began an overshoot, where the limit itself did not."""


def overshoot_alarms(site: CompiledSite, state: Snapshot, drawn: Floats, uncontrolled: Floats) -> Iterator[str]:
    """One sentence for each overshoot that lasts, and one when what is measured is within the limit again.

    Args:
        site: in the tick's switching state.
        state: after the tick.
        drawn: (n,) newest readings, largest phase [own unit].
        uncontrolled: (L,) load not under control [limit unit].
    """
    now_s, limits, lasting = state.boottime_s, site.limits, [one for one in state.overshoots if one.lasts]
    yield from (_complied(site.electrical, one) for one in state.overshoots if one.since_s < one.complied_s == now_s)
    if not lasting:
        return
    stands = leases.standing(state.leases, site.terms, state.sessions.plugged, drawn, now_s)
    settled = leases.settled(state.leases, site.terms, stands, now_s)
    flow, seen = limits.limit_flow(stands.worst) + uncontrolled, limits.limit_flow(drawn) + uncontrolled
    above, evse, _ = limits.entries()
    ahead = stands.worst > settled + ROW_TOLERANCE
    for one in lasting:
        l = limits.name.index(one.limit)
        could = f"{_limit_named(limits, l)} could carry {flow[l]:.1f} {one.unit}"
        over = f"{flow[l] - limits.capacity[l]:.1f} {one.unit} more than it may{WHY[one.cause]}"
        since = f"for {now_s - one.since_s:.0f} s now; measured now: {seen[l]:.1f} {one.unit}"
        below = np.unique(evse[above == l])
        who = _behind(site, state.leases, below[ahead[below]], now_s)
        yield f"declared overshoot: {could}, {over}, {since}: {who}; {_over_when(one, now_s)}"


def _over_when(one: Overshoot, now_s: float) -> str:
    """How it ends."""
    if one.until_s == np.inf:
        return "over when that ends, or the limit rises"
    if now_s > one.until_s:
        return f"it should have been over {now_s - one.until_s:.0f} s ago: please report this"
    return f"over in {one.until_s - now_s:.0f} s at the latest"


def _behind(site: CompiledSite, book: LeaseBook, evse: Ints, now_s: float) -> str:
    """Why these EVSEs, (k,), could draw more than they are to."""
    ids, owner = site.electrical.posts.ids, site.electrical.posts.controller
    defiant, reachable = book.defiant[evse], leases.reachable(book, site.terms, now_s)[evse]
    found = []
    if defiant.any():
        found.append(f"{named_few([ids[i] for i in evse[defiant]])} drew more than allowed")
    if (silent := ~defiant & ~reachable).any():
        names = [site.electrical.controllers.ids[c] for c in np.unique(owner[evse[silent]])]
        found.append(f"controller {named_few(names)} is silent")
    if (late := ~defiant & reachable).any():
        found.append(f"{named_few([ids[i] for i in evse[late]])} may not have followed yet")
    return ", ".join(found) or "other loads and what EVSEs draw without a grant do not fit"


def named_few(names: Sequence[str]) -> str:
    """One or two names, of more the first and how many."""
    return " and ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"


def overbooked_alarms(site: CompiledSite) -> Iterator[str]:
    """One sentence for each limit of the present switching state that breaks R5."""
    for name in site.overbooked:
        yield f"{name} does not hold what EVSEs and other loads can draw without a grant in this switching state"


def _complied(electrical: Electrical, one: Overshoot) -> str:
    """How long it took until the sum of the readings was within the limit, beside what the element tolerates."""
    took = (
        f"measured: {one.limit} was over for {one.complied_s - one.since_s:.1f} s, at most at {one.peak:.1f} {one.unit}"
    )
    stands_s = tolerance_s(electrical, one)
    return f"{took}; it stands that {'for ever' if stands_s == np.inf else f'for {stands_s:.0f} s'}"


def tolerance_s(electrical: Electrical, one: Overshoot) -> float:
    """How long the element stands the largest current measured, hot, at its earliest edge [s]; inf = no known end."""
    if one.unit != "A" or one.element not in electrical.branches.ids:
        return float(np.inf)
    branch = electrical.branches.ids.index(one.element)
    return tolerated_s(electrical.overload[branch], one.peak, to_side=", low side" in one.limit)


def silence_alarms(site: CompiledSite, silent: Bools) -> Iterator[str]:
    """One sentence for each controller with silent cars; ``silent`` (n,)."""
    owner = site.electrical.posts.controller
    for c in sorted(set(owner[silent].tolist())):
        count = int(np.sum(silent & (owner == c)))
        name = site.electrical.controllers.ids[c]
        yield f"controller {name} is silent: {count} EVSEs with a car count at the most they could draw"


def unsettled_alarms(site: CompiledSite, waits: Bools) -> Iterator[str]:
    """One sentence for each EVSE whose car waits, (n,), for a post that does not answer its controller."""
    for i in np.flatnonzero(waits):
        yield f"{site.electrical.posts.ids[i]} has not taken its controller's first order: until it has, its car waits"


def waiting_alarms(
    site: CompiledSite, state: Snapshot, waits: Bools, limits: Limits, allocation: Allocation, uncontrolled: Floats
) -> Iterator[str]:
    """Why cars wait for their turn for very long: a sentence for each, or for each limit below all that they take.

    Args:
        site: in the tick's switching state.
        state: after the tick.
        waits: (n,) whose cars do.
        limits: under which it was decided what each should get.
        allocation: that.
        uncontrolled: (L,) load not under control [limit unit].
    """
    if not waits.any():
        return
    ids, hours = site.electrical.posts.ids, f"waited for more than {LONG_WAIT_S / 3600:g} h"
    below = _too_low(site.limits, site.limits.capacity - uncontrolled, site.bounds_of(state.sessions)[0], waits)
    for l in sorted(set(below[below >= 0].tolist())):
        first, *more = (ids[i] for i in np.flatnonzero(below == l))
        who = f"{first} and {len(more)} more: their cars have {hours}" if more else f"{first}: its car has {hours}"
        room, least = _limit_named(site.limits, l), "that any of them needs" if more else "that it needs"
        yield f"{who}: {room} has less room than the least {least}, whoever else charges"
    for i in np.flatnonzero(waits & (below < 0)):
        held = int(allocation.binding_limit[i])
        room = _limit_named(limits, held) if held >= 0 else "what is above it"
        beside = "beside who goes first and what posts fall back to"
        yield f"{ids[i]}: its car has {hours}: {room} leaves it no turn {beside}"


def _too_low(limits: Limits, room: Floats, least: Floats, waits: Bools) -> Ints:
    """(n,) the limit with the least room, (L,), of those that not even ``least`` of the car alone fits; -1 = none."""
    above, evse, size = limits.entries()
    needs = size * least[evse]
    over = np.flatnonzero(waits[evse] & (needs > room[above] + ROW_TOLERANCE))
    order = over[np.argsort(room[above[over]] / needs[over], kind="stable")[::-1]]
    found = np.full(waits.shape, -1)
    found[evse[order]] = above[order]  # the last one counts
    return found


def _limit_named(limits: Limits, l: int) -> str:
    """A limit and where its number is from."""
    return f"{limits.name[l]} ({limits.source[l]})" if limits.source[l] else limits.name[l]


@kernel
def _all_as_drawn(
    defiant: Bools, late_s: Floats, barred: Floats, said: tuple[Floats, ...], own: tuple[Floats, ...]
) -> bool:
    """Everybody obeys, and is as the site file says: so it is in most ticks."""
    for i in range(defiant.shape[0]):
        if defiant[i] or late_s[i] > 0.0 or not np.isnan(barred[i]):
            return False
    for k in range(len(said)):
        for i in range(defiant.shape[0]):
            if not np.isnan(said[k][i]) and said[k][i] != own[k][i]:
                return False
    return True


def defiance(site: CompiledSite, state: Snapshot, i: int) -> str:
    """What EVSE ``i``, whose car is non-compliant, does, what that means, and how it ends."""
    book, now_s, unit = state.leases, state.boottime_s, "kW" if site.electrical.posts.is_dc[i] else "A"
    ceiling = leases.in_force(book, site.terms, state.sessions.plugged, now_s)[i]
    counts = f"it counts at its rating, {site.terms.rating[i]:.4g} {unit}"
    reads = f"{state.drawn[i].max():.4g} {unit}"
    if np.isinf(book.obeyed_since_s[i]):
        why = f"it draws {reads}, more than any ceiling it had within a minute (now {ceiling:.4g} {unit})"
        return f"{why}: {counts}, until it has obeyed for {OBEYED_S:.0f} s"
    obeyed_s = now_s - book.obeyed_since_s[i]
    why = f"it drew more than its ceilings, and obeys for {obeyed_s:.0f} s now ({reads} of {ceiling:.4g} {unit})"
    left = f"for {OBEYED_S - obeyed_s:.0f} s more" if obeyed_s < OBEYED_S else "until its controller speaks again"
    return f"{why}: {counts}, {left}"


def conduct_alarms(site: CompiledSite, state: Snapshot) -> Iterator[str]:
    """One sentence for each car that disobeys and each EVSE that is not as the site file says."""
    book, ids, terms = state.leases, site.electrical.posts.ids, site.terms
    said = read(book.said_fallback), read(book.said_idle), read(book.said_boot)
    own = read(terms.fallback), read(terms.fallback_idle), read(terms.boot)
    if _all_as_drawn(read(book.defiant), read(book.late_s), read(book.barred_ceiling), said, own):
        return
    for i in np.flatnonzero(book.defiant):
        yield f"{ids[i]}: {defiance(site, state, int(i))}"
    for what, theirs, ours in zip(("fallback", "idle fallback", "boot current"), said, own, strict=True):
        for i in np.flatnonzero(~np.isnan(theirs) & (theirs != ours)):
            pair = f"its controller says {what} {theirs[i]:g}, the site file {ours[i]:g}"
            yield f"{ids[i]}: {pair}: the larger is reserved"
    for c in sorted(set(site.electrical.posts.controller[~np.isnan(book.barred_ceiling)].tolist())):
        name = site.electrical.controllers.ids[c]
        yield (
            f"controller {name} claims an epoch far above ours, {book.epoch}, or one above ours while the disk cannot "
            "take a new one: until that is over it gets no grants"
        )
    for i in np.flatnonzero(book.late_s > 0):
        yield f"{ids[i]}: its watchdog is slower than the site file says, or missing: its leases count for longer"
